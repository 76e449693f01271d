"""Robust PCA of images: a low-rank and a sparse part. Lin, Chen and Ma, arXiv 1009.5055 (2010), Algorithm 5.

Supervision: ``blind``.

An image is the matrix D of ``robust_pca`` (``baselines/decomposition/robust_pca.py``, which states the algorithm with
its symbols). Principal component pursuit (Candes, Li, Ma and Wright, J. ACM 2011) cuts it into a low-rank part A,
source 0, and a sparse part E, source 1. The split of two objects is degenerate, because neither digit is low-rank and
neither is sparse. A gets what rows and columns share (strokes along the axes, smooth background), E gets the rest, and
both contain pieces of both sources. The row is in the leaderboard as a floor, because LASS compares with it.

eps_2 is not the paper's 1e-5. At that value a digit pair takes more than 300 iterations. 1e-3 takes 74, raises the
objective by 1e-4 of itself and changes PSNR by 0.001 dB (500 MNIST mixtures). Audio suites get
``baselines/rpca_audio.py`` under the same name.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.parts import estimates_from_parts, part_support
from baselines.decomposition.robust_pca import robust_pca
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT

_CHUNK_ELEMENTS = 1 << 20
"""Matrix elements worked on at a time: eight float64 work arrays of 8 MiB each."""


@dataclass(config=STRICT)
class RobustPCA:
    """Source 0 is the low-rank part, source 1 the sparse part; the weighted estimates add up to the mixture."""

    sparsity: float = Field(1.0, gt=0, description="lambda in units of the paper's 1 / sqrt(max(m, n)); more makes the sparse part sparser")
    growth: float = Field(1.6, gt=1, description="rho, growth of the penalty; the paper's value")
    tolerance: float = Field(1e-7, gt=0, description="eps_1, on the relative residual; the paper's value")
    penalty_tolerance: float = Field(1e-3, gt=0, description="eps_2, on the movement of the sparse part that lets the penalty grow")
    max_iterations: int = Field(300, ge=1, description="most iterations, for mixtures that do not converge")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="rpca",
        title="rPCA",
        version="1",
        domains=frozenset({"image"}),
        supervision="blind",
        paper="Lin, Chen and Ma 2010, Algorithm 5; Candes, Li, Ma and Wright 2011",
        deterministic=True,
    )

    def supports(self, task: TaskSpec) -> Support:
        support = part_support(task, "robust PCA")
        if not support.ok:
            return support
        if task.n_sources != 2:
            return Support(False, f"robust PCA gives two parts, low-rank and sparse; the task has {task.n_sources} sources")
        return Support(True, "degenerate on a single image: neither source is low-rank or sparse, both parts hold pieces of both")

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to estimates ``(B, 2, C, H, W)``, not clamped; NaN for a mixture that is not finite.

        A colour image is one matrix ``(H, C W)``.
        """
        values = mixtures.values.to(ctx.device)
        batch, channels, height, width = values.shape
        finite = values.isfinite().flatten(1).all(1)[:, None, None, None]
        seen = torch.where(finite, values, 0.0)
        estimates = values.new_empty(batch, 2, channels, height, width)
        for chunk in torch.split(torch.arange(batch), max(1, _CHUNK_ELEMENTS // (height * width * channels))):
            images = seen[chunk.to(values.device)].double()
            matrices = images.transpose(1, 2).reshape(-1, height, channels * width)
            parts = self._parts(matrices).reshape(-1, 2, height, channels, width).transpose(2, 3)
            estimates[chunk.to(values.device)] = estimates_from_parts(parts, images, mixtures.operator.select(chunk)).float()
            ctx.progress((int(chunk[-1:].sum()) + 1) / max(1, batch), "images")
        return torch.where(finite.unsqueeze(1), estimates, torch.nan)

    def _parts(self, matrices: torch.Tensor) -> torch.Tensor:
        """Matrices ``(B, m, n)`` to their low-rank and sparse parts ``(B, 2, m, n)``."""
        found = robust_pca(
            matrices,
            sparsity=self.sparsity,
            growth=self.growth,
            tolerance=self.tolerance,
            penalty_tolerance=self.penalty_tolerance,
            max_iterations=self.max_iterations,
        )
        return torch.stack([found.low_rank, found.sparse], 1)
