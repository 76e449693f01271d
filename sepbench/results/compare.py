"""Paired comparison: two runs, or two methods, on the same examples of the same frozen tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sepbench.errors import SepbenchError, some
from sepbench.registry import nearest
from sepbench.results import columns
from sepbench.results.pairing import difference, pair_up
from sepbench.results.statistics import FLOAT_NOISE, MIN_CLUSTERS, PairedDifference
from sepbench.results.target import Results, open_results
from sepbench.suites.loader import NEVER_RANKING

COMPARE_COLUMNS = (
    "task",
    "metric",
    "unit",
    "higher_is_better",
    "method_a",
    "method_b",
    "n",
    "mean_a",
    "mean_b",
    "difference",
    "ci_low",
    "ci_high",
    "interval",
    "cluster",
    "n_clusters",
    "share_a_better",
    "share_b_better",
    "verdict",
    "failed_a",
    "failed_b",
)
A_BETTER, B_BETTER, NO_DIFFERENCE = "A better", "B better", "no difference shown"
NOT_COMPARED = "nothing to compare"
NO_PARTS = "no parts in "
"""Before ``A``, ``B`` or ``A and B``: sides with the value of another set of mixtures only (a pooled metric of a committed leaderboard)."""
TOO_FEW = f"no verdict below {MIN_CLUSTERS} clusters"
NO_INTERVAL = "no verdict without an interval"
NEVER = "no verdict by this metric, see docs/metrics.md"


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: the results of a run, and one method of it or all."""

    results: Results
    method: str | None = None

    @property
    def label(self) -> str:
        return self.results.label + (f":{self.method}" if self.method else "")

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(self.results.frame["method"])) if self.method is None else [self.method]


def open_side(target: str) -> Side:
    """``RUN`` or ``RUN:METHOD``.

    Raises:
        SepbenchError: no such run, no per-example scores in it, or no such method in it.
    """
    run, method = target, ""
    if not Path(target).exists() and ":" in target:
        run, _, method = target.rpartition(":")
    results = open_results(run, suites=True, statistics=False)
    if results.values is None:
        raise SepbenchError(f"{run} has no per-example scores to pair; name the folder of a run, or a leaderboard with scores beside it")
    known = list(dict.fromkeys(results.frame["method"]))
    if method and method not in known:
        raise nearest(method, known, f"method of {run}")
    return Side(results, method or None)


def check_comparable(a: pd.DataFrame, b: pd.DataFrame, label_a: str, label_b: str) -> list[str]:
    """The tasks that two leaderboards share, in the order of the first.

    Raises:
        SepbenchError: other suites, other suite versions, no common task, or a common task with other mixtures.
    """
    for column, what in ((column.name, column.word or column.name) for column in columns.COLUMNS if column.one_per == "file"):
        kinds_a, kinds_b = (", ".join(map(str, dict.fromkeys(frame[column]))) for frame in (a, b))
        if kinds_a != kinds_b:
            raise SepbenchError(f"not comparable: {label_a} is of {what} {kinds_a or 'none'}, {label_b} of {kinds_b or 'none'}")
    digests_a, digests_b = (dict(zip(frame["task"], frame["task_digest"], strict=True)) for frame in (a, b))
    common = [task for task in digests_a if task in digests_b]
    if not common:
        raise SepbenchError(f"not comparable: {label_a} and {label_b} have no task in common ({some(digests_a)} against {some(digests_b)})")
    for task in common:
        if digests_a[task] != digests_b[task]:
            shown_a, shown_b = (digest[:12] or "none" for digest in (digests_a[task], digests_b[task]))
            raise SepbenchError(f"not comparable: task {task} has other mixtures (digest {shown_a} in {label_a}, {shown_b} in {label_b})")
    return common


def method_pairs(a: Side, b: Side) -> list[tuple[str, str]]:
    """Which method of A is compared with which of B: the named ones (one name counts for both sides), otherwise every method in common.

    Raises:
        SepbenchError: there is no such pair.
    """
    if a.method and b.method:
        pairs = [(a.method, b.method)]
    else:
        wanted = a.method or b.method
        pairs = [(name, name) for name in a.methods if name in b.methods and wanted in (None, name)]
    if not pairs:
        raise SepbenchError(f"{a.label} ({some(a.methods)}) and {b.label} ({some(b.methods)}) have no method in common; name two as RUN:METHOD")
    return pairs


