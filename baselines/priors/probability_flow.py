"""Log densities of denoisers through the probability-flow ODE. Song et al., "Score-based generative modeling through stochastic differential
equations" (ICLR 2021), sec. 4.3 and app. D.2.

With ``t = log sigma`` the flow and the log density along it are::

    dx / dt = x - D(x, sigma),      d log p / dt = -(n - tr dD/dx)

The state needs one pass forward per evaluation, the trace one pass backward per probe, and the trace is a smooth function of t. So the state goes
by classical Runge-Kutta steps, and the trace is taken only at the nodes of a Gauss-Legendre rule. The trace is estimated with random signs
(Hutchinson 1990) on the pixels of a sparse lattice at a time: ``sum_c (s 1_c)^T J (s 1_c)`` over the classes c of a partition of the pixels (probing;
Tang and Saad 2012). Its variance is ``2 sum J_ij^2`` over pairs within one class, so pixels whose outputs depend on each other's inputs
should lie in different classes; J is largest between neighbours. ``benchmarks/log_prior_error.py`` measures all of this.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from sepbench.noise import NoiseSource
from sepbench.protocols import ScorePrior

FLOW_STREAM = 7002
"""Stream of the probes, apart from every sampler's own and from the noises of the denoising loss."""

Probes = Callable[[int], torch.Tensor]
"""Number of the node to directions ``(P, M, ...)`` or ``(P, 1, ...)`` with ``E sum_p v_p v_p^T = I``."""


def flow_log_prob(
    prior: ScorePrior,
    x: torch.Tensor,
    *,
    lowest: float,
    highest: float,
    base_mean: torch.Tensor,
    base_variance: float,
    steps: int = 24,
    probes: Probes | None = None,
) -> torch.Tensor:
    """``log p_lowest(x)``, with ``p_highest`` taken as a Gaussian.

    Args:
        prior: a denoiser that autograd can differentiate.
        x: ``(M, ...)``.
        lowest, highest: noise levels; x counts as a sample of ``p_lowest``.
        base_mean: ``(...)`` mean of the clean data.
        base_variance: variance per coordinate of the clean data; the base is ``N(base_mean, base_variance + highest^2)``.
        steps: nodes of the quadrature, each with a Runge-Kutta step up to it: four passes forward, and one backward per probe.
        probes: directions for the trace at each node; None computes it exactly, one pass backward per dimension.

    Returns:
        ``(M,)`` float64 nats.

    Raises:
        ValueError: levels that do not rise from above 0, or no step.
    """
    if not 0 < lowest < highest or steps < 1:
        raise ValueError(f"give 0 < lowest < highest and steps >= 1, got {lowest}, {highest} and {steps}")
    dimension = x[0].numel()
    times, weights = quadrature(lowest, highest, steps)
    identity = torch.eye(dimension, dtype=x.dtype, device=x.device).unflatten(1, (1, *x.shape[1:]))
    change = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
    state, now, drift = x.detach(), math.log(lowest), None
    for node, (time, weight) in enumerate(zip(times, weights, strict=True)):
        state = _runge_kutta(prior, state, now, time, drift)
        drift, trace = drift_and_trace(prior, state, math.exp(time), identity if probes is None else probes(node))
        change += weight * (dimension - trace)
        now = time
    state = _runge_kutta(prior, state, now, math.log(highest), drift)
    variance = base_variance + highest**2
    quadratic = (state - base_mean).double().flatten(1).square().sum(-1) / variance
    log_prob: torch.Tensor = change - 0.5 * (quadratic + dimension * math.log(2 * math.pi * variance))
    return log_prob


def quadrature(lowest: float, highest: float, nodes: int) -> tuple[list[float], list[float]]:
    """Gauss-Legendre nodes and weights in ``log sigma`` from ``lowest`` to ``highest``."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    low, high = math.log(lowest), math.log(highest)
    return (0.5 * ((high - low) * points + low + high)).tolist(), (0.5 * (high - low) * weights).tolist()


def _runge_kutta(prior: ScorePrior, x: torch.Tensor, start: float, end: float, drift: torch.Tensor | None) -> torch.Tensor:
    """One classical step of the state; ``drift`` is that at the start, where it is known."""
    width = end - start
    first = _drift(prior, x, start) if drift is None else drift
    second = _drift(prior, x + 0.5 * width * first, start + 0.5 * width)
    third = _drift(prior, x + 0.5 * width * second, start + 0.5 * width)
    fourth = _drift(prior, x + width * third, end)
    return x + width / 6 * (first + 2 * second + 2 * third + fourth)


def _drift(prior: ScorePrior, x: torch.Tensor, time: float) -> torch.Tensor:
    return x - prior.denoise(x, math.exp(time))


def drift_and_trace(prior: ScorePrior, x: torch.Tensor, sigma: float, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``x - D(x)`` and ``sum_p v_p^T (dD/dx) v_p``, ``(M,)`` float64, for directions ``(P, M or 1, ...)``."""
    with torch.enable_grad():
        point = x.detach().requires_grad_(True)
        denoised = prior.denoise(point, sigma)
        trace = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
        for direction in directions:
            (pulled,) = torch.autograd.grad(denoised, point, direction.expand_as(denoised), retain_graph=True)
            trace += (pulled * direction).double().flatten(1).sum(-1)
    return (x - denoised).detach(), trace


def lattices(shape: tuple[int, ...], spacing: int) -> torch.Tensor:
    """Masks ``(P, *shape)`` of the sparse lattices that a signal falls into: positions that are equal modulo ``spacing`` along the last two axes (the last
    one of a vector) and lie in the same channel. ``P <= channels * spacing^2``; beyond the signal's size every position has a mask of its own."""
    label = torch.zeros(shape, dtype=torch.int64)
    for axis, size in enumerate(shape):
        period = size if axis < len(shape) - 2 else min(spacing, size)
        position = torch.arange(size).remainder(period).reshape(-1, *[1] * (len(shape) - axis - 1))
        label = label * period + position
    return torch.stack([label == number for number in range(int(label.max()) + 1)])


def lattice_signs(example_ids: torch.Tensor, noise: NoiseSource, shape: tuple[int, ...], spacing: int, device: torch.device) -> Probes:
    """Random signs on one lattice at a time, independent from node to node.

    Rows with one example id share their signs at every node, so that errors of candidates of one example partly cancel; nothing depends on the batch.
    """
    masks = lattices(shape, spacing).to(device)
    stream = noise.fork(FLOW_STREAM)
    ids, row = torch.unique(example_ids, return_inverse=True)

    def at(node: int) -> torch.Tensor:
        signs = torch.where(stream.uniform(ids, node, 0, shape) < 0.5, -1.0, 1.0)[row].to(device)
        return masks.unsqueeze(1) * signs

    return at
