"""Projected diffusion with as many draws as a mixture needs.

Supervision: ``prior``.
Related: ``baselines/projected.py``, which has the sampler. Its presets give every mixture the same number of draws.

A draw of the projected diffusion ends in the right mode or in a wrong one, and most mixtures need few draws. The method
sees early, and at no cost, how a draw will end. Every step adds fresh noise to clean sources x_k and denoises the sum,
so the denoising loss of x

    sum_k |x_k - D(x_k + sigma n_k)|^2 / sigma^2

comes with the step. Its mean over the lower levels of the search is compared with the level of clean training images
under the same prior. If the loss is below that level by a margin, the sources are taken. Otherwise the mixture is drawn
again, up to ``most_draws`` times. The margin relaxes with every draw: if all draws of a mixture lose much, its images
probably lose much too. Only the draw that is taken goes on to the low noise levels, in small steps. The estimate is the
mean of its clean sources there.

Below level ``mirrored`` every second step takes minus the noise of the step before. So it takes away from the sources
what the step before added. Settings were chosen on validation mixtures, see ``docs/projected-auto.md``.
"""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.sampling.draw_until import Chain, clean_level, draw_until
from baselines.sampling.noise_levels import karras_levels
from baselines.sampling.problem import Problem
from baselines.sampling.separator import ScoreSeparator
from sepbench.errors import MethodError
from sepbench.protocols import MethodInfo, RunContext, TrainingView
from sepbench.settings import STRICT

QUICK_STEPS = 10
"""Steps of a search under the quick budget."""


@dataclass(config=STRICT)
class ProjectedAuto(ScoreSeparator):
    """Searches until the denoising loss is that of clean images, then one finish."""

    search_steps: int = Field(16, ge=2, description="noise levels of a search, one evaluation per source each")
    finish_steps: int = Field(24, ge=1, description="noise levels after it, for the search that is taken; the estimate is the mean over them")
    highest: float = Field(1.5, gt=0, description="first noise level")
    middle: float = Field(0.2, gt=0, description="last noise level of a search")
    lowest: float = Field(0.03, gt=0, description="last noise level")
    judged: float = Field(0.6, gt=0, description="the loss counts the levels of the search up to this one")
    mirrored: float = Field(0.9, ge=0, description="from this noise level down, noise comes in pairs n, -n; 0 draws all of it anew")
    accept: float = Field(-0.5, description="largest loss that is accepted at the first draw, in standard deviations above the mean of clean images")
    relax: float = Field(0.4, ge=0, description="how much accept rises with every further draw")
    most_draws: int = Field(12, ge=1, le=256, description="most searches per mixture")
    finalists: int = Field(4, ge=1, description="how many searches are probed if the first was not good enough: those with the least loss")
    probe_sigmas: tuple[Annotated[float, Field(gt=0)], ...] = Field((0.4,), min_length=1, description="noise levels of the probes, one evaluation each")
    probe_weight: float = Field(2.0, ge=0, description="weight of the probes beside the loss")
    calibration: int = Field(128, ge=2, description="clean training images that set the accepted loss")

    info: ClassVar[MethodInfo] = MethodInfo(
        "projected-auto",
        "Projected diffusion, draws as needed",
        "1",
        frozenset({"image"}),
        "prior",
        "sepbench's own; after Wang, Yu and Zhang (2023), DDNM",
        deterministic=False,
        max_batch=64,
    )
    _clean: tuple[float, float] = field(default=(math.nan, math.nan), init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lowest < self.middle < self.highest:
            raise ValueError(f"noise levels fall: give lowest below middle below highest, got {self.lowest}, {self.middle} and {self.highest}")
        if self.judged < self.middle:
            raise ValueError(f"judged must be at least middle, or no level of the search counts; got {self.judged} and {self.middle}")

    @property
    def posterior_samples(self) -> int:
        """Draws behind one estimate at most."""
        return self.best_of * self.most_draws

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Load the prior and measure clean training images with it."""
        super().fit(view, ctx)
        self.calibrate(view, ctx)

    def calibrate(self, view: TrainingView, ctx: RunContext) -> None:
        """The loss of K independent clean images, mean and standard deviation: what the sources of a good draw should have."""
        clean = view.clean(self.calibration).to(ctx.device)
        if len(clean) < 2:
            raise MethodError(f"{self.info.name} calibrates on clean training images and needs two at least, got {len(clean)}")
        chain = self.chain(ctx)
        sigmas = [chain.search[i] for i in chain.counted]
        levels = [clean_level(prior, clean, sigmas, ctx.noise) for prior in self._priors]
        share = ctx.task.n_sources / len(levels)  # one prior for all sources, or one for each
        self._clean = share * sum(mean for mean, _ in levels), math.sqrt(share * sum(std**2 for _, std in levels))

    def enough(self, accept: float) -> list[float]:
        """The loss that is enough after each draw, from so many standard deviations above the mean of K independent clean images; known after ``fit``."""
        mean, std = self._clean
        return [mean + (accept + self.relax * draw) * std for draw in range(self.most_draws)]

    def chain(self, ctx: RunContext) -> Chain:
        """The noise levels under the budget."""
        steps = min(QUICK_STEPS, self.search_steps) if ctx.budget == "quick" else self.search_steps
        search = karras_levels(steps, self.highest, self.middle, 1.5)
        finish = karras_levels(self.finish_steps + 1, self.middle, self.lowest, 1.0)[1:]
        return Chain(search, finish, self.judged, self.mirrored, bounded=True)

    def draw(self, problem: Problem, ctx: RunContext) -> torch.Tensor:
        """Searches until one is good enough, finished."""
        return self.drawn(problem, ctx)[0]

    def drawn(self, problem: Problem, ctx: RunContext) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, and the evaluations per source of every row, ``(B,)``."""
        enough = self.enough(self.accept)
        return draw_until(problem, self.chain(ctx), enough=enough, finalists=self.finalists, probes=self.probe_sigmas, probe_weight=self.probe_weight)
