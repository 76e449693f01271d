"""Training views: clean samples and training mixtures, cut to what a method's supervision level hands out.

The level is checked at this interface and not enforced: a method runs in the same process as everything else and could open a suite by itself. Whoever
publishes a method's rows stands for it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from sepbench.data.mixtures import MixtureSet, Transform
from sepbench.data.signals import KnowsContent
from sepbench.errors import DataError, SupervisionError
from sepbench.protocols import SUPERVISION_LEVELS, ScorePrior, SignalSet, Supervision, TaskSpec
from sepbench.torch_later import torch

_CHUNK_VALUES = 1 << 23  # numbers loaded at once while hashing, 32 MB

_LEVELS: dict[str, tuple[Supervision, ...]] = {
    "mixtures": ("mixtures+one",),
    "observed": ("mixtures+one",),
    "clean": ("prior", "sources"),
    "sources": ("sources",),
    "prior": ("prior", "sources", "bound"),
}


@dataclass(frozen=True, slots=True)
class Pool:
    """Training signals: parts of one or more signal sets, in order. ``parts`` holds (signal set, ``(n,)`` int64 rows)."""

    parts: tuple[tuple[SignalSet, torch.Tensor], ...]

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.parts)

    def load(self, limit: int | None = None) -> torch.Tensor:
        """The first ``limit`` signals (all if None) ``(n, *shape)`` float32."""
        loaded, left = [], len(self) if limit is None else limit
        for signals, rows in self.parts:
            loaded.append(signals.load(rows[: max(left, 0)]))
            left -= len(loaded[-1])
        return torch.cat(loaded)

    def load_rows(self, indices: torch.Tensor) -> torch.Tensor:
        """The signals of these positions ``(n, *shape)`` float32, in the order asked for."""
        if not len(indices):
            return self.parts[0][0].load(indices)
        ends = torch.tensor([len(rows) for _, rows in self.parts]).cumsum(0)
        part = torch.bucketize(indices, ends, right=True)
        loaded: torch.Tensor | None = None
        for number, (signals, rows) in enumerate(self.parts):
            here = (part == number).nonzero().squeeze(1)
            if len(here):
                start = int(ends[number]) - len(rows)
                values = signals.load(rows[indices[here] - start])
                loaded = values.new_empty((len(indices), *values.shape[1:])) if loaded is None else loaded
                loaded[here] = values
        if loaded is None:
            raise IndexError(f"positions must lie in [0, {len(self)})")
        return loaded


@dataclass(frozen=True, slots=True)
class PooledRows:
    """``TrainingRows``: a length, and what loads the signals of given positions."""

    count: int
    read: Callable[[torch.Tensor], torch.Tensor]

    def __len__(self) -> int:
        return self.count

    def load(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Signals ``(n, ...)`` float32.

        Raises:
            IndexError: a position outside [0, len).
        """
        wanted = torch.as_tensor(indices, dtype=torch.int64)
        if len(wanted) and not (int(wanted.min()) >= 0 and int(wanted.max()) < self.count):
            raise IndexError(f"positions must lie in [0, {self.count}), got {int(wanted.min())} to {int(wanted.max())}")
        return self.read(wanted)


@dataclass(frozen=True, slots=True)
class TrainingMaterial:
    """Everything a task has for training, before any level cuts it.

    Attributes:
        clean: samples of all classes of the task, in the data sets' order.
        sources: one pool per source slot.
        observed: samples of the observed class for level ``mixtures+one``; None where the task has none.
        mixtures: frozen training mixtures for level ``mixtures+one``, disjoint from ``observed``; None where the task has none.
        mixture_rows: ``(n,)`` int64, the examples of ``mixtures`` that are handed out (those that touch an excluded image are not).
        transform: the suite's, applied to ``clean``, ``sources`` and ``observed``; ``mixtures`` brings its own.
        excluded: training images left out because a test or validation image has the same content.
    """

    clean: Pool
    sources: tuple[Pool, ...]
    observed: Pool | None
    mixtures: MixtureSet | None
    mixture_rows: torch.Tensor
    transform: Transform
    excluded: int


