"""The flow's log density against closed forms."""

from __future__ import annotations

import pytest
import torch

from baselines.priors.probability_flow import flow_log_prob
from sepbench.gmm import GaussianMixture
from sepbench.noise import NoiseSource


def _prior(dimension: int, components: int = 2) -> GaussianMixture:
    generator = torch.Generator().manual_seed(4)
    root = 0.2 * torch.randn(components, dimension, dimension, generator=generator, dtype=torch.float64)
    covariances = root @ root.mT + 0.01 * torch.eye(dimension, dtype=torch.float64)
    return GaussianMixture(
        torch.full((components,), 1 / components, dtype=torch.float64), torch.rand(components, dimension, generator=generator).double(), covariances
    )


@pytest.mark.parametrize("dimension", [1, 4])
def test_the_flow_gives_the_exact_log_density(dimension: int) -> None:
    prior = _prior(dimension)
    x = prior.sample(NoiseSource(0), torch.arange(16), 0, 0)
    variance = float(prior.covariance().diagonal().mean())
    found = flow_log_prob(prior, x, lowest=0.02, highest=30.0, base_mean=prior.mean(), base_variance=variance, steps=150)
    torch.testing.assert_close(found, prior.log_prob(x, 0.02), atol=0.02, rtol=0.01)


def test_hutchinsons_trace_is_unbiased() -> None:
    prior = _prior(3)
    x = prior.sample(NoiseSource(0), torch.arange(8), 0, 0)
    signs = torch.where(torch.rand(200, 3, generator=torch.Generator().manual_seed(1)) < 0.5, -1.0, 1.0).double()
    settings = {"lowest": 0.05, "highest": 10.0, "base_mean": prior.mean(), "base_variance": 0.1, "steps": 24}
    exact = flow_log_prob(prior, x, **settings)
    torch.testing.assert_close(flow_log_prob(prior, x, probes=signs, **settings), exact, atol=0.3, rtol=0.05)
