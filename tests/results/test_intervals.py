"""The cluster-robust variance against its definition, its classical special cases, and the laws that it must keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sepbench.data.lists.clusters import Clusters, independent, of_signals
from sepbench.results.intervals import Design

LISTS = st.integers(2, 25).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, 4), st.integers(2, 9), st.integers(0, 10**6)))


def drawn(n: int, slots: int, clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.integers(0, clusters, (n, slots)), generator.normal(size=(n, 3))


def by_definition(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum of the products of the deviations of all pairs of mixtures with a key in common."""
    deviations = values - values.mean(axis=0)
    total = np.zeros(values.shape[1])
    for i, own in enumerate(keys):
        for j, other in enumerate(keys):
            if set(own.tolist()) & set(other.tolist()):
                total += deviations[i] * deviations[j]
    return total


@given(LISTS)
@settings(max_examples=60, deadline=None)
def test_the_variance_is_the_sum_over_all_pairs_that_share_a_cluster(case: tuple[int, int, int, int]) -> None:
    keys, values = drawn(*case)
    design = Design(Clusters("image", keys))
    found = sum(shared.square_sums(values - values.mean(axis=0)) for shared in design.shared)
    np.testing.assert_allclose(found, by_definition(keys, values), rtol=0, atol=1e-9)


@given(LISTS)
@settings(max_examples=40, deadline=None)
def test_names_of_clusters_order_of_slots_and_order_of_mixtures_do_not_matter(case: tuple[int, int, int, int]) -> None:
    keys, values = drawn(*case)
    order = np.random.Generator(np.random.Philox(1)).permutation(len(keys))
    expected = Design(Clusters("image", keys)).intervals(values)
    renamed = Design(Clusters("image", 1000 - 3 * keys[order][:, ::-1])).intervals(values[order])
    np.testing.assert_allclose(renamed, expected, rtol=1e-7, atol=1e-9)


def test_independent_mixtures_have_the_interval_of_the_t_test() -> None:
    values = np.random.Generator(np.random.Philox(2)).normal(3.0, 2.0, size=(12, 1))
    low, high = Design(independent(12)).intervals(values)[:, 0]
    expected = stats.ttest_1samp(values[:, 0], 0.0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_copies_of_a_song_say_no_more_than_the_song() -> None:
    songs = np.random.Generator(np.random.Philox(3)).normal(size=(9, 1))
    copied, keys = np.repeat(songs, 7, axis=0), np.repeat(np.arange(9), 7)[:, None]
    expected = Design(independent(9)).intervals(songs)
    np.testing.assert_allclose(Design(Clusters("song", np.repeat(keys, 2, axis=1))).intervals(copied), expected, rtol=1e-12)


def test_two_slots_of_one_pool_know_an_image_in_either_slot() -> None:
    indices = np.array([[0, 1], [1, 2], [3, 4]])
    one, two = (Design(of_signals(indices, pools, "image")) for pools in (("a", "a"), ("a", "b")))
    values = np.array([[1.0], [1.0], [-2.0]])
    assert one.standard_errors(values)[0] > two.standard_errors(values)[0]  # mixtures 0 and 1 share image 1
    np.testing.assert_allclose(two.standard_errors(values), Design(independent(3)).standard_errors(values))


@given(LISTS, st.floats(-50, 50), st.floats(0.1, 10))
@settings(max_examples=30, deadline=None)
def test_shift_and_scale(case: tuple[int, int, int, int], shift: float, scale: float) -> None:
    keys, values = drawn(*case)
    design = Design(Clusters("image", keys))
    np.testing.assert_allclose(design.intervals(values * scale + shift), design.intervals(values) * scale + shift, rtol=0, atol=1e-6)


def test_what_one_cluster_says_of_the_spread_is_nothing() -> None:
    design = Design(Clusters("song", np.zeros((5, 2), np.int64)))
    assert np.isnan(design.intervals(np.arange(5.0)[:, None])).all()
    assert np.isnan(Design(independent(1)).intervals(np.ones((1, 1)))).all()
    assert Design(independent(0)).n_clusters == 0


def test_a_negative_sum_falls_back_to_the_mixtures_own_squares() -> None:
    # Two-way sums can be negative: deviations cancel within every cluster of one slot and of the other.
    keys = np.array([[0, 10], [0, 11], [1, 10], [1, 11]])
    values = np.array([[1.0], [-1.0], [-1.0], [1.0]])
    design = Design(Clusters("image", keys))
    assert sum(shared.square_sums(values) for shared in design.shared)[0] < 0
    assert design.apart == pytest.approx(1 - 12 / 16)
    assert design.standard_errors(values)[0] == pytest.approx(np.sqrt(4 / (1 / 4)) / 4)


def test_levels_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="level"):
        Design(independent(3)).intervals(np.zeros((3, 1)), level=95)


