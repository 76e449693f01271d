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


def test_a_draw_by_hand() -> None:
    """The component by the next stream's uniform, the point by the Cholesky factor; id, step and source are the key of both."""
    prior, noise, ids = _mixture(11, 3, 2), NoiseSource(4, stream=6), torch.arange(40)
    found, seen = prior.sample(noise, ids, 5, 3), set()
    for row in range(len(ids)):
        uniform = float(NoiseSource(4, stream=7).uniform(ids[row : row + 1], 5, 3, (1,)))
        component = next(c for c in range(3) if c == 2 or uniform <= float(prior.weights[: c + 1].sum()))
        normal = noise.normal(ids[row : row + 1], 5, 3, (2,)).double()[0]
        expected = prior.means[component] + torch.linalg.cholesky(prior.covariances[component]) @ normal
        torch.testing.assert_close(found[row], expected)
        seen.add(component)
    assert seen == {0, 1, 2}
    assert found.dtype == torch.float64


@pytest.mark.parametrize("noise_std", [0.0, 0.4])
def test_a_draw_of_the_posterior_by_hand(noise_std: float) -> None:
    """The combination by a uniform of the stream two further on, then Matheron's rule: a draw of sources and noise is moved onto the mixture."""
    priors, weights = [_mixture(5, 2, 2), _mixture(6, 2, 2)], torch.tensor([1.0, -0.5], dtype=torch.float64)
    posterior, noise, ids = ExactPosterior(priors, weights, noise_std), NoiseSource(9, stream=1), torch.tensor([3, 8])
    mixtures = torch.tensor([[0.3, -0.2], [0.5, 0.4]])
    shares, found = posterior.responsibilities(mixtures), posterior.sample(mixtures, noise, ids, 5)
    assert posterior.combinations() == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for b in range(2):
        uniforms = NoiseSource(9, stream=3).uniform(ids[b : b + 1], 0, 0, (5,))[0]
        normals = [noise.normal(ids[b : b + 1], 0, k, (5, 2)).double()[0] for k in range(3)]
        for n in range(5):
            number = next(c for c in range(4) if c == 3 or float(uniforms[n]) <= float(shares[b, : c + 1].sum()))
            chosen = posterior.combinations()[number]
            factors = [torch.linalg.cholesky(priors[k].covariances[chosen[k]]) for k in range(2)]
            x = [priors[k].means[chosen[k]] + factors[k] @ normals[k][n] for k in range(2)]
            missing = mixtures[b].double() - weights[0] * x[0] - weights[1] * x[1] - noise_std * normals[2][n]
            covariances = [priors[k].covariances[chosen[k]] for k in range(2)]
            whole = weights[0] ** 2 * covariances[0] + weights[1] ** 2 * covariances[1] + noise_std**2 * torch.eye(2, dtype=torch.float64)
            for k in range(2):
                torch.testing.assert_close(found[b, n, k], x[k] + weights[k] * covariances[k] @ torch.linalg.inv(whole) @ missing)


def test_responsibilities_by_hand() -> None:
    """Normal densities of the mixture, one per combination of components, times the components' weights."""
    priors, weights = [_mixture(5, 2, 2), _mixture(6, 3, 2)], torch.tensor([0.7, 1.3], dtype=torch.float64)
    posterior, mixture = ExactPosterior(priors, weights, 0.2), torch.tensor([[0.3, -0.2]])
    densities = []
    for a, b in posterior.combinations():
        mean = weights[0] * priors[0].means[a] + weights[1] * priors[1].means[b]
        covariance = 0.49 * priors[0].covariances[a] + 1.69 * priors[1].covariances[b] + 0.04 * torch.eye(2, dtype=torch.float64)
        density = torch.distributions.MultivariateNormal(mean, covariance).log_prob(mixture[0].double()).exp()
        densities.append(float(density * priors[0].weights[a] * priors[1].weights[b]))
    expected = torch.tensor(densities, dtype=torch.float64) / sum(densities)
    torch.testing.assert_close(posterior.responsibilities(mixture)[0], expected)
    assert ExactPosterior(priors, weights).noise_std == 0.0


def test_a_mixture_is_moved_to_a_device_once() -> None:
    prior = _mixture(1, 2, 3)
    assert prior.to(torch.device("cpu")) is prior
    moved = prior.to(torch.device("meta"))
    assert moved.weights.device == moved.means.device == moved.covariances.device == torch.device("meta")
    assert prior.to(torch.device("meta")) is moved
    assert (prior.dimension, prior.components) == (3, 2)
