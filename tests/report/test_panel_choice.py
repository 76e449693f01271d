"""Which mixtures are shown, and the counts of the histogram."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sepbench.errors import SepbenchError
from sepbench.report.panels.choice import named, spread, spread_ranks
from sepbench.report.panels.histogram import bin_edges


@pytest.mark.parametrize(
    ("n", "count", "ranks"),
    [
        (20, 7, [0, 3, 6, 9, 12, 16, 19]),
        (21, 3, [0, 10, 20]),
        (21, 5, [0, 5, 10, 15, 20]),
        (20, 4, [0, 9, 14, 19]),
        (20, 2, [0, 19]),
        (20, 1, [9]),
        (5, 7, [0, 1, 2, 3, 4]),
        (1, 7, [0]),
    ],
)
def test_ranks_are_evenly_spaced_with_both_ends_and_the_median(n: int, count: int, ranks: list[int]) -> None:
    assert spread_ranks(n, count) == ranks


def test_ranks_are_distinct_and_in_order_for_every_size() -> None:
    for n in range(1, 40):
        for count in range(1, 12):
            ranks = spread_ranks(n, count)
            assert ranks == sorted(set(ranks))
            assert len(ranks) == min(n, count)
            if count >= 3:
                assert {0, (n - 1) // 2, n - 1} <= set(ranks)


def test_best_median_and_worst_are_named() -> None:
    values = {0: 10.0, 1: 30.0, 2: math.nan, 3: 20.0, 4: 20.0, 5: 5.0}
    choice = spread(values, 3, higher_is_better=True, by="psnr")
    assert choice.examples == (1, 4, 5)  # the two with 20 dB stand in the order of the list, so the second is in the middle
    assert choice.words == ("best", "median", "worst")
    assert choice.told == "3 of 5 mixtures at evenly spaced ranks of psnr (best, median, worst included); 1 that failed is left out"
    assert spread(values, 3, higher_is_better=False, by="mixture_error").examples == (5, 3, 1)
    assert spread(values, 9, higher_is_better=True, by="psnr").told == "All 5 mixtures, from best to worst psnr; 1 that failed is left out"
    assert spread(values, 1, higher_is_better=True, by="psnr").examples == (4,)


def test_nothing_to_choose_from() -> None:
    with pytest.raises(SepbenchError, match="no mixture has a value of psnr"):
        spread({0: math.nan}, 3, higher_is_better=True, by="psnr")


def test_named_mixtures_keep_their_order_and_must_be_in_the_run() -> None:
    assert named((5, 0, 5), 6).examples == (5, 0)
    assert named((5, 0, 5), 6).words == ("", "")
    for wrong in (6, -1):
        with pytest.raises(SepbenchError, match="mixtures 0 to 5"):
            named((wrong,), 6)


def test_bins_reach_over_all_values_unless_one_lies_far_out() -> None:
    values = np.linspace(10.0, 20.0, 400)
    edges = bin_edges(values, 400)
    assert (edges[0], edges[-1], len(edges)) == (10.0, 20.0, 21)
    far = bin_edges(np.append(values, 100.0), 401)
    assert 19.5 < far[-1] < 21.0
    assert far[0] == 10.0
    assert len(bin_edges(values, 3)) == 11
    assert len(bin_edges(values, 10**6)) == 61
    same = bin_edges(np.full(5, 3.0), 5)
    assert (same[0], same[-1]) == (2.5, 3.5)


def test_thousands_have_commas() -> None:
    values = {number: float(number) if number < 2000 else math.nan for number in range(3234)}
    choice = spread(values, 7, higher_is_better=False, by="psnr")
    told = "7 of 2,000 mixtures at evenly spaced ranks of psnr (best, median, worst included); 1,234 that failed are left out"
    assert choice.told == told
    assert choice.examples == (0, 333, 666, 999, 1332, 1666, 1999)
    assert choice.words == ("best", "rank 334 of 2,000", "rank 667 of 2,000", "median", "rank 1,333 of 2,000", "rank 1,667 of 2,000", "worst")
    every = spread(values, 4000, higher_is_better=True, by="psnr")
    assert every.told == "All 2,000 mixtures, from best to worst psnr; 1,234 that failed are left out"
    assert every.words[999:1001] == ("median", "rank 1,001 of 2,000")


@pytest.mark.parametrize(
    ("outer", "ends"),
    [((0.0, 30.0), (0.0, 30.0)), ((-0.01, 30.0), (10.0, 30.0)), ((0.0, 30.01), (0.0, 20.0)), ((9.0, 25.0), (9.0, 25.0))],
)
def test_ends_that_lie_as_far_out_as_the_middle_is_wide_are_kept(outer: tuple[float, float], ends: tuple[float, float]) -> None:
    """Of 101 values the second and the last but one are the quantiles: 10 and 20."""
    edges = bin_edges(np.array([outer[0], *np.linspace(10.0, 20.0, 99), outer[1]]), 101)
    assert (edges[0], edges[-1]) == pytest.approx(ends)
    alike = bin_edges(np.array([3.0] * 400 + [9.0]), 401)
    assert (alike[0], alike[-1]) == (3.0, 9.0)  # where the middle has no width nothing is cut
