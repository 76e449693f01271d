"""Intervals that cover what they claim to cover, summaries with defined ends, and laws of the paired bootstrap."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sepbench.results.statistics import (
    BOOTSTRAP_MAX,
    RESAMPLES,
    PairedDifference,
    bootstrap_means,
    mean_intervals,
    paired_differences,
    reduce_together,
    summarise,
)


def paired_difference(a: np.ndarray, b: np.ndarray) -> PairedDifference:
    (only,) = paired_differences(a[:, None], b[:, None])
    return only


columns = arrays(np.float64, st.tuples(st.integers(2, 30), st.integers(1, 4)), elements=st.floats(-100, 100))


def normal(n: int, m: int, key: int = 3) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key)).normal(size=(n, m))


def test_intervals_of_normal_data_cover_the_mean_about_95_percent_of_the_time() -> None:
    # 1,500 independent data sets of 60: the share covered has a standard error of 0.6 %; percentile intervals at n = 60 cover about 94 %.
    low, high = mean_intervals(normal(60, 1500))
    assert 0.925 <= ((low <= 0) & (high >= 0)).mean() <= 0.965


def test_interval_ends_agree_with_theory_for_large_n() -> None:
    values = normal(25_000, 1)
    low, high = mean_intervals(values)[:, 0]
    half = 1.959964 * values.std(ddof=1) / np.sqrt(len(values))
    # A quantile of 2,000 resamples is known to about 3 % of the half-width.
    assert high - values.mean() == pytest.approx(half, rel=0.1)
    assert values.mean() - low == pytest.approx(half, rel=0.1)


def test_above_the_limit_the_interval_is_the_normal_one_and_hardly_another() -> None:
    values = np.random.Generator(np.random.Philox(12)).exponential(size=(BOOTSTRAP_MAX + 1, 1))
    low, high = mean_intervals(values)[:, 0]
    half = 1.959964 * values.std(ddof=1) / np.sqrt(len(values))
    assert (values.mean() - low, high - values.mean()) == pytest.approx((half, half), rel=1e-6)
    low, high = mean_intervals(values[:-1])[:, 0]  # one example fewer: resampled; its ends are known to about 3 % of the half-width
    assert values.mean() - low == pytest.approx(half, rel=0.15)
    assert high - values.mean() == pytest.approx(half, rel=0.15)
    assert (values.mean() - low, high - values.mean()) != pytest.approx((half, half), rel=1e-6)


def test_a_lower_level_is_narrower() -> None:
    values = normal(50, 1)
    wide, narrow = mean_intervals(values, 0.95)[:, 0], mean_intervals(values, 0.5)[:, 0]
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_resamples_are_those_of_direct_indexing() -> None:
    values = normal(7, 3)
    drawn = np.random.Generator(np.random.Philox(11)).integers(0, 7, size=(40, 7))
    np.testing.assert_allclose(bootstrap_means(values, 40, 11), values[drawn].mean(axis=1), rtol=0, atol=1e-12)


def test_chunks_do_not_show() -> None:
    values = normal(3_000, 1)  # more cells than one chunk holds
    drawn = np.random.Generator(np.random.Philox(11)).integers(0, 3_000, size=(1_500, 3_000))
    np.testing.assert_allclose(bootstrap_means(values, 1_500, 11), values[drawn].mean(axis=1), rtol=0, atol=1e-12)


def test_there_are_enough_resamples() -> None:
    assert RESAMPLES >= 2_000
    assert bootstrap_means(normal(5, 2)).shape == (RESAMPLES, 2)


@given(columns)
@settings(max_examples=25, deadline=None)
def test_equal_values_equal_intervals_and_columns_do_not_touch(values: np.ndarray) -> None:
    together = mean_intervals(values)
    alone = np.stack([mean_intervals(values[:, [i]])[:, 0] for i in range(values.shape[1])], axis=1)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-10)
    assert np.array_equal(together, mean_intervals(values))


@given(columns, st.floats(-50, 50), st.floats(0.1, 10))
@settings(max_examples=25, deadline=None)
def test_shift_and_scale(values: np.ndarray, shift: float, scale: float) -> None:
    np.testing.assert_allclose(mean_intervals(values * scale + shift), mean_intervals(values) * scale + shift, rtol=0, atol=1e-9)


@given(columns)
@settings(max_examples=25, deadline=None)
def test_summary_against_numpy(values: np.ndarray) -> None:
    for i, summary in enumerate(summarise(values)):
        column = values[:, i]
        assert summary.n == len(column)
        assert summary.mean == pytest.approx(column.mean())
        assert summary.median == pytest.approx(np.median(column))
        assert summary.std == pytest.approx(column.std(ddof=1), abs=1e-9)
        assert column.min() - 1e-9 <= summary.ci_low <= summary.ci_high <= column.max() + 1e-9


def test_none_and_one_are_defined() -> None:
    (nothing,) = summarise(np.empty((0, 1)))
    assert nothing.n == 0
    assert np.isnan([nothing.mean, nothing.std, nothing.median, nothing.ci_low, nothing.ci_high]).all()
    (one,) = summarise(np.array([[3.5]]))
    assert (one.n, one.mean, one.median) == (1, 3.5, 3.5)
    assert np.isnan([one.std, one.ci_low, one.ci_high]).all()


def test_values_that_are_not_finite_are_refused() -> None:
    for bad in (np.nan, np.inf):
        for n in (1, 3):
            values = np.zeros((n, 1))
            values[0] = bad
            with pytest.raises(ValueError, match="finite"):
                summarise(values)


def test_wrong_shapes_and_levels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(n, m\)"):
        summarise(np.zeros(3))
    with pytest.raises(ValueError, match="n = 0"):
        bootstrap_means(np.empty((0, 1)))
    with pytest.raises(ValueError, match="level"):
        mean_intervals(np.zeros((3, 1)), level=95)
    with pytest.raises(ValueError, match="alike"):
        paired_differences(np.zeros((3, 1)), np.zeros((4, 1)))


@given(arrays(np.float64, 12, elements=st.floats(-10, 10)), arrays(np.float64, 12, elements=st.floats(-10, 10)))
@settings(max_examples=25, deadline=None)
def test_exchanging_the_sides_changes_the_sign(a: np.ndarray, b: np.ndarray) -> None:
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.mean == pytest.approx(-back.mean)
    assert (there.ci_low, there.ci_high) == pytest.approx((-back.ci_high, -back.ci_low), abs=1e-9)
    assert (there.share_a_higher, there.share_b_higher) == (back.share_b_higher, back.share_a_higher)
    assert there.share_a_higher + there.share_b_higher == pytest.approx(1 - (a == b).mean())


def test_pairing_removes_what_both_share() -> None:
    difficulty, noise = normal(200, 1)[:, 0] * 5, normal(200, 1, key=4)[:, 0] * 0.1
    paired = paired_difference(difficulty + 0.1 + noise, difficulty)
    assert paired.ci_low > 0.05
    assert paired.ci_high < 0.15
    low, high = mean_intervals(difficulty[:, None])[:, 0]
    assert high - low > 1.0


def test_pairs_of_none_and_one() -> None:
    nothing, one = paired_difference(np.empty(0), np.empty(0)), paired_difference(np.array([2.0]), np.array([1.5]))
    assert (nothing.n, one.n) == (0, 1)
    assert np.isnan([nothing.mean, nothing.ci_low, nothing.share_a_higher, one.ci_low, one.ci_high]).all()
    assert (one.mean, one.share_a_higher, one.share_b_higher) == (0.5, 1.0, 0.0)


def test_columns_reduced_together_are_those_reduced_alone() -> None:
    values = normal(BOOTSTRAP_MAX + 1, 4)
    columns = [(values[:40, 0],), (values[:, 1],), (values[:40, 2],), (values[:41, 3],), (values[:0, 0],)]
    together = reduce_together(iter(columns), summarise)
    for (column,), found in zip(columns, together, strict=True):
        (alone,) = summarise(column[:, None])
        assert [getattr(found, name) for name in found.__slots__] == pytest.approx([getattr(alone, name) for name in alone.__slots__], nan_ok=True)


def test_long_columns_are_not_held() -> None:
    alive: list[int] = []

    def columns() -> Iterator[tuple[np.ndarray]]:
        for number in range(3):
            values = normal(BOOTSTRAP_MAX + 1, 1, key=number)[:, 0]
            weakref.finalize(values, alive.remove, number)
            alive.append(number)
            assert alive[:-2] == []  # at most the last one and this one
            yield (values,)

    assert len(reduce_together(columns(), summarise)) == 3
