"""What every reader returns: a split of a data set, addressed by integer index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from sepbench.protocols import Domain


class SignalSet(Protocol):
    """One split of one data set, in the data set's own order."""

    @property
    def name(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def domain(self) -> Domain: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one signal, without the batch axis."""
        ...

    @property
    def labels(self) -> torch.Tensor:
        """``(N,)`` int64 class numbers; zeros where the data set has no classes."""
        ...

    def __len__(self) -> int: ...

    def load(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Signals ``(n, *shape)`` float32 on the CPU: images in [0, 1], audio as stored. Any order, repetition allowed."""
        ...


@dataclass(frozen=True, slots=True)
class ArraySignals:
    """A split held in memory: uint8 (loaded as v / 255) or float32 ``(N, *shape)``."""

    name: str
    split: str
    domain: Domain
    signals: torch.Tensor
    labels: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.signals.shape[1:])

    def __len__(self) -> int:
        return int(self.signals.shape[0])

    def load(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        rows = self.signals[torch.as_tensor(indices, dtype=torch.int64)]
        return rows.to(torch.float32) / 255.0 if rows.dtype == torch.uint8 else rows.to(torch.float32)
