"""Manifests: the committed ones hold together, malformed ones are refused with one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sepbench.data.files.manifests import load_manifest, manifest_names, read_manifest
from sepbench.errors import DataError, UnknownNameError

HEAD = 'name = "toy"\ntitle = "t"\nlicence = "l"\ncitation = "c"\nhomepage = "h"\n'
FILE = f'[[files]]\nname = "a.bin"\nsize = 3\nsha256 = "{"0" * 64}"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "toy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_committed_manifests_are_all_there() -> None:
    names = manifest_names()
    assert {"mnist", "cifar10", "cifar10-mini", "digits", "bags-shoes-mini"} <= set(names)
    assert not {"tasks", "weights"} & set(names)


@pytest.mark.parametrize("name", manifest_names())
def test_a_committed_manifest_loads_and_says_where_data_come_from(name: str) -> None:
    manifest = load_manifest(name)
    assert manifest.name == name
    assert all((manifest.title, manifest.licence, manifest.citation, manifest.homepage.startswith("http")))
    assert sum(map(bool, (manifest.files, manifest.shipped_with, manifest.layout))) == 1


def test_mnist_has_the_published_checksums_and_mirrors() -> None:
    files = {file.name: file for file in load_manifest("mnist").files}
    assert files["t10k-images-idx3-ubyte.gz"].sha256 == "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    assert {name: file.size for name, file in files.items()} == {
        "train-images-idx3-ubyte.gz": 9_912_422,
        "train-labels-idx1-ubyte.gz": 28_881,
        "t10k-images-idx3-ubyte.gz": 1_648_877,
        "t10k-labels-idx1-ubyte.gz": 4_542,
    }
    assert all(len(file.urls) >= 2 and all(url.endswith(file.name) for url in file.urls) for file in files.values())


def test_cifar10_downloads_the_binary_archive_and_takes_any_form() -> None:
    manifest = load_manifest("cifar10")
    assert manifest.download_form == "binary"
    assert manifest.forms == ("binary", "python", "binary-unpacked", "python-unpacked")
    archive = manifest.required("binary")[0]
    assert (archive.md5, archive.algorithm) == ("c32a1d4ab5d03f1284b67883e8d87530", "sha256")
    assert manifest.required("python")[0].md5 == "c58f30108f718f92721af3b95e74349a"
    assert [file.size for file in manifest.required("binary-unpacked")] == [30_730_000] * 6


@pytest.mark.parametrize("name", ["cifar10-mini", "bags-shoes-mini"])
def test_data_without_a_source_are_not_offered_for_download(name: str) -> None:
    assert load_manifest(name).download_form is None


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown data set 'mnits'; did you mean mnist"):
        load_manifest("mnits")


def test_a_manifest_is_read_with_its_defaults(tmp_path: Path) -> None:
    manifest = read_manifest(written(tmp_path, HEAD + FILE))
    (file,) = manifest.files
    assert (file.name, file.size, file.urls, file.optional, file.form) == ("a.bin", 3, (), False, "")
    assert (manifest.forms, manifest.download_form) == (("",), None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("not toml", "cannot be read"),
        (FILE, "'citation' is missing"),
        (HEAD, "either files, or shipped_with"),
        (HEAD + 'shipped_with = "x"\n', "either files, or shipped_with"),
        (HEAD + 'shipped_with = "x"\narray_sha256 = "y"\n' + FILE, "either files, or shipped_with"),
        (HEAD + "files = 3\n", "array of tables"),
        (HEAD + 'layout = ["a"]\n', "or layout and how"),
        (HEAD + 'made_by = "m"\nlayout = ["a"]\nhow = "buy it"\n', "with made_by it needs files"),
        (HEAD + 'made_by = "m"\n' + FILE + 'urls = ["https://a"]\n', "without urls"),
        (HEAD + 'layout = ["a"]\nhow = "buy it"\n' + FILE, "or layout and how"),
        (HEAD + 'layout = ["../a"]\nhow = "buy it"\n', "inside the data set's folder"),
        (HEAD + 'layout = [3]\nhow = "buy it"\n', "inside the data set's folder"),
        (HEAD + 'layout = "a"\nhow = "buy it"\n', "layout must be list"),
        (HEAD + "colour = 1\n" + FILE, "unknown key 'colour'"),
        (HEAD.replace("toy", "other") + FILE, "must be 'toy'"),
        (HEAD.replace('"t"', "7") + FILE, "title must be str"),
        (HEAD + FILE.replace("size = 3\n", ""), "'size' is missing"),
        (HEAD + FILE.replace("size = 3", "size = 0"), "positive number of bytes"),
        (HEAD + FILE.replace("size = 3", "size = true"), "size must be int"),
        (HEAD + FILE.replace("0" * 64, "0" * 63), "hex digest of 64"),
        (HEAD + FILE.replace("0" * 64, "A" * 64), "lower-case hex"),
        (HEAD + FILE.replace(f'sha256 = "{"0" * 64}"', ""), "sha256 or md5 is missing"),
        (HEAD + FILE.replace("a.bin", "../a.bin"), "inside the data set's folder"),
        (HEAD + FILE.replace("a.bin", "/etc/a.bin"), "inside the data set's folder"),
        (HEAD + FILE + 'urls = ["file:///etc/passwd"]\n', "no http"),
        (HEAD + FILE + "urls = [3]\n", "no http"),
        (HEAD + FILE + "optional = true\n", "are optional"),
        (HEAD + FILE + FILE, "listed twice"),
    ],
)
def test_a_malformed_manifest_is_refused_in_one_line(tmp_path: Path, text: str, problem: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError, match=problem) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


LISTED = HEAD + 'listing = "list.csv"\n'
LINE = f"a.bin,3,{'0' * 64}\n"


def test_many_files_stand_in_a_listing(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("name,size,sha256\n" + LINE + LINE.replace("a.bin", "sub/b.bin"))
    manifest = read_manifest(written(tmp_path, LISTED))
    assert [(file.name, file.size, file.digest) for file in manifest.files] == [("a.bin", 3, "0" * 64), ("sub/b.bin", 3, "0" * 64)]


@pytest.mark.parametrize(
    ("listing", "text", "problem"),
    [
        (None, LISTED, r"the listing .*list\.csv cannot be read"),
        (LINE, LISTED, r"list\.csv is malformed: it must start with name,size,sha256"),
        ("name,size,sha256\na.bin,3\n", LISTED, r"list\.csv is malformed: line 2 must be name,size,sha256, found 'a\.bin,3'"),
        ("name,size,sha256\n" + LINE.replace(",3,", ",three,"), LISTED, "line 2 must be"),
        ("name,size,sha256\n" + LINE + LINE.replace("a.bin", "../b"), LISTED, r"line 3: the name '\.\./b' must be a relative path"),
        ("name,size,sha256\n" + LINE.replace("0", "x"), LISTED, "line 2: 'x+' is no lower-case hex digest"),
        ("name,size,sha256\n" + LINE + LINE, LISTED, "listed twice"),
        ("name,size,sha256\n" + LINE, LISTED + FILE, "either files or a listing"),
        ("name,size,sha256\n", LISTED, "needs either files"),
        ("name,size,sha256\n" + LINE, HEAD + "listing = 3\n", "listing must be str"),
    ],
)
def test_a_malformed_listing_is_refused_in_one_line(tmp_path: Path, listing: str | None, text: str, problem: str) -> None:
    if listing is not None:
        (tmp_path / "list.csv").write_text(listing)
    with pytest.raises(DataError, match=problem) as caught:
        read_manifest(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_fsdd_lists_every_recording() -> None:
    manifest = load_manifest("fsdd")
    speakers = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    assert {file.name for file in manifest.files} == {f"recordings/{d}_{s}_{t}.wav" for d in range(10) for s in speakers for t in range(50)}
    assert len({file.digest for file in manifest.files}) == 3000
    assert manifest.download_form is None


def test_a_manifest_that_is_not_there_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_manifest(tmp_path / "toy.toml")
