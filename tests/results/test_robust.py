"""The interquartile mean against scipy and Yuen's standard error, and probabilities of improvement by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from synthetic_run import SyntheticRun

from sepbench.data.lists.clusters import independent
from sepbench.results.ranking import Evidence
from sepbench.results.robust import interquartile_mean, robust_rows
from sepbench.results.statistics import Designs, Summary, TaskDesigns


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
    assert found.ci_high - found.mean == pytest.approx(stats.t.ppf(0.975, 39) * error)


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
    first = robust_rows(evidence, "class-split", "psnr", ["ica", "nmf"], False)[0]
    assert first.method == "ica"


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
    assert evidence.equals("class-split", "psnr", ["best", "second"], True) == frozenset()
    assert evidence.equals("class-split", "psnr", ["best", "second", "third"], True) == {"second", "third"}
