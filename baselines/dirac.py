"""Dirac likelihood: one source is the mixture minus the others. Mariani et al., "Multi-source diffusion models" (MSDM, ICLR 2024), sec. 3.3.

Supervision: ``prior``.

The reverse diffusion runs on all sources but one. The constrained source s is ``x_s = (m - sum_{j != s} w_j x_j) /
w_s`` at every step, and its score reaches the others through the chain rule:

    d_k = (x_k - D(x_k, sigma)) / sigma - (w_k / w_s) (x_s - D(x_s, sigma)) / sigma

It uses a Karras schedule, Euler steps, and optional churn and resampling. The released code does not compute x_s again
after the last step, so its estimates need not sum to the mixture. Here they do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.sampling.noise_levels import karras_levels
from baselines.sampling.problem import Problem
from baselines.sampling.separator import ScoreSeparator, needs_weighted_sum
from sepbench.protocols import MethodInfo, RunContext, Support, TaskSpec
from sepbench.settings import STRICT

QUICK_STEPS = 20
"""Most steps under the quick budget."""


def dirac(
    problem: Problem,
    sigmas: Sequence[float],
    *,
    slot: int = 0,
    churn: float = 0.0,
    resamplings: int = 1,
) -> torch.Tensor:
    """One sample per mixture; ``len(sigmas) * resamplings`` evaluations per source.

    Args:
        problem: mixtures with a weighted-sum operator, and priors.
        sigmas: noise levels, highest first, without the final zero.
        slot: the constrained source s.
        churn: S_churn of Karras et al. (2022), Algorithm 2; per step gamma = min(churn / steps, sqrt(2) - 1).
        resamplings: each step is taken so many times, with the noise of the step added back in between.

    Returns:
        ``(B, K, ...)`` that mix to the mixture up to rounding.
    """
    weights = problem.operator.matrix()
    ratio = (weights[..., 0, :] / weights[..., 0, slot : slot + 1]).to(problem.mixtures.values)
    ratio = ratio.reshape(-1, problem.n_sources, *([1] * len(problem.source_shape)))
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
            x = problem.constrained(x, slot)
            direction = (x - problem.denoise(x, level)) / level
            x = x + (following - level) * (direction - ratio * direction[:, slot : slot + 1])
            if repeat + 1 < resamplings:
                x = x + math.sqrt(sigma**2 - following**2) * problem.normals(2 * step + 1)
    return problem.constrained(x, slot)


@dataclass(config=STRICT)
class Dirac(ScoreSeparator):
    """The Dirac likelihood on the prior that ships for the data set."""

    steps: int = Field(150, ge=1, description="noise levels of Karras et al., one evaluation per source and resampling each")
    highest: float = Field(1.0, gt=0, description="first noise level")
    lowest: float = Field(0.005, gt=0, description="last noise level; the paper goes down to 1e-4, the priors in the package to 0.005")
    slot: int = Field(0, ge=0, description="number of the constrained source, which is the mixture minus the others")
    churn: float = Field(20.0, ge=0, description="fresh noise: S_churn of Karras et al. (2022), Algorithm 2")
    resamplings: int = Field(2, ge=1, description="how many times each step is made, with its noise added back in between")

    info: ClassVar[MethodInfo] = MethodInfo(
        "dirac",
        "MSDM Dirac",
        "1",
        frozenset({"image", "vector"}),
        "prior",
        "Mariani et al. (2024), sec. 3.3",
        deterministic=False,
        max_batch=512,
        max_batch_cpu=64,
    )

    def supports_operator(self, task: TaskSpec) -> Support:
        """One source is what the others leave over."""
        if self.slot >= task.n_sources:
            return Support(False, f"its setting slot is {self.slot}, the task's sources are numbered 0 to {task.n_sources - 1}")
        return needs_weighted_sum(task)

    def draw(self, problem: Problem, ctx: RunContext) -> torch.Tensor:
        """The reverse diffusion on one batch."""
        steps = min(QUICK_STEPS, self.steps) if ctx.budget == "quick" else self.steps
        return dirac(problem, karras_levels(steps, self.highest, self.lowest), slot=self.slot, churn=self.churn, resamplings=self.resamplings)
