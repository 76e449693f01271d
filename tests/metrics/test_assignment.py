"""Assignments: both ways of finding the best agree, ties and gaps are settled, limits are kept."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sepbench.errors import SuiteError
from sepbench.metrics.assignment import best_assignment, exhaustive_assignment, hungarian_assignment, matched, total_score


def score_tables(largest: int) -> st.SearchStrategy[torch.Tensor]:
    """``(B, K, K)`` with many ties: integers and reals mixed."""
    values = st.one_of(st.integers(-3, 3).map(float), st.floats(-100, 100, allow_subnormal=False))
    shape = st.tuples(st.integers(1, 4), st.integers(1, largest)).map(lambda bk: (bk[0], bk[1], bk[1]))
    return shape.flatmap(lambda s: arrays(np.float64, s, elements=values)).map(torch.from_numpy)


@settings(max_examples=150, deadline=None)
@given(score_tables(5), st.booleans())
def test_exhaustive_and_hungarian_reach_the_same_total(pairwise: torch.Tensor, maximise: bool) -> None:
    exhaustive = total_score(pairwise, exhaustive_assignment(pairwise, maximise))
    hungarian = total_score(pairwise, hungarian_assignment(pairwise, maximise))
    torch.testing.assert_close(exhaustive, hungarian, rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(score_tables(4), st.booleans())
def test_no_permutation_is_better_and_the_first_of_equals_is_taken(pairwise: torch.Tensor, maximise: bool) -> None:
    got = best_assignment(pairwise, maximise)
    k = pairwise.shape[1]
    for table, chosen in zip(pairwise.tolist(), got.tolist(), strict=True):
        totals = {}
        for order in permutations(range(k)):
            total = 0.0
            for j, i in enumerate(order):
                total += table[i][j]
            totals[order] = total
        best = (max if maximise else min)(totals.values())
        assert tuple(chosen) == min(order for order, total in totals.items() if total == best)


@pytest.mark.parametrize("k", range(1, 9))
def test_a_hidden_order_is_found(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    order = torch.rand(20, k, generator=generator).argsort(1)
    pairwise = torch.rand(20, k, k, generator=generator)
    pairwise.scatter_(1, order.unsqueeze(1), 10.0)
    assert torch.equal(best_assignment(pairwise), order)
    assert torch.equal(best_assignment(-pairwise, maximise=False), order)
    assert torch.equal(matched(pairwise, order), torch.full((20, k), 10.0))


@pytest.mark.parametrize("k", [3, 6])
def test_the_assignment_of_an_example_does_not_depend_on_the_batch(k: int) -> None:
    pairwise = torch.rand(50, k, k, generator=torch.Generator().manual_seed(1))
    whole = best_assignment(pairwise)
    assert torch.equal(whole, torch.cat([best_assignment(pairwise[b : b + 1]) for b in range(50)]))


@pytest.mark.parametrize("k", [1, 2, 4, 7])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_undefined_scores_give_the_identity_and_leave_the_others_alone(k: int, bad: float) -> None:
    pairwise = torch.rand(3, k, k, generator=torch.Generator().manual_seed(2))
    expected = best_assignment(pairwise)
    pairwise[1, 0, k - 1] = bad
    got = best_assignment(pairwise)
    assert got[1].tolist() == list(range(k))
    assert torch.equal(got[[0, 2]], expected[[0, 2]])


def test_empty_batch() -> None:
    for k in (2, 6):
        assert best_assignment(torch.zeros(0, k, k)).shape == (0, k)


def test_more_than_eight_sources_are_refused() -> None:
    with pytest.raises(SuiteError, match="at most 8 sources"):
        best_assignment(torch.zeros(1, 9, 9))


@pytest.mark.parametrize("wrong", [torch.zeros(2, 3, 4), torch.zeros(3, 3), torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(1, 0, 0)])
def test_wrong_shapes_are_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="pairwise scores"):
        best_assignment(wrong)
