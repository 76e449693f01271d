"""Cluster keys: which mixtures of a list share a song, an image, a recording, and so are not independent of each other.

Every source slot of a mixture has a key. Equal keys are the same cluster, in whatever slot and mixture they stand. Where nothing else is said a key is
the signal itself: two mixtures with one image in common share it. Where signals hang together (chunks of one song, utterances cut from the same
recordings) a frozen file beside the pair list has the keys: ``example,song_0,song_1`` and one text per slot.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sepbench.errors import SuiteError

Integers = npt.NDArray[np.int64]

INDEPENDENT = "mixture"
"""The unit of lists whose mixtures share nothing."""
_HEAD = re.compile(r"([a-z][a-z ]*)_0")


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """The keys of a list of M mixtures.

    Attributes:
        unit: what a cluster is, in the singular: ``song``, ``image``, ``recording``; ``mixture`` where every mixture stands for itself.
        keys: ``(M, K)`` int64, numbered from 0; equal numbers are the same cluster.
    """

    unit: str
    keys: Integers

    def __len__(self) -> int:
        return len(self.keys)

    def of(self, examples: Integers) -> Clusters:
        """Those of some mixtures ``(n,)``, in their order."""
        return Clusters(self.unit, self.keys[examples])

    @property
    def n(self) -> int:
        """Distinct clusters in the slot that has fewest; 0 if there are no mixtures."""
        return min((len(np.unique(column)) for column in self.keys.T), default=0) if len(self.keys) else 0


def independent(count: int) -> Clusters:
    """Mixtures that share nothing."""
    return Clusters(INDEPENDENT, np.arange(count, dtype=np.int64)[:, None])


def of_signals(indices: Integers, pools: Sequence[Hashable], unit: str) -> Clusters:
    """Every signal is a cluster.

    Args:
        indices: ``(M, K)`` signal numbers.
        pools: what the numbers of each slot count; slots with equal pools draw from the same signals.
        unit: what a signal is.
    """
    places = {pool: place for place, pool in enumerate(dict.fromkeys(pools))}
    slots = np.array([places[pool] for pool in pools], dtype=np.int64)
    return Clusters(unit, _numbered(indices * len(places) + slots))


def of_names(names: Sequence[Sequence[str]], unit: str) -> Clusters:
    """Keys given as texts, ``names[example][slot]``."""
    return Clusters(unit, _numbered(np.array(names, dtype=np.str_)))


def _numbered(keys: npt.NDArray[np.generic]) -> Integers:
    numbered: Integers = np.unique(keys, return_inverse=True)[1].reshape(keys.shape).astype(np.int64)
    return numbered


def clusters_csv(names: Iterable[Sequence[str]], unit: str, n_sources: int) -> bytes:
    """The bytes of a file of keys."""
    lines = [",".join(["example", *(f"{unit}_{k}" for k in range(n_sources))])]
    lines += [",".join([str(example), *row]) for example, row in enumerate(names)]
    return ("\n".join(lines) + "\n").encode("utf-8")


def read_clusters(path: Path, sha256: str = "") -> Clusters:
    """Read a file of keys, strictly.

    Args:
        sha256: digest that the file must have; empty: any.

    Raises:
        SuiteError: missing, not the frozen file, wrong header, an empty key, examples not numbered 0, 1, 2, ...
    """
    try:
        raw = path.read_bytes()
        rows = list(csv.reader(raw.decode("utf-8").splitlines(), strict=True))
    except OSError as error:
        raise SuiteError(f"clusters {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SuiteError(f"clusters {path} are not a CSV file: {error}") from error
    found = hashlib.sha256(raw).hexdigest()
    if sha256 and found != sha256:
        raise SuiteError(f"clusters {path} have sha256 {found}, frozen is {sha256}; restore the file (reinstall sepbench)")
    head = rows[0] if rows else []
    named = _HEAD.fullmatch(head[1]) if len(head) > 1 else None
    if named is None or head != ["example", *(f"{named[1]}_{k}" for k in range(len(head) - 1))]:
        raise SuiteError(f"clusters {path} must start with example,UNIT_0,..,UNIT_K-1 (UNIT: song, image, ...), found {','.join(head)[:80]!r}")
    for number, row in enumerate(rows[1:]):
        if len(row) != len(head) or row[0] != str(number) or not all(row):
            raise SuiteError(f"clusters {path}, line {number + 2}: wanted example {number} and {len(head) - 1} keys, none empty")
    if len(rows) < 2:
        raise SuiteError(f"the file of clusters {path} has no examples")
    return of_names([row[1:] for row in rows[1:]], named[1])
