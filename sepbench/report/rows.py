"""What a leaderboard's table says, before anything is drawn: ranks, marks, cells as text, footnotes. One ``TaskTable`` per task."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from sepbench.errors import SepbenchError
from sepbench.metrics.catalogue import get_metric
from sepbench.registry import create_separator
from sepbench.results import columns
from sepbench.results.columns import OLD_INTERVAL, Column, Shown
from sepbench.results.statistics import MIN_CLUSTERS
from sepbench.run.records import CellRecord
from sepbench.suites import NOT_FROZEN

if TYPE_CHECKING:
    from sepbench.results.ranking import Evidence
    from sepbench.suites.model import Suite
    from sepbench.suites.published import PublishedRow

Record = Mapping[str, Any]
Cells = Mapping[tuple[str, str], CellRecord]


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table.

    Attributes:
        rank: ``1``, ``2``, ...; or why the row has none: ``bound``, ``part`` (not all mixtures scored), ``few`` (too few clusters), ``size`` (other
            rows have more mixtures, and the metric depends on their number), ``failed``; empty for a paper's row. ``=`` after it: the best method
            does not beat this one; ``+``: on fewer mixtures than others.
        value: mean of the ranking metric with its interval; ``others``: means of the other metrics.
        published: the papers' numbers with their sources.
        extras: what columns say that are shown by themselves (``columns.Shown``), such as the seconds.
        from_paper: a published method that has no row of ours.
    """

    rank: str
    method: str
    supervision: str
    value: str
    others: tuple[str, ...]
    published: str
    extras: tuple[str, ...]
    n: str
    from_paper: bool = False


@dataclass(frozen=True, slots=True)
class TaskTable:
    """One task: title, column heads, rows from best to worst with incomplete ones last, and footnotes."""

    title: str
    subtitle: str
    value_head: str
    other_heads: tuple[str, ...]
    extra_heads: tuple[str, ...]
    lines: tuple[Line, ...]
    footnotes: tuple[str, ...]


def task_tables(
    frame: pd.DataFrame,
    suite: Suite | None,
    *,
    metrics: Sequence[str] = (),
    cells: Cells | None = None,
    bounds: Mapping[str, str] | None = None,
    evidence: Evidence | None = None,
) -> Iterator[TaskTable]:
    """Lay out a leaderboard.

    Args:
        frame: a leaderboard, see ``columns.COLUMNS``.
        suite: adds the papers' numbers, their notes and the frozen number of mixtures; None for a bare CSV.
        metrics: show these only; the first one ranks. Default: all, ranked by the suite's ranking metric (without a suite: the first of the frame).
        cells: states of a run, for the notes on failed and unsupported methods.
        bounds: method -> ``lower``, ``upper`` or empty. Default: what the registered methods say of themselves.
        evidence: per-example values, which tell the methods that the best one does not beat.
    """
    if bounds is None:
        bounds = {method: _bound(method) for method in frame["method"].unique()}
    for task in dict.fromkeys(frame["task"]):
        records = frame[frame["task"] == task].to_dict("records")
        present = list(dict.fromkeys(record["metric"] for record in records))
        chosen = [metric for metric in metrics if metric in present] or present
        ranking = suite.ranking_metric if suite is not None and not metrics and suite.ranking_metric in chosen else chosen[0]
        layout = _Layout(str(task), {(record["method"], record["metric"]): record for record in records}, chosen, ranking, suite, cells or {}, bounds, evidence)
        if not metrics:
            layout.add_papers_of_other_metrics()
        yield layout.table()


def _bound(method: str) -> str:
    try:
        return create_separator(method).info.bound
    except SepbenchError:  # a method that is not installed here; its row still knows if it is an oracle
        return ""


