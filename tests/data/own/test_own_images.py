"""Images of any size and kind: the stated rules, and what is refused without ``convert``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_files import image_folder, pixels

from sepbench.data.own.folders import open_folders
from sepbench.data.own.images import _square, read_images
from sepbench.data.own.signals import OwnSignals
from sepbench.errors import DataError, SepbenchError

Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")


def read(*folders: Path, size: int | None = None, convert: bool = False) -> tuple[list[OwnSignals], list[str]]:
    return read_images(open_folders(folders)[1], [folder.name for folder in folders], size, convert)


def save(path: Path, image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([8, 9, 16, 33]))
def test_any_size_becomes_the_middle_square(width: int, height: int, size: int) -> None:
    side = min(width, height)
    image = Image.fromarray(pixels(width * 61 + height, (width, height), 1))
    made = np.asarray(_square(image, size))
    assert made.shape == (size, size)
    left, top = (width - side) // 2, (height - side) // 2
    middle = image.crop((left, top, left + side, top + side))
    if side == size:
        assert np.array_equal(made, np.asarray(middle))
    assert np.array_equal(made, np.asarray(_square(middle, size)))


def test_a_wide_image_loses_its_sides_and_nothing_is_stretched(tmp_path: Path) -> None:
    wide = np.zeros((16, 48, 3), dtype=np.uint8)
    wide[:, 16:32] = (10, 200, 30)
    save(tmp_path / "a" / "1.png", Image.fromarray(wide))
    (signals,), notes = read(tmp_path / "a", size=8)
    assert np.array_equal(signals.values[0], np.full((8, 8, 3), (10, 200, 30)))
    assert notes == []


def test_images_are_told_that_were_enlarged(tmp_path: Path) -> None:
    a, b = image_folder(tmp_path / "a", 2, sizes=[9, 40]), image_folder(tmp_path / "b", 3, key=7, sizes=[9])
    (_, _), notes = read(a, b, size=16)
    assert notes == [f"smaller than 16 x 16 and enlarged: {a / 'im0.png'}, {a / 'im1.png'}, {b / 'im0.png'} and 2 more"]


def test_without_a_size_all_have_one_size(tmp_path: Path) -> None:
    same = image_folder(tmp_path / "a", 3, sizes=[12])
    assert read(same)[0][0].values.shape == (3, 12, 12, 3)
    odd = image_folder(tmp_path / "b", 3, sizes=[12, 14])
    with pytest.raises(DataError, match=r"the images have 2 sizes: 12 x 14 \(.*/im0\.png\), 14 x 12 .*; --size 64 brings all to 64 x 64"):
        read(odd)


def _sixteen_grey(path: Path) -> np.ndarray:
    values = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257 + 3
    save(path, Image.fromarray(values))
    return (values >> 8).astype(np.uint8)


def _transparent(path: Path) -> np.ndarray:
    values = np.zeros((16, 16, 4), dtype=np.uint8)
    values[:8] = (255, 0, 0, 255)
    save(path, Image.fromarray(values))
    wanted = np.full((16, 16, 3), 255, dtype=np.uint8)
    wanted[:8] = (255, 0, 0)
    return wanted


def _pages(path: Path) -> np.ndarray:
    first, second = (Image.fromarray(pixels(key, (16, 16))) for key in (1, 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    first.save(path, save_all=True, append_images=[second])
    return np.asarray(first)


ODDITIES = {
    "16 bits": (_sixteen_grey, "x.png", "has the pixel format 'I;16'"),
    "alpha": (_transparent, "x.png", "has transparent pixels"),
    "pages": (_pages, "x.tif", "holds 2 pages or pictures"),
}


@pytest.mark.parametrize(("make", "name", "problem"), ODDITIES.values(), ids=ODDITIES.keys())
def test_oddities_are_refused_by_name_or_converted_by_rule(tmp_path: Path, make, name: str, problem: str) -> None:
    wanted = make(tmp_path / "a" / name)
    with pytest.raises(DataError, match=rf"1 image would be changed: .*/{name} {problem}; --convert"):
        read(tmp_path / "a")
    (signals,), notes = read(tmp_path / "a", convert=True)
    assert np.array_equal(signals.values[0], wanted)
    assert len(notes) == 1
    assert f"{name} {problem}" in notes[0]


def test_opaque_alpha_is_no_oddity(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", Image.fromarray(np.dstack([pixels(1, (9, 9)), np.full((9, 9), 255, np.uint8)])))
    assert np.array_equal(read(tmp_path / "a")[0][0].values[0], pixels(1, (9, 9)))


def test_grey_among_colour(tmp_path: Path) -> None:
    colour, grey = image_folder(tmp_path / "a", 2, sizes=[9]), image_folder(tmp_path / "b", 4, sizes=[9], channels=1)
    with pytest.raises(DataError, match=r"4 of 6 images are grey, the others colour: .*im0\.png, .*im1\.png, .*im2\.png and 1 more; --convert"):
        read(colour, grey)
    (_, made), notes = read(colour, grey, convert=True)
    assert made.values.shape == (4, 9, 9, 3)
    assert np.array_equal(made.values[1], np.repeat(pixels(1, (9, 9), 1)[..., None], 3, axis=2))
    assert notes[0].startswith("grey among colour, given three equal channels: ")
    assert read(grey)[0][0].values.shape == (4, 9, 9)


def test_what_cannot_be_decoded_is_named_first_three(tmp_path: Path, forbid) -> None:
    folder = image_folder(tmp_path / "a", 2)
    for number in range(5):
        (folder / f"x{number}.png").write_text("no image")
    wrong = r"x0\.png cannot be decoded as an image: its content is of no format that is read here; replace .*x1\.png .*x2\.png .*; and 2 more files"
    with pytest.raises(DataError, match=wrong) as caught:
        read(folder, size=8, convert=True)
    assert "\n" not in str(caught.value)
    for number in range(5):
        (folder / f"x{number}.png").unlink()
    forbid(folder / "im1.png")
    with pytest.raises(DataError, match=r"im1\.png cannot be read: Permission denied"):
        read(folder, size=8)


def test_formats_without_a_rule_and_sizes_that_cannot_be(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.tif", Image.new("CMYK", (9, 9)))
    with pytest.raises(DataError, match=r"1\.tif has the pixel format 'CMYK', for which there is no rule"):
        read(tmp_path / "a", convert=True)
    with pytest.raises(DataError, match="--size must be from 8 to 4096 pixels, got 7"):
        read(tmp_path / "a", size=7)
    with pytest.raises(DataError, match="the images are 5 x 5; at least 8 x 8"):
        read(image_folder(tmp_path / "b", 1, sizes=[5]))


def test_file_names_need_not_be_utf_8(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "a", 1, sizes=[9])
    (folder / "im0.png").rename(folder / "caf\udce9.png")
    assert read(folder)[0][0].file_names == (r"caf\udce9.png",)


def test_without_pillow_the_line_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = image_folder(tmp_path / "a", 1)
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(SepbenchError, match=r"pip install 'sepbench\[report\]'"):
        read(folder)
