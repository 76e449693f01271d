"""Robust PCA of audio: voice and repeating accompaniment. Huang, Chen, Smaragdis and Hasegawa-Johnson, ICASSP 2012, sec. 3.

Supervision: ``blind``.

The magnitude spectrogram of a channel is the matrix D of ``robust_pca`` (Lin, Chen and Ma, arXiv 1009.5055 (2010),
Algorithm 5; ``baselines/decomposition/robust_pca.py`` states it with its symbols). Its low-rank part A is the repeating
accompaniment, and its sparse part E is the voice. A bin belongs to the voice if |E| > |A| (eq. 3 of Huang et al., gain
1), and never below ``high_pass`` Hz. Source 0 is the low-rank part and source 1 the voice, unless the names of the
task's classes say otherwise (``roles.py``).

Settings are nussl 1.1.9's (rho = 1.5, the penalty grows in every iteration, at most 100 of them), except for the end
and the precision. eps_1 is 1e-4 instead of 1e-7, which takes 23 iterations instead of 38. They are made in float32, but
Gram matrices are not (``shrinkage.py``). A mask asks only which part of a bin is larger, and that is settled by then.
We compared with float64 and 1e-7 on 56 mixtures (7 each of validation drums and bass, two speakers, speech in white,
brown and babble noise, and three kinds of toys). Estimates correlate at >= 0.9998, half of them at >= 0.99999; 1e-3
left 0.9975 on the worst toy. ``benchmarks/nussl_speed.py`` prints speed and agreement. Image suites get
``baselines/rpca.py`` under the same name.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch.nn import functional

from baselines.decomposition.masks import background_mask, mask_support, separate_by_masks
from baselines.decomposition.robust_pca import robust_pca
from baselines.decomposition.roles import VOICES, role_support, slot_of_role
from baselines.decomposition.shrinkage import WarmShrinkage
from baselines.decomposition.side_by_side import side_by_side
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT

_PIECE = {"cpu": 1 << 19, "cuda": 1 << 25}
"""Bins of the spectrograms in one call of ``robust_pca``: three of 3 s at 22,050 Hz in each thread of the CPU; a GPU wants more at once."""

_CHUNK = 1 << 22
"""Bins of the mixtures that the threads share at a time."""


@dataclass(config=STRICT)
class AudioRobustPCA:
    """The sparse part of the spectrogram is the voice: it goes to the slot of class speech or vocals, if the task has one."""

    sparsity: float = Field(1.0, gt=0, description="lambda in units of the paper's 1 / sqrt(max(m, n)); more makes the sparse part sparser")
    growth: float = Field(1.5, gt=1, description="rho, growth of the penalty; nussl's value")
    tolerance: float = Field(1e-4, gt=0, description="eps_1, on the relative residual; from 1e-4 on in float32, below in float64")
    max_iterations: int = Field(100, ge=1, description="most iterations, for spectrograms that do not converge")
    high_pass: float = Field(100.0, ge=0, description="bins below that many Hz belong to the low-rank part")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="rpca",
        title="rPCA",
        version="1",
        domains=frozenset({"audio"}),
        supervision="blind",
        paper="audio: Huang et al. 2012, sec. 3; Lin, Chen and Ma 2010, Algorithm 5",
        deterministic=True,
    )

    def supports(self, task: TaskSpec) -> Support:
        support = mask_support(task, "robust PCA", parts=2)
        return role_support(task, VOICES, "robust PCA", "sparse part") if support.ok else support

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, T)`` to estimates ``(B, 2, C, T)``; every channel is a matrix of its own."""
        voice_first = slot_of_role(ctx.task, VOICES) == 0
        return separate_by_masks(mixtures, ctx, lambda magnitudes, rate: self._first_mask(magnitudes, rate, voice_first), chunk_bins=_CHUNK)

    def _first_mask(self, magnitudes: torch.Tensor, sample_rate: int, voice_first: bool) -> torch.Tensor:
        """Magnitudes ``(B, C, F, N)`` to the mask ``(B, 1, C, F, N)`` of the part in slot 0: the low-rank one, or the sparse one."""
        matrices = magnitudes.flatten(0, 1)
        largest = _PIECE.get(magnitudes.device.type, _PIECE["cpu"]) // matrices[0].numel()
        share = side_by_side(self._background, matrices, largest).reshape(magnitudes.shape)
        background = background_mask(share, self.high_pass, sample_rate)
        return 1.0 - background if voice_first else background

    def _background(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """1 where the low-rank part of ``(B, F, N)`` is at least as large as the sparse one, else 0."""
        wide = spectrograms.shape[1] > spectrograms.shape[2]
        matrices = spectrograms.mT if wide else spectrograms
        rows, columns = matrices.shape[1:]
        # Every matrix of the batch must start at a multiple of 64 bytes: kernels choose their order of summation by the address, and a
        # rounding error can turn a bin. Rows and columns of zeros change nothing but the paper's lambda, which counts columns.
        padded = functional.pad(matrices, (0, -columns % 4, 0, -rows % 4)).contiguous()
        found = robust_pca(
            padded,
            sparsity=self.sparsity * (padded.shape[2] / columns) ** 0.5,
            growth=self.growth,
            tolerance=self.tolerance,
            penalty_tolerance=math.inf,
            max_iterations=self.max_iterations,
            precision=torch.float32 if self.tolerance >= 1e-4 else torch.float64,
            shrinkage=WarmShrinkage(),
        )
        share = (found.sparse.abs() <= found.low_rank.abs()).to(spectrograms.dtype)[:, :rows, :columns]
        return share.mT if wide else share
