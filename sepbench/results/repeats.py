"""Several seeds, several fits: what ``run --seeds`` and ``run --fits`` repeat, and how far results move with them.

A run's folder keeps repetitions as runs of their own: ``seeds/<seed>/`` has another seed of separation on the same fit, ``fits/<seed>/`` the same seed
of separation on another fit. Only methods that are random are repeated.

A row is about the mixtures that the run itself scored. A repetition that lacks one of them (the run has grown since, the repetition was interrupted,
or the mixture failed in it) is left out, and the cell's note says so.

With S repetitions a row's value per mixture is its mean over them, and the variance of the row's mean is ``V + s^2 / S``: V over mixtures with their
clusters, as for one run, and s^2 between the means of the repetitions, which share every mixture. Degrees of freedom are Satterthwaite's (1946). s^2 has
the seeds' noise on single mixtures in it, which V has too, so the interval is a little too wide where there is nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from sepbench.errors import SepbenchError
from sepbench.results.intervals import LEVEL
from sepbench.results.repeated import Moved, Repetitions, averaged
from sepbench.results.statistics import Designs, TaskDesigns
from sepbench.results.store import RunStore, StoreError
from sepbench.results.values import CellValues, MetricValues, Values, without_spread
from sepbench.run.provenance import conflict
from sepbench.run.records import CellRecord, RunRecord

Key = tuple[str, str, str]
"""Task, method and metric of a row."""
Cells = Mapping[tuple[str, str], CellRecord]
Floats = npt.NDArray[np.float64]

KINDS = ("seeds", "fits")


def folder_of(run: Path, kind: str, seed: int) -> Path:
    """The folder of a repetition."""
    return run / kind / str(seed)


@dataclass(frozen=True, slots=True)
class Repetition:
    """A repetition of some of a run's methods.

    Attributes:
        kind, seed: its folder.
        record: its ``run.json``.
        values: per example.
    """

    kind: str
    seed: int
    record: RunRecord
    values: Values

    def repeats(self, task: str, method: str) -> bool:
        """Whether it is to have the method on the task."""
        return task in self.record.tasks and method in self.record.methods_on(task)


def repetitions(run: RunStore, kind: str) -> list[Repetition]:
    """Every repetition of one kind, in the order of their seeds.

    Raises:
        SepbenchError: one of them is of another run.
    """
    folder = run.path / kind
    seeds = sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()) if folder.is_dir() else []
    found = []
    for seed in seeds:
        store = RunStore(folder_of(run.path, kind, seed))
        if not (store.path / "run.json").is_file():
            continue
        here, there = run.read_run(), store.read_run()
        other = conflict(here, there.model_copy(update={"seed": here.seed, "fit_seed": here.fit_seed}))
        if other is not None:
            raise SepbenchError(f"{store.path} repeats another run ({other[0]} differs); remove it, or run again with another --out")
        found.append(Repetition(kind, seed, there, _values(store, f"--{kind} {seed - here.seed + 1}")))
    return found


def _values(store: RunStore, option: str) -> Values:
    """The values of a repetition. Errors name the option without which the run's own command leaves it alone."""
    values = Values.of_run(store)

    def cell(task: str, method: str) -> CellValues:
        try:
            return values.cell(task, method)
        except StoreError as error:
            raise StoreError(f"{error}, with {option}") from error

    return Values(cell)


@dataclass(frozen=True, slots=True)
class Spread:
    """One metric of a cell over S repetitions, the run itself being the first.

    Attributes:
        count: S.
        mean: over mixtures and repetitions.
        between: standard deviation (ddof = 1) of the repetitions' means.
        std, median: over mixtures, of each one's mean over the repetitions.
        ci_low, ci_high: 95 % interval of the mean.
    """

    count: int
    mean: float
    between: float
    std: float
    median: float
    ci_low: float
    ci_high: float


