"""Where a run puts its results and tells its progress: contracts that ``results/`` and ``cli/`` implement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from sepbench.run.plan import Cell, Plan, Shard

CellRecord = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ShardEstimates:
    """What separating one shard yields.

    Attributes:
        estimates: ``(n, K, ...)`` float32 on the CPU, or draws ``(n, N, K, ...)`` where the suite scores them; NaN where an example failed.
        seconds: ``(n,)`` float64 seconds of ``separate`` per example: its batch's time over the batch's size.
        errors: one line per failed example id.
    """

    estimates: torch.Tensor
    seconds: torch.Tensor
    errors: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShardScores:
    """Scores of one shard as columns of equal length, one row per (example, source, metric); see ``results/schema.py``.

    Attributes:
        example, source: int64; source -1 for metrics of a whole mixture and for failed examples.
        metric: index into ``metrics``, int32.
        value: float64, NaN where the example failed.
        seconds: float64 seconds of separation of the row's example.
        error: index into ``errors``, int32; 0 is "no error".
        metrics, errors: the texts; ``errors[0]`` is empty.
        fit_failed: the rows stand for a method that could not be fitted; another attempt replaces them.
        n_separated, n_failed: examples with and without an estimate and its scores.
        separate_seconds: sum over the separated examples.
    """

    example: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]
    metric: npt.NDArray[np.int32]
    value: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]
    error: npt.NDArray[np.int32]
    metrics: Sequence[str]
    errors: Sequence[str]
    fit_failed: bool
    n_separated: int
    n_failed: int
    separate_seconds: float


@dataclass(frozen=True, slots=True)
class ShardTotals:
    """The counters of a scored shard, kept beside its rows so that nothing needs to be read again."""

    n_separated: int
    n_failed: int
    separate_seconds: float
    error: str


class Sink(Protocol):
    """A run's folder. Every write is atomic: after a crash a file is either whole or not there."""

    def has_estimates(self, shard: Shard) -> bool:
        """True if the shard's estimates are there and whole; a damaged file counts as missing."""
        ...

    def has_damaged_estimates(self, shard: Shard) -> bool:
        """True if a file of estimates is there that is not whole."""
        ...

    def write_estimates(self, shard: Shard, data: ShardEstimates) -> None: ...

    def read_estimates(self, shard: Shard) -> ShardEstimates: ...

    def remove_estimates(self, shard: Shard) -> None:
        """Remove them if they are there."""
        ...

    def has_scores(self, shard: Shard, metrics: Sequence[str]) -> bool:
        """True if the shard's scores are there, whole, of just these metrics, and not the rows of a fit that failed."""
        ...

    def write_scores(self, shard: Shard, scores: ShardScores) -> None: ...

    def read_totals(self, shard: Shard) -> ShardTotals: ...

    def read_cell(self, task: str, method: str) -> CellRecord | None: ...

    def write_cell(self, task: str, method: str, record: CellRecord) -> None: ...


class Progress(Protocol):
    """Told what happens, in order; ``cli/`` draws it."""

    def start(self, plan: Plan) -> None: ...

    def begin(self, cell: Cell) -> None:
        """Work on a cell starts."""
        ...

    def stage(self, text: str) -> None:
        """``fit``, ``separate`` or ``score`` of the current cell, with details."""
        ...

    def advance(self, mixtures: int) -> None:
        """So many more mixtures of the current cell are separated, found done, or given up."""
        ...

    def warn(self, text: str) -> None: ...

    def end(self, cell: Cell, record: CellRecord) -> None:
        """The cell is over; ``record["state"]`` says how."""
        ...


class Silent:
    """Progress that nobody watches."""

    def start(self, plan: Plan) -> None:
        pass

    def begin(self, cell: Cell) -> None:
        pass

    def stage(self, text: str) -> None:
        pass

    def advance(self, mixtures: int) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def end(self, cell: Cell, record: CellRecord) -> None:
        pass
