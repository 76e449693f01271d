"""Best of N: score posterior samples without looking at the truth, and keep the best one.

Four criteria, each ``(B, N, K, ...)`` draws to ``(B, N)`` float64, higher is better:

- ``by_mixture_error``: how well a draw explains the mixture (useless for samplers that meet the mixture exactly);
- ``by_log_prior``: ``sum_k log p(x_k)``, where the prior offers ``log_prob``;
- ``by_denoising_loss``: a cheap bound in its place (a few evaluations of the denoiser);
- ``by_truth``: the oracle, an upper bound that is never a method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch

from sepbench.memory import scaled
from sepbench.metrics.catalogue import pair_metric
from sepbench.noise import NoiseSource
from sepbench.protocols import Mixtures, ScorePrior, TaskSpec

SELECTION_STREAM = 7001
"""Stream of the fixed noises and probes, apart from every sampler's own."""


@runtime_checkable
class EstimatesDensity(Protocol):
    """Optional, for priors whose log density is an estimate that uses random probes (``HasDensity`` where it is exact)."""

    def estimated_log_prob(self, x: torch.Tensor, example_ids: torch.Tensor, noise: NoiseSource, *, steps: int, spacing: int) -> torch.Tensor:
        """``log p(x)`` in nats of clean sources ``(M, ...)``, ``(M,)`` float64; rows with one of the ids ``(M,)`` share their probes."""


def select(draws: torch.Tensor, criterion: torch.Tensor) -> torch.Tensor:
    """The draw with the highest criterion per mixture: ``(B, N, K, ...)`` and ``(B, N)`` to ``(B, K, ...)``. NaN never wins."""
    best = criterion.nan_to_num(nan=-math.inf).argmax(dim=1)
    return draws[torch.arange(draws.shape[0], device=draws.device), best.to(draws.device)]


def weighted_mean(draws: torch.Tensor, criterion: torch.Tensor, temperature: float, exchangeable: bool | torch.Tensor) -> torch.Tensor:
    """An estimate of the posterior mean in the best mode: ``(B, N, K, ...)`` and ``(B, N)`` to ``(B, K, ...)``.

    The mean minimises the squared error, so it beats any one draw of the mode in PSNR. Draws count with weights ``exp(criterion /
    temperature)``, normalised: those of worse modes vanish, those of the best one are averaged. NaN counts for nothing.

    Args:
        draws: candidates.
        criterion: higher is better.
        temperature: in units of the criterion, above its own noise and below the gap between modes.
        exchangeable: whether sources share a prior and a weight, so that draws may hold them in another order; they are put into that of the best
            draw. One answer, or one for each mixture, ``(B,)``.
    """
    best = select(draws, criterion)
    lost = criterion.isnan().to(draws.device).reshape(*criterion.shape, *([1] * (draws.ndim - 2)))
    draws = draws.masked_fill(lost, 0)  # a weight of zero does not take a NaN away
    if isinstance(exchangeable, torch.Tensor):
        aligned = torch.where(exchangeable.to(draws.device).reshape(-1, *([1] * (draws.ndim - 1))), _in_order_of(best, draws), draws)
    else:
        aligned = _in_order_of(best, draws) if exchangeable else draws
    weights = torch.softmax(criterion.nan_to_num(nan=-math.inf) / temperature, dim=1).to(draws)
    mean: torch.Tensor = torch.einsum("bn,bn...->b...", weights, aligned)
    return mean


