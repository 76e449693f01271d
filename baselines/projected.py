"""Projected diffusion with pruned candidates: sepbench's own sampler, made for the best PSNR per network evaluation.

Supervision: ``prior``. Related: DDNM (Wang, Yu and Zhang 2023), which projects the predicted clean image onto the measurement.

Every step of the reverse diffusion predicts all sources, ``D_k = E[x_k | noisy x_k]``, conditions the prediction on the mixture and goes
on from there. With independent errors of variance ``v_k`` the conditional mean is the weighted projection

    x_k <- D_k + w_k v_k / (sum_j w_j^2 v_j) (m - g(D))

which meets the mixture exactly. Plain DDNM takes equal v_k. Signals in [0, 1] allow better: by the inequality of Bhatia and Davis (2000) a
variable in [0, 1] with mean D has variance at most D (1 - D), so a pixel that the denoiser is sure of keeps its value and the other
source takes the residual.

Failures of such samplers are wrong modes, not blur. So N candidates start, and at chosen levels the denoising loss of the consistent
predictions (the criterion of ``sepbench.selection``) keeps the best of them: most evaluations go to candidates worth finishing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from baselines.posterior import Problem
from sepbench.selection import SELECTION_STREAM

VARIANCE_FLOOR = 1e-3
"""Smallest error variance of a prediction in [0, 1]: without it two sure and wrong predictions could not be corrected."""


def condition(problem: Problem, predicted: torch.Tensor, bounded: bool) -> torch.Tensor:
    """Predictions ``(B, N, K, ...)`` moved onto the mixture: the weighted projection above."""
    batch, count = predicted.shape[:2]
    weights = problem.mixtures.operator.matrix().to(predicted)[..., 0, :]
    weights = weights.reshape(-1, 1, problem.n_sources, *([1] * len(problem.source_shape)))
    variance = (predicted * (1 - predicted)).clamp_min(VARIANCE_FLOOR) if bounded else torch.ones_like(predicted)
    rows = torch.arange(batch).repeat_interleave(count)
    mixed = problem.mixtures.operator.select(rows).forward(predicted.flatten(0, 1)).unflatten(0, (batch, count))
    residual = (problem.mixtures.values.unsqueeze(1) - mixed).unsqueeze(2)
    share: torch.Tensor = weights * variance / (weights.square() * variance).sum(2, keepdim=True)
    moved: torch.Tensor = predicted + share * residual
    return moved


def projected(
    problem: Problem,
    sigmas: Sequence[float],
    *,
    candidates: int = 1,
    keep: Mapping[int, int] | None = None,
    stochasticity: float = 1.0,
    bounded: bool = True,
    loss_sigmas: Sequence[float] = (0.1, 0.2, 0.4, 0.8),
) -> torch.Tensor:
    """One estimate per mixture, the best of ``candidates`` runs.

    Args:
        problem: mixtures with a weighted-sum operator, and priors.
        sigmas: noise levels, highest first, without the final zero.
        candidates: runs that start.
        keep: after how many steps how many candidates are kept, by denoising loss; the survivors of the last step are ranked by it too.
        stochasticity: share of fresh noise in each step, 1 draws all anew (as DDPM at coarse steps), 0 keeps it (DDIM).
        bounded: sources lie in [0, 1], so the variance bound applies.
        loss_sigmas: noise levels of the denoising loss; each costs one evaluation per source and candidate.

    Returns:
        ``(B, K, ...)`` that mix to the mixture up to rounding. ``problem.evaluations`` counts evaluations per source, all candidates added up.
    """
    keep = keep or {}
    x = sigmas[0] * _normals(problem, 0, torch.arange(candidates).expand(len(problem.mixtures), -1))
    alive = torch.arange(candidates).expand(len(problem.mixtures), -1)  # (B, N) numbers of the candidates: key of their noise
    clean = x
    for i, sigma in enumerate(sigmas):
        predicted = _denoise(problem, x, sigma).clamp(0, 1) if bounded else _denoise(problem, x, sigma)
        clean = condition(problem, predicted, bounded)
        if keep.get(i, alive.shape[1]) < alive.shape[1]:
            order = _losses(problem, clean, loss_sigmas).argsort(dim=1)[:, : keep[i]]
            x, clean, alive = _take(x, order), _take(clean, order), alive.gather(1, order.cpu())
        if i + 1 < len(sigmas):
            following = sigmas[i + 1]
            old = (x - clean) / sigma
            fresh = _normals(problem, i + 1, alive)
            x = clean + following * (math.sqrt(1 - stochasticity**2) * old + stochasticity * fresh)
    if clean.shape[1] > 1:
        clean = _take(clean, _losses(problem, clean, loss_sigmas).argmin(dim=1, keepdim=True))
    return clean[:, 0]


def _take(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    return x[torch.arange(x.shape[0], device=x.device)[:, None], order]


def _normals(problem: Problem, step: int, alive: torch.Tensor) -> torch.Tensor:
    """Standard normals ``(B, N, K, ...)`` keyed by the candidate's own number, so pruning does not change what a survivor draws."""
    sources, count = problem.n_sources, alive.shape[1]
    drawn = torch.empty(len(problem.mixtures), count, sources, *problem.source_shape, device=problem.device)
    for number in alive.unique().tolist():
        rows, columns = (alive == number).nonzero(as_tuple=True)
        for k in range(sources):
            ids = problem.mixtures.example_ids[rows]
            drawn[rows, columns, k] = problem.noise.normal(ids, step, number * sources + k, problem.source_shape, problem.device)
    return drawn


def _denoise(problem: Problem, x: torch.Tensor, sigma: float) -> torch.Tensor:
    """``(B, N, K, ...)``; counts N evaluations per source."""
    problem.evaluations += x.shape[1] - 1
    rows: torch.Tensor = problem.denoise(x.flatten(0, 1), sigma).unflatten(0, x.shape[:2])
    return rows


def _losses(problem: Problem, clean: torch.Tensor, sigmas: Sequence[float]) -> torch.Tensor:
    """Denoising losses ``(B, N)``, the noises shared by all candidates and sources of an example."""
    probes = problem.noise.fork(SELECTION_STREAM)
    total = torch.zeros(clean.shape[:2], dtype=torch.float64, device=clean.device)
    for level, sigma in enumerate(sigmas):
        n = probes.normal(problem.mixtures.example_ids, level, 0, problem.source_shape, problem.device)[:, None, None]
        total += (clean - _denoise(problem, clean + sigma * n, sigma)).double().flatten(2).square().sum(-1) / sigma**2
    return total
