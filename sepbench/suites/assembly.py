"""From a task's frozen lists and data sets to its mixture set and its training material, with the train/test hygiene in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from sepbench.data.datasets import analytic_prior, has_analytic_prior
from sepbench.data.lists.clusters import INDEPENDENT, Clusters, independent, of_names, of_signals, read_clusters
from sepbench.data.lists.pairs import PairList, PairNumbers, as_tensors, read_numbers, read_pairs
from sepbench.data.lists.rules import PairRule, derive
from sepbench.data.mixtures import MixtureSet, Transform
from sepbench.data.signals import KnowsGroups
from sepbench.data.views import Pool, TrainingMaterial, content_hashes, without_duplicates
from sepbench.errors import SuiteError, UnsupportedTaskError
from sepbench.gmm import GaussianMixture
from sepbench.protocols import SignalSet
from sepbench.torch_later import torch

Opener = Callable[[str, str], SignalSet]
"""``opener(data set, split)``; ``sepbench.data.datasets.open_dataset`` outside tests."""

UsableRows: TypeAlias = "dict[tuple[object, ...], dict[str, torch.Tensor]]"
"""(data sets, test rows, training rows) -> data set -> rows that may be trained on."""


@dataclass(frozen=True, slots=True)
class SourceClass:
    """What a source slot is drawn from: a data set, or those of its signals whose label is in ``labels``.

    ``rows_per_cluster``: this many consecutive rows are of one song or one set of recordings. 1: every signal stands
    for itself.
    """

    name: str
    dataset: str
    labels: tuple[int, ...] | None
    rows_per_cluster: int = 1

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

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> PairList:
        """The list.

        Raises:
            SuiteError: malformed, or not the frozen one.
        """
        return as_tensors(self.numbers())

    def numbers(self) -> PairNumbers:
        """The same as arrays, which tables need without torch; raises as ``read``."""
        pairs = read_numbers(self.path)
        if pairs.sha256 != self.sha256:
            raise SuiteError(f"pair list {self.path} has sha256 {pairs.sha256}, frozen is {self.sha256}; restore the file (reinstall sepbench)")
        return pairs


@dataclass(frozen=True, slots=True)
class DerivedList:
    """A pair list that a rule makes from the data, because nobody could look at the data when the suite was written.

    Attributes:
        rule: how it is made.
        sha256: digest it must have; empty until someone who has the data freezes it.
        column: the only slot whose signals are used, None for all.
        path: the file to which the list was written when it was frozen; None: it is made anew.
    """

    rule: PairRule
    sha256: str
    column: int | None = None
    path: Path | None = None

    def checked(self, pairs: PairList) -> PairList:
        """The list as it was derived, if it is the frozen one.

        Raises:
            SuiteError: it is not.
        """
        if self.sha256 and pairs.sha256 != self.sha256:
            made = f"the list made by the rule ({self.rule.text}) has sha256 {pairs.sha256}, frozen is {self.sha256}"
            raise SuiteError(f"{made}; the data are not those of this suite version")
        return pairs if self.column is None else PairList(pairs.indices[:, self.column : self.column + 1], pairs.sha256)

    def __str__(self) -> str:
        return f"of rule {self.rule.builder}, order {self.rule.order}"


Listing = FrozenList | DerivedList

DerivedLists = dict[tuple[object, ...], PairList]
"""(rule, slots, role) -> the list; shared by the tasks of one suite, since making one reads many signals."""


@dataclass(frozen=True, slots=True)
class TaskData:
    """How a task's signals are found; opens nothing until asked.

    Attributes:
        opener: opens a split of a data set.
        slots: class of each source slot.
        shape: shape of one signal as read, before the transform.
        test_split, train_split: names of the splits; ``train_split`` is empty if the data set has none.
        validation_split: name of the split that validation lists come from; empty if that is the held-out part of the
            training split.
        held_out: how many training signals are for validation only (the last ones).
        test_rows, train_rows: ``(start, stop)`` of the splits that the task may touch, or None for all (less the held-out ones).
        by_rank: lists hold ranks within the slot's class (in the split's order) instead of rows.
        pairs: the mixtures to separate; of the training split's held-out part if ``validation``.
        train_mixtures, train_observed: training lists for level ``mixtures+one``; ``observed_slot`` is the class of the second.
        train_sources: the only training signals, one column per slot, together with those of the two lists above; None: all of the split.
        untrainable: why no training data exist; empty if they do.
        cluster: what a cluster of this task is, see ``sepbench.data.lists.clusters``.
        cluster_file: frozen cluster keys; None if they follow from the list.
        usable, derived: caches of rows that survive the hygiene and of lists made by rules, shared by the tasks of one suite.
    """

    opener: Opener
    slots: tuple[SourceClass, ...]
    shape: tuple[int, ...]
    operator: str
    transform: Transform
    test_split: str
    train_split: str
    validation_split: str
    held_out: int
    test_rows: tuple[int, int] | None
    train_rows: tuple[int, int] | None
    by_rank: bool
    pairs: Listing
    validation: bool
    train_mixtures: Listing | None
    train_observed: Listing | None
    train_sources: Listing | None
    observed_slot: int | None
    untrainable: str
    cluster: str = INDEPENDENT
    cluster_file: Path | None = None
    usable: UsableRows = field(default_factory=dict)
    derived: DerivedLists = field(default_factory=dict)

    def _open(self, dataset: str, split: str) -> SignalSet:
        signals = self.opener(dataset, split)
        if signals.shape != self.shape:
            raise SuiteError(f"data set {dataset} {split} has signals of shape {signals.shape}, the suite expects {self.shape}")
        return signals

    def _range(self, signals: SignalSet, role: str) -> tuple[int, int]:
        """Rows of a split that lists of this role may use."""
        n = len(signals)
        if role == "test":
            return self.test_rows or (0, n)
        if role == "validation":
            return n - self.held_out if not self.validation_split else 0, n
        return self.train_rows or (0, n - self.held_out)

    def _split(self, role: str) -> str:
        return {"test": self.test_split, "validation": self.validation_split or self.train_split}.get(role, self.train_split)

    def _read(self, listing: Listing, role: str) -> PairList:
        """A list from its file, or by its rule from the signals that lists of this role may use."""
        if isinstance(listing, FrozenList):
            return listing.read()
        if listing.path is not None:
            return listing.checked(read_pairs(listing.path))
        key = (listing.rule, self.slots, role, self.test_rows, self.train_rows)
        if key not in self.derived:
            signals = [self._open(c.dataset, self._split(role)) for c in self.slots]
            pools = [_those(torch.arange(*self._range(s, role)), c.member(s)) for s, c in zip(signals, self.slots, strict=True)]
            self.derived[key] = derive(listing.rule, list(zip(signals, pools, strict=True)))
        return listing.checked(self.derived[key])

    def derived_sha256(self, listing: DerivedList, role: str) -> str:
        """Digest of the list that a rule makes of the data; raises as opening them does."""
        return self._read(listing, role).sha256

    def whole_list(self, listing: DerivedList, role: str) -> PairList:
        """The whole list that a rule makes of the data, all columns; raises as opening them does."""
        return self._read(replace(listing, column=None), role)

    def pair_list(self) -> PairList:
        """The mixtures to separate, as numbers of the list. Data are opened only if a rule makes the list."""
        return self._read(self.pairs, "validation" if self.validation else "test")

    def clusters(self) -> Clusters:
        """Which mixtures share a song, an image or a recording. Data are opened only if a rule makes the list.

        Raises:
            DataError: the list is made by a rule and the data are missing.
            SuiteError: a file of keys that is malformed or of another length than the list.
        """
        indices = self.pairs.numbers().indices if isinstance(self.pairs, FrozenList) else self.pair_list().indices.numpy()
        if self.cluster_file is not None:
            found = read_clusters(self.cluster_file)
            if found.keys.shape != indices.shape:
                raise SuiteError(f"clusters {self.cluster_file} have {found.keys.shape} mixtures and sources, but the list {self.pairs} has {indices.shape}")
            return found
        if self.cluster == INDEPENDENT:
            return independent(len(indices))
        groups = self._groups() if isinstance(self.pairs, DerivedList) else ()
        if groups:
            return of_names([[group[row] for group, row in zip(groups, rows, strict=True)] for rows in indices.tolist()], self.cluster)
        return of_signals(indices // [c.rows_per_cluster for c in self.slots], [self._pool(c) for c in self.slots], self.cluster)

    def _pool(self, slot: SourceClass) -> tuple[object, ...]:
        """What the cluster numbers of a slot count; equal for slots that can share a cluster."""
        if slot.rows_per_cluster > 1:  # stems of one corpus lie in the same rows: a song is the same in every slot
            return (slot.dataset.partition("/")[0], slot.rows_per_cluster)
        return (slot.dataset, slot.labels if self.by_rank else ())  # ranks within a class count another thing in every class

    def _groups(self) -> tuple[tuple[str, ...], ...]:
        """Of every slot the recording that each row was cut from; empty unless all data sets know it."""
        role = "validation" if self.validation else "test"
        found = [self._open(c.dataset, self._split(role)) for c in self.slots]
        return tuple(signals.groups for signals in found if isinstance(signals, KnowsGroups)) if all(isinstance(s, KnowsGroups) for s in found) else ()

    def _locate(self, listing: Listing, classes: tuple[SourceClass, ...], role: str) -> tuple[list[SignalSet], PairList]:
        """Open the signal sets of a list and turn its numbers into rows, each checked for its class and its part of the split."""
        pairs = self._read(listing, role)
        if pairs.n_sources != len(classes):
            raise SuiteError(f"pair list {listing} has {pairs.n_sources} sources per mixture, the task has {len(classes)}")
        signals = [self._open(c.dataset, self._split(role)) for c in classes]
        columns = []
        for k, (source, cls) in enumerate(zip(signals, classes, strict=True)):
            rows = pairs.indices[:, k]
            pool = cls.rows(source) if self.by_rank else torch.arange(len(source))
            if int(rows.max()) >= len(pool):
                what = f"{cls.name!r} signals of {source.name} {source.split}"
                raise SuiteError(f"pair list {listing} asks for number {int(rows.max())} of the {what}, but there are only {len(pool):,}")
            rows = pool[rows]
            start, stop = self._range(source, role)
            misplaced = (rows < start) | (rows >= stop) | ~cls.member(source)[rows]
            if bool(misplaced.any()):
                example = int(misplaced.nonzero()[0])
                problem = f"row {int(rows[example])} of {source.name} {source.split} is not a {role} signal of class {cls.name!r}"
                raise SuiteError(f"pair list {listing}, example {example}: {problem}")
            columns.append(rows)
        return signals, PairList(torch.stack(columns, dim=1), pairs.sha256, pairs.gains)

    @property
    def knows_priors(self) -> bool:
        """Whether ``priors`` has any, without making them."""
        return self.transform == Transform() and all(c.labels is None and has_analytic_prior(c.dataset) for c in self.slots)

    def priors(self) -> tuple[GaussianMixture, ...]:
        """The distribution of every slot's sources, empty unless all are known in closed form."""
        return tuple(prior for c in self.slots if (prior := analytic_prior(c.dataset)) is not None) if self.knows_priors else ()

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
            if self.held_out or self.validation_split:
                held_out = self._open(dataset, self._split("validation"))
                digests.update(content_hashes(held_out, torch.arange(*self._range(held_out, "validation"))))
        return frozenset(digests)

    def _datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c.dataset for c in self.slots))

    def _usable_rows(self) -> dict[str, torch.Tensor]:
        """Training rows of each data set that share their content with no protected signal."""
        key = (self._datasets(), self.test_rows, self.train_rows, tuple(self._training_lists()) if self.train_sources else ())
        if key not in self.usable:
            protected = self.protected()
            found = {}
            for dataset in self._datasets():
                train = self._open(dataset, self.train_split)
                found[dataset] = without_duplicates(train, self._candidates(dataset, train), protected)
            self.usable[key] = found
        return self.usable[key]

    def _candidates(self, dataset: str, train: SignalSet) -> torch.Tensor:
        """Rows of the training part of a data set, or those of them that the training lists name, ascending."""
        if self.train_sources is None:
            return torch.arange(*self._range(train, "training"))
        named = list[torch.Tensor]()
        for listing, classes in self._training_lists():
            pairs = self._locate(listing, classes, "training")[1]
            named += [pairs.indices[:, k] for k, c in enumerate(classes) if c.dataset == dataset]
        rows: torch.Tensor = torch.cat(named).unique(sorted=True)
        return rows

    def _training_lists(self) -> list[tuple[Listing, tuple[SourceClass, ...]]]:
        observed = () if self.observed_slot is None else (self.slots[self.observed_slot],)
        listed = ((self.train_sources, self.slots), (self.train_mixtures, self.slots), (self.train_observed, observed))
        return [(listing, classes) for listing, classes in listed if listing is not None]

    def reference(self, slots: Sequence[int]) -> list[tuple[SignalSet, torch.Tensor, Transform]]:
        """The training signals of the classes of some slots, by data set. A set of estimates is compared with them. The held-out part belongs to them.

        Raises:
            UnsupportedTaskError: the data set has no training part.
        """
        if self.untrainable:
            raise UnsupportedTaskError(self.untrainable)
        found = []
        for dataset in dict.fromkeys(self.slots[slot].dataset for slot in slots):
            signals = self._open(dataset, self.train_split)
            rows = torch.arange(*(self.train_rows or (0, len(signals))))
            masks = [self.slots[slot].member(signals) for slot in slots if self.slots[slot].dataset == dataset]
            found.append((signals, _those(rows, torch.stack(masks).any(dim=0)), self.transform))
        return found

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
        excluded = sum(len(self._candidates(d, train[d])) - len(usable[d]) for d in usable)
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
