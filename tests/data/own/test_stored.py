"""Signals beside a suite's file: read from the folder that the suite lies in, and from nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sepbench.data.datasets import manifest_of, open_dataset
from sepbench.data.own.stored import beside, open_beside
from sepbench.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, values in (("sounds", np.arange(12, dtype=np.int16).reshape(3, 4) * 1000), ("images", np.full((2, 9, 9, 3), 51, np.uint8))):
        (tmp_path / "data" / name).mkdir(parents=True)
        np.save(tmp_path / "data" / name / "test.npy", values)
    return tmp_path


def test_images_and_sounds_are_opened_in_their_units(folder: Path) -> None:
    sounds = open_beside(folder, "beside:data/sounds", "test", "audio")
    assert (sounds.shape, len(sounds), sounds.domain) == ((1, 4), 3, "audio")
    assert sounds.load([1]).tolist() == [[[4000 / 32768, 5000 / 32768, 6000 / 32768, 7000 / 32768]]]
    images = open_beside(folder, "beside:data/images", "test", "image")
    assert (images.shape, float(images.load([0]).max())) == ((3, 9, 9), np.float32(0.2))


def test_a_changed_file_is_read_anew(folder: Path) -> None:
    open_beside(folder, "beside:data/images", "test", "image")
    np.save(folder / "data" / "images" / "test.npy", np.zeros((5, 9, 9), np.uint8))
    assert len(open_beside(folder, "beside:data/images", "test", "image")) == 5


@pytest.mark.parametrize(
    ("name", "split", "says"),
    [
        ("beside:../data/images", "test", "must be a path within the folder"),
        ("beside:/etc", "test", "must be a path within the folder"),
        ("beside:", "test", "must be a path within the folder"),
        ("beside:data/images", "dev", "unknown split 'dev'; .* has train, validation, test"),
        ("beside:data/images", "train", r"has no train split: .*train\.npy cannot be read \(No such file"),
    ],
)
def test_names_that_cannot_be(folder: Path, name: str, split: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_beside(folder, name, split, "image")


def test_arrays_of_another_kind_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"of uint8; sounds must be \(N, T\), int16"):
        open_beside(folder, "beside:data/images", "test", "audio")


def test_other_names_go_to_the_opener_and_nobody_else_knows_this_one(folder: Path) -> None:
    opener = beside(folder, "image", open_dataset)
    assert len(opener("digits", "test")) == 797
    assert len(opener("beside:data/images", "test")) == 2
    assert manifest_of("beside:data/images") == ""
    with pytest.raises(DataError, match="opened by its suite alone"):
        open_dataset("beside:data/images", "test")
