"""Noises that the package makes: white, pink, brown, and babble from a speech data set's own split. Data set ``noises:fsdd``.

Row i is of kind ``KINDS[i % 4]``; the label is the kind's number. ``white`` is Gaussian with a flat spectrum; ``pink`` and ``brown`` are the same
with power proportional to 1/f and 1/f^2, shaped in the frequency domain, nothing below 20 Hz: with brown noise down to 0 Hz most of the power
would be a drift that nobody hears and the level would mean nothing. ``babble`` is one utterance of each of the six speakers, all at the same level;
they are of the same split, so test babble holds test speech alone, and of one take per row (``takes_of_numbers``), so that a pair list can keep
the recordings of a mixture's speech out of its babble. The last 300 training rows are for validation: their babble is of takes 45 to 49.

Every row has the level of FSDD's utterances and is rounded to 16 bits. All randomness is Philox words keyed by split and kind, worked on in
float64; the rounding hides the last bits in which ``log``, ``cos`` and FFT differ between machines.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sepbench.data.lists.builders import Draws
from sepbench.data.readers.fsdd import DIGITS, LENGTH, SAMPLE_RATE, SPEAKERS, TAKES, at_level, row_of
from sepbench.data.synthesis.generated import KeyedWords
from sepbench.torch_later import torch

KINDS = ("white", "pink", "brown", "babble")
"""Label 0 is white, 3 is babble."""
NUMBERS = {"train": 300, "test": 125}
"""Rows of each kind."""
HELD_OUT_NUMBERS, HELD_OUT_TAKES = 75, 5
"""The last training rows of each kind, whose babble is made of the last training takes only; that of the others is made of the other takes."""

Numbers = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]

_EXPONENTS = {"pink": 1.0, "brown": 2.0}  # of 1/f in the power spectrum
_LOWEST = 20.0  # Hz, the lower limit of hearing


def rows_of_numbers(kind: int, numbers: Numbers) -> Numbers:
    """Rows of the n-th signals of a kind."""
    return numbers * len(KINDS) + kind


def takes_of_numbers(split: str) -> Numbers:
    """``(n,)``: the take that the babble of each number is made of."""
    takes, numbers = np.asarray(TAKES[split]), np.arange(NUMBERS[split])
    if split == "test":
        return np.resize(takes, len(numbers))
    trained = len(numbers) - HELD_OUT_NUMBERS
    return np.concatenate([np.resize(takes[:-HELD_OUT_TAKES], trained), np.resize(takes[-HELD_OUT_TAKES:], HELD_OUT_NUMBERS)])


def make_noises(speech: torch.Tensor, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """All rows of a split, ``(n, 1, 16384)`` int16, and their kinds ``(n,)`` int64.

    Args:
        speech: FSDD's utterances of the same split, as ``read_fsdd`` returns them.
        split: ``train`` (1,200 rows) or ``test`` (500).
    """
    rows = np.stack([at_level(_babble(speech, split) if kind == "babble" else _coloured(kind, split)) for kind in KINDS], axis=1)
    labels = torch.arange(len(KINDS)).repeat(len(rows))
    return torch.from_numpy(rows.reshape(-1, 1, LENGTH)), labels


def _coloured(kind: str, split: str) -> Array:
    """``(n, 16384)`` Gaussian noise of one kind."""
    values = KeyedWords(f"noises:fsdd.{split}.{kind}").normal(NUMBERS[split], LENGTH, step=0)
    return values if kind == "white" else _shaped(values, _EXPONENTS[kind])


def _shaped(white: Array, exponent: float) -> Array:
    frequencies = np.fft.rfftfreq(white.shape[-1], 1 / SAMPLE_RATE)
    audible = frequencies >= _LOWEST
    gains = np.zeros_like(frequencies)
    gains[audible] = frequencies[audible] ** (-exponent / 2)
    return np.asarray(np.fft.irfft(np.fft.rfft(white) * gains, white.shape[-1]))


def _babble(speech: torch.Tensor, split: str) -> Array:
    """``(n, 16384)``: six speakers at once, each from a digit of its own."""
    draws, takes = Draws(f"noises:fsdd.{split}.babble"), takes_of_numbers(split)
    total = np.zeros((len(takes), LENGTH))
    for speaker in range(len(SPEAKERS)):
        digits = draws.integers(DIGITS, np.arange(len(takes)), slot=speaker)
        rows = [row_of(split, speaker, int(digit), int(take)) for digit, take in zip(digits, takes, strict=True)]
        total += speech[rows, 0].double().numpy()
    return total
