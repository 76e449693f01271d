"""Looking up data: what is named where something is missing, and what is handed on while it is downloaded."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import platformdirs
import pytest
import requests

import sepbench
from sepbench.data.files import fetch
from sepbench.data.files.fetch import DataStatus, _nearest_to_complete, _PoochBar, cache_folder, find, status, verify
from sepbench.data.files.integrity import FileCheck
from sepbench.data.files.manifests import DataFile, Manifest
from sepbench.errors import DataError


def _toy(count: int, **more: object) -> Manifest:
    return Manifest("toy", "t", "l", "c", "h", tuple(DataFile(f"{n}.bin", 1, sha256="0" * 64) for n in range(count)), **more)  # type: ignore[arg-type]


def test_a_folder_of_data_that_is_none(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home / "none"))
    with pytest.raises(DataError) as caught:
        find(_toy(1))
    assert str(caught.value).startswith(f"SEPBENCH_DATA={data_home / 'none'} is not a folder; ")
    assert "toy/" in str(caught.value)
    assert str(caught.value).endswith(str(cache_folder()))


def test_files_that_lack_are_named_and_counted(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data_home / "data" / "toy").mkdir(parents=True)
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home / "data"))
    (data_home / "data" / "toy" / "1.bin").touch()
    found, lacking = _nearest_to_complete(_toy(3))
    assert found.folder == data_home / "data" / "toy"
    assert lacking == ["0.bin", "2.bin"]
    with pytest.raises(DataError) as caught:
        find(_toy(3))
    assert f"'toy' is not complete: no 0.bin, 2.bin in {data_home / 'data' / 'toy'} and {cache_folder() / 'toy'}; " in str(caught.value)
    with pytest.raises(DataError) as caught:
        find(_toy(1_500))
    named = str(caught.value).partition("no ")[2].partition(" in ")[0].split(", ")
    assert named[0] == "0.bin"
    assert named[-1] == f"{1_499 - (len(named) - 1):,} more files"


def test_data_that_ship_with_a_package() -> None:
    shipped = Manifest("toy", "t", "l", "c", "h", (), shipped_with="sepbench")
    found = find(shipped)
    assert (found.folder, found.form) == (Path(sepbench.__file__).parent, "")
    with pytest.raises(DataError, match="'toy' ships with the package 'no_such_package', which is not installed"):
        find(Manifest("toy", "t", "l", "c", "h", (), shipped_with="no_such_package"))


def test_a_bar_never_passes_the_file_s_size() -> None:
    told: list[tuple[str, int, int]] = []
    bar = _PoochBar(DataFile("a.bin", 10, sha256="0" * 64), lambda *now: told.append(now))
    assert bar.total == 10
    for step in (4, 4, 4):
        bar.update(step)
    bar.reset()
    bar.update(3)
    bar.close()
    assert told == [("a.bin", 4, 10), ("a.bin", 8, 10), ("a.bin", 10, 10), ("a.bin", 3, 10)]


@pytest.mark.parametrize(
    ("state", "expected", "found", "told"),
    [
        ("wrong size", "12000", "34", "/x has the wrong size: 34 bytes, expected 12,000"),
        ("wrong sha256", "aa", "bb", "/x has the wrong sha256 bb, expected aa"),
        ("wrong md5", "aa", "bb", "/x has the wrong md5 bb, expected aa"),
        ("missing", "", "", "/x is missing"),
    ],
)
def test_what_is_wrong_with_a_file(state: str, expected: str, found: str, told: str) -> None:
    check = FileCheck("x", Path("/x"), state, expected, found)  # type: ignore[arg-type]
    assert check.describe() == told
    assert not check.ok


# --- what counts as there ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for ``toy`` in the user's own data."""
    folder = data_home / "own" / "toy"
    folder.mkdir(parents=True)
    monkeypatch.setenv("SEPBENCH_DATA", str(folder.parent))
    return folder


def _file(name: str, content: bytes, *urls: str, form: str = "", optional: bool = False) -> DataFile:
    return DataFile(name, len(content), sha256=hashlib.sha256(content).hexdigest(), urls=urls, form=form, optional=optional)


