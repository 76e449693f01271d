"""Checks of files: what is hashed and what a stamp spares, for few files and for many."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sepbench.data.files import integrity
from sepbench.data.files.integrity import MANY_FILES, FileCheck, check_file, check_files, check_size
from sepbench.data.files.manifests import DataFile
from sepbench.errors import DataError


def file_of(name: str, content: bytes) -> DataFile:
    return DataFile(name, len(content), sha256=hashlib.sha256(content).hexdigest())


@pytest.fixture
def numbered(tmp_path: Path) -> tuple[Path, list[DataFile]]:
    """As many small files as share a stamp."""
    folder = tmp_path / "data"
    folder.mkdir()
    for n in range(MANY_FILES):
        (folder / f"{n}.bin").write_bytes(n.to_bytes(4, "big"))
    return folder, [file_of(f"{n}.bin", n.to_bytes(4, "big")) for n in range(MANY_FILES)]


def test_few_files_have_a_stamp_each_and_many_one_together(numbered: tuple[Path, list[DataFile]], tmp_path: Path) -> None:
    folder, files = numbered
    assert MANY_FILES == 100
    assert check_files(files[:-1], folder, tmp_path / "few") == []
    assert check_files(files, folder, tmp_path / "many") == []
    assert [len(list((tmp_path / name).iterdir())) for name in ("few", "many")] == [99, 1]
    assert [check.state for check in check_files(files[:3], folder, tmp_path / "few", rehash=True)] == ["ok"] * 3


@pytest.mark.parametrize("count", [10, MANY_FILES])
def test_a_stamp_is_read_instead_of_the_files(numbered: tuple[Path, list[DataFile]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    folder, files = numbered
    hashed: list[str] = []
    digest = integrity.read_digest

    def counted(path: Path, algorithm: str) -> str:
        hashed.append(path.name)
        return digest(path, algorithm)

    monkeypatch.setattr(integrity, "read_digest", counted)
    for times in (1, 1, 2):  # the third time all are read again
        assert all(check.ok for check in check_files(files[:count], folder, tmp_path / "stamps", rehash=times == 2))
        assert len(hashed) == times * count
    (folder / "7.bin").touch()
    os.utime(folder / "7.bin", ns=(1, 1))
    assert check_files(files[:count], folder, tmp_path / "stamps") == []
    assert hashed[2 * count :] == (["7.bin"] if count < MANY_FILES else [file.name for file in files])
    (tmp_path / "link").symlink_to(folder)
    check_files(files[:count], tmp_path / "link", tmp_path / "stamps")  # the same files by another name
    assert len(hashed) == 2 * count + (1 if count < MANY_FILES else count)


def test_of_many_files_a_wrong_size_spares_reading_the_others(numbered: tuple[Path, list[DataFile]], tmp_path: Path) -> None:
    folder, files = numbered
    (folder / "3.bin").write_bytes(b"abc")
    (folder / "5.bin").write_bytes(b"abcd")

    def found(rehash: bool) -> list[tuple[str, str]]:
        return [(check.name, check.state) for check in check_files(files, folder, tmp_path / "stamps", rehash=rehash) if not check.ok]

    assert found(rehash=False) == [("3.bin", "wrong size")]
    assert found(rehash=True) == [("3.bin", "wrong size"), ("5.bin", "wrong sha256")]
    assert len(check_files(files, folder, tmp_path / "stamps", rehash=True)) == MANY_FILES
    assert not (tmp_path / "stamps").exists()


def test_a_check_says_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    right, md5 = file_of("a", b"abc"), DataFile("a", 3, md5="0" * 32)
    path, sha = tmp_path / "a", hashlib.sha256(b"abc").hexdigest()
    for rehash in (False, False, True):  # the second time by the stamp
        assert check_file(right, tmp_path, tmp_path / "stamps", rehash=rehash) == FileCheck("a", path, "ok", sha, sha)
    assert check_file(md5, tmp_path, tmp_path / "stamps") == FileCheck("a", path, "wrong md5", "0" * 32, hashlib.md5(b"abc").hexdigest())
    assert check_size(right, tmp_path) == FileCheck("a", path, "ok")
    assert check_size(file_of("a", b"abcd"), tmp_path) == FileCheck("a", path, "wrong size", "4", "3")
    assert check_size(file_of("b", b""), tmp_path) == FileCheck("b", tmp_path / "b", "missing")
    assert FileCheck("a", path, "ok", sha, sha).describe() == f"{path} is ok"


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, forbid: Callable[[Path], None]) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    forbid(tmp_path / "a")
    with pytest.raises(DataError) as caught:
        check_file(file_of("a", b"abc"), tmp_path, tmp_path / "stamps")
    assert str(caught.value) == f"{tmp_path / 'a'} cannot be read: Permission denied; check its permissions and its disk"


@pytest.mark.parametrize("count", [1, MANY_FILES])
def test_a_wrong_file_is_told_where_stamps_cannot_be_dropped(numbered: tuple[Path, list[DataFile]], count: int) -> None:
    folder, files = numbered
    (folder / "0.bin").write_bytes(b"evil")
    (told,) = check_files(files[:count], folder, folder / "1.bin" / "stamps")  # below a file, where no folder can be
    assert (told.name, told.state) == ("0.bin", "wrong sha256")
