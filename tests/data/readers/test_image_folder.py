"""Folders of images: order, classes, channels, and an error that names the file for everything odd."""

from __future__ import annotations

import struct
import sys
import zlib
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
    with pytest.raises(DataError, match="has no images"):
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


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(bits: int, colour: int, channels: int) -> bytes:
    """A PNG of 8 x 8 pixels, ``bits`` per channel; colour types: 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA."""
    rows = b"".join(b"\0" + b"\xff" * (bits // 8 * channels * 8) for _ in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def tiff(bits: int) -> bytes:
    """A TIFF of 8 x 8 RGB pixels, without compression."""
    data = bytes(8 * 8 * 3 * bits // 8)
    entries = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 128), (277, 3, 1, 3), (278, 3, 1, 8)]
    entries.append((279, 4, 1, len(data)))
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + struct.pack("<HHH", bits, bits, bits) + data


DEEP = {
    "rgb.png": png(16, 2, 3),
    "grey-alpha.png": png(16, 4, 2),
    "rgba.png": png(16, 6, 4),
    "rgb.tif": tiff(16),
    "rgb.ppm": b"P6 8 8 65535\n" + bytes(8 * 8 * 6),
    "words.ppm": b"P3 8 8 1023\n" + b"1000 " * (8 * 8 * 3),
    "few.pgm": b"P5 8 8 100\n" + bytes(8 * 8),
    "grey.pgm": b"P5 8 8 65535\n" + bytes(8 * 8 * 2),
}


@pytest.mark.parametrize("name", DEEP)
def test_bit_depths_that_would_be_cut_are_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(DEEP[name])
    with pytest.raises(DataError, match=rf"{name} has (more than 8 bits per channel|levels from 0 to \d+|the pixel format 'I)"):
        read_image_folder(tmp_path)


@pytest.mark.parametrize("content", [png(8, 2, 3), tiff(8), b"P6 8 8 255\n" + bytes(192), b"P3 8 8 255\n" + b"7 " * 192, b"P4 8 8\n" + bytes(8)])
def test_eight_bits_are_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)  # what it is shows its content
    assert read_image_folder(tmp_path)[0].shape[2:] == (8, 8)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_is_turned_as_its_orientation_says(tmp_path: Path, suffix: str, orientation: int) -> None:
    seen = np.zeros((16, 32), np.uint8)
    seen[:8, :16] = 255  # the upper left quarter is bright
    stored = {1: seen, 2: seen[:, ::-1], 3: seen[::-1, ::-1], 4: seen[::-1], 5: seen.T, 6: seen.T[::-1], 7: seen.T[::-1, ::-1], 8: seen.T[:, ::-1]}
    image = PIL_Image.fromarray(np.ascontiguousarray(stored[orientation]))
    exif = PIL_Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    images, _ = read_image_folder(tmp_path)
    assert tuple(images.shape[2:]) == (16, 32)
    assert (images[0, 0].numpy() > 127).tolist() == (seen > 127).tolist()


@pytest.mark.parametrize("suffix", ["tif", "png", "webp"])
def test_several_pages_are_refused(tmp_path: Path, suffix: str) -> None:
    pages = [PIL_Image.new("RGB", (5, 4), (n, n, n)) for n in (10, 200)]
    pages[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=rf"a\.{suffix} holds 2 pages"):
        read_image_folder(tmp_path)


def test_formats_that_nobody_has_looked_at_are_refused(tmp_path: Path) -> None:
    PIL_Image.new("RGB", (5, 4)).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png cannot be decoded"):
        read_image_folder(tmp_path)


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"2\.png is a link to .*gone\.png, which is not there"):
        read_image_folder(tmp_path)
    (tmp_path / "a" / "2.png").unlink()
    (tmp_path / "b").symlink_to("b")  # a class whose folder is a link to itself
    with pytest.raises(DataError, match="b is a link to b, which is not there"):
        list_images(tmp_path)


def test_half_an_image_is_refused_whatever_a_package_has_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    rng = np.random.Generator(np.random.Philox(3))
    PIL_Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:600])
    with pytest.raises(DataError, match=r"a\.png cannot be decoded"):
        read_image_folder(tmp_path)
