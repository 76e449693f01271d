"""Edges of a user's own images and splits: what is transparent without an alpha channel, the filter, odd names and formats, files that changed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from own_files import pixels

from sepbench.data.own.folders import open_folders
from sepbench.data.own.images import _square, read_images
from sepbench.data.own.splits import check_shares, share_for, split_sizes
from sepbench.data.own.stored import open_beside
from sepbench.errors import DataError, flat

Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")


@pytest.mark.parametrize("mode", ["L", "1"])
def test_a_level_that_is_transparent_becomes_white_and_grey_stays_grey(tmp_path: Path, mode: str) -> None:
    values = np.zeros((9, 10), np.uint8)
    values[:, 5:] = 255 if mode == "1" else 90
    (tmp_path / "a").mkdir()
    Image.fromarray(values).convert(mode).save(tmp_path / "a" / "1.png", transparency=0)
    (signals,), notes = read_images(open_folders([tmp_path / "a"])[1], ["a"], None, True)
    assert notes == [f"converted: {tmp_path / 'a' / '1.png'} has transparent pixels"]
    assert np.array_equal(signals.values[0], np.where(values == 0, 255, values))


def test_images_are_brought_to_size_by_the_bicubic_filter() -> None:
    image = Image.fromarray(pixels(3, (30, 20)))
    middle = image.crop((5, 0, 25, 20))
    for size in (8, 31):
        assert np.array_equal(np.asarray(_square(image, size)), np.asarray(middle.resize((size, size), Image.Resampling.BICUBIC)))


def test_enlarged_images_are_named_in_characters_that_every_terminal_takes(tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9.png"
    Image.fromarray(pixels(1, (9, 9))).save(tmp_path / "a.png")
    try:
        (tmp_path / "a.png").rename(path)
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    _, notes = read_images(open_folders([tmp_path])[1], ["a"], 16, False)
    assert notes == [f"smaller than 16 x 16 and enlarged: {flat(path)}"]
    assert r"caf\udce9.png" in notes[0]


def test_whole_numbers_of_thirty_two_bits_have_no_rule(tmp_path: Path) -> None:
    Image.new("I", (9, 9), 70_000).save(tmp_path / "1.tif")
    with pytest.raises(DataError) as caught:
        read_images(open_folders([tmp_path])[1], ["a"], None, True)
    assert str(caught.value) == f"{tmp_path / '1.tif'} has the pixel format 'I', for which there is no rule; save it as 8-bit grey or RGB"


def test_shares_that_miss_one_by_rounding_are_one() -> None:
    check_shares(0.5, 0.5 + 1e-12)
    assert split_sizes(10, 0.5, 0.5 - 1e-12) == (0, 5, 5)
    assert share_for(5, [10], 0.5 - 1e-12) == 0.45  # 4.5 are rounded up
    assert share_for(6, [10], 0.45 + 1e-12) is None  # 0.55 would leave nothing for training


def test_stored_signals_are_read_anew_where_their_time_or_their_size_changed(tmp_path: Path) -> None:
    path = tmp_path / "data" / "test.npy"
    path.parent.mkdir()

    def stored(values: np.ndarray, changed: int) -> tuple[int, float]:
        np.save(path, values)
        os.utime(path, ns=(changed, changed))
        signals = open_beside(tmp_path, "beside:data", "test", "image")
        return len(signals), float(signals.load([0]).max())

    dark, light = np.zeros((2, 4, 4), np.uint8), np.full((2, 4, 4), 255, np.uint8)
    assert [stored(dark, 7), stored(light, 8), stored(dark[:1], 8)] == [(2, 0.0), (2, 1.0), (1, 0.0)]
