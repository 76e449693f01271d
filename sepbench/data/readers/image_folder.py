"""A user's folder of images, read with pillow (optional).

One rule for every format: an image is what a viewer shows, turned as its EXIF orientation says; what would have to be changed to fit into 8 bits per
channel, or has more than one page, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sepbench.data.readers import listed, unreadable
from sepbench.errors import DataError, SepbenchError, flat, reason
from sepbench.torch_later import torch

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"})
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")
"""By content, whatever the name ends in: of others nobody has looked at what pillow drops."""
_BITS_PER_SAMPLE = 258  # TIFF
_DEEP = re.compile(r";\d{2}[A-Z]*$")  # pillow's raw modes: "RGB;16B"; of BMP "BGR;16" are 16 bits for all three channels
_TARGET_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "LA": "L", "RGBA": "RGB"}


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts ``img2`` before ``img10``: runs of digits count as numbers, everything else as text without regard to case."""
    parts = [part for part in re.split(r"([0-9]+)", name) if part]
    return (*((0, int(part), "") if part[0] in "0123456789" else (1, 0, part.casefold()) for part in parts), (-1, 0, name))


def list_images(folder: Path) -> list[tuple[Path, int]]:
    """Images and class numbers in natural order.

    Either all images lie in the folder itself (class 0), or each in a subfolder that names its class. Hidden files and files
    of other kinds are passed over.

    Raises:
        DataError: no folder, no images, images both in the folder and in subfolders, or subfolders of subfolders.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that holds the images")
    here, classes = _images(folder), _subfolders(folder)
    if not classes:
        images = [(path, 0) for path in here]
    else:
        if here:
            raise DataError(
                f"{folder} has images of its own ({here[0].name}) and class folders ({classes[0].name}); put every image into a class folder, or none"
            )
        for name in classes:
            if deeper := _subfolders(name):
                raise DataError(f"{deeper[0]} is nested too deeply; images must be in <folder>/ or in <folder>/<class>/")
        images = [(path, label) for label, name in enumerate(classes) for path in _images(name)]
    if not images:
        raise DataError(f"{folder} has no images ({', '.join(sorted(SUFFIXES))})")
    return images


def _images(folder: Path) -> list[Path]:
    found = [path for path in listed(folder) if path.suffix.lower() in SUFFIXES and path.is_file()]
    return sorted(found, key=lambda path: natural_key(path.name))


def _subfolders(folder: Path) -> list[Path]:
    return sorted((path for path in listed(folder) if path.is_dir()), key=lambda path: natural_key(path.name))


def read_image_folder(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``(N, C, H, W)`` uint8, C = 1 if all are grey and 3 if all are colour, and class numbers ``(N,)`` int64.

    Everything is held in memory: N x C x H x W bytes. Transparency is accepted where every pixel is opaque. Images are turned as their EXIF
    orientation says, in every format.

    Raises:
        SepbenchError: pillow is not installed.
        DataError: see ``list_images``; an image that cannot be decoded, has another size or other channels than the first, more than 8 bits per
            channel, other levels than 0 to 255, several pages, or transparent pixels; a link that leads nowhere. The message names the file.
    """
    found = list_images(folder)
    images: npt.NDArray[np.uint8] | None = None
    for position, (path, _) in enumerate(found):
        with opened_image(path) as image:
            pixels = _pixels(image, path)
        if images is None:
            images = np.empty((len(found), *pixels.shape), dtype=np.uint8)
        if pixels.shape != images.shape[1:]:
            raise DataError(
                f"{path} is {_size(pixels)}, but {found[0][0].name} is {_size(images[0])}; all images must have one size and one number of channels"
            )
        images[position] = pixels
    if images is None:
        raise ValueError("list_images returns at least one image")
    return torch.from_numpy(images), torch.tensor([label for _, label in found], dtype=torch.int64)


@contextmanager
def opened_image(path: Path) -> Iterator[Image]:
    """An image file as pillow opens it; decoding it within the block fails in the same words as opening it.

    Raises:
        SepbenchError: pillow is not installed.
        DataError: the file cannot be read, or not be decoded.
    """
    try:
        import PIL.Image
        import PIL.ImageFile
    except ImportError as error:
        raise SepbenchError("reading a folder of images needs pillow, which is not installed; run: pip install 'sepbench[report]'") from error
    PIL.ImageFile.LOAD_TRUNCATED_IMAGES = False  # some package may have set it, and half an image would be grey without a word
    try:
        # Not by the path: of a TIFF that is to be turned pillow 13 would map the file by its turned size, which scrambles it.
        with path.open("rb") as handle, PIL.Image.open(handle, formats=_FORMATS) as image:
            yield image
    except DataError:
        raise
    except OSError as error:
        if error.errno is not None:  # of the file itself, which may be whole
            raise unreadable(path, error) from error
        raise DataError(f"{path} cannot be decoded as an image: {_why(path, error)}; replace or remove it") from error
    except Exception as error:  # pillow's decoders raise whatever their format's parser does
        raise DataError(f"{path} cannot be decoded as an image ({reason(error)}); replace or remove it") from error


def _why(path: Path, error: OSError) -> str:
    """Pillow names its own class and a stream where it knows no format; both tell a user nothing."""
    import PIL

    if not isinstance(error, PIL.UnidentifiedImageError):
        return flat(error) or reason(error)
    return "the file is empty" if path.stat().st_size == 0 else "its content is of no format that is read here"


def _size(pixels: npt.NDArray[np.uint8]) -> str:
    channels, height, width = pixels.shape
    return f"{width} x {height} {'grey' if channels == 1 else 'colour'}"


def _changed(image: Image) -> str:
    """What pillow would drop or scale without a word while it decodes; empty if nothing."""
    pages = getattr(image, "n_frames", 1)
    if pages != 1:
        return f"holds {pages} pages or pictures"
    tiles = getattr(image, "tile", [])  # how the decoder is called
    how = [argument for tile in tiles for argument in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))]
    if image.format == "PPM" and (levels := [n for n in how if isinstance(n, int) and n != 255 and "ppm" in tiles[0][0]]):
        return f"has levels from 0 to {levels[0]}"
    deep = max((int(bits) for bits in getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ())), default=8) > 8
    if deep or (image.format != "BMP" and any(isinstance(name, str) and _DEEP.search(name) for name in how)):
        return "has more than 8 bits per channel"
    return ""


def oddity(image: Image) -> tuple[str, str]:
    """Why an image does not fit into 8-bit grey or RGB as it is, in words that go on from its name, and what to do; both empty if it does."""
    if image.mode not in _TARGET_MODES:
        return f"has the pixel format {image.mode!r}", "; convert it to 8-bit grey or RGB"
    if problem := _changed(image):
        return problem, ", which 8-bit grey or RGB would change; convert it as you want it"
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
        return "has transparent pixels", "; flatten it onto a background first"
    return "", ""


def upright(image: Image) -> Image:
    """An image without oddities, turned as its EXIF orientation says, in mode ``L`` or ``RGB``."""
    import PIL.ImageOps

    return PIL.ImageOps.exif_transpose(image).convert(_TARGET_MODES[image.mode])


def _pixels(image: Image, path: Path) -> npt.NDArray[np.uint8]:
    """One image, decoded and upright, as ``(C, H, W)``."""
    problem, remedy = oddity(image)
    if problem:
        raise DataError(f"{path} {problem}{remedy}")
    array = np.asarray(upright(image))
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
