"""Pair lists that are derived from the data on the user's machine, for data sets whose bytes nobody could look at when the suite was written.

A rule names a builder and its numbers; the list is a function of the rule and the data alone, so that two machines with the same files get the same
list, whose digest stands in the results. Randomness is that of ``builders.Draws``, keyed by the suite and the rule's ``order``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sepbench.data.lists.builders import Draws
from sepbench.data.lists.drawn import DrawPool, count_mixtures, count_sets, draw_mixtures, draw_sets
from sepbench.data.lists.pairs import PairList, pairs_csv
from sepbench.data.signals import KnowsGroups
from sepbench.errors import DataError, SuiteError
from sepbench.protocols import SignalSet
from sepbench.torch_later import torch

SILENT_RMS = 1.5e-5 * 131_072**0.5
"""0.00543, -45.3 dBFS: LASS calls a chunk silent if its L2 norm divided by its 131,072 samples is below 1.5e-5 (docs/protocols.md 1.6). As an RMS the rule
does not depend on the length of the chunk."""

_BLOCK = 16  # signals per slot that are loaded at once while looking for loud ones

Slot: TypeAlias = "tuple[SignalSet, torch.Tensor]"
"""A signal set and the rows ``(n,)`` of it that a source slot may draw from, ascending."""

_Rows = npt.NDArray[np.int64]
_Levels = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PairRule:
    """How a list is derived.

    Attributes:
        builder: key of ``BUILDERS``.
        order: key of the random order; rules with the same order and builder take from the same shuffled candidates.
        count: mixtures.
        skip: mixtures of the same order that are left to another rule; the two lists then share no signal.
        snr_db: for builders with gains: level of the first source over each other one.
        window: samples of the metric's windows: a mixture counts only if in one whole window no source is silent, since SDR is undefined where there is
            none (``metrics/sdr.py``). 0 asks for nothing.
    """

    builder: str
    order: str
    count: int
    skip: int = 0
    snr_db: int = 0
    window: int = 0

    @property
    def text(self) -> str:
        """Everything that decides the list, on one line."""
        window = f", a window of {self.window} samples" if self.window else ""
        return f"{self.builder}, order {self.order}, {self.count} after {self.skip}, {self.snr_db} dB{window}"


def derive(rule: PairRule, slots: Sequence[Slot]) -> PairList:
    """The rule's list; its digest is that of the CSV file it would be.

    Raises:
        DataError: the data hold fewer mixtures than the rule wants, or a signal cannot be read.
        SuiteError: the builder does not fit the task's signals.
    """
    indices, gains = BUILDERS[rule.builder](rule, slots)
    digest = hashlib.sha256(pairs_csv(indices, gains)).hexdigest()
    return PairList(torch.from_numpy(indices), digest, None if gains is None else torch.from_numpy(gains))


def _aligned(rule: PairRule, slots: Sequence[Slot]) -> tuple[_Rows, None]:
    """Row i of every slot together (the same place of the same song), where no slot is silent; each row at most once."""
    sets = [signals for signals, _ in slots]
    if len({len(signals) for signals in sets}) > 1:
        raise SuiteError(f"builder {rule.builder!r} needs aligned data sets, got {', '.join(f'{s.name} with {len(s):,} signals' for s in sets)}")
    candidates = torch.stack([torch.isin(slots[0][1], rows) for _, rows in slots]).all(0)
    rows, _ = _loud(rule, sets, slots[0][1][candidates].numpy(), slot=0)
    return np.repeat(rows[:, None], len(slots), axis=1), None


def _independent(rule: PairRule, slots: Sequence[Slot]) -> tuple[_Rows, npt.NDArray[np.float32]]:
    """Every slot in a random order of its own, silent signals left out, each at most once; gains put all levels ``snr_db`` below the first slot's."""
    found = [_loud(rule, [signals], rows.numpy(), slot) for slot, (signals, rows) in enumerate(slots)]
    levels = np.stack([level for _, level in found], axis=1)
    gains = levels[:, :1] / levels * 10.0 ** (-rule.snr_db / 20.0)
    gains[:, 0] = 1.0
    return np.stack([rows for rows, _ in found], axis=1), gains.astype(np.float32)


