"""Edges of lookup and checks: packages without a file, data that the package makes, stamps of many files, and lines of listings."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

import sepbench
from sepbench.data.files import fetch
from sepbench.data.files.fetch import DataStatus, FoundData, cache_folder, find, obtain, status, verify
from sepbench.data.files.integrity import MANY_FILES, FileCheck, check_files
from sepbench.data.files.manifests import DataFile, Manifest, read_manifest
from sepbench.errors import DataError


def file_of(name: str, content: bytes, optional: bool = False) -> DataFile:
    return DataFile(name, len(content), sha256=hashlib.sha256(content).hexdigest(), optional=optional)


def test_a_package_of_bare_folders_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hollow_package").mkdir()  # what is left where a package was removed
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError) as caught:
        find(Manifest("toy", "t", "l", "c", "h", shipped_with="hollow_package"))
    assert str(caught.value) == "data set 'toy' ships with the package 'hollow_package', which is not installed; install it"


@pytest.mark.parametrize(("frozen", "state"), [("cd", "ok"), ("ab", "wrong sha256")])
def test_data_of_a_package_are_held_against_their_digest(monkeypatch: pytest.MonkeyPatch, frozen: str, state: Any) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(fetch, "digits_sha256", lambda package: asked.append(package) or "cd" * 32)
    checks = verify(Manifest("toy", "t", "l", "c", "h", shipped_with="sepbench", array_sha256=frozen * 32))
    package = Path(sepbench.__file__).parent
    assert checks == [FileCheck("load_digits()", package, state, frozen * 32, "cd" * 32)]
    assert asked == [package]


def test_data_that_the_package_makes_are_the_user_s_own_only_where_they_are_whole(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest("toy", "t", "l", "c", "h", (file_of("test/a", b"abc"), file_of("train/a", b"abc")), made_by="m")
    own, cache = data_home / "own" / "toy", cache_folder() / "toy"
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(fetch, "make_missing", lambda *given: asked.append(given))
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home / "own"))
    (own / "test").mkdir(parents=True)
    (own / "test" / "a").write_bytes(b"abd")

    def progress(*now: object) -> None:
        """Nobody watches."""

    assert obtain(manifest, progress, "test") == FoundData(cache, "")
    assert asked == [(manifest, "test", cache, cache_folder() / ".verified", progress)]
    (own / "train").mkdir()
    (own / "train" / "a").write_bytes(b"abc")
    with pytest.raises(DataError) as caught:
        obtain(manifest, progress, "test")  # all is there, and one file is not what it should be
    wrong = f"{own / 'test' / 'a'} has the wrong sha256 {hashlib.sha256(b'abd').hexdigest()}, expected {hashlib.sha256(b'abc').hexdigest()}"
    assert str(caught.value) == f"{wrong}; replace the file, or remove it to have the data looked up elsewhere"
    (own / "test" / "a").write_bytes(b"abc")
    assert obtain(manifest, progress) == FoundData(own, "")
    assert len(asked) == 1


def test_an_optional_file_that_is_damaged_keeps_nobody_from_the_data(data_home: Path) -> None:
    manifest = Manifest("toy", "t", "l", "c", "h", (file_of("a", b"abc"), file_of("read.me", b"abc", optional=True)))
    folder = cache_folder() / "toy"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(b"abc")
    (folder / "read.me").write_bytes(b"a")
    assert find(manifest) == obtain(manifest) == FoundData(folder, "")
    assert status(manifest) == DataStatus("present", folder)
    assert [(check.name, check.state) for check in verify(manifest)] == [("a", "ok"), ("read.me", "wrong size")]


@pytest.mark.parametrize("watched", [True, False])
def test_downloads_tell_of_every_sixty_four_kilobytes_and_of_nothing_unasked(watched: bool) -> None:
    http = fetch._CheckedDownloader(file_of("a", b"abc"), (lambda *now: None) if watched else None)._http
    assert http.chunk_size == 65_536
    assert bool(http.progressbar) is watched


def test_a_stamp_of_many_files_knows_their_sizes(tmp_path: Path) -> None:
    for number in range(MANY_FILES):
        (tmp_path / f"{number}").write_bytes(b"abc")
    files = [file_of(f"{number}", b"abc") for number in range(MANY_FILES)]
    assert check_files(files, tmp_path, tmp_path / "stamps") == []
    changed = (tmp_path / "7").stat().st_mtime_ns
    (tmp_path / "7").write_bytes(b"abcd")
    os.utime(tmp_path / "7", ns=(changed, changed))  # cut off or overwritten within one tick of the clock
    assert [(check.name, check.state) for check in check_files(files, tmp_path, tmp_path / "stamps")] == [("7", "wrong size")]


@pytest.mark.parametrize("line", ["a.bin,²," + "0" * 64, "a.bin,three," + "0" * 99])
def test_lines_of_a_listing_are_told_up_to_eighty_characters(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.csv").write_text(f"name,size,sha256\n{line}\n", encoding="utf-8")
    (tmp_path / "toy.toml").write_text('name = "toy"\ntitle = "t"\nlicence = "l"\ncitation = "c"\nhomepage = "h"\nlisting = "list.csv"\n')
    with pytest.raises(DataError) as caught:
        read_manifest(tmp_path / "toy.toml")
    where = f"the listing {tmp_path / 'list.csv'} is malformed"
    assert str(caught.value) == f"{where}: line 2 must be name,size,sha256, found {line[:80]!r}"