def _manifest(*files: DataFile, **more: object) -> Manifest:
    return Manifest("toy", "t", "l", "c", "h", files, **more)  # type: ignore[arg-type]


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize(("kind", "there"), [("file", True), ("link", True), ("link to nowhere", False), ("folder", False)])
def test_only_a_file_or_a_link_to_one_is_there(own: Path, kind: str, there: bool) -> None:
    for name in ("a.bin", "read.me"):
        if kind == "file":
            _put(own / name, b"abc")
        elif kind == "folder":
            (own / name).mkdir()
        else:
            _put(own.parent / "elsewhere" / (name if there else "other"), b"abc")
            (own / name).symlink_to(own.parent / "elsewhere" / name)
    manifest = _manifest(_file("a.bin", b"abc"), _file("read.me", b"abc", optional=True))
    assert status(manifest).state == ("present" if there else "missing")
    assert [(check.name, check.state) for check in verify(manifest)] == ([("a.bin", "ok"), ("read.me", "ok")] if there else [("a.bin", "missing")])
    if there:
        assert find(manifest).folder == own
    else:
        with pytest.raises(DataError, match=r"no a\.bin in"):
            find(manifest)


@pytest.mark.parametrize(
    ("manifest", "offline", "problem"),
    [
        (_manifest(_file("a", b"a"), made_by="m"), "1", "no a in {}; run 'sepbench data fetch toy', which makes them here and needs no network"),
        (_manifest(layout=("b", "c*"), how="buy it"), "1", "no b, c* in {}; buy it (SEPBENCH_DATA names the first folder's parent)"),
        (
            _manifest(_file("a", b"a")),
            "1",
            "no a in {}; it is not offered for download, get it from h and put the files there yourself (SEPBENCH_DATA names the first folder's parent)",
        ),
        (_manifest(_file("a", b"a", "http://x")), "1", "no a in {}; SEPBENCH_OFFLINE forbids downloading: unset it, or put the files there yourself"),
        (_manifest(_file("a", b"a", "http://x")), "", "no a in {}; run 'sepbench data fetch toy' or put the files there yourself"),
        (
            _manifest(*(_file(name, b"a", "http://x") for name in "abcde")),
            "",
            "no a, b, c, d, e in {}; run 'sepbench data fetch toy' or put the files there yourself",
        ),
    ],
)
def test_each_way_to_get_missing_data_has_its_words(own: Path, monkeypatch: pytest.MonkeyPatch, manifest: Manifest, offline: str, problem: str) -> None:
    monkeypatch.setenv("SEPBENCH_OFFLINE", offline)
    with pytest.raises(DataError) as caught:
        find(manifest)
    searched = f"{own} and {cache_folder() / 'toy'}"
    assert str(caught.value) == f"data set 'toy' is not complete: {problem.format(searched)}"


@pytest.mark.parametrize(
    ("where", "form", "more", "remedy"),
    [
        ("cache", "packed", {}, "run 'sepbench data fetch toy' to download it again"),
        ("cache", "plain", {}, "replace the file, or remove it to have the data looked up elsewhere"),
        ("own", "packed", {}, "replace the file, or remove it to have the data looked up elsewhere"),
        ("cache", "", {"made_by": "m"}, "run 'sepbench data fetch toy' to make it again"),
        ("own", "", {"made_by": "m"}, "replace the file, or remove it to have the data looked up elsewhere"),
    ],
)
def test_what_to_do_with_a_damaged_file_depends_on_whose_it_is(own: Path, where: str, form: str, more: dict[str, str], remedy: str) -> None:
    files = [_file("a", b"abc")] if more else [_file("p", b"abc", "http://x", form="packed"), _file("q", b"abc", form="plain")]
    manifest = _manifest(*files, **more)
    (name,) = (file.name for file in manifest.files_of(form))
    folder = own if where == "own" else cache_folder() / "toy"
    _put(folder / name, b"abcd")
    with pytest.raises(DataError) as caught:
        find(manifest)
    assert str(caught.value) == f"{folder / name} has the wrong size: 4 bytes, expected 3; {remedy}"


