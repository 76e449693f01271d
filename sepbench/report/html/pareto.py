"""Quality against cost: seconds per mixture, one timing group at a time, and evaluations of a network where methods say how many they take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sepbench.errors import SepbenchError
from sepbench.registry import create_separator
from sepbench.report.html import charts
from sepbench.report.html.board import TaskView, kind_of
from sepbench.report.html.leaderboard import in_best_group
from sepbench.report.numbers import with_interval


@dataclass(frozen=True, slots=True)
class Pareto:
    """One chart; ``groups`` are timing groups with their numbers of methods, the first is shown."""

    title: str
    groups: tuple[tuple[str, int], ...]
    chart: charts.Chart


def pareto(view: TaskView) -> list[Pareto]:
    """The charts of a task: none where fewer than two methods have a cost."""
    quality = f"{view.metric.name}{'' if view.metric.unit in ('', '1') else f' [{view.metric.unit}]'}"
    seconds = [row for row in _rows(view) if row["cost"] > 0]
    found = []
    if len(seconds) > 1:
        words = f"{view.metric.name} of every method on {view.task} against its seconds per mixture; both stand in the table"
        found.append(_chart("Quality against seconds", seconds, quality, "seconds per mixture", words))
    evaluations = [row for row in _with_evaluations(view, _rows(view)) if row["cost"] > 0]
    if len(evaluations) > 1:
        words = f"{view.metric.name} on {view.task} against evaluations of the network per source"
        found.append(_chart("Quality against network evaluations", evaluations, quality, "evaluations per source", words))
    return found


def _chart(title: str, rows: list[dict[str, Any]], quality: str, axis: str, words: str) -> Pareto:
    counts = {group: sum(row["group"] == group for row in rows) for group in dict.fromkeys(row["group"] for row in rows)}
    groups = tuple(sorted(counts.items(), key=lambda item: -item[1]))
    for group in counts:
        _mark_front([row for row in rows if row["group"] == group and row["ranks"]])
    return Pareto(title, groups, charts.pareto(rows, quality, axis, words))


def _rows(view: TaskView) -> Iterator[dict[str, Any]]:
    higher = view.metric.higher_is_better
    for line in view.lines:
        record = None if line.from_paper else view.records.get((line.method, view.metric.name))
        if record is None or not math.isfinite(record["mean"]):
            continue
        cost = float(record["seconds_per_mixture"])
        yield {
            "method": line.method,
            "cost": cost if math.isfinite(cost) else 0.0,
            "mean": float(record["mean"]),
            "loss": -float(record["mean"]) if higher else float(record["mean"]),
            "low": float(record["ci_low"]),
            "high": float(record["ci_high"]),
            "text": with_interval(record),
            "seconds": f"{cost:.3g}",
            "group": str(record["timing_group"]) or "unknown machine",
            "style": "equal to the best" if in_best_group(line) else {"ranked": "ranked", "bound": "bounds"}.get(kind_of(line), "not ranked"),
            "ranks": kind_of(line) == "ranked",
        }


def _with_evaluations(view: TaskView, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of methods that say how often they call a network: with an attribute ``evaluations``, calls per source and mixture."""
    record = view.board.record
    domain = view.board.results.suite.domain if view.board.results.suite is not None else None
    for row in rows:
        settings = record.methods[row["method"]].settings if record is not None and row["method"] in record.methods else None
        try:
            count = getattr(create_separator(row["method"], settings, domain), "evaluations", None)
        except SepbenchError:  # not installed here, or other settings than it had
            continue
        if isinstance(count, int | float):
            yield row | {"cost": float(count), "seconds": f"{count:,}", "group": "evaluations"}


def _mark_front(rows: list[dict[str, Any]]) -> None:
    """Rows that nothing beats at the same cost or less."""
    best = math.inf
    for row in sorted(rows, key=lambda row: (row["cost"], row["loss"])):
        row["front"] = row["loss"] < best
        best = min(best, row["loss"])