def _in_order_of(best: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Draws with their sources permuted to lie closest to ``best`` ``(B, K, ...)``."""
    from sepbench.metrics.assignment import best_assignment

    batch, count = draws.shape[:2]
    flat, target = draws.flatten(3), best.flatten(2)
    # |a - b|^2 up to terms that no permutation changes
    likeness = torch.einsum("bnid,bjd->bnij", flat.double(), target.double()).flatten(0, 1)
    order = best_assignment(likeness).to(draws.device)  # order[row, j]: the draw's source that stands for j
    ordered: torch.Tensor = draws.flatten(0, 1)[torch.arange(batch * count, device=draws.device)[:, None], order].unflatten(0, (batch, count))
    return ordered


def by_mixture_error(draws: torch.Tensor, mixtures: Mixtures) -> torch.Tensor:
    """Minus the RMS of ``m - g(x)``."""
    batch, count = draws.shape[:2]
    rows = torch.arange(batch).repeat_interleave(count)
    operator = mixtures.operator.select(rows)
    predicted = operator.forward(draws.flatten(0, 1)).unflatten(0, (batch, count))
    error: torch.Tensor = (mixtures.values.unsqueeze(1) - predicted).double().flatten(2).square().mean(-1).sqrt()
    return -error


def by_log_prior(draws: torch.Tensor, log_prob: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Sum over sources of ``log_prob``, which maps ``(M, K, ...)`` to ``(M, K)`` nats."""
    total: torch.Tensor = log_prob(draws.flatten(0, 1)).double().sum(-1).unflatten(0, draws.shape[:2])
    return total


def by_truth(draws: torch.Tensor, references: torch.Tensor, spec: TaskSpec, metric: str = "psnr") -> torch.Tensor:
    """The oracle: the metric itself against the true sources ``(B, K, ...)``, best assignment where the task allows it."""
    from sepbench.metrics.assignment import best_assignment

    chosen = pair_metric(metric, spec)
    count = draws.shape[1]
    pairwise = chosen.pairwise(draws.flatten(0, 1), references.repeat_interleave(count, dim=0))
    if not chosen.info.higher_is_better:
        pairwise = -pairwise
    if spec.assignment == "permutation":
        order = best_assignment(pairwise)
        pairwise = pairwise.gather(1, order.to(pairwise.device).unsqueeze(1))[:, 0]
    else:
        pairwise = pairwise.diagonal(dim1=1, dim2=2)
    total: torch.Tensor = pairwise[:, list(spec.scored_sources)].mean(-1).unflatten(0, draws.shape[:2])
    return total


def denoising_losses(
    prior: ScorePrior, x: torch.Tensor, example_ids: torch.Tensor, noise: NoiseSource, sigmas: Sequence[float], repeats: int = 1
) -> torch.Tensor:
    """``sum_sigma |x - D(x + sigma n)|^2 / sigma^2`` with noises that are the same for every candidate of an example.

    Up to the spacing of the levels and a constant this is the denoising bound on ``-log p(x)`` (Song et al. 2021, theorem 3 with
    likelihood weighting); common noises make differences between candidates of one example far less noisy than the values.

    Args:
        prior: the denoiser.
        x: ``(M, ...)`` clean candidates.
        example_ids: ``(M,)``; rows with one id share their noises.
        noise: the run's noise source.
        sigmas: noise levels; log-spaced ones weigh every octave alike.
        repeats: noises per level.

    Returns:
        ``(M,)`` float64, lower is likelier.
    """
    probes = noise.fork(SELECTION_STREAM)
    total = torch.zeros(x.shape[0], dtype=torch.float64, device=x.device)
    for level, sigma in enumerate(sigmas):
        for repeat in range(repeats):
            n = probes.normal(example_ids, level, repeat, x.shape[1:], x.device)
            total += (x - prior.denoise(x + sigma * n, sigma)).double().flatten(1).square().sum(-1) / sigma**2
    return total / repeats


def by_denoising_loss(
    draws: torch.Tensor, priors: Sequence[ScorePrior], mixtures: Mixtures, noise: NoiseSource, sigmas: Sequence[float], repeats: int = 1
) -> torch.Tensor:
    """Minus the denoising losses, summed over sources; ``len(sigmas) * repeats`` evaluations per source and draw.

    Every source of an example sees the same noises, so exchanging two sources of one prior changes nothing.
    """
    batch, count, sources = draws.shape[:3]
    ids = mixtures.example_ids.repeat_interleave(count)
    total = torch.zeros(batch, count, dtype=torch.float64, device=draws.device)
    rows = 128 if draws.device.type == "cpu" else scaled(4096, draws.device)
    for k in range(sources):
        prior = priors[k if len(priors) > 1 else 0]
        losses = torch.cat(
            [
                denoising_losses(prior, part, part_ids, noise, sigmas, repeats)
                for part, part_ids in zip(draws[:, :, k].flatten(0, 1).split(rows), ids.split(rows), strict=True)
            ]
        )
        total -= losses.unflatten(0, (batch, count))
    return total
