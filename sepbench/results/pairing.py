"""Two sides on the same examples, for a comparison mixture by mixture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sepbench.results.statistics import Designs, PairedDifference, paired_difference
from sepbench.results.values import MetricValues, without_spread

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """The examples that both sides scored.

    Attributes:
        examples: ``(n,)`` their ids, ascending.
        a, b: ``(n,)`` values, in the metric's unit.
        pooled: of a pooled metric, or of one of sets, whichever side knows it.
        spread: how such values were made, see ``MetricValues.spread``.
    """

    examples: npt.NDArray[np.int64]
    a: Floats
    b: Floats
    pooled: bool = False
    spread: str = ""


def pair_up(a: MetricValues, b: MetricValues) -> Pairs:
    """Match two sides by example; examples that either side lacks or failed on are left out.

    No pair is left where a side has the value of a larger set only, and nothing to make that of these examples of.
    """
    if np.array_equal(a.examples, b.examples):
        examples, rows_a = a.examples, np.arange(len(a))
        rows_b = rows_a
    else:
        examples, rows_a, rows_b = np.intersect1d(a.examples, b.examples, assume_unique=True, return_indices=True)
    both = a.scored[rows_a] & b.scored[rows_b]
    if not (a.serves(rows_a, both) and b.serves(rows_b, both)):
        both = np.zeros_like(both)
    return Pairs(examples[both], a.among(rows_a, both), b.among(rows_b, both), a.of_a_set or b.of_a_set, a.spread or b.spread)


def difference(pairs: Pairs, designs: Designs) -> PairedDifference:
    """The paired difference a - b, with an interval that knows which examples share clusters."""
    found = paired_difference(pairs.a, pairs.b, pairs.examples, designs)
    if not pairs.pooled:
        return found
    interval = f"{found.interval}, {pairs.spread}" if pairs.spread else found.interval
    found = replace(found, interval=interval, share_a_higher=np.nan, share_b_higher=np.nan)  # no single example is better or worse
    if without_spread(pairs.a) or without_spread(pairs.b):
        return replace(found, ci_low=np.nan, ci_high=np.nan, p_lower=1.0, p_higher=1.0)
    return found
