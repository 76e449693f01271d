from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prior_toys import MixtureNetwork, ZeroNetwork

from baselines.priors.edm import EDMDenoiser, loss_weight, preconditioning
from baselines.priors.score_prior import EDMPrior, tweedie

levels = st.floats(0.003, 5.0)
deviations = st.floats(0.05, 2.0)


@settings(deadline=None)
@given(sigma=levels, deviation=deviations)
def test_coefficients_obey_the_design_rules(sigma: float, deviation: float) -> None:
    """Karras et al. (2022), app. B.6: unit variance of input and target, and the skip that amplifies the network's errors least."""
    s = torch.tensor([sigma], dtype=torch.float64)
    c = preconditioning(s, deviation)
    total = sigma**2 + deviation**2
    torch.testing.assert_close(c.into.square() * total, torch.ones_like(s))
    # eq. 123: c_out^2 = (1 - c_skip)^2 sigma_data^2 + c_skip^2 sigma^2
    torch.testing.assert_close(c.out.square(), (1 - c.skip).square() * deviation**2 + c.skip.square() * sigma**2)
    torch.testing.assert_close(loss_weight(s, deviation) * c.out.square(), torch.ones_like(s))
    torch.testing.assert_close(torch.exp(4 * c.noise), s)


def test_coefficients_golden() -> None:
    """By hand for sigma = sigma_data = 0.5: 1/2, 1/(2 sqrt 2), sqrt 2, ln(0.5)/4."""
    c = preconditioning(torch.tensor([0.5], dtype=torch.float64), 0.5)
    assert [float(v) for v in (c.skip, c.out, c.into, c.noise)] == pytest.approx([0.5, 0.3535533905932738, 1.4142135623730951, -0.17328679513998632])


@settings(max_examples=30, deadline=None)
@given(sigma=levels, deviation=deviations, mean=st.floats(-1.0, 1.0))
def test_zero_network_is_the_exact_gaussian_prior(sigma: float, deviation: float, mean: float) -> None:
    prior = EDMPrior(EDMDenoiser(ZeroNetwork(), deviation, mean), (1, 4, 4), (0.003, 5.0))
    x = torch.linspace(-1, 2, 32).reshape(2, 1, 4, 4)
    expected = -(x - mean) / (sigma**2 + deviation**2)
    torch.testing.assert_close(prior.score(x, sigma), expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
    torch.testing.assert_close(prior.denoise(x, sigma), x + sigma**2 * expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.5])
def test_score_is_the_gradient_of_the_log_density(sigma: float) -> None:
    random = torch.Generator().manual_seed(3)
    network = MixtureNetwork(torch.rand(5, 1, 4, 4, generator=random), 0.1, 0.3, 0.4)
    prior = EDMPrior(EDMDenoiser(network, 0.3, 0.4), (1, 4, 4), (0.01, 2.0))
    clean = network.centres[[0, 2, 4]] + 0.1 * torch.randn(3, 1, 4, 4, generator=random)
    x = (clean + sigma * torch.randn(3, 1, 4, 4, generator=random)).requires_grad_()
    (gradient,) = torch.autograd.grad(network.log_density(x, torch.full((3,), sigma)).sum(), x)
    score = prior.score(x.detach(), sigma)
    torch.testing.assert_close(score, gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max()))
    torch.testing.assert_close(tweedie(x.detach(), score, sigma), prior.denoise(x.detach(), sigma), rtol=1e-4, atol=1e-5)


def test_whatever_comes_in_float32_goes_out() -> None:
    """And the network sees float32 too, at labels of one for each image."""
    seen: list[tuple[torch.dtype, torch.dtype, tuple[int, ...]]] = []

    class Watched(ZeroNetwork):
        def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            seen.append((x.dtype, label.dtype, tuple(label.shape)))
            return super().forward(x, label).double()

    denoiser = EDMDenoiser(Watched(), 0.3, 0.2)
    x, sigma = torch.ones(2, 1, 4, 4, dtype=torch.float64), torch.tensor([0.1, 0.4], dtype=torch.float64)
    for found, wanted in ((denoiser(x, sigma), 0.2 + 0.8 * 0.09 / (0.09 + sigma**2)), (denoiser.score(x, sigma), -0.8 / (0.09 + sigma**2))):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found[:, 0, 0, 0], wanted.float(), rtol=1e-5, atol=1e-6)
    assert seen == [(torch.float32, torch.float32, (2,))] * 2
