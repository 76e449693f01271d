"""Random numbers of a song, keyed by text: one ``Dice`` per song and topic, so that a change to the drums never re-rolls the bass."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from sepbench.noise import NoiseSource

Array = npt.NDArray[np.float64]
T = TypeVar("T")

# Words fetched at a time, for numbers one by one and for noise: a call of the generator costs as much as some thousand words.
_FEW, _MANY = 512, 16_384
_SINGLE, _NOISE = 0, 1  # sources of the generator


class Dice:
    """Philox words (``sepbench.noise``) in the order they are asked for; the same key gives the same numbers on every machine.

    Args:
        key: any text; other text, other numbers.
    """

    def __init__(self, key: str) -> None:
        self._noise = NoiseSource(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
        self._numbers: list[int] = []
        self._noises = np.zeros(0)
        self._numbers_drawn = self._noises_drawn = 0  # blocks

    def _words(self, source: int, step: int, count: int) -> npt.NDArray[np.int64]:
        words: npt.NDArray[np.int64] = self._noise.words(torch.zeros(1, dtype=torch.int64), step, source, count).numpy()[0, :count]
        return words

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high), one of 2**32."""
        if not self._numbers:
            self._numbers = self._words(_SINGLE, self._numbers_drawn, _FEW).tolist()[::-1]
            self._numbers_drawn += 1
        return low + (high - low) * (self._numbers.pop() * 2.0**-32)

    def around(self, spread: float) -> float:
        """A number in (-spread, spread) with a triangular density: small deviations are likelier, as with people."""
        return (self.uniform() - self.uniform()) * spread

    def flip(self, probability: float) -> bool:
        """True with this probability."""
        return self.uniform() < probability

    def pick(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of the options; all equally likely without weights (which need not add up to 1).

        Raises:
            ValueError: nothing to pick from, or as many weights as there are not options.
        """
        if not options or (weights is not None and len(weights) != len(options)):
            raise ValueError(f"{len(options)} options and {'no' if weights is None else len(weights)} weights")
        if weights is None:
            return options[int(self.uniform() * len(options))]
        left = self.uniform() * sum(weights)
        for option, weight in zip(options, weights, strict=True):
            left -= weight
            if left < 0:
                return option
        return options[-1]

    def noise(self, count: int) -> Array:
        """White noise ``(count,)``, uniform in [-1, 1): no logarithm or cosine, whose last bits would differ between machines."""
        while len(self._noises) < count:
            words = self._words(_NOISE, self._noises_drawn, _MANY)
            self._noises = np.concatenate([self._noises, words * 2.0**-31 - 1.0])
            self._noises_drawn += 1
        handed, self._noises = self._noises[:count], self._noises[count:]
        return handed
