"""Adversarial masking. Halperin, Ephrat and Hoshen 2018, sec. 3 and table 1 (AM).

The paper is "Neural separation of observed and unobserved distributions".

Supervision: ``mixtures+one``.

A mask network turns a mixture ``y = b + x`` into ``y m(y)``. A discriminator learns to tell ``y m(y)`` from clean
samples of b. The mask network learns to fool it. The losses are those of ``baselines/training/adversarial_mask.py``:
least squares (LSGAN), and ``mean |m(y) - 1|`` with weight 1. The estimate of x is the rest, ``y - y m(y)``. The
networks are NES' mask network and a DCGAN discriminator of 64 filters with spectral norm.

The paper does not state four things. We chose them:

* the rates: DCGAN's 2e-4, with the betas of NES;
* the epochs: 50;
* the order of the two updates: the discriminator first, both on the same batch;
* spectral norm: it replaces batch norm, as in Miyato et al. 2018.
"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.mask_tasks import observed_and_other_support, part_weights
from baselines.decomposition.parts import estimates_from_parts
from baselines.training.adversarial_mask import EPOCHS, OPENNESS, RATE, AdversarialTraining
from baselines.training.epochs import cut_epochs
from baselines.training.loop import resume, run
from baselines.training.mask import MaskNetwork, MaskRecipe, Precision, load_network, mask_layout, new_network, save_network, separated_parts
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import OF_SIGNALS, STRICT, FitScope

_FILE = "mask.safetensors"


@dataclass(config=STRICT)
class AdversarialMasking:
    """Masks that make mixtures look like clean samples of the observed source.

    Budget ``quick`` makes a tenth of the epochs, rounded up.
    """

    epochs: int = Field(EPOCHS, ge=1, description="passes over the mixtures")
    lr: float = Field(RATE, gt=0, description="Adam's rate, of both networks")
    openness: float = Field(OPENNESS, ge=0, description="weight of mean |m - 1|")
    samples: int = Field(12_000, ge=2, description="how many clean samples, and how many mixtures, the fit learns from (the first ones)")
    batch: int = Field(32, ge=2, description="mixtures, and clean samples, per step")
    fit_precision: Precision = Field("bfloat16", description="of the mask network during the fit (float32 on CPUs without it); it separates in float32")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="am",
        title="Adversarial masking",
        version="1",
        domains=frozenset({"image"}),
        supervision="mixtures+one",
        paper="Halperin, Ephrat and Hoshen 2018, sec. 3 (AM)",
        deterministic=False,
    )
    fit_scope: ClassVar[FitScope] = OF_SIGNALS
    _network: MaskNetwork | None = field(default=None, init=False, repr=False)

    def supports(self, task: TaskSpec) -> Support:
        return observed_and_other_support(task, self.info.name)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Learn the masks. The fit continues from the checkpoints in ``ctx.cache``, if there are any."""
        clean = part_weights(ctx.task)[_observed(ctx.task)] * view.observed(self.samples)
        recipe = MaskRecipe(self.lr, batch=self.batch, precision=self.fit_precision, seed=ctx.seed)
        network = new_network(mask_layout("autoencoder", ctx.task.source_shape), ctx.seed, ctx.device)
        training = AdversarialTraining(network, recipe, clean, view.mixtures(self.samples), cut_epochs(self.epochs, ctx.budget), self.openness)
        resume(training, ctx.cache, ctx.device)
        run(training, ctx.cache, progress=ctx.progress)
        self._network = network

    def save(self, folder: Path) -> None:
        save_network(self._fitted(), folder / _FILE)

    def load(self, folder: Path, ctx: RunContext) -> None:
        self._network = load_network(mask_layout("autoencoder", ctx.task.source_shape), folder / _FILE, ctx.device)

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to estimates ``(B, 2, C, H, W)`` that explain them exactly.

        The parts are y m(y) and the rest. Each estimate is its part over the weight of its source.
        """
        values = mixtures.values.to(ctx.device)
        parts = separated_parts(self._fitted(), values)  # the observed source comes first
        return estimates_from_parts(parts if _observed(ctx.task) == 0 else parts.flip(1), values, mixtures.operator)

    def _fitted(self) -> MaskNetwork:
        if self._network is None:
            raise ValueError("fit() or load() first")
        return self._network


def _observed(task: TaskSpec) -> int:
    assert task.observed_source is not None  # ``supports`` checks it
    return task.observed_source
