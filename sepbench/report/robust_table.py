"""``sepbench show --stats``: medians, interquartile means and probabilities of improvement."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sepbench.report.fitting import print_table
from sepbench.report.numbers import clusters_text, number_format
from sepbench.results.robust import RobustRow
from sepbench.results.statistics import Summary

_LEVEL = "95 %"


def render_robust(title: str, metric: str, unit: str, rows: Sequence[RobustRow], console: Console) -> None:
    """Print one table: the methods of a task, best interquartile mean first."""
    console.print(Text(title, style="bold"))
    words = f"{metric}{f' in {unit}' if unit not in ('', '1') else ''}: median and interquartile mean (the middle half of the mixtures)"
    console.print(Text(f"{words}; probability that the best method is better on the same mixture; in brackets {_LEVEL} intervals", style="dim"))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for head, justify in (("method", "left"), ("median", "right"), ("interquartile mean", "left"), ("best is better", "left"), ("n", "right")):
        table.add_column(head, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        write = number_format(unit, abs(row.iqm.mean))
        better = "" if row.improvement is None else _interval(row.improvement, "{:.2f}".format)
        median = write(row.median) if math.isfinite(row.median) else ""
        table.add_row(*(escape(cell) for cell in (row.method, median, _interval(row.iqm, write), better, f"{row.iqm.n:,}")))
    print_table(table, console)
    counts = [row.iqm.n_clusters for row in rows]
    exact = ", of probabilities after Korn and Graubard" if any(row.improvement is not None for row in rows) else ""
    console.print(Text(f"intervals: {rows[0].iqm.interval}{clusters_text(min(counts), max(counts), rows[0].iqm.unit)}{exact}", style="dim"))


def _interval(summary: Summary, write: Callable[[float], str]) -> str:
    if not math.isfinite(summary.mean):
        return ""
    if not math.isfinite(summary.ci_low):
        return write(summary.mean)
    return f"{write(summary.mean)} [{write(summary.ci_low)}, {write(summary.ci_high)}]"
