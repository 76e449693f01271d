"""The leaderboard: per-example values reduced to one row per (suite, task, method, metric). Its CSV form is ``leaderboard_file``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from sepbench.data.lists.clusters import Clusters
from sepbench.errors import DataError, SepbenchError
from sepbench.metrics.catalogue import get_metric
from sepbench.results import columns
from sepbench.results.columns import Facts
from sepbench.results.leaderboard_file import merge_leaderboards, read_leaderboard, typed, write_leaderboard
from sepbench.results.statistics import Designs, Summary, summarise
from sepbench.results.values import Values, without_spread
from sepbench.run.records import CellRecord, RunRecord

if TYPE_CHECKING:
    from sepbench.suites.model import Suite

__all__ = ["build_leaderboard", "merge_leaderboards", "outline", "read_leaderboard", "write_leaderboard"]

Cells = Mapping[tuple[str, str], CellRecord]

_Found = Mapping[tuple[str, str], tuple[Summary, int]]
"""Of one task: (method, metric) -> statistics and number of failed examples."""
_NO_EXAMPLES = Summary(0, np.nan, np.nan, np.nan, np.nan, np.nan)


def build_leaderboard(values: Values, run: RunRecord, cells: Cells, suite: Suite) -> pd.DataFrame:
    """Reduce a run to its leaderboard, cell by cell.

    There is a row for every planned (task, method, metric), in the suite's order of tasks, the run's order of methods
    and the suite's order of metrics. A method that could not run has an empty mean and ``n_scored`` 0. Methods that do
    not support a task have no row there. An example's value is the mean over its scored sources. ``mean``, ``std``
    (ddof = 1), ``median`` and the 95 % interval of the mean (``statistics.summarise``, which knows the clusters) are
    over examples. ``n_failed`` counts examples that ended with an error or without a finite value; ``n_expected -
    n_scored - n_failed`` examples were not reached. The other columns say themselves where they come from
    (``columns.COLUMNS``).

    Args:
        values: the run's values; a failed example is there, without a value, for every metric.
        run: content of ``run.json``.
        cells: ``(task, method)`` -> content of its file in ``cells/``; a cell without one was not reached.
        suite: supplies the order and the metrics; versions and digests are the run's own.

    Returns:
        The columns of ``columns.COLUMNS``.

    Raises:
        SepbenchError: the scores do not fit the run's record, or cannot be read.
        UnknownNameError: a metric is not known here.
    """
    return _build(values, run, cells, suite)


def outline(run: RunRecord, cells: Cells, suite: Suite) -> pd.DataFrame:
    """The rows of ``build_leaderboard`` without statistics, as if nothing were scored: reads no scores.

    Raises:
        SepbenchError, UnknownNameError: see ``build_leaderboard``.
    """
    return _build(None, run, cells, suite)


def _build(values: Values | None, run: RunRecord, cells: Cells, suite: Suite) -> pd.DataFrame:
    tasks = [*(task for task in suite.tasks if task in run.tasks), *(task for task in run.tasks if task not in suite.tasks)]
    found = {task: _statistics(values, run, cells, task, Designs(clusters_of(suite, task))) if values is not None else {} for task in tasks}
    metrics = _metric_order(suite.metrics, {*run.metrics, *(metric for of_task in found.values() for _, metric in of_task)})
    rows = []
    for task in tasks:
        for method in run.methods_on(task):
            cell = cells.get((task, method), CellRecord())
            if cell.state != "unsupported":
                rows += [_row(_facts(run, cell, task, method), metric, *found[task].get((method, metric), (_NO_EXAMPLES, 0))) for metric in metrics]
    return typed(pd.DataFrame(rows))


def clusters_of(suite: Suite | None, task: str) -> Clusters | None:
    """The clusters of a task; None where they are not known: the suite is not here, or they follow from data that are not here."""
    if suite is None or task not in suite.tasks:
        return None
    try:
        return suite.tasks[task].clusters()
    except DataError:
        return None


def _metric_order(suite_metrics: Sequence[str], present: set[str]) -> list[str]:
    return [metric for metric in suite_metrics if metric in present] + sorted(present - set(suite_metrics))


def _facts(run: RunRecord, cell: CellRecord, task: str, method: str) -> Facts:
    return Facts(run, run.suite, run.tasks[task], run.methods[method], cell, {"task": task, "method": method})


def _row(facts: Facts, metric: str, summary: Summary, n_failed: int) -> dict[str, Any]:
    info = get_metric(metric).info
    if facts.cell.state == "failed" and not summary.n:
        n_failed = _n_expected(facts)  # the method could not be fitted: every example failed with it
    row = {
        **facts.row,
        "metric": metric,
        "unit": info.unit,
        "higher_is_better": info.higher_is_better,
        "mean": summary.mean,
        "std": summary.std,
        "median": summary.median,
        "ci_low": summary.ci_low,
        "ci_high": summary.ci_high,
        "interval": summary.interval if summary.n else "",
        "cluster": summary.unit if summary.n else "",
        "n_clusters": summary.n_clusters,
        "n_scored": summary.n,
        "n_failed": n_failed,
    }
    whole = replace(facts, row=row)
    return {column.name: column.value(whole) for column in columns.COLUMNS}


def _n_expected(facts: Facts) -> int:
    (column,) = (column for column in columns.COLUMNS if column.name == "n_expected")
    return int(column.value(facts))


def _statistics(values: Values, run: RunRecord, cells: Cells, task: str, designs: Designs) -> _Found:
    """Statistics and number of failed examples of every (method, metric) of a task that has any example."""
    seen: dict[tuple[str, str], _Seen] = {}
    for method in run.methods_on(task):
        n_expected = _n_expected(_facts(run, cells.get((task, method), CellRecord()), task, method))
        for metric, of_metric in values.cell(task, method).items():
            if of_metric.examples[0] < 0 or of_metric.examples[-1] >= n_expected:
                raise SepbenchError(f"the scores of task {task} do not fit the plan in run.json; run again into a new folder")
            scored = of_metric.scored
            summary = summarise(of_metric.values[scored], of_metric.examples[scored], designs)
            failed = int((~scored).sum())
            if of_metric.undefined:
                summary, failed = replace(_NO_EXAMPLES, n=of_metric.undefined, interval=""), len(of_metric) - of_metric.undefined
            elif of_metric.spread:  # values of a set: their mean and its interval mean something, they themselves do not
                summary = replace(summary, std=of_metric.std, median=np.nan, interval=f"{summary.interval}, {of_metric.spread}")
                if without_spread(of_metric.values[scored]):
                    summary = replace(summary, ci_low=np.nan, ci_high=np.nan)
            seen[method, metric] = _Seen(len(scored), failed, of_metric.n_sources, summary)
    most = {metric: max(cell.n_sources for (_, other), cell in seen.items() if other == metric) for _, metric in seen}
    found = {}
    for (method, metric), cell in seen.items():
        incomplete = cell.n_sources < most[metric]  # every example lacks a source that another method's examples have
        found[method, metric] = (_NO_EXAMPLES, cell.n_examples) if incomplete else (cell.summary, cell.n_failed)
    return found


class _Seen(NamedTuple):
    """A cell's values of one metric."""

    n_examples: int
    n_failed: int
    n_sources: int
    summary: Summary
