"""Paired comparison: two runs, or two methods, on the same examples of the same frozen tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sepbench.errors import SepbenchError
from sepbench.registry import nearest
from sepbench.results.statistics import PairedDifference, paired_differences
from sepbench.results.target import Results, open_results

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
    "share_a_better",
    "share_b_better",
    "verdict",
    "failed_a",
    "failed_b",
)
A_BETTER, B_BETTER, NO_DIFFERENCE = "A better", "B better", "no difference shown"
NOT_COMPARED = "nothing to compare"

FLOAT_NOISE = 1e-6
"""A difference below this, times the values' size where that is above 1, is float32 rounding (another processor, another batch), however
consistent it is."""

Floats = npt.NDArray[np.float64]


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
    results = open_results(run)
    if results.values is None:
        raise SepbenchError(f"{run} has no per-example scores to pair; name the folder of a run")
    known = list(dict.fromkeys(results.frame["method"]))
    if method and method not in known:
        raise nearest(method, known, f"method of {run}")
    return Side(results, method or None)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Values ``a, b`` ``(n,)`` of the ``examples`` ``(n,)`` that both sides scored, in the order of their ids."""

    examples: npt.NDArray[np.int64]
    a: Floats
    b: Floats


def pair_up(a: pd.DataFrame, b: pd.DataFrame) -> Pairs:
    """Match two sides by example.

    Args:
        a, b: columns ``example`` (unique) and ``value`` (NaN where failed).
    """
    both = a[["example", "value"]].merge(b[["example", "value"]], on="example", suffixes=("_a", "_b")).dropna().sort_values("example")
    return Pairs(both["example"].to_numpy(np.int64), both["value_a"].to_numpy(np.float64), both["value_b"].to_numpy(np.float64))


def difference_of_each(pairs: Sequence[Pairs]) -> list[PairedDifference]:
    """The paired difference a - b of each; those over the same examples share their resamples, whose drawing is the expensive part."""
    bundles: dict[bytes, list[int]] = {}
    for number, pair in enumerate(pairs):
        bundles.setdefault(pair.examples.tobytes(), []).append(number)
    found: dict[int, PairedDifference] = {}
    for numbers in bundles.values():
        a, b = (np.stack([getattr(pairs[number], side) for number in numbers], axis=1) for side in ("a", "b"))
        found |= dict(zip(numbers, paired_differences(a, b), strict=True))
    return [found[number] for number in range(len(pairs))]


def select(values: pd.DataFrame, task: str, method: str, metric: str) -> pd.DataFrame:
    """Rows of ``example_values`` of one (task, method, metric)."""
    return values[(values["task"] == task) & (values["method"] == method) & (values["metric"] == metric)]


def check_comparable(a: pd.DataFrame, b: pd.DataFrame, label_a: str, label_b: str) -> list[str]:
    """The tasks that two leaderboards share, in the order of the first.

    Raises:
        SepbenchError: other suites, other suite versions, no common task, or a common task with other mixtures.
    """
    for column, what in (("suite", "suite"), ("suite_version", "suite version")):
        kinds_a, kinds_b = (", ".join(map(str, dict.fromkeys(frame[column]))) for frame in (a, b))
        if kinds_a != kinds_b:
            raise SepbenchError(f"not comparable: {label_a} is of {what} {kinds_a or 'none'}, {label_b} of {kinds_b or 'none'}")
    digests_a, digests_b = (dict(zip(frame["task"], frame["task_digest"], strict=True)) for frame in (a, b))
    common = [task for task in digests_a if task in digests_b]
    if not common:
        raise SepbenchError(f"not comparable: {label_a} and {label_b} have no task in common ({', '.join(digests_a)} against {', '.join(digests_b)})")
    for task in common:
        if digests_a[task] != digests_b[task]:
            shown_a, shown_b = (digest[:12] or "none" for digest in (digests_a[task], digests_b[task]))
            raise SepbenchError(f"not comparable: task {task} has other mixtures (digest {shown_a} in {label_a}, {shown_b} in {label_b})")
    return common


def method_pairs(a: Side, b: Side) -> list[tuple[str, str]]:
    """Which method of A meets which of B: the named ones; one name counts for both; else every method in common.

    Raises:
        SepbenchError: there is no such pair.
    """
    if a.method and b.method:
        pairs = [(a.method, b.method)]
    else:
        wanted = a.method or b.method
        pairs = [(name, name) for name in a.methods if name in b.methods and wanted in (None, name)]
    if not pairs:
        raise SepbenchError(f"{a.label} ({', '.join(a.methods)}) and {b.label} ({', '.join(b.methods)}) have no method in common; name two as RUN:METHOD")
    return pairs


def compare_sides(a: Side, b: Side, metrics: Sequence[str] = ()) -> pd.DataFrame:
    """Paired differences A - B for every common task and every pair of methods.

    Args:
        metrics: default: the ranking metric.

    Returns:
        ``COMPARE_COLUMNS``; means and differences in the metric's unit over the ``n`` examples that both scored; shares in [0, 1], ties in
        neither; ``failed_a`` and ``failed_b`` count the examples of each side that have no value and so stand for nothing here. The verdict
        holds where the 95 % paired-bootstrap interval of the difference excludes zero by more than float rounding.

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
            raise nearest(metric, list(infos), "metric (of both sides)")
    keys, pairs, failed = [], [], []
    for task in tasks:
        for method_a, method_b in method_pairs(a, b):
            for metric in metrics or [a.results.ranking_metric]:
                side_a, side_b = select(values_a, task, method_a, metric), select(values_b, task, method_b, metric)
                if len(side_a) and len(side_b):  # else one of the methods does not take this task
                    keys.append((task, metric, *infos[metric], method_a, method_b))
                    pairs.append(pair_up(side_a, side_b))
                    failed.append((int(side_a["value"].isna().sum()), int(side_b["value"].isna().sum())))
    if not keys:
        raise SepbenchError(f"{a.label} and {b.label} have no scores in common")
    rows = [(*key, *_row(pair, paired, key[3]), *lost) for key, pair, paired, lost in zip(keys, pairs, difference_of_each(pairs), failed, strict=True)]
    return pd.DataFrame(rows, columns=list(COMPARE_COLUMNS))


def _row(pairs: Pairs, paired: PairedDifference, higher: bool) -> tuple[float | str, ...]:
    shares = (paired.share_a_higher, paired.share_b_higher) if higher else (paired.share_b_higher, paired.share_a_higher)
    mean_a, mean_b = (float(side.mean()) if paired.n else np.nan for side in (pairs.a, pairs.b))
    return (paired.n, mean_a, mean_b, paired.mean, paired.ci_low, paired.ci_high, *shares, verdict(paired, higher, max(abs(mean_a), abs(mean_b))))


def verdict(paired: PairedDifference, higher_is_better: bool, scale: float) -> str:
    """Which side is better, if the interval shows it. ``scale``: size of the values, against which rounding is measured."""
    if not paired.n:
        return NOT_COMPARED
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
