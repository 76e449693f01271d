"""Which whole seconds of a chunk sound: the labels of data sets whose chunks may be silent."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sepbench.data.lists.rules import SILENT_RMS

_FULL_SCALE = 32_768
_SILENT_POWER = (SILENT_RMS * _FULL_SCALE) ** 2


def sounding_seconds(chunks: npt.NDArray[np.int16], sample_rate: int) -> npt.NDArray[np.int64]:
    """Of every chunk: 0 silent, 1 the first second sounds, 2 the second, 3 both, (4 the third, ...).

    A second sounds if its RMS is LASS' ``SILENT_RMS`` (docs/protocols.md 1.6) or more. A chunk whose own RMS is below it is silent, as LASS has it. So is one
    that sounds in no whole second: SDR is measured in those (``metrics/sdr.py``), and is undefined where a source is silent in all of them.

    Args:
        chunks: ``(rows, 1, length)`` int16. Sums of squares are whole numbers, so no rounding decides.
        sample_rate: Hz.

    Returns:
        Labels ``(rows,)`` int64.
    """
    length = chunks.shape[-1]
    seconds = length // sample_rate
    labels = np.zeros(len(chunks), dtype=np.int64)
    for row, chunk in enumerate(chunks[:, 0]):  # a chunk of squares at a time: those of a split take a third of a gigabyte
        squares = np.square(chunk, dtype=np.int64)
        heard = squares[: seconds * sample_rate].reshape(seconds, -1).sum(axis=1) >= _SILENT_POWER * sample_rate
        if squares.sum() >= _SILENT_POWER * length:
            labels[row] = int((heard << np.arange(seconds)).sum())
    return labels
