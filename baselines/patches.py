"""Overlapping patches of images: the two-dimensional form of a delay embedding, and the way back.

The image is mirrored by ``size - 1`` pixels on each side first, so that every pixel lies in exactly ``size ** 2`` patches and folding
back is the same average everywhere. A linear map of patches between the two is then a sum of convolutions of the image.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def positions(height: int, width: int, size: int) -> tuple[int, int]:
    """Rows and columns of the grid of patches of an image."""
    return height + size - 1, width + size - 1


def unfold_patches(images: torch.Tensor, size: int) -> torch.Tensor:
    """Images ``(B, C, H, W)`` to all their patches ``(B, C * size**2, n)``, n = (H + size - 1)(W + size - 1), row by row.

    Raises:
        ValueError: a patch is larger than the image.
    """
    if not 1 <= size <= min(images.shape[-2:]):
        raise ValueError(f"patches of {size} x {size} do not fit into images of {images.shape[-2]} x {images.shape[-1]}")
    margin = size - 1
    return functional.unfold(functional.pad(images, (margin, margin, margin, margin), mode="reflect"), size)


def fold_patches(patches: torch.Tensor, shape: tuple[int, int], size: int) -> torch.Tensor:
    """Patches ``(B, C * size**2, n)`` back to images ``(B, C, H, W)`` of the given ``(H, W)``: the mean over all patches that cover a pixel.

    ``fold_patches(unfold_patches(x, size), ...)`` is x.
    """
    margin = size - 1
    height, width = shape
    padded = functional.fold(patches, (height + 2 * margin, width + 2 * margin), size)
    return padded[..., margin : margin + height, margin : margin + width] / size**2
