"""Gaussian likelihood in a reverse diffusion. Mariani et al., "Multi-source diffusion models" (MSDM, ICLR 2024), the Gaussian baseline.

Supervision: ``prior``.

    d = (x - D(x, sigma)) / sigma - sigma / gamma^2 A^T (m - g(x)),   gamma = gamma_ratio sigma

The authors' code divides by ``2 gamma^2``, but a N(., gamma^2) likelihood has ``gamma^2``. So their effective variance
is twice what the paper says (``gamma_ratio = 0.75`` in their code is ``0.75 sqrt(2)`` here).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from baselines.sampling.noise_levels import karras_levels
from baselines.sampling.problem import Problem
from baselines.sampling.separator import ScoreSeparator, source_gram
from sepbench.protocols import MethodInfo, RunContext, Support, TaskSpec
from sepbench.settings import STRICT

QUICK_STEPS = 20
"""Steps under the quick budget, or the next number at which the residual shrinks: with many sources 20 are too few."""


def gaussian(problem: Problem, sigmas: Sequence[float], *, gamma_ratio: float = 0.75 * math.sqrt(2), churn: float = 0.0, resamplings: int = 1) -> Tensor:
    """One sample per mixture; ``len(sigmas) * resamplings`` evaluations per source.

    Args:
        problem: mixtures and priors.
        sigmas: noise levels, highest first, without the final zero.
        gamma_ratio: gamma / sigma.
        churn: S_churn of Karras et al. (2022), Algorithm 2.
        resamplings: each step is taken so many times, with the noise of the step added back in between.

    Returns:
        ``(B, K, ...)``; the sum agrees with the mixture to about the last noise level.
    """
    gamma = min(churn / len(sigmas), math.sqrt(2) - 1)
    x = sigmas[0] * problem.normals(0)
    step = 0
    for i, sigma in enumerate(sigmas):
        following = sigmas[i + 1] if i + 1 < len(sigmas) else 0.0
        for repeat in range(resamplings):
            step += 1
            level = sigma * (1 + gamma)
            if gamma > 0:
                x = x + math.sqrt(level**2 - sigma**2) * problem.normals(2 * step)
            correction = problem.operator.adjoint(problem.residual(x))
            direction = (x - problem.denoise(x, level)) / level - correction / (gamma_ratio**2 * level)
            x = x + (following - level) * direction
            if repeat + 1 < resamplings:
                x = x + math.sqrt(sigma**2 - following**2) * problem.normals(2 * step + 1)
    return x


def least_factor(gram: float, levels: Sequence[float], gamma_ratio: float, churn: float) -> float:
    """The least factor by which a step before the last one multiplies the residual of the mixture, ``1 - h (1 + gram / gamma_ratio^2)``.

    h is the length of the step over its noise level. It is also the most that the prior pulls back, see ``contraction`` of ``baselines/basis.py``.
    The loop diverges where the factor is -1 or less. Without a step before the last one it is 1.
    """
    gamma = min(churn / len(levels), math.sqrt(2) - 1)
    longest = max((1 - below / (above * (1 + gamma)) for above, below in pairwise(levels)), default=0.0)
    return 1 - longest * (1 + gram / gamma_ratio**2)


@dataclass(config=STRICT)
class Gaussian(ScoreSeparator):
    """The Gaussian likelihood on the prior that ships for the data set."""

    steps: int = Field(150, ge=1, description="noise levels of Karras et al., one evaluation per source and resampling each")
    highest: float = Field(1.0, gt=0, description="first noise level")
    lowest: float = Field(0.005, gt=0, description="last noise level; the paper goes down to 1e-4, the priors in the package to 0.005")
    gamma_ratio: float = Field(0.75 * math.sqrt(2), gt=0, description="standard deviation of the likelihood over the noise level")
    churn: float = Field(40.0, ge=0, description="fresh noise: S_churn of Karras et al. (2022), Algorithm 2")
    resamplings: int = Field(2, ge=1, description="how many times each step is made, with its noise added back in between")

    info: ClassVar[MethodInfo] = MethodInfo(
        "gaussian",
        "MSDM Gaussian",
        "1",
        frozenset({"image", "vector"}),
        "prior",
        "Mariani et al. (2024), baseline",
        deterministic=False,
        max_batch=512,
        max_batch_cpu=64,
    )

    def supports_operator(self, task: TaskSpec) -> Support:
        """Refuses settings at which the residual grows.

        The last step, down to no noise, may overshoot: the residual is of the last noise level there. It is taken ``resamplings`` times, as every
        step is. Refused are settings with which the residual comes out above the first noise level.
        """
        gram = source_gram(task)
        if gram is None:
            return Support(True, "step sizes are not checked for operators with gains of their own")
        factor = self._factor(gram, self.steps)
        if factor <= -1:
            return Support(False, f"diverges: a step multiplies the residual by {factor:.2f}; use a larger gamma_ratio or more steps")
        last, pull = karras_levels(self.steps, self.highest, self.lowest)[-1], gram / self.gamma_ratio**2
        overshoot = max(pull, abs(1 - pull))  # with and without the prior's pull
        if self.resamplings * math.log(overshoot) > math.log(self.highest / last):
            times = f"{self.resamplings} times by up to {overshoot:.2f}"
            return Support(False, f"diverges: the last step multiplies the residual {times}; use a larger gamma_ratio or fewer resamplings")
        return Support(True)

    def quick_steps(self, task: TaskSpec) -> int:
        """Steps under the quick budget, at most ``steps``; ``QUICK_STEPS`` where they do not diverge."""
        fewest, gram = min(QUICK_STEPS, self.steps), source_gram(task)
        if gram is None:
            return fewest
        return next((steps for steps in range(fewest, self.steps) if self._factor(gram, steps) > -1), self.steps)

    def draw(self, problem: Problem, ctx: RunContext) -> Tensor:
        """The reverse diffusion on one batch."""
        steps = self.quick_steps(ctx.task) if ctx.budget == "quick" else self.steps
        levels = karras_levels(steps, self.highest, self.lowest)
        return gaussian(problem, levels, gamma_ratio=self.gamma_ratio, churn=self.churn, resamplings=self.resamplings)

    def _factor(self, gram: float, steps: int) -> float:
        return least_factor(gram, karras_levels(steps, self.highest, self.lowest), self.gamma_ratio, self.churn)
