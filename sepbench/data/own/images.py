"""A user's images of any size as signals of one shape, by stated rules.

==============  ====================================================================================================================
always          turned as EXIF says; files that cannot be decoded are refused
``size``        the largest square in the middle is cut out (of an odd remainder one pixel more at the right and the bottom) and brought to
                size x size by pillow's bicubic filter, which averages when it makes smaller
no ``size``     all images have one size
``convert``     16 bits per channel: the high byte; other levels: scaled to 0..255; transparent: laid on white; several pages: the first;
                grey among colour: three equal channels
no ``convert``  such images are refused
==============  ====================================================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sepbench.data.own.folders import OwnFolder, first_three
from sepbench.data.own.signals import OwnSignals
from sepbench.data.readers.image_folder import oddity, opened_image, upright
from sepbench.errors import DataError, flat

if TYPE_CHECKING:
    from PIL.Image import Image

SMALLEST, LARGEST = 8, 4096
"""Pixels; a window of SSIM has 7."""
_DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N")
_EIGHT_BITS = ("1", "L", "P", "RGB", "LA", "RGBA")

_Pixels = npt.NDArray[np.uint8]


def read_images(folders: Sequence[OwnFolder], names: Sequence[str], size: int | None, convert: bool) -> tuple[list[OwnSignals], list[str]]:
    """The images of some classes, all of one shape, and what was done to them, in words.

    Raises:
        SepbenchError: pillow is not installed.
        DataError: files that cannot be used as they are; three are named, with what would help.
    """
    if size is not None and not SMALLEST <= size <= LARGEST:
        raise DataError(f"--size must be from {SMALLEST} to {LARGEST} pixels, got {size}")
    faults, odd, small = list[str](), list[str](), list[str]()
    read: list[list[_Pixels]] = []
    for folder in folders:
        read.append([])
        for path in folder.files:
            try:
                pixels, problem, enlarged = _read(path, size, convert)
            except DataError as error:
                faults.append(str(error))
                continue
            if problem:
                odd.append(f"{path} {problem}")
            if enlarged:
                small.append(flat(path))
            read[-1].append(pixels)
    _refuse(faults, odd, convert)
    notes = [f"converted: {first_three(odd)}"] if odd else []
    if small:
        notes.append(f"smaller than {size} x {size} and enlarged: {first_three(small)}")
    return _same_shape(folders, names, read, convert, notes), notes


def _refuse(faults: list[str], odd: list[str], convert: bool) -> None:
    if faults:
        more = f"; and {len(faults) - 3:,} more files" if len(faults) > 3 else ""
        raise DataError("; ".join(faults[:3]) + more)
    if odd and not convert:
        count = f"{len(odd):,} {'image' if len(odd) == 1 else 'images'}"
        raise DataError(f"{count} would be changed: {first_three(odd)}; --convert does it by the rules of docs/own-data.md")


def _read(path: Path, size: int | None, convert: bool) -> tuple[_Pixels, str, bool]:
    """One image ``(H, W)`` or ``(H, W, 3)``, why it does not fit in as it is, and whether it was enlarged."""
    with opened_image(path) as image:
        problem, _ = oddity(image)
        if problem and not convert:
            return np.zeros((1, 1), dtype=np.uint8), problem, False
        plain = _converted(image, path) if problem else upright(image)
        enlarged = size is not None and min(plain.size) < size
        return np.asarray(plain if size is None else _square(plain, size)), problem, enlarged


def _square(image: Image, size: int) -> Image:
    import PIL.Image

    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    middle = image.crop((left, top, left + side, top + side))  # and no box for resize, which would look beyond it
    return middle.resize((size, size), PIL.Image.Resampling.BICUBIC)


def _converted(image: Image, path: Path) -> Image:
    """An image with oddities, by the rules, upright, in mode ``L`` or ``RGB``."""
    import PIL.Image
    import PIL.ImageOps

    image.load()
    turned = PIL.ImageOps.exif_transpose(image)
    if turned.mode in _DEEP_GREY or (turned.mode == "I" and image.format in ("PNG", "PPM")):
        return PIL.Image.fromarray((np.asarray(turned).astype(np.int64) >> 8).astype(np.uint8))
    if turned.mode not in _EIGHT_BITS:
        raise DataError(f"{path} has the pixel format {turned.mode!r}, for which there is no rule; save it as 8-bit grey or RGB")
    if not turned.has_transparency_data:
        return turned.convert("L" if turned.mode in ("1", "L", "LA") else "RGB")
    grey = turned.mode in ("1", "L", "LA")
    layer = turned.convert("RGBA")
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", layer.size, "white"), layer).convert("L" if grey else "RGB")


def _same_shape(folders: Sequence[OwnFolder], names: Sequence[str], read: list[list[_Pixels]], convert: bool, notes: list[str]) -> list[OwnSignals]:
    sizes: dict[tuple[int, int], Path] = {}
    grey = []
    for folder, images in zip(folders, read, strict=True):
        for path, pixels in zip(folder.files, images, strict=True):
            sizes.setdefault((pixels.shape[1], pixels.shape[0]), path)
            if pixels.ndim == 2:
                grey.append(str(path))
    if len(sizes) > 1:
        found = first_three([f"{width} x {height} ({path})" for (width, height), path in sizes.items()])
        raise DataError(f"the images have {len(sizes):,} sizes: {found}; --size 64 brings all to 64 x 64")
    if min(next(iter(sizes))) < SMALLEST:
        width, height = next(iter(sizes))
        raise DataError(f"the images are {width} x {height}; at least {SMALLEST} x {SMALLEST} are needed: --size brings them to another size")
    mixed = 0 < len(grey) < sum(map(len, read))
    if mixed and not convert:
        count = f"{len(grey):,} of {sum(map(len, read)):,} images {'is' if len(grey) == 1 else 'are'} grey, the others colour"
        raise DataError(f"{count}: {first_three(grey)}; --convert gives them three equal channels")
    if mixed:
        notes.append(f"grey among colour, given three equal channels: {first_three(grey)}")
    return [_signals(folder, name, images, mixed) for folder, name, images in zip(folders, names, read, strict=True)]


def _signals(folder: OwnFolder, name: str, images: list[_Pixels], colour: bool) -> OwnSignals:
    n = len(images)
    values = np.stack([np.repeat(pixels[..., None], 3, axis=2) if colour and pixels.ndim == 2 else pixels for pixels in images])
    numbers = np.arange(n, dtype=np.int64)
    file_names = tuple(folder.name(path) for path in folder.files)
    return OwnSignals(name, values, file_names, numbers, np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.int64), numbers)