def test_the_fullest_folder_and_form_is_the_nearest(own: Path) -> None:
    forms = [_file(f"plain-{n}", b"abc", form="plain") for n in range(4)] + [_file(f"packed-{n}", b"abc", "http://x", form="packed") for n in range(2)]
    manifest, cache = _manifest(*forms), cache_folder() / "toy"

    def nearest() -> tuple[Path, str, int]:
        found, lacking = _nearest_to_complete(manifest)
        return found.folder, found.form, len(lacking)

    assert nearest() == (own, "packed", 2)  # nothing is anywhere: what can be downloaded, in the first folder
    _put(cache / "plain-0", b"abc")
    assert nearest() == (cache, "plain", 3)
    _put(own / "packed-1", b"abc")
    assert nearest() == (own, "packed", 1)  # a half is more than a quarter
    _put(cache / "packed-1", b"abc")
    assert nearest() == (own, "packed", 1)  # of equals the first
    assert (status(manifest).state, status(manifest).folder, status(manifest).form) == ("incomplete", own, "packed")
    for name in ("plain-1", "plain-2", "plain-3"):
        _put(cache / name, b"abc")
    assert (status(manifest).state, status(manifest).folder, status(manifest).form) == ("present", cache, "plain")
    _put(own / "packed-0", b"abc")
    assert (find(manifest).folder, find(manifest).form) == (own, "packed")  # a folder comes before a form


def test_paths_of_a_layout_are_there_or_missing_one_by_one(own: Path) -> None:
    manifest = _manifest(layout=("a", "*/b", "c"), how="buy it")
    assert [(check.path, check.state) for check in verify(manifest)] == [(own / name, "missing") for name in manifest.layout]
    assert status(manifest) == DataStatus("missing", None)
    (own / "x" / "b").mkdir(parents=True)
    assert [(check.name, check.state, check.expected, check.found) for check in verify(manifest)] == [
        ("a", "missing", "", ""),
        ("*/b", "ok", "unknown", "present"),
        ("c", "missing", "", ""),
    ]
    assert status(manifest) == DataStatus("incomplete", own)
    for name in ("a", "x/b", "c"):
        _put(cache_folder() / "toy" / name, b"")
    assert [(check.path, check.state) for check in verify(manifest)] == [(cache_folder() / "toy" / name, "ok") for name in manifest.layout]
    assert find(manifest).folder == cache_folder() / "toy"


def test_made_data_of_which_nothing_is_there_lack_every_file(own: Path) -> None:
    manifest = _manifest(_file("train/a", b"abc"), _file("test/a", b"abc"), made_by="m")
    assert [(check.name, check.state) for check in verify(manifest)] == [("train/a", "missing"), ("test/a", "missing")]
    assert status(manifest) == DataStatus("on demand", None)
    _put(own / "test" / "a", b"abd")
    assert [(check.name, check.state) for check in verify(manifest)] == [("test/a", "wrong sha256")]
    assert status(manifest) == DataStatus("on demand", own)
    _put(own / "train" / "a", b"abc")
    assert (status(manifest).state, status(manifest).folder) == ("present", own)


