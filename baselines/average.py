"""Average: the mixture shared evenly among its sources (Jayaram and Thickstun, ICML 2020, tables 2 and 3).

Supervision: ``blind``. This is a lower bound: a method of separation should beat it.

The estimates are the operator's pseudo-inverse, the sources of least norm that explain the mixture. For ``sum`` each is
``m / K``, for ``mean`` it is m itself, and for ``channel-mean`` it is grey. (For ``mean`` LASS prints ``y / 2``,
although its y is already the average: flag 15 of docs/protocols.md.)
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass

from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT


@dataclass(config=STRICT)
class Average:
    """``A^T (A A^T)^-1 m``; no settings."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="average",
        title="Average",
        version="1",
        domains=frozenset({"image", "audio", "vector"}),
        supervision="blind",
        paper="Jayaram and Thickstun 2020, table 2",
        deterministic=True,
        bound="lower",
    )

    def supports(self, task: TaskSpec) -> Support:
        """Every task."""
        return Support(True)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, ...)`` to estimates ``(B, K, ...)`` that mix to the mixture exactly (up to rounding)."""
        return mixtures.operator.pseudo_inverse(mixtures.values.to(ctx.device))
