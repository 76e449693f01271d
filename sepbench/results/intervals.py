"""Intervals and tests of means over mixtures that share songs, images or recordings.

Two mixtures are dependent if they have a cluster in common in any slot. With deviations ``e_i = y_i - mean(y)`` the variance of the mean is::

    V = 1 / (1 - f) / n^2 * sum over all (i, j) that share a cluster of e_i e_j

One slot (or one song for all slots): the cluster-robust variance of Liang and Zeger (1986). Two slots with pools of their own: two-way clustering
(Cameron, Gelbach and Miller 2011). Two slots with one pool: the dyadic variance (Fafchamps and Gubert 2007). No cluster in common: ``s^2 / n``.
``f`` is the share of all pairs (i, j) that have a cluster in common: deviations from the sample's own mean are too small by so much. For one slot of equal
clusters ``1 / (1 - f)`` is the usual ``G / (G - 1)``, for independent mixtures ``n / (n - 1)``.
The sum is made by inclusion and exclusion over the sets of keys that mixtures have in common, so its cost is linear in n. With few clusters the sum
of several slots comes out too small by chance, even negative; it is never taken below that of any slot alone (MacKinnon, Nielsen and Webb 2021).

Intervals are ``mean +- t sqrt(V)`` with ``G - 1`` degrees of freedom. ``G`` is Kish's effective number of clusters, ``(sum n_g)^2 / sum n_g^2`` with n_g
mixtures in cluster g, in the slot where it is least: the plain number where all clusters are equally large. ``benchmarks/coverage.py`` chose this interval
among percentile bootstraps, one-way and multi-way variances, and normal or t quantiles, by simulation with the project's own lists.

Shares in [0, 1] have intervals of their own, see ``Design.share_interval``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy import special

from sepbench.data.lists.clusters import Clusters

LEVEL = 0.95
_ROUNDING = 1e-9
_FEWEST = 1.0
"""Degrees of freedom below which nothing is printed: the quantile of t grows beyond all use."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """The sets of s keys that mixtures have in common: row ``examples[r]`` holds set ``codes[r]``; ``sign`` is + for odd s."""

    sign: int
    examples: Integers
    codes: Integers
    n_codes: int

    def square_sums(self, deviations: Floats) -> Floats:
        """``(n, m)`` -> ``(m,)``: the signed sum over the sets of the squared sum of their mixtures' deviations."""
        if self.n_codes == len(self.examples):  # no set occurs twice
            return np.asarray(self.sign * np.square(deviations[self.examples]).sum(axis=0))
        sums = (np.bincount(self.codes, weights=column[self.examples], minlength=self.n_codes) for column in deviations.T)
        return self.sign * np.array([float(np.square(of_column).sum()) for of_column in sums])


