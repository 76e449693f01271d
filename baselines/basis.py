"""BASIS: Bayesian annealed signal source separation. Jayaram and Thickstun, ICML 2020, Algorithm 1.

Supervision: ``prior`` (one unconditional model of clean sources, also for class-split tasks).

Annealed Langevin dynamics on ``p(x | m) ~ prod_k p_sigma(x_k) N(m; g(x), gamma^2 = sigma^2 / c)``, over L noise levels with T steps each:

    eta_i = delta sigma_i^2 / sigma_L^2
    x <- x + eta_i score(x, sigma_i) + sqrt(2 eta_i) eps + c eta_i / sigma_i^2 A^T (m - g(x))

The residual is taken at the old x, as Algorithm 1 does (Jacobi). Two errata of the printed algorithm are put right: the correction is
ADDED (the print subtracts it), and the noise uses the level's own eta_i. ``delta`` and ``c`` are 2e-5 and 1 in the paper; the authors'
MNIST runner uses 3e-5 and 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch

from baselines.posterior import Problem

Start = Literal["uniform", "normal"]


def contraction(gram: float, delta: float, factor: float, sigma_last: float) -> tuple[float, float]:
    """Range of the factor by which one step multiplies the residual of the mixture, ``1 - (p + gram c q)`` with q = delta / sigma_L^2.

    ``p`` lies in [0, q], depending on how strongly the prior pulls back. The loop diverges where the absolute value reaches 1.
    """
    q = delta / sigma_last**2
    return 1 - q - gram * factor * q, 1 - gram * factor * q


def is_stable(gram: float, delta: float, factor: float, sigma_last: float) -> bool:
    """Whether every residual shrinks at every step (four sources at 3e-5 and factor 2 do not: -1.4)."""
    low, high = contraction(gram, delta, factor, sigma_last)
    return max(abs(low), abs(high)) < 1.0


def start_sources(problem: Problem, start: Start) -> torch.Tensor:
    """Algorithm 1's start, uniform on the sources' range [0, 1]; the Glow runner's is normal. Uses step 0 of the noise."""
    return problem.uniforms(0) if start == "uniform" else problem.normals(0)


def basis(
    problem: Problem,
    sigmas: Sequence[float],
    *,
    delta: float = 2e-5,
    steps_per_level: int = 100,
    factor: float = 1.0,
    start: Start = "uniform",
    noise: bool = True,
    final_denoise: bool = False,
) -> torch.Tensor:
    """One posterior sample per mixture.

    Args:
        problem: mixtures, operator and priors.
        sigmas: noise levels, highest first.
        delta: step size at the last level.
        steps_per_level: T.
        factor: c, weight of the likelihood; gamma^2 = sigma^2 / c.
        start: distribution of the first state.
        noise: False is the ablation of Fig. 3 without Langevin noise.
        final_denoise: replace the last state by its posterior mean at the lowest level, one evaluation more.

    Returns:
        ``(B, K, ...)``, not clamped.
    """
    x = start_sources(problem, start)
    step = 0
    for sigma in sigmas:
        eta = delta * (sigma / sigmas[-1]) ** 2
        for _ in range(steps_per_level):
            step += 1
            correction = problem.mixtures.operator.adjoint(problem.residual(x))
            drift = eta * problem.score(x, sigma) + (factor * eta / sigma**2) * correction
            x = x + drift
            if noise:
                x = x + math.sqrt(2 * eta) * problem.normals(step)
    return problem.denoise(x, sigmas[-1]) if final_denoise else x