def spread(first: Values, others: Sequence[Values], key: Key, designs: Designs) -> Spread | None:
    """The spread of one (task, method, metric) over the run itself and every repetition that has all of its mixtures; None if there is none."""
    own = first.of(*key)
    repeated = [values for values in (_of_same_mixtures(own, other.of(*key)) for other in others) if values is not None]
    if not repeated:
        return None
    values = np.stack([own.values[own.scored], *repeated])  # (S, n)
    means, design = values.mean(axis=1), designs.of(own.examples[own.scored])
    between, mixtures = float(means.std(ddof=1)), values.mean(axis=0)
    of_mixtures = float(design.standard_errors(mixtures[:, None])[0]) ** 2
    if own.of_a_set and any(map(without_spread, values)):
        of_mixtures = math.nan
    of_repetitions = between**2 / len(values)
    half = _half_width(of_mixtures, design.degrees, of_repetitions, len(values) - 1)
    mean, std = float(means.mean()), float(mixtures.std(ddof=1)) if len(mixtures) > 1 else math.nan
    return Spread(len(values), mean, between, std, float(np.median(mixtures)), mean - half, mean + half)


def _of_same_mixtures(own: MetricValues, other: MetricValues) -> Floats | None:
    """A repetition's values ``(n,)`` of the mixtures that the run itself scored, as if it had no others; None if it lacks one, or there are none."""
    wanted = own.examples[own.scored]
    if not len(wanted) or any(_lacking(own, other)):
        return None
    return other.among(np.searchsorted(other.examples, wanted), np.ones(len(wanted), np.bool_))


def _lacking(own: MetricValues, other: MetricValues) -> tuple[int, int]:
    """Of the mixtures that the run itself scored: how many a repetition has no scores of, and how many failed in it."""
    wanted = own.examples[own.scored]
    there = np.isin(wanted, other.examples, assume_unique=True)
    scored = np.isin(wanted, other.examples[other.scored], assume_unique=True)
    return int((~there).sum()), int((there & ~scored).sum())


def _half_width(a: float, degrees_a: float, b: float, degrees_b: float) -> float:
    """Of the interval of a mean whose variance is a + b, estimated with so many degrees of freedom each (Satterthwaite 1946)."""
    if not math.isfinite(a):
        return math.nan
    if a + b == 0:
        return 0.0
    degrees = (a + b) ** 2 / (a**2 / degrees_a + b**2 / degrees_b)
    return float(special.stdtrit(degrees, (1 + LEVEL) / 2)) * math.sqrt(a + b)


def with_repetitions(frame: pd.DataFrame, cells: Cells, run: RunStore, designs: TaskDesigns) -> tuple[pd.DataFrame, dict[tuple[str, str], CellRecord]]:
    """A run's leaderboard with the figures of its repetitions: ``seeds``, ``std_seeds``, ``fits``, ``std_fits``, and mean and interval over all of
    them. If there are both kinds, mean and interval are those of the fits, because a user would make a fit again.

    Returns:
        The leaderboard, and the cells: their notes name the repetitions that are left out.

    Raises:
        SepbenchError: a repetition is of another run, or cannot be read.
    """
    repeated = [repetition for kind in KINDS for repetition in repetitions(run, kind)]
    if not repeated:
        return frame, dict(cells)
    first, noted = Values.of_run(run), dict(cells)
    rows: list[Mapping[Any, Any]] = []
    for (task, method), group in groupby(frame.to_dict("records"), lambda record: (record["task"], record["method"])):
        records = list(group)
        rows += [_row(record, first, repeated, designs) if record["n_scored"] else record for record in records]
        told = _left_out([(task, method, record["metric"]) for record in records if record["n_scored"]], first, repeated)
        if told:
            cell = cells.get((task, method), CellRecord())
            noted[task, method] = cell.model_copy(update={"note": "; ".join(filter(None, (cell.note, *told)))})
    return pd.DataFrame(rows, columns=frame.columns).astype(frame.dtypes), noted


