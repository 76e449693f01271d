"""The features of a set of images as metrics see them, and those of the images that the set is held against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sepbench.metrics.sets.frechet import FrechetReference
from sepbench.metrics.sets.moments import Array, Stream


@dataclass(frozen=True, slots=True, eq=False)
class SetFeatures:
    """The features of n images: all scored sources of all scored mixtures, mixture by mixture in the order of the frozen list.

    Attributes:
        count: n.
        features: parts ``(b, F)``.
        logits: parts ``(b, classes)``.
        order: ``(n,)`` a number per image that follows from its mixture's number alone and says which of them make a smaller set.
    """

    count: int
    features: Stream
    logits: Stream
    order: Array


@dataclass(frozen=True, slots=True, eq=False)
class SetReference:
    """The features of the reference images.

    Attributes:
        frechet: their moments.
        features: ``(r, F)`` float32, in the order of the data sets.
    """

    frechet: FrechetReference
    features: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SetValue:
    """What a set metric gives.

    Attributes:
        values: ``(n,)``, a value per image: their mean is the value of the set, their deviations from it the influence of each image. NaN for
            images that do not enter; all NaN where the set has no value.
        std: the standard deviation that is published beside such values (over splits, over blocks); NaN if there is none.
    """

    values: Array
    std: float = float("nan")


def order_of(examples: npt.NDArray[np.int64]) -> Array:
    """Numbers in [0, 1) that look random and follow from the examples' numbers alone (finaliser of SplitMix64; Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        z = examples.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return np.asarray((z >> np.uint64(11)).astype(np.float64) * 2.0**-53)
