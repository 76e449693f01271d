"""What a method is handed while the clock runs: reading it is no part of fitting or separating, so its seconds are counted apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from sepbench.protocols import ScorePrior, Supervision, TaskSpec, TrainingRows, TrainingView
from sepbench.run.timing import Timer
from sepbench.torch_later import torch

if TYPE_CHECKING:
    from sepbench.data.mixtures import MixtureSet


class TimedView:
    """A ``TrainingView`` that adds up the ``seconds`` spent in reading it."""

    def __init__(self, view: TrainingView) -> None:
        self._view = view
        self.seconds = 0.0

    @property
    def supervision(self) -> Supervision:
        return self._view.supervision

    @property
    def task(self) -> TaskSpec:
        return self._view.task

    def mixtures(self, limit: int | None = None) -> torch.Tensor:
        return self._timed(lambda: self._view.mixtures(limit))

    def observed(self, limit: int | None = None) -> torch.Tensor:
        return self._timed(lambda: self._view.observed(limit))

    def clean(self, limit: int | None = None) -> torch.Tensor:
        return self._timed(lambda: self._view.clean(limit))

    def sources(self, slot: int, limit: int | None = None) -> torch.Tensor:
        return self._timed(lambda: self._view.sources(slot, limit))

    def rows(self, what: Literal["mixtures", "observed", "clean", "sources"], slot: int = 0) -> TrainingRows:
        return TimedRows(self._view.rows(what, slot), self._timed)

    def prior(self, slot: int) -> ScorePrior:
        return self._view.prior(slot)

    def _timed(self, read: Callable[[], torch.Tensor]) -> torch.Tensor:
        with Timer("cpu") as timer:
            values = read()
        self.seconds += timer.seconds
        return values


class TimedRows:
    """``TrainingRows`` whose reading is timed."""

    def __init__(self, rows: TrainingRows, timed: Callable[[Callable[[], torch.Tensor]], torch.Tensor]) -> None:
        self._rows = rows
        self._timed = timed

    def __len__(self) -> int:
        return len(self._rows)

    def load(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        return self._timed(lambda: self._rows.load(indices))


class References:
    """True sources on the device, for methods of supervision ``bound``; ``seconds`` adds up the reading."""

    def __init__(self, mixture_set: MixtureSet, device: str) -> None:
        self._mixture_set = mixture_set
        self._device = device
        self.seconds = 0.0

    def __call__(self, example_ids: torch.Tensor) -> torch.Tensor:
        with Timer(self._device) as timer:
            sources = self._mixture_set.sources(example_ids).to(self._device)
        self.seconds += timer.seconds
        return sources
