"""Whether a leaderboard's table and the values per mixture beside it say the same. A merge of two branches may take the one from here, the other from there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sepbench.errors import SepbenchError
from sepbench.results.target import Results
from sepbench.results.values import MetricValues

_ROUNDING = 1e-4
"""Of a mean and of the size of what it is a mean of. The table has six significant digits, the values are float32: both are far below it."""


def check_agreement(results: Results, tasks: Sequence[str] = (), methods: Sequence[str] = ()) -> None:
    """Hold a table's means against its values per mixture; runs have no table of their own, their rows are made from the values.

    Rows are passed over that have no values, or values of another number of mixtures: there the mean need not be the same.

    Args:
        tasks, methods: only these; empty for all.

    Raises:
        SepbenchError: two that cannot both be right. One line names the first.
    """
    if results.values is None or results.cells:
        return
    frame = results.frame
    for column, wanted in (("task", tasks), ("method", methods)):
        frame = frame[frame[column].isin(wanted)] if wanted else frame
    found = list(_contradictions(results, frame.to_dict("records")))
    if found:
        more = f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""
        raise SepbenchError(f"{results.label} contradicts itself: {found[0]}{more}; publish again, or restore both files from one commit")


def _contradictions(results: Results, rows: Sequence[Mapping[Any, Any]]) -> Iterator[str]:
    assert results.values is not None
    for row in rows:
        values = results.values.of(row["task"], row["method"], row["metric"])
        if not len(values) or int(values.scored.sum()) != row["n_scored"] or not math.isfinite(row["mean"]):
            continue
        mean = float(values.values[values.scored].mean())
        if abs(mean - row["mean"]) > _tolerance(row, values):
            table, over = f"{row['mean']:.6g} in the table", f"{mean:.6g} over scores/{Path(results.label).stem}.parquet"
            yield f"{row['method']} {row['metric']} on {row['task']} is {table}, {over}"


def _tolerance(row: Mapping[Any, Any], values: MetricValues) -> float:
    """How far the two may be from each other.

    A board that an earlier version published holds the values of one of S repetitions, and the mean of a row is that over all: one of S numbers is at
    most (S - 1) / sqrt(S) standard deviations from their mean.
    """
    size: float = max(abs(row["mean"]), float(np.abs(values.values[values.scored]).mean()))
    repeated = "fits" if row["fits"] > 1 else "seeds"  # of both kinds the mean is that of the fits
    count, between = int(row[repeated]), float(row[f"std_{repeated}"])
    spread: float = (count - 1) / math.sqrt(count) * between if count > 1 else 0.0
    return _ROUNDING * size + spread
