"""FID, KID and inception score: against torch-fidelity on the same features, against closed forms, and where they have no value."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sepbench.compat import import_torch_fidelity
from sepbench.metrics.sets.catalogue import fid, fid_limit, inception_score, kid
from sepbench.metrics.sets.features import order_of
from sepbench.metrics.sets.frechet import (
    FrechetReference,
    frechet_distance,
    frechet_limit_values,
    frechet_values,
    limit_counts,
    limit_weights,
    smallest_for_limit,
)
from sepbench.metrics.sets.inception_score import SPLITS, inception_values
from sepbench.metrics.sets.kernel import BLOCK, block_distance, kernel_values
from sepbench.metrics.sets.moments import Array, Moments, Stream, moments_of, rebatched


def features(count: int, size: int, seed: int, shift: float = 0.0) -> Array:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(1_000 + size).normal(size=(size, size)) / size**0.5
    return rng.normal(size=(count, size)) @ mixing + shift


def stream(values: Array, parts: int = 3) -> Stream:
    return lambda: iter(np.array_split(values, parts))


def reference_of(values: Array) -> FrechetReference:
    return FrechetReference(Moments.of(values))


@pytest.mark.parametrize(("count", "size"), [(400, 16), (3000, 64), (1000, 7)])
def test_frechet_distance_is_that_of_torch_fidelity(count: int, size: int) -> None:
    fidelity = import_torch_fidelity("metric_fid")
    a, b = features(count, size, 1, 0.2), 1.3 * features(count + 100, size, 2)
    statistics = [fidelity.fid_features_to_statistics(torch.from_numpy(rows)) for rows in (a, b)]
    theirs = fidelity.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(moments_of(stream(a)()), reference_of(b)) == pytest.approx(theirs, rel=1e-6)
    assert frechet_values(stream(a), reference_of(b)).mean() == pytest.approx(theirs, rel=1e-6)


def test_frechet_distance_with_fewer_images_than_features_is_that_of_torch_fidelity() -> None:
    fidelity = import_torch_fidelity("metric_fid")
    a, b = features(40, 64, 1, 0.2), features(90, 64, 2)
    statistics = [fidelity.fid_features_to_statistics(torch.from_numpy(rows)) for rows in (a, b)]
    theirs = fidelity.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(Moments.of(a), reference_of(b)) == pytest.approx(theirs, rel=1e-6)
    values = frechet_values(stream(a), reference_of(b))
    assert np.isfinite(values).all()
    assert values.mean() == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("directions", [12, 7])
def test_frechet_distance_is_the_same_by_cholesky_and_by_the_root(directions: int) -> None:
    """A reference that fills all 12 directions has a Cholesky factor; one that lies in 7 of them has none, and a little noise gives it one."""
    draw = np.random.default_rng(3)
    flat = draw.standard_normal((200, directions)) @ draw.standard_normal((directions, 12))
    estimates = Moments.of(draw.standard_normal((150, 12)) * 0.7 + 0.2)
    full = reference_of(flat + 1e-6 * draw.standard_normal(flat.shape))
    assert full.factor is not None
    values = np.linalg.eigvals(estimates.covariance @ full.moments.covariance)
    step = estimates.mean - full.moments.mean
    expected = step @ step + np.trace(estimates.covariance) + np.trace(full.moments.covariance) - 2 * np.sqrt(np.abs(values)).sum()
    assert frechet_distance(estimates, full) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(estimates, reference_of(flat)) == pytest.approx(expected, rel=1e-4)


def test_a_singular_reference_has_no_cholesky_factor_and_a_distance() -> None:
    constant = reference_of(np.ones((50, 4)))
    assert constant.factor is None
    estimates = Moments.of(np.random.default_rng(0).standard_normal((50, 4)))
    expected = float(((estimates.mean - 1.0) ** 2).sum() + np.trace(estimates.covariance))
    assert frechet_distance(estimates, constant) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_is_that_of_torch_fidelity_on_the_same_block() -> None:
    fidelity = import_torch_fidelity("metric_kid")
    a, b = features(BLOCK, 32, 1, 0.1), features(BLOCK, 32, 2)
    options = {"kid_subsets": 1, "kid_subset_size": BLOCK, "rng_seed": 5, "verbose": False}
    theirs = fidelity.kid_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), **options)["kernel_inception_distance_mean"]
    assert block_distance(a, b)[0] == pytest.approx(theirs, rel=1e-6)
    assert kernel_values(stream(a), b.astype(np.float32)).values.mean() == pytest.approx(theirs, rel=1e-4)  # the reference is kept in float32


@pytest.mark.parametrize("count", [SPLITS, 237, 1000])
def test_inception_score_is_that_of_torch_fidelity(count: int) -> None:
    fidelity = import_torch_fidelity("metric_isc")
    logits = 3.0 * features(count, 10, 4)
    theirs = fidelity.isc_features_to_metric(torch.from_numpy(logits.astype(np.float32)), SPLITS, shuffle=False)
    ours = inception_values(stream(logits.astype(np.float32)))
    assert ours.values.mean() == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert np.std(ours.splits) == pytest.approx(theirs["inception_score_std"], rel=1e-6, abs=1e-12)


def test_frechet_distance_of_gaussians_with_diagonal_covariances_is_the_closed_form() -> None:
    mean, other, sd, other_sd = np.array([1.0, 2.0]), np.array([0.0, 4.0]), np.array([2.0, 3.0]), np.array([1.0, 5.0])
    moments, reference = (Moments(11, m, np.diag(s**2) * 10) for m, s in ((mean, sd), (other, other_sd)))
    expected = ((mean - other) ** 2 + (sd - other_sd) ** 2).sum()
    assert frechet_distance(moments, FrechetReference(reference)) == pytest.approx(expected, rel=1e-12)


@given(st.integers(2, 60), st.integers(1, 8), st.integers(0, 2**31), st.integers(1, 7))
def test_moments_do_not_depend_on_the_parts(count: int, size: int, seed: int, parts: int) -> None:
    rows = features(count, size, seed, 3.0)
    whole, found = Moments.of(rows), moments_of(stream(rows, parts)())
    assert found.count == count
    np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.scatter, whole.scatter, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.covariance, np.cov(rows, rowvar=False).reshape(size, size), rtol=1e-9, atol=1e-9)


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 7))
def test_rebatching_keeps_the_rows(sizes: list[int], size: int) -> None:
    rows = np.arange(sum(sizes), dtype=np.float64)[:, None]
    parts = list(rebatched(iter(np.split(rows, np.cumsum(sizes)[:-1])) if sizes else iter(()), size))
    assert [len(part) for part in parts[:-1]] == [size] * (len(parts) - 1)
    assert all(0 < len(part) <= size for part in parts)
    np.testing.assert_array_equal(np.concatenate([np.empty((0, 1)), *parts]), rows)


def jackknife(value: object, rows: Array) -> Array:
    """Deviations by leaving out one row after the other, the reference for influence functions."""
    n = len(rows)
    without = np.array([value(np.delete(rows, i, axis=0)) for i in range(n)])  # type: ignore[operator]
    return (n - 1) * (without.mean() - without)


def test_influence_on_the_frechet_distance_is_the_jackknife() -> None:
    rows, reference = features(300, 4, 3, 0.3), reference_of(features(5000, 4, 9))
    values = frechet_values(stream(rows), reference)
    expected = jackknife(lambda part: frechet_distance(Moments.of(part), reference), rows)
    np.testing.assert_allclose(values - values.mean(), expected, rtol=0.1, atol=0.05 * expected.std())
    assert np.corrcoef(values, expected)[0, 1] > 0.999


def test_influence_on_the_kernel_distance_is_the_jackknife() -> None:
    rows, reference = features(200, 4, 3, 0.3), features(300, 4, 9)
    _, influence = block_distance(rows, reference)
    expected = jackknife(lambda part: block_distance(part, reference)[0], rows)
    np.testing.assert_allclose(influence, expected, rtol=0.02, atol=0.02 * expected.std())


def test_influence_on_the_inception_score_is_the_jackknife() -> None:
    logits = (2.0 * features(400, 5, 3)).astype(np.float32)
    found = inception_values(stream(logits))
    part = logits[:40]  # the first of the ten splits
    expected = jackknife(lambda rows: np.exp(_mean_divergence(rows)), part)
    np.testing.assert_allclose(found.values[:40] - found.splits[0] - (found.values.mean() - found.splits.mean()), expected, rtol=0.1, atol=0.1 * expected.std())


def _mean_divergence(logits: Array) -> float:
    p = torch.from_numpy(logits).double().softmax(1)
    return float((p * (p.log() - p.mean(0).log())).sum(1).mean())


def test_the_line_through_several_numbers_of_images_meets_the_axis_where_least_squares_says() -> None:
    counts = limit_counts(40_000)
    assert (counts[0], counts[-1], len(counts)) == (4_000, 40_000, 15)
    distances = 3.0 + 5_000.0 / np.asarray(counts) + np.random.default_rng(0).normal(size=15)
    slope, intercept = np.polyfit(1.0 / np.asarray(counts), distances, 1)
    assert limit_weights(counts) @ distances == pytest.approx(intercept, rel=1e-9)
    assert slope > 0


def test_the_limit_is_nearer_to_the_truth_than_the_distance_of_all_images() -> None:
    size = 16
    reference = FrechetReference(Moments(10**9, np.zeros(size), np.eye(size) * (10**9 - 1)))
    errors = []
    for seed in range(10):
        rows = np.random.default_rng(seed).normal(size=(640, size))
        order = order_of(np.arange(640))
        values = frechet_limit_values(stream(rows), reference, order)
        errors.append((frechet_values(stream(rows), reference).mean(), values.mean()))  # the truth is 0
    bias, bias_of_limit = np.abs(np.mean(errors, axis=0))
    assert bias_of_limit < bias / 3


def test_no_limit_of_few_images() -> None:
    rows = features(smallest_for_limit(4) - 1, 4, 0)
    assert np.isnan(frechet_limit_values(stream(rows), reference_of(features(50, 4, 1)), order_of(np.arange(len(rows))))).all()


def test_order_is_a_shuffle_that_depends_on_the_number_alone() -> None:
    order = order_of(np.arange(10_000))
    assert len(np.unique(order)) == 10_000
    np.testing.assert_array_equal(order[500:600], order_of(np.arange(500, 600)))
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05


CONSTANT = np.ones((50, 6))


@pytest.mark.parametrize(
    ("rows", "defined"),
    [(CONSTANT, True), (features(1, 6, 0), False), (np.full((30, 6), np.nan), False), (features(2, 6, 0), True)],
    ids=["constant images", "one image", "NaN", "two images"],
)
def test_odd_sets_have_a_defined_value_or_none(rows: Array, defined: bool) -> None:
    reference = features(100, 6, 1)
    values = frechet_values(stream(rows, 1), reference_of(reference))
    assert np.isfinite(values).all() == defined
    assert len(values) == len(rows)
    if defined:
        expected = ((rows.mean(0) - reference.mean(0)) ** 2).sum() + np.trace(np.cov(reference, rowvar=False))
        assert 0 <= values.mean() <= expected + np.trace(np.cov(rows, rowvar=False)) + 1e-9
    kernel = kernel_values(stream(rows, 1), reference.astype(np.float32)).values
    assert np.isfinite(kernel).all() == defined


def test_a_reference_of_one_image_gives_no_value() -> None:
    rows = features(20, 3, 0)
    assert np.isnan(frechet_values(stream(rows), reference_of(rows[:1]))).all()
    assert np.isnan(kernel_values(stream(rows), rows[:1].astype(np.float32)).values).all()


def test_images_beyond_the_last_whole_block_do_not_enter_the_kernel_distance() -> None:
    rows, reference = features(2 * BLOCK + 300, 4, 0), features(3 * BLOCK, 4, 1).astype(np.float32)
    found = kernel_values(stream(rows), reference)
    assert len(found.blocks) == 2
    np.testing.assert_allclose(found.values[2 * BLOCK :], found.blocks.mean(), rtol=1e-9)
    assert found.values.mean() == pytest.approx(found.blocks.mean(), rel=1e-9)
    alone = kernel_values(stream(rows[: 2 * BLOCK]), reference)
    assert found.values.std() / len(rows) ** 0.5 == pytest.approx(alone.values.std() / (2 * BLOCK) ** 0.5, rel=1e-9)  # the error of the mean
    assert found.blocks[1] == pytest.approx(block_distance(rows[BLOCK : 2 * BLOCK], reference[BLOCK : 2 * BLOCK])[0], rel=1e-9)


def test_kernel_distance_of_equal_laws_is_zero_on_average() -> None:
    distances = [block_distance(features(60, 4, seed), features(80, 4, 500 + seed))[0] for seed in range(200)]
    assert abs(np.mean(distances)) < 4 * np.std(distances) / len(distances) ** 0.5
    assert np.std(distances) > 0


def test_a_sure_and_even_classifier_has_the_number_of_classes_as_score() -> None:
    logits = 50.0 * np.eye(10)[np.arange(200) % 10]
    assert inception_values(stream(logits)).values.mean() == pytest.approx(10.0, rel=1e-6)
    assert inception_values(stream(np.zeros((200, 10)))).values.mean() == pytest.approx(1.0)
    assert np.isnan(inception_values(stream(np.zeros((SPLITS - 1, 10)))).values).all()


def test_nothing_at_all_is_refused() -> None:
    def none() -> Iterator[Array]:
        return iter(())

    with pytest.raises(ValueError, match="no features"):
        moments_of(none())


def test_set_metrics_have_no_unit_and_say_which_way_is_better() -> None:
    told = {make: make("inception").info for make in (fid, fid_limit, kid, inception_score)}
    names = [(info.name, info.unit, info.higher_is_better) for info in told.values()]
    assert names == [("fid_inception", "1", False), ("fid_inf_inception", "1", False), ("kid_inception", "1", False), ("is_inception", "1", True)]
    assert [make("mnistnet").needs_classes for make in told] == [False, False, False, True]
