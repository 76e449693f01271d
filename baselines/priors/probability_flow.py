"""Log densities of denoisers through the probability-flow ODE. Song et al., "Score-based generative modeling through stochastic differential
equations" (ICLR 2021), sec. 4.3 and app. D.2.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from sepbench.protocols import ScorePrior


def flow_log_prob(
    prior: ScorePrior,
    x: torch.Tensor,
    *,
    lowest: float,
    highest: float,
    base_mean: torch.Tensor,
    base_variance: float,
    steps: int = 32,
    probes: torch.Tensor | None = None,
) -> torch.Tensor:
    """``log p_lowest(x)`` by the probability-flow ODE (Song et al. 2021, eq. (39); here in log sigma, Heun's rule).

    ``dx / d log sigma = x - D(x, sigma)`` and ``d log p / d log sigma = -(n - tr dD/dx)``, up to ``p_highest``, taken as a Gaussian.

    Args:
        prior: a denoiser that autograd can differentiate.
        x: ``(M, ...)``.
        lowest, highest: noise levels; x counts as a sample of ``p_lowest``.
        base_mean: ``(...)`` mean of the clean data.
        base_variance: variance per coordinate of the clean data; the base is ``N(base_mean, base_variance + highest^2)``.
        steps: Heun steps, two evaluations each.
        probes: ``(P, ...)`` random signs for Hutchinson's estimate of the trace; None computes it exactly, one backward pass per
            dimension, for small signals.

    Returns:
        ``(M,)`` float64 nats.
    """
    dimension = x[0].numel()
    levels = torch.logspace(math.log10(lowest), math.log10(highest), steps + 1, dtype=torch.float64).tolist()
    change = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
    state = x.detach()
    for low, high in pairwise(levels):
        width = math.log(high / low)
        drift, trace = _flow(prior, state, low, probes)
        drift_end, trace_end = _flow(prior, state + width * drift, high, probes)
        state = state + 0.5 * width * (drift + drift_end)
        change += width * (dimension - 0.5 * (trace + trace_end))
    variance = base_variance + levels[-1] ** 2
    quadratic = (state - base_mean).double().flatten(1).square().sum(-1) / variance
    log_prob: torch.Tensor = change - 0.5 * (quadratic + dimension * math.log(2 * math.pi * variance))
    return log_prob


def _flow(prior: ScorePrior, x: torch.Tensor, sigma: float, probes: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """``x - D(x)`` and the trace of ``dD/dx``, ``(M,)`` float64."""
    with torch.enable_grad():
        point = x.detach().requires_grad_(True)
        denoised = prior.denoise(point, sigma)
        trace = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
        directions = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device).unflatten(1, x.shape[1:]) if probes is None else probes
        for direction in directions:
            (pulled,) = torch.autograd.grad(denoised, point, direction.expand_as(denoised), retain_graph=True)
            trace += (pulled * direction).double().flatten(1).sum(-1)
        if probes is not None:
            trace /= len(probes)
    return (x - denoised).detach(), trace
