"""``sepbench.open_run``: a run's folder as data frames and tensors. Reads only."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from sepbench.api.arguments import one_name, path_of, public
from sepbench.errors import SepbenchError, nearest
from sepbench.metrics.catalogue import get_metric
from sepbench.metrics.kinds import PART
from sepbench.report.panels.opened_run import OpenedRun
from sepbench.results.columns import SCORE_COLUMNS
from sepbench.results.compare import Side
from sepbench.results.store import RunStore
from sepbench.results.target import Results, open_results
from sepbench.run.records import CellRecord, RunRecord
from sepbench.suites.model import Suite, example_numbers

if TYPE_CHECKING:
    from sepbench.suites.model import ExampleIds

FIRST = ("task", "method", "supervision", "metric", "unit", "mean", "ci_low", "ci_high", "n_scored", "n_failed", "n_expected", "state", "error")
"""The columns of ``Run.summary`` that come first."""
CELL_COLUMNS = ("task", "method", "state", "note", "error", "n_planned", "n_separated", "n_failed")
"""The columns of ``Run.cells`` that come first; the others are those of ``CellRecord``."""


class Run:
    """A run, open for reading. What is read once is kept; a run that grows meanwhile is opened again.

    Args:
        path: the run's folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._store = RunStore.open(path)
        self._record = self._store.read_run()

    def __repr__(self) -> str:
        many = f"{len(self.tasks)} task{'s' * (len(self.tasks) != 1)}, {len(self.methods)} method{'s' * (len(self.methods) != 1)}"
        return f"<sepbench run of {self._record.suite.name}: {many}, {self.path}>"

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of its tasks."""
        return tuple(self._record.tasks)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of its methods, in the order in which they joined the run."""
        return tuple(self._record.methods)

    @property
    def record(self) -> RunRecord:
        """The contents of ``run.json``: versions, settings, digests, machine, sessions."""
        return self._record

    @property
    @public
    def suite(self) -> Suite:
        """The suite, in the version that the run was made on.

        Raises:
            SepbenchError: it is not installed in that version.
        """
        return self._opened.suite

    @cached_property
    @public
    def scores(self) -> pd.DataFrame:
        """One row per task, method, example, scored source and metric.

        ========  =====================================================================================================================
        column    what
        ========  =====================================================================================================================
        task      name
        method    name
        example   number of the mixture in the task's frozen list, from 0
        source    number of the true source, from 0; -1 for metrics of a whole mixture, and where the example failed
        metric    name
        value     in the metric's unit; NaN where the example failed or the metric is not defined
        seconds   of separating this example: its batch's seconds over the batch's size
        error     one line where the example failed, else empty
        ========  =====================================================================================================================

        Metrics that pool examples, or compare sets of estimates (FID), have no value of an example: they stand in ``summary`` only.
        """
        frame = self._store.read_scores(SCORE_COLUMNS[1:])
        frame = frame[~frame["metric"].astype(str).str.contains(PART, regex=False)].reset_index(drop=True)
        return frame.astype(dict.fromkeys(("task", "method", "metric", "error"), object))

    @cached_property
    @public
    def summary(self) -> pd.DataFrame:
        """One row per task, method and metric: the leaderboard of this run.

        The columns of leaderboards (docs/statistics.md): ``mean`` with its 95 % interval ``ci_low`` to ``ci_high``, ``interval`` (how that was made),
        ``cluster`` and ``n_clusters`` (what is independent), ``n_scored``, ``n_failed`` and ``n_expected`` mixtures, seconds, settings of the run;
        ``state`` and ``error`` of the method on the task, and ``convention``, where the metric's formula comes from.
        """
        frame = self._results.frame.copy()
        cells = [self._results.cells.get((task, method), CellRecord()) for task, method in zip(frame["task"], frame["method"], strict=True)]
        frame["state"], frame["error"] = [cell.state for cell in cells], [cell.error for cell in cells]
        frame["convention"] = [_convention(metric) for metric in frame["metric"]]
        return frame[[*FIRST, *(name for name in frame.columns if name not in FIRST)]]

    @cached_property
    @public
    def cells(self) -> pd.DataFrame:
        """One row per task and method: how it went, those included that do not take the task. ``traceback`` is that of the first failure."""
        rows = [{"task": task, "method": method, **record.mapping()} for (task, method), record in self._store.read_cells().items()]
        frame = pd.DataFrame(rows, columns=list(dict.fromkeys(["task", "method", *CellRecord.model_fields])))
        return frame[[*CELL_COLUMNS, *(name for name in frame.columns if name not in CELL_COLUMNS)]]

    @public
    def estimates(self, task: str, method: str, ids: ExampleIds | None = None) -> torch.Tensor:
        """Kept estimates ``(B, K, ...)`` float32 in the method's own order of sources; NaN where an example failed.

        Args:
            ids: numbers of the mixtures; all of the run by default.

        Raises:
            UnknownNameError: no such task or method in this run.
            ArgumentError: ids that are not in the run.
            SepbenchError: the estimates were not kept.
        """
        opened, cell = self._opened, self._cell(task, method)
        wanted = example_numbers(ids, cell.n_planned or opened.n_planned(task), f"{method} on {task}")
        return opened.estimates(opened.tasks([task])[0], method, wanted.tolist())

    @public
    def method(self, name: str) -> Side:
        """One method of the run, for ``sepbench.compare``.

        Raises:
            UnknownNameError: no such method in this run.
        """
        if one_name("name", name, "a method's name") not in self.methods:
            raise nearest(name, list(self.methods), f"method of {self.path}")
        return Side(self._results, name)

    @property
    @public
    def whole(self) -> Side:
        """All its methods, as a side of a comparison."""
        return Side(self._results)

    @public
    def show(self) -> None:
        """Print the tables that ``sepbench show`` prints."""
        from rich.console import Console

        from sepbench.report.table import render_leaderboard

        results = self._results
        render_leaderboard(results.frame, results.suite, Console(), cells=results.cells, bounds=results.bounds, evidence=results.evidence)

    def _cell(self, task: str, method: str) -> CellRecord:
        if task not in self.tasks:
            raise nearest(str(task), list(self.tasks), f"task of {self.path}")
        if method not in self._record.methods_on(task):
            raise nearest(str(method), self._record.methods_on(task), f"method of {self.path} on {task}")
        cell = self._store.read_cell(task, method) or CellRecord()
        if cell.state == "unsupported":
            raise SepbenchError(f"{method} does not take task {task}: {cell.note}")
        return cell

    @cached_property
    def _results(self) -> Results:
        return open_results(str(self.path))

    @cached_property
    def _opened(self) -> OpenedRun:
        return OpenedRun.open(self.path)


def _convention(metric: str) -> str:
    try:
        return get_metric(metric).info.source
    except SepbenchError:  # not installed here
        return ""


@public
def open_run(path: str | os.PathLike[str]) -> Run:
    """A run's folder, made by ``sepbench run`` or ``sepbench.run``; it need not be finished.

    Raises:
        SepbenchError: there is no run.
    """
    folder = path_of("path", path)
    if not folder.exists():
        raise SepbenchError(f"there is no {folder}; name the folder of a run, as `sepbench run` or `sepbench.run` made it")
    return Run(folder)
