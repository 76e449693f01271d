"""What trainings by epochs share: batches and their rows, the cut of budget ``quick``, and the mean loss."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch

from baselines.training.config import generator
from sepbench.errors import SepbenchError
from sepbench.protocols import Budget

QUICK_SHARE = 10


def cut_epochs(epochs: int, budget: Budget) -> int:
    """The epochs that a budget allows: ``quick`` makes a tenth of them, rounded up."""
    return math.ceil(epochs / QUICK_SHARE) if budget == "quick" else epochs


def full_batches(batch: int, *counts: int) -> int:
    """Batches of an epoch: as many as the smallest set fills. The last, partial batch is dropped.

    Args:
        batch: rows per batch.
        counts: rows of each set.

    Raises:
        SepbenchError: a set does not fill one batch.
    """
    if min(counts) < batch:
        raise SepbenchError(f"a batch of {batch} cannot be filled from {min(counts)} training samples; choose a smaller batch")
    return min(counts) // batch


def epoch_rows(seed: int, name: str, epoch: int, batch: int, size: int, count: int, device: str | torch.device = "cpu") -> torch.Tensor:
    """Row numbers ``(size,)`` int64 of a batch.

    An epoch is a permutation of ``count`` rows, cut into batches. Seed, name and epoch decide the permutation.
    """
    return _epoch_order(seed, name, epoch, count, torch.device(device))[batch * size : (batch + 1) * size]


@functools.lru_cache(maxsize=8)  # one for each set that a training uses
def _epoch_order(seed: int, name: str, epoch: int, count: int, device: torch.device) -> torch.Tensor:
    return torch.randperm(count, generator=generator(seed, name, epoch)).to(device)


class MeanLoss:
    """The mean of the losses since the last row of the log.

    Losses are added up on their device. The sum is read only when a row is due, because reading waits for the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._sum = torch.zeros((), device=device)
        self._count = 0

    def add(self, loss: torch.Tensor) -> None:
        self._sum += loss.detach()
        self._count += 1

    def take(self, step: int) -> dict[str, float]:
        """``{"loss": mean}``, or ``{}`` if there was no loss. The sum starts anew.

        Raises:
            SepbenchError: the mean is not finite.
        """
        if not self._count:
            return {}
        loss = float(self._sum) / self._count
        if not math.isfinite(loss):
            raise SepbenchError(f"training diverged before step {step}: the loss is not finite; choose a lower lr")
        self._sum.zero_()
        self._count = 0
        return {"loss": round(loss, 6)}

    def state(self) -> Mapping[str, Any]:
        """For a checkpoint."""
        return {"sum": self._sum, "count": self._count}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state`` returned."""
        self._sum, self._count = state["sum"].to(self._sum.device), state["count"]
