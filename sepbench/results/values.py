"""One value per example: the scores of a cell (a task under a method) reduced over their sources, read when they are asked for.

A pooled metric, or one of sets, has no value of an example. Here it gets one. The mean of these values over the
examples is the metric's value, and their deviations are the examples' influence on it (``kinds.PooledMetric.pool``). So
code that reduces, compares or checks means also works for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sepbench.errors import SepbenchError
from sepbench.metrics.scoring import SEEN
from sepbench.results.feature_files import CellFeatures
from sepbench.results.pooled import Parts, Pooling, joined, parts_of, split_rows
from sepbench.results.score_files import Rows, read_rows
from sepbench.results.sets import SetParts

if TYPE_CHECKING:
    from sepbench.results.repeated import Moved, Repetitions
    from sepbench.results.store import RunStore

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_CELLS_KEPT = 2
"""Cells whose values are held: the two that are compared. A cell of a million mixtures and two metrics takes 32 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class MetricValues:
    """Values of one metric in one cell.

    Attributes:
        examples: ``(n,)`` ids in ascending order, each once: the examples that were scored or failed.
        values: ``(n,)`` the mean over the example's scored sources; NaN where the example failed, where any of its sources has no finite value,
            or where it has fewer sources than others. Of a pooled metric, see the top of this file.
        n_sources: sources of a complete example.
        parts: what the values of a pooled metric, or of one of sets, are made of; None for other metrics.
        whole_only: the values are those of a set and were read without what they are made of: they mean nothing for some of its examples.
        made: how such values were made, where that is known.
        repetitions: what values that are means over repetitions are made of; None for a single run.
        moved: how far their mean moves with the repetitions, where only that is known (a leaderboard).
    """

    examples: Integers
    values: Floats
    n_sources: int = 1
    parts: Pooling | None = None
    whole_only: bool = False
    made: str = ""
    repetitions: Repetitions | None = None
    moved: Moved | None = None

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """``(n,)`` where there is a value."""
        return np.isfinite(self.values)

    @property
    def spread(self) -> str:
        """How the values of a pooled metric, or of one of sets, were made; empty for other metrics."""
        return self.parts.spread if self.parts is not None else self.made

    @property
    def of_a_set(self) -> bool:
        """Whether the values are the influence of examples on the value of a set."""
        return self.parts is not None or self.whole_only

    @property
    def undefined(self) -> int:
        """Examples of a set that has no value although they have all that it takes, such as FID's limit of few images; 0 if it has one."""
        return int(self.parts.scored.sum()) if self.parts is not None and not self.scored.any() else 0

    def serves(self, rows: Integers, chosen: npt.NDArray[np.bool_]) -> bool:
        """Whether there are values of ``rows[chosen]`` as if there were no other examples."""
        return not self.whole_only or (int(chosen.sum()) == int(self.scored.sum()))

    @property
    def std(self) -> float:
        """Standard deviation that is published beside the value of a set, NaN if there is none."""
        return self.parts.std(self.scored) if self.parts is not None else float("nan")

    def among(self, rows: Integers, chosen: npt.NDArray[np.bool_]) -> Floats:
        """The values at ``rows[chosen]`` as if there were no other examples than ``rows``, of which those not chosen failed: a pooled metric pools anew."""
        return self.taken(rows, chosen)[0]

    def taken(self, rows: Integers, chosen: npt.NDArray[np.bool_]) -> tuple[Floats, Moved | None]:
        """The values of ``among``, and how far their mean moves with the repetitions; None if there are none."""
        if self.repetitions is not None:
            return self.repetitions.taken(rows, chosen)
        if self.parts is None or (len(rows) == len(self) and np.array_equal(chosen, self.scored)):
            return self.values[rows[chosen]], self.moved
        return self.parts.of(rows).pooled(chosen)[chosen], self.moved


def without_spread(values: Floats) -> bool:
    """Whether the values of a set are all one, as those of a single window are: they then do not say how far it would move with other examples."""
    return len(values) > 0 and bool((values == values[0]).all())


CellValues = Mapping[str, MetricValues]
"""A cell's values by metric."""

NO_VALUES = MetricValues(np.empty(0, np.int64), np.empty(0))