@pytest.mark.parametrize(
    ("keys", "known"),
    [
        ([[0], [0], [1], [1]], True),  # two equal clusters: one degree of freedom
        ([[0], [0], [0], [1]], False),  # 1.6 effective clusters
        ([[0, 1], [1, 2], [2, 0]], False),  # three in either slot, and yet no two mixtures without a common one
        ([[0, 3], [1, 4], [2, 5]], True),
    ],
)
def test_where_clusters_leave_nothing_to_tell_a_spread_from(keys: list[list[int]], known: bool) -> None:
    design = Design(Clusters("image", np.array(keys)))
    values = np.arange(float(len(keys)))[:, None] ** 2
    with np.errstate(all="raise"):
        assert np.isfinite(design.standard_errors(values)).all() == known
        assert np.isfinite(design.intervals(values)).all() == known


def test_levels_are_open_at_both_ends_and_the_default_is_95_percent() -> None:
    design, values = Design(independent(9)), np.arange(9.0)[:, None]
    for level in (0.0, 1.0, -0.5, 95.0):
        with pytest.raises(ValueError) as caught:
            design.intervals(values, level)
        assert str(caught.value) == f"level must be in (0, 1), got {level}"
    np.testing.assert_array_equal(design.intervals(values), design.intervals(values, 0.95))
    low, high = design.intervals(values, 0.5)[:, 0]
    assert high - 4.0 == pytest.approx(4.0 - low) == pytest.approx(stats.t.ppf(0.75, 8) * np.sqrt(7.5 / 9))


def test_of_no_mixture_and_of_one_there_are_no_quantiles() -> None:
    nothing, one = Design(independent(0)), Design(independent(1))
    assert (nothing.n_clusters, nothing.effective, one.n_clusters, one.effective, one.degrees) == (0, 0.0, 1, 1.0, 0.0)
    assert np.isnan([nothing.quantile(0.9), one.quantile(0.9)]).all()
    assert np.isnan(nothing.intervals(np.zeros((0, 2)))).all()
    assert Design(independent(3)).quantile(0.9) == pytest.approx(stats.t.ppf(0.9, 2))
    assert Design(independent(3)).tail(np.array([-1.0, 0.0, np.nan]))[:2] == pytest.approx(stats.t.cdf([-1.0, 0.0], 2))
    assert np.isnan(Design(independent(3)).tail(np.array([np.nan]))).all()


def test_below_one_degree_of_freedom_quantiles_are_those_of_t_and_tails_are_probabilities() -> None:
    """Though no interval is made of them: of four mixtures of two songs, three of one."""
    few = Design(Clusters("song", np.array([[0], [0], [0], [1]])))
    assert few.degrees == pytest.approx(0.6)
    assert few.quantile(0.9) == pytest.approx(stats.t.ppf(0.9, 0.6), rel=1e-6)
    assert few.tail(np.array([-2.0]))[0] == pytest.approx(stats.t.cdf(-2.0, 0.6), rel=1e-6)
    for none in (Design(independent(0)), Design(independent(1))):
        tails = none.tail(np.array([-1.0, 1.0]))
        assert ((tails >= 0) & (tails <= 1)).all()


def test_what_cancels_within_clusters_but_for_rounding_leaves_the_mixtures_own_squares() -> None:
    """0.1 + 0.2 - 0.3 is 5.6e-17 in floating point: songs that seem to agree to the last digit say nothing of how far they are apart."""
    design = Design(Clusters("song", np.repeat(np.arange(4), 3)[:, None]))
    values = np.outer([1.0, 2.0, 4.0, -7.0], [0.1, 0.2, -0.3]).reshape(-1, 1)
    (songs,) = design.shared
    assert 0 < songs.square_sums(values - values.mean())[0] < 1e-20
    own = np.square(values - values.mean()).sum()
    assert design.standard_errors(values)[0] == pytest.approx(np.sqrt(own / design.apart) / 12)


