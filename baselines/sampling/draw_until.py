"""Draws of the projected diffusion until one is good enough: the sampler of ``baselines/projected_auto.py``.

That file says why it works. ``baselines/lass_projected.py`` also uses both halves. One chain is cut in two. The search
goes from the highest noise level to a middle one, and decides the mode. Its denoising loss costs nothing extra,
because a step adds fresh noise to the last clean sources and denoises the sum. The finish continues to the lowest
level, only for the chosen search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from baselines.sampling.problem import Problem
from baselines.sampling.projection import condition
from sepbench.noise import NoiseSource
from sepbench.protocols import ScorePrior
from sepbench.selection import by_denoising_loss

CALIBRATION_STREAM = 7101
"""Stream of the noise that measures clean signals. Draws have the streams 0, 1, ..., so that only draw 7101 would share it."""
MAX_ROWS = 128


@dataclass(frozen=True, slots=True)
class Chain:
    """The noise levels of one draw, and its rules.

    Attributes:
        search: noise levels of the search, highest first.
        finish: the levels after them, without the final zero.
        judged: the highest level whose loss counts. Above it every draw has a high loss, good or not.
        mirrored: noise comes in pairs n, -n from the first level after the start that is at most this. The noise that
            one step adds to the sources, the next step takes away.
        bounded: sources are in [0, 1].
    """

    search: Sequence[float]
    finish: Sequence[float]
    judged: float
    mirrored: float
    bounded: bool

    @property
    def counted(self) -> list[int]:
        """Positions in ``search`` of the levels whose loss counts. The first level has no clean sources before it."""
        return [i for i, sigma in enumerate(self.search) if i and sigma <= self.judged * (1 + 1e-9)]  # powers and roots round

    def noise(self, problem: Problem, step: int) -> torch.Tensor:
        """Normals ``(B, K, ...)`` of one step, counted through search and finish.

        Every second one of the mirrored steps is minus the one before.
        """
        levels = (*self.search, *self.finish)
        first = next((i for i, sigma in enumerate(levels) if i and sigma <= self.mirrored), len(levels))
        return -problem.normals(step - 1) if step > first and (step - first) % 2 else problem.normals(step)


def draw_until(
    problem: Problem, chain: Chain, *, enough: Sequence[float], finalists: int, probes: Sequence[float], probe_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One estimate per mixture, from as many searches as it needs.

    A search's loss is the mean over the levels that count. A mixture is searched again until the loss of its best
    search is at most ``enough[n]`` after search n, or ``enough`` ends. Then its ``finalists`` best searches are
    compared by ``loss + probe_weight * probe``. The probes have the same noise for all of them. The best one is
    finished. Finished mixtures leave the batch. Every decision depends only on the losses of one mixture.

    Args:
        problem: mixtures and priors. A row of draw d takes the noise of draws d * len(enough),
            d * len(enough) + 1, ...
        chain: noise levels.
        enough: the loss that ends the searches after each search. It rises: if every search has a high loss, the
            sources are likely to have one too.
        finalists: how many are probed. A mixture with a single search has no probes.
        probes: noise levels of the probes, one evaluation per source and finalist each.
        probe_weight: weight of a probe, mean over the levels, beside the loss.

    Returns:
        Estimates ``(B, K, ...)`` and evaluations per source of every row ``(B,)`` int64. ``problem.evaluations``
            counts their mean, rounded up.
    """
    batch, device, most_draws = len(problem.mixtures), problem.device, len(enough)
    base = torch.zeros(batch, dtype=torch.int64, device=device) if problem.draws is None else problem.draws
    losses = torch.full((batch, most_draws), math.inf, dtype=torch.float64, device=device)
    cleans = torch.zeros(batch, most_draws, problem.n_sources, *problem.source_shape, device=device)
    spent = torch.zeros(batch, dtype=torch.int64)
    left = torch.arange(batch)
    for draw in range(most_draws):
        rows = replace(problem.rows(left), draws=base[left.to(device)] * most_draws + draw)
        cleans[left.to(device), draw], levels = search(rows, chain)
        losses[left.to(device), draw] = levels[:, chain.counted].mean(1)
        spent[left] += len(chain.search)
        least = losses[left.to(device)].nan_to_num(nan=math.inf).amin(1)
        left = left[(least > enough[draw]).cpu()]
        if not len(left):
            break
    best = _best(problem, cleans, losses, spent, finalists, probes, probe_weight)
    number = torch.arange(batch, device=device)
    estimates = finish(replace(problem, draws=base * most_draws + best), chain, cleans[number, best])
    spent += len(chain.finish)
    problem.evaluations += math.ceil(float(spent.double().mean())) if batch else 0
    return estimates, spent


