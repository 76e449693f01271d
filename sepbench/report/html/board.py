"""A board: results of one run or leaderboard as the page's sections need them. What is held in memory is one number per mixture and method of one task."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sepbench.errors import SepbenchError
from sepbench.metrics.catalogue import get_metric
from sepbench.report.panels.opened_run import OpenedRun
from sepbench.report.rows import Line, TaskTable, task_tables
from sepbench.results.ranking import Evidence
from sepbench.results.statistics import TaskDesigns
from sepbench.results.target import Results, open_results
from sepbench.results.values import NO_VALUES, MetricValues, Values
from sepbench.run.records import CellRecord, RunRecord

Record = Mapping[str, Any]
LONGEST_NAME = 60


def slug(name: str) -> str:
    """A name as part of a file's name and of an address: ASCII letters, digits and hyphens; a digest tells names apart that look alike without the rest."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:LONGEST_NAME].strip("-")
    return plain if plain and plain == name else f"{plain or 'x'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class MetricWords:
    """What a metric is, always visible: name, unit, direction, formula."""

    name: str
    unit: str
    higher_is_better: bool
    source: str

    @property
    def direction(self) -> str:
        return "higher is better" if self.higher_is_better else "lower is better"

    @property
    def convention(self) -> str:
        """``dB, higher is better: 10 log10(...)``."""
        unit = "" if self.unit in ("", "1") else f"{self.unit}, "
        return f"{unit}{self.direction}" + (f": {self.source}" if self.source else "")


@dataclass(frozen=True, slots=True)
class Board:
    """Everything that one page is about.

    Attributes:
        slug: its name in addresses.
        results: rows, suite and values.
        record: ``run.json`` of a run, None of a leaderboard.
        opened: the run with its signals; None of a leaderboard and where the suite is not installed in the run's version.
        folder: of the run.
    """

    slug: str
    results: Results
    record: RunRecord | None = None
    opened: OpenedRun | None = None
    folder: Path | None = None

    @property
    def title(self) -> str:
        frame, suite = self.results.frame, self.results.suite
        name = suite.title if suite is not None else str(frame["suite"].iloc[0])
        return f"{name}: {self.results.label}" if self.record is not None else name

    @property
    def suite_name(self) -> str:
        return str(self.results.frame["suite"].iloc[0])

    @property
    def description(self) -> str:
        return self.results.suite.description if self.results.suite is not None else ""


def open_board(target: str, taken: set[str], warn: Callable[[str], None]) -> Board:
    """Open what the user named.

    Args:
        taken: slugs of other boards; the new one is added.

    Raises:
        SepbenchError: no such thing, or it has no rows.
    """
    results = open_results(target, suites=True)
    if not len(results.frame):
        raise SepbenchError(f"{target} has no rows to show")
    path = Path(target)
    record = opened = None
    if (path / "run.json").is_file():
        try:
            opened = OpenedRun.open(path)  # what it would tell of methods that do not take a task stands in the table's footnotes
            record = opened.record
        except SepbenchError as error:  # its rows can be shown all the same
            warn(f"no signals of {target} are shown: {error}")
    name = slug(path.stem if path.is_file() else path.name or target)
    unique, number = name, len(taken)
    while unique in taken:
        unique, number = slug(f"{name} {number}"), number + 1
    taken.add(unique)
    return Board(unique, results, record, opened, path if record is not None else None)


@dataclass(frozen=True, slots=True)
class TaskView:
    """One task of a board.

    Attributes:
        table: ranks, marks and texts, as ``sepbench show`` has them.
        records: (method, metric) -> row of the leaderboard.
        metrics: the ranking metric first.
        values: those of the ranking metric by method, best first; empty where there are none per mixture.
    """

    board: Board
    task: str
    table: TaskTable
    records: Mapping[tuple[str, str], Record]
    metrics: tuple[MetricWords, ...]
    values: Mapping[str, MetricValues]
    designs: TaskDesigns

    @property
    def slug(self) -> str:
        return slug(self.task)

    @property
    def metric(self) -> MetricWords:
        return self.metrics[0]

    @property
    def lines(self) -> Sequence[Line]:
        return self.table.lines

    def kind(self, method: str) -> str:
        """``ranked``, ``bound``, ``unranked`` of a method with a row."""
        return next(kind_of(line) for line in self.lines if line.method == method and not line.from_paper)

    @property
    def methods(self) -> list[str]:
        """With rows of ours, best first."""
        return [line.method for line in self.lines if not line.from_paper]

    def first(self, method: str) -> Record:
        """The method's row of the ranking metric, or the first it has."""
        found = self.records.get((method, self.metric.name))
        return found if found is not None else next(record for (name, _), record in self.records.items() if name == method)

    def cell(self, method: str) -> CellRecord:
        return self.board.results.cells.get((self.task, method), CellRecord())


def kind_of(line: Line) -> str:
    """Which part of the table a line stands in: ``ranked``, ``bound``, ``unranked`` (few, size, part, failed) or ``paper``."""
    if line.from_paper:
        return "paper"
    return "ranked" if line.rank[:1].isdigit() else "bound" if line.rank == "bound" else "unranked"


def task_views(board: Board, tasks: Sequence[str] = ()) -> Iterator[TaskView]:
    """The tasks of a board, one after another: what is held of one is gone before the next.

    Raises:
        SepbenchError: a file of scores is damaged.
    """
    results, designs = board.results, board.results.designs
    for task in dict.fromkeys(results.frame["task"]):
        if tasks and task not in tasks:
            continue
        frame = results.frame[results.frame["task"] == task]
        records = {(str(record["method"]), str(record["metric"])): record for record in frame.to_dict("records")}
        present = list(dict.fromkeys(metric for _, metric in records))
        ranking = results.ranking_metric if results.ranking_metric in present else present[0]
        held = _held(results.values, task, ranking, [method for method, metric in records if metric == ranking])
        values = Values(lambda asked, method, task=task, held=held, ranking=ranking: {ranking: held[method]} if asked == task and method in held else {})  # type: ignore[misc]
        evidence = Evidence(values, designs) if held else None
        (table,) = task_tables(frame, results.suite, cells=results.cells, bounds=results.bounds, evidence=evidence)
        words = tuple(_words(name, next(record for (_, metric), record in records.items() if metric == name)) for name in _first(ranking, present))
        order = [line.method for line in table.lines if not line.from_paper]
        yield TaskView(board, str(task), table, records, words, {method: held[method] for method in order if method in held}, designs)


def _held(values: Values | None, task: str, metric: str, methods: Sequence[str]) -> dict[str, MetricValues]:
    """The values of one metric by method, without those that have none."""
    found = {} if values is None else {method: values.of(task, method, metric) for method in methods}
    return {method: of_method for method, of_method in found.items() if of_method is not NO_VALUES and len(of_method)}


def _first(name: str, names: Sequence[str]) -> list[str]:
    return [name, *(other for other in names if other != name)]


def _words(name: str, record: pd.Series[Any] | Record) -> MetricWords:
    try:
        source = get_metric(name).info.source
    except SepbenchError:  # not installed here
        source = ""
    return MetricWords(name, str(record["unit"]), bool(record["higher_is_better"]), source)
