"""GLO masking: Halperin, Ephrat and Hoshen, "Neural separation of observed and unobserved distributions" (2018), sec. 3 and table 1 (GLOM).

Supervision: ``mixtures+one``.

Two DCGAN generators, G_B and G_X, and a code of every training sample are learnt together (``baselines/training/latent.py``): G_B makes the clean samples
of the observed source, and G_B plus G_X make the mixtures; codes stay in the unit ball. For a new mixture y the generators are fixed and two codes are
found by descent; then::

    b = y G_B(z_b) / (G_B(z_b) + G_X(z_x)),    x = y - b

Two stages, as in the paper, or jointly (``glom-joint``); the paper finds both alike. Not stated, and ours: the dimension of codes, rates, epochs, L1 as the
error, projection onto the ball after every step, the length of the search. The perceptual loss that the paper uses on bags and shoes is not here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.mask_tasks import observed_and_other_support, part_weights
from baselines.decomposition.parts import estimates_from_parts
from baselines.training.epochs import cut_epochs
from baselines.training.latent import (
    Generators,
    LatentRecipe,
    LatentTraining,
    found_parts,
    in_unit_ball,
    load_generators,
    new_generators,
    save_generators,
    shared_out,
)
from baselines.training.loop import resume, run
from baselines.training.mask import Precision
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import OF_SIGNALS, STRICT, FitScope, Preset, presets

_FILE = "generators.safetensors"
_PAPER = "Halperin, Ephrat and Hoshen 2018, sec. 3 (GLOM)"
_QUICK_SEARCH = 4


@dataclass(config=STRICT)
class LatentMasking:
    """Masks from two generators whose codes are found by descent.

    Budget ``quick`` makes a tenth of the epochs, rounded up, and a quarter of the steps of a search.
    """

    latent: int = Field(100, ge=1, description="dimension of a code")
    epochs: int = Field(50, ge=1, description="passes over the clean samples, and over the mixtures")
    lr: float = Field(1e-3, gt=0, description="Adam's rate of the generators")
    code_lr: float = Field(1e-2, gt=0, description="Adam's rate of the codes while generators learn")
    joint: bool = Field(False, description="both sources at once, instead of the observed one first")
    weight: float = Field(1.0, gt=0, description="lambda, weight of the mixtures; of joint")
    search_steps: int = Field(400, ge=1, description="most steps of the search for a mixture's codes")
    restarts: int = Field(4, ge=1, description="searches for each mixture, from random codes; the one of least error counts")
    search_lr: float = Field(0.05, gt=0, description="Adam's rate of the search")
    tolerance: float = Field(0.01, ge=0, lt=1, description="a search ends when 50 more steps lower its error by less than this share")
    samples: int = Field(12_000, ge=2, description="the first so many clean samples, and so many mixtures")
    batch: int = Field(32, ge=2, description="samples per step")
    fit_precision: Precision = Field("bfloat16", description="of the generators while they learn; searches are in float32")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="glom",
        title="GLO masking",
        version="2",
        domains=frozenset({"image"}),
        supervision="mixtures+one",
        paper=_PAPER,
        deterministic=False,
        max_batch_cpu=32,
    )
    fit_scope: ClassVar[FitScope] = OF_SIGNALS
    _generators: Generators | None = field(default=None, init=False, repr=False)

    def supports(self, task: TaskSpec) -> Support:
        return observed_and_other_support(task, self.info.name)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Learn generators and codes, or go on where ``ctx.cache`` stands."""
        recipe = LatentRecipe(
            latent=self.latent,
            epochs=cut_epochs(self.epochs, ctx.budget),
            lr=self.lr,
            code_lr=self.code_lr,
            batch=self.batch,
            joint=self.joint,
            weight=self.weight,
            precision=self.fit_precision,
            seed=ctx.seed,
        )
        weights = _weights(ctx.task)
        generators = new_generators(self.latent, ctx.task.source_shape, weights, ctx.seed, ctx.device)
        training = LatentTraining(generators, recipe, weights[0] * view.observed(self.samples), view.mixtures(self.samples))
        resume(training, ctx.cache, ctx.device)
        run(training, ctx.cache, progress=ctx.progress)
        self._generators = generators.eval().requires_grad_(False)

    def save(self, folder: Path) -> None:
        save_generators(self._fitted(), folder / _FILE)

    def load(self, folder: Path, ctx: RunContext) -> None:
        generators = load_generators(self.latent, ctx.task.source_shape, _weights(ctx.task), folder / _FILE, ctx.device)
        self._generators = generators.requires_grad_(False)

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to estimates ``(B, 2, C, H, W)`` that explain them exactly: the mixture shared out, each over its weight."""
        values = mixtures.values.to(ctx.device)
        steps = -(-self.search_steps // _QUICK_SEARCH) if ctx.budget == "quick" else self.search_steps
        starts = self._starts(mixtures, ctx)
        made = found_parts(self._fitted(), values, starts, steps, self.search_lr, self.tolerance, lambda done: ctx.progress(done, "codes of mixtures"))
        parts = shared_out(made, values)  # the observed source comes first
        return estimates_from_parts(parts if ctx.task.observed_source == 0 else parts.flip(1), values, mixtures.operator)

    def _starts(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Codes ``(B, restarts, 2, latent)`` of about unit length, as learning begins with; they depend on seed and example alone."""
        draws = [ctx.noise.normals(mixtures.example_ids, number, 2, (self.latent,), ctx.device) for number in range(self.restarts)]
        return in_unit_ball(torch.stack(draws, 1) / math.sqrt(self.latent))

    def _fitted(self) -> Generators:
        if self._generators is None:
            raise ValueError("fit() or load() first")
        return self._generators


def _weights(task: TaskSpec) -> tuple[float, float]:
    """Of the observed and of the other source."""
    assert task.observed_source is not None  # ``supports`` sees to it
    weights = part_weights(task)
    return weights[task.observed_source], weights[1 - task.observed_source]


PRESETS: Mapping[str, type[LatentMasking]] = presets(
    LatentMasking,
    {"glom-joint": Preset("GLO masking, learnt jointly", _PAPER, "Both generators at once, the mixtures' error with weight lambda = 1.", {"joint": True})},
)
"""The registered names of GLO masking: two stages, and both at once."""
