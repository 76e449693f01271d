"""Estimates of one task as scoring needs them: which mixtures they are of, their digest, and their values, stretch by stretch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sepbench.data.estimates.problems import Problems
from sepbench.torch_later import torch

Advance = Callable[[int, int], None]
"""Told how many of how many mixtures are done."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What reading all estimates once has shown.

    Attributes:
        examples: ``(n,)`` int64, ascending: the planned mixtures that all sources are there of.
        sha256: digest of what was supplied, see ``Supplied``.
        clipped: (mixture, slot, name of the file) of sounds that stay at full scale.
        largest: the largest absolute value.
    """

    examples: npt.NDArray[np.int64]
    sha256: str
    clipped: tuple[tuple[int, int, str], ...] = field(default=())
    largest: float = 0.0


class Supplied(Protocol):
    """Estimates that lie somewhere.

    ``sha256`` of their inspection is that of one file; of many files (of all mixtures of the task, whatever is planned) that of what ``sha256sum``
    prints for them in the order of their names; of an array in memory that of its bytes.
    """

    def inspect(self, n_planned: int, problems: Problems, advance: Advance) -> Inspection:
        """Read the estimates of the first so many mixtures once, and tell everything that is wrong with them, missing ones too."""
        ...

    def load(self, examples: Sequence[int]) -> torch.Tensor:
        """``(n, K, ...)`` float32 of these mixtures (``(n, N, K, ...)`` where the suite scores N draws), all of them there.

        Raises:
            EstimatesError: the files have changed since they were inspected.
        """
        ...
