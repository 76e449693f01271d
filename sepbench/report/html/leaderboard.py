"""The leaderboard section: ``report/rows.py`` says what stands in the table; here it is put into parts, and numbers are added for sorting and drawing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sepbench.report.html import charts
from sepbench.report.html.board import Record, TaskView, kind_of, slug
from sepbench.report.numbers import with_interval
from sepbench.report.rows import Line
from sepbench.results import columns

PARTS = {
    "ranked": "Ranked",
    "bound": "Bounds, for comparison",
    "unranked": "Not ranked",
    "paper": "Published, without a row of ours",
}


@dataclass(frozen=True, slots=True)
class TableCell:
    """One cell: its text, the number it is sorted by (None: last), and the interval in brackets."""

    text: str
    sort: float | None = None
    interval: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; ``equal``: the best method does not beat it, or it is the best. ``address``: of the method's page, empty for papers' rows."""

    line: Line
    address: str
    equal: bool
    cells: tuple[TableCell, ...]
    extras: tuple[TableCell, ...]
    n: TableCell


@dataclass(frozen=True, slots=True)
class Part:
    """A body of the table; lines are sorted within it."""

    name: str
    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """All of the section."""

    parts: tuple[Part, ...]
    supervisions: tuple[str, ...]
    chart: charts.Chart
    has_published: bool
    tested: bool


def leaderboard(view: TaskView) -> Leaderboard:
    """The section of one task."""
    extras = _extra_columns(view)
    parts = []
    for name, title in PARTS.items():
        rows = tuple(_row(view, line, extras) for line in view.lines if kind_of(line) == name)
        if rows:
            parts.append(Part(name, title, rows))
    levels = dict.fromkeys(line.supervision for line in view.lines if line.supervision)
    equals = any("=" in line.rank for line in view.lines)
    return Leaderboard(tuple(parts), tuple(levels), _chart(view), any(line.published for line in view.lines), equals or bool(view.values))


def method_address(view: TaskView, method: str) -> str:
    """The file of a method's page."""
    return f"method-{view.board.slug}--{slug(method)}.html"


def _extra_columns(view: TaskView) -> list[str]:
    """Names of the columns behind the table's extra heads, so that they can be sorted."""
    by_head = {column.shown.head: column.name for column in columns.COLUMNS if column.shown is not None}
    return [by_head[head] for head in view.table.extra_heads]


def _row(view: TaskView, line: Line, extras: Sequence[str]) -> Row:
    if line.from_paper:
        return Row(line, "", False, (TableCell(""),) * len(view.metrics), (TableCell(""),) * len(extras), TableCell(""))
    record = view.first(line.method)
    texts = dict(zip(view.table.other_heads, line.others, strict=True))
    cells: list[TableCell] = []
    for metric in view.metrics:
        found = view.records.get((line.method, metric.name))
        shown = line.value.partition(" [")[0] if metric.name == view.table.value_head else texts.get(metric.name, "")
        cells.append(TableCell(shown, _number(found, "mean"), _interval(found)))
    beside = tuple(TableCell(text, _number(record, name)) for text, name in zip(line.extras, extras, strict=True))
    return Row(line, method_address(view, line.method), in_best_group(line), tuple(cells), beside, TableCell(line.n, float(record["n_scored"])))


def in_best_group(line: Line) -> bool:
    """Whether a line is the best or the best does not beat it."""
    return kind_of(line) == "ranked" and (line.rank.rstrip("+") == "1" or "=" in line.rank)


def _number(record: Record | None, name: str) -> float | None:
    value = math.nan if record is None else float(record[name])
    return value if math.isfinite(value) else None


def _interval(record: Record | None) -> str:
    return "" if record is None else with_interval(record).partition(" ")[2]


def _chart(view: TaskView) -> charts.Chart:
    """Means with intervals of every metric; the page shows one metric at a time."""
    rows: list[dict[str, Any]] = []
    for metric in view.metrics:
        drawn = list(_points(view, metric.name))
        sign = -1.0 if metric.higher_is_better else 1.0
        drawn.sort(key=lambda point: (list(PARTS).index(point["part"]) if point["part"] != "paper" else 0, sign * point["mean"]))
        rows += [point | {"metric": metric.name, "order": number} for number, point in enumerate(drawn)]
    longest = max((len(str(row["method"])) for row in rows), default=10)
    heads = {metric.name: f"{metric.name}{'' if metric.unit in ('', '1') else f' [{metric.unit}]'}, {metric.direction}" for metric in view.metrics}
    return charts.forest(rows, view.metric.name, heads, longest, f"Means and 95 % intervals of all methods on {view.task}; the table holds the same numbers")


def _points(view: TaskView, metric: str) -> Iterator[dict[str, Any]]:
    for line in view.lines:
        record = None if line.from_paper else view.records.get((line.method, metric))
        if record is not None and math.isfinite(record["mean"]):
            yield {
                "method": line.method,
                "part": kind_of(line),
                "style": "equal to the best" if in_best_group(line) and metric == view.metric.name else PARTS[kind_of(line)].partition(",")[0].lower(),
                "mean": float(record["mean"]),
                "low": _number(record, "ci_low"),
                "high": _number(record, "ci_high"),
                "text": with_interval(record),
                "supervision": line.supervision,
                "n": line.n,
            }
    suite = view.board.results.suite
    ours = set(view.methods)
    for row in suite.published if suite is not None else ():
        if row.task == view.task and row.metric == metric:
            name = row.method if row.method in ours else row.title
            text = f"{row.value!r}" + (f" +-{row.std:g}" if row.std is not None else "")
            part = "paper" if row.method not in ours else view.kind(row.method)
            yield {"method": name, "part": part, "style": "published", "mean": row.value, "text": f"{text}, {row.source}", "supervision": "", "n": row.n or ""}
