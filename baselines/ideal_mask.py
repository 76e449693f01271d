"""Ideal mask: each value of the mixture is handed to the sources by a mask computed from the references.

Supervision: ``bound``. An upper bound for methods that mask the mixture; never ranked.

The binary mask (Wang, "On ideal binary mask as the computational goal of auditory scene analysis", 2005, eq. 12.1 at 0 dB) gives the whole
value to the source that is strongest there. The ratio mask ``|w_k x_k| / sum_j |w_j x_j|`` is no bound on images: where no source is
negative the sum in its denominator is the mixture, so the "estimate" is the reference itself. Hence the binary mask is the default.
Audio masks belong to the short-time Fourier domain and are not offered here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from baselines.parts import WEIGHTED_SUMS
from sepbench.data.operators import MixingOperator
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView


def binary_mask(levels: torch.Tensor) -> torch.Tensor:
    """1 for the strongest source, 0 for the others, ties shared evenly: levels ``(B, K, ...)``, not negative, to masks that add up to 1."""
    strongest = (levels == levels.amax(1, keepdim=True)).to(levels.dtype)
    return strongest / strongest.sum(1, keepdim=True)


def ratio_mask(levels: torch.Tensor) -> torch.Tensor:
    """Each source's share of the levels ``(B, K, ...)``, even where all are zero; masks add up to 1."""
    total = levels.sum(1, keepdim=True)
    return torch.where(total > 0, levels / torch.where(total > 0, total, 1.0), 1.0 / levels.shape[1])


@dataclass
class IdealMask:
    """Mask times mixture, over the source's weight; the estimates mix to the mixture and are not clipped.

    Attributes:
        mask: ``binary`` (a bound) or ``ratio`` (the references themselves where no source is negative).
    """

    mask: Literal["binary", "ratio"] = "binary"

    info: ClassVar[MethodInfo] = MethodInfo(
        name="ideal-mask",
        title="Ideal binary mask",
        version="1",
        domains=frozenset({"image", "vector"}),
        supervision="bound",
        paper="Wang 2005, eq. 12.1",
        deterministic=True,
        bound="upper",
    )

    def __post_init__(self) -> None:
        if self.mask not in ("binary", "ratio"):
            raise ValueError(f"mask must be 'binary' or 'ratio', got {self.mask!r}")

    def supports(self, task: TaskSpec) -> Support:
        if task.domain not in self.info.domains:
            return Support(False, f"a mask on the samples means nothing for {task.domain}; it belongs to the short-time Fourier domain")
        if task.operator not in WEIGHTED_SUMS or task.n_sources < 2:
            return Support(False, f"a mask chooses between sources that add up; operator {task.operator!r} of {task.n_sources} source(s) leaves no choice")
        return Support(True, "" if self.mask == "binary" else "on images the ratio mask gives back the references")

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, ...)`` to estimates ``(B, K, ...)``.

        Raises:
            SupervisionError: the context hands out no references.
        """
        values = mixtures.values.to(ctx.device)
        references = ctx.references(mixtures.example_ids).to(values)
        weights = _weights(mixtures.operator, references)
        levels = (weights * references).abs()
        mask = binary_mask(levels) if self.mask == "binary" else ratio_mask(levels)
        # A source of weight 0 left no trace in the mixture: nothing of it can be had back.
        return torch.where(weights != 0, mask * values.unsqueeze(1) / torch.where(weights != 0, weights, 1.0), 0.0)


def _weights(operator: MixingOperator, like: torch.Tensor) -> torch.Tensor:
    """The operator's row as ``(1 or B, K, 1, ...)``."""
    rows = operator.matrix().to(like).squeeze(-2)
    rows = rows if rows.ndim == 2 else rows.unsqueeze(0)
    return rows.reshape(*rows.shape, *([1] * (like.ndim - 2)))
