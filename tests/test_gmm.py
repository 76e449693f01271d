"""Exact posteriors: closed forms against automatic differentiation, Monte Carlo and each other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbench.gmm import ExactPosterior, GaussianMixture
from sepbench.noise import NoiseSource


def _mixture(seed: int, components: int, dimension: int) -> GaussianMixture:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(components, dimension, dimension, generator=generator, dtype=torch.float64) * 0.4
    covariances = root @ root.mT + 0.05 * torch.eye(dimension, dtype=torch.float64)
    weights = torch.rand(components, generator=generator, dtype=torch.float64) + 0.2
    return GaussianMixture(weights / weights.sum(), torch.randn(components, dimension, generator=generator, dtype=torch.float64), covariances)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), components=st.integers(1, 3), dimension=st.integers(1, 5), sigma=st.floats(0.01, 2.0))
def test_score_is_the_gradient_and_obeys_tweedie(seed: int, components: int, dimension: int, sigma: float) -> None:
    prior = _mixture(seed, components, dimension)
    x = torch.randn(4, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(prior.log_prob(x, sigma).sum(), x)
    with torch.no_grad():
        torch.testing.assert_close(prior.score(x, sigma), gradient, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(x + sigma**2 * prior.score(x, sigma), prior.denoise(x, sigma), rtol=1e-8, atol=1e-8)


def test_a_level_per_row_is_as_good_as_one_for_all() -> None:
    prior = _mixture(3, 3, 4)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    levels = torch.tensor([0.1, 0.3, 0.5, 0.7, 1.1])
    for function in (prior.denoise, prior.score, prior.log_prob):
        rows = torch.cat([function(x[i : i + 1], float(levels[i])) for i in range(5)])
        torch.testing.assert_close(function(x, levels), rows)
        assert rows.dtype == (torch.float64 if function == prior.log_prob else torch.float32)


def test_log_prob_integrates_to_one() -> None:
    prior = _mixture(1, 3, 1)
    grid = torch.linspace(-12, 12, 20001, dtype=torch.float64)[:, None]
    for sigma in (0.0, 0.3):
        assert float(torch.trapezoid(prior.log_prob(grid, sigma).exp(), grid[:, 0])) == pytest.approx(1.0, abs=1e-6)


def test_samples_have_the_mixtures_moments() -> None:
    prior = _mixture(2, 3, 2)
    draws = prior.sample(NoiseSource(0), torch.arange(200_000), 0, 0)
    torch.testing.assert_close(draws.mean(0), prior.mean(), atol=0.02, rtol=0)
    torch.testing.assert_close(torch.cov(draws.T), prior.covariance(), atol=0.03, rtol=0)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), dimension=st.integers(1, 4), sources=st.integers(2, 3))
def test_without_noise_every_draw_and_the_mean_explain_the_mixture(seed: int, dimension: int, sources: int) -> None:
    priors = [_mixture(seed + k, 2, dimension) for k in range(sources)]
    weights = torch.linspace(0.5, 1.5, sources, dtype=torch.float64)
    posterior = ExactPosterior(priors, weights)
    mixtures = torch.randn(3, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mean, covariance = posterior.moments(mixtures)
    torch.testing.assert_close(torch.einsum("k,bkd->bd", weights, mean), mixtures, atol=1e-8, rtol=1e-8)
    draws = posterior.sample(mixtures, NoiseSource(seed), torch.arange(3), 4)
    torch.testing.assert_close(torch.einsum("k,bnkd->bnd", weights, draws), mixtures[:, None].expand(-1, 4, -1), atol=1e-8, rtol=1e-8)
    assert float(torch.linalg.eigvalsh(covariance).min()) > -1e-9


@pytest.mark.parametrize("noise_std", [0.0, 0.3])
def test_draws_have_the_posteriors_moments(noise_std: float) -> None:
    posterior = ExactPosterior([_mixture(5, 2, 2), _mixture(6, 3, 2)], torch.tensor([1.0, 0.7], dtype=torch.float64), noise_std)
    mixtures = torch.tensor([[0.3, -0.2], [1.5, 0.4]], dtype=torch.float64)
    mean, covariance = posterior.moments(mixtures)
    draws = posterior.sample(mixtures, NoiseSource(1), torch.arange(2), 20_000)
    torch.testing.assert_close(draws.mean(1), mean, atol=0.03, rtol=0)
    for b in range(2):
        torch.testing.assert_close(torch.cov(draws[b].flatten(1).T), covariance[b], atol=0.05, rtol=0.05)


def test_posterior_mean_equals_importance_sampling() -> None:
    """An independent route: draw from the priors, weight by the likelihood of the mixture."""
    priors = [_mixture(8, 2, 1), _mixture(9, 2, 1)]
    noise_std = 0.2
    posterior = ExactPosterior(priors, torch.ones(2, dtype=torch.float64), noise_std)
    mixture = torch.tensor([[0.4]], dtype=torch.float64)
    ids = torch.arange(400_000)
    x = torch.stack([priors[k].sample(NoiseSource(3), ids, 0, k) for k in range(2)], dim=1)
    weights = torch.softmax(-0.5 * ((mixture - x.sum(1)) / noise_std).square().sum(1), dim=0)
    torch.testing.assert_close((weights[:, None, None] * x).sum(0), posterior.moments(mixture)[0][0], atol=0.02, rtol=0)
