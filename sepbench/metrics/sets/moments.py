"""Mean and covariance of features, in float64, added up part by part: the memory does not grow with the number of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Stream = Callable[[], Iterator[npt.NDArray[np.floating]]]
"""Features of a set, asked for as often as needed: parts ``(b, F)``, in the same order of images every time."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Moments of n feature vectors.

    Attributes:
        count: n.
        mean: ``(F,)``; zeros if n = 0.
        scatter: ``(F, F)`` sum of the outer products of the deviations from the mean.
    """

    count: int
    mean: Array
    scatter: Array

    @classmethod
    def of(cls, features: npt.NDArray[np.floating]) -> Moments:
        """Those of ``(n, F)`` features."""
        rows = np.asarray(features, np.float64)
        mean = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1])
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred)

    def __add__(self, other: Moments) -> Moments:
        """Those of both sets together (Chan, Golub and LeVeque 1983, eq. 2.1)."""
        count = self.count + other.count
        if not count:
            return self
        step = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(step, step) * (self.count * other.count / count)
        return Moments(count, self.mean + step * (other.count / count), scatter)

    @property
    def covariance(self) -> Array:
        """``(F, F)``, with n - 1; NaN below two vectors."""
        return self.scatter / (self.count - 1) if self.count > 1 else np.full_like(self.scatter, np.nan)


def moments_of(parts: Iterable[npt.NDArray[np.floating]]) -> Moments:
    """The moments of all parts ``(b, F)``.

    Raises:
        ValueError: there is no part.
    """
    total: Moments | None = None
    for part in parts:
        total = Moments.of(part) if total is None else total + Moments.of(part)
    if total is None:
        raise ValueError("there are no features")
    return total


def rebatched(parts: Iterable[npt.NDArray[np.floating]], size: int) -> Iterator[npt.NDArray[np.floating]]:
    """The same rows in parts of ``size``; the last may be smaller."""
    waiting: list[npt.NDArray[np.floating]] = []
    count = 0
    for part in parts:
        waiting.append(part)
        count += len(part)
        if count >= size:
            rows = np.concatenate(waiting)
            whole = count - count % size
            yield from (rows[start : start + size] for start in range(0, whole, size))
            waiting, count = [rows[whole:]], count - whole
    if count:
        yield np.concatenate(waiting)
