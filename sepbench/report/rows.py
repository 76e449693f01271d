"""What a leaderboard's table says, before anything is drawn: ranks, marks, cells as text, footnotes. One ``TaskTable`` per task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from sepbench.errors import SepbenchError
from sepbench.metrics.catalogue import get_metric
from sepbench.report.footnotes import Footnote, note_texts, task_notes
from sepbench.report.numbers import Record, mean_text, said, with_interval
from sepbench.results import columns
from sepbench.results.columns import Column, Shown
from sepbench.results.statistics import MIN_CLUSTERS
from sepbench.run.method_infos import method_infos
from sepbench.run.records import CellRecord
from sepbench.suites import NOT_FROZEN
from sepbench.suites.loader import NEVER_RANKING

if TYPE_CHECKING:
    from sepbench.results.ranking import Evidence
    from sepbench.suites.model import Suite
    from sepbench.suites.published import PublishedRow

Cells = Mapping[tuple[str, str], CellRecord]


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table.

    Attributes:
        rank: ``1``, ``2``, ...; or why the row has none: ``bound``, ``part`` (not all mixtures scored), ``few`` (too few clusters), ``size`` (other
            rows have more mixtures, and the metric depends on their number), ``never`` (the metric must not rank), ``failed``; empty for a paper's row.
            ``=`` after it: the best method does not beat this one; ``+``: on fewer mixtures than others.
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
    """One task: title, column heads, rows from best to worst with incomplete ones last, and footnotes.

    Numbers and letters of footnotes are those of the page that the table stands on.
    """

    task: str
    title: str
    subtitle: str
    value_head: str
    other_heads: tuple[str, ...]
    extra_heads: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[Footnote, ...]

    @property
    def footnotes(self) -> tuple[str, ...]:
        """The notes, as they stand below a table that is alone on its page."""
        return note_texts({self.task: self.notes})


@dataclass(frozen=True, slots=True)
class RowSelection:
    """Which rows of each task are shown; their ranks are those among all.

    Attributes:
        methods: these only; empty for all. Papers' rows of other methods go too.
        top: the first so many, bounds not counted; as many of the papers' rows. None for all.
    """

    methods: Sequence[str] = ()
    top: int | None = None


def task_tables(
    frame: pd.DataFrame,
    suite: Suite | None,
    *,
    metrics: Sequence[str] = (),
    cells: Cells | None = None,
    bounds: Mapping[str, str] | None = None,
    evidence: Evidence | None = None,
    selection: RowSelection | None = None,
) -> Iterator[TaskTable]:
    """Lay out a leaderboard: the tables of one page.

    Args:
        frame: a leaderboard, see ``columns.COLUMNS``.
        suite: adds the papers' numbers, their notes and the frozen number of mixtures; None for a bare CSV.
        metrics: show these only; the first one ranks. Default: all, ranked by the suite's ranking metric (without a suite: the first of the frame).
        cells: states of a run, for the notes on failed and unsupported methods.
        bounds: method -> ``lower``, ``upper`` or empty. Default: what the registered methods say of themselves.
        evidence: per-example values, which tell the methods that the best one does not beat.
        selection: show fewer rows. A task without any of them has no table.
    """
    if bounds is None:
        bounds = _bounds(frame["method"].unique())
    layouts = []
    for task in dict.fromkeys(frame["task"]):
        records = frame[frame["task"] == task].to_dict("records")
        present = list(dict.fromkeys(record["metric"] for record in records))
        chosen = [metric for metric in metrics if metric in present] or present
        ranking = suite.ranking_metric if suite is not None and not metrics and suite.ranking_metric in chosen else chosen[0]
        layout = TaskLayout(
            str(task), {(record["method"], record["metric"]): record for record in records}, chosen, ranking, suite, cells or {}, bounds, evidence
        )
        if not metrics:
            layout.add_papers_of_other_metrics()
        layout.rank(selection or RowSelection())
        layouts += [layout] * bool(layout.shown)
    groups = list(dict.fromkeys(group for layout in layouts for group in layout.groups()))
    marks = PageMarks({group: _letters(number) for number, group in enumerate(groups)}, {})
    yield from (layout.table(marks) for layout in layouts)


@dataclass(frozen=True, slots=True)
class PageMarks:
    """What a page's tables share.

    Attributes:
        timing: machine -> the letter behind its seconds.
        papers: remark on a published number -> its number.
    """

    timing: Mapping[str, str]
    papers: dict[str, int]


def _letters(number: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    return (_letters(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def _bounds(methods: Iterable[str]) -> dict[str, str]:
    """Empty for a method that is not installed here; its row still knows if it is an oracle."""
    infos = method_infos(methods)
    return {name: "" if isinstance(found, SepbenchError) else found[0].bound for name, found in infos.items()}


class TaskLayout:
    """The table of one task; ``rank`` decides which rows it has, and then ``table`` draws it up with the marks of its page."""

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
        self.stars: dict[str, None] = {}
        self.remarks: dict[str, int] = {}
        task_of_suite = suite.tasks.get(task) if suite is not None else None
        self.frozen = task_of_suite.n_examples if task_of_suite else max(record["n_expected"] for record in self.first.values())
        self.papers: Sequence[PublishedRow] = [row for row in suite.published if row.task == task and row.metric in metrics] if suite is not None else []

    def add_papers_of_other_metrics(self) -> None:
        """Published numbers of metrics that the suite does not score by itself (FIDs by InceptionV3, whose weights nobody ships): below, by their names."""
        if self.suite is not None:
            shown, own = {self.ranking, *self.others}, set(self.suite.metrics)
            self.papers = [row for row in self.suite.published if row.task == self.task and (row.metric in shown or row.metric not in own)]

    def rank(self, selection: RowSelection) -> None:
        """Ranks among all methods, then the rows that are shown."""
        self.selection = selection
        self.most = self._most()
        marks = {method: self._mark(method) for method in self.methods}
        order = sorted(
            self.methods,
            key=lambda method: (marks[method] in ("part", "failed"), marks[method] == "failed", self._loss(method)),
        )
        ranked = [method for method in order if not marks[method]]
        losses = [self._loss(method) for method in ranked]
        self.equal, self.untested = self._against_best(ranked)
        self.shorter = self._shorter(ranked)
        # Equal values share a rank, and the next one counts them all.
        self.ranks = {method: marks[method] or str(1 + sum(loss < self._loss(method) for loss in losses)) for method in order}
        chosen = [method for method in order if not selection.methods or method in selection.methods]
        counted = [method for method in chosen if marks[method] != "bound"] if selection.top is not None else []
        if selection.top is not None and selection.top < len(counted):
            chosen = chosen[: chosen.index(counted[selection.top - 1]) + 1]
        self.n_methods, self.shown = len(order), chosen
        self.first = {method: record for method, record in self.first.items() if method in chosen}
        self.equal, self.untested, self.shorter = (found & set(chosen) for found in (self.equal, self.untested, self.shorter))
        rows = self.first.values()
        shown = ((column, column.shown) for column in columns.COLUMNS if column.shown is not None)
        measured = not all(record["estimates_sha256"] for record in rows)  # nobody measured estimates that were supplied
        self.extras = [(column, how) for column, how in shown if (how.always and measured) or any(said(record[column.name]) for record in rows)]

    def groups(self) -> Iterator[str]:
        """The machines whose seconds are shown."""
        timed = ((record, column, how) for column, how in self.extras if how.timing_group for record in self.first.values())
        yield from (_machine(record, how) for record, column, how in timed if said(record[column.name]))

    def table(self, marks: PageMarks) -> TaskTable:
        self.marks = marks
        any_record = next(iter(self.first.values()))
        ranked = self.records.get((self.methods[0], self.ranking), any_record)
        direction = "higher" if ranked["higher_is_better"] else "lower"
        unit = "" if ranked["unit"] in ("", "1") else f"{ranked['unit']}, "
        sorted_by = "not ranked, sorted" if self.ranking in NEVER_RANKING else "ranked"
        subtitle = f"{self._size()}, {sorted_by} by {self.ranking} ({unit}{direction} is better), in brackets its 95 % interval"
        if all(record["budget"] == "quick" for record in self.first.values()):
            subtitle += ", quick budget"
        if str(any_record["task_digest"]).startswith(NOT_FROZEN):
            subtitle += ", list of mixtures not frozen"
        if len(self.shown) < self.n_methods:
            subtitle += f"; {len(self.shown):,} of {self.n_methods:,} methods shown"
        lines = tuple(self._lines())
        return TaskTable(
            task=self.task,
            title=f"{any_record['suite']} version {any_record['suite_version']}: {self.task}",
            subtitle=subtitle,
            value_head=self.ranking,
            other_heads=tuple(self.others),
            extra_heads=tuple(how.head for _, how in self.extras),
            lines=lines,
            notes=tuple(task_notes(self)),
        )

    @property
    def marks_shown(self) -> set[str]:
        """Ranks, and marks in their place, of the rows that are shown."""
        return {self.ranks[method] for method in self.shown}

    @property
    def lengths_differ(self) -> bool:
        """Whether the task's rows are of different numbers of mixtures."""
        return len({record["n_expected"] for record in self.first.values()}) > 1

    def _size(self) -> str:
        planned = {record["n_expected"] for record in self.first.values()}
        if planned == {self.frozen}:
            return f"{self.frozen:,} mixtures"
        if len(planned) == 1:
            return f"first {planned.pop():,} of {self.frozen:,} mixtures"
        return f"up to {max(planned):,} of {self.frozen:,} mixtures"

    def _lines(self) -> Iterator[Line]:
        for method in self.shown:
            yield self._line(method, self.ranks[method] + "=" * (method in self.equal) + "+" * (method in self.shorter))
        yield from self._paper_lines()

    def _against_best(self, ranked: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
        """Ranked methods that the best one does not beat, and those that could not be tested."""
        if self.evidence is None or not ranked:
            return frozenset(), frozenset()
        higher = bool(self.records[ranked[0], self.ranking]["higher_is_better"])
        found = self.evidence.against_best(self.task, self.ranking, ranked, higher)
        return found.equal, found.untested

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
        if self.ranking in NEVER_RANKING:
            return "never"
        return "few" if 0 < record["n_clusters"] < MIN_CLUSTERS else ""

    def is_bound(self, method: str) -> bool:
        """Whether a row is there for comparison."""
        return bool(self.bounds.get(method)) or self.first[method]["supervision"] == "bound"

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
            others=tuple(mean_text(self.records.get((method, metric))) for metric in self.others),
            published=self._published(method),
            extras=tuple(self._extra(record, column, how) for column, how in self.extras),
            n=f"{scored:,}" if scored == expected else f"{scored:,}/{expected:,}",
        )

    def _extra(self, record: Record, column: Column, how: Shown) -> str:
        value = record[column.name]
        if not said(value):
            return ""
        text = str(value) if column.kind != "number" else f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"
        if how.flag and record[how.flag]:
            self.stars.setdefault(f"* {how.head}: {how.flag_note}")
            text += "*"
        return f"{text} {self.marks.timing[_machine(record, how)]}" if how.timing_group and len(self.marks.timing) > 1 else text

    def _published(self, method: str) -> str:
        """The papers' numbers beside a row of ours."""
        ours = {row.metric: row for row in reversed(self.papers) if row.method == method and (method, row.metric) in self.records}
        return self._papers_text([ours[metric] for metric in (self.ranking, *self.others) if metric in ours])

    def _paper_lines(self) -> Iterator[Line]:
        """Published methods without a row of ours, best first within each metric."""
        only = self.selection.methods
        missing = [row for row in self.papers if (row.method, row.metric) not in self.records and (not only or row.method in only)]
        known = (self.ranking, *self.others)
        place = {metric: number for number, metric in enumerate(dict.fromkeys((*known, *(row.metric for row in missing))))}
        grouped: dict[tuple[str, str], list[PublishedRow]] = {}
        for row in sorted(missing, key=lambda row: place[row.metric]):
            grouped.setdefault((row.title, row.source), []).append(row)
        directions = {metric: record["higher_is_better"] for (_, metric), record in self.records.items()}

        def order(rows: list[PublishedRow]) -> tuple[int, float]:
            head = rows[0]
            return place[head.metric], -head.value if directions.get(head.metric, True) else head.value

        for rows in sorted(grouped.values(), key=order)[: self.selection.top]:
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
                    self.remarks[part] = self.marks.papers.setdefault(part, len(self.marks.papers) + 1)
                    marks.add(self.remarks[part])
            texts.append(f"{', '.join(numbers)} {source}" + (f" ({','.join(map(str, sorted(marks)))})" if marks else ""))
        return "; ".join(texts)


def _machine(record: Record, how: Shown) -> str:
    """On which machine a row's seconds were measured."""
    return str(record[how.timing_group] or record["timing_group"])