def test_data_cut_from_others_are_read_from_these_where_only_they_are_there(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Manifest("whole", "t", "l", "c", "h", (_file("w", b"abc", form="packed"),))
    monkeypatch.setattr(fetch, "load_manifest", {"whole": whole}.__getitem__)
    manifest = _manifest(_file("a", b"abc", "http://x"), cut_from="whole")
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    for look in (find, fetch.obtain):
        with pytest.raises(DataError, match="'toy' is not complete: no a in"):
            look(manifest)
    assert status(manifest) == DataStatus("missing", None)
    assert [check.name for check in verify(manifest)] == ["a"]
    _put(own.parent / "whole" / "w", b"abd")
    for look in (find, fetch.obtain):
        with pytest.raises(DataError, match="whole/w has the wrong sha256"):
            look(manifest)
    _put(own.parent / "whole" / "w", b"abc")
    os.utime(own.parent / "whole" / "w", ns=(1, 1))
    for look in (find, fetch.obtain):
        assert (look(manifest).folder, look(manifest).form) == (own.parent / "whole", "packed")
    assert status(manifest) == DataStatus("present", own.parent / "whole", "packed")
    assert [(check.name, check.state) for check in verify(manifest)] == [("w", "ok")]
    _put(own / "a", b"abc")
    for look in (find, fetch.obtain):
        assert look(manifest).folder == own
    assert [(check.name, check.state) for check in verify(manifest)] == [("a", "ok")]


# --- downloading ----------------------------------------------------------------------------------------------------------------------


def test_what_is_whole_in_another_form_is_not_downloaded(data_home: Path, file_server) -> None:
    manifest = _manifest(_file("p", b"abc", file_server.url("good", "p"), form="packed"), _file("q", b"abc", form="plain"))
    _put(cache_folder() / "toy" / "q", b"abc")
    found = fetch.obtain(manifest)
    assert (found.folder, found.form, file_server.requests) == (cache_folder() / "toy", "plain", [])


def test_optional_files_are_not_downloaded_and_what_is_downloaded_is_stamped(data_home: Path, file_server, capfd: pytest.CaptureFixture[str]) -> None:
    file_server.files = {"a": b"abc", "b": b"abc"}
    manifest = _manifest(_file("a", b"abc", file_server.url("good", "a")), _file("b", b"abc", file_server.url("good", "b"), optional=True))
    assert fetch.obtain(manifest) == fetch.FoundData(cache_folder() / "toy", "")
    assert file_server.requests == ["/good/a"]
    assert len(list((cache_folder() / ".verified").iterdir())) == 1
    assert capfd.readouterr() == ("", "")  # pooch's own lines would tear the progress bar


def test_a_cache_that_cannot_be_written_is_told_whole(data_home: Path, file_server) -> None:
    file_server.files = {"a": b"abc"}
    cache_folder().write_text("a file where the cache should be")
    with pytest.raises(DataError) as caught:
        fetch.obtain(_manifest(_file("a", b"abc", file_server.url("good", "a"))))
    target = cache_folder() / "toy" / "a"
    assert str(caught.value) == f"cannot write {target}: Not a directory; free some space or set SEPBENCH_CACHE to a writable folder"


def _answer(status_code: int, text: str) -> requests.Response:
    response = requests.Response()
    response.status_code, response.reason = status_code, text
    return response


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (requests.exceptions.ReadTimeout(), "timed out"),
        (requests.exceptions.ConnectTimeout(), "timed out"),
        (requests.exceptions.ChunkedEncodingError(), "connection broke off"),
        (requests.exceptions.HTTPError(response=_answer(503, "Busy")), "HTTP 503 Busy"),
        (requests.exceptions.HTTPError(), "no connection (HTTPError)"),
        (requests.exceptions.SSLError(), "no connection (SSLError)"),
        (fetch._WrongContentError("wrong md5"), "wrong md5"),
    ],
)
def test_why_a_mirror_did_not_deliver(error: Exception, told: str) -> None:
    assert fetch._reason(error) == told


# --- folders --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["1", "on", " TRUE ", "2"])
def test_offline_is_anything_but_the_words_for_no(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SEPBENCH_OFFLINE", value)
    assert fetch.offline()


@pytest.mark.parametrize("value", ["off", " OFF ", "False", "NO", "  "])
def test_the_words_for_no_are_read_in_any_case(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SEPBENCH_OFFLINE", value)
    assert not fetch.offline()


def test_folders_may_begin_with_a_tilde_and_stand_between_spaces(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(data_home))
    monkeypatch.setenv("SEPBENCH_CACHE", " ~/kept ")
    monkeypatch.setenv("SEPBENCH_DATA", " ~/data/../own ")
    assert fetch.data_folders() == [data_home / "own", data_home / "kept"]
    monkeypatch.setenv("SEPBENCH_DATA", "  ")
    assert fetch.data_folders() == [data_home / "kept"]
    monkeypatch.setenv("SEPBENCH_DATA", "~no-such-user/data")
    with pytest.raises(DataError) as caught:
        fetch.data_folders()
    remedy = "set HOME, or give SEPBENCH_DATA (or SEPBENCH_CACHE) as a whole path"
    assert str(caught.value) == f"SEPBENCH_DATA=~no-such-user/data: the home folder is not known; {remedy}"


@pytest.mark.parametrize("answer", ["relative/.cache", RuntimeError("no home")])
def test_no_home_folder_is_told(data_home: Path, monkeypatch: pytest.MonkeyPatch, answer: str | Exception) -> None:
    def folder(*_: object, **__: object) -> str:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.delenv("SEPBENCH_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_dir", folder)
    with pytest.raises(DataError, match="no home folder to keep data in: set HOME, or set SEPBENCH_CACHE to a folder that can be written to"):
        cache_folder()


def test_the_user_s_cache_folder_is_sepbench_s(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPBENCH_CACHE", " ")
    assert cache_folder() == Path(platformdirs.user_cache_dir("sepbench", appauthor=False))
