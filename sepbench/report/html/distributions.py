"""How the ranking metric is spread over the mixtures: histograms, paired differences of any two methods, shares beyond a threshold.

Values are binned here, so that the page of 25,000 mixtures is no larger than that of 100. Differences are those of ``sepbench compare``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from sepbench.report.html import charts
from sepbench.report.html.board import TaskView
from sepbench.report.numbers import number_format
from sepbench.report.panels.histogram import bin_edges, binned
from sepbench.results.compare import verdict
from sepbench.results.pairing import Floats, difference, pair_up
from sepbench.results.statistics import PairedDifference

_THRESHOLDS, _IN_TABLE = 41, 5
_MOST_PAIRED = 40
"""Methods of which every two are compared; of more, each with the best."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Two methods, the better mean first: texts of the paired difference first - second."""

    first: str
    second: str
    value: str
    n: str
    share: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Distributions:
    """All of the section.

    Attributes:
        pairs: for the page's script: ``methods``, ``histograms``, ``pairs``; see ``assets/pairs.js``.
        against_best: a table that needs no script.
        thresholds: heads of the table of failures; ``failures``: method -> shares of mixtures that are worse.
    """

    histogram: charts.Chart
    note: str
    pair_chart: charts.Chart
    difference_chart: charts.Chart
    pairs: Mapping[str, Any]
    against_best: tuple[Difference, ...]
    interval: str
    failure_chart: charts.Chart
    thresholds: tuple[str, ...]
    failures: tuple[tuple[str, tuple[str, ...]], ...]


def distributions(view: TaskView) -> Distributions | None:
    """The section of a task; None without values per mixture (of a metric of sets there are none either)."""
    finite = {method: values.values[values.scored] for method, values in view.values.items() if values.scored.any() and not values.whole_only}
    if not finite or all(len(values) < 2 for values in finite.values()):
        return None
    bounds = {method: "bound" for method in finite if view.kind(method) == "bound"}
    edges, rows, outside = binned(finite, bounds)
    write, unit = _writer(view)
    axis = f"{view.metric.name} of a mixture{f' [{unit}]' if unit else ''}; {view.metric.direction}"
    cells = [
        {"method": row.method, "low": low, "high": high, "count": count, "share": count / max(1, int(row.counts.max()))}
        for row in rows
        for low, high, count in _bins(edges, row.counts)
        if count
    ]
    marks = [{"method": row.method, "mean": row.mean, "median": row.median, "text": f"{write(row.mean)}, {write(row.median)}"} for row in rows]
    order = [row.method for row in rows]
    histogram = charts.strips(cells, marks, axis, order, f"Histograms of {view.metric.name} over the mixtures of {view.task}, one strip per method")
    note = "each strip is one method's histogram: the darker, the more mixtures; line: mean, dot: median"
    note += f"; {outside:,} values beyond the axis are in the outermost bins" if outside else ""
    pairs, table, interval = _pairs(view, list(finite))
    histograms = {row.method: row.counts.tolist() for row in rows}
    first = [method for method in view.values if method in finite and view.kind(method) == "ranked"][:2]
    data = {"methods": order, "first": first if len(first) == 2 else order[:2], "edges": edges.tolist(), "histograms": histograms, "pairs": pairs}
    failure_chart, thresholds, failures = _failures(view, edges)
    return Distributions(
        histogram,
        note,
        charts.pair_histograms(axis, "Histograms of the two chosen methods over each other"),
        charts.difference_histogram(
            f"difference of {view.metric.name}{f' [{unit}]' if unit else ''}", "Histogram of the paired differences, with their mean's interval"
        ),
        data,
        table,
        interval,
        failure_chart,
        thresholds,
        failures,
    )


def _writer(view: TaskView) -> tuple[Any, str]:
    means = [abs(float(view.first(method)["mean"])) for method in view.values]
    unit = "" if view.metric.unit in ("", "1") else view.metric.unit
    return number_format(view.metric.unit, max((mean for mean in means if math.isfinite(mean)), default=1.0)), unit


def _bins(edges: Floats, counts: Any) -> Iterator[tuple[float, float, int]]:
    for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True):
        yield float(f"{low:.5g}"), float(f"{high:.5g}"), count


