"""Ideal ratio mask of spectrograms, in its phase-sensitive form. Erdogan, Hershey, Watanabe and Le Roux, ICASSP 2015, sec. 3.

Supervision: ``bound``. This is an upper bound for methods that mask the short-time Fourier transform (``Stft.at``) with
shares in [0, 1] and keep the mixture's phase. It is never ranked. A method that estimates phases or waveforms may pass
it.

In a bin, m is the value of the mixture and s_k that of the weighted source (``m = sum_k s_k``). The part of s_k in
phase with m is

    p_k = |s_k| cos(angle(s_k) - angle(m)) = Re(s_k conj(m)) / |m|,   clipped to [0, |m|],

and the mask is ``p_k / sum_j p_j``, nussl 1.1.9's default (approach ``psa``). ``msa`` takes the magnitudes, ``p_k =
|s_k|``. Clipping breaks ``sum_j p_j = |m|``, and the quotient restores it. A bin of an all-zero mixture is shared
evenly, so the estimates always mix to the mixture.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.ideal import separate_ideally
from baselines.decomposition.masks import mask_support
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT


def in_phase(sources: torch.Tensor, mixtures: torch.Tensor) -> torch.Tensor:
    """``Re(s conj(m)) / |m|`` clipped to ``[0, |m|]``; 0 where m is. Complex ``(B, K, C, F, N)`` and ``(B, C, F, N)`` to real ``(B, K, C, F, N)``."""
    whole = mixtures.unsqueeze(1)
    level = whole.abs()
    projected = (sources * whole.conj()).real / level.clamp(min=torch.finfo(level.dtype).tiny)
    return torch.minimum(projected.clamp(min=0.0), level)


def shares(parts: torch.Tensor) -> torch.Tensor:
    """Non-negative ``(B, K, ...)`` over their sum along K; even where all are zero."""
    total = parts.sum(1, keepdim=True)
    return torch.where(total > 0, parts / torch.where(total > 0, total, 1.0), 1.0 / parts.shape[1])


@dataclass(config=STRICT)
class IdealRatioMask:
    """Mask times mixture, over the source's weight; the estimates mix to the mixture."""

    approach: Literal["psa", "msa"] = Field("psa", description="psa projects sources on the mixture's phase, msa takes their magnitudes; the first is better")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="ideal-ratio-mask",
        title="Ideal ratio mask (STFT)",
        version="1",
        domains=frozenset({"audio"}),
        supervision="bound",
        paper="Erdogan et al. 2015, sec. 3 (phase-sensitive, truncated to [0, 1])",
        deterministic=True,
        bound="upper",
    )

    def supports(self, task: TaskSpec) -> Support:
        support = mask_support(task, "an ideal ratio mask")
        return Support(True, "bound for masks in [0, 1] on the mixture's phase") if support.ok else support

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, T)`` to estimates ``(B, K, C, T)``.

        Raises:
            SupervisionError: the context hands out no references.
        """
        return separate_ideally(mixtures, ctx, self._masks)

    def _masks(self, sources: torch.Tensor, mixtures: torch.Tensor) -> torch.Tensor:
        return shares(in_phase(sources, mixtures) if self.approach == "psa" else sources.abs())
