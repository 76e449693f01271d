"""Several seeds, several fits: what ``run --seeds`` and ``run --fits`` repeat, and how far results move with them.

A run's folder keeps repetitions as runs of their own: ``seeds/<seed>/`` has another seed of separation on the same fit, ``fits/<seed>/`` the same seed
of separation on another fit. Only methods that are random are repeated.

With S repetitions a row's value per mixture is its mean over them, and the variance of the row's mean is ``V + s^2 / S``: V over mixtures with their
clusters, as for one run, and s^2 between the means of the repetitions, which share every mixture. Degrees of freedom are Satterthwaite's (1946). s^2 has
the seeds' noise on single mixtures in it, which V has too, so the interval is a little too wide where there is nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from sepbench.errors import SepbenchError
from sepbench.results.intervals import LEVEL
from sepbench.results.statistics import Designs, TaskDesigns
from sepbench.results.store import RunStore
from sepbench.results.values import Values, without_spread
from sepbench.run.provenance import conflict

Floats = npt.NDArray[np.float64]

KINDS = ("seeds", "fits")


def folder_of(run: Path, kind: str, seed: int) -> Path:
    """The folder of a repetition."""
    return run / kind / str(seed)


def repetitions(run: RunStore, kind: str) -> list[Values]:
    """The per-example values of every repetition of one kind, in the order of their seeds.

    Raises:
        SepbenchError: one of them is of another run.
    """
    folder = run.path / kind
    seeds = sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()) if folder.is_dir() else []
    found = []
    for store in (RunStore(folder_of(run.path, kind, seed)) for seed in seeds):
        if not (store.path / "run.json").is_file():
            continue
        here, there = run.read_run(), store.read_run()
        other = conflict(here, there.model_copy(update={"seed": here.seed, "fit_seed": here.fit_seed}))
        if other is not None:
            raise SepbenchError(f"{store.path} repeats another run ({other[0]} differs); remove it, or run again with another --out")
        found.append(Values.of_run(store))
    return found


@dataclass(frozen=True, slots=True)
class Spread:
    """One metric of a cell over S repetitions, the run itself being the first.

    Attributes:
        count: S.
        mean: over mixtures and repetitions.
        between: standard deviation (ddof = 1) of the repetitions' means.
        ci_low, ci_high: 95 % interval of the mean.
    """

    count: int
    mean: float
    between: float
    ci_low: float
    ci_high: float


def spread(first: Values, others: Sequence[Values], key: tuple[str, str, str], designs: Designs) -> Spread | None:
    """The spread of one (task, method, metric) over the examples that all repetitions have scored; None if only the run itself has any."""
    cells = [first.of(*key), *(cell for cell in (values.of(*key) for values in others) if len(cell))]
    if len(cells) < 2:
        return None
    examples = cells[0].examples[cells[0].scored]
    for cell in cells[1:]:
        examples = np.intersect1d(examples, cell.examples[cell.scored], assume_unique=True)
    if not len(examples):
        return None
    values = np.stack([cell.values[np.searchsorted(cell.examples, examples)] for cell in cells])  # (S, n)
    means, design = values.mean(axis=1), designs.of(examples)
    between = float(means.std(ddof=1))
    of_mixtures = float(design.standard_errors(values.mean(axis=0)[:, None])[0]) ** 2
    if cells[0].of_a_set and any(map(without_spread, values)):
        of_mixtures = math.nan
    of_repetitions = between**2 / len(cells)
    half = _half_width(of_mixtures, design.degrees, of_repetitions, len(cells) - 1)
    mean = float(means.mean())
    return Spread(len(cells), mean, between, mean - half, mean + half)


def _half_width(a: float, degrees_a: float, b: float, degrees_b: float) -> float:
    """Of the interval of a mean whose variance is a + b, estimated with so many degrees of freedom each (Satterthwaite 1946)."""
    if not math.isfinite(a):
        return math.nan
    if a + b == 0:
        return 0.0
    degrees = (a + b) ** 2 / (a**2 / degrees_a + b**2 / degrees_b)
    return float(special.stdtrit(degrees, (1 + LEVEL) / 2)) * math.sqrt(a + b)


def with_repetitions(frame: pd.DataFrame, run: RunStore, designs: TaskDesigns) -> pd.DataFrame:
    """A run's leaderboard with the figures of its repetitions: ``seeds``, ``std_seeds``, ``fits``, ``std_fits``, and mean and interval over all of
    them. If there are both kinds, mean and interval are those of the fits, because a user would make a fit again.

    Raises:
        SepbenchError: a repetition is of another run, or cannot be read.
    """
    kinds = {kind: repetitions(run, kind) for kind in KINDS}
    if not any(kinds.values()):
        return frame
    first = Values.of_run(run)
    return pd.DataFrame([_row(record, first, kinds, designs) for record in frame.to_dict("records")], columns=frame.columns).astype(frame.dtypes)


def _row(record: Mapping[Any, Any], first: Values, kinds: Mapping[str, Sequence[Values]], designs: TaskDesigns) -> dict[Any, Any]:
    row = dict(record)
    key = (row["task"], row["method"], row["metric"])
    for kind, found in _spreads(key, first, kinds, designs):
        row |= {kind: found.count, f"std_{kind}": found.between, "mean": found.mean, "ci_low": found.ci_low, "ci_high": found.ci_high}
        row["interval"] = f"{record['interval']} and {kind}"
    return row


def _spreads(key: tuple[str, str, str], first: Values, kinds: Mapping[str, Sequence[Values]], designs: TaskDesigns) -> Iterator[tuple[str, Spread]]:
    for kind, others in kinds.items():
        found = spread(first, others, key, designs.task(key[0])) if others else None
        if found is not None:
            yield kind, found