class Design:
    """Which of n mixtures share clusters: made once, used for every column of values over them.

    Args:
        clusters: of these n mixtures.

    Attributes:
        n: mixtures.
        n_clusters: distinct clusters in the slot that has fewest.
        effective: ``G``, see the top of this file; 0 without mixtures.
        apart: ``1 - f``, the share of pairs of mixtures without a common cluster.
    """

    def __init__(self, clusters: Clusters) -> None:
        self.n = len(clusters)
        self.unit = clusters.unit
        sizes = [np.unique(column, return_counts=True)[1] for column in clusters.keys.T] if self.n else []
        self.n_clusters = min((len(counts) for counts in sizes), default=0)
        self.effective = min((self.n**2 / float(np.square(counts.astype(np.float64)).sum()) for counts in sizes), default=0.0)
        self.shared = tuple(_shared(clusters.keys)) if self.n else ()
        self.apart = 1.0 - sum(float(shared.square_sums(np.ones((self.n, 1)))[0]) for shared in self.shared) / max(self.n, 1) ** 2
        self.slots = tuple(next(_shared(column[:, None])) for column in clusters.keys.T) if self.n and clusters.keys.shape[1] > 1 else self.shared

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the t distribution; 0 or less if nothing can be said."""
        return self.effective - 1.0

    @property
    def knows_spread(self) -> bool:
        """Whether there are clusters enough, two effective ones, to tell a spread from."""
        return self.n >= 2 and self.degrees >= _FEWEST - _ROUNDING and self.apart >= _ROUNDING

    def standard_errors(self, values: Floats) -> Floats:
        """Of the means of the columns of ``values`` ``(n, m)``; NaN where fewer than two effective clusters leave them unknown."""
        if not self.knows_spread:
            return np.full(values.shape[1], np.nan)
        deviations = values - values.mean(axis=0)
        total = np.zeros(values.shape[1])
        for shared in self.shared:
            total += shared.square_sums(deviations)
        for slot in self.slots:
            total = np.maximum(total, slot.square_sums(deviations))
        own = np.square(deviations).sum(axis=0)
        total = np.where(total > _ROUNDING * own, total, own)  # what cancels but for rounding says nothing: the mixtures' own squares count
        return np.asarray(np.sqrt(total / self.apart)) / self.n

    def intervals(self, values: Floats, level: float = LEVEL) -> Floats:
        """Intervals of the means of the columns: ``(2, m)``, lower and upper ends; NaN where nothing can be said.

        Raises:
            ValueError: a level outside (0, 1).
        """
        _check_level(level)
        half = self.quantile((1 + level) / 2) * self.standard_errors(values)
        mean = values.mean(axis=0) if self.n else np.full(values.shape[1], np.nan)
        return np.stack([mean - half, mean + half])

    def share_interval(self, values: Floats, level: float = LEVEL) -> tuple[float, float]:
        """Interval of the mean p of values ``(n,)`` in [0, 1] that are 0 or 1 (or between, as ties are); it stays inside [0, 1].

        Korn and Graubard (1998): the exact binomial interval of Clopper and Pearson (1934), of p n* successes among n* trials, where::

            n* = n / D * (t_{n-1} / t_{G-1})^2,  D = V / (p (1 - p) / (n - 1))

        V is the variance at the top of this file. D is the design effect of Kish (1965), here never below 1. Independent mixtures have n* = n. The
        quantiles of t allow for a variance that is known from G clusters only. Where all values are equal V is 0 and says nothing of the
        clusters: n* is then G, as if mixtures of one cluster always agreed.

        Returns:
            Lower and upper end; NaN where ``standard_errors`` is.

        Raises:
            ValueError: a level outside (0, 1).
        """
        _check_level(level)
        error = float(self.standard_errors(values[:, None])[0])
        if not np.isfinite(error):
            return float("nan"), float("nan")
        p, upper = float(values.mean()), (1 + level) / 2
        trials = self.effective
        if error > 0:
            effect = error**2 / (p * (1 - p) / (self.n - 1))
            trials = self.n / max(effect, 1.0) * (t_quantile(self.n - 1, upper) / self.quantile(upper)) ** 2
        low = special.betaincinv(p * trials, (1 - p) * trials + 1, 1 - upper) if p > 0 else 0.0
        high = special.betaincinv(p * trials + 1, (1 - p) * trials, upper) if p < 1 else 1.0
        return float(low), float(high)

    def quantile(self, probability: float) -> float:
        """Of the t distribution with ``degrees``; NaN if there are none."""
        return t_quantile(self.degrees, probability)

    def tail(self, statistic: Floats) -> Floats:
        """P(T <= statistic) of the t distribution with ``degrees``: the one-sided p-value of a decrease. NaN stays NaN."""
        return np.asarray(special.stdtr(max(self.degrees, _ROUNDING), statistic))


def t_quantile(degrees: float, probability: float) -> float:
    """Of the t distribution; NaN without degrees of freedom."""
    return float(special.stdtrit(degrees, probability)) if degrees > _ROUNDING else float("nan")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")


def _shared(keys: Integers) -> Iterator[Shared]:
    """For s = 1 to K all sets of s keys, with the mixtures that hold each."""
    keys = np.sort(keys, axis=1)
    repeated = np.zeros(keys.shape, np.bool_)
    repeated[:, 1:] = keys[:, 1:] == keys[:, :-1]  # one song in two slots counts once
    for size in range(1, keys.shape[1] + 1):
        examples, sets = [], []
        for slots in combinations(range(keys.shape[1]), size):
            (rows,) = np.nonzero(~repeated[:, slots].any(axis=1))
            examples.append(rows)
            sets.append(keys[rows][:, slots])
        found = np.concatenate(sets)
        if len(found):
            codes = _codes(found)
            yield Shared(1 if size % 2 else -1, np.concatenate(examples).astype(np.int64), codes, int(codes.max()) + 1)


def _codes(sets: Integers) -> Integers:
    """``(r, s)`` sorted keys -> ``(r,)`` a number per distinct row."""
    codes = np.unique(sets[:, 0], return_inverse=True)[1].astype(np.int64)
    for column in sets.T[1:]:
        numbers = np.unique(column, return_inverse=True)[1].astype(np.int64)
        codes = np.unique(codes * (int(numbers.max()) + 1) + numbers, return_inverse=True)[1].astype(np.int64)
    return codes.reshape(-1)
