"""alpha-RGS: MAP over randomised Gaussian smoothing. Jayashankar et al., "Score-based source separation", NeurIPS 2023, arXiv 2306.14411.

Supervision: ``prior``. Two sources under a weighted sum.

The second source is what the first leaves of the mixture, ``b = (m - w_0 s) / w_1``. The first, s, minimises the
smoothed negative log posterior

    L(s) = - E_{sigma, z} log p_sigma(s + sigma z) - omega E_{sigma, z} log p_sigma(b + sigma z)

by stochastic gradients at random noise levels. The zero-mean noise is taken out of each gradient, as in the paper's
Algorithm 1: ``-grad = (D(x) - x) / sigma^2 + z / sigma = (D(s + sigma z) - s) / sigma^2``. Weights of sigma^2 keep the
gradients of all levels on one scale. omega is the alpha of the alpha-posterior over the signal's.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.sampling.problem import Problem
from baselines.sampling.separator import ScoreSeparator, needs_weighted_sum
from sepbench.protocols import MethodInfo, RunContext, Support, TaskSpec
from sepbench.settings import STRICT

QUICK_ITERATIONS = 40
"""Most iterations under the quick budget."""


def alpha_rgs(
    problem: Problem,
    *,
    iterations: int = 200,
    highest: float = 1.0,
    lowest: float = 0.02,
    omega: float = 1.0,
    rate: float = 0.2,
    final_rate: float = 0.02,
) -> torch.Tensor:
    """A local maximum of the smoothed posterior per mixture; ``iterations`` evaluations per source.

    Args:
        problem: mixtures of two sources.
        iterations: gradient steps.
        highest, lowest: the range from which noise levels are drawn, log-uniform, one per mixture batch and step.
        omega: weight of the second source's prior.
        rate, final_rate: step size at the first and the last iteration (cosine), relative to the denoiser's own step.

    Returns:
        ``(B, 2, ...)`` that mix to the mixture up to rounding.
    """
    if problem.n_sources != 2:
        raise ValueError(f"alpha-rgs separates two sources, the task has {problem.n_sources}")
    weights = problem.operator.matrix().to(problem.mixtures.values)[..., 0, :]
    ratio = (weights[..., 0] / weights[..., 1]).reshape(-1, *([1] * len(problem.source_shape)))
    x = problem.constrained(problem.uniforms(0), slot=1)
    # Levels must not depend on the batch: van der Corput's sequence covers the log range evenly at every prefix.
    for iteration in range(iterations):
        sigma = highest * (lowest / highest) ** _van_der_corput(iteration + 1)
        pull = problem.denoise(x + sigma * problem.normals(iteration + 1), sigma) - x
        step = final_rate + 0.5 * (rate - final_rate) * (1 + math.cos(math.pi * iteration / iterations))
        x = torch.stack([x[:, 0] + step * (pull[:, 0] - omega * ratio * pull[:, 1]) / (1 + omega), x[:, 1]], dim=1)
        x = problem.constrained(x, slot=1)
    return x


def _van_der_corput(n: int) -> float:
    """The n-th point of the base-2 low-discrepancy sequence in [0, 1)."""
    value, scale = 0.0, 0.5
    while n:
        value += scale * (n & 1)
        n >>= 1
        scale /= 2
    return value


@dataclass(config=STRICT)
class AlphaRGS(ScoreSeparator):
    """MAP over randomised smoothing on the prior that ships for the data set.

    A point estimate by design: its draws differ by their start and their noise, and do not sample the posterior.
    """

    iterations: int = Field(200, ge=1, description="gradient steps; each is one evaluation per source")
    highest: float = Field(1.0, gt=0, description="upper end of the range of noise levels, which are log-uniform in it")
    lowest: float = Field(0.02, gt=0, description="lower end of the range of noise levels")
    omega: float = Field(1.0, ge=0, description="weight of the second source's prior")
    rate: float = Field(0.2, gt=0, description="step size at the first iteration, relative to the denoiser's own step")
    final_rate: float = Field(0.02, gt=0, description="step size at the last iteration; a cosine leads there")

    info: ClassVar[MethodInfo] = MethodInfo(
        "alpha-rgs",
        "alpha-RGS",
        "1",
        frozenset({"image", "vector"}),
        "prior",
        "Jayashankar et al. (2023), Algorithm 1",
        deterministic=False,
        max_batch=512,
        max_batch_cpu=64,
    )

    def supports_operator(self, task: TaskSpec) -> Support:
        """Two sources, of which the second is what the first leaves over."""
        return needs_weighted_sum(task) if task.n_sources == 2 else Support(False, f"separates two sources, the task has {task.n_sources}")

    def draw(self, problem: Problem, ctx: RunContext) -> torch.Tensor:
        """Algorithm 1 on one batch."""
        return alpha_rgs(
            problem,
            iterations=min(QUICK_ITERATIONS, self.iterations) if ctx.budget == "quick" else self.iterations,
            highest=self.highest,
            lowest=self.lowest,
            omega=self.omega,
            rate=self.rate,
            final_rate=self.final_rate,
        )
