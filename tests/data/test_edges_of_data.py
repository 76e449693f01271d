"""Edges of data sets, views and mixtures: indices of odd kinds, how much is loaded at once, own files that changed, folders that move."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sepbench.data import image_sets, mixtures, views
from sepbench.data.chunked_sets import ChunkedSet
from sepbench.data.datasets import open_dataset
from sepbench.data.files.fetch import FoundData
from sepbench.data.lists.builders import Draws
from sepbench.data.lists.drawn import DrawPool, draw_mixtures, draw_sets
from sepbench.data.lists.pairs import PairList
from sepbench.data.mixtures import MixtureSet
from sepbench.data.readers.audio_files import AudioInfo
from sepbench.data.readers.chunks import Recording
from sepbench.data.signals import ArraySignals


class Counted(ArraySignals):
    """Ten signals ``(1, 2, 3)`` that remember how many were loaded at once."""

    loads: list[int]

    def load(self, indices: object) -> torch.Tensor:
        self.loads.append(len(torch.as_tensor(indices)))
        return super().load(indices)  # type: ignore[arg-type]


def counted() -> Counted:
    Counted.loads = []
    return Counted("toy", "train", "image", torch.arange(60, dtype=torch.uint8).reshape(10, 1, 2, 3), torch.zeros(10, dtype=torch.int64))


def test_rows_may_be_of_any_kind_of_whole_number_or_none_at_all() -> None:
    signals = ArraySignals("toy", "test", "vector", torch.tensor([[1.0], [2.0], [3.0]]), torch.zeros(3, dtype=torch.int64))
    for rows in (torch.tensor([1, 0, 1], dtype=torch.uint8), torch.tensor([1, 0, 1], dtype=torch.int32), [1, 0, 1], range(1, 2)):
        assert signals.load(rows).flatten().tolist() == [2.0, 1.0, 2.0][: len(rows)]
    assert signals.load([]).shape == (0, 1)


def test_digests_load_as_many_numbers_at_once_as_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    signals = counted()
    whole = views.content_hashes(signals, torch.arange(10))
    assert (len(set(whole)), signals.loads) == (10, [10])
    for values, loads in ((18, [3, 3, 3, 1]), (23, [3, 3, 3, 1]), (5, [1] * 10)):
        signals.loads.clear()
        monkeypatch.setattr(views, "_CHUNK_VALUES", values)
        assert views.content_hashes(signals, torch.arange(10)) == whole
        assert signals.loads == loads
    signals.loads.clear()
    mixed = MixtureSet([signals, signals], PairList(torch.tensor([[n, 9 - n] for n in range(10)]), "0" * 64), "sum")
    digest = mixed.digest()
    monkeypatch.setattr(mixtures, "_CHUNK_VALUES", 25)
    assert mixed.digest() == digest
    assert signals.loads == [20, 8, 8, 4]  # of both sources


# --- what is kept ---------------------------------------------------------------------------------------------------------------------


def test_splits_that_are_decoded_bit_by_bit_are_kept_and_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, str]] = []

    def read(folder: Path, split: str) -> list[Recording]:
        asked.append((folder, split))
        return [Recording((), 3, AudioInfo(25, 100, 1))]

    def partition(folder: Path, split: str) -> list[Path]:
        asked.append((folder, split))
        return [folder / "1.jpg"]

    monkeypatch.setattr(image_sets, "read_partition", partition)
    openers: list[Callable[[str, FoundData], object]] = [
        lambda split, found: ChunkedSet("m", read, 10, 100).open("toy", split, found),
        lambda split, found: image_sets.CELEBA32.open("celeba32", split, found),
    ]
    here, there = (FoundData(tmp_path / name, "") for name in ("here", "there"))
    for opened in openers:
        asked.clear()
        first = opened("test", here)
        assert opened("test", here) is first
        assert opened("train", here) is not first is not opened("test", there)
        assert asked == [(here.folder, "test"), (here.folder, "train"), (there.folder, "test")]
    assert open_dataset("generated:gmm-d2-1", "test") is open_dataset("generated:gmm-d2-1", "test")


def test_more_mixtures_than_there_are_is_told_with_both_numbers() -> None:
    pools = [DrawPool(np.arange(3), np.array([0, 1, 1]), np.array([1, 1, 2])) for _ in range(2)]
    with pytest.raises(ValueError, match=r"^6 mixtures of pools that make 5$"):
        draw_mixtures(Draws("x"), pools, 6)
    with pytest.raises(ValueError, match=r"^2 mixtures of a pool that makes 1$"):
        draw_sets(Draws("x"), pools[0], 2, 2)
    assert draw_mixtures(Draws("x"), pools, 0).shape == draw_sets(Draws("x"), pools[0], 2, 0).shape == (0, 2)
    # Rows of two pools may have the same numbers: (0, 1) and (1, 0) are two mixtures.
    assert sorted(draw_mixtures(Draws("x"), pools, 5).tolist()) == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 2]]


# --- own data -------------------------------------------------------------------------------------------------------------------------


def test_an_array_of_another_size_is_read_anew_whatever_its_time(tmp_path: Path) -> None:
    lengths = []
    for count in (2, 3):
        np.save(tmp_path / "x.npy", np.zeros((count, 4, 4), np.uint8))
        os.utime(tmp_path / "x.npy", ns=(7, 7))
        lengths.append(len(open_dataset(f"npy:{tmp_path / 'x.npy'}", "test")))
    assert lengths == [2, 3]


def pictures(folder: Path, level: int) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    folder.mkdir(parents=True)
    image.new("L", (4, 4), level).save(folder / "1.bmp")
    os.utime(folder / "1.bmp", ns=(7, 7))


def test_a_folder_named_from_here_is_another_one_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, level in (("a", 51), ("b", 102)):
        pictures(tmp_path / place / "own", level)
        monkeypatch.chdir(tmp_path / place)
        assert float(open_dataset("folder:own", "test").load([0]).max()) == pytest.approx(level / 255)
    monkeypatch.setenv("HOME", str(tmp_path / "a"))
    assert float(open_dataset("folder:~/own", "test").load([0]).max()) == pytest.approx(51 / 255)


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_file_that_is_called_like_a_split_divides_no_folder(tmp_path: Path, name: str) -> None:
    pictures(tmp_path / "own", 51)
    (tmp_path / "own" / name).write_text("notes on it")
    assert len(open_dataset(f"folder:{tmp_path / 'own'}", "test")) == 1
