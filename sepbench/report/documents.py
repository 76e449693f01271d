"""Results as JSON for programs; ``docs/json.md`` says what each field means.

Numbers are those of the tables at full precision. What has no value (NaN, infinity) is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import sepbench
from sepbench.report.footnotes import page_notes
from sepbench.report.rows import Line, RowSelection, task_tables
from sepbench.results.robust import RobustRow

if TYPE_CHECKING:
    from sepbench.results.target import Results

FORMAT = 1
"""Of the documents: raised when a field goes or changes its meaning, not when one is added."""


def json_text(document: Mapping[str, Any]) -> str:
    """A document as text, with ``format`` and the version of sepbench at its head."""
    return json.dumps({"format": FORMAT, "sepbench_version": sepbench.__version__, **_plain(document)}, indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    """Python's own kinds of values, None for what is no number."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (frozenset, set)):
        return sorted(map(_plain, value))
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def board_document(results: Results, frame: pd.DataFrame, target: str, *, metrics: Sequence[str] = (), selection: RowSelection | None = None) -> dict[str, Any]:
    """What ``sepbench show`` shows: tasks, rows from best to worst with their ranks, the papers' numbers, footnotes.

    Args:
        results: where the rows are from.
        frame: the rows of them that are shown.
        target: what the user named.
        metrics, selection: see ``task_tables``.
    """
    options: dict[str, Any] = {"cells": results.cells, "bounds": results.bounds, "evidence": results.evidence}
    tables = list(task_tables(frame, results.suite, metrics=metrics, selection=selection, **options))
    records = {(record["task"], record["method"], record["metric"]): record for record in frame.to_dict("records")}
    tasks, rows = [], []
    for table in tables:
        lines = [line for line in table.lines if not line.from_paper]
        shown = [table.value_head, *table.other_heads]
        ranked = next(record for (task, _, metric), record in records.items() if task == table.task and metric == table.value_head)
        names = ("suite", "suite_version", "task", "task_digest")
        tasks.append(
            {name: ranked[name] for name in names} | {"ranking_metric": table.value_head, "metrics": shown, "methods": [line.method for line in lines]}
        )
        for line in lines:
            found = (records.get((table.task, line.method, metric)) for metric in shown)
            rows += [{**_rank(line), **record} for record in found if record is not None]
    published = [asdict(row) for row in (results.suite.published if results.suite is not None else ()) if row.task in {table.task for table in tables}]
    return {"target": target, "tasks": tasks, "rows": rows, "published": published, "notes": list(page_notes(tables))}


def _rank(line: Line) -> dict[str, Any]:
    number = line.rank.rstrip("=+")
    return {
        "rank": int(number) if number.isdigit() else None,
        "mark": "" if number.isdigit() else number,
        "best_does_not_beat_it": "=" in line.rank,
        "fewer_mixtures_than_others": "+" in line.rank,
    }


def robust_document(target: str, rows: Iterable[tuple[Mapping[str, Any], RobustRow]]) -> dict[str, Any]:
    """What ``sepbench show --stats`` shows.

    Args:
        target: what the user named.
        rows: task, metric, unit and direction of each row, and its statistics.
    """
    found = []
    for head, row in rows:
        better = row.improvement
        found.append(
            {
                **head,
                "method": row.method,
                "median": row.median,
                "iqm": row.iqm.mean,
                "iqm_ci_low": row.iqm.ci_low,
                "iqm_ci_high": row.iqm.ci_high,
                "best_is_better": None if better is None else better.mean,
                "best_is_better_ci_low": None if better is None else better.ci_low,
                "best_is_better_ci_high": None if better is None else better.ci_high,
                "n": row.iqm.n,
                "interval": row.iqm.interval,
                "cluster": row.iqm.unit,
                "n_clusters": row.iqm.n_clusters,
            }
        )
    return {"target": target, "rows": found}


def comparison_document(rows: pd.DataFrame, label_a: str, label_b: str) -> dict[str, Any]:
    """What ``sepbench compare`` shows: the rows of ``compare_sides``."""
    return {"a": label_a, "b": label_b, "rows": rows.to_dict("records")}
