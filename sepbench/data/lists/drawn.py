"""Pair lists in which no mixture occurs twice, of signals that may not be mixed with each other at will.

Candidates are drawn one after the other, every slot uniformly from its pool; those that are not allowed, or were there before, are passed over. A list is
therefore the beginning of every longer list of the same name and pools, and all allowed mixtures are equally likely.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sepbench.data.lists.builders import Draws

Integers = npt.NDArray[np.int64]

_FEWEST, _MOST = 64, 1 << 16  # candidates drawn at once; how many decides nothing


@dataclass(frozen=True, slots=True, eq=False)
class DrawPool:
    """What a slot is drawn from.

    Attributes:
        rows: ``(n,)`` the signals.
        groups: ``(n,)`` their files; a class-agnostic mixture never holds two signals of one.
        sounding: ``(n,)`` bits; the signals of a mixture have one in common. Of images all are 1.
    """

    rows: Integers
    groups: Integers
    sounding: Integers


def count_mixtures(pools: Sequence[DrawPool]) -> int:
    """How many mixtures of one signal of every pool there are."""
    found = Counter({-1: 1})  # -1: all bits
    for pool in pools:
        bits = Counter(pool.sounding.tolist())
        joined = Counter[int]()
        for so_far, n in found.items():
            for mask, m in bits.items():
                joined[so_far & mask] += n * m
        found = joined
    return sum(n for mask, n in found.items() if mask)


def count_sets(pool: DrawPool, n_sources: int) -> int:
    """How many sets of signals of so many different groups of one pool there are."""
    found = Counter({(0, -1): 1})
    for group in np.unique(pool.groups):
        bits = Counter(pool.sounding[pool.groups == group].tolist())
        for (size, so_far), n in list(found.items()):
            if size < n_sources:
                for mask, m in bits.items():
                    found[size + 1, so_far & mask] += n * m
    return sum(n for (size, mask), n in found.items() if size == n_sources and mask)


def draw_mixtures(draws: Draws, pools: Sequence[DrawPool], count: int) -> Integers:
    """``(count, K)`` rows: one signal of every pool, no mixture twice.

    Raises:
        ValueError: there are fewer mixtures.
    """
    if count > count_mixtures(pools):
        raise ValueError(f"{count} mixtures of pools that make {count_mixtures(pools)}")
    return _drawn(draws, pools, count, agnostic=False)


def draw_sets(draws: Draws, pool: DrawPool, n_sources: int, count: int) -> Integers:
    """``(count, K)`` rows of one pool: never two of one group, no mixture twice, in whatever order.

    Raises:
        ValueError: there are fewer mixtures.
    """
    if count > count_sets(pool, n_sources):
        raise ValueError(f"{count} mixtures of a pool that makes {count_sets(pool, n_sources)}")
    return _drawn(draws, [pool] * n_sources, count, agnostic=True)


def _drawn(draws: Draws, pools: Sequence[DrawPool], count: int, agnostic: bool) -> Integers:
    kept = list[list[int]]()
    seen = set[tuple[int, ...]]()
    start = 0
    while len(kept) < count:
        examples = np.arange(start, start + min(max(_FEWEST, 2 * (count - len(kept))), _MOST))
        start += len(examples)
        picks = np.stack([draws.integers(len(pool.rows), examples, slot) for slot, pool in enumerate(pools)], axis=1)
        allowed = np.bitwise_and.reduce([pool.sounding[picks[:, slot]] for slot, pool in enumerate(pools)]) != 0
        if agnostic:
            groups = np.sort(pools[0].groups[picks], axis=1)
            allowed &= (groups[:, 1:] != groups[:, :-1]).all(axis=1)
        rows = np.stack([pool.rows[picks[:, slot]] for slot, pool in enumerate(pools)], axis=1)
        for row in rows[allowed].tolist():
            key = tuple(sorted(row)) if agnostic else tuple(row)
            if key not in seen:
                seen.add(key)
                kept.append(row)
    return np.array(kept[:count], dtype=np.int64).reshape(count, len(pools))
