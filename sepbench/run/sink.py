"""Where a run puts its results and tells its progress: contracts that ``results/`` and ``cli/`` implement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sepbench.metrics.sets.extraction import ShardFeatures
from sepbench.run.plan import Cell, Plan, Shard
from sepbench.run.records import CellRecord
from sepbench.torch_later import torch


@dataclass(frozen=True, slots=True)
class ShardEstimates:
    """What separating one shard yields.

    Attributes:
        estimates: ``(n, K, ...)`` float32 on the CPU, or draws ``(n, N, K, ...)`` where the suite scores them; NaN where an example failed.
        seconds: ``(n,)`` float64 seconds of ``separate`` per example: its batch's time over the batch's size.
        errors: one line per failed example id.
        evaluations: ``(n,)`` float64 evaluations of the prior per source, see ``protocols.CountsEvaluations``; NaN where none were counted, None if
            nowhere.
    """

    estimates: torch.Tensor
    seconds: torch.Tensor
    errors: Mapping[int, str] = field(default_factory=dict)
    evaluations: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class ShardScores:
    """Scores of one shard as columns of equal length, one row per (example, source, metric); see ``results/columns.py``.

    Attributes:
        example, source: int64; source -1 for metrics of a whole mixture and for failed examples.
        metric: index into ``metrics`` and, behind these, ``parts``; int32.
        value: float64, NaN where the example failed.
        seconds: float64 seconds of separation of the row's example.
        error: index into ``errors``, int32; 0 is "no error".
        metrics, errors: the texts; ``errors[0]`` is empty.
        fit_failed: the rows stand for a method that could not be fitted; another attempt replaces them.
        n_separated, n_failed: examples with and without an estimate and its scores.
        separate_seconds: sum over the separated examples.
        evaluations: sum over the separated examples; None unless they were counted for each of them.
        parts: texts of rows that hold parts of pooled metrics, ``metric/part``.
        features: of the examples with an estimate, by extractor, for metrics of sets; the examples are ``feature_examples``.
        feature_examples: ``(n,)`` int64, ascending.
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
    evaluations: float | None = None
    parts: Sequence[str] = ()
    features: Mapping[str, ShardFeatures] = field(default_factory=dict)
    feature_examples: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class ShardTotals:
    """The counters of a scored shard, kept beside its rows so that nothing needs to be read again; see ``ShardScores``."""

    n_separated: int
    n_failed: int
    separate_seconds: float
    error: str
    evaluations: float | None = None


@dataclass(frozen=True, slots=True)
class FoundShard:
    """A shard that a run's folder holds something of.

    Attributes:
        shard: which mixtures.
        estimates: its estimates are there and whole.
        damaged: a file of estimates is there that is not whole.
        totals: counters of its scores, None if there are none of the metrics that were asked for.
        fit_failed: its scores are the rows of a method that could not be fitted.
    """

    shard: Shard
    estimates: bool
    damaged: bool
    totals: ShardTotals | None
    fit_failed: bool

    @property
    def scored(self) -> bool:
        """Scored by the metrics asked for, and not the rows of a fit that failed."""
        return self.totals is not None and not self.fit_failed


class Sink(Protocol):
    """A run's folder. Every write is atomic: after a crash a file is either whole or not there."""

    def find(self, task: str, method: str, metrics: Sequence[str]) -> list[FoundShard]:
        """What is there of a cell, in the order of its mixtures; no two shards overlap."""
        ...

    def write_estimates(self, shard: Shard, data: ShardEstimates) -> None: ...

    def read_estimates(self, shard: Shard) -> ShardEstimates: ...

    def remove_estimates(self, shard: Shard) -> None:
        """Remove them if they are there."""
        ...

    def write_scores(self, shard: Shard, scores: ShardScores) -> None: ...

    def keep_reference(self, key: str, path: Path) -> None:
        """Take a reference of metrics of sets into the run, from a file that lies elsewhere; one that is there already is left alone."""
        ...

    def remove_scores(self, shard: Shard) -> None:
        """Remove them if they are there."""
        ...

    def read_totals(self, shard: Shard) -> ShardTotals: ...

    def read_cell(self, task: str, method: str) -> CellRecord | None:
        """The record of a cell, None if nothing of it is there.

        Raises:
            SepbenchError: results are there, and their record is not.
        """
        ...

    def write_cell(self, task: str, method: str, record: CellRecord) -> None: ...

    def refit_name(self) -> str:
        """Name of the ``--refit`` that is under way in this folder: the same after a kill, a new one if the last has ended."""
        ...

    def check(self) -> None:
        """Look whether the run is there.

        Raises:
            SepbenchError: it is not, or cannot be read.
        """
        ...

    def opener(self) -> Callable[[], Sink]:
        """Opens the same folder in another process; can be pickled."""
        ...


class Progress(Protocol):
    """Told what happens; ``cli/`` draws it. Cells overlap where several processes work."""

    def start(self, plan: Plan, workers: int) -> None: ...

    def begin(self, cell: Cell, done: int) -> None:
        """Work on a cell starts; so many of its mixtures are there already."""
        ...

    def stage(self, cell: Cell, text: str, fraction: float | None = None) -> None:
        """``fit``, ``warm up``, ``separate`` or ``score``, with details; the fraction of it that is done, where it is known."""
        ...

    def advance(self, cell: Cell, mixtures: float) -> None:
        """So many more mixtures of the cell are separated or given up; parts of a mixture count."""
        ...

    def warn(self, text: str) -> None: ...

    def end(self, cell: Cell, record: CellRecord) -> None:
        """The cell is over; ``record.state`` says how."""
        ...


class Silent:
    """Progress that nobody watches."""

    def start(self, plan: Plan, workers: int) -> None:
        pass

    def begin(self, cell: Cell, done: int) -> None:
        pass

    def stage(self, cell: Cell, text: str, fraction: float | None = None) -> None:
        pass

    def advance(self, cell: Cell, mixtures: float) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def end(self, cell: Cell, record: CellRecord) -> None:
        pass