class Values:
    """Per-example values of a run. Holds those of the last few cells only, so that a run of any size can be walked through.

    Args:
        read: the values of a (task, method); empty where there are no scores.
    """

    def __init__(self, read: Callable[[str, str], CellValues]) -> None:
        self.cell = lru_cache(_CELLS_KEPT)(read)

    @classmethod
    def of_run(cls, store: RunStore) -> Values:
        """The values of a run's folder. A damaged file is a ``StoreError`` when its cell is asked for."""
        return cls(lambda task, method: read_cell(store.score_files(task, method), f"{task}, {method}", store.features(task, method)))

    def of(self, task: str, method: str, metric: str) -> MetricValues:
        """The values of one metric in one cell."""
        return self.cell(task, method).get(metric, NO_VALUES)


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Examples in ascending order, each once: sum of their values, number of their rows, whether one of them is bad."""

    examples: Integers
    totals: Floats
    counts: Integers
    bad: npt.NDArray[np.bool_]


def read_cell(files: Sequence[Path], where: str, features: CellFeatures | None = None) -> CellValues:
    """The values of the cell whose scores are these files, see ``reduce_cell``.

    Raises:
        StoreError: a file cannot be read.
        SepbenchError: an example's source is scored twice.
    """
    return reduce_cell(lambda: read_rows(files), where, features)


def reduce_cell(parts: Callable[[], Iterable[Rows]], where: str, features: CellFeatures | None = None) -> CellValues:
    """Reduce the scores of one cell over their sources.

    Every part is reduced by itself, so that only one value per example and metric is held. Should an example lie in several parts, the parts are
    asked for again and reduced as one.

    Args:
        parts: yields the cell's rows, in any order; may be called twice.
        where: the cell in words, for errors.
        features: of the cell, for metrics of sets.

    Raises:
        SepbenchError: an example's source is scored twice, or the features of a metric of sets are not there.
    """
    found: dict[str, list[_Sums]] = {}
    pooled: dict[str, list[Parts]] = {}
    for part in parts():
        plain, of_pooled = split_rows(part)
        for metric, sums in _reduced(part, plain, where):
            found.setdefault(metric, []).append(sums)
        for metric, codes in of_pooled.items():
            of_part = parts_of(part, metric, codes, where)
            if of_part is not None:
                pooled.setdefault(metric, []).append(of_part)
    cell: dict[str, MetricValues] = {}
    shared = NO_VALUES.examples
    for metric in list(found):
        if metric in pooled:  # files in which every example failed have no parts
            pooled[metric] += [Parts(metric, sums.examples, {}) for sums in found.pop(metric)]
            continue
        sums = _joined(found.pop(metric)) or _sums(*_rows_of(metric, parts()), f"{where} contain {metric}")
        wanted = int(sums.counts.max())
        examples = shared if np.array_equal(shared, sums.examples) else sums.examples  # metrics have their examples in common
        cell[metric] = MetricValues(examples, np.where(sums.bad | (sums.counts != wanted), np.nan, sums.totals / sums.counts), wanted)
        shared = examples
    for metric, files in pooled.items():
        parts_there = joined(files, where)
        whole = _set_parts(parts_there, features, where) if SEEN in parts_there.values else parts_there
        cell[metric] = MetricValues(whole.examples, whole.pooled(whole.scored), whole.n_sources, whole)
    return cell


def _set_parts(seen: Parts, features: CellFeatures | None, where: str) -> SetParts:
    if features is None:
        raise SepbenchError(f"the scores of {where} contain {seen.metric} without features; run `sepbench score` again")
    return SetParts(seen.metric, seen, features)


def _joined(parts: list[_Sums]) -> _Sums | None:
    """All parts as one in ascending order of examples; None if an example lies in several."""
    parts = sorted(parts, key=lambda part: int(part.examples[0]))
    examples = np.concatenate([part.examples for part in parts])
    rest = (np.concatenate([getattr(part, name) for part in parts]) for name in ("totals", "counts", "bad"))
    if (np.diff(examples) > 0).all():
        return _Sums(examples, *rest)
    order = np.argsort(examples, kind="stable")
    examples = examples[order]
    return _Sums(examples, *(column[order] for column in rest)) if (np.diff(examples) > 0).all() else None


def _rows_of(metric: str, parts: Iterable[Rows]) -> tuple[Integers, Integers, Floats, npt.NDArray[np.bool_]]:
    """Example, source, value and failed of one metric's rows in all parts."""
    picked = [
        tuple(column[rows.metric == rows.metrics.index(metric)] for column in (rows.example, rows.source, rows.value, rows.failed))
        for rows in parts
        if metric in rows.metrics
    ]
    return tuple(np.concatenate(column) for column in zip(*picked, strict=True))  # type: ignore[return-value]


def _reduced(rows: Rows, codes: Sequence[int], where: str) -> Iterator[tuple[str, _Sums]]:
    """The sums of every one of these metrics that has rows."""
    for code in codes:
        metric, chosen = rows.metrics[code], rows.metric == code
        if chosen.any():
            yield metric, _sums(rows.example[chosen], rows.source[chosen], rows.value[chosen], rows.failed[chosen], f"{where} contain {metric}")


def _sums(example: Integers, source: Integers, value: Floats, failed: npt.NDArray[np.bool_], where: str) -> _Sums:
    order = np.lexsort((source, example)) if (np.diff(example) < 0).any() else None
    if order is not None:
        example, source, value, failed = example[order], source[order], value[order], failed[order]
    starts = np.flatnonzero(np.r_[True, np.diff(example) != 0])
    counts = np.diff(np.r_[starts, len(example)])
    bad = failed | ~np.isfinite(value)
    _refuse_repetitions(example, source, bad, where)
    totals, lost = np.zeros(len(starts)), np.zeros(len(starts))
    spoilt = np.zeros(len(starts), np.bool_)
    for number in range(int(counts.max())):
        (here,) = np.nonzero(counts > number)
        rows = starts[here] + number
        # Compensated summation (Kahan 1965): the sum of an example's values does not depend on the order of its sources by more than a rounding.
        with np.errstate(invalid="ignore"):
            term = value[rows] - lost[here]
            total = totals[here] + term
            lost[here] = total - totals[here] - term
        totals[here] = total
        spoilt[here] |= bad[rows]
    return _Sums(example[starts], totals, counts, spoilt)


def _refuse_repetitions(example: Integers, source: Integers, bad: npt.NDArray[np.bool_], where: str) -> None:
    """Rows with a value must differ in example or source."""
    ahead = (np.diff(example) > 0) | (np.diff(source) > 0)
    if ahead.all():  # the order that scoring writes
        return
    example, source = example[~bad], source[~bad]
    order = np.lexsort((source, example))
    example, source = example[order], source[order]
    (repeated,) = np.nonzero((np.diff(example) == 0) & (np.diff(source) == 0))
    if len(repeated):
        raise SepbenchError(f"the scores of {where} of example {example[repeated[0]]} twice; run `sepbench score` again")
