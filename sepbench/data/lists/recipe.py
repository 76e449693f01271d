"""What a recipe of a frozen list is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sepbench.data.lists.builders import Labels, Signals, equal_rms_gains
from sepbench.data.lists.pairs import pairs_csv

Split = tuple[str, str]
"""(data set, split)."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One frozen list.

    Attributes:
        name: stem of the CSV file, and key of its random numbers.
        needs: the (data set, split) pairs whose labels it reads; empty if none, so that it can be rebuilt anywhere.
        build: labels to ``(M, K)`` indices.
        levels: for lists with gains, the (data set, split) of every slot: all sources of a mixture come at the RMS of its first. Else empty.
    """

    name: str
    needs: tuple[Split, ...]
    build: Callable[[Labels], np.ndarray]
    levels: tuple[Split, ...] = ()

    def csv(self, labels: Labels, signals: Signals) -> bytes:
        """The list's file."""
        indices = self.build(labels)
        gains = equal_rms_gains([signals(*split) for split in self.levels], indices) if self.levels else None
        return pairs_csv(indices, gains)
