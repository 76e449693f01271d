"""Histogram of the ranking metric over mixtures (BASIS, Fig. 6), one row per method. Needs scores only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sepbench.report.numbers import number_format
from sepbench.report.panels.canvas import COLOURS, GREY, SMALL, TEXT, TITLE, new_figure, save_png
from sepbench.report.panels.opened_run import OpenedRun

Array = npt.NDArray[np.float64]
_LEAST_BINS, _MOST_BINS = 10, 60


@dataclass(frozen=True, slots=True)
class MethodCounts:
    """One method's row: ``counts`` has one entry per bin, ``n`` is their sum; ``bound`` is ``lower``, ``upper`` or empty."""

    method: str
    bound: str
    counts: npt.NDArray[np.int64]
    mean: float
    median: float
    n: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """All methods over the same bins.

    Attributes:
        title, axis: texts of the figure and of its horizontal axis.
        unit: of the values.
        edges: ``(bins + 1,)``.
        rows: from best mean to worst.
        outside: values beyond the outer edges, counted in the outer bins.
    """

    title: str
    axis: str
    unit: str
    edges: Array
    rows: tuple[MethodCounts, ...]
    outside: int


def bin_edges(values: Array, n: int) -> Array:
    """Edges of 10 to 60 equal bins over all methods' values, about the square root of ``n``, the number of values of one method.

    They reach over all values, unless a few lie so far out (a perfect estimate has 100 dB) that nothing would be seen of the others: an end
    beyond the 1 % (99 %) quantile by more than the distance of the two is cut there.
    """
    low, high = float(values.min()), float(values.max())
    inner_low, inner_high = (float(q) for q in np.quantile(values, (0.01, 0.99)))
    span = inner_high - inner_low
    if span > 0:
        low = inner_low if low < inner_low - span else low
        high = inner_high if high > inner_high + span else high
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, 1 + min(_MOST_BINS, max(_LEAST_BINS, math.isqrt(n))))


def binned(values: Mapping[str, Array], bounds: Mapping[str, str]) -> tuple[Array, tuple[MethodCounts, ...], int]:
    """Counts of finite values ``(n,)`` by method, n > 0, over the same bins.

    Args:
        bounds: method -> ``lower``, ``upper`` or empty.

    Returns:
        The edges, a row per method in the order given, and the number of values beyond the outer edges, counted in the outer bins.
    """
    pooled = np.concatenate(list(values.values()))
    edges = bin_edges(pooled, max(len(of_method) for of_method in values.values()))
    rows = []
    for method, of_method in values.items():
        counts = np.histogram(of_method.clip(edges[0], edges[-1]), edges)[0].astype(np.int64)
        rows.append(MethodCounts(method, bounds.get(method, ""), counts, float(of_method.mean()), float(np.median(of_method)), len(of_method)))
    return edges, tuple(rows), int(((pooled < edges[0]) | (pooled > edges[-1])).sum())


def histogram(run: OpenedRun, task: str, methods: Sequence[str]) -> Histogram:
    """Count the values of each method; mixtures that failed are left out."""
    finite = {method: np.array([v for _, v in sorted(run.values(task, method).items()) if math.isfinite(v)]) for method in methods}
    edges, rows, outside = binned(finite, {method: run.record.methods[method].bound for method in methods})
    info = run.metric.info
    direction = "higher" if info.higher_is_better else "lower"
    several = info.per == "source" and len(run.suite.tasks[task].spec.scored_sources) > 1
    axis = (
        f"{info.name} of a mixture"
        + (", mean over its sources" if several else "")
        + ("" if info.unit in ("", "1") else f" [{info.unit}]")
        + f"; {direction} is better"
    )
    return Histogram(f"How {info.name} is spread over the mixtures of {run.suite.name}, {task}", axis, info.unit, edges, rows, outside)


def draw_histogram(data: Histogram, path: Path) -> Path:
    """Draw the rows above each other on one horizontal axis."""
    n = len(data.rows)
    height = 0.62 + 0.85 * n + 0.75
    figure = new_figure(7.0, height)
    figure.text(0.04, 1 - 0.12 / height, data.title, fontsize=TITLE, weight="bold", va="top")
    axes = figure.subplots(n, 1, sharex=True, squeeze=False)[:, 0]
    figure.subplots_adjust(left=0.3, right=0.97, top=1 - 0.62 / height, bottom=0.62 / height, hspace=0.18)
    for axis, row in zip(axes, data.rows, strict=True):
        axis.stairs(row.counts, data.edges, fill=True, color=COLOURS[0] if not row.bound else COLOURS[5], alpha=0.75)
        mean = axis.axvline(row.mean, color="black", linewidth=1.4)
        median = axis.axvline(row.median, color=COLOURS[1], linewidth=1.4, linestyle=(0, (4, 2)))
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=SMALL)
        axis.yaxis.get_major_locator().set_params(nbins=3, integer=True)
        write = number_format(data.unit, abs(row.mean))
        facts = f"mean {write(row.mean)}, median {write(row.median)}\n{row.n:,} mixtures" + (f", {row.bound} bound" if row.bound else "")
        axis.text(-0.42, 0.88, row.method, transform=axis.transAxes, fontsize=TEXT, weight="bold", va="top")
        axis.text(-0.42, 0.64, facts, transform=axis.transAxes, fontsize=SMALL, va="top", color=GREY, linespacing=1.4)
    figure.legend([mean, median], ["mean", "median"], fontsize=SMALL, loc="upper right", ncols=2, frameon=False, bbox_to_anchor=(0.98, 1 - 0.3 / height))
    axes[-1].set_xlabel(data.axis, fontsize=TEXT)
    note = "number of mixtures per bin" + (f"; {data.outside:,} values beyond the axis are in the outermost bins" if data.outside else "")
    figure.text(0.3, 1 - 0.57 / height, note, fontsize=SMALL, color=GREY, va="bottom")
    return save_png(figure, path)
