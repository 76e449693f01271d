"""Repetitions by hand: what their mean, spread and interval are, and where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sepbench.data.lists.clusters import independent
from sepbench.results.repeats import _half_width, spread
from sepbench.results.statistics import Designs
from sepbench.results.values import MetricValues, Values

KEY = ("t", "m", "psnr")


def _values(examples: list[int], values: list[float]) -> Values:
    cell = {"psnr": MetricValues(np.array(examples), np.array(values))}
    return Values(lambda task, method: cell if (task, method) == KEY[:2] else {})


def _designs(count: int) -> Designs:
    return Designs(independent(count))


def test_half_of_an_interval_in_its_limits() -> None:
    t = stats.t.ppf(0.975, 7)
    assert _half_width(4.0, 7, 0.0, 2) == pytest.approx(2 * t)
    assert _half_width(0.0, 7, 4.0, 2) == pytest.approx(2 * stats.t.ppf(0.975, 2))
    assert _half_width(4.0, 7, 4.0, 7) == pytest.approx(math.sqrt(8) * stats.t.ppf(0.975, 14))  # two equal parts: twice the degrees
    assert _half_width(0.0, 7, 0.0, 2) == 0.0
    assert math.isnan(_half_width(math.nan, 7, 1.0, 2))


def test_a_spread_by_hand() -> None:
    """Example 5 failed in the first and 9 is unknown to the second: four are left, and the two runs differ by a constant on them."""
    first = _values([0, 2, 5, 7, 8], [10.0, 20.0, math.nan, 30.0, 40.0])
    second = _values([0, 2, 5, 7, 8, 9], [14.0, 24.0, 99.0, 34.0, 44.0, 99.0])
    found = spread(first, [second], KEY, _designs(10))
    assert found is not None
    values = np.array([12.0, 22.0, 32.0, 42.0])
    assert (found.count, found.mean) == (2, 27.0)
    assert found.between == pytest.approx(np.std([25.0, 29.0], ddof=1))
    of_mixtures, of_runs = values.var(ddof=1) / 4, found.between**2 / 2
    degrees = (of_mixtures + of_runs) ** 2 / (of_mixtures**2 / 3 + of_runs**2 / 1)
    half = stats.t.ppf(0.975, degrees) * math.sqrt(of_mixtures + of_runs)
    assert found.ci_high - found.mean == pytest.approx(half, rel=1e-6)
    assert found.mean - found.ci_low == pytest.approx(half, rel=1e-6)


def test_where_there_is_no_spread() -> None:
    first = _values([0, 1], [1.0, 2.0])
    assert spread(first, [], KEY, _designs(4)) is None
    assert spread(first, [Values(lambda task, method: {})], KEY, _designs(4)) is None
    assert spread(first, [_values([2, 3], [1.0, 2.0])], KEY, _designs(4)) is None
    three = spread(first, [_values([0, 1], [1.0, 2.0]), Values(lambda task, method: {}), _values([0, 1], [1.0, 2.0])], KEY, _designs(4))
    assert three is not None
    assert (three.count, three.between, three.mean) == (3, 0.0, 1.5)


def test_a_repetition_counts_only_with_every_mixture_of_the_run() -> None:
    first, whole, short = _values([0, 1], [1.0, 2.0]), _values([0, 1, 2], [3.0, 4.0, 99.0]), _values([0, 2], [7.0, 7.0])
    assert spread(first, [short], KEY, _designs(4)) is None
    assert spread(first, [_values([0, 1], [7.0, math.nan])], KEY, _designs(4)) is None
    found = spread(first, [short, whole], KEY, _designs(4))
    assert found is not None
    assert (found.count, found.mean) == (2, 2.5)


class _Pooled:
    """Parts of a metric whose values follow from how many mixtures are pooled."""

    def of(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> _Pooled:
        return self

    def pooled(self, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.where(chosen, 10.0 * chosen.sum(), np.nan)


def test_a_pooled_metric_is_pooled_anew_over_the_mixtures_of_the_run() -> None:
    more = {"psnr": MetricValues(np.array([0, 1, 2]), np.full(3, 30.0), parts=_Pooled())}  # type: ignore[arg-type]
    found = spread(_values([0, 1], [20.0, 20.0]), [Values(lambda task, method: more)], KEY, _designs(4))
    assert found is not None
    assert (found.mean, found.between) == (20.0, 0.0)
