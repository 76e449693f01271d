"""Quality against one setting, where runs have it: NES(k) against its iterations, best-of-N against the number of draws, and any other.

A curve is made of rows of one suite and one method's code whose settings differ in nothing but one number. They may stand in one run under several names
(``projected-4x``, ``projected-8x``), or in several runs of one name (``--set nes.iterations=3``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sepbench.report.html import charts
from sepbench.report.html.board import Board
from sepbench.report.numbers import with_interval

LEAST = 2
"""Values of the setting that make a curve."""


@dataclass(frozen=True, slots=True)
class Curves:
    """The curves of one task along one setting."""

    task: str
    setting: str
    chart: charts.Chart


@dataclass(frozen=True, slots=True)
class _Point:
    """A row, with what its method was set to."""

    task: str
    source: str
    name: str
    settings: Mapping[str, Any]
    row: Mapping[str, Any]


def curves(boards: Sequence[Board]) -> list[Curves]:
    """All curves of runs of one suite; none of leaderboards, which do not say their settings."""
    points = [point for board in boards for point in _points(board)]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for task, source in dict.fromkeys((point.task, point.source) for point in points):
        group = [point for point in points if (point.task, point.source) == (task, source)]
        for setting in dict.fromkeys(name for point in group for name in point.settings):
            for line in _lines(group, setting):
                found.setdefault((task, setting), []).extend(line)
    metric = boards[0].results.ranking_metric if boards else ""
    return [Curves(task, setting, _chart(rows, setting, task, metric)) for (task, setting), rows in found.items()]


def _points(board: Board) -> Iterator[_Point]:
    record, frame = board.record, board.results.frame
    if record is None:
        return
    for row in frame[frame["metric"] == board.results.ranking_metric].to_dict("records"):
        entry = record.methods.get(str(row["method"]))
        if entry is not None and entry.source and math.isfinite(row["mean"]):
            yield _Point(str(row["task"]), entry.source, str(row["method"]), entry.settings, {str(key): value for key, value in row.items()})


def _lines(group: Sequence[_Point], setting: str) -> Iterator[list[dict[str, Any]]]:
    """Rows that differ in nothing but a numeric setting, as points of one line each."""
    alike: dict[str, list[_Point]] = {}
    for point in group:
        value = point.settings.get(setting)
        if isinstance(value, int | float) and not isinstance(value, bool):
            rest = {name: other for name, other in point.settings.items() if name != setting}
            alike.setdefault(json.dumps(rest, sort_keys=True, default=str), []).append(point)
    for points in alike.values():
        by_value = {point.settings[setting]: point for point in points}
        if len(by_value) < LEAST:
            continue
        names = list(dict.fromkeys(point.name for point in by_value.values()))
        label = names[0] if len(names) == 1 else " / ".join(sorted(names, key=len))
        yield [
            {
                "method": label,
                "x": float(value),
                "y": float(point.row["mean"]),
                "low": float(point.row["ci_low"]),
                "high": float(point.row["ci_high"]),
                "text": f"{setting} = {value:g}: {with_interval(point.row)} ({point.name})",
            }
            for value, point in sorted(by_value.items())
        ]


def _chart(rows: list[dict[str, Any]], setting: str, task: str, metric: str) -> charts.Chart:
    values = [row["x"] for row in rows]
    log = min(values) > 0 and max(values) / min(values) > 10
    return charts.lines(rows, setting, metric, f"{metric} on {task} against the setting {setting}", log=log, points=True)
