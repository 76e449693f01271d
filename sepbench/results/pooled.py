"""Pooled metrics when results are read: the parts of a cell, as they were scored, to one value per example whose mean is the value of the set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sepbench.errors import SepbenchError
from sepbench.metrics.catalogue import get_metric
from sepbench.metrics.kinds import PART, PooledMetric
from sepbench.results.score_files import Rows

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Pooling(Protocol):
    """What a value of many examples is made of, so that it can be made anew of some of them."""

    @property
    def spread(self) -> str:
        """How the values of single examples were made, for leaderboards."""
        ...

    @property
    def scored(self) -> Bools:
        """``(n,)`` where an example has all that it takes."""
        ...

    def pooled(self, among: Bools) -> Floats:
        """``(n,)`` values of the examples ``among``, whose mean is the value of these examples; NaN elsewhere."""
        ...

    def std(self, among: Bools) -> float:
        """The standard deviation that is published beside such a value, NaN if there is none."""
        ...

    def of(self, rows: Integers) -> Pooling:
        """What the value of the examples in these places is made of."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The parts of one pooled metric, of some examples; a ``Pooling``.

    Attributes:
        metric: its name.
        examples: ``(n,)`` ids in ascending order, each once: those that were scored or failed.
        values: ``(S, n)`` by name of part; NaN where the example failed or lacks the part.
    """

    metric: str
    examples: Integers
    values: Mapping[str, Floats]

    @property
    def n_sources(self) -> int:
        return max((len(values) for values in self.values.values()), default=1)

    @property
    def spread(self) -> str:
        return pooled_metric(self.metric).spread if self.values else ""

    def std(self, among: Bools) -> float:
        """See ``Pooling``: none is published."""
        return float("nan")

    @property
    def scored(self) -> Bools:
        """``(n,)`` where no part of any source is missing."""
        found = np.ones(len(self.examples), np.bool_) if self.values else np.zeros(len(self.examples), np.bool_)
        for values in self.values.values():
            found &= np.isfinite(values).all(axis=0)
        return found

    def pooled(self, among: Bools) -> Floats:
        """``(n,)`` values: the mean over the sources of ``PooledMetric.pool`` of the examples ``among``, NaN elsewhere.

        Raises:
            UnknownNameError: no such metric here.
            SepbenchError: it is no pooled metric, or cannot pool these parts.
        """
        if not self.values:  # every example failed
            return np.full(len(self.examples), np.nan)
        total = np.zeros(len(self.examples))
        for source in range(self.n_sources):
            parts = {part: np.where(among, values[source], np.nan) for part, values in self.values.items()}
            try:
                total += pooled_metric(self.metric).pool(parts, self.examples)
            except (ValueError, KeyError) as error:
                raise SepbenchError(f"{self.metric} cannot be pooled from its scores: {error}; run `sepbench score` again") from error
        return np.where(among, total / self.n_sources, np.nan)

    def of(self, rows: Integers) -> Parts:
        """Those of the examples in these places."""
        return Parts(self.metric, self.examples[rows], {part: values[:, rows] for part, values in self.values.items()})


def pooled_metric(name: str) -> PooledMetric:
    """The pooled metric of a name.

    Raises:
        UnknownNameError: no such metric.
        SepbenchError: it pools nothing.
    """
    metric = get_metric(name)
    if not isinstance(metric, PooledMetric):
        raise SepbenchError(f"the scores have parts of {name}, which is not a pooled metric here; run `sepbench score` again")
    return metric


def split_rows(rows: Rows) -> tuple[list[int], dict[str, dict[str, int]]]:
    """The texts of a file's rows: codes of ordinary metrics, and of pooled ones by metric and part.

    The rows that carry a pooled metric's own name are those of examples that failed; they stand under the part "".
    """
    pooled: dict[str, dict[str, int]] = {}
    for code, text in enumerate(rows.metrics):
        metric, mark, part = text.partition(PART)
        if mark:
            pooled.setdefault(metric, {})[part] = code
    plain = []
    for code, text in enumerate(rows.metrics):
        if text in pooled:
            pooled[text][""] = code
        elif PART not in text:
            plain.append(code)
    return plain, pooled


def parts_of(rows: Rows, metric: str, codes: Mapping[str, int], where: str) -> Parts | None:
    """The parts that a file holds of one metric; None if it has no row of it.

    Raises:
        SepbenchError: an example's source is scored twice.
    """
    chosen = {part: np.flatnonzero(rows.metric == code) for part, code in codes.items()}
    every = np.concatenate(list(chosen.values()))
    if not len(every):
        return None
    examples = np.unique(rows.example[every])
    named = {part: places for part, places in chosen.items() if part and len(places)}
    sources = np.unique(rows.source[np.concatenate(list(named.values()))]) if named else np.empty(0, np.int64)
    values = {}
    for part, places in named.items():
        dense = np.full((len(sources), len(examples)), np.nan)
        slot = np.searchsorted(sources, rows.source[places]) * len(examples) + np.searchsorted(examples, rows.example[places])
        if len(np.unique(slot)) < len(slot):
            raise SepbenchError(f"the scores of {where} contain {metric} of an example twice; run `sepbench score` again")
        dense.reshape(-1)[slot] = np.where(rows.failed[places], np.nan, rows.value[places])
        values[part] = dense
    return Parts(metric, examples, values)


def joined(found: Sequence[Parts], where: str) -> Parts:
    """The parts of all files of a cell as one.

    Raises:
        SepbenchError: an example's source is scored twice, or files disagree in sources.
    """
    names = list(dict.fromkeys(part for parts in found for part in parts.values))
    n_sources = max(parts.n_sources for parts in found)
    examples = np.concatenate([parts.examples for parts in found])
    order = np.argsort(examples, kind="stable")
    if (np.diff(examples[order]) == 0).any():
        raise SepbenchError(f"the scores of {where} contain {found[0].metric} of an example twice; run `sepbench score` again")
    values = {}
    for name in names:
        columns = [parts.values.get(name, np.full((n_sources, len(parts.examples)), np.nan)) for parts in found]
        if {len(column) for column in columns} != {n_sources}:
            raise SepbenchError(f"the scores of {where} contain {found[0].metric} of other sources in other files; run `sepbench score` again")
        values[name] = np.concatenate(columns, axis=1)[:, order]
    return Parts(found[0].metric, examples[order], values)
