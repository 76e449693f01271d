"""The mixture itself as the estimate of every source (Halperin et al., Neural Egg Separation, table 1, row "Const").

Supervision: ``blind``. This is a lower bound: it does nothing.

The estimates are not scaled and not clipped: for ``sum`` they reach up to K. For ``channel-mean`` every channel is the
grey mixture.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass

from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT


@dataclass(config=STRICT)
class MixtureAsEstimate:
    """``x_k = m``; no settings."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="mixture",
        title="Mixture (Const)",
        version="1",
        domains=frozenset({"image", "audio", "vector"}),
        supervision="blind",
        paper="Halperin, Ephrat and Hoshen 2018, table 1, Const",
        deterministic=True,
        bound="lower",
    )

    def supports(self, task: TaskSpec) -> Support:
        """Every task."""
        return Support(True)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, ...)`` to estimates ``(B, K, ...)``, all equal."""
        values = mixtures.values.to(ctx.device).unsqueeze(1)
        return values.expand(len(values), mixtures.n_sources, *ctx.task.source_shape).clone()
