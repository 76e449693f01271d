"""What methods with a network from waveform to waveforms share.

These are the settings of the training, ``fit``, ``save`` and ``load``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import field
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import nn

from baselines.training.epochs import cut_epochs
from baselines.training.loop import resume, run
from baselines.training.mask import Precision
from baselines.training.waveform import Errors, WaveformRecipe, load_network, new_network, remix_training, repeats_a_class, save_network, separated_parts
from sepbench.operators import make_operator
from sepbench.protocols import RunContext, TaskSpec, TrainingView
from sepbench.settings import OF_SIGNALS, STRICT, FitScope

_FILE = "network.safetensors"


@dataclass(config=STRICT)
class LearntWaveforms(ABC):
    """Learns from mixtures of clean signals. Every step makes new mixtures. A subclass gives the network and the loss.

    Budget ``quick`` makes a tenth of the steps, rounded up.
    """

    steps: int = Field(10_000, ge=1, description="updates of the weights")
    batch: int = Field(4, ge=1, description="mixtures per step")
    segment: int = Field(32_768, ge=1, description="the most samples of a training mixture")
    lr: float = Field(1e-3, gt=0, description="Adam's rate")
    decay: float = Field(0.5, gt=0, le=1, description="the share of the steps, at the end, over which the rate falls to zero")
    clip: float = Field(5.0, gt=0, description="the largest norm of a gradient")
    consistent: bool = Field(True, description="spread what the estimates leave of the mixture over them; the paper does not")
    fit_precision: Precision = Field("bfloat16", description="of the network during the fit (float32 on CPUs without it); it separates in float32")

    errors: ClassVar[Errors]
    fit_scope: ClassVar[FitScope] = OF_SIGNALS
    _network: nn.Module | None = field(default=None, init=False, repr=False)

    @abstractmethod
    def network(self, task: TaskSpec) -> nn.Module:
        """A new network for a task: mixtures ``(B, C, T)`` to parts ``(B, K, C, T)``."""

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Learn. The fit continues from the checkpoints in ``ctx.cache``, if there are any.

        Raises:
            SepbenchError: the loss is not finite.
        """
        recipe = WaveformRecipe(
            type(self).errors,
            any_order=repeats_a_class(ctx.task),
            steps=cut_epochs(self.steps, ctx.budget),
            batch=self.batch,
            segment=self.segment,
            lr=self.lr,
            decay=self.decay,
            clip=self.clip,
            precision=self.fit_precision,
            seed=ctx.seed,
        )
        network = new_network(lambda: self.network(ctx.task), ctx.seed, ctx.device)
        training = remix_training(network, view, recipe, _weights(ctx.task))
        resume(training, ctx.cache, ctx.device)
        run(training, ctx.cache, progress=ctx.progress)
        self._network = network

    def save(self, folder: Path) -> None:
        save_network(self._fitted(), folder / _FILE)

    def load(self, folder: Path, ctx: RunContext) -> None:
        self._network = load_network(lambda: self.network(ctx.task), folder / _FILE, ctx.device)

    def parts(self, mixtures: torch.Tensor) -> torch.Tensor:
        """Mixtures ``(B, C, T)`` to parts ``(B, K, C, T)``, which need not add up to them.

        Raises:
            ValueError: ``fit`` or ``load`` was not called.
        """
        return separated_parts(self._fitted(), mixtures)

    def _fitted(self) -> nn.Module:
        if self._network is None:
            raise ValueError("fit() or load() first")
        return self._network


def _weights(task: TaskSpec) -> tuple[float, ...] | None:
    """Weights of the sources in a mixture; None under ``gain``, where every mixture has its own."""
    return None if task.operator == "gain" else tuple(make_operator(task.operator, task.n_sources).matrix().reshape(-1).tolist())
