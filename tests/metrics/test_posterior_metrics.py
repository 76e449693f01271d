"""Metrics of posterior draws: limits, invariances, other people's implementations, and what an exact sampler gets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import image_task
from scipy import stats

from sepbench.errors import SuiteError
from sepbench.gmm import ExactPosterior, GaussianMixture
from sepbench.metrics.catalogue import check_metrics, get_metric, metric_names
from sepbench.metrics.draws import posterior_reference, score_draws
from sepbench.metrics.kinds import MixtureMetric, PairMetric, PosteriorMetric, PosteriorReference
from sepbench.metrics.posterior import ENERGY_DISTANCE, distances
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures, TaskSpec

NAMES = ["energy_distance", "c2st", "posterior_mean_error", "posterior_cov_error", "pit_error"]
INVARIANT = ["energy_distance", "c2st", "posterior_mean_error", "posterior_cov_error"]  # under rotations; intervals belong to the axes


def normals(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference(draws: torch.Tensor, mean: float = 0.0, scale: float = 1.0) -> PosteriorReference:
    batch, _, size = draws.shape
    covariance = scale**2 * torch.eye(size, dtype=torch.float64).expand(batch, -1, -1)
    return PosteriorReference(torch.full((batch, size), mean, dtype=torch.float64), covariance, draws)


def score(name: str, draws: torch.Tensor, against: PosteriorReference) -> torch.Tensor:
    metric = get_metric(name)
    assert isinstance(metric, PosteriorMetric)
    return metric.posterior_score(draws, against)


def toy_task(draws: int) -> TaskSpec:
    spec = dataclasses.replace(image_task(2), domain="vector", source_shape=(3,), assignment="ordered")
    return dataclasses.replace(spec, analytic_prior=True, posterior_draws=draws)


def toy_problem(examples: int) -> tuple[Mixtures, ExactPosterior]:
    covariance = torch.diag(torch.tensor([0.09, 0.04, 0.01], dtype=torch.float64))[None]
    priors = [GaussianMixture(torch.ones(1, dtype=torch.float64), normals(1, 3, seed=k), (1 + k) * covariance) for k in range(2)]
    operator = make_operator("sum", 2)
    truth = torch.stack([priors[k].sample(NoiseSource(4), torch.arange(examples), 0, k) for k in range(2)], dim=1).float()
    return Mixtures(operator.forward(truth), torch.arange(examples), operator), ExactPosterior(priors, torch.ones(2, dtype=torch.float64))


def test_the_exact_moments_have_no_error() -> None:
    draws = normals(3, 500, 4)
    centred = draws - draws.mean(1, keepdim=True)
    exact = PosteriorReference(draws.mean(1), centred.transpose(1, 2) @ centred / 499, draws)
    for name in ("posterior_mean_error", "posterior_cov_error", "energy_distance"):
        torch.testing.assert_close(score(name, draws, exact), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["posterior_mean_error", "posterior_cov_error", "energy_distance", "pit_error"])
def test_errors_vanish_as_exact_draws_grow(name: str) -> None:
    few, many = (float(score(name, normals(4, n, 2, seed=1), reference(normals(4, n, 2, seed=2))).mean()) for n in (60, 1500))
    assert many < few / 3


def test_exact_draws_get_what_theory_says() -> None:
    """Mean N^-1/2 in root mean square, covariance sqrt((1 + r) / (N - 1)) with r = (tr C)^2 / |C|^2, energy 1 / N, two-sample test (N - 1) / (2 N - 1)."""
    n, size, batch = 128, 4, 200
    draws, exact = normals(batch, n, size, seed=3), reference(normals(batch, n, size, seed=4))
    found = {name: score(name, draws, exact) for name in NAMES}
    assert float(found["posterior_mean_error"].square().mean().sqrt()) == pytest.approx(n**-0.5, rel=0.1)
    assert float(found["posterior_cov_error"].square().mean().sqrt()) == pytest.approx(((1 + size) / (n - 1)) ** 0.5, rel=0.1)
    assert float(found["energy_distance"].mean()) == pytest.approx(1 / n, rel=0.1)
    # The labels of 2 N points are not independent; twice the binomial's standard deviation covers what that adds.
    assert float(found["c2st"].mean()) == pytest.approx((n - 1) / (2 * n - 1), abs=3 * 2 * 0.5 / (2 * n * batch) ** 0.5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100), size=st.integers(1, 6))
def test_shifts_scales_rotations_and_order_change_nothing(seed: int, scale: float, size: int) -> None:
    draws, exact = 1.3 * normals(2, 40, size, seed=seed), normals(2, 40, size, seed=seed + 1)
    rotation = torch.linalg.qr(normals(size, size, seed=seed))[0]
    shift = normals(size, seed=seed + 2)
    before = reference(exact)
    after = PosteriorReference(
        scale * before.mean @ rotation.T + shift, scale**2 * rotation @ before.covariance @ rotation.T, scale * exact @ rotation.T + shift
    )
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    for name in INVARIANT:
        torch.testing.assert_close(score(name, (scale * draws @ rotation.T + shift)[:, order], after), score(name, draws, before), atol=1e-9, rtol=1e-7)
    stretched = PosteriorReference(before.mean, before.covariance, scale * exact + shift)
    torch.testing.assert_close(score("pit_error", scale * draws + shift, stretched), score("pit_error", draws, before))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 30), size=st.integers(1, 5), spread=st.floats(0, 3))
def test_ranges(seed: int, n: int, size: int, spread: float) -> None:
    draws, exact = spread * normals(3, n, size, seed=seed) + spread, reference(normals(3, n, size, seed=seed + 1))
    for name in NAMES:
        found = score(name, draws, exact)
        assert found.shape == (3,)
        assert found.dtype == torch.float64
        assert bool((found >= 0).all())
    for name in ("energy_distance", "c2st", "pit_error"):
        assert bool((score(name, draws, exact) <= 1).all())


@pytest.mark.parametrize("name", NAMES)
def test_wrong_draws_score_worse(name: str) -> None:
    exact = reference(normals(6, 100, 3, seed=8))
    good = float(score(name, normals(6, 100, 3, seed=9), exact).mean())
    wrong = 2.5 * normals(6, 100, 3, seed=9) + 1.5
    assert float(score(name, wrong, exact).mean()) > good + 0.1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_draws_that_are_not_finite_have_no_value_and_leave_other_mixtures_theirs(name: str, bad: float) -> None:
    draws, exact = normals(3, 40, 3, seed=9), reference(normals(3, 40, 3, seed=8))
    whole = score(name, draws, exact)
    draws[0], draws[2, 7, 1] = bad, bad
    found = score(name, draws, exact)
    assert found.isnan().tolist() == [True, False, True]
    assert found[1] == whole[1]


def test_scores_of_draws_that_are_not_finite_are_empty() -> None:
    mixtures, exact = toy_problem(2)
    draws = exact.sample(mixtures.values, NoiseSource(1), mixtures.example_ids, 16)
    draws[1] = torch.nan
    table = score_draws(NAMES, draws, mixtures, exact, toy_task(16))
    assert (np.isnan(table.value) == (table.example == 1)).all()


def test_one_point_for_all_draws_is_told_apart() -> None:
    exact = reference(normals(2, 64, 3))
    point = torch.zeros(2, 64, 3, dtype=torch.float64)
    assert bool((score("c2st", point, exact) > 0.7).all())
    assert bool((score("energy_distance", point, exact) > 0.2).all())
    torch.testing.assert_close(score("posterior_cov_error", point, exact), torch.ones(2, dtype=torch.float64))


def test_too_narrow_in_many_dimensions_is_seen_by_the_energy_distance_and_not_by_neighbours() -> None:
    exact, narrow = reference(normals(4, 200, 64, seed=1)), 0.7 * normals(4, 200, 64, seed=2)
    good = normals(4, 200, 64, seed=3)
    assert float(score("c2st", narrow, exact).mean()) < 0.55
    for name in ("energy_distance", "pit_error"):
        assert float(score(name, narrow, exact).mean()) > 1.1 * float(score(name, good, exact).mean())


def test_energy_distance_is_scipys_in_one_dimension() -> None:
    x, y = normals(1, 50, 1, seed=5), 0.5 * normals(1, 70, 1, seed=6) + 0.3
    squared = stats.energy_distance(x.flatten().numpy(), y.flatten().numpy()) ** 2
    expected = squared / float(2 * distances(x, y).mean())
    assert float(score("energy_distance", x, reference(y))) == pytest.approx(expected, rel=1e-9)


def test_pit_error_is_scipys_kolmogorov_distance() -> None:
    draws, exact = 0.6 * normals(1, 80, 3, seed=5) + 0.2, normals(1, 80, 3, seed=6)
    distances_by_coordinate = []
    for f in range(3):
        pits = [(np.sum(draws[0, :, f].numpy() < y) + 0.5) / 81 for y in exact[0, :, f].numpy()]
        distances_by_coordinate.append(stats.kstest(pits, "uniform").statistic)
    assert float(score("pit_error", draws, reference(exact))) == pytest.approx(np.mean(distances_by_coordinate), rel=1e-12)


def test_c2st_counts_nearest_neighbours() -> None:
    draws = torch.tensor([[[0.0], [0.1], [5.0]]], dtype=torch.float64)
    exact = torch.tensor([[[0.15], [4.0], [4.1]]], dtype=torch.float64)
    # 0 -> 0.1 own; 0.1 -> 0.15 other; 5 -> 4.1 other; 0.15 -> 0.1 other; 4 -> 4.1 own; 4.1 -> 4 own
    assert float(score("c2st", draws, reference(exact))) == pytest.approx(3 / 6)


def test_score_draws_gives_one_row_per_example_whatever_the_batch() -> None:
    mixtures, exact = toy_problem(5)
    spec = toy_task(16)
    draws = exact.sample(mixtures.values, NoiseSource(1), mixtures.example_ids, 16)
    whole = score_draws(NAMES, draws, mixtures, exact, spec)
    assert whole.example.tolist() == list(range(5)) * len(NAMES)
    assert set(whole.source.tolist()) == {-1}
    assert whole.metric.tolist() == [name for name in NAMES for _ in range(5)]
    assert np.isfinite(whole.value).all()
    part = Mixtures(mixtures.values[3:4], mixtures.example_ids[3:4], mixtures.operator)
    alone = score_draws(NAMES, draws[3:4], part, exact, spec)
    assert alone.value.tobytes() == whole.value[whole.example == 3].tobytes()


def test_the_exact_draws_are_frozen_and_no_runs_own() -> None:
    mixtures, exact = toy_problem(3)
    first, again = (posterior_reference(exact, mixtures, 8) for _ in range(2))
    assert torch.equal(first.draws, again.draws)
    mine = exact.sample(mixtures.values, NoiseSource(0), mixtures.example_ids, 8).flatten(2)
    assert not torch.equal(first.draws, mine)
    more = posterior_reference(exact, mixtures, 16)
    torch.testing.assert_close(more.mean, first.mean)


def test_tasks_and_metrics_must_fit() -> None:
    assert metric_names("vector") == ["mixture_error", "posterior_mean_error", "posterior_cov_error", "energy_distance", "c2st", "pit_error"]
    check_metrics(NAMES, toy_task(16))
    with pytest.raises(SuiteError, match="'c2st' scores posterior draws, the task has estimates; remove it from task toy/task"):
        check_metrics(["c2st"], toy_task(0))
    with pytest.raises(SuiteError, match="'mixture_error' scores estimates, task toy/task has posterior draws"):
        check_metrics(["mixture_error"], toy_task(16))
    mixtures, exact = toy_problem(2)
    with pytest.raises(ValueError, match="draws of task toy/task must be"):
        score_draws(["c2st"], torch.zeros(2, 8, 2, 3), mixtures, exact, toy_task(16))
    assert not isinstance(get_metric("c2st"), PairMetric | MixtureMetric)


def test_sets_of_one_and_the_same_point_have_nothing_between_them() -> None:
    point = torch.full((2, 5, 3), 0.3, dtype=torch.float64)
    assert score("energy_distance", point, reference(point)).tolist() == [0.0, 0.0]
    assert score("energy_distance", point + 1.0, reference(point)).tolist() == [1.0, 1.0]
    draws = normals(1, 40, 3)
    assert score("energy_distance", draws, reference(draws.flip(1))).tolist() == pytest.approx([0.0], abs=1e-12)
    assert float(score("energy_distance", draws, reference(draws.flip(1)))) >= 0.0


def test_what_lies_close_together_far_from_zero_is_told_apart() -> None:
    """By differences, however many points there are: products of numbers around a million would leave nothing of a thousandth."""
    steps = torch.arange(40, dtype=torch.float64) / 1024
    points = (steps + 2.0**20).reshape(1, 40, 1)
    assert torch.equal(distances(points, points)[0], (steps[:, None] - steps).abs())


def test_rounding_makes_no_distance_of_equal_sets_negative() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(60, 7, 3, generator=generator, dtype=torch.float64)
    there = draws[:, torch.randperm(7, generator=generator)]
    found = ENERGY_DISTANCE.posterior_score(draws, PosteriorReference(torch.zeros(60, 3), torch.zeros(60, 3, 3), there))
    assert (found >= 0).all()
    assert (found < 1e-12).all()


def test_exact_draws_follow_from_the_number_of_the_mixture_alone() -> None:
    """Wherever it stands in a batch; and of two equal mixtures each has its own."""
    prior = GaussianMixture(torch.ones(1).double(), torch.zeros(1, 3).double(), torch.eye(3).double()[None])
    exact = ExactPosterior((prior, prior), torch.ones(2).double(), 0.1)
    values = torch.ones(3, 3)

    def drawn(*ids: int) -> torch.Tensor:
        return posterior_reference(exact, Mixtures(values[: len(ids)], torch.tensor(ids), make_operator("sum", 2)), 4).draws

    found = drawn(7, 5, 0)
    assert found.shape == (3, 4, 6)
    assert torch.allclose(drawn(5)[0], found[1])
    assert torch.allclose(drawn(0, 7)[1], found[0])
    assert len({tuple(row.flatten().tolist()) for row in found}) == 3