class _Layout:
    """The table of one task."""

    def __init__(
        self,
        task: str,
        records: Mapping[tuple[str, str], Record],
        metrics: Sequence[str],
        ranking: str,
        suite: Suite | None,
        cells: Cells,
        bounds: Mapping[str, str],
        evidence: Evidence | None,
    ) -> None:
        self.task, self.records, self.suite, self.cells, self.bounds, self.evidence = task, records, suite, cells, bounds, evidence
        self.ranking = ranking
        self.others = [metric for metric in metrics if metric != ranking]
        self.methods = list(dict.fromkeys(method for method, _ in records))
        self.first: dict[str, Record] = {}
        for (method, _), record in records.items():
            self.first.setdefault(method, record)
        rows = self.first.values()
        shown = ((column, column.shown) for column in columns.COLUMNS if column.shown is not None)
        self.extras = [(column, how) for column, how in shown if how.always or any(_said(record[column.name]) for record in rows)]
        timed = ((record, column, how) for column, how in self.extras if how.timing_group for record in rows)
        groups = dict.fromkeys(_machine(record, how) for record, column, how in timed if _said(record[column.name]))
        self.timing = {group: chr(ord("a") + number) for number, group in enumerate(groups)}
        self.stars: dict[str, None] = {}
        task_of_suite = suite.tasks.get(task) if suite is not None else None
        self.frozen = task_of_suite.n_examples if task_of_suite else max(record["n_expected"] for record in self.first.values())
        self.papers: Sequence[PublishedRow] = [row for row in suite.published if row.task == task and row.metric in metrics] if suite is not None else []
        self.paper_notes: dict[str, int] = {}

    def add_papers_of_other_metrics(self) -> None:
        """Published numbers of metrics that the suite does not score by itself (FIDs by InceptionV3, whose weights nobody ships): below, by their names."""
        if self.suite is not None:
            shown, own = {self.ranking, *self.others}, set(self.suite.metrics)
            self.papers = [row for row in self.suite.published if row.task == self.task and (row.metric in shown or row.metric not in own)]

    def table(self) -> TaskTable:
        any_record = next(iter(self.first.values()))
        ranked = self.records.get((self.methods[0], self.ranking), any_record)
        direction = "higher" if ranked["higher_is_better"] else "lower"
        unit = "" if ranked["unit"] in ("", "1") else f"{ranked['unit']}, "
        subtitle = f"{self._size()}, ranked by {self.ranking} ({unit}{direction} is better), in brackets its 95 % interval"
        if all(record["budget"] == "quick" for record in self.first.values()):
            subtitle += ", quick budget"
        if str(any_record["task_digest"]).startswith(NOT_FROZEN):
            subtitle += ", list of mixtures not frozen"
        lines = tuple(self._lines())
        return TaskTable(
            title=f"{any_record['suite']} version {any_record['suite_version']}: {self.task}",
            subtitle=subtitle,
            value_head=self.ranking,
            other_heads=tuple(self.others),
            extra_heads=tuple(how.head for _, how in self.extras),
            lines=lines,
            footnotes=tuple(self._footnotes()),
        )

    def _size(self) -> str:
        planned = {record["n_expected"] for record in self.first.values()}
        if planned == {self.frozen}:
            return f"{self.frozen:,} mixtures"
        if len(planned) == 1:
            return f"first {planned.pop():,} of {self.frozen:,} mixtures"
        return f"up to {max(planned):,} of {self.frozen:,} mixtures"

    def _lines(self) -> Iterator[Line]:
        self.most = self._most()
        marks = {method: self._mark(method) for method in self.methods}
        order = sorted(
            self.methods,
            key=lambda method: (("", "bound", "few", "size", "part", "failed").index(marks[method]) > 3, marks[method] == "failed", self._loss(method)),
        )
        ranked = [method for method in order if not marks[method]]
        losses = [self._loss(method) for method in ranked]
        self.equal, self.shorter = self._equals(ranked), self._shorter(ranked)
        for method in order:
            # Equal values share a rank, and the next one counts them all.
            rank = marks[method] or str(1 + sum(loss < self._loss(method) for loss in losses)) + "=" * (method in self.equal) + "+" * (method in self.shorter)
            yield self._line(method, rank)
        self.few = [method for method in order if marks[method] == "few"]
        self.other_size = [method for method in order if marks[method] == "size"]
        yield from self._paper_lines()

    def _equals(self, ranked: Sequence[str]) -> frozenset[str]:
        if self.evidence is None or not ranked:
            return frozenset()
        higher = bool(self.records[ranked[0], self.ranking]["higher_is_better"])
        return self.evidence.equals(self.task, self.ranking, ranked, higher)

    def _shorter(self, ranked: Sequence[str]) -> frozenset[str]:
        """Ranked methods with fewer mixtures than others."""
        counts = {method: self.records[method, self.ranking]["n_scored"] for method in ranked}
        return frozenset(method for method, count in counts.items() if count < max(counts.values()))

    def _most(self) -> int:
        """The largest number of mixtures of a row, where the ranking metric depends on it (FID): rows of fewer are not ranked; else 0."""
        try:
            of_sets = get_metric(self.ranking).info.per == "set"
        except SepbenchError:  # not installed here
            of_sets = False
        counts = (record["n_scored"] for (_, metric), record in self.records.items() if metric == self.ranking)
        return max(counts, default=0) if of_sets else 0

    def _mark(self, method: str) -> str:
        """Why a method is not ranked; empty if it is."""
        record = self.records.get((method, self.ranking))
        if record is None or not record["n_scored"] or not math.isfinite(record["mean"]):
            return "failed"
        if record["n_scored"] < record["n_expected"]:
            return "part"
        if self.bounds.get(method) or record["supervision"] == "bound":
            return "bound"
        if self.most and record["n_scored"] < self.most:
            return "size"
        return "few" if 0 < record["n_clusters"] < MIN_CLUSTERS else ""

    def _loss(self, method: str) -> float:
        record = self.records.get((method, self.ranking))
        if record is None or not math.isfinite(record["mean"]):
            return math.inf
        # The CSV's six digits decide ties, so that a run and its CSV rank alike.
        value = float(f"{record['mean']:.6g}")
        return -value if record["higher_is_better"] else value

    def _line(self, method: str, rank: str) -> Line:
        record, main = self.first[method], self.records.get((method, self.ranking))
        scored, expected = (main or record)["n_scored"], record["n_expected"]
        return Line(
            rank=rank,
            method=method,
            supervision=record["supervision"],
            value=with_interval(main) if main else "",
            others=tuple(_mean(self.records.get((method, metric))) for metric in self.others),
            published=self._published(method),
            extras=tuple(self._extra(record, column, how) for column, how in self.extras),
            n=f"{scored:,}" if scored == expected else f"{scored:,}/{expected:,}",
        )

    def _extra(self, record: Record, column: Column, how: Shown) -> str:
        value = record[column.name]
        if not _said(value):
            return ""
        text = str(value) if column.kind != "number" else f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"
        if how.flag and record[how.flag]:
            self.stars.setdefault(f"* {how.head}: {how.flag_note}")
            text += "*"
        return f"{text} {self.timing[_machine(record, how)]}" if how.timing_group and len(self.timing) > 1 else text

    def _published(self, method: str) -> str:
        """The papers' numbers beside a row of ours."""
        ours = {row.metric: row for row in reversed(self.papers) if row.method == method and (method, row.metric) in self.records}
        return self._papers_text([ours[metric] for metric in (self.ranking, *self.others) if metric in ours])

    def _paper_lines(self) -> Iterator[Line]:
        """Published methods without a row of ours, best first within each metric."""
        missing = [row for row in self.papers if (row.method, row.metric) not in self.records]
        known = (self.ranking, *self.others)
        place = {metric: number for number, metric in enumerate(dict.fromkeys((*known, *(row.metric for row in missing))))}
        grouped: dict[tuple[str, str], list[PublishedRow]] = {}
        for row in sorted(missing, key=lambda row: place[row.metric]):
            grouped.setdefault((row.title, row.source), []).append(row)
        directions = {metric: record["higher_is_better"] for (_, metric), record in self.records.items()}

        def order(rows: list[PublishedRow]) -> tuple[int, float]:
            head = rows[0]
            return place[head.metric], -head.value if directions.get(head.metric, True) else head.value

        for rows in sorted(grouped.values(), key=order):
            extras = ("",) * len(self.extras)
            yield Line("", rows[0].title, "", "", ("",) * len(self.others), self._papers_text(rows), extras, "", from_paper=True)

    def _papers_text(self, rows: Sequence[PublishedRow]) -> str:
        """``24.1, ssim 0.86 NES Table 1 (2,3)``: numbers of one source together, the ranking metric's without its name."""
        texts = []
        for source in dict.fromkeys(row.source for row in rows):
            numbers: list[str] = []
            marks: set[int] = set()
            for row in (row for row in rows if row.source == source):
                name, spread = "" if row.metric == self.ranking else f"{row.metric} ", f" +-{row.std:g}" if row.std is not None else ""
                numbers.append(f"{name}{row.value!r}{spread}")
                for part in filter(None, row.notes.split("; ")):  # one footnote per remark: papers' rows share most of them
                    marks.add(self.paper_notes.setdefault(part, len(self.paper_notes) + 1))
            texts.append(f"{', '.join(numbers)} {source}" + (f" ({','.join(map(str, sorted(marks)))})" if marks else ""))
        return "; ".join(texts)

    def _footnotes(self) -> Iterator[str]:
        yield from self._interval_notes()
        if len(self.timing) == 1:
            yield f"seconds on {next(iter(self.timing))}"
        for group, letter in self.timing.items() if len(self.timing) > 1 else ():
            yield f"{letter}: seconds on {group}, compare only with the same letter"
        yield from self.stars
        for prior in dict.fromkeys(record["prior"] for record in self.first.values() if record["prior"]):
            yield f"prior {prior}: {', '.join(method for method, record in self.first.items() if record['prior'] == prior)}"
        for method, record in self.first.items():
            yield from self._method_notes(method, record)
        for (task, method), cell in self.cells.items():
            note = cell.note if task == self.task else ""
            if note:
                yield f"{method}{' does not take this task' if cell.state == 'unsupported' else ''}: {note}"
        for note, number in self.paper_notes.items():
            yield f"({number}) {note}"

    def _interval_notes(self) -> Iterator[str]:
        """How the intervals were made, and what the signs behind ranks mean."""
        made: dict[tuple[str, str], list[str]] = {}
        for method, record in ((method, self.records.get((method, self.ranking))) for method in self.methods):
            if record is not None and math.isfinite(record["ci_low"]):
                made.setdefault((record["interval"], record["cluster"]), []).append(method)
        for (interval, unit), methods in made.items():
            counts = [self.records[method, self.ranking]["n_clusters"] for method in methods]
            whose = "intervals" if len(made) == 1 else f"intervals of {', '.join(methods)}"
            unaware = ", as if no two shared a signal" if interval == OLD_INTERVAL else ""
            yield f"{whose}: {interval}{clusters_text(min(counts), max(counts), unit)}{unaware}"
        if self.equal:
            yield "=: the best method does not beat it (paired one-sided test, 5 % for all rows together)"
        if self.shorter:
            yield "+: ranked on fewer mixtures than others"
        if self.other_size:
            yield f"size: {self.ranking} depends on the number of mixtures, and others have {self.most:,}: not ranked"
        if self.few:
            yield f"few: not ranked below {MIN_CLUSTERS} {self.records[self.few[0], self.ranking]['cluster']}s"

    def _method_notes(self, method: str, record: Record) -> Iterator[str]:
        main = self.records.get((method, self.ranking), record)
        if main["n_scored"] < main["n_expected"]:
            error = self.cells.get((self.task, method), CellRecord()).error
            missing = main["n_expected"] - main["n_scored"] - main["n_failed"]
            parts = [f"{main['n_failed']:,} failed"] * bool(main["n_failed"]) + [f"{missing:,} not reached"] * (missing > 0)
            yield f"{method}: {main['n_scored']:,} of {main['n_expected']:,} mixtures scored, {', '.join(parts)}" + (f" ({error})" if error else "")
        if record["n_expected"] < self.frozen and len({other["n_expected"] for other in self.first.values()}) > 1:
            yield f"{method}: first {record['n_expected']:,} of {self.frozen:,} mixtures"
        if record["samples"] > 1:
            yield f"{method}: {record['samples']} samples per mixture"
        if record["budget"] == "quick" and any(other["budget"] != "quick" for other in self.first.values()):
            yield f"{method}: quick budget"