class PooledView:
    """The ``TrainingView`` of every suite. Data are opened when the first permitted accessor is called, so a blind method needs none."""

    def __init__(self, supervision: Supervision, task: TaskSpec, material: Callable[[], TrainingMaterial], priors: Sequence[ScorePrior] = ()) -> None:
        self._supervision = supervision
        self._task = task
        self._make = material
        self._priors = tuple(priors)

    @property
    def supervision(self) -> Supervision:
        return self._supervision

    @property
    def task(self) -> TaskSpec:
        return self._task

    @cached_property
    def _material(self) -> TrainingMaterial:
        return self._make()

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of everything that this level hands out, see ``training_digest``; empty where it hands out nothing."""
        levels = {level for granted in (_LEVELS["mixtures"], _LEVELS["clean"]) for level in granted}
        return training_digest(self._material, self._supervision) if self._supervision in levels else ""

    @property
    def opened(self) -> bool:
        """Whether training data have been opened; a blind method needs none, and one with weights of its own may need none."""
        return "_material" in vars(self)

    @property
    def excluded_duplicates(self) -> int:
        """Training images left out because a test or validation image has the same content."""
        return self._material.excluded

    def mixtures(self, limit: int | None = None) -> torch.Tensor:
        """Training mixtures ``(N, ...)``, see ``TrainingView``."""
        self._allow("mixtures", limit)
        mixtures = self._material.mixtures
        if mixtures is None:
            raise SupervisionError(f"task {self._where} has no training mixtures")
        self._check_left(len(self._material.mixture_rows), "mixture")
        return mixtures.mixtures(self._material.mixture_rows[:limit]).values

    def observed(self, limit: int | None = None) -> torch.Tensor:
        """Clean samples ``(N, ...)`` of the observed class, see ``TrainingView``."""
        self._allow("observed", limit)
        if self._material.observed is None:
            raise SupervisionError(f"task {self._where} has no observed samples")
        self._check_left(len(self._material.observed), f"observed {self._task.domain}")
        return self._material.transform(self._material.observed.load(limit))

    def clean(self, limit: int | None = None) -> torch.Tensor:
        """Clean samples ``(N, ...)`` of all classes, see ``TrainingView``."""
        self._allow("clean", limit)
        self._check_left(len(self._material.clean), self._task.domain)
        return self._material.transform(self._material.clean.load(limit))

    def sources(self, slot: int, limit: int | None = None) -> torch.Tensor:
        """Clean samples ``(N, ...)`` of one slot's class, see ``TrainingView``. Of all classes where the task is class-agnostic."""
        self._allow("sources", limit)
        self._check_slot(slot)
        self._check_left(len(self._material.sources[slot]), f"{self._task.domain} of source {slot}")
        return self._material.transform(self._material.sources[slot].load(limit))

    def rows(self, what: Literal["mixtures", "observed", "clean", "sources"], slot: int = 0) -> PooledRows:
        """Training signals by index, see ``TrainingView``."""
        self._allow(what, None)
        material = self._material
        if what == "mixtures":
            if material.mixtures is None:
                raise SupervisionError(f"task {self._where} has no training mixtures")
            mixed, numbers = material.mixtures, material.mixture_rows
            self._check_left(len(numbers), "mixture")
            return PooledRows(len(numbers), lambda indices: mixed.mixtures(numbers[indices]).values)
        if what == "sources":
            self._check_slot(slot)
        pool = {"observed": material.observed, "clean": material.clean, "sources": material.sources[slot if what == "sources" else 0]}[what]
        if pool is None:
            raise SupervisionError(f"task {self._where} has no observed samples")
        self._check_left(len(pool), f"{self._task.domain} of {f'source {slot}' if what == 'sources' else what}")
        return PooledRows(len(pool), lambda indices: material.transform(pool.load_rows(indices)))

    def prior(self, slot: int) -> ScorePrior:
        """The true distribution of one slot's sources in closed form, see ``TrainingView``; opens no data."""
        self._allow("prior", None)
        self._check_slot(slot)
        if not self._priors:
            raise SupervisionError(f"task {self._where} has no analytic prior: the distribution of its sources is not known in closed form")
        return self._priors[slot]

    def _check_left(self, count: int, what: str) -> None:
        """Refuse to hand out nothing.

        Raises:
            DataError: no signal is left, because all have the content of a test or validation signal or because there were none.
        """
        if count:
            return
        excluded = self._material.excluded
        if excluded and not len(self._material.clean):
            why = f"none of the {excluded:,} training {self._task.domain}s is left: all occur in the test split, or among what is held out for validation"
        else:
            why = f"no training {what} is left: {excluded:,} {self._task.domain}s were left out because they occur in the test split"
        raise DataError(f"{why}; task {self._where} needs training data of its own")

    def _check_slot(self, slot: int) -> None:
        if not 0 <= slot < self._task.n_sources:
            raise ValueError(f"slot must lie in [0, {self._task.n_sources}), got {slot}")

    @property
    def _where(self) -> str:
        return f"{self._task.suite}/{self._task.name}"

    def _allow(self, accessor: str, limit: int | None) -> None:
        levels = _LEVELS[accessor]
        if self._supervision not in levels:
            wanted = " or ".join(repr(level) for level in levels)
            raise SupervisionError(f"a method of supervision {self._supervision!r} asked for {accessor}(); declare {wanted} in MethodInfo to get them")
        if self._supervision == "mixtures+one" and self._task.observed_source is None:
            raise SupervisionError(f"this task has no observed class: {self._where} offers nothing to a method of supervision 'mixtures+one'")
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")


