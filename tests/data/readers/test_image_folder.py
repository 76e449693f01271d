"""Folders of images: order, classes, channels, and an error that names the file for everything odd."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sepbench.data.readers.image_folder import list_images, natural_key, read_image_folder
from sepbench.errors import DataError, SepbenchError

PIL_Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")


def save(path: Path, value: int = 7, size: tuple[int, int] = (5, 4), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL_Image.new(mode, size, value if mode in ("L", "P", "I;16", "1") else (value, 2, 3, 255)[: len(mode)]).save(path)


def test_images_come_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 100, 1):
        save(tmp_path / f"img{number}.png", number)
    (tmp_path / "notes.txt").write_text("passed over")
    save(tmp_path / ".hidden.png", 200)
    images, labels = read_image_folder(tmp_path)
    assert (tuple(images.shape), images.dtype) == ((4, 1, 4, 5), torch.uint8)
    assert images[:, 0, 0, 0].tolist() == [1, 9, 10, 100]
    assert labels.tolist() == [0, 0, 0, 0]


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_natural_order_is_numeric_order(numbers: list[int]) -> None:
    names = [f"shot {n}.png" for n in numbers]
    assert sorted(names, key=natural_key) == [f"shot {n}.png" for n in sorted(numbers)]


@given(st.lists(st.text(min_size=1), unique=True))
def test_natural_order_is_total(names: list[str]) -> None:
    backwards = names[::-1]
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)


def test_subfolders_are_classes(tmp_path: Path) -> None:
    for label, name in enumerate(("class2", "class10")):
        for number in (2, 1):
            save(tmp_path / name / f"{number}.png", 10 * label + number)
    images, labels = read_image_folder(tmp_path)
    assert labels.tolist() == [0, 0, 1, 1]
    assert images[:, 0, 0, 0].tolist() == [1, 2, 11, 12]


def test_colour_images_have_three_channels_in_order(tmp_path: Path) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    PIL_Image.fromarray(pixels).save(tmp_path / "a.png")
    save(tmp_path / "b.png", mode="RGBA")  # opaque
    images, _ = read_image_folder(tmp_path)
    assert np.array_equal(images[0].numpy(), pixels.transpose(2, 0, 1))
    assert images[1, :, 0, 0].tolist() == [7, 2, 3]


@pytest.mark.parametrize("mode", ["1", "P", "LA"])
def test_other_8_bit_formats_are_converted(tmp_path: Path, mode: str) -> None:
    if mode == "LA":
        PIL_Image.new("LA", (5, 4), (9, 255)).save(tmp_path / "a.png")
    else:
        PIL_Image.new("L", (5, 4), 255).convert(mode).save(tmp_path / "a.png")
    images, _ = read_image_folder(tmp_path)
    assert tuple(images.shape) == (1, 3 if mode == "P" else 1, 4, 5)
    assert images.unique().tolist() == [9 if mode == "LA" else 255]


def test_another_size_names_the_file(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", size=(4, 5))
    with pytest.raises(DataError, match=r"b\.png is 4 x 5 grey, but a\.png is 5 x 4 grey"):
        read_image_folder(tmp_path)


def test_grey_and_colour_do_not_mix(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", mode="RGB")
    with pytest.raises(DataError, match=r"b\.png is 5 x 4 colour"):
        read_image_folder(tmp_path)


def test_transparent_and_deep_pixels_are_refused(tmp_path: Path) -> None:
    PIL_Image.new("RGBA", (5, 4), (1, 2, 3, 254)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png has transparent pixels"):
        read_image_folder(tmp_path)
    save(tmp_path / "a.png", mode="I;16")
    with pytest.raises(DataError, match=r"a\.png has the pixel format 'I;16'"):
        read_image_folder(tmp_path)


def test_a_cut_off_image_names_the_file(tmp_path: Path) -> None:
    rng = np.random.Generator(np.random.Philox(3))
    PIL_Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    for length in (0, 10, 60, len(content) // 2):
        (tmp_path / "a.png").write_bytes(content[:length])
        with pytest.raises(DataError, match=r"a\.png cannot be decoded") as caught:
            read_image_folder(tmp_path)
        assert "\n" not in str(caught.value)


def test_layouts_that_leave_the_classes_open_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        list_images(tmp_path / "none")
    with pytest.raises(DataError, match="holds no images"):
        list_images(tmp_path)
    save(tmp_path / "class" / "a.png")
    save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"images of its own \(b\.png\) and class folders \(class\)"):
        list_images(tmp_path)
    (tmp_path / "b.png").unlink()
    save(tmp_path / "class" / "deep" / "c.png")
    with pytest.raises(DataError, match="deep is nested too deeply"):
        list_images(tmp_path)


def test_without_pillow_there_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(SepbenchError, match="needs pillow, which is not installed; run: pip install"):
        read_image_folder(tmp_path)