def _pairs(view: TaskView, methods: list[str]) -> tuple[list[dict[str, Any]], tuple[Difference, ...], str]:
    """Paired differences of every two methods, the one that stands higher in the table first."""
    found, table, interval = [], [], ""
    designs = view.designs.task(view.task)
    best = next((method for method in methods if view.kind(method) == "ranked"), methods[0])
    wanted = combinations(methods, 2) if len(methods) <= _MOST_PAIRED else ((best, other) for other in methods if other != best)
    for first, second in wanted:
        pair = pair_up(view.values[first], view.values[second])
        if not len(pair.examples):
            continue
        paired = difference(pair, designs)
        told = _told(view, first, second, paired, max(abs(float(pair.a.mean())), abs(float(pair.b.mean()))))
        gaps = pair.a - pair.b
        edges = bin_edges(gaps, len(gaps))
        counts = np.histogram(gaps.clip(edges[0], edges[-1]), edges)[0]
        found.append(
            {
                "a": first,
                "b": second,
                "text": f"{told.value}, n = {told.n}{f', {first} is better on {told.share}' if told.share else ''}: {told.verdict}",
                "mean": _short(paired.mean),
                "low": _short(paired.ci_low),
                "high": _short(paired.ci_high),
                "edges": [_short(float(edges[0])), _short(float(edges[-1]))],
                "counts": counts.tolist(),
            }
        )
        if first == best or second == best:
            interval = paired.interval + (f" over {paired.n_clusters:,} {paired.unit}s" if paired.n_clusters else "")
            table.append(told)
    return found, tuple(table), interval


def _told(view: TaskView, first: str, second: str, paired: PairedDifference, scale: float) -> Difference:
    """A paired difference in the words of ``sepbench compare``."""
    ends = [value for value in (paired.mean, paired.ci_low, paired.ci_high) if math.isfinite(value)]
    write = number_format(view.metric.unit, max(map(abs, ends)))
    unit = "" if view.metric.unit in ("", "1") else f" {view.metric.unit}"
    interval = f" [{write(paired.ci_low)}, {write(paired.ci_high)}]" if len(ends) == 3 else ""
    share = paired.share_a_higher if view.metric.higher_is_better else paired.share_b_higher
    judged = verdict(paired, view.metric.higher_is_better, scale).replace("A better", f"{first} is better").replace("B better", f"{second} is better")
    return Difference(first, second, f"{write(paired.mean)}{interval}{unit}", f"{paired.n:,}", f"{share:.0%}" if math.isfinite(share) else "", judged)


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _failures(view: TaskView, edges: Floats) -> tuple[charts.Chart, tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...]]:
    """The share of mixtures that are worse than a threshold, failed ones included, for thresholds over the range of the histogram."""
    grid = np.linspace(edges[0], edges[-1], _THRESHOLDS)
    write, unit = _writer(view)
    higher = view.metric.higher_is_better
    rows, table = [], []
    in_table = grid[:: (_THRESHOLDS - 1) // (_IN_TABLE + 1)][1:-1]
    for method, values in view.values.items():
        ordered = np.sort(values.values[values.scored])
        total = len(values)

        def worse(threshold: float, ordered: Floats = ordered, total: int = total) -> float:
            below = int(np.searchsorted(ordered, threshold, side="left" if higher else "right"))
            return (below if higher else len(ordered) - below) / total + (total - len(ordered)) / total

        for threshold in grid.tolist():
            share = worse(threshold)
            rows.append({"method": method, "x": float(f"{threshold:.5g}"), "y": float(f"{share:.4g}"), "text": f"{share:.1%} worse than {write(threshold)}"})
        table.append((method, tuple(f"{worse(threshold):.1%}" for threshold in in_table.tolist())))
    x_title = f"threshold of {view.metric.name}{f' [{unit}]' if unit else ''}"
    chart = charts.lines(rows, x_title, "share of mixtures that are worse", f"Share of mixtures of {view.task} worse than a threshold, by method", percent=True)
    sign = "below" if higher else "above"
    return chart, tuple(f"{sign} {write(threshold)}{f' {unit}' if unit else ''}" for threshold in in_table.tolist()), tuple(table)
