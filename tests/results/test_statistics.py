"""Summaries and paired differences with defined ends, the laws of pairing, and Holm's adjustment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sepbench.data.lists.clusters import Clusters, independent
from sepbench.results.statistics import (
    CLUSTER_T,
    FLOAT_NOISE,
    MIN_CLUSTERS,
    T_OF_MIXTURES,
    UNKNOWN,
    Designs,
    PairedDifference,
    Summary,
    TaskDesigns,
    holm,
    paired_difference,
    summarise,
)

columns = arrays(np.float64, st.integers(2, 30), elements=st.floats(-100, 100))


def normal(n: int, key: int = 3) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key)).normal(size=n)


def summary(values: np.ndarray) -> Summary:
    return summarise(values, np.arange(len(values)), Designs(independent(len(values))))


def paired(a: np.ndarray, b: np.ndarray) -> PairedDifference:
    return paired_difference(a, b, np.arange(len(a)), Designs(independent(len(a))))


def test_intervals_of_normal_data_cover_the_mean_about_95_percent_of_the_time() -> None:
    # 1,500 independent data sets of 5: the share covered has a standard error of 0.6 %.
    worlds = [summary(normal(5, key)) for key in range(1500)]
    assert 0.93 <= np.mean([world.ci_low <= 0 <= world.ci_high for world in worlds]) <= 0.97


def test_songs_make_the_interval_wider_than_their_chunks_would_have_it() -> None:
    songs = np.repeat(np.arange(20), 10)
    values = normal(20, key=1)[songs] + 0.1 * normal(200, key=2)
    examples = np.arange(200)
    by_song = summarise(values, examples, Designs(Clusters("song", songs[:, None])))
    by_chunk = summarise(values, examples, Designs(independent(200)))
    assert by_song.ci_high - by_song.ci_low > 2.5 * (by_chunk.ci_high - by_chunk.ci_low)
    assert (by_song.interval, by_song.unit, by_song.n_clusters) == (CLUSTER_T, "song", 20)
    assert (by_chunk.interval, by_chunk.unit, by_chunk.n_clusters) == (T_OF_MIXTURES, "mixture", 200)
    assert summarise(values, examples, Designs(None)).interval == UNKNOWN


def test_clusters_are_found_by_the_number_of_the_example() -> None:
    clusters = Clusters("song", np.array([[0], [0], [1], [2]]))
    some = summarise(np.array([1.0, 2.0]), np.array([1, 3]), Designs(clusters))
    assert some.n_clusters == 2
    assert summarise(np.array([1.0, 2.0]), np.array([0, 1]), Designs(clusters)).n_clusters == 1


@given(columns)
@settings(max_examples=25, deadline=None)
def test_summary_against_numpy(values: np.ndarray) -> None:
    found = summary(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.median == pytest.approx(np.median(values))
    assert found.std == pytest.approx(values.std(ddof=1), abs=1e-9)
    assert found.ci_low <= found.mean <= found.ci_high


def test_none_and_one_are_defined() -> None:
    nothing, one = summary(np.empty(0)), summary(np.array([3.5]))
    assert nothing.n == 0
    assert np.isnan([nothing.mean, nothing.std, nothing.median, nothing.ci_low, nothing.ci_high]).all()
    assert (one.n, one.mean, one.median) == (1, 3.5, 3.5)
    assert np.isnan([one.std, one.ci_low, one.ci_high]).all()


def test_values_that_are_not_finite_are_refused() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            summary(np.array([0.0, bad, 1.0]))


def test_wrong_shapes_are_refused() -> None:
    designs = Designs(independent(4))
    with pytest.raises(ValueError, match=r"\(n,\)"):
        summarise(np.zeros((3, 1)), np.arange(3), designs)
    with pytest.raises(ValueError, match="one shape"):
        summarise(np.zeros(3), np.arange(4), designs)
    with pytest.raises(ValueError, match="alike"):
        paired_difference(np.zeros(3), np.zeros(4), np.arange(3), designs)


@given(arrays(np.float64, 12, elements=st.floats(-10, 10)), arrays(np.float64, 12, elements=st.floats(-10, 10)))
@settings(max_examples=25, deadline=None)
def test_exchanging_the_sides_changes_the_sign(a: np.ndarray, b: np.ndarray) -> None:
    there, back = paired(a, b), paired(b, a)
    assert there.mean == pytest.approx(-back.mean)
    assert (there.ci_low, there.ci_high) == pytest.approx((-back.ci_high, -back.ci_low), abs=1e-9)
    assert (there.p_lower, there.p_higher) == pytest.approx((back.p_higher, back.p_lower))
    assert (there.share_a_higher, there.share_b_higher) == (back.share_b_higher, back.share_a_higher)
    ties = np.abs(a - b) <= FLOAT_NOISE * np.maximum(1.0, np.maximum(np.abs(a), np.abs(b)))
    assert there.share_a_higher + there.share_b_higher == pytest.approx(1 - ties.mean())


@given(columns)
@settings(max_examples=25, deadline=None)
def test_an_interval_that_excludes_zero_and_a_small_p_value_are_one_thing(values: np.ndarray) -> None:
    found = paired(values, np.zeros(len(values)))
    assert (found.ci_low > 0) == (found.p_higher < 0.025)
    assert (found.ci_high < 0) == (found.p_lower < 0.025)


def test_pairing_removes_what_both_share() -> None:
    difficulty, noise = normal(200) * 5, normal(200, key=4) * 0.1
    found = paired(difficulty + 0.1 + noise, difficulty)
    assert found.ci_low > 0.05
    assert found.ci_high < 0.15
    alone = summary(difficulty)
    assert alone.ci_high - alone.ci_low > 1.0


def test_pairs_of_none_one_and_equal_ones() -> None:
    nothing, one = paired(np.empty(0), np.empty(0)), paired(np.array([2.0]), np.array([1.5]))
    assert (nothing.n, one.n) == (0, 1)
    assert np.isnan([nothing.mean, nothing.ci_low, nothing.share_a_higher, one.ci_low, one.ci_high]).all()
    assert (one.mean, one.share_a_higher, one.share_b_higher, one.p_lower, one.p_higher) == (0.5, 1.0, 0.0, 1.0, 1.0)
    same, shifted = paired(np.arange(20.0), np.arange(20.0)), paired(np.arange(20.0), np.arange(20.0) + 1)
    assert (same.p_lower, same.p_higher) == (1.0, 1.0)
    assert (shifted.p_lower, shifted.p_higher) == (0.0, 1.0)


def test_what_float32_rounds_is_a_tie_of_values_of_that_size() -> None:
    values = np.array([0.0, 0.5, 30.0, -4_000.0])
    rounded = paired(values, values.astype(np.float32) + 1e-7)
    assert (rounded.share_a_higher, rounded.share_b_higher) == (0.0, 0.0)
    floor = FLOAT_NOISE * np.array([1.0, 1.0, 30.0, 4_000.0])
    for sign in (1.0, -1.0):
        below, above = (paired(values + sign * factor * floor, values) for factor in (0.99, 1.01))
        assert (below.share_a_higher, below.share_b_higher) == (0.0, 0.0)
        assert (above.share_a_higher, above.share_b_higher) == ((1.0, 0.0) if sign > 0 else (0.0, 1.0))


def test_few_clusters_decide_nothing() -> None:
    assert not paired(np.ones(MIN_CLUSTERS - 1), np.zeros(MIN_CLUSTERS - 1)).decidable
    assert paired(np.ones(MIN_CLUSTERS), np.zeros(MIN_CLUSTERS)).decidable


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    assert holm(np.empty(0)).shape == (0,)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm(np.array([np.nan]))


@given(arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 1)))
@settings(max_examples=50, deadline=None)
def test_holm_lies_between_the_plain_p_values_and_bonferronis_and_keeps_their_order(p: np.ndarray) -> None:
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1.0, len(p) * p) + 1e-12).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()


def test_intervals_are_frozen() -> None:
    """Independent mixtures: the mean and t times the standard error, by hand. Clusters: as they were when leaderboards were made."""
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    found = summary(values)
    half = 2.5705818356 * values.std(ddof=1) / np.sqrt(6)  # t of 5 degrees of freedom at 97.5 %
    assert (found.ci_low, found.ci_high) == pytest.approx((10.5 - half, 10.5 + half), rel=1e-9)
    assert found.std == pytest.approx(np.sqrt(((values - 10.5) ** 2).sum() / 5))
    songs = summarise(np.arange(24.0) ** 1.5, np.arange(24), Designs(Clusters("song", np.repeat(np.arange(12), 2)[:, None])))
    assert (songs.ci_low, songs.ci_high) == pytest.approx((21.829159112070563, 67.38117516381189), rel=1e-9)


def test_a_verdict_begins_at_the_stated_number_of_clusters() -> None:
    for n, decidable in ((MIN_CLUSTERS - 1, False), (MIN_CLUSTERS, True)):
        assert paired(normal(n), normal(n, key=4)).decidable is decidable


def test_a_design_is_made_once_for_the_same_examples_and_a_task_s_designs_once() -> None:
    asked: list[str] = []

    def clusters(task: str) -> Clusters:
        asked.append(task)
        return Clusters("song", np.arange(9)[:, None] // 2)

    designs = TaskDesigns(clusters)
    assert designs.task("t") is designs.task("t")
    some = designs.task("t").of(np.arange(3))
    assert designs.task("t").of(np.array([0, 1, 2])) is some
    assert designs.task("t").of(np.array([0, 1, 3])) is not some
    assert (some.n, some.n_clusters, asked) == (3, 2, ["t"])


def test_without_examples_it_is_still_said_how_an_interval_would_be_made() -> None:
    designs = Designs(Clusters("song", np.zeros((4, 1), np.int64)))
    nothing = np.empty(0)
    assert summarise(nothing, np.arange(0), designs).interval == paired_difference(nothing, nothing, np.arange(0), designs).interval == CLUSTER_T
    assert (CLUSTER_T, T_OF_MIXTURES, UNKNOWN) == ("cluster t", "t", "t, clusters unknown")
