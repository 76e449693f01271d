"""Draws until one is good enough, on priors in closed form."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from baselines.sampling.draw_until import Chain, clean_level, draw_until, finish, search
from baselines.sampling.noise_levels import karras_levels
from baselines.sampling.problem import Problem
from sepbench.gmm import GaussianMixture
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures

DIMENSION, DRAWS = 3, 5
CHAIN = Chain(karras_levels(8, 1.5, 0.2, 1.5), karras_levels(5, 0.2, 0.02, 2.0)[1:], judged=0.7, mirrored=0.9, bounded=False)
HOW: dict[str, Any] = {"finalists": 3, "probes": (0.2, 0.4), "probe_weight": 1.0}
SEARCH, FINISH = len(CHAIN.search), len(CHAIN.finish)


def _prior() -> GaussianMixture:
    """Four narrow modes, so that a mixture has wrong explanations."""
    means = torch.tensor([[0.0, 0.2, 0.9], [0.9, 0.1, 0.1], [0.4, 0.8, 0.3], [0.2, 0.9, 0.9]], dtype=torch.float64)
    return GaussianMixture(torch.full((4,), 0.25, dtype=torch.float64), means, 0.003 * torch.eye(DIMENSION, dtype=torch.float64).repeat(4, 1, 1))


PRIOR = _prior()


def _problem(examples: int, operator: str = "sum", prior: object = PRIOR) -> Problem:
    ids = torch.arange(examples)
    truth = torch.stack([PRIOR.sample(NoiseSource(9), ids, 0, k) for k in range(2)], dim=1).float()
    mixing = make_operator(operator, 2)
    return Problem(Mixtures(mixing.forward(truth), ids, mixing), [prior], NoiseSource(0), (DIMENSION,))  # type: ignore[list-item]


def _all_losses(problem: Problem) -> torch.Tensor:
    """Loss of every search that a mixture could make, ``(B, DRAWS)``."""
    _, levels = search(problem.repeat(DRAWS), CHAIN)
    losses: torch.Tensor = levels[:, CHAIN.counted].mean(1).unflatten(0, (-1, DRAWS))
    return losses


def test_a_mixture_is_searched_until_its_best_loss_is_enough() -> None:
    problem = _problem(16)
    losses = _all_losses(problem)
    enough = [float(losses.quantile(0.2 + 0.1 * draw)) for draw in range(DRAWS)]
    _, spent = draw_until(problem, CHAIN, enough=enough, **HOW)
    good = losses.cummin(1).values <= torch.tensor(enough)
    searches = torch.where(good.any(1), good.double().argmax(1) + 1, DRAWS)
    assert set(searches.tolist()) > {1, 2}
    probed = torch.where(searches > 1, searches.clamp_max(3) * 2, 0)
    assert spent.tolist() == (searches * SEARCH + probed + FINISH).tolist()
    assert problem.evaluations == -(-int(spent.sum()) // 16)


@pytest.mark.parametrize("draws", [None, torch.tensor([0, 2, 1, 0, 3, 1])])
def test_an_example_has_its_own_estimate_whatever_its_batch(draws: torch.Tensor | None) -> None:
    problem = replace(_problem(6), draws=draws)
    enough = [float(_all_losses(_problem(6)).median())] * DRAWS
    whole, spent = draw_until(problem, CHAIN, enough=enough, **HOW)
    for row in range(6):
        one, cost = draw_until(problem.rows(torch.tensor([row])), CHAIN, enough=enough, **HOW)
        torch.testing.assert_close(one[0], whole[row], atol=1e-5, rtol=1e-5)
        assert int(cost[0]) == int(spent[row])


def test_draws_of_one_example_share_no_noise() -> None:
    problem = replace(_problem(1).rows(torch.tensor([0, 0])), draws=torch.tensor([0, 1]))
    first, second = draw_until(problem, CHAIN, enough=[float("-inf")] * DRAWS, **HOW)[0]
    assert not torch.allclose(first, second, atol=1e-4)


def test_one_search_is_enough_where_any_loss_is() -> None:
    problem = _problem(4)
    estimates, spent = draw_until(problem, CHAIN, enough=[float("inf")] * DRAWS, **HOW)
    assert spent.tolist() == [SEARCH + FINISH] * 4
    first = replace(problem, draws=torch.zeros(4, dtype=torch.int64))
    assert torch.equal(estimates, finish(first, CHAIN, search(first, CHAIN)[0]))


def test_without_probes_the_least_loss_wins() -> None:
    problem = _problem(8)
    best = _all_losses(problem).argmin(1)
    assert len(set(best.tolist())) > 2
    estimates, _ = draw_until(problem, CHAIN, enough=[float("-inf")] * DRAWS, **{**HOW, "finalists": 1})
    chosen = replace(problem, draws=best)
    torch.testing.assert_close(estimates, finish(chosen, CHAIN, search(chosen, CHAIN)[0]))


@pytest.mark.parametrize("operator", ["sum", "mean"])
def test_estimates_explain_the_mixture(operator: str) -> None:
    problem = _problem(5, operator)
    estimates, _ = draw_until(problem, CHAIN, enough=[0.0] * DRAWS, **HOW)
    torch.testing.assert_close(problem.operator.forward(estimates), problem.mixtures.values, atol=1e-5, rtol=0)


def test_more_searches_find_likelier_sources() -> None:
    problem = _problem(24)
    one, _ = draw_until(problem, CHAIN, enough=[float("inf")] * DRAWS, **HOW)
    best, _ = draw_until(problem, CHAIN, enough=[float("-inf")] * DRAWS, **HOW)

    def likelihood(sources: torch.Tensor) -> float:
        return float(PRIOR.log_prob(sources.flatten(0, 1)).clamp_min(-50).mean())

    assert likelihood(best) > likelihood(one) + 0.5


def test_a_search_that_is_not_finite_is_never_taken_while_another_is() -> None:
    def denoise(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        return torch.where((x > 3.6).any(-1, keepdim=True), torch.nan, PRIOR.denoise(x, sigma))

    problem = _problem(24, prior=SimpleNamespace(denoise=denoise))
    one, _ = draw_until(problem, CHAIN, enough=[float("inf")], **HOW)
    several, _ = draw_until(problem, CHAIN, enough=[1e9] * DRAWS, **HOW)
    assert 0 < int(one.isnan().flatten(1).any(1).sum()) < 24
    assert bool(several.isfinite().all())


def test_the_level_of_clean_signals_is_that_of_theory() -> None:
    """A Gaussian of variance v has the posterior variance v sigma^2 / (v + sigma^2) at every element."""
    variance, sigmas = 0.09, (0.2, 0.6)
    prior = GaussianMixture(torch.ones(1, dtype=torch.float64), torch.zeros(1, DIMENSION, dtype=torch.float64), variance * torch.eye(DIMENSION).double()[None])
    clean = prior.sample(NoiseSource(4), torch.arange(4000), 0, 0).float()
    mean, std = clean_level(prior, clean, sigmas, NoiseSource(0))
    expected = sum(DIMENSION * variance / (variance + sigma**2) for sigma in sigmas) / 2
    assert mean == pytest.approx(expected, rel=0.03)
    # One level's loss is its mean times chi-square with three degrees of freedom over three; the levels share x, so their losses go together.
    assert 0.4 * mean < std < (2 / 3) ** 0.5 * mean


def test_an_empty_batch_is_one() -> None:
    problem = _problem(3).rows(torch.zeros(0, dtype=torch.int64))
    estimates, spent = draw_until(problem, CHAIN, enough=[0.0] * DRAWS, **HOW)
    assert estimates.shape == (0, 2, DIMENSION)
    assert spent.shape == (0,)


def test_the_last_level_of_a_search_counts_always() -> None:
    for middle in (0.07, 0.2, 0.3):
        assert Chain(karras_levels(6, 1.5, middle, 1.5), [0.05], judged=middle, mirrored=0.0, bounded=True).counted == [5]


def test_mirrored_noise_is_minus_the_noise_of_the_step_before() -> None:
    problem, levels = _problem(2), (*CHAIN.search, *CHAIN.finish)
    first = next(i for i, sigma in enumerate(levels) if sigma <= CHAIN.mirrored)
    assert first > 1
    for step in range(len(levels)):
        mirror = step > first and (step - first) % 2 == 1
        expected = -CHAIN.noise(problem, step - 1) if mirror else problem.normals(step)
        assert torch.equal(CHAIN.noise(problem, step), expected)
    anew = replace(CHAIN, mirrored=0.0)
    assert all(torch.equal(anew.noise(problem, step), problem.normals(step)) for step in range(len(levels)))


def test_the_estimate_is_the_mean_over_the_last_levels() -> None:
    """A prior that says sigma and one that says nothing: at each level the sources are half the mixture, plus and minus half of sigma."""
    says = [SimpleNamespace(denoise=lambda x, sigma: torch.full_like(x, sigma)), SimpleNamespace(denoise=lambda x, sigma: torch.zeros_like(x))]
    problem = replace(_problem(4), priors=says)
    half, moved = problem.mixtures.values / 2, sum(CHAIN.finish) / FINISH / 2
    found = finish(problem, CHAIN, torch.zeros(4, 2, DIMENSION))
    torch.testing.assert_close(found, torch.stack([half + moved, half - moved], dim=1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bounded", [True, False])
def test_what_the_prior_says_is_held_in_bounds_where_sources_have_them(bounded: bool) -> None:
    """One prior says 3 and one says 0: of a mixture of 1, the excess of 2 (of nothing, in bounds) is shared by both."""
    says = [SimpleNamespace(denoise=lambda x, sigma: torch.full_like(x, 3.0)), SimpleNamespace(denoise=lambda x, sigma: torch.zeros_like(x))]
    operator, ids = make_operator("sum", 2), torch.arange(2)
    problem = Problem(Mixtures(torch.ones(2, DIMENSION), ids, operator), says, NoiseSource(0), (DIMENSION,))  # type: ignore[arg-type]
    chain, wanted = replace(CHAIN, bounded=bounded), torch.tensor([1.0, 0.0] if bounded else [2.0, -1.0])
    for found in (search(problem, chain)[0], finish(problem, chain, torch.zeros(2, 2, DIMENSION))):
        torch.testing.assert_close(found, wanted[None, :, None].expand(2, 2, DIMENSION))


def test_a_search_from_clean_sources_adds_noise_to_them_and_counts_its_first_level() -> None:
    seen: list[torch.Tensor] = []

    def denoise(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    problem, start = _problem(2, prior=SimpleNamespace(denoise=denoise)), torch.full((2, 2, DIMENSION), 0.5)
    clean, losses = search(problem, CHAIN, start)
    torch.testing.assert_close(seen[0], (start + CHAIN.search[0] * problem.normals(0)).flatten(0, 1))
    half = (problem.mixtures.values / 2)[:, None].expand(2, 2, DIMENSION)
    torch.testing.assert_close(clean, half)
    rest = half.double().square().sum((1, 2))
    wanted = [(torch.full_like(rest, 6 * 0.25) if i == 0 else rest) / sigma**2 for i, sigma in enumerate(CHAIN.search)]
    torch.testing.assert_close(losses, torch.stack(wanted, dim=1), atol=1e-6, rtol=1e-5)
    assert search(problem, CHAIN)[1][:, 0].tolist() == [0.0, 0.0]
