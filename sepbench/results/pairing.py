"""Two sides on the same examples: what is compared mixture by mixture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sepbench.results.statistics import Designs, PairedDifference, paired_difference
from sepbench.results.values import MetricValues

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Values ``a, b`` ``(n,)`` of the ``examples`` ``(n,)`` that both sides scored, in the order of their ids."""

    examples: npt.NDArray[np.int64]
    a: Floats
    b: Floats


def pair_up(a: MetricValues, b: MetricValues) -> Pairs:
    """Match two sides by example; examples that either side lacks or failed on are left out."""
    if np.array_equal(a.examples, b.examples):
        examples, values_a, values_b = a.examples, a.values, b.values
    else:
        examples, rows_a, rows_b = np.intersect1d(a.examples, b.examples, assume_unique=True, return_indices=True)
        values_a, values_b = a.values[rows_a], b.values[rows_b]
    both = np.isfinite(values_a) & np.isfinite(values_b)
    return Pairs(examples[both], values_a[both], values_b[both])


def difference(pairs: Pairs, designs: Designs) -> PairedDifference:
    """The paired difference a - b, with an interval that knows which examples share clusters."""
    return paired_difference(pairs.a, pairs.b, pairs.examples, designs)
