"""4x4 convolutions of stride 2, and their transposes, laid out for CPUs that compute in bfloat16.

They are ``nn.Conv2d`` and ``nn.ConvTranspose2d`` with a kernel of 4, a stride of 2 and a padding of 1. Mask
autoencoders and DCGANs are built of them. Everywhere but in bfloat16 on a CPU they compute what torch's own do.

There torch's gradients of weights are slow for small maps with many channels. Such a layer is computed as one matrix
product: row i of ``columns(x)`` has the 4 x 4 patch under position i of the smaller map. All others are given to torch
with channels last. ``benchmarks/halving.py`` measures single layers and whole steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_SIDE, _STRIDE, _PADDING = 4, 2, 1
_MOST_POSITIONS, _LEAST_CHANNELS = 64, 128
"""Up to 8 x 8 positions of the smaller map, and with at least 128 channels on both sides, a product is as fast or faster."""


class HalvingConv2d(nn.Conv2d):
    """``(B, before, H, W)`` to ``(B, after, H // 2, W // 2)``, without a bias.

    Args:
        before: input channels.
        after: output channels.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, _SIDE, stride=_STRIDE, padding=_PADDING, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        if not _bfloat16_on_cpu(x):
            return super().forward(x)
        if _as_product(self, (x.shape[-2] // 2) * (x.shape[-1] // 2)):
            return halve(x.bfloat16(), self.weight.bfloat16())
        return _channels_last(functional.conv2d(_channels_last(x), _channels_last(self.weight), stride=_STRIDE, padding=_PADDING))


class DoublingConv2d(nn.ConvTranspose2d):
    """``(B, before, H, W)`` to ``(B, after, 2 H, 2 W)``, without a bias.

    Args:
        before: input channels.
        after: output channels.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, _SIDE, stride=_STRIDE, padding=_PADDING, bias=False)

    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """See the class."""
        if output_size is not None or not _bfloat16_on_cpu(x):
            return super().forward(x, output_size)
        if _as_product(self, x.shape[-2] * x.shape[-1]):
            return double(x.bfloat16(), self.weight.bfloat16())
        return _channels_last(functional.conv_transpose2d(_channels_last(x), _channels_last(self.weight), stride=_STRIDE, padding=_PADDING))


def halve(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``conv2d(x, weight, stride=2, padding=1)`` as a matrix product.

    Args:
        x: ``(B, C, H, W)``.
        weight: ``(D, C, 4, 4)``.

    Returns:
        ``(B, D, H // 2, W // 2)``, channels last in memory.
    """
    patches: torch.Tensor = _Columns.apply(x.permute(0, 2, 3, 1).contiguous())  # type: ignore[no-untyped-call]
    return functional.linear(patches, weight.permute(0, 2, 3, 1).flatten(1)).permute(0, 3, 1, 2)


def double(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``conv_transpose2d(x, weight, stride=2, padding=1)`` as a matrix product.

    Args:
        x: ``(B, D, H, W)``.
        weight: ``(D, C, 4, 4)``.

    Returns:
        ``(B, C, 2 H, 2 W)``, channels last in memory.
    """
    patches = functional.linear(x.permute(0, 2, 3, 1), weight.permute(2, 3, 1, 0).flatten(0, 2))
    made: torch.Tensor = _Sum.apply(patches, (2 * x.shape[-2], 2 * x.shape[-1]))  # type: ignore[no-untyped-call]
    return made.permute(0, 3, 1, 2)


class _Columns(torch.autograd.Function):
    """Patches of images. Its gradient adds patches up, and that of ``_Sum`` takes them: each is the other's adjoint."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.size = (x.shape[1], x.shape[2])
        return columns(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return summed(gradient.contiguous(), ctx.size)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, patches: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return summed(patches, size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return columns(gradient.contiguous()), None


def columns(x: torch.Tensor) -> torch.Tensor:
    """The 4 x 4 patches, two pixels apart, of images ``(B, H, W, C)``: ``(B, H // 2, W // 2, 16 C)``.

    The images get a border of one zero on every side.
    """
    batch, height, width, channels = x.shape
    padded = functional.pad(x, (0, 0, 1, 1, 1, 1))
    line = (width + 2) * channels
    size = (batch, height // 2, width // 2, _SIDE, _SIDE, channels)
    strides = ((height + 2) * line, _STRIDE * line, _STRIDE * channels, line, channels, 1)
    return padded.as_strided(size, strides).reshape(*size[:3], -1)


def summed(patches: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Images ``(B, H, W, C)`` of the given height and width, the sums of overlapping patches: the adjoint of ``columns``.

    A pixel is in at most 2 x 2 patches. Each patch is four blocks of 2 x 2 pixels, and blocks do not overlap.
    """
    batch, rows, places, length = patches.shape
    blocks = patches.view(batch, rows, places, 2, 2, 2, 2, length // _SIDE**2)
    images = patches.new_zeros(batch, rows + 1, 2, places + 1, 2, blocks.shape[-1])
    for down in (0, 1):
        for right in (0, 1):
            images[:, down : down + rows, :, right : right + places].add_(blocks[:, :, :, down, :, right].transpose(2, 3))
    return images.view(batch, 2 * rows + 2, 2 * places + 2, -1)[:, 1 : size[0] + 1, 1 : size[1] + 1].contiguous()


def _bfloat16_on_cpu(x: torch.Tensor) -> bool:
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def _as_product(layer: nn.Conv2d | nn.ConvTranspose2d, positions: int) -> bool:
    return positions <= _MOST_POSITIONS and min(layer.in_channels, layer.out_channels) >= _LEAST_CHANNELS


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)
