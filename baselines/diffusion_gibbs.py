"""Diffusion within Gibbs. Zhang, Guo and Eldar, "Bayesian signal separation via plug-and-play diffusion-within-Gibbs sampling", arXiv 2509.12857.

Supervision: ``prior``.

Take ``m = sum_k w_k x_k + v`` with noise ``v ~ N(0, s^2)``. Given the other sources, the conditional of one source is a
denoising problem:

    p(x_k | x_{-k}, m)  is  p(x_k | r_k = x_k + (s / w_k) n),   r_k = (m - sum_{j != k} w_j x_j) / w_k,

A reverse diffusion that STARTS at r_k, at noise level ``s / w_k``, draws from it exactly, given an exact prior. Sweeps
over the sources are a Gibbs sampler, so the stationary distribution is the posterior with observation noise s. As the
authors do, the noise is annealed from sweep to sweep for mixing. The sampler draws from the posterior of the last
level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.sampling.noise_levels import karras_levels, ncsn_levels
from baselines.sampling.problem import Problem
from baselines.sampling.separator import ScoreSeparator, needs_weighted_sum
from sepbench.protocols import MethodInfo, RunContext, Support, TaskSpec
from sepbench.settings import STRICT

QUICK_LEVELS = 10
"""Most annealing levels under the quick budget."""


def reverse_diffusion(problem: Problem, start: torch.Tensor, slot: int, sigma: float, lowest: float, steps: int, step: int) -> torch.Tensor:
    """Ancestral sampling from ``x + sigma n = start`` down to a clean source, ``(B, ...)``.

    Each step draws from the Gaussian bridge ``p(x_next | x_now, x_0 = D(x_now))`` (Ho et al. 2020, eq. (6), in the variance-exploding
    form); exact for small steps. The last step returns the posterior mean at the last level.
    """
    x = start
    levels = karras_levels(steps, sigma, min(lowest, sigma), rho=3.0) if steps > 1 else [sigma]
    for i, level in enumerate(levels):
        clean = problem.denoise_one(x, slot, level)
        following = levels[i + 1] if i + 1 < len(levels) else 0.0
        shrink = (following / level) ** 2
        x = clean + shrink * (x - clean)
        if following > 0:
            x = x + following * math.sqrt(1 - shrink) * problem.normal(step + i, slot)
    return x


def diffusion_gibbs(problem: Problem, sigmas: Sequence[float], *, inner_steps: int = 4, sweeps_per_level: int = 1, lowest: float = 0.01) -> torch.Tensor:
    """One sample per mixture; ``len(sigmas) * sweeps_per_level * inner_steps`` evaluations per source.

    Args:
        problem: mixtures with a weighted-sum operator, and priors.
        sigmas: observation noise per level, highest first; the last one is the posterior that is sampled.
        inner_steps: steps of each reverse diffusion.
        sweeps_per_level: Gibbs sweeps per level.
        lowest: last noise level inside a reverse diffusion.

    Returns:
        ``(B, K, ...)``.
    """
    operator = problem.mixtures.operator
    weights = operator.matrix().to(problem.mixtures.values.dtype)[..., 0, :].reshape(-1, problem.n_sources)
    if not bool((weights[:1] == weights).all()):
        raise ValueError("diffusion-gibbs needs one weight per source for the whole batch: its noise levels are per call of the prior")
    x = operator.pseudo_inverse(problem.mixtures.values).clone()
    step = 0
    for sigma in sigmas:
        for _ in range(sweeps_per_level):
            for k in range(problem.n_sources):
                weight = float(weights[0, k])
                target = x[:, k] + problem.residual(x) / weight
                x[:, k] = reverse_diffusion(problem, target, k, sigma / abs(weight), lowest, inner_steps, step)
            problem.evaluations += inner_steps
            step += inner_steps
    return x


@dataclass(config=STRICT)
class DiffusionGibbs(ScoreSeparator):
    """Diffusion within Gibbs on the prior that ships for the data set; ``levels * sweeps_per_level * inner_steps`` evaluations per source."""

    levels: int = Field(40, ge=1, description="geometric levels of observation noise, annealed from sweep to sweep")
    highest: float = Field(1.0, gt=0, description="first level of observation noise")
    lowest: float = Field(0.02, gt=0, description="last level of observation noise: the posterior's own")
    inner_steps: int = Field(5, ge=1, description="steps of each reverse diffusion")
    sweeps_per_level: int = Field(1, ge=1, description="Gibbs sweeps per level")

    info: ClassVar[MethodInfo] = MethodInfo(
        "diffusion-gibbs",
        "Diffusion within Gibbs",
        "1",
        frozenset({"image", "vector"}),
        "prior",
        "Zhang, Guo and Eldar (2025), arXiv 2509.12857",
        deterministic=False,
        max_batch=512,
        max_batch_cpu=64,
    )

    def supports_operator(self, task: TaskSpec) -> Support:
        """The noise level of a conditional is that of the mixture over the source's weight, one for the whole batch."""
        if task.operator == "gain":
            return Support(False, "its noise levels are shared by a batch, which gains of their own do not allow; use basis-ncsn or dirac")
        return needs_weighted_sum(task)

    def draw(self, problem: Problem, ctx: RunContext) -> torch.Tensor:
        """The annealed Gibbs sampler on one batch."""
        levels = min(QUICK_LEVELS, self.levels) if ctx.budget == "quick" else self.levels
        sigmas = ncsn_levels(levels, self.highest, self.lowest)
        return diffusion_gibbs(problem, sigmas, inner_steps=self.inner_steps, sweeps_per_level=self.sweeps_per_level, lowest=self.lowest / 2)
