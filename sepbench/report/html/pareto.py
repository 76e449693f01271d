"""Quality against cost: seconds per mixture, one timing group at a time, and evaluations of a prior where rows say how many it took."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sepbench.report.footnotes import machine_words
from sepbench.report.html import charts
from sepbench.report.html.board import TaskView, kind_of
from sepbench.report.html.leaderboard import in_best_group
from sepbench.report.numbers import with_interval


@dataclass(frozen=True, slots=True)
class Pareto:
    """One chart; ``groups`` are timing groups in words with their numbers of methods, the first is shown."""

    title: str
    groups: tuple[tuple[str, int], ...]
    chart: charts.Chart


def pareto(view: TaskView) -> list[Pareto]:
    """The charts of a task: none where fewer than two methods have a cost."""
    quality = f"{view.metric.name}{'' if view.metric.unit in ('', '1') else f' [{view.metric.unit}]'}"
    seconds = list(_rows(view, "seconds_per_mixture"))
    found = []
    if len(seconds) > 1:
        words = f"{view.metric.name} of every method on {view.task} against its seconds per mixture; both stand in the table"
        found.append(_chart("Quality against seconds", seconds, quality, "seconds per mixture", words))
    evaluations = [row | {"group": "evaluations"} for row in _rows(view, "evaluations_per_mixture")]  # the same on every machine
    if len(evaluations) > 1:
        words = f"{view.metric.name} of every method on {view.task} that counted them against evaluations of its prior; both stand in the table"
        found.append(_chart("Quality against network evaluations", evaluations, quality, "evaluations per mixture and source", words))
    return found


def _chart(title: str, rows: list[dict[str, Any]], quality: str, axis: str, words: str) -> Pareto:
    counts = {group: sum(row["group"] == group for row in rows) for group in dict.fromkeys(row["group"] for row in rows)}
    groups = tuple(sorted(counts.items(), key=lambda item: -item[1]))
    for group in counts:
        _mark_front([row for row in rows if row["group"] == group and row["ranks"]])
        _turn_names([row for row in rows if row["group"] == group])
    return Pareto(title, groups, charts.pareto(rows, quality, axis, words))


def _rows(view: TaskView, column: str) -> Iterator[dict[str, Any]]:
    """Rows with a cost; nothing can stand at 0 on a logarithmic axis."""
    higher = view.metric.higher_is_better
    for line in view.lines:
        record = None if line.from_paper else view.records.get((line.method, view.metric.name))
        if record is None or not math.isfinite(record["mean"]):
            continue
        cost = float(record[column])
        if not (math.isfinite(cost) and cost > 0):
            continue
        yield {
            "method": line.method,
            "cost": cost,
            "mean": float(record["mean"]),
            "loss": -float(record["mean"]) if higher else float(record["mean"]),
            "low": float(record["ci_low"]),
            "high": float(record["ci_high"]),
            "text": with_interval(record),
            "told": f"{cost:.3g}" if cost < 1000 else f"{cost:,.0f}",
            "group": machine_words(str(record["timing_group"])) or "unknown machine",
            "style": "equal to the best" if in_best_group(line) else {"ranked": "ranked", "bound": "bounds"}.get(kind_of(line), "not ranked"),
            "ranks": kind_of(line) == "ranked",
        }


def _turn_names(rows: list[dict[str, Any]]) -> None:
    """Names stand to the right of their points, and to the left of those near the right edge, where there is no room."""
    places = [math.log(row["cost"]) for row in rows]
    middle = min(places) + 0.6 * (max(places) - min(places))
    for row, place in zip(rows, places, strict=True):
        row["turned"] = place > middle


def _mark_front(rows: list[dict[str, Any]]) -> None:
    """Rows that nothing beats at the same cost or less."""
    best = math.inf
    for row in sorted(rows, key=lambda row: (row["cost"], row["loss"])):
        row["front"] = row["loss"] < best
        best = min(best, row["loss"])
