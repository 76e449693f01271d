"""What every reader returns: a split of a data set, addressed by integer index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from sepbench.protocols import Domain
from sepbench.torch_later import torch


@runtime_checkable
class KnowsContent(Protocol):
    """Optional: a signal set that can tell equal signals without decoding them."""

    def content_hashes(self, rows: torch.Tensor) -> list[bytes]:
        """One digest per row, equal where the content is."""
        ...


@runtime_checkable
class KnowsGroups(Protocol):
    """Optional: a signal set that knows which of its signals were cut from one recording."""

    @property
    def groups(self) -> tuple[str, ...]:
        """One name per row, equal where the recording is, in every set of the same corpus."""
        ...


@dataclass(frozen=True, slots=True)
class ArraySignals:
    """A split held in memory, ``(N, *shape)``: uint8 (loaded as v / 255), int16 (PCM, loaded as v / 32768) or float32."""

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
        scale = {torch.uint8: 255.0, torch.int16: 32768.0}.get(rows.dtype)
        return rows.to(torch.float32) / scale if scale else rows.to(torch.float32)
