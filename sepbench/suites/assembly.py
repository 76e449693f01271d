"""From a task's frozen lists and data sets to its mixture set and its training material, with the train/test hygiene in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from sepbench.data.datasets import analytic_prior
from sepbench.data.gmm import GaussianMixture
from sepbench.data.mixtures import MixtureSet, Transform
from sepbench.data.pairs import PairList, read_pairs
from sepbench.data.signals import SignalSet
from sepbench.data.views import Pool, TrainingMaterial, content_hashes, without_duplicates
from sepbench.errors import SuiteError, UnsupportedTaskError

Opener = Callable[[str, str], SignalSet]
"""``opener(data set, split)``; ``sepbench.data.datasets.open_dataset`` outside tests."""

UsableRows = dict[tuple[object, ...], dict[str, torch.Tensor]]
"""(data sets, test rows, training rows) -> data set -> rows that may be trained on."""


@dataclass(frozen=True, slots=True)
class SourceClass:
    """What a source slot is drawn from: a data set, or those of its signals whose label is in ``labels``."""

    name: str
    dataset: str
    labels: tuple[int, ...] | None

    def rows(self, signals: SignalSet) -> torch.Tensor:
        """Rows of this class, ascending ``(n,)`` int64."""
        return torch.nonzero(self.member(signals)).flatten()

    def member(self, signals: SignalSet) -> torch.Tensor:
        """``(N,)`` bool: whether each signal is of this class."""
        if self.labels is None:
            return torch.ones(len(signals), dtype=torch.bool)
        return torch.isin(signals.labels, torch.tensor(self.labels))


@dataclass(frozen=True, slots=True)
class FrozenList:
    """A pair list on disk and the digest it must have."""

    path: Path
    sha256: str

    def read(self) -> PairList:
        """The list.

        Raises:
            SuiteError: malformed, or not the frozen one.
        """
        pairs = read_pairs(self.path)
        if pairs.sha256 != self.sha256:
            raise SuiteError(f"pair list {self.path} has sha256 {pairs.sha256}, frozen is {self.sha256}; restore the file (reinstall sepbench)")
        return pairs


@dataclass(frozen=True, slots=True)
class TaskData:
    """How a task's signals are found; opens nothing until asked.

    Attributes:
        opener: opens a split of a data set.
        slots: class of each source slot.
        shape: shape of one signal as read, before the transform.
        test_split, train_split: names of the splits; ``train_split`` is empty where the data set has none.
        held_out: the last so many training signals are for validation only.
        test_rows, train_rows: ``(start, stop)`` of the splits that the task may touch, or None for all (less the held-out ones).
        by_rank: lists hold ranks within the slot's class (in the split's order) instead of rows.
        pairs: the mixtures to separate; of the training split's held-out part if ``validation``.
        train_mixtures, train_observed: frozen training lists for level ``mixtures+one``; ``observed_slot`` is the class of the second.
        untrainable: why no training data exist; empty where they do.
        usable: cache of rows that survive the hygiene, shared by the tasks of one suite.
    """

    opener: Opener
    slots: tuple[SourceClass, ...]
    shape: tuple[int, ...]
    operator: str
    transform: Transform
    test_split: str
    train_split: str
    held_out: int
    test_rows: tuple[int, int] | None
    train_rows: tuple[int, int] | None
    by_rank: bool
    pairs: FrozenList
    validation: bool
    train_mixtures: FrozenList | None
    train_observed: FrozenList | None
    observed_slot: int | None
    untrainable: str
    usable: UsableRows = field(default_factory=dict)

    def _open(self, dataset: str, split: str) -> SignalSet:
        signals = self.opener(dataset, split)
        if signals.shape != self.shape:
            raise SuiteError(f"data set {dataset} {split} holds signals of shape {signals.shape}, the suite expects {self.shape}")
        return signals

    def _range(self, signals: SignalSet, role: str) -> tuple[int, int]:
        """Rows of a split that lists of this role may use."""
        n = len(signals)
        if role == "test":
            return self.test_rows or (0, n)
        if role == "validation":
            return n - self.held_out, n
        return self.train_rows or (0, n - self.held_out)

    def _locate(self, frozen: FrozenList, classes: tuple[SourceClass, ...], role: str) -> tuple[list[SignalSet], PairList]:
        """Open the signal sets of a list and turn its numbers into rows, each checked for its class and its part of the split."""
        pairs = frozen.read()
        if pairs.n_sources != len(classes):
            raise SuiteError(f"pair list {frozen.path} has {pairs.n_sources} sources per mixture, the task wants {len(classes)}")
        signals = [self._open(c.dataset, self.test_split if role == "test" else self.train_split) for c in classes]
        columns = []
        for k, (source, cls) in enumerate(zip(signals, classes, strict=True)):
            rows = pairs.indices[:, k]
            pool = cls.rows(source) if self.by_rank else torch.arange(len(source))
            if int(rows.max()) >= len(pool):
                what = f"{cls.name!r} signals of {source.name} {source.split}"
                raise SuiteError(f"pair list {frozen.path} asks for number {int(rows.max())} of the {what}, which are {len(pool):,}")
            rows = pool[rows]
            start, stop = self._range(source, role)
            misplaced = (rows < start) | (rows >= stop) | ~cls.member(source)[rows]
            if bool(misplaced.any()):
                example = int(misplaced.nonzero()[0])
                problem = f"row {int(rows[example])} of {source.name} {source.split} is not a {role} signal of class {cls.name!r}"
                raise SuiteError(f"pair list {frozen.path}, example {example}: {problem}")
            columns.append(rows)
        return signals, PairList(torch.stack(columns, dim=1), pairs.sha256, pairs.gains)

    def priors(self) -> tuple[GaussianMixture, ...]:
        """The distribution of every slot's sources, empty unless all are known in closed form."""
        if self.transform != Transform() or any(c.labels is not None for c in self.slots):
            return ()
        found = [analytic_prior(c.dataset) for c in self.slots]
        known = tuple(prior for prior in found if prior is not None)
        return known if len(known) == len(self.slots) else ()

    def mixture_set(self) -> MixtureSet:
        """The frozen mixtures."""
        signals, pairs = self._locate(self.pairs, self.slots, "validation" if self.validation else "test")
        return MixtureSet(signals, pairs, self.operator, self.transform)

    def protected(self) -> frozenset[bytes]:
        """Content digests of everything a method must not have trained on: the test part, and the held-out part, of every data set of the task."""
        digests: set[bytes] = set()
        for dataset in self._datasets():
            test = self._open(dataset, self.test_split)
            digests.update(content_hashes(test, torch.arange(*self._range(test, "test"))))
            if self.held_out:
                train = self._open(dataset, self.train_split)
                digests.update(content_hashes(train, torch.arange(*self._range(train, "validation"))))
        return frozenset(digests)

    def _datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c.dataset for c in self.slots))

    def _usable_rows(self) -> dict[str, torch.Tensor]:
        """Training rows of each data set that share their content with no protected signal."""
        key = (self._datasets(), self.test_rows, self.train_rows)
        if key not in self.usable:
            protected = self.protected()
            found = {}
            for dataset in self._datasets():
                train = self._open(dataset, self.train_split)
                found[dataset] = without_duplicates(train, torch.arange(*self._range(train, "training")), protected)
            self.usable[key] = found
        return self.usable[key]

    def training(self) -> TrainingMaterial:
        """Everything there is to learn from.

        Raises:
            UnsupportedTaskError: the data set has no training part.
        """
        if self.untrainable:
            raise UnsupportedTaskError(self.untrainable)
        usable = self._usable_rows()
        train = {dataset: self._open(dataset, self.train_split) for dataset in usable}
        sources = tuple(Pool(((train[c.dataset], _those(usable[c.dataset], c.member(train[c.dataset]))),)) for c in self.slots)
        clean = Pool(tuple((train[d], _those(usable[d], self._any_member(d, train[d]))) for d in usable))
        spans = [self._range(signals, "training") for signals in train.values()]
        excluded = sum(stop - start for start, stop in spans) - sum(len(rows) for rows in usable.values())
        mixtures, kept = self._training_mixtures(usable)
        return TrainingMaterial(clean, sources, self._observed(usable), mixtures, kept, self.transform, excluded)

    def _any_member(self, dataset: str, signals: SignalSet) -> torch.Tensor:
        masks = [c.member(signals) for c in self.slots if c.dataset == dataset]
        return torch.stack(masks).any(dim=0)

    def _training_mixtures(self, usable: dict[str, torch.Tensor]) -> tuple[MixtureSet | None, torch.Tensor]:
        if self.train_mixtures is None:
            return None, torch.arange(0)
        signals, pairs = self._locate(self.train_mixtures, self.slots, "training")
        keep = torch.stack([torch.isin(pairs.indices[:, k], usable[c.dataset]) for k, c in enumerate(self.slots)]).all(dim=0)
        return MixtureSet(signals, pairs, self.operator, self.transform), keep.nonzero().flatten()

    def _observed(self, usable: dict[str, torch.Tensor]) -> Pool | None:
        if self.train_observed is None or self.observed_slot is None:
            return None
        cls = self.slots[self.observed_slot]
        (signals,), pairs = self._locate(self.train_observed, (cls,), "training")
        rows = pairs.indices[:, 0]
        return Pool(((signals, rows[torch.isin(rows, usable[cls.dataset])]),))


def _those(rows: torch.Tensor, member: torch.Tensor) -> torch.Tensor:
    return rows[member[rows]]
