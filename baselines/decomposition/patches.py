"""Overlapping patches of images, the two-dimensional form of a delay embedding, and the way back.

First the image is mirrored by ``size - 1`` pixels on each side. So every pixel is in exactly ``size ** 2`` patches,
and folding back is the same average everywhere. A linear map of patches between the two is then a sum of convolutions
of the image.

A patch is a square, or a rectangle with two given sides: ``(1, p)`` of a signal written as an image of height 1 is its
delay embedding.
"""

from __future__ import annotations

import torch
from torch.nn import functional

Size = int | tuple[int, int]
"""Side of a square patch, or height and width."""


def sides(size: Size) -> tuple[int, int]:
    """Height and width of a patch."""
    return (size, size) if isinstance(size, int) else size


def positions(height: int, width: int, size: Size) -> tuple[int, int]:
    """Rows and columns of the grid of patches of an image."""
    high, wide = sides(size)
    return height + high - 1, width + wide - 1


def unfold_patches(images: torch.Tensor, size: Size) -> torch.Tensor:
    """Images ``(B, C, H, W)`` to all their patches ``(B, C * size**2, n)``, row by row.

    n is (H + size - 1)(W + size - 1).

    Raises:
        ValueError: a patch is larger than the image.
    """
    high, wide = sides(size)
    if not (1 <= high <= images.shape[-2] and 1 <= wide <= images.shape[-1]):
        raise ValueError(f"patches of {high} x {wide} do not fit into images of {images.shape[-2]} x {images.shape[-1]}")
    margins = (wide - 1, wide - 1, high - 1, high - 1)
    return functional.unfold(functional.pad(images, margins, mode="reflect"), (high, wide))


def fold_patches(patches: torch.Tensor, shape: tuple[int, int], size: Size) -> torch.Tensor:
    """Patches ``(B, C * size**2, n)`` back to images ``(B, C, H, W)`` of the given ``(H, W)``.

    A pixel is the mean over all patches that cover it. ``fold_patches(unfold_patches(x, size), ...)`` is x.
    """
    high, wide = sides(size)
    height, width = shape
    padded = functional.fold(patches, (height + 2 * (high - 1), width + 2 * (wide - 1)), (high, wide))
    return padded[..., high - 1 : high - 1 + height, wide - 1 : wide - 1 + width] / (high * wide)
