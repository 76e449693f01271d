"""Signals of a user's class with the files that they came from, and which of them have the same content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sepbench.data.own.folders import first_three
from sepbench.errors import DataError

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class OwnSignals:
    """The signals of one class.

    Attributes:
        name: of the class.
        values: ``(N, H, W)`` or ``(N, H, W, 3)`` uint8 images, or ``(N, T)`` int16 sounds.
        file_names: the class's files, within its folder.
        file: ``(N,)`` number of the file that each signal came from, ascending.
        start: ``(N,)`` first sample of each sound at the suite's rate; 0 of images.
        sounding: ``(N,)`` which whole seconds of a sound are not silent, one bit each, see ``readers.sounding``; 1 of images.
        group: ``(N,)`` number of the group of files that share content, for ``distinct_signals``: what is split, and what a cluster is.
    """

    name: str
    values: npt.NDArray[np.uint8] | npt.NDArray[np.int16]
    file_names: tuple[str, ...]
    file: Integers
    start: Integers
    sounding: Integers
    group: Integers

    def __len__(self) -> int:
        return len(self.file)

    def of(self, rows: Integers) -> OwnSignals:
        """Some of the signals ``(n,)``, in their order."""
        columns = (column[rows] for column in (self.file, self.start, self.sounding, self.group))
        return OwnSignals(self.name, self.values[rows], self.file_names, *columns)


def distinct_signals(signals: OwnSignals) -> tuple[OwnSignals, list[str]]:
    """A class without signals that have the content of an earlier one, grouped by files that share any, and who is left out, in words.

    Two files that share one signal (a copy, a file that begins like another) are one group, however many others lie between them.
    """
    first: dict[bytes, int] = {}
    parent = list(range(len(signals.file_names)))
    kept, copies = list[int](), dict[tuple[int, int], int]()
    for row, digest in enumerate(_digests(signals)):
        file = int(signals.file[row])
        if digest not in first:
            first[digest] = row
            kept.append(row)
            continue
        other = int(signals.file[first[digest]])
        copies[file, other] = copies.get((file, other), 0) + 1
        parent[_root(parent, file)] = _root(parent, other)
    roots = np.array([_root(parent, file) for file in range(len(parent))], dtype=np.int64)
    names = signals.file_names
    told = [f"{names[file]} ({'repeats itself' if file == other else f'as {names[other]}'})" for file, other in copies]
    chosen = signals.of(np.array(kept, dtype=np.int64))
    grouped = OwnSignals(chosen.name, chosen.values, chosen.file_names, chosen.file, chosen.start, chosen.sounding, roots[chosen.file])
    return grouped, told


def check_no_shared_content(classes: Sequence[OwnSignals]) -> None:
    """No signal is of two classes.

    Raises:
        DataError: one is; three pairs of files are named, and what was compared.
    """
    owner: dict[bytes, str] = {}
    shared = dict[str, None]()
    for signals in classes:
        mine = dict[bytes, str]()
        for row, digest in enumerate(_digests(signals)):
            name = f"{signals.name}/{signals.file_names[signals.file[row]]}"
            if digest in owner:
                shared[f"{owner[digest]} and {name}"] = None
            mine.setdefault(digest, name)
        owner |= mine
    if shared:
        sounds = classes[0].values.dtype == np.int16
        how = "pieces of sounds, as they are cut and converted for the suite" if sounds else "images, as they are cut and resized for the suite"
        equal = "have a piece of" if sounds else "have"
        one = "remove one of the two" if len(shared) == 1 else "remove one of each two"
        raise DataError(f"two classes {equal} the same content: {first_three(list(shared))}. What is compared is {how}; {one}")


def _digests(signals: OwnSignals) -> list[bytes]:
    return [hashlib.sha256(np.ascontiguousarray(value).data).digest() for value in signals.values]


def _root(parent: list[int], number: int) -> int:
    while parent[number] != number:
        parent[number] = parent[parent[number]]
        number = parent[number]
    return number