def search(problem: Problem, chain: Chain, start: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean sources ``(B, K, ...)`` at the last level of the search, and the denoising loss at every level.

    The losses are ``(B, levels)`` float64: ``sum_k |x_k - D(x_k + sigma n_k)|^2 / sigma^2``, with x the clean sources
    of the step before. ``start`` is clean sources ``(B, K, ...)`` to begin with. Without it the first level has none
    before it, and its loss is 0.
    """
    x = chain.search[0] * chain.noise(problem, 0)
    clean, losses = x, torch.zeros(len(problem.mixtures), len(chain.search), dtype=torch.float64, device=problem.device)
    if start is not None:
        clean, x = start, start + x
    for i, sigma in enumerate(chain.search):
        if i:
            x = clean + sigma * chain.noise(problem, i)
        predicted = problem.denoise(x, sigma)
        if i or start is not None:
            losses[:, i] = (clean - predicted).double().flatten(1).square().sum(-1) / sigma**2
        clean = condition(problem, predicted.clamp(0, 1) if chain.bounded else predicted, chain.bounded)
    return clean, losses


def finish(problem: Problem, chain: Chain, clean: torch.Tensor) -> torch.Tensor:
    """The mean ``(B, K, ...)`` of the clean sources over the levels of the finish.

    It is nearer to the mean of the mode than the last clean sources.
    """
    total = torch.zeros_like(clean)
    for i, sigma in enumerate(chain.finish, start=len(chain.search)):
        predicted = problem.denoise(clean + sigma * chain.noise(problem, i), sigma)
        clean = condition(problem, predicted.clamp(0, 1) if chain.bounded else predicted, chain.bounded)
        total += clean
    return total / len(chain.finish)


def _best(
    problem: Problem, cleans: torch.Tensor, losses: torch.Tensor, spent: torch.Tensor, finalists: int, probes: Sequence[float], weight: float
) -> torch.Tensor:
    """The number of each mixture's best search, ``(B,)``. Adds the cost of the probes to ``spent``."""
    values = losses.nan_to_num(nan=math.inf)
    best: torch.Tensor = values.argmin(1)
    searched = (losses < math.inf).sum(1).cpu()
    for count in range(2, min(finalists, losses.shape[1]) + 1):
        rows = torch.nonzero(searched == count if count < finalists else searched >= count).flatten()
        if not len(rows):
            continue
        chosen, part = rows.to(problem.device), problem.rows(rows)
        order = values[chosen].argsort(dim=1, stable=True)[:, :count]
        few = cleans[chosen[:, None], order]
        probed = -by_denoising_loss(few, problem.priors, part.mixtures, problem.noise, probes) / len(probes)
        total = values[chosen].gather(1, order) + weight * probed
        best[chosen] = order.gather(1, total.nan_to_num(nan=math.inf).argmin(1, keepdim=True))[:, 0]
        part.told_apart(count * len(probes))
        spent[rows] += count * len(probes)
    return best


def clean_level(prior: ScorePrior, clean: torch.Tensor, sigmas: Sequence[float], noise: NoiseSource) -> tuple[float, float]:
    """Mean and standard deviation, over clean signals ``(M, ...)``, of the denoising loss.

    The loss is the mean over the levels of ``|x - D(x + sigma n)|^2 / sigma^2``.

    Args:
        prior: D.
        clean: the signals.
        sigmas: the levels.
        noise: forked for this, see ``CALIBRATION_STREAM``.
    """
    own, ids = noise.fork(CALIBRATION_STREAM), torch.arange(len(clean))
    total = torch.zeros(len(clean), dtype=torch.float64, device=clean.device)
    for level, sigma in enumerate(sigmas):
        x = clean + sigma * own.normal(ids, level, 0, clean.shape[1:], clean.device)
        denoised = torch.cat([prior.denoise(part, sigma) for part in x.split(MAX_ROWS)])
        total += (clean - denoised).double().flatten(1).square().sum(-1) / (sigma**2 * len(sigmas))
    return float(total.mean()), float(total.std())
