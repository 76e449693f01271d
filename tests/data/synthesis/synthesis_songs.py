"""What the tests of this folder share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sepbench.data.synthesis.songs import Song


@dataclass(frozen=True)
class Heard:
    """A song with its stems ``(length,)`` in float64, full scale 1."""

    song: Song
    drums: np.ndarray
    bass: np.ndarray
