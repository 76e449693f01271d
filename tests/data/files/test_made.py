"""Data sets that the package makes itself: what lacks is made, of the part that is wanted, and held against what was frozen."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from sepbench.data.files.fetch import cache_folder, obtain
from sepbench.data.files.manifests import DataFile, Manifest
from sepbench.errors import DataError

CONTENT = {"test/a": b"aa", "test/b": b"bbb", "test-two/a": b"cccc", "train/a": b"ddddd"}


class Maker(ModuleType):
    """A module that makes the files, and remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__("maker_of_toys")
        self.asked: list[list[str]] = []
        self.progress: object = None
        self.writes = dict(CONTENT)

    def make(self, names: Sequence[str], folder: Path, progress: Callable[[str, int, int], None] | None) -> None:
        self.asked.append(list(names))
        self.progress = progress
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(self.writes[name])


@pytest.fixture
def maker(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> Maker:
    made = Maker()
    monkeypatch.setitem(sys.modules, "maker_of_toys", made)
    return made


FILES = tuple(DataFile(name, len(content), sha256=hashlib.sha256(content).hexdigest()) for name, content in CONTENT.items())
TOYS = Manifest("toys", "t", "l", "c", "h", FILES, made_by="maker_of_toys")


def test_what_lacks_of_a_part_is_made_and_no_more(maker: Maker) -> None:
    told: list[tuple[str, int, int]] = []

    def progress(*now: object) -> None:
        told.append(now)  # type: ignore[arg-type]

    found = obtain(TOYS, progress, "test")
    assert (found.folder, found.form) == (cache_folder() / "toys", "")
    assert maker.asked == [["test/a", "test/b"]]
    assert maker.progress is progress
    (found.folder / "test" / "b").write_bytes(b"bb")
    (found.folder / "train").mkdir()
    (found.folder / "train" / "a").write_bytes(b"ddddd")
    assert obtain(TOYS).folder == found.folder
    assert maker.asked[1:] == [["test/b", "test-two/a"]]
    obtain(TOYS)
    assert len(maker.asked) == 2  # all is there


def test_other_numbers_than_the_frozen_ones_are_told_whole(maker: Maker) -> None:
    maker.writes["test/b"] = b"xyz"
    folder = cache_folder() / "toys"
    with pytest.raises(DataError) as caught:
        obtain(TOYS)
    numbers = f"with {hashlib.sha256(b'xyz').hexdigest()}, frozen is {hashlib.sha256(b'bbb').hexdigest()}"
    remedy = f"copy {folder} from a machine where it agrees, and report this together with the output of 'sepbench env'"
    assert str(caught.value) == f"this machine computes other numbers: test/b of toys was made here {numbers}; {remedy}"


@pytest.mark.parametrize(("error", "told"), [(OSError(28, "No space left on device"), "No space left on device"), (OSError("odd"), "odd")])
def test_a_disk_that_takes_no_more_is_told_whole(maker: Maker, monkeypatch: pytest.MonkeyPatch, error: OSError, told: str) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(maker, "make", full)
    with pytest.raises(DataError) as caught:
        obtain(TOYS)
    assert str(caught.value) == f"cannot write {cache_folder() / 'toys'}: {told}; free some space or set SEPBENCH_CACHE to a writable folder"
