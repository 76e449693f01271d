"""Two sides on the same examples, for a comparison mixture by mixture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sepbench.results.repeated import Moved, moved_apart
from sepbench.results.statistics import Designs, PairedDifference, paired_difference
from sepbench.results.values import MetricValues, without_spread

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pairs:
    """The examples that both sides scored.

    Attributes:
        examples: ``(n,)`` their ids, ascending.
        a, b: ``(n,)`` values, in the metric's unit.
        pooled: of a pooled metric, or of one of sets, whichever side knows it.
        spread: how such values were made, see ``MetricValues.spread``.
        moved: how far the difference of the means moves with the repetitions of sides that were repeated.
        bare: the sides, ``a`` or ``b``, whose values cannot be made anew of the common examples; then no example is left.
    """

    examples: npt.NDArray[np.int64]
    a: Floats
    b: Floats
    pooled: bool = False
    spread: str = ""
    moved: tuple[Moved, ...] = ()
    bare: tuple[str, ...] = ()


def pair_up(a: MetricValues, b: MetricValues) -> Pairs:
    """Match two sides by example; examples that either side lacks or failed on are left out.

    No pair is left where a side has the value of a larger set only, and nothing to make that of these examples of.
    """
    examples, rows_a, rows_b, both = _matched(a, b)
    bare = _bare(a, b, rows_a, rows_b, both)
    if bare:
        both = np.zeros_like(both)
    (values_a, moved_a), (values_b, moved_b) = a.taken(rows_a, both), b.taken(rows_b, both)
    return Pairs(examples[both], values_a, values_b, a.of_a_set or b.of_a_set, a.spread or b.spread, moved_apart(moved_a, moved_b), bare)


def bare_sides(a: MetricValues, b: MetricValues) -> tuple[str, ...]:
    """``Pairs.bare`` of two sides, without pooling anything."""
    return _bare(a, b, *_matched(a, b)[1:]) if a.whole_only or b.whole_only else ()


def no_parts(metric: str, sides: Sequence[str]) -> str:
    """Why there is no pair where these sides (in the reader's words) are bare, and what to do."""
    named = " and ".join(sides)
    return f"the committed scores of {named} hold no parts of {metric}; " + (f"compare with a run of {named}" if len(sides) == 1 else "compare two runs")


def _matched(a: MetricValues, b: MetricValues) -> tuple[Integers, Integers, Integers, Bools]:
    """The examples that both sides have, where each has them, and which of them both scored."""
    if np.array_equal(a.examples, b.examples):
        examples, rows_a = a.examples, np.arange(len(a))
        rows_b = rows_a
    else:
        examples, rows_a, rows_b = np.intersect1d(a.examples, b.examples, assume_unique=True, return_indices=True)
    return examples, rows_a, rows_b, a.scored[rows_a] & b.scored[rows_b]


def _bare(a: MetricValues, b: MetricValues, rows_a: Integers, rows_b: Integers, both: Bools) -> tuple[str, ...]:
    if not both.any():  # nothing in common: no side is to blame
        return ()
    return ("a",) * (not a.serves(rows_a, both)) + ("b",) * (not b.serves(rows_b, both))


def difference(pairs: Pairs, designs: Designs) -> PairedDifference:
    """The paired difference a - b, with an interval that knows which examples share clusters, and how far either side moves with its repetitions."""
    found = paired_difference(pairs.a, pairs.b, pairs.examples, designs, pairs.moved)
    interval = ", ".join(filter(None, (found.interval, pairs.spread)))
    found = replace(found, interval=" and ".join(dict.fromkeys([interval, *(moved.kind for moved in pairs.moved)])))
    if not pairs.pooled:
        return found
    found = replace(found, share_a_higher=np.nan, share_b_higher=np.nan)  # no single example is better or worse
    if without_spread(pairs.a) or without_spread(pairs.b):
        return replace(found, ci_low=np.nan, ci_high=np.nan, p_lower=1.0, p_higher=1.0)
    return found
