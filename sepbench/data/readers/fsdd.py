"""The Free Spoken Digit Dataset: 3,000 recordings of one spoken digit each, ``{digit}_{speaker}_{take}.wav``, 8 kHz mono, 16 bits.

A signal is an utterance of several digits. Row (speaker, digit, take) is the recordings digit, digit + 1, ... (after 9 comes 0) of one speaker and
one take, put end to end and cut at 16,384 samples (2.048 s). If ten digits are not enough, those of the next take follow in the same order (after
the split's last take its first); nothing is padded and nothing is said twice, so no signal ends in silence that no method could get wrong. With the
real recordings one take is always enough: the shortest has 24,341 samples.

Every signal is brought to an RMS of 1,024 (1/32 of full scale), because the speakers were recorded at levels up to 30 dB apart. Two speakers at 0 dB then
need no gain but 1: where any assignment of estimates to references counts, a method cannot know whose gain to undo.

The official test split is takes 0 to 4 (300 rows), training takes 5 to 49 (2,700 rows). Rows are ordered by take, then speaker, then digit, so the
last 60 n training rows are the n highest takes of all speakers: rows held out at that end share no recording with the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sepbench.data.readers.audio_files import read_pcm
from sepbench.errors import DataError
from sepbench.torch_later import torch

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
"""Label 0 is george, 5 is yweweler."""
DIGITS = 10
TAKES = {"test": range(5), "train": range(5, 50)}
ROWS_PER_TAKE = len(SPEAKERS) * DIGITS
SAMPLE_RATE = 8000
LENGTH = 16_384
"""Samples per signal."""
RMS = 1024
"""Of every signal, in 16-bit steps. The highest peak is 21 times that."""


def recording_name(speaker: str, digit: int, take: int) -> str:
    """Path of a recording inside the data set's folder."""
    return f"recordings/{digit}_{speaker}_{take}.wav"


def row_of(split: str, speaker: int, digit: int, take: int) -> int:
    """The row of an utterance in its split."""
    return (take - TAKES[split].start) * ROWS_PER_TAKE + speaker * DIGITS + digit


def speaker_and_take(split: str, row: int) -> str:
    """``george-3``: rows of one speaker and one take share recordings, others do not."""
    return f"{SPEAKERS[row % ROWS_PER_TAKE // DIGITS]}-{TAKES[split].start + row // ROWS_PER_TAKE}"


def take_of(split: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The take that each row's first recording belongs to; rows of different takes share no recording."""
    return TAKES[split].start + rows // ROWS_PER_TAKE


def at_level(signals: npt.NDArray[np.float64]) -> npt.NDArray[np.int16]:
    """``(..., T)`` at the common RMS, rounded to 16 bits. No signal may be all zero."""
    rms = np.sqrt(np.square(signals).mean(axis=-1, keepdims=True))
    return np.asarray(np.rint(signals * (RMS / rms)), dtype=np.int16)


def utterance(takes: Mapping[int, Sequence[torch.Tensor]], take: int, digit: int, length: int) -> torch.Tensor:
    """Recordings end to end, cut at ``length``.

    Args:
        takes: take -> the speaker's recordings of the digits 0 to 9, each ``(T_i,)``; takes in the split's order.
        take, digit: the recording to begin with.
        length: samples wanted.

    Raises:
        DataError: all recordings together are shorter.
    """
    order = list(takes)
    start, parts, total = order.index(take), list[torch.Tensor](), 0
    for following in order[start:] + order[:start]:
        for offset in range(DIGITS):
            part = takes[following][(digit + offset) % DIGITS]
            parts.append(part)
            total += len(part)
            if total >= length:
                return torch.cat(parts)[:length]
    raise DataError(f"all recordings of a speaker together have {total:,} samples, a signal needs {length:,}; check that the data set is complete")


def read_fsdd(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Utterances ``(N, 1, 16384)`` int16 and speakers ``(N,)`` int64 of a split; only its own recordings are opened.

    Raises:
        DataError: a recording is missing, cut off, not 8 kHz mono of 16 bits; an utterance is silent.
    """
    takes = TAKES[split]
    signals = torch.empty((len(takes) * ROWS_PER_TAKE, 1, LENGTH), dtype=torch.int16)
    labels = torch.empty(len(signals), dtype=torch.int64)
    for number, speaker in enumerate(SPEAKERS):
        recordings = {take: [read_pcm(folder / recording_name(speaker, digit, take), SAMPLE_RATE) for digit in range(DIGITS)] for take in takes}
        for take in takes:
            for digit in range(DIGITS):
                row = row_of(split, number, digit, take)
                spoken = utterance(recordings, take, digit, LENGTH)
                if not bool(spoken.any()):
                    raise DataError(f"{folder / recording_name(speaker, digit, take)} and what follows it are silent; replace the files")
                signals[row, 0] = torch.from_numpy(at_level(spoken.double().numpy()))
                labels[row] = number
    return signals, labels
