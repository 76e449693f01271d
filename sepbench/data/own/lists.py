"""The pair lists of a suite of a user's own signals, and their files of cluster keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from sepbench.data.lists.builders import Draws, cover_second, equal_rms_gains, halves
from sepbench.data.lists.clusters import clusters_csv
from sepbench.data.lists.drawn import DrawPool, count_mixtures, count_sets, draw_mixtures, draw_sets
from sepbench.data.lists.pairs import pairs_csv
from sepbench.data.own.signals import OwnSignals
from sepbench.data.signals import ArraySignals
from sepbench.errors import DataError

DEFAULT_MIXTURES = 1000
_VALIDATION_PART = 5
"""There are a fifth as many validation mixtures as test mixtures, or as many as the files make."""

Parts = Sequence[Mapping[str, OwnSignals]]
"""Of every class its signals by split; a split without files is not there."""


@dataclass(frozen=True, slots=True)
class ListPlan:
    """What the lists are to be.

    Attributes:
        suite: key of the random order.
        agnostic: sources of one class; else one source of each class.
        n_sources: K.
        gains: whether the sources of a mixture are brought to levels.
        snr_db: then, level of source 0 over each other one.
        mixtures: test mixtures; None: ``DEFAULT_MIXTURES``, or as many as the files make.
        unit: what a cluster is called.
    """

    suite: str
    agnostic: bool
    n_sources: int
    gains: bool
    snr_db: float
    mixtures: int | None
    unit: str

    @property
    def task(self) -> str:
        return "class-agnostic" if self.agnostic else "class-split"


@dataclass(frozen=True, slots=True)
class OwnLists:
    """``pairs`` and ``clusters``: stem of a file -> its bytes. ``sizes``: stem -> mixtures, of the lists that are scored.

    ``used``: stem -> different groups of files that their mixtures take, of the source that has fewest.
    """

    pairs: dict[str, bytes] = field(default_factory=dict)
    clusters: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)


def make_lists(plan: ListPlan, parts: Parts) -> OwnLists:
    """All lists: the task's, its validation task's where there are files for it, and the training lists of level mixtures+one.

    Those need two classes, and training files of the second in two groups: one half is observed, the other half's signals are each mixed once.

    Raises:
        DataError: the files make fewer mixtures than wanted, or none.
    """
    made = OwnLists()
    available = _available(plan, parts, "test")
    count = min(DEFAULT_MIXTURES, available) if plan.mixtures is None else plan.mixtures
    if not 1 <= count <= available:
        raise DataError(_too_many(plan, parts, available, count))
    _scored(made, plan, parts, "test", plan.task, count)
    if all("validation" in part for part in parts) and (left := _available(plan, parts, "validation")):
        _scored(made, plan, parts, "validation", f"{plan.task}-val", min(left, max(1, count // _VALIDATION_PART)))
    if not plan.agnostic and plan.n_sources == 2 and all("train" in part for part in parts):
        _training(made, plan, parts)
    return made


def _too_many(plan: ListPlan, parts: Parts, available: int, count: int) -> str:
    if count < 1 and plan.mixtures is not None:
        return f"--mixtures must be at least 1, got {count}"
    files = " and ".join(f"{len(np.unique(part['test'].group)):,} of {part['test'].name}" for part in parts)
    remedy = f"ask for at most {available:,}, add files, or give a larger --test" if available else "add files, or give a larger --test"
    return f"the test files ({files}) make {available:,} different mixtures, not {max(count, 1):,}; {remedy}"


def _pools(plan: ListPlan, parts: Parts, split: str) -> list[DrawPool]:
    chosen = [part[split] for part in parts]
    return [DrawPool(np.arange(len(signals)), signals.group, signals.sounding) for signals in chosen]


def _available(plan: ListPlan, parts: Parts, split: str) -> int:
    pools = _pools(plan, parts, split)
    return count_sets(pools[0], plan.n_sources) if plan.agnostic else count_mixtures(pools)


def _scored(made: OwnLists, plan: ListPlan, parts: Parts, split: str, name: str, count: int) -> None:
    pools, draws = _pools(plan, parts, split), Draws(f"{plan.suite}.{name}")
    indices = draw_sets(draws, pools[0], plan.n_sources, count) if plan.agnostic else draw_mixtures(draws, pools, count)
    slots = _slots(plan, parts, split)
    keys = [[f"{signals.name}/{signals.group[row]}" for signals, row in zip(slots, rows, strict=True)] for rows in indices]
    made.pairs[name] = pairs_csv(indices, _gains(plan, slots, indices))
    made.clusters[name] = clusters_csv(keys, plan.unit, plan.n_sources)
    made.sizes[name] = count
    made.used[name] = min(len(set(column)) for column in zip(*keys, strict=True))


def _training(made: OwnLists, plan: ListPlan, parts: Parts) -> None:
    slots = _slots(plan, parts, "train")
    groups = slots[1].group
    if len(np.unique(groups)) < 2:
        return
    observed, mixed = (np.flatnonzero(np.isin(groups, half)) for half in halves(f"{plan.suite}.{plan.task}.halves", np.unique(groups)))
    indices = cover_second(Draws(f"{plan.suite}.{plan.task}.train-mixtures"), np.arange(len(slots[0])), mixed, len(mixed))
    made.pairs[f"{plan.task}.train-mixtures"] = pairs_csv(indices, _gains(plan, slots, indices))
    made.pairs[f"{plan.task}.train-observed"] = pairs_csv(observed[:, None])


def _slots(plan: ListPlan, parts: Parts, split: str) -> list[OwnSignals]:
    return [parts[0][split]] * plan.n_sources if plan.agnostic else [part[split] for part in parts]


def _gains(plan: ListPlan, slots: Sequence[OwnSignals], indices: np.ndarray) -> np.ndarray | None:
    if not plan.gains:
        return None
    sets = [ArraySignals(s.name, "", "audio", torch.from_numpy(s.values[:, None]), torch.zeros(len(s), dtype=torch.int64)) for s in slots]
    return equal_rms_gains(sets, indices, plan.snr_db)
