"""Semi-supervised NMF as Halperin, Ephrat and Hoshen (2018) print it, appendix B, eqs. (12)-(18): the penalty is on the bases, not on the codes.

Supervision: ``mixtures+one``. Signals are rows, l = 50 bases per source, alpha = 1, everything non-negative, NNLS = non-negative least squares:

1. bases of the observed source from clean samples B, ``||B - Z W_B||^2 + alpha ||W_B||_1^2``, by NNLS for Z and for W_B in turn, eqs. (12)-(14);
2. bases of the other source from mixtures Y, ``||Y - Z_B W_B - Z_X W_X||^2 + alpha ||W_X||_1^2``: 2 l bases of which the first l are fixed, eqs. (15)-(17);
3. a mixture is coded by NNLS on all 2 l; the estimates are ``Z_B W_B`` and ``Z_X W_X``, eq. (18): no mask.

The paper leaves three things open. We take the squared L1 norm for each pixel, over its l weights, as in the sparse NMF
of Kim and Park (2007, 2011), whom the paper cites. Only then is the step for W a problem of NNLS. "Until convergence"
is a relative fall of the objective of less than ``1e-4`` in a round. The start is training signals. The penalty says
next to nothing: Z is free, so W can shrink and Z grow at no cost. ``nmf-semi`` is our own variant with the penalty on
the codes, for comparison. docs/semi-supervised-nmf.md says what both reach.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.nnls import nnls
from baselines.decomposition.nonnegative import sample_atoms
from baselines.decomposition.parts import estimates_from_parts, part_support
from baselines.decomposition.semi_supervised import semi_supervised_support
from sepbench.errors import MethodError
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT

_FIT_TOLERANCE = 1e-4
"""Of NNLS while bases are learnt, in float32; a mixture is coded to 1e-6 in float64."""


def alternate(
    signals: torch.Tensor, start: torch.Tensor, sparsity: float, rounds: int, *, known: torch.Tensor | None = None, change: float = 1e-4
) -> torch.Tensor:
    """Bases ``(l, D)`` that minimise ``||X - Z_0 W_0 - Z W||^2 + alpha sum_d (sum_r W_rd)^2`` over W, Z_0 and Z, not negative, by exact steps in turn.

    Args:
        signals: X, ``(N, D)``.
        start: W, ``(l, D)``.
        sparsity: alpha.
        rounds: the most.
        known: W_0, ``(l_0, D)``, never changed.
        change: the end is a round that takes less than this share off the objective.
    """
    fixed = signals.new_zeros(0, signals.shape[1]) if known is None else known
    bases, codes = start, None
    before = float("inf")
    for _ in range(rounds):
        both = torch.cat([fixed, bases])
        codes = nnls(both @ both.T, signals @ both.T, tolerance=_FIT_TOLERANCE, start=codes)
        old, own = codes[:, : len(fixed)], codes[:, len(fixed) :]
        rest = signals - old @ fixed
        gram = own.T @ own
        bases = nnls(gram + sparsity, rest.T @ own, tolerance=_FIT_TOLERANCE, start=bases.T).T  # alpha (sum_r W_rd)^2 adds alpha to every entry
        value = float((rest - own @ bases).square().sum(dtype=torch.float64)) + sparsity * float(bases.sum(0).square().sum())
        if value > (1.0 - change) * before:
            break
        before = value
    return bases


@dataclass(config=STRICT)
class PrintedSemiSupervisedNMF:
    """Bases of the observed source B from clean samples, of the other source X from mixtures, as printed.

    Budget ``quick`` learns from a quarter of the samples in a quarter of the rounds.
    """

    bases: int = Field(50, ge=1, description="l, bases per source; at most one per training sample")
    sparsity: float = Field(1.0, ge=0, description="alpha, weight of the squared L1 norm of the bases")
    iterations: int = Field(100, ge=1, description="most rounds of each stage; a stage ends earlier when the objective no longer falls")
    samples: int = Field(12_000, ge=1, description="how many clean samples, and how many mixtures, are learnt from (the first ones)")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="nmf-semi-printed",
        title="Semi-supervised NMF, as printed",
        version="1",
        domains=frozenset({"image"}),
        supervision="mixtures+one",
        paper="Halperin, Ephrat and Hoshen 2018, appendix B, eqs. (12)-(18)",
        deterministic=False,
    )
    _observed: torch.Tensor | None = field(default=None, init=False, repr=False)
    _other: torch.Tensor | None = field(default=None, init=False, repr=False)

    def supports(self, task: TaskSpec) -> Support:
        support = part_support(task, "semi-supervised NMF")
        return semi_supervised_support(task) if support.ok else support

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Stages 1 and 2.

        Raises:
            MethodError: the training images hold negative values.
        """
        cut = 4 if ctx.budget == "quick" else 1
        rounds, samples = max(1, self.iterations // cut), max(1, self.samples // cut)
        clean, mixed = view.observed(samples).flatten(1).to(ctx.device), view.mixtures(samples).flatten(1).to(ctx.device)
        if bool((clean < 0).any()) or bool((mixed < 0).any()):
            raise MethodError("NMF needs training data without negative values")
        noise = ctx.noise.fork(1)
        self._observed = alternate(clean, sample_atoms(clean, min(self.bases, len(clean)), noise, 0), self.sparsity, rounds)
        ctx.progress(1 / 3, "stage 1: the observed source")
        self._other = alternate(mixed, sample_atoms(mixed, min(self.bases, len(mixed)), noise, 1), self.sparsity, rounds, known=self._observed)
        ctx.progress(1.0, "stage 2: the other source")

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to estimates ``(B, 2, C, H, W)``, not negative, not clamped from above."""
        if self._observed is None or self._other is None:
            raise ValueError("separate() before fit()")
        values = mixtures.values.to(ctx.device).flatten(1).double()
        bases = torch.cat([self._observed, self._other]).double()
        codes = nnls(bases @ bases.T, values @ bases.T).float()
        known = len(self._observed)
        parts = [codes[:, :known] @ self._observed, codes[:, known:] @ self._other]
        ordered = torch.stack(parts if ctx.task.observed_source == 0 else parts[::-1], 1).unflatten(2, mixtures.values.shape[1:])
        return estimates_from_parts(ordered, ordered.sum(1), mixtures.operator)
