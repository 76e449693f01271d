"""The leaderboard: per-example scores reduced to one row per (suite, task, method, metric). Its CSV form is ``leaderboard_file``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sepbench.errors import SepbenchError
from sepbench.metrics.catalogue import get_metric
from sepbench.results.leaderboard_file import merge_leaderboards, read_leaderboard, typed, write_leaderboard
from sepbench.results.statistics import Summary, summarise

if TYPE_CHECKING:
    from sepbench.suites.model import Suite

__all__ = ["build_leaderboard", "example_values", "merge_leaderboards", "read_leaderboard", "write_leaderboard"]

VALUE_COLUMNS = ("task", "method", "metric", "example", "value")

Cells = Mapping[tuple[str, str], Mapping[str, Any]]
_NO_EXAMPLES = Summary(0, np.nan, np.nan, np.nan, np.nan, np.nan)


def example_values(scores: pd.DataFrame) -> pd.DataFrame:
    """One value per example: the mean over its scored sources.

    Args:
        scores: per-example scores with the columns of ``SCORE_COLUMNS``, rows in any order.

    Returns:
        Columns ``task, method, metric`` (categories), ``example`` and ``value``, sorted by all but the last. ``value`` is NaN where the
        example failed, where any of its sources has no finite value, or where a source is missing.

    Raises:
        SepbenchError: an example's source is scored twice.
    """
    failed = ((scores["error"] != "") & scores["error"].notna()).to_numpy()
    value = scores["value"].to_numpy(dtype=np.float64)
    frame = scores[["task", "method", "metric", "example", "source"]].assign(value=value, bad=failed | ~np.isfinite(value))
    for column in ("task", "method", "metric"):  # integer codes: grouping by text is several times slower
        categories = pd.Categorical(frame[column])
        frame[column] = categories.set_categories(sorted(categories.categories))
    keys = ["task", "method", "metric", "example"]
    _refuse_repetitions(frame.loc[~frame["bad"], [*keys, "source"]])
    grouped = frame.groupby(keys, sort=True, observed=True).agg(total=("value", "sum"), sources=("value", "size"), bad=("bad", "max")).reset_index()
    wanted = grouped.groupby(["task", "metric"], observed=True)["sources"].transform("max")
    good = ~grouped["bad"].to_numpy(dtype=bool) & (grouped["sources"] == wanted).to_numpy()
    grouped["value"] = np.where(good, grouped["total"] / grouped["sources"], np.nan)
    return grouped[list(VALUE_COLUMNS)]


def _refuse_repetitions(keys: pd.DataFrame) -> None:
    repeated = keys.duplicated()
    if repeated.any():
        row = keys[repeated].iloc[0]
        raise SepbenchError(f"the scores of {row['task']}, {row['method']} hold {row['metric']} of example {row['example']} twice; run `sepbench score` again")


def build_leaderboard(scores: pd.DataFrame, run: Mapping[str, Any], cells: Cells, suite: Suite) -> pd.DataFrame:
    """Reduce a run to its leaderboard.

    Rows stand for every planned (task, method, metric), in the suite's order of tasks, the run's order of methods and the suite's order of
    metrics; a method that could not run has an empty mean and ``n_scored`` 0. Methods that do not support a task have no row there.
    An example's value is the mean over its scored sources; ``mean``, ``std`` (ddof = 1), ``median`` and the 95 % percentile-bootstrap
    interval of the mean are over examples. ``n_failed`` counts examples that ended with an error or without a finite value;
    ``n_expected - n_scored - n_failed`` examples were not reached.

    Args:
        scores: rows with the columns of ``SCORE_COLUMNS``, in any order; a failed example has a row with its error for every metric.
        run: content of ``run.json``.
        cells: ``(task, method)`` -> content of its file in ``cells/``; a cell without one was not reached.
        suite: supplies order, metrics and published numbers; versions and digests are the run's own.

    Returns:
        The columns of ``LEADERBOARD_COLUMNS``.

    Raises:
        SepbenchError: the run's record is incomplete, or the scores do not fit it.
        UnknownNameError: a metric is not known here.
    """
    try:
        metrics = _metric_order(suite.metrics, {*run.get("metrics", suite.metrics), *scores["metric"].unique()})
        planned = {task: int(entry["n_planned"]) for task, entry in run["tasks"].items()}
        summaries = _summaries(example_values(scores), planned)
        tasks = [*(task for task in suite.tasks if task in planned), *(task for task in planned if task not in suite.tasks)]
        published = {(row.task, row.method, row.metric): row for row in reversed(suite.published)}
        rows = []
        for task in tasks:
            for method in run["methods"]:
                cell = cells.get((task, method), {})
                if cell.get("state") == "unsupported":
                    continue
                shared = _cell_columns(run, cell, task, method)
                for metric in metrics:
                    row = _statistics_columns(metric, *summaries.get((task, method, metric), (_NO_EXAMPLES, 0)))
                    if cell.get("state") == "failed" and not row["n_scored"]:
                        row["n_failed"] = planned[task]  # the method could not be fitted: every example failed with it
                    paper = published.get((task, method, metric))
                    row |= {"published": paper.value if paper else np.nan, "published_source": paper.source if paper else ""}
                    rows.append(shared | row)
    except KeyError as error:
        raise SepbenchError(f"the run's record (run.json, cells/) lacks {error}; run again into a new folder") from error
    return typed(pd.DataFrame(rows))


def _metric_order(suite_metrics: Sequence[str], present: set[str]) -> list[str]:
    return [metric for metric in suite_metrics if metric in present] + sorted(present - set(suite_metrics))


def _summaries(values: pd.DataFrame, planned: Mapping[str, int]) -> dict[tuple[str, str, str], tuple[Summary, int]]:
    """Statistics and number of failed examples of every (task, method, metric) that has any example."""
    summaries = {}
    # Columns over the same examples share their resamples: the expensive part is drawn once.
    bundles: dict[tuple[str, bytes], list[tuple[tuple[str, str, str], np.ndarray[Any, np.dtype[np.float64]]]]] = {}
    for task, of_task in values.groupby("task", sort=False, observed=True):
        if task not in planned or not of_task["example"].between(0, planned[str(task)] - 1).all():
            raise SepbenchError(f"the scores of task {task} do not fit the plan in run.json; run again into a new folder")
    for names, group in values.groupby(["task", "method", "metric"], sort=False, observed=True):
        task, method, metric = (str(name) for name in names)
        column = group["value"].to_numpy(dtype=np.float64)
        scored = np.isfinite(column)
        summaries[task, method, metric] = (_NO_EXAMPLES, int((~scored).sum()))
        examples = group["example"].to_numpy()[scored]
        bundles.setdefault((task, examples.tobytes()), []).append(((task, method, metric), column[scored]))
    for bundle in bundles.values():
        for (key, _), summary in zip(bundle, summarise(np.stack([column for _, column in bundle], axis=1)), strict=True):
            summaries[key] = (summary, summaries[key][1])
    return summaries


def _cell_columns(run: Mapping[str, Any], cell: Mapping[str, Any], task: str, method: str) -> dict[str, Any]:
    entry, environment = run["methods"][method], run["environment"]
    separated = cell.get("n_separated") or 0
    command = run["command"]
    return {
        "suite": run["suite"]["name"],
        "suite_version": run["suite"]["version"],
        "task": task,
        "task_digest": run["tasks"][task]["digest"],
        "method": method,
        "method_version": entry["version"],
        "weights_sha256": cell.get("weights_sha256") or "",
        "supervision": cell.get("supervision") or entry["supervision"],
        "n_expected": run["tasks"][task]["n_planned"],
        "samples": cell.get("samples") or 1,
        "seconds_per_mixture": cell["separate_seconds"] / separated if separated else np.nan,
        "timing_group": _timing_group(run, entry),
        "peak_mb": _number(cell.get("peak_mb")),
        "device": run["device"],
        "budget": run["budget"],
        "seed": run["seed"],
        "sepbench_version": run["sepbench_version"],
        "git_sha": (environment.get("git_sha") or "") + ("-dirty" if environment.get("git_sha") and environment.get("git_dirty") else ""),
        "command": command if isinstance(command, str) else shlex.join(command),
    }


def _timing_group(run: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """The run's group, with the arithmetic of a method that sets its own (``precision``) in place of the session's."""
    group, own = str(run["timing_group"]), entry.get("settings", {}).get("precision", "float32")
    return group if own == "float32" else f"{group.rpartition(':')[0]}:{own}"


def _statistics_columns(metric: str, summary: Summary, n_failed: int) -> dict[str, Any]:
    info = get_metric(metric).info
    return {
        "metric": metric,
        "unit": info.unit,
        "higher_is_better": info.higher_is_better,
        "mean": summary.mean,
        "std": summary.std,
        "median": summary.median,
        "ci_low": summary.ci_low,
        "ci_high": summary.ci_high,
        "n_scored": summary.n,
        "n_failed": n_failed,
    }


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)
