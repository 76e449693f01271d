"""Group norm, scale and shift, and SiLU in one pass over the memory: a Triton kernel for inference on a GPU.

Under autocast torch makes about six passes: to float32, statistics, norm, scale, shift, SiLU, and back to bfloat16.
The pixels of a group are contiguous in ``(B, C, H, W)``, so one program handles one group. It reads the group once,
computes in float32, and writes it once. It rounds the result where autocast would round it.

Triton comes with torch's builds for CUDA. Import this module only when you use it.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, unused-ignore]
from torch import nn
from torch.nn import functional as F

_LARGEST = 1 << 14
"""The most numbers of a group that one program keeps in its registers. Larger images use torch."""


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _norm_silu(  # type: ignore[no-untyped-def]
    x, out, weight, bias, scale, shift, channels, size, row_stride, eps, GROUP: tl.constexpr, AFFINE: tl.constexpr, MODULATED: tl.constexpr, BLOCK: tl.constexpr
):
    """Program (row, group) handles ``GROUP`` channels of ``size`` pixels.

    ``scale`` and ``shift`` have a row every ``row_stride`` numbers.
    """
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1)
    count = GROUP * size
    place = tl.arange(0, BLOCK)
    inside = place < count
    start = (row * channels + group * GROUP) * size
    values = tl.load(x + start + place, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(values, axis=0) / count
    centred = tl.where(inside, values - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / count
    y = centred / tl.sqrt_rn(variance + eps)
    channel = group * GROUP + place // size
    if AFFINE:
        y = y * tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32) + tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    if MODULATED:
        entry = row * row_stride + channel
        y = y * tl.load(scale + entry, mask=inside, other=0.0).to(tl.float32) + tl.load(shift + entry, mask=inside, other=0.0).to(tl.float32)
    y = y / (1.0 + tl.exp(-y))
    tl.store(out + start + place, y.to(out.dtype.element_ty), mask=inside)


def norm_silu(x: torch.Tensor, norm: nn.GroupNorm, scale: torch.Tensor | None = None, shift: torch.Tensor | None = None) -> torch.Tensor:
    """``silu(norm(x) * scale + shift)``, ``(B, C, H, W)`` in x's dtype. It has no gradient.

    Args:
        x: features ``(B, C, H, W)`` on a GPU.
        norm: its groups, eps and, if it has them, weight and bias.
        scale, shift: ``(B, C, 1, 1)``, both or neither.
    """
    batch, channels, height, width = x.shape
    group, size = channels // norm.num_groups, height * width
    if group * size > _LARGEST or not x.numel():
        y = norm(x) if scale is None or shift is None else norm(x) * scale + shift
        return F.silu(y).to(x.dtype)
    x = x.contiguous()
    out = torch.empty_like(x)
    affine, modulated = norm.weight is not None, scale is not None
    rows, offsets = (t if t is None or t.stride(1) == 1 else t.contiguous() for t in (scale, shift))
    if rows is not None and offsets is not None and rows.stride(0) != offsets.stride(0):
        rows, offsets = rows.contiguous(), offsets.contiguous()
    block = triton.next_power_of_2(group * size)
    grid: Any = (batch, norm.num_groups)
    with torch.cuda.device_of(x):
        _norm_silu[grid](
            x,
            out,
            norm.weight if affine else x,
            norm.bias if affine else x,
            x if rows is None else rows,
            x if offsets is None else offsets,
            channels,
            size,
            0 if rows is None else rows.stride(0),
            norm.eps,
            GROUP=group,
            AFFINE=affine,
            MODULATED=modulated,
            BLOCK=block,
            num_warps=8 if block >= 4096 else 4 if block >= 1024 else 2,
        )
    return out
