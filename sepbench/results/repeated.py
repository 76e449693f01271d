"""Values of a cell that was repeated with other seeds or fits: each mixture's mean over the repetitions, and how far a mean moves with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import special

from sepbench.results.intervals import LEVEL

if TYPE_CHECKING:
    from sepbench.results.values import MetricValues

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Moved:
    """How the mean of a cell over mixtures moves from one repetition to the next.

    Attributes:
        kind: ``seeds`` or ``fits``.
        count: repetitions S, the run itself included; at least 2.
        between: standard deviation (ddof = 1) of their means, in the metric's unit.
        seeds, means: of each repetition, where they are known.
    """

    kind: str
    count: int
    between: float
    seeds: Sequence[int] = ()
    means: Sequence[float] = ()

    @property
    def variance(self) -> float:
        """What they add to the variance of the mean over all of them."""
        return self.between**2 / self.count

    @property
    def degrees(self) -> int:
        """Degrees of freedom of ``variance``."""
        return self.count - 1


def moved_by(kind: str, seeds: Sequence[int], means: Sequence[float]) -> Moved:
    """How these means of repetitions move."""
    return Moved(kind, len(means), float(np.std(means, ddof=1)), tuple(seeds), tuple(means))


def moved_apart(a: Moved | None, b: Moved | None) -> tuple[Moved, ...]:
    """How the difference of two means moves with the repetitions of both sides, as independent parts.

    Repetitions of the same seeds are paired: what a seed does to both sides is no doubt about their difference.
    """
    if a is not None and b is not None and a.means and (a.kind, a.seeds) == (b.kind, b.seeds):
        return (moved_by(a.kind, a.seeds, [of_a - of_b for of_a, of_b in zip(a.means, b.means, strict=True)]),)
    return tuple(side for side in (a, b) if side is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Repetitions:
    """The values that a mean over repetitions is made of.

    Attributes:
        kind, seeds: see ``Moved``.
        own: of the run itself.
        others: of its repetitions, which have scored every example that the run itself has scored.
    """

    kind: str
    seeds: Sequence[int]
    own: MetricValues
    others: Sequence[MetricValues]

    def taken(self, rows: Integers, chosen: Bools) -> tuple[Floats, Moved | None]:
        """The means over the repetitions of ``rows[chosen]``, see ``MetricValues.among``, and how far their mean moves; None without examples."""
        wanted = self.own.examples[rows[chosen]]
        every = np.ones(len(wanted), np.bool_)
        values = [self.own.among(rows, chosen), *(other.among(np.searchsorted(other.examples, wanted), every) for other in self.others)]
        return np.mean(values, axis=0), moved_by(self.kind, self.seeds, [float(of_one.mean()) for of_one in values]) if len(wanted) else None


def averaged(repetitions: Repetitions) -> MetricValues:
    """The values of a repeated cell; examples that the run itself has not scored have none."""
    own = repetitions.own
    values = np.full(len(own), np.nan)
    values[own.scored] = repetitions.taken(np.arange(len(own)), own.scored)[0]
    return replace(own, values=values, repetitions=repetitions)


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """Variance of a mean over mixtures and repetitions, and its degrees of freedom; NaN if that over mixtures is unknown."""

    variance: float
    degrees: float

    @property
    def error(self) -> float:
        """Standard error."""
        return float(np.sqrt(self.variance))

    @property
    def half_width(self) -> float:
        """Of the 95 % interval; NaN if the variance is unknown."""
        return float(special.stdtrit(self.degrees, (1 + LEVEL) / 2)) * self.error if self.variance else 0.0

    def tail(self, mean: float) -> float:
        """P(T <= mean / error): the one-sided p-value of a decrease; 1 if the variance is unknown or nothing moves."""
        if not self.variance:
            return 0.0 if mean < 0 else 1.0
        return float(special.stdtr(self.degrees, mean / self.error)) if np.isfinite(self.variance) else 1.0


def uncertainty(standard_error: float, degrees: float, moved: Sequence[Moved]) -> Uncertainty:
    """Variance over mixtures and that of repetitions together; degrees of freedom of Satterthwaite (1946), (sum v)^2 / sum(v^2 / degrees)."""
    if not np.isfinite(standard_error):
        return Uncertainty(np.nan, np.nan)
    parts = [(standard_error**2, degrees), *((one.variance, float(one.degrees)) for one in moved)]
    total = sum(variance for variance, _ in parts)
    weighed = sum(variance**2 / of for variance, of in parts if variance)
    return Uncertainty(total, total**2 / weighed if weighed else degrees)