def _row(record: Mapping[Any, Any], first: Values, repeated: Sequence[Repetition], designs: TaskDesigns) -> dict[Any, Any]:
    row = dict(record)
    key = (row["task"], row["method"], row["metric"])
    for kind in KINDS:
        found = spread(first, [repetition.values for repetition in repeated if repetition.kind == kind], key, designs.task(row["task"]))
        if found is not None:
            row |= {kind: found.count, f"std_{kind}": found.between, "mean": found.mean, "ci_low": found.ci_low, "ci_high": found.ci_high}
            row["interval"] = f"{record['interval']} and {kind}"
            if math.isfinite(record["median"]):  # those of pooled metrics, which have none, are not those of their values
                row |= {"std": found.std, "median": found.median}
    return row


def mean_values(run: RunStore) -> Values:
    """A run's values. Of a repeated cell each mixture has its mean over the repetitions that count, as in ``spread``; of both kinds those of the fits.

    Raises:
        SepbenchError: a repetition is of another run; also when a cell is asked for, if it cannot be read.
    """
    first, repeated = Values.of_run(run), [repetition for kind in KINDS for repetition in repetitions(run, kind)]
    if not repeated:
        return first
    seed = run.read_run().seed

    def cell(task: str, method: str) -> CellValues:
        there = [(repetition, repetition.values.cell(task, method)) for repetition in repeated]
        cells = first.cell(task, method)
        return {metric: _mean_of(own, seed, [(one, values[metric]) for one, values in there if metric in values]) for metric, own in cells.items()}

    return Values(cell)


def told_values(values: Values | None, frame: pd.DataFrame) -> Values | None:
    """The values beside a leaderboard, which are means over repetitions, with what its rows tell of how far their means move."""
    rows = [(kind, record) for kind in KINDS for record in frame[frame[kind] > 1].to_dict("records") if math.isfinite(record[f"std_{kind}"])]
    moved = {(record["task"], record["method"], record["metric"]): Moved(kind, record[kind], record[f"std_{kind}"]) for kind, record in rows}
    if values is None or not moved:
        return values
    return Values(lambda task, method: {metric: replace(found, moved=moved.get((task, method, metric))) for metric, found in values.cell(task, method).items()})


def _mean_of(own: MetricValues, seed: int, others: Sequence[tuple[Repetition, MetricValues]]) -> MetricValues:
    counted = [(repetition, values) for repetition, values in others if own.scored.any() and not any(_lacking(own, values))]
    for kind in reversed(KINDS):
        of_kind = [(repetition.seed, values) for repetition, values in counted if repetition.kind == kind]
        if of_kind:
            return averaged(Repetitions(kind, (seed, *(one for one, _ in of_kind)), own, [values for _, values in of_kind]))
    return own


def _left_out(keys: Sequence[Key], first: Values, repeated: Iterable[Repetition]) -> list[str]:
    """Which repetitions the rows of one cell are without, and why: ``seeds 1, 2 left out: 190 missing of the 200 mixtures scored here``."""
    found: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for repetition in repeated:
        metrics: dict[str, list[str]] = {}
        for key in keys:
            why = _why(first.of(*key), repetition.values.of(*key)) if repetition.repeats(*key[:2]) else ""
            if why:
                metrics.setdefault(why, []).append(key[2])
        for why, those in metrics.items():
            found.setdefault((repetition.kind, why, tuple(those)), []).append(str(repetition.seed))
    texts = []
    for (kind, why, left), seeds in found.items():
        where = f" of {', '.join(left)}" if len(left) < len(keys) else ""
        texts.append(f"{kind if len(seeds) > 1 else kind[:-1]} {', '.join(seeds)} left out{where}: {why}")
    return texts


def _why(own: MetricValues, other: MetricValues) -> str:
    absent, failed = _lacking(own, other)
    lacks = [f"{absent:,} missing"] * bool(absent) + [f"{failed:,} failed"] * bool(failed)
    return f"{' and '.join(lacks)} of the {int(own.scored.sum()):,} mixtures scored here" if lacks else ""
