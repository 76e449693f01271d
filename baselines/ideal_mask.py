"""Ideal mask: the mixture is cut by a mask that is computed from the references.

Supervision: ``bound``. This is an upper bound for methods whose mask is no finer than its blocks. It is never ranked.

On a block of p x p pixels of a channel the share of source k is the least-squares optimum ``a_k = <m, w_k x_k> / <m,
m>``. No mask that is constant on the blocks leaves a smaller squared error. Since ``sum_k w_k x_k = m``, the shares add
up to 1. It is never worse than the average, whose shares are a special case.

Why blocks: masks of single pixels are no bound on images. With p = 1 the share is the ratio mask ``w_k x_k / m``, and
the "estimate" is the reference itself. The ideal binary mask (Wang, "On ideal binary mask as the computational goal of
auditory scene analysis", 2005) gives the whole value to the strongest source. If both are bright, its error is the
whole other source. Measured PSNR (dB) on validation pairs:

==================  =======  ===============  ===========  ===========
classes split       average  binary, 1 x 1    share 2 x 2  share 4 x 4
==================  =======  ===============  ===========  ===========
mnist-pairs         14.8     18.9             23.9         19.2
digits-pairs        14.5     13.2             17.8         15.5
cifar10-mini-pairs  15.0     10.3             26.8         22.5
==================  =======  ===============  ===========  ===========

A method that models pixels (BASIS on MNIST: 29.5 dB) may pass it. Audio: ``ideal-ratio-mask`` and ``ideal-binary-mask``.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch.nn import functional

from baselines.decomposition.ideal import winner_takes_all
from baselines.decomposition.parts import estimates_from_parts, part_support
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT


def block_shares(parts: torch.Tensor, mixtures: torch.Tensor, block: int) -> torch.Tensor:
    """Least-squares shares of the parts in the mixture, constant on blocks.

    Args:
        parts: ``(B, K, C, H, W)`` weighted sources, adding up to the mixture.
        mixtures: ``(B, C, H, W)``.
        block: p; blocks at the lower and right edge are smaller where p does not divide the side.

    Returns:
        ``(B, K, C, H, W)``, adding up to 1 over the sources; even where a block of the mixture is all zero.
    """
    energy = functional.avg_pool2d(mixtures.square(), block, ceil_mode=True).unsqueeze(1)
    products = functional.avg_pool2d((parts * mixtures.unsqueeze(1)).flatten(0, 1), block, ceil_mode=True).unflatten(0, parts.shape[:2])
    shares = torch.where(energy > 0, products / torch.where(energy > 0, energy, 1.0), 1.0 / parts.shape[1])
    grown = shares.repeat_interleave(block, -2).repeat_interleave(block, -1)
    return grown[..., : mixtures.shape[-2], : mixtures.shape[-1]]


@dataclass(config=STRICT)
class IdealMask:
    """Mask times mixture, over the source's weight; the estimates mix to the mixture and are not clipped."""

    block: int = Field(2, ge=1, description="side of the blocks in pixels")
    mask: Literal["ratio", "binary"] = Field("ratio", description="ratio uses the shares, binary gives each block to the source with the largest share")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="ideal-mask",
        title="Ideal mask (2 x 2 pixels)",
        version="1",
        domains=frozenset({"image"}),
        supervision="bound",
        paper="least-squares ratio mask; binary: Wang 2005",
        deterministic=True,
        bound="upper",
    )

    def supports(self, task: TaskSpec) -> Support:
        support = part_support(task, "a mask")
        if not support.ok:
            return support
        if self.block == 1 and self.mask == "ratio":
            return Support(True, "single pixels: the estimates are the references themselves")
        return Support(True, "bound for masks no finer than its blocks")

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to estimates ``(B, K, C, H, W)``.

        Raises:
            SupervisionError: the context hands out no references.
        """
        values = mixtures.values.to(ctx.device)
        references = ctx.references(mixtures.example_ids).to(values)
        # adjoint(1) holds each source's weight wherever it acts: w_k x_k without knowing the operator's form.
        weighted = mixtures.operator.adjoint(torch.ones_like(values)) * references
        shares = block_shares(weighted, values, self.block)
        mask = shares if self.mask == "ratio" else winner_takes_all(shares)
        return estimates_from_parts(mask * values.unsqueeze(1), values, mixtures.operator)
