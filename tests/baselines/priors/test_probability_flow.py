"""The flow's log density against closed forms, and the laws of its probes."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.networks.unet import ScoreUNet, UNetConfig
from baselines.priors.edm import EDMDenoiser
from baselines.priors.probability_flow import drift_and_trace, flow_log_prob, lattice_signs, lattices, quadrature
from baselines.priors.score_prior import FLOW_SPACING, FLOW_STEPS, EDMPrior
from sepbench.gmm import GaussianMixture
from sepbench.noise import NoiseSource
from sepbench.registry import create_separator
from sepbench.selection import EstimatesDensity

CPU = torch.device("cpu")


def _prior(dimension: int, components: int = 2) -> GaussianMixture:
    generator = torch.Generator().manual_seed(4)
    root = 0.2 * torch.randn(components, dimension, dimension, generator=generator, dtype=torch.float64)
    covariances = root @ root.mT + 0.01 * torch.eye(dimension, dtype=torch.float64)
    return GaussianMixture(
        torch.full((components,), 1 / components, dtype=torch.float64), torch.rand(components, dimension, generator=generator).double(), covariances
    )


def _base(prior: GaussianMixture) -> dict[str, Any]:
    return {"base_mean": prior.mean(), "base_variance": float(prior.covariance().diagonal().mean())}


def _network() -> EDMPrior:
    """A small network with weights that do something."""
    network = ScoreUNet(UNetConfig(widths=(8, 8, 8), blocks=(1, 1, 1), heads=1, embedding=8))
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
        parameter.requires_grad_(False)
    return EDMPrior(EDMDenoiser(network, sigma_data=0.3, mean=0.1), (1, 8, 8), (0.01, 2.0))


@pytest.mark.parametrize("dimension", [1, 4])
def test_the_flow_gives_the_exact_log_density(dimension: int) -> None:
    prior = _prior(dimension)
    x = prior.sample(NoiseSource(0), torch.arange(16), 0, 0)
    found = flow_log_prob(prior, x, lowest=0.02, highest=100.0, **_base(prior), steps=96)
    torch.testing.assert_close(found, prior.log_prob(x, 0.02), atol=1e-3, rtol=0)


def test_one_gaussian_with_the_base_s_own_spread_needs_no_high_level() -> None:
    """``p_highest`` is then the base itself."""
    mean, variance = torch.tensor([0.2, -0.4, 0.7], dtype=torch.float64), 0.09
    prior = GaussianMixture(torch.ones(1, dtype=torch.float64), mean[None], variance * torch.eye(3, dtype=torch.float64)[None])
    x = prior.sample(NoiseSource(0), torch.arange(8), 0, 0)
    found = flow_log_prob(prior, x, lowest=0.01, highest=2.0, base_mean=mean, base_variance=variance, steps=24)
    torch.testing.assert_close(found, prior.log_prob(x, 0.01), atol=2e-3, rtol=0)


def test_the_error_shrinks_with_steps() -> None:
    prior = _prior(6)
    x = prior.sample(NoiseSource(0), torch.arange(16), 0, 0)
    exact = prior.log_prob(x, 0.02)
    off = [float((flow_log_prob(prior, x, lowest=0.02, highest=100.0, **_base(prior), steps=steps) - exact).abs().mean()) for steps in (8, 16, 32, 64)]
    assert all(fine < 0.5 * coarse for coarse, fine in pairwise(off))


def test_the_quadrature_is_exact_for_polynomials() -> None:
    times, weights = quadrature(0.01, 2.0, 4)
    low, high = torch.tensor([0.01, 2.0], dtype=torch.float64).log().tolist()
    for power in range(8):
        found = sum(weight * time**power for time, weight in zip(times, weights, strict=True))
        assert found == pytest.approx((high ** (power + 1) - low ** (power + 1)) / (power + 1))


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_lattices_are_a_partition_whose_members_lie_apart(channels: int, rows: int, columns: int, spacing: int) -> None:
    masks = lattices((channels, rows, columns), spacing)
    assert torch.equal(masks.sum(0), torch.ones(channels, rows, columns, dtype=torch.int64))
    assert len(masks) == channels * min(spacing, rows) * min(spacing, columns)
    for mask in masks:
        places = mask.nonzero()
        assert len(places[:, 0].unique()) == 1
        for axis in (1, 2):
            gaps = places[:, axis].unique().diff()
            assert bool((gaps >= spacing).all())


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
def test_signs_on_lattices_are_unbiased(dimension: int, spacing: int, seed: int) -> None:
    """Averaged over all patterns of signs the estimate is the trace, of any matrix."""
    matrix = torch.randn(dimension, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    masks = lattices((dimension,), spacing).double()
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=dimension)), dtype=torch.float64)
    found = torch.einsum("pi,si,ij,sj,pj->s", masks, signs, matrix, signs, masks)
    torch.testing.assert_close(found.mean(), matrix.trace())
    if spacing >= dimension:
        torch.testing.assert_close(found, matrix.trace().expand_as(found))


@pytest.mark.slow
def test_the_flow_s_estimate_is_unbiased_over_seeds() -> None:
    prior = _prior(4)
    x = prior.sample(NoiseSource(0), torch.arange(3), 0, 0)
    levels: dict[str, Any] = {"lowest": 0.05, "highest": 10.0, **_base(prior), "steps": 12}
    exact = flow_log_prob(prior, x, **levels)
    ids = torch.arange(3)
    found = torch.stack([flow_log_prob(prior, x, **levels, probes=lattice_signs(ids, NoiseSource(seed), (4,), 2, CPU)) for seed in range(200)])
    error = found.std(0) / len(found) ** 0.5
    assert bool((error > 0).all())
    assert bool(((found.mean(0) - exact).abs() < 4.5 * error).all())


def test_trace_and_drift_are_those_of_the_denoiser() -> None:
    prior = _prior(3, components=1)
    sigma = 0.3
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drift, trace = drift_and_trace(prior, x, sigma, torch.eye(3, dtype=torch.float64).unsqueeze(1))
    covariance = prior.covariances[0]
    torch.testing.assert_close(drift, x - prior.denoise(x, sigma))
    torch.testing.assert_close(trace, torch.linalg.solve(covariance + sigma**2 * torch.eye(3, dtype=torch.float64), covariance).trace().expand(5))


def test_a_network_s_density_does_not_depend_on_the_batch() -> None:
    prior, noise = _network(), NoiseSource(3)
    assert isinstance(prior, EstimatesDensity)
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([7, 2, 7, 9, 2, 4])
    whole = prior.estimated_log_prob(x, ids, noise, steps=4, spacing=2)
    order = torch.tensor([4, 0, 5, 2, 3, 1])
    shuffled = prior.estimated_log_prob(x[order], ids[order], noise, steps=4, spacing=2)
    single = torch.cat([prior.estimated_log_prob(x[i : i + 1], ids[i : i + 1], noise, steps=4, spacing=2) for i in range(6)])
    torch.testing.assert_close(shuffled, whole[order], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(single, whole, rtol=1e-5, atol=1e-3)


def test_candidates_of_one_example_share_their_probes() -> None:
    prior = _network()
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)).expand(3, -1, -1, -1)
    found = prior.estimated_log_prob(x, torch.tensor([5, 5, 6]), NoiseSource(0), steps=4, spacing=2)
    torch.testing.assert_close(found[0], found[1])
    assert abs(float(found[0] - found[2])) > 1e-3
    exact = prior.estimated_log_prob(x, torch.tensor([5, 5, 6]), NoiseSource(0), steps=4, spacing=8)
    torch.testing.assert_close(exact[0], exact[2], rtol=1e-5, atol=1e-3)


def test_common_probes_make_differences_less_noisy() -> None:
    prior, seeds = _network(), range(12)
    one = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    pair = torch.cat([one, one + 0.01])
    common, apart = (
        torch.stack([prior.estimated_log_prob(pair, torch.tensor(ids), NoiseSource(seed), steps=4, spacing=1).diff() for seed in seeds])
        for ids in ([0, 0], [0, 1])
    )
    assert float(common.std()) < 0.5 * float(apart.std())


def test_the_precision_of_samplers_leaves_the_density_alone() -> None:
    prior = _network()
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(prior.with_precision("bfloat16").log_prob(x), prior.log_prob(x))


@pytest.mark.parametrize(("lowest", "highest", "steps"), [(0.0, 1.0, 4), (1.0, 1.0, 4), (2.0, 1.0, 4), (0.1, 1.0, 0)])
def test_levels_that_do_not_rise_are_refused(lowest: float, highest: float, steps: int) -> None:
    with pytest.raises(ValueError, match="0 < lowest < highest and steps >= 1"):
        flow_log_prob(_prior(1), torch.zeros(1, 1), lowest=lowest, highest=highest, base_mean=torch.zeros(1), base_variance=1.0, steps=steps)


@pytest.mark.parametrize("wrong", [{"flow_steps": 1}, {"flow_steps": 257}, {"flow_spacing": 0}, {"flow_steps": 8.5}])
def test_settings_have_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=next(iter(wrong))):
        create_separator("projected", wrong)


def test_defaults_of_settings_are_those_of_the_prior() -> None:
    separator: Any = create_separator("projected", {})
    assert (separator.flow_steps, separator.flow_spacing) == (FLOW_STEPS, FLOW_SPACING)


@pytest.mark.parametrize(("lowest", "highest", "steps"), [(0.0, 1.0, 4), (-0.1, 1.0, 4), (1.0, 1.0, 4), (2.0, 1.0, 4), (0.5, 1.0, 0)])
def test_levels_that_do_not_rise_and_no_step_are_refused(lowest: float, highest: float, steps: int) -> None:
    prior = _prior(1)
    with pytest.raises(ValueError, match="give") as refused:
        flow_log_prob(prior, torch.zeros(1, 1, dtype=torch.float64), lowest=lowest, highest=highest, **_base(prior), steps=steps)
    assert str(refused.value) == f"give 0 < lowest < highest and steps >= 1, got {lowest}, {highest} and {steps}"


def test_one_step_is_enough_to_be_taken() -> None:
    prior = _prior(1, components=1)
    found = flow_log_prob(prior, torch.zeros(1, 1, dtype=torch.float64), lowest=0.9, highest=1.0, **_base(prior), steps=1)
    torch.testing.assert_close(found, prior.log_prob(torch.zeros(1, 1, dtype=torch.float64), 0.9), atol=0.02, rtol=0)


def test_signs_are_those_of_the_examples_own_stream() -> None:
    """Of node 4: minus where the uniform number of the example is below a half, on one lattice at a time."""
    ids, noise, shape = torch.tensor([30, 5, 30]), NoiseSource(1), (2, 2, 3)
    made = lattice_signs(ids, noise, shape, 2, CPU)
    uniform = noise.fork(7002).uniform(ids, 4, 0, shape)
    wanted = lattices(shape, 2).unsqueeze(1) * (1.0 - 2.0 * (uniform < 0.5).float())
    assert torch.equal(made(4), wanted)
    assert made(4).shape == (8, 3, *shape)
    assert not torch.equal(made(4), made(5))
