"""Reduction of per-example values: mean, spread and cluster-robust intervals of one method, and of the difference of two on the same examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sepbench.data.lists.clusters import INDEPENDENT, Clusters
from sepbench.results.intervals import Design
from sepbench.results.repeated import Moved, uncertainty

MIN_CLUSTERS = 10
"""Below so many clusters nothing is ranked and no verdict given: ``benchmarks/results/coverage.csv`` shows intervals of skewed values that hold the mean
in less than 93 % of worlds there."""

CLUSTER_T = "cluster t"
T_OF_MIXTURES = "t"
UNKNOWN = "t, clusters unknown"
"""How an interval was made: see ``intervals``; by the same formula over independent mixtures; or over mixtures for want of their keys."""

FLOAT_NOISE = 1e-6
"""A difference below this, times the values' size where that is above 1, is float32 rounding (another processor, another batch, scores that a
leaderboard keeps in float32), however consistent it is."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
_DESIGNS_KEPT = 4


@dataclass(frozen=True, slots=True)
class Summary:
    """One leaderboard row's statistics, in the metric's unit.

    Attributes:
        n: number of examples.
        mean, median: NaN if n = 0.
        std: sample standard deviation (``ddof=1``) over examples; NaN if n < 2.
        ci_low, ci_high: 95 % interval of the mean; NaN if fewer than two clusters say nothing about the spread.
        interval: how it was made.
        unit, n_clusters: what a cluster is, and how many there are in the slot that has fewest.
    """

    n: int
    mean: float
    std: float
    median: float
    ci_low: float
    ci_high: float
    interval: str = T_OF_MIXTURES
    unit: str = INDEPENDENT
    n_clusters: int = 0


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Mean of ``a - b`` over the same examples, in the metric's unit.

    Attributes:
        n: number of pairs.
        mean: NaN if n = 0.
        ci_low, ci_high: 95 % interval; NaN where fewer than two clusters, or the one window of a pooled metric, say nothing about the spread.
        p_lower, p_higher: one-sided p-values of a mean below and above zero (t test with the interval's variance and degrees of freedom); 1 if unknown.
        share_a_higher, share_b_higher: shares of pairs in [0, 1]; ties, ``FLOAT_NOISE`` included, belong to neither; NaN if n = 0.
        interval, unit, n_clusters: see ``Summary``.
    """

    n: int
    mean: float
    ci_low: float
    ci_high: float
    p_lower: float
    p_higher: float
    share_a_higher: float
    share_b_higher: float
    interval: str = T_OF_MIXTURES
    unit: str = INDEPENDENT
    n_clusters: int = 0

    @property
    def decidable(self) -> bool:
        """Whether there are enough clusters for a verdict, and an interval."""
        return self.n_clusters >= MIN_CLUSTERS and math.isfinite(self.ci_low)


class Designs:
    """The designs of a task's examples; those of the last few sets of examples are kept, for most columns of a task have the same.

    Args:
        clusters: of all mixtures of the task; None where they are not known: mixtures then stand for themselves.
    """

    def __init__(self, clusters: Clusters | None) -> None:
        self._clusters = clusters
        self.interval = UNKNOWN if clusters is None else T_OF_MIXTURES if clusters.unit == INDEPENDENT else CLUSTER_T
        self._design = lru_cache(_DESIGNS_KEPT)(self._made)

    def of(self, examples: Integers) -> Design:
        """The design of some examples ``(n,)``, by their ids.

        Raises:
            IndexError: an id that the task's list does not have.
        """
        return self._design(examples.tobytes())

    def _made(self, examples: bytes) -> Design:
        ids = np.frombuffer(examples, np.int64)
        return Design(Clusters(INDEPENDENT, ids[:, None]) if self._clusters is None else self._clusters.of(ids))


FindClusters = Callable[[str], Clusters | None]
"""The clusters of a task; None where they are not known."""


class TaskDesigns:
    """The designs of every task of a run or leaderboard."""

    def __init__(self, clusters: FindClusters) -> None:
        self.task = lru_cache(_DESIGNS_KEPT)(lambda task: Designs(clusters(task)))


def _finite(values: Floats) -> Floats:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"values must be (n,), got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("values must be finite; leave failed examples out first")
    return values


def summarise(values: Floats, examples: Integers, designs: Designs) -> Summary:
    """Statistics of the values ``(n,)`` of some examples ``(n,)``.

    Raises:
        ValueError: not one-dimensional, a value that is not finite, or as many examples as values are not there.
    """
    values = _finite(values)
    if values.shape != examples.shape:
        raise ValueError(f"values and examples must have one shape, got {values.shape} and {examples.shape}")
    n = len(values)
    if not n:
        return Summary(0, np.nan, np.nan, np.nan, np.nan, np.nan, designs.interval)
    design = designs.of(examples)
    low, high = design.intervals(values[:, None])[:, 0]
    std = float(values.std(ddof=1)) if n > 1 else np.nan
    mean, median = float(values.mean()), float(np.median(values))
    return Summary(n, mean, std, median, float(low), float(high), designs.interval, design.unit, design.n_clusters)


def paired_difference(a: Floats, b: Floats, examples: Integers, designs: Designs, moved: Sequence[Moved] = ()) -> PairedDifference:
    """Compare two methods, or two runs, on the same examples.

    Args:
        a, b: ``(n,)`` finite values of the ``examples`` ``(n,)``.
        moved: of sides that are means over repetitions: their variance is added to that over the examples (``repeated.uncertainty``).

    Raises:
        ValueError: shapes differ, are not ``(n,)``, or a value is not finite.
    """
    a, b = _finite(a), _finite(b)
    if not a.shape == b.shape == examples.shape:
        raise ValueError(f"a, b and examples must be (n,) alike, got {a.shape}, {b.shape} and {examples.shape}")
    n = len(a)
    if not n:
        return PairedDifference(0, np.nan, np.nan, np.nan, 1.0, 1.0, np.nan, np.nan, designs.interval)
    differences, design = a - b, designs.of(examples)
    low, high = design.intervals(differences[:, None])[:, 0]
    mean, error = float(differences.mean()), float(design.standard_errors(differences[:, None])[0])
    p_lower, p_higher = _p_values(mean, error, design)
    if moved:
        known = uncertainty(error, design.degrees, moved)
        low, high = mean - known.half_width, mean + known.half_width
        p_lower, p_higher = known.tail(mean), known.tail(-mean)
    tie = FLOAT_NOISE * np.maximum(1.0, np.maximum(np.abs(a), np.abs(b)))
    shares = (float((differences > tie).mean()), float((differences < -tie).mean()))
    return PairedDifference(n, mean, float(low), float(high), p_lower, p_higher, *shares, designs.interval, design.unit, design.n_clusters)


def _p_values(mean: float, standard_error: float, design: Design) -> tuple[float, float]:
    """One-sided: of a true mean below zero, and of one above."""
    if not np.isfinite(standard_error):
        return 1.0, 1.0
    if standard_error == 0:  # every pair differs by the same
        return (1.0, 1.0) if mean == 0 else (0.0, 1.0) if mean < 0 else (1.0, 0.0)
    statistic = np.array([mean, -mean]) / standard_error
    lower, higher = design.tail(statistic)
    return float(lower), float(higher)


def holm(p_values: Floats) -> Floats:
    """Adjusted p-values ``(m,)`` of Holm (1979). Reject those below a level: any false rejection is then at most that likely, however they depend.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.size and not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values must be in [0, 1]")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted
