"""Two kinds of tone, for methods that learn from waveforms: low ones and high ones, of any pitch within their band, phase and loudness."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from method_toys import ToyView, mix
from sound_toys import RATE, sound_task

from sepbench.protocols import Assignment, Mixtures, TaskSpec

LENGTH = 2_000
SMALL: Mapping[str, Mapping[str, Any]] = {
    "conv-tasnet": {"filters": 32, "milliseconds": 4.0, "bottleneck": 16, "hidden": 32, "skip": 16, "blocks": 3, "repeats": 1, "lr": 5e-3},
    "demucs": {"width": 8, "depth": 3, "lr": 5e-3},
}
"""Settings of tiny networks."""


@dataclass(frozen=True)
class LoadedRows:
    """``TrainingRows`` of a tensor."""

    signals: torch.Tensor

    def __len__(self) -> int:
        return len(self.signals)

    def load(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        return self.signals[torch.as_tensor(indices)]


class RowsView(ToyView):
    """A view whose sources come by index."""

    def rows(self, what: str, slot: int = 0) -> LoadedRows:
        assert what == "sources"
        return LoadedRows(self.sources(slot))


def tones(count: int, low: float, high: float, seed: int, length: int = LENGTH) -> torch.Tensor:
    """``(count, 1, T)`` at 8 kHz, of a pitch between two in Hz."""
    g = torch.Generator().manual_seed(seed)
    pitch, phase, loudness = (torch.rand(count, 1, 1, generator=g) for _ in range(3))
    time = torch.arange(length) / RATE
    return (0.1 + 0.2 * loudness) * torch.sin(2 * math.pi * ((low + (high - low) * pitch) * time + phase))


def bands(count: int, seed: int, length: int = LENGTH) -> torch.Tensor:
    """``(count, 2, 1, T)``: 100 to 300 Hz and 1,000 to 2,000 Hz."""
    return torch.stack([tones(count, 100, 300, 2 * seed, length), tones(count, 1_000, 2_000, 2 * seed + 1, length)], 1)


@dataclass(frozen=True)
class Bands:
    """Training tones of each band, and mixtures of others.

    Attributes:
        view: of 24 tones per slot; of both bands in either slot where the task is agnostic.
        test: ``(5, 2, 1, T)``.
    """

    view: RowsView
    test: torch.Tensor

    @classmethod
    def make(cls, operator: str = "mean", *, agnostic: bool = False, length: int = LENGTH) -> Bands:
        train = bands(24, 1, length)
        assignment: Assignment = "permutation" if agnostic else "ordered"
        task = sound_task(length, ("any", "any") if agnostic else ("low", "high"), operator, assignment=assignment)
        pool = train.flatten(0, 1)
        return cls(RowsView(task, "sources", (pool, pool) if agnostic else (train[:, 0], train[:, 1])), bands(5, 2, length))

    @property
    def task(self) -> TaskSpec:
        return self.view.task

    def mixtures(self) -> Mixtures:
        return mix(self.test, self.task.operator)


def ordered_sdr(estimates: torch.Tensor, references: torch.Tensor) -> float:
    """dB, the mean over sources and mixtures, estimate k against source k."""
    errors = (estimates - references).square().flatten(2).sum(2)
    return float((10 * (references.square().flatten(2).sum(2) / errors).log10()).mean())