def make_view(supervision: Supervision, task: TaskSpec, material: Callable[[], TrainingMaterial], priors: Sequence[ScorePrior] = ()) -> PooledView:
    """The view of a task at one level.

    Args:
        supervision: the method's declared level.
        task: the task.
        material: makes the training material; called at most once, and not before a permitted accessor is.
        priors: the distribution of every source slot where it is known in closed form; empty where not.

    Raises:
        SupervisionError: no such level.
    """
    if supervision not in SUPERVISION_LEVELS:
        raise SupervisionError(f"unknown supervision level {supervision!r}; choose from {', '.join(SUPERVISION_LEVELS)}")
    return PooledView(supervision, task, material, priors)


def training_digest(material: TrainingMaterial, supervision: Supervision) -> str:
    """SHA-256 (hex) of the content that a level hands out: which signals in which order, and how they are transformed and mixed.

    Signal sets that know their content are not decoded for it.
    """
    sha = hashlib.sha256(f"{supervision} {material.transform}".encode())
    pools: list[Pool] = []
    if supervision in _LEVELS["clean"]:
        pools.append(material.clean)
    if supervision in _LEVELS["sources"]:
        pools += material.sources
    if supervision in _LEVELS["observed"] and material.observed is not None:
        pools.append(material.observed)
    for pool in pools:
        for signals, rows in pool.parts:
            sha.update(f"{signals.name} {signals.split} {len(rows)}".encode() + b"".join(content_hashes(signals, rows)))
    if supervision in _LEVELS["mixtures"] and material.mixtures is not None:
        sha.update(material.mixtures.content(material.mixture_rows))
    return sha.hexdigest()


def content_hashes(signals: SignalSet, rows: torch.Tensor) -> list[bytes]:
    """A digest of each signal's content: the set's own where it knows one that needs no decoding, else SHA-256 of the float32 bytes."""
    if isinstance(signals, KnowsContent):
        return signals.content_hashes(rows)
    digests: list[bytes] = []
    step = max(1, _CHUNK_VALUES // math.prod(signals.shape))
    for start in range(0, len(rows), step):
        values = signals.load(rows[start : start + step]).flatten(1).contiguous().numpy()
        digests += [hashlib.sha256(row).digest() for row in values]
    return digests


def without_duplicates(signals: SignalSet, rows: torch.Tensor, protected: frozenset[bytes]) -> torch.Tensor:
    """Those rows whose content is not among the protected digests, in the same order."""
    keep = [digest not in protected for digest in content_hashes(signals, rows)]
    return rows[torch.tensor(keep, dtype=torch.bool)]
