"""Metrics of sets when results are read: the features of a cell to one value per example, whose mean is the value of the set."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sepbench.errors import SepbenchError
from sepbench.metrics.catalogue import get_metric
from sepbench.metrics.kinds import SetMetric
from sepbench.metrics.sets.features import SetValue
from sepbench.results.feature_files import CellFeatures
from sepbench.results.pooled import Bools, Floats, Integers, Parts


@dataclass(slots=True, eq=False)
class SetParts:
    """What a metric of sets is made of, see ``pooled.Pooling``.

    Attributes:
        metric: its name.
        seen: which estimates of which examples have features.
        features: the features.
    """

    metric: str
    seen: Parts
    features: CellFeatures
    _known: dict[bytes, SetValue] = field(default_factory=dict, init=False, repr=False)

    @property
    def examples(self) -> Integers:
        return self.seen.examples

    @property
    def n_sources(self) -> int:
        return self.seen.n_sources

    @property
    def scored(self) -> Bools:
        """``(n,)`` where all sources of an example have features."""
        return self.seen.scored

    @property
    def spread(self) -> str:
        return set_metric(self.metric).spread

    def pooled(self, among: Bools) -> Floats:
        """``(n,)`` values: the mean over the sources of the values of the examples ``among``, NaN elsewhere.

        Raises:
            UnknownNameError, SepbenchError: no such metric of sets here.
            StoreError, DataError: features or the reference cannot be read.
        """
        values = np.full(len(self.examples), np.nan)
        if among.any():
            values[among] = self._value(among).values.reshape(int(among.sum()), -1).mean(axis=1)
        return values

    def std(self, among: Bools) -> float:
        """The standard deviation that is published beside such a value, NaN if there is none."""
        return self._value(among).std if among.any() else float("nan")

    def of(self, rows: Integers) -> SetParts:
        """Those of the examples in these places."""
        return SetParts(self.metric, self.seen.of(rows), self.features)

    def _value(self, among: Bools) -> SetValue:
        key = among.tobytes()
        if key not in self._known:
            metric = set_metric(self.metric)
            features = self.features.of(metric.extractor, self.examples[among])
            self._known[key] = metric.pool(features, self.features.reference(metric.extractor))
        return self._known[key]


def set_metric(name: str) -> SetMetric:
    """The metric of sets of a name.

    Raises:
        UnknownNameError: no such metric.
        SepbenchError: it is none of sets.
    """
    metric = get_metric(name)
    if not isinstance(metric, SetMetric):
        raise SepbenchError(f"the scores have features for {name}, which is not a metric of sets here; run `sepbench score` again")
    return metric
