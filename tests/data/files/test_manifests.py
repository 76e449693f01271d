"""Manifests: the committed ones hold together, malformed ones are refused with one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sepbench.data.files.manifests import DataFile, Manifest, load_manifest, manifest_names, read_manifest
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


WHOLE = """
notes = "n"
cut_from = "cifar10"

[[files]]
name = "sub/a.bin"
size = 3
sha256 = "{sha}"
md5 = "{md5}"
urls = ["http://a", "https://b"]
form = "packed"

[[files]]
name = "b.bin"
size = 4
md5 = "{md5}"
form = "plain"

[[files]]
name = "read.me"
size = 5
sha256 = "{sha}"
optional = true
form = "packed"
"""


def test_every_key_of_a_manifest_is_read(tmp_path: Path) -> None:
    sha, md5 = "0123456789abcdef" * 4, "f" * 32
    packed = DataFile("sub/a.bin", 3, sha256=sha, md5=md5, urls=("http://a", "https://b"), form="packed")
    plain, optional = DataFile("b.bin", 4, md5=md5, form="plain"), DataFile("read.me", 5, sha256=sha, optional=True, form="packed")
    found = read_manifest(written(tmp_path, HEAD + WHOLE.format(sha=sha, md5=md5)))
    assert found == Manifest("toy", "t", "l", "c", "h", (packed, plain, optional), notes="n", cut_from="cifar10")
    assert (found.forms, found.download_form) == (("packed", "plain"), "packed")
    assert found.files_of("packed") == (packed, optional)
    assert (found.required("packed"), found.required("plain")) == ((packed,), (plain,))
    assert [(file.algorithm, file.digest) for file in found.files] == [("sha256", sha), ("md5", md5), ("sha256", sha)]
    shipped = read_manifest(written(tmp_path, HEAD + 'shipped_with = "sklearn"\narray_sha256 = "y"\n'))
    assert shipped == Manifest("toy", "t", "l", "c", "h", shipped_with="sklearn", array_sha256="y")
    laid_out = read_manifest(written(tmp_path, HEAD + 'layout = ["a", "*/b"]\nhow = "buy it"\n'))
    assert laid_out == Manifest("toy", "t", "l", "c", "h", layout=("a", "*/b"), how="buy it")
    made = read_manifest(written(tmp_path, HEAD + 'made_by = "package.module"\n' + FILE))
    assert made == Manifest("toy", "t", "l", "c", "h", (DataFile("a.bin", 3, sha256="0" * 64),), made_by="package.module")


def test_the_form_to_download_is_the_first_of_which_every_required_file_has_an_address() -> None:
    files = [
        DataFile("a", 1, md5="0", form="half", urls=("http://a",)),
        DataFile("b", 1, md5="0", form="half"),
        DataFile("c", 1, md5="0", form="whole", urls=("http://c",)),
        DataFile("d", 1, md5="0", form="whole", optional=True),
        DataFile("e", 1, md5="0", form="other", urls=("http://e",)),
    ]
    assert Manifest("toy", "t", "l", "c", "h", tuple(files)).download_form == "whole"
    assert Manifest("toy", "t", "l", "c", "h", tuple(files[:2])).download_form is None
    assert Manifest("toy", "t", "l", "c", "h").download_form is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (HEAD + "files = [3]\n", "files must be an array of tables"),
        (HEAD + "[files]\nname = 1\n", "files must be an array of tables"),
        (HEAD + 'array_sha256 = "y"\n' + FILE, "it needs either files, or shipped_with and array_sha256, or layout and how"),
        (HEAD + 'how = "buy it"\n' + FILE, "it needs either files, or shipped_with and array_sha256, or layout and how"),
        (HEAD + 'made_by = "m"\n' + FILE + "optional = true\n", "with made_by it needs files, without urls, optional and form"),
        (HEAD + 'made_by = "m"\n' + FILE + 'form = "packed"\n', "with made_by it needs files, without urls, optional and form"),
        (HEAD + FILE + FILE.replace("size = 3", "size = -1").replace("a.bin", "b"), "file 2: size must be a positive number of bytes, got -1"),
        (HEAD + FILE + "weight = 3\n", "file 1: unknown key 'weight'; known: form, md5, name and 4 more"),
        (HEAD + FILE + 'optional = "no"\n', "file 1: optional must be bool, got 'no'"),
        (HEAD + FILE + 'urls = "https://a"\n', "file 1: urls must be list, got 'https://a'"),
        (HEAD + FILE + 'md5 = "0"\n', "file 1: '0' is no lower-case hex digest of 32 digits"),
        (HEAD + FILE + 'urls = ["https://a", "ftp://b"]\n', "file 1: 'ftp://b' is no http(s) address"),
        (HEAD + FILE.replace("a.bin", "sub/../a.bin"), "file 1: the name 'sub/../a.bin' must be a relative path inside the data set's folder"),
        (HEAD + FILE.replace('"a.bin"', "'sub\\a.bin'"), "file 1: the name 'sub\\\\a.bin' must be a relative path inside the data set's folder"),
        (HEAD + FILE.replace("a.bin", ""), "file 1: the name '' must be a relative path inside the data set's folder"),
        (HEAD + FILE.replace("a.bin", "."), "file 1: the name '.' must be a relative path inside the data set's folder"),
        (HEAD + FILE + 'form = "p"\n' + FILE.replace("a.bin", "b") + 'optional = true\nform = "q"\n', "all files of form 'q' are optional"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_told_whole(tmp_path: Path, text: str, problem: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    assert str(caught.value) == f"the manifest {path} is malformed: {problem}"


@pytest.mark.parametrize("content", [b"\xff", b'name,size,sha256\n"' + b"a" * 200_000])
def test_a_listing_that_is_no_text_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"^the listing .*list\.csv cannot be read: [^\n]+$"):
        read_manifest(written(tmp_path, LISTED))


def test_a_manifest_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"^the manifest .*toy\.toml cannot be read: [^\n]+$"):
        read_manifest(tmp_path / "toy.toml")


@pytest.mark.parametrize("line", ["a.bin,3,0,0", "a.bin,-3," + "0" * 64, "a.bin,3.5," + "0" * 64, ""])
def test_a_wrong_line_of_a_listing_is_told_with_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.csv").write_text("name,size,sha256\n" + LINE + line + "\n")
    with pytest.raises(DataError) as caught:
        read_manifest(written(tmp_path, LISTED))
    assert str(caught.value) == f"the listing {tmp_path / 'list.csv'} is malformed: line 3 must be name,size,sha256, found {line[:80]!r}"