# -- shares


def share(successes: int, n: int) -> tuple[float, float]:
    return Design(independent(n)).share_interval(np.repeat([1.0, 0.0], [successes, n - successes]))


@pytest.mark.parametrize(("successes", "n"), [(12, 12), (0, 12), (9, 10), (1, 2), (37, 200)])
def test_a_share_of_independent_mixtures_has_the_exact_interval_of_scipy(successes: int, n: int) -> None:
    assert share(successes, n) == pytest.approx(tuple(stats.binomtest(successes, n).proportion_ci(0.95, "exact")), abs=1e-12)


def test_the_interval_of_a_share_holds_it_in_95_percent_of_worlds_also_at_the_edges() -> None:
    """By the binomial law, without simulation; 12 of 12 mixtures are no proof of 1."""
    ends = np.array([share(successes, 12) for successes in range(13)])
    assert ((ends >= 0) & (ends <= 1)).all()
    assert ends[12, 0] == pytest.approx(0.025 ** (1 / 12))
    for p in (0.001, 0.02, 0.1, 0.5, 0.77, 0.95, 0.999):
        held = (ends[:, 0] <= p) & (p <= ends[:, 1])
        assert stats.binom.pmf(np.flatnonzero(held), 12, p).sum() >= 0.95


def test_a_share_of_songs_is_korn_and_graubards_and_songs_that_agree_count_once() -> None:
    design = Design(Clusters("song", np.repeat(np.arange(10), 4)[:, None]))
    songs = np.array([4, 4, 4, 3, 4, 0, 4, 4, 2, 4]) / 4
    values = np.concatenate([np.repeat([1.0, 0.0], [round(4 * s), 4 - round(4 * s)]) for s in songs])
    p, variance = songs.mean(), songs.var(ddof=1) / 10  # equal songs: the variance of their means
    trials = 40 / (variance / (p * (1 - p) / 39)) * (stats.t.ppf(0.975, 39) / stats.t.ppf(0.975, 9)) ** 2
    expected = (stats.beta.ppf(0.025, p * trials, (1 - p) * trials + 1), stats.beta.ppf(0.975, p * trials + 1, (1 - p) * trials))
    assert design.share_interval(values) == pytest.approx(expected, rel=1e-9)
    assert design.share_interval(np.ones(40)) == pytest.approx((0.025**0.1, 1.0))
    assert design.share_interval(np.full(40, 0.5)) == pytest.approx(tuple(stats.binomtest(5, 10).proportion_ci(0.95, "exact")))


@pytest.mark.parametrize("p", [0.5, 0.9, 0.99])
def test_shares_of_songs_that_sound_alike_are_held_too(p: float) -> None:
    songs, generator = np.repeat(np.arange(25), 4), np.random.Generator(np.random.Philox(5))
    design, worlds = Design(Clusters("song", songs[:, None])), 400
    drawn = np.sqrt(0.5) * (generator.standard_normal((25, worlds))[songs] + generator.standard_normal((100, worlds)))
    ends = np.array([design.share_interval(world) for world in (drawn < stats.norm.ppf(p)).astype(float).T])
    assert ((ends[:, 0] <= p) & (p <= ends[:, 1])).mean() > 0.93
    assert ((ends >= 0) & (ends <= 1)).all()


def test_a_share_of_too_few_clusters_is_unknown_and_levels_are_checked() -> None:
    assert np.isnan(Design(Clusters("song", np.zeros((4, 1), np.int64))).share_interval(np.ones(4))).all()
    assert np.isnan(Design(independent(1)).share_interval(np.ones(1))).all()
    with pytest.raises(ValueError, match="level must be in"):
        Design(independent(3)).share_interval(np.ones(3), level=95)
    assert Design(independent(8)).share_interval(np.ones(8), 0.5) == pytest.approx((0.25 ** (1 / 8), 1.0))
