"""The places of the files in a run's folder.

::

    RUN/
      run.json                                                   provenance, see ``run/records.py``
      cells/<task>--<method>.json                                how one method on one task went
      estimates/<task>--<method>/<bucket>/<start>-<stop>.safetensors
                                                                 ``estimates`` (n, K, ...) float32, ``example_ids`` (n,) int64, ``seconds`` (n,) float64
                                                                 (``estimates`` (n, N, K, ...) where the suite scores N posterior draws)
      scores/<task>--<method>/<bucket>/<start>-<stop>.parquet    one row per (example, source, metric)
      features/<task>--<method>/<bucket>/<start>-<stop>.safetensors
                                                                 of metrics of sets: ``examples`` (n,) int64, and by extractor ``NAME.features`` (n, S, F) and
                                                                 ``NAME.logits`` (n, S, classes) float32
      references/<extractor>-<key>.safetensors                   the features that they are held against: (r, F) float32, their mean and scatter
      leaderboard.csv                                            one row per (task, method, metric)
      seeds/<seed>/, fits/<seed>/                                repetitions: runs of their own, which other processes may be writing

A file contains mixtures ``start`` to ``stop - 1``. A bucket is for shards that begin in one stretch of 10,000 mixtures,
so no folder contains more files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from sepbench.files import TEMPORARY
from sepbench.results.columns import cell_key
from sepbench.run.plan import Shard

BUCKET = 10_000
"""Mixtures whose shards share a folder: at the least one mixture each, so never more files than that."""
REPETITIONS = ("seeds", "fits")
"""Folders of runs in a run's folder, see ``repeats.py``."""
_SUFFIX = {"estimates": ".safetensors", "scores": ".parquet", "features": ".safetensors"}
_NAME = re.compile(r"(\d+)-(\d+)\.(?:safetensors|parquet)")

Part = Literal["estimates", "scores", "features"]


class Layout:
    """Paths below a run's folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def cell(self, task: str, method: str) -> Path:
        """The record of a cell."""
        return self._root / "cells" / f"{cell_key(task, method)}.json"

    def estimates(self, shard: Shard) -> Path:
        return self._file("estimates", shard)

    def scores(self, shard: Shard) -> Path:
        return self._file("scores", shard)

    def features(self, shard: Shard) -> Path:
        return self._file("features", shard)

    def reference(self, key: str) -> Path:
        return self._root / "references" / f"{key}.safetensors"

    def _file(self, part: Part, shard: Shard) -> Path:
        folder = self._root / part / cell_key(shard.task, shard.method) / f"{shard.start // BUCKET:05d}"
        return folder / f"{shard.start:08d}-{shard.stop:08d}{_SUFFIX[part]}"

    def shards(self, part: Part, task: str, method: str) -> dict[Shard, Path]:
        """Every shard of a cell that has a file, by what its name says; nothing is opened."""
        found = {}
        for bucket in _entries(self._root / part / cell_key(task, method)):
            for file in _entries(bucket):
                named = _NAME.fullmatch(file.name)
                if named:
                    found[Shard(task, method, int(named[1]), int(named[2]))] = file
        return found

    def leftovers(self) -> Iterator[Path]:
        """Unfinished files of the run itself. Its repetitions are held by whoever works in them."""
        for entry in _entries(self._root):
            if entry.name.endswith(TEMPORARY):
                yield entry
            elif entry.name not in REPETITIONS:
                yield from entry.rglob(f"*{TEMPORARY}")

    def old_scores(self, task: str, method: str) -> list[Path]:
        """Scores as format 1 laid them down, ``scores/<task>--<method>--<number>.parquet``."""
        return sorted((self._root / "scores").glob(f"{cell_key(task, method)}--*.parquet"))


def _entries(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
