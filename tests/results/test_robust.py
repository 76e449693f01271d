"""The interquartile mean against scipy and Yuen's standard error, and probabilities of improvement by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from synthetic_run import SyntheticRun

from sepbench.data.lists.clusters import Clusters, independent
from sepbench.results.intervals import Design
from sepbench.results.ranking import Evidence
from sepbench.results.robust import interquartile_mean, robust_rows
from sepbench.results.statistics import Designs, Summary, TaskDesigns
from sepbench.results.values import MetricValues, Values


def iqm(values: np.ndarray) -> Summary:
    return interquartile_mean(values, np.arange(len(values)), Designs(independent(len(values))))


@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(-100, 100)))
@settings(max_examples=40, deadline=None)
def test_it_is_scipys_trimmed_mean(values: np.ndarray) -> None:
    assert iqm(values).mean == pytest.approx(stats.trim_mean(values, 0.25), abs=1e-9)


def test_its_interval_is_that_of_the_winsorised_values() -> None:
    values = np.random.Generator(np.random.Philox(1)).standard_t(2, size=40)
    found = iqm(values)
    error = np.asarray(stats.mstats.winsorize(values, (0.25, 0.25))).std(ddof=1) / (0.5 * np.sqrt(40))
    assert found.ci_high - found.mean == pytest.approx(stats.t.ppf(0.975, 40 - 2 * 10 - 1) * error)
    assert found.mean - found.ci_low == pytest.approx(found.ci_high - found.mean)


def test_the_interquartile_interval_of_twelve_mixtures_holds_more_than_t_of_all_twelve() -> None:
    """6 of 12 are in the middle: 5 degrees of freedom (Tukey and McLaughlin 1963). With 11 the interval holds 0.90."""
    held = []
    for row in np.random.Generator(np.random.Philox(4)).standard_normal((1500, 12)):
        found = iqm(row)
        held.append(found.ci_low <= 0 <= found.ci_high)
    assert np.mean(held) > 0.91


def test_the_interquartile_interval_counts_the_songs_of_the_middle_half() -> None:
    songs = Clusters("song", np.repeat(np.arange(6), 2)[:, None])
    values = np.array([0.0, 90, 1, 91, 2, 92, 3, 4, 5, 6, 7, 8])  # the middle half, 3 to 8, is of the last three songs
    found, mean = interquartile_mean(values, np.arange(12), Designs(songs)), 5.5
    influence = mean + 2 * (np.clip(values, 3, 8) - np.clip(values, 3, 8).mean())
    error = Design(songs).standard_errors(influence[:, None])[0]
    assert (found.mean, found.ci_high - found.mean) == pytest.approx((mean, stats.t.ppf(0.975, 2) * error))
    one = interquartile_mean(values, np.arange(12), Designs(Clusters("song", np.repeat([0, 1, 2, 3, 3, 3], 2)[:, None])))
    assert one.mean == pytest.approx(mean)
    assert np.isnan([one.ci_low, one.ci_high]).all()  # the middle half is of one song


def test_one_mixture_that_fails_hardly_moves_it() -> None:
    values = np.linspace(10, 20, 41)
    spoilt = values.copy()
    spoilt[40] = -1000
    assert abs(iqm(spoilt).mean - iqm(values).mean) < 0.5 < abs(spoilt.mean() - values.mean())


def test_the_probability_of_improvement_counts_mixtures_and_half_the_ties() -> None:
    run = SyntheticRun({"nmf": 16.0, "ica": 13.0}, n=20, metrics=("psnr",))
    values = np.repeat(np.arange(20.0), 2)
    run.scores.loc[run.where("nmf"), "value"] = values
    run.scores.loc[run.where("ica"), "value"] = values + np.repeat(np.array([-1.0] * 12 + [0.0] * 4 + [1.0] * 4), 2) - 0.0
    evidence = Evidence(run.values(), TaskDesigns(lambda task: None))
    best, other = robust_rows(evidence, "class-split", "psnr", ["ica", "nmf"], True)
    assert (best.method, other.method, best.improvement) == ("nmf", "ica", None)
    assert other.improvement is not None
    assert other.improvement.mean == pytest.approx((12 + 2) / 20)
    exact = stats.binomtest(14, 20).proportion_ci(0.95, "exact")
    assert (other.improvement.ci_low, other.improvement.ci_high) == pytest.approx((exact.low, exact.high))
    first = robust_rows(evidence, "class-split", "psnr", ["ica", "nmf"], False)[0]
    assert first.method == "ica"


def test_a_method_that_wins_on_all_mixtures_is_not_proven_to_win_always() -> None:
    cells = {name: MetricValues(np.arange(12), level + np.arange(12.0)) for name, level in (("nmf", 1.0), ("ica", 0.0))}
    evidence = Evidence(Values(lambda task, method: {"psnr": cells[method], "sir": cells[method]}), TaskDesigns(lambda task: independent(12)))
    _, other = robust_rows(evidence, "t", "psnr", ["ica", "nmf"], True)
    assert other.improvement is not None
    assert (other.improvement.mean, other.improvement.ci_low, other.improvement.ci_high) == pytest.approx((1.0, 0.025 ** (1 / 12), 1.0))
    assert [row.improvement for row in robust_rows(evidence, "t", "sir", ["ica", "nmf"], True)] == [None, None]  # no best by what never ranks


def test_the_best_method_must_beat_all_others_together() -> None:
    """Each of two methods loses with a p-value of 0.03: alone that is a difference, among two it is none (Holm)."""
    run = SyntheticRun({"best": 20.0, "second": 19.0, "third": 18.0}, metrics=("psnr",))
    base, noise = np.repeat(np.arange(40.0), 2), np.random.Generator(np.random.Philox(3)).normal(size=(2, 40))
    wanted = stats.t.isf(0.03, 39) / np.sqrt(40)
    run.scores.loc[run.where("best"), "value"] = base
    for method, drawn in zip(("second", "third"), noise, strict=True):
        lost = (drawn - drawn.mean()) / drawn.std(ddof=1) + wanted
        run.scores.loc[run.where(method), "value"] = base - np.repeat(lost, 2)
    evidence = Evidence(run.values(), TaskDesigns(lambda task: None))
    assert evidence.against_best("class-split", "psnr", ["best", "second"], True).equal == frozenset()
    assert evidence.against_best("class-split", "psnr", ["best", "second", "third"], True).equal == {"second", "third"}
