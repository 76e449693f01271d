"""The true sources themselves as estimates (BASIS, table 4, row "CIFAR-10 Original").

Supervision: ``bound``. The row says what a perfect separator would score. For metrics of sets (FID, KID, inception
score) this is the value of the test images against the training images, which is not zero. For all other metrics it is
their best value. It is never ranked.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass

from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT


@dataclass(config=STRICT)
class Original:
    """``x_k`` as it is; no settings."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="original",
        title="Original",
        version="1",
        domains=frozenset({"image"}),
        supervision="bound",
        paper="Jayaram and Thickstun 2020, table 4, CIFAR-10 Original",
        deterministic=True,
        bound="upper",
    )

    def supports(self, task: TaskSpec) -> Support:
        """Every task of images."""
        return Support(True)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to their true sources ``(B, K, C, H, W)``.

        Raises:
            SupervisionError: the context hands out no references.
        """
        return ctx.references(mixtures.example_ids).to(mixtures.values)
