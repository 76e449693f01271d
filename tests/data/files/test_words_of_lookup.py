"""Looking up data: what is named where something is missing, and what is handed on while it is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

import sepbench
from sepbench.data.files.fetch import _nearest_to_complete, _PoochBar, cache_folder, find
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
        ("missing", "", "", "/x is missing"),
    ],
)
def test_what_is_wrong_with_a_file(state: str, expected: str, found: str, told: str) -> None:
    check = FileCheck("x", Path("/x"), state, expected, found)  # type: ignore[arg-type]
    assert check.describe() == told
    assert not check.ok