def _one_of_each(rule: PairRule, slots: Sequence[Slot]) -> tuple[_Rows, None]:
    """A random signal of every slot, no mixture twice."""
    pools = [_pool(*slot) for slot in slots]
    _check_count(rule, count_mixtures(pools), slots)
    return draw_mixtures(Draws(rule.order), pools, rule.skip + rule.count)[rule.skip :], None


def _any_different(rule: PairRule, slots: Sequence[Slot]) -> tuple[_Rows, None]:
    """Random signals of one pool, of different recordings where it knows them, no mixture twice in whatever order."""
    if any(signals is not slots[0][0] or not torch.equal(rows, slots[0][1]) for signals, rows in slots):
        raise SuiteError(f"builder {rule.builder!r} mixes signals of one class; take 'one-of-each' for several")
    pool = _pool(*slots[0])
    _check_count(rule, count_sets(pool, len(slots)), slots)
    return draw_sets(Draws(rule.order), pool, len(slots), rule.skip + rule.count)[rule.skip :], None


def _pool(signals: SignalSet, rows: torch.Tensor) -> DrawPool:
    numbers = rows.numpy()
    groups = np.unique(signals.groups, return_inverse=True)[1][numbers] if isinstance(signals, KnowsGroups) else numbers
    return DrawPool(numbers, groups.astype(np.int64), np.ones(len(numbers), dtype=np.int64))


def _check_count(rule: PairRule, there: int, slots: Sequence[Slot]) -> None:
    if rule.skip + rule.count > there:
        where = " and ".join(dict.fromkeys(f"{signals.name} {signals.split}" for signals, _ in slots))
        raise DataError(f"{where} make {there:,} different mixtures, the suite needs {rule.skip + rule.count:,}; lower n, or add data")


BUILDERS: Mapping[str, Callable[[PairRule, Sequence[Slot]], tuple[_Rows, npt.NDArray[np.float32] | None]]] = {
    "aligned-chunks": _aligned,
    "independent-at-snr": _independent,
    "one-of-each": _one_of_each,
    "any-different": _any_different,
}
"""Names as in suites; ``GAINED`` are those that need operator ``gain``."""

GAINED = frozenset({"independent-at-snr"})


def _loud(rule: PairRule, sets: Sequence[SignalSet], candidates: _Rows, slot: int) -> tuple[_Rows, _Levels]:
    """Rows ``(count,)`` whose signals are silent in none of the sets, in random order after the skipped ones, and their RMS in the first set.

    Candidates are looked at in random order and only until enough are found: filtering before shuffling gives the same list and reads everything.
    """
    kept, levels = list[int](), list[float]()
    order = candidates[Draws(rule.order).permutation(len(candidates), slot)]
    for rows, rms, together in _measured(sets, order, rule.window):
        loud = (rms >= SILENT_RMS).all(axis=0) & together
        kept += rows[loud].tolist()
        levels += rms[0, loud].tolist()
        if len(kept) >= rule.skip + rule.count:
            part = slice(rule.skip, rule.skip + rule.count)
            return np.array(kept[part], dtype=np.int64), np.array(levels[part])
    where = " and ".join(f"{signals.name} {signals.split}" for signals in sets)
    raise DataError(f"{where} hold {len(kept):,} signals that are not silent, the suite needs {rule.skip + rule.count:,}; check that the data set is complete")


def _measured(sets: Sequence[SignalSet], order: _Rows, window: int) -> Iterator[tuple[_Rows, _Levels, npt.NDArray[np.bool_]]]:
    """Blocks of rows, the RMS of each in each set, ``(len(sets), n)``, and whether all sets sound together in one window, ``(n,)``."""
    for start in range(0, len(order), _BLOCK):
        rows = order[start : start + _BLOCK]
        squares = [signals.load(torch.from_numpy(rows)).flatten(1).double().square() for signals in sets]
        together = np.ones(len(rows), dtype=bool)
        if window:
            windows = torch.stack([square[:, : square.shape[1] // window * window].unflatten(1, (-1, window)).mean(2) for square in squares])
            together = (windows >= SILENT_RMS**2).all(0).any(1).numpy()
        yield rows, np.stack([square.mean(1).sqrt().numpy() for square in squares]), together
