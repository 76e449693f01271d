"""Lists without repetition: only allowed mixtures, each once, all reached; longer lists begin with shorter ones."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbench.data.lists.builders import Draws
from sepbench.data.lists.drawn import DrawPool, count_mixtures, count_sets, draw_mixtures, draw_sets

POOLS = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 7)), min_size=1, max_size=5)
"""Per signal its group and its sounding bits."""


def pool(signals: list[tuple[int, int]], first: int = 0) -> DrawPool:
    groups, bits = np.array(signals, dtype=np.int64).T
    return DrawPool(np.arange(first, first + len(signals)), groups, bits)


@settings(deadline=None, max_examples=40)
@given(st.lists(POOLS, min_size=2, max_size=3))
def test_all_mixtures_of_different_pools_are_reached_once(signals: list[list[tuple[int, int]]]) -> None:
    pools = [pool(of, 100 * slot) for slot, of in enumerate(signals)]
    allowed = {
        tuple(100 * slot + row for slot, row in enumerate(rows))
        for rows in product(*(range(len(of)) for of in signals))
        if np.bitwise_and.reduce([of[row][1] for of, row in zip(signals, rows, strict=True)])
    }
    assert count_mixtures(pools) == len(allowed)
    found = draw_mixtures(Draws("x"), pools, len(allowed)).tolist()
    assert {tuple(row) for row in found} == allowed
    assert len(found) == len(allowed)
    for count in {0, len(allowed) // 3, max(0, len(allowed) - 1)}:
        assert draw_mixtures(Draws("x"), pools, count).tolist() == found[:count]
    with pytest.raises(ValueError, match="mixtures of pools that make"):
        draw_mixtures(Draws("x"), pools, len(allowed) + 1)


@settings(deadline=None, max_examples=40)
@given(POOLS, st.integers(2, 3))
def test_all_sets_of_one_pool_are_reached_once(signals: list[tuple[int, int]], n_sources: int) -> None:
    one = pool(signals)
    allowed = {
        rows
        for rows in combinations(range(len(signals)), n_sources)
        if len({signals[row][0] for row in rows}) == n_sources and np.bitwise_and.reduce([signals[row][1] for row in rows])
    }
    assert count_sets(one, n_sources) == len(allowed)
    found = draw_sets(Draws("x"), one, n_sources, len(allowed)).tolist()
    assert sorted(tuple(sorted(row)) for row in found) == sorted(allowed)
    for count in {0, len(allowed) // 3, max(0, len(allowed) - 1)}:
        assert draw_sets(Draws("x"), one, n_sources, count).tolist() == found[:count]
    with pytest.raises(ValueError, match="mixtures of a pool that makes"):
        draw_sets(Draws("x"), one, n_sources, len(allowed) + 1)


def test_either_source_comes_first() -> None:
    found = draw_sets(Draws("x"), pool([(n, 1) for n in range(20)]), 2, 100)
    assert 20 < (found[:, 0] < found[:, 1]).sum() < 80
