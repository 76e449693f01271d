"""The noise of ``sepbench.noise`` in one launch on a GPU: counters, Philox rounds and Box-Muller of all rows in one Triton kernel.

Triton comes with torch's builds for CUDA and is imported when the first noise is drawn on a GPU. ``sepbench.noise`` compares what this kernel gives
with its own arithmetic before it uses it. ``TRITON_INTERPRET=1`` runs the kernel on the CPU, which is how its bits are tested without a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, unused-ignore]

_BLOCK = 256
"""Counters, of four numbers each, per program."""


@triton.jit(do_not_specialize=["step", "key_low", "key_high", "count"])  # type: ignore[untyped-decorator, unused-ignore]
def _fill(out, ids, last_words, step, key_low, key_high, count, NORMAL: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Row r, block b: the counters b * BLOCK ... of example ``ids[r]`` with the last word ``last_words[r]``; ``count`` numbers per row are kept."""
    row = tl.program_id(0).to(tl.int64)
    number = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    nothing = tl.zeros([BLOCK], dtype=tl.uint32)
    c0 = number.to(tl.uint32)
    c1 = nothing + step.to(tl.uint32)
    c2 = nothing + tl.load(ids + row).to(tl.uint32)
    c3 = nothing + tl.load(last_words + row).to(tl.uint32)
    k0 = nothing + key_low.to(tl.uint32)
    k1 = nothing + key_high.to(tl.uint32)
    m0 = nothing + 0xD2511F53
    m1 = nothing + 0xCD9E8D57
    for _ in tl.static_range(10):
        high0 = tl.umulhi(m0, c0)
        high1 = tl.umulhi(m1, c2)
        low0 = m0 * c0
        low1 = m1 * c2
        c0 = high1 ^ c1 ^ k0
        c2 = high0 ^ c3 ^ k1
        c1 = low1
        c3 = low0
        k0 = k0 + 0x9E3779B9
        k1 = k1 + 0xBB67AE85
    # 24 bits are exact in float32, and so is one more than they hold
    u0 = (c0 >> 8).to(tl.float32)
    u1 = (c1 >> 8).to(tl.float32)
    u2 = (c2 >> 8).to(tl.float32)
    u3 = (c3 >> 8).to(tl.float32)
    scale = 1.0 / 16777216.0
    if NORMAL:
        turn = 6.283185307179586 / 16777216.0
        radius0 = tl.sqrt_rn(tl.log((u0 + 1.0) * scale) * -2.0)
        radius1 = tl.sqrt_rn(tl.log((u2 + 1.0) * scale) * -2.0)
        angle0 = u1 * turn
        angle1 = u3 * turn
        u0 = radius0 * tl.cos(angle0)
        u1 = radius0 * tl.sin(angle0)
        u2 = radius1 * tl.cos(angle1)
        u3 = radius1 * tl.sin(angle1)
    else:
        u0 = u0 * scale
        u1 = u1 * scale
        u2 = u2 * scale
        u3 = u3 * scale
    place = number * 4
    start = out + row * count
    tl.store(start + place, u0, mask=place < count)
    tl.store(start + place + 1, u1, mask=place + 1 < count)
    tl.store(start + place + 2, u2, mask=place + 2 < count)
    tl.store(start + place + 3, u3, mask=place + 3 < count)


def fill(ids: torch.Tensor, last_words: torch.Tensor, step: int, key: tuple[int, int], count: int, normal: bool) -> torch.Tensor:
    """``(rows, count)`` float32, standard normals or uniforms.

    Args:
        ids, last_words: third and fourth counter word of each row, ``(rows,)`` int64 in [0, 2**32), on the device that computes.
        step: second counter word.
        key: the two words of the key.
        count: numbers per row.
        normal: normals instead of uniforms.
    """
    out = torch.empty((len(ids), count), dtype=torch.float32, device=ids.device)
    if out.numel():
        grid: Any = (len(ids), triton.cdiv(triton.cdiv(count, 4), _BLOCK))
        with torch.cuda.device_of(out):
            _fill[grid](out, ids.contiguous(), last_words.contiguous(), step, key[0], key[1], count, NORMAL=normal, BLOCK=_BLOCK)
    return out