def clusters_text(least: int, most: int, unit: str) -> str:
    """`` over 52 songs``, `` over 25 to 3,456 images``; empty where clusters are not known."""
    if not most:
        return ""
    count = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    return f" over {count} {unit}{'' if most == 1 else 's'}"


def _said(value: Any) -> bool:
    """Whether a row has a value in a column."""
    return not (value is False or value == "" or (isinstance(value, float) and math.isnan(value)))


def _machine(record: Record, how: Shown) -> str:
    """On which machine a row's seconds were measured."""
    return str(record[how.timing_group] or record["timing_group"])


def number_format(unit: str, size: float) -> Callable[[float], str]:
    """How values of a unit and a size are written: two decimals for dB and three for others, more for small ones, powers of ten for tiny ones."""
    usual = 2 if unit == "dB" else 3
    if size == 0 or size >= 10.0 ** (1 - usual):
        return f"{{:.{usual}f}}".format
    if size >= 10.0 ** (-1 - usual):
        return f"{{:.{usual + 2}f}}".format
    return "{:.1e}".format


def _mean(record: Record | None) -> str:
    if record is None or not math.isfinite(record["mean"]):
        return ""
    return number_format(record["unit"], abs(record["mean"]))(record["mean"])


def with_interval(record: Record) -> str:
    """``16.02 [15.95, 16.09]``."""
    if not math.isfinite(record["mean"]):
        return ""
    write = number_format(record["unit"], abs(record["mean"]))
    if not math.isfinite(record["ci_low"]):
        return write(record["mean"])
    return f"{write(record['mean'])} [{write(record['ci_low'])}, {write(record['ci_high'])}]"
