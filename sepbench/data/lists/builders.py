"""The seeded builders behind every frozen pair list. Run once by ``scripts/build_pairs.py``; a test runs them again and compares bytes.

Randomness is Philox4x32-10 (``sepbench.noise``) turned into integers here, so a list never depends on a library's random stream. The
one exception is LASS' permutation, which its authors drew with ``numpy.random.default_rng(100)``; for it the frozen file is what counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sepbench.noise import NoiseSource
from sepbench.protocols import SignalSet
from sepbench.torch_later import torch

Labels = Callable[[str, str], np.ndarray]
"""``labels(dataset, split)``: class numbers ``(N,)`` of a split, in the data set's order."""

Signals = Callable[[str, str], SignalSet]
"""``signals(dataset, split)``: a split, for lists whose gains follow from the signals' levels."""

_CHUNK = 256  # signals loaded at a time
_ATTEMPTS = 16  # words per number; all of them are refused with probability below (N / 2**32)**16


@dataclass(frozen=True, slots=True)
class Draws:
    """Integers of one list. Everything is a function of the list's name, the example, the slot and the attempt."""

    name: str

    @property
    def noise(self) -> NoiseSource:
        return NoiseSource(int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "big"))

    def integers(self, bound: int, examples: np.ndarray, slot: int, attempt: int = 0) -> np.ndarray:
        """Unbiased integers in [0, bound), one per example, by multiplication and rejection (Lemire 2019, algorithm 5, on 32-bit words).

        Raises:
            ValueError: bound outside [1, 2**32).
        """
        if not 1 <= bound < 2**32:
            raise ValueError(f"bound must lie in [1, 2**32), got {bound}")
        words = self.noise.words(torch.from_numpy(examples), step=attempt, source=slot, count=_ATTEMPTS).numpy().astype(np.uint64)
        products = words * np.uint64(bound)
        accepted = (products & np.uint64(0xFFFFFFFF)) >= np.uint64(2**32 % bound)
        if not accepted.any(axis=1).all():
            raise ValueError("sixteen words in a row were refused")
        first = accepted.argmax(axis=1)
        chosen: np.ndarray = products[np.arange(len(examples)), first] >> np.uint64(32)
        return chosen.astype(np.int64)

    def permutation(self, n: int, slot: int) -> np.ndarray:
        """The numbers 0..n-1 ordered by a random 64-bit key each (ties, should they ever occur, by number)."""
        words = self.noise.words(torch.arange(n), step=0, source=slot, count=4).numpy().astype(np.uint64)
        keys = (words[:, 0] << np.uint64(32)) | words[:, 1]
        order: np.ndarray = np.argsort(keys, kind="stable")
        return order


def independent(draws: Draws, pools: Sequence[np.ndarray], count: int) -> np.ndarray:
    """``(count, K)``: every slot drawn from its own pool, uniformly and with repetition."""
    examples = np.arange(count)
    return np.stack([pool[draws.integers(len(pool), examples, slot)] for slot, pool in enumerate(pools)], axis=1)


def distinct(draws: Draws, pool: np.ndarray, n_sources: int, count: int, keys: np.ndarray | None = None) -> np.ndarray:
    """``(count, K)``: every slot drawn from one pool, uniformly and with repetition between mixtures, but no signal twice in one mixture.

    Args:
        keys: ``(len(pool),)`` integers, e.g. labels; then no key occurs twice in one mixture.
    """
    keys = np.arange(len(pool)) if keys is None else keys
    if len(np.unique(keys)) < n_sources:
        raise ValueError(f"a pool of {len(np.unique(keys))} cannot fill {n_sources} slots without repetition")
    picks = np.zeros((count, n_sources), dtype=np.int64)
    pending, attempt = np.arange(count), 0
    while len(pending):
        picks[pending] = np.stack([draws.integers(len(pool), pending, slot, attempt) for slot in range(n_sources)], axis=1)
        ordered = np.sort(keys[picks[pending]], axis=1)
        pending = pending[(ordered[:, 1:] == ordered[:, :-1]).any(axis=1)]
        attempt += 1
    return pool[picks]


def apart(draws: Draws, pool: np.ndarray, keys: np.ndarray, refused: np.ndarray, slot: int) -> np.ndarray:
    """``(count,)``: a random signal of the pool for each example, with repetition, whose key is not the one the example refuses.

    Args:
        keys: ``(len(pool),)`` integers.
        refused: ``(count,)`` a key per example.
    """
    if len(np.unique(keys)) < 2:
        raise ValueError("a pool of one key leaves nothing to an example that refuses it")
    picks = np.zeros(len(refused), dtype=np.int64)
    pending, attempt = np.arange(len(refused)), 0
    while len(pending):
        picks[pending] = draws.integers(len(pool), pending, slot, attempt)
        pending = pending[keys[picks[pending]] == refused[pending]]
        attempt += 1
    chosen: np.ndarray = pool[picks]
    return chosen


def cover_second(draws: Draws, first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """``(count, 2)``: slot 0 random with repetition, slot 1 through all of its pool in random order before any comes again (NES sec. 4.1)."""
    order = np.resize(draws.permutation(len(second), slot=1), count)
    return np.stack([first[draws.integers(len(first), np.arange(count), slot=0)], second[order]], axis=1)


def halves(name: str, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A pool in random order, cut in two: the images that are observed clean, and those that only occur in mixtures."""
    shuffled = pool[Draws(name).permutation(len(pool), slot=0)]
    return shuffled[: len(pool) // 2], shuffled[len(pool) // 2 :]


def equal_rms_gains(signals: Sequence[SignalSet], indices: np.ndarray, snr_db: float = 0.0) -> np.ndarray:
    """``(M, K)`` gains of mixtures ``(M, K)``: 1 for slot 0, the ratio of both RMS values for the others, to six significant digits.

    Sums of squares of 16-bit signals are exact in float64, so the gains have the same digits on every machine.

    Args:
        snr_db: level of slot 0 over each other one; 0: all are equally loud.
    """
    energies = np.stack([_energies(source, indices[:, k]) for k, source in enumerate(signals)], axis=1)
    gains = np.sqrt(energies[:, :1] / energies)
    gains[:, 1:] *= 10.0 ** (-snr_db / 20.0)
    return np.array([[float(f"{gain:.6g}") for gain in row] for row in gains])


def _energies(signals: SignalSet, rows: np.ndarray) -> np.ndarray:
    """``(n,)``: sum of squares of each row."""
    parts = [signals.load(torch.from_numpy(rows[start : start + _CHUNK])).double().flatten(1).square().sum(1) for start in range(0, len(rows), _CHUNK)]
    return torch.cat(parts).numpy()


def rows_with(labels: np.ndarray, wanted: Sequence[int], start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows in [start, stop) whose label is wanted, ascending."""
    rows = np.flatnonzero(np.isin(labels, np.asarray(wanted)))
    return rows[(rows >= start) & (rows < (len(labels) if stop is None else stop))]
