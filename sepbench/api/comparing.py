"""``sepbench.compare``: the paired difference of two runs, or of two methods of runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields

import pandas as pd

from sepbench.api.arguments import names, path_of, public, shown
from sepbench.api.opened import Run
from sepbench.errors import ArgumentError, SepbenchError, nearest
from sepbench.report.numbers import clusters_text, number_format
from sepbench.results.compare import A_BETTER, B_BETTER, Side, compare_sides, open_side

Compared = Run | Side | str | os.PathLike[str]
"""A run, one method of it (``Run.method``), or what ``sepbench compare`` takes: RUN or RUN:METHOD."""


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One method of A against one of B, on the mixtures of one task that both scored.

    Attributes:
        task, metric, unit, higher_is_better: what is compared.
        method_a, method_b: of A and of B.
        n: mixtures.
        mean_a, mean_b: over these mixtures, in the metric's unit.
        difference: mean of A - B per mixture.
        ci_low, ci_high: its 95 % interval.
        interval, cluster, n_clusters: how that was made, and what is independent.
        share_a_better, share_b_better: shares of the mixtures, in [0, 1]; ties, rounding included, are in neither. NaN for pooled metrics and those of sets.
        verdict: ``A better`` or ``B better`` where the interval excludes zero by more than rounding, ``no difference shown``, or why there is none.
        failed_a, failed_b: mixtures without a value.
    """

    task: str
    metric: str
    unit: str
    higher_is_better: bool
    method_a: str
    method_b: str
    n: int
    mean_a: float
    mean_b: float
    difference: float
    ci_low: float
    ci_high: float
    interval: str
    cluster: str
    n_clusters: int
    share_a_better: float
    share_b_better: float
    verdict: str
    failed_a: int
    failed_b: int

    @property
    def better(self) -> str | None:
        """The method that the interval shows to be better; None if it shows none."""
        return {A_BETTER: self.method_a, B_BETTER: self.method_b}.get(self.verdict)

    def __str__(self) -> str:
        """``class-split, psnr: nmf 16.21, average 12.64, difference 3.57 [3.50, 3.64] dB, n = 1,000 over 700 images: A better (nmf)``."""
        unit = "" if self.unit in ("", "1") else f" {self.unit}"
        value = number_format(self.unit, max(abs(self.mean_a), abs(self.mean_b)))
        write = number_format(self.unit, abs(self.difference))
        sides = f"{self.method_a} {value(self.mean_a)}, {self.method_b} {value(self.mean_b)}"
        size = f"n = {self.n:,}{clusters_text(self.n_clusters, self.n_clusters, self.cluster)}"
        named = f" ({self.better})" if self.better else ""
        difference = f"difference {write(self.difference)} [{write(self.ci_low)}, {write(self.ci_high)}]{unit}"
        return f"{self.task}, {self.metric}: {sides}, {difference}, {size}: {self.verdict}{named}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What ``compare`` found: one row per task, pair of methods and metric. ``a`` and ``b`` name the sides."""

    a: str
    b: str
    rows: tuple[ComparedRow, ...]

    @property
    def frame(self) -> pd.DataFrame:
        """The rows with the attributes of ``ComparedRow`` as columns."""
        return pd.DataFrame([asdict(row) for row in self.rows], columns=[field.name for field in fields(ComparedRow)])

    @property
    def only(self) -> ComparedRow:
        """The row, where there is one alone.

        Raises:
            SepbenchError: there are several.
        """
        if len(self.rows) != 1:
            raise SepbenchError(f"this comparison has {len(self.rows)} rows; name task= and metric=, and one method of each side, or read .rows and .frame")
        return self.rows[0]

    def __iter__(self) -> Iterator[ComparedRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        return "\n".join([f"A = {self.a}", f"B = {self.b}", *map(str, self.rows)])


@public
def compare(a: Compared, b: Compared, *, metric: str | Sequence[str] | None = None, task: str | Sequence[str] | None = None) -> Comparison:
    """Paired difference A - B per task: both must have separated the same mixtures. Two whole runs: every method in common.

    Args:
        a, b: a run, one method of it (``run.method("nmf")``), its folder, or ``"FOLDER:METHOD"``.
        metric: one or several. Default: the one that ranks.
        task: one or several. Default: every task in common.

    Raises:
        SepbenchError: they cannot be compared: other mixtures, no method in common, no scores.
        UnknownNameError: no such task, method or metric; the nearest names are offered.
    """
    side_a, side_b = _side("a", a), _side("b", b)
    metrics = () if metric is None else names("metric", metric, "a metric's name")
    tasks = () if task is None else names("task", task, "a task's name")
    frame = compare_sides(side_a, side_b, metrics)
    known = list(dict.fromkeys(frame["task"]))
    for name in tasks:
        if name not in known:
            raise nearest(name, known, "task (of both sides)")
    rows = tuple(ComparedRow(**record) for record in frame.to_dict("records"))  # type: ignore[arg-type]
    return Comparison(side_a.label, side_b.label, tuple(row for row in rows if not tasks or row.task in tasks))


def _side(name: str, value: object) -> Side:
    if isinstance(value, Side):
        return value
    if isinstance(value, Run):
        return value.whole
    if isinstance(value, str):
        return open_side(value)
    if isinstance(value, os.PathLike):
        return open_side(str(path_of(name, value)))
    raise ArgumentError(f"{name} must be a run, run.method(...), or the path of a run, got {shown(value)}")