def compare_sides(a: Side, b: Side, metrics: Sequence[str] = ()) -> pd.DataFrame:
    """Paired differences A - B for every common task and every pair of methods.

    Args:
        metrics: default: the ranking metric.

    Returns:
        ``COMPARE_COLUMNS``; means and differences in the metric's unit over the ``n`` examples that both scored; shares in [0, 1], ties in
        neither; ``failed_a`` and ``failed_b`` count the examples of each side that have no value and so stand for nothing here. The verdict
        holds where the 95 % interval of the difference excludes zero by more than float rounding; below ``MIN_CLUSTERS`` clusters there is none.

    Raises:
        SepbenchError: not comparable, or nothing in common.
        UnknownNameError: a metric that neither has.
    """
    values_a, values_b = a.results.values, b.results.values
    if values_a is None or values_b is None:
        raise SepbenchError("paired comparison needs per-example scores; name the folders of two runs")
    frame_a, frame_b = a.results.frame, b.results.frame
    tasks = check_comparable(frame_a, frame_b, a.label, b.label)
    infos = {
        str(record["metric"]): (str(record["unit"]), bool(record["higher_is_better"]))
        for record in frame_a.to_dict("records")
        if record["metric"] in set(frame_b["metric"])
    }
    for metric in metrics:
        if metric not in infos:
            raise nearest(metric, list(infos), "metric", f"{a.label} and {b.label} have in common: {', '.join(infos)}")
    rows, of_task = [], a.results.designs.task
    for task in tasks:
        designs = of_task(task)
        for method_a, method_b in method_pairs(a, b):
            for metric in metrics or [a.results.ranking_metric]:
                side_a, side_b = values_a.of(task, method_a, metric), values_b.of(task, method_b, metric)
                if len(side_a) and len(side_b):  # else one of the methods does not take this task
                    pair = pair_up(side_a, side_b)
                    means = (float(pair.a.mean()), float(pair.b.mean())) if len(pair.examples) else (np.nan, np.nan)
                    failed = (int((~side_a.scored).sum()), int((~side_b.scored).sum()))
                    rows.append(_Head(task, metric, *infos[metric], method_a, method_b, *means, *failed, pair.bare).row(difference(pair, designs)))
    if not rows:
        raise SepbenchError(f"{a.label} and {b.label} have no scores in common")
    return pd.DataFrame(rows, columns=list(COMPARE_COLUMNS))


@dataclass(frozen=True, slots=True)
class _Head:
    """What a row of a comparison says apart from the difference."""

    task: str
    metric: str
    unit: str
    higher_is_better: bool
    method_a: str
    method_b: str
    mean_a: float
    mean_b: float
    failed_a: int
    failed_b: int
    bare: Sequence[str] = ()

    def row(self, paired: PairedDifference) -> tuple[float | str, ...]:
        shares = (paired.share_a_higher, paired.share_b_higher)
        judged = verdict(paired, self.higher_is_better, max(abs(self.mean_a), abs(self.mean_b)))
        if paired.n and self.metric in NEVER_RANKING:
            judged = NEVER
        judged = NO_PARTS + " and ".join(side.upper() for side in self.bare) if self.bare else judged
        return (
            *(self.task, self.metric, self.unit, self.higher_is_better, self.method_a, self.method_b),
            *(paired.n, self.mean_a, self.mean_b, paired.mean, paired.ci_low, paired.ci_high, paired.interval, paired.unit, paired.n_clusters),
            *(shares if self.higher_is_better else shares[::-1]),
            *(judged, self.failed_a, self.failed_b),
        )


def verdict(paired: PairedDifference, higher_is_better: bool, scale: float) -> str:
    """Which side is better, if the interval shows it. ``scale``: size of the values, against which rounding is measured."""
    if not paired.n:
        return NOT_COMPARED
    if not paired.decidable:
        return TOO_FEW if paired.n_clusters < MIN_CLUSTERS else NO_INTERVAL
    floor = FLOAT_NOISE * max(1.0, scale)
    if paired.ci_low > floor:
        return A_BETTER if higher_is_better else B_BETTER
    if paired.ci_high < -floor:
        return B_BETTER if higher_is_better else A_BETTER
    return NO_DIFFERENCE


def write_comparison(rows: pd.DataFrame, path: Path) -> None:
    """Write the rows of ``compare_sides`` as CSV: floats with six significant digits, booleans as in leaderboards, LF line ends.

    Raises:
        SepbenchError: the file cannot be written.
    """
    text = rows.assign(higher_is_better=rows["higher_is_better"].map({True: "true", False: "false"})).to_csv(
        index=False, lineterminator="\n", float_format="%.6g"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise SepbenchError(f"cannot write {path}: {error.strerror or error}; choose another file with --csv") from error
