"""A run's folder on disk. A file is written under a temporary name, flushed to the disk and renamed: it is whole or it is not there."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sepbench.results.columns import SCORE_COLUMNS, cell_key
from sepbench.results.score_files import StoreError, read_parts, score_table
from sepbench.run.plan import Shard
from sepbench.run.provenance import FORMAT, identity
from sepbench.run.sink import CellRecord, ShardEstimates, ShardScores, ShardTotals

__all__ = ["RunStore", "StoreError"]

_FACTS = b"sepbench"
"""Key of the shard's counters in a Parquet file's schema metadata."""
_TEMPORARY = ".tmp"


class RunStore:
    """The folder of one run; see ``results/schema.py`` for its files.

    Args:
        path: the folder.
        warn: told in one line about damaged files that are made again.
    """

    def __init__(self, path: Path, warn: Callable[[str], None] = lambda text: None) -> None:
        self.path = path
        self._warn = warn
        self._suite = ""

    @classmethod
    def open(cls, path: Path, warn: Callable[[str], None] = lambda text: None) -> RunStore:
        """An existing run.

        Raises:
            StoreError: there is no run, or its ``run.json`` cannot be read.
        """
        store = cls(Path(path), warn)
        store.read_run()
        return store

    @classmethod
    def create(cls, path: Path, record: Mapping[str, Any], warn: Callable[[str], None] = lambda text: None) -> RunStore:
        """A new run, or the same one resumed.

        Args:
            path: the folder; made if missing.
            record: contents of ``run.json``. If there is one already it is kept, and must be of the same identity.
            warn: see ``RunStore``.

        Raises:
            StoreError: the folder holds another run or something else, or cannot be written. Nothing in it is changed then.
        """
        store = cls(Path(path), warn)
        try:
            if store._run_file.is_file():
                store._check_same(record)
            elif store.path.is_dir() and any(not entry.name.endswith(_TEMPORARY) for entry in store.path.iterdir()):
                raise StoreError(f"{path} holds something other than a run; choose a new or empty folder with --out")
            store.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(store.path, error) from error
        return store

    @contextmanager
    def session(self, record: Mapping[str, Any] | None = None) -> Iterator[None]:
        """Hold the folder against other processes; ``record`` becomes ``run.json`` unless there is one. Leftovers of a killed run are removed.

        Raises:
            StoreError: another process works in this folder.
        """
        handle = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(f"another process is working in {self.path}; wait for it, or choose another --out") from error
            except OSError:  # file systems without locks: go on without
                pass
            for leftover in [*self.path.glob(f"*{_TEMPORARY}"), *self.path.glob(f"*/*{_TEMPORARY}")]:
                leftover.unlink(missing_ok=True)
            if record is not None and not self._run_file.is_file():
                self.write_run(record)
            yield
        finally:
            os.close(handle)

    # -- run.json and cells/

    @property
    def _run_file(self) -> Path:
        return self.path / "run.json"

    def read_run(self) -> dict[str, Any]:
        """The contents of ``run.json``.

        Raises:
            StoreError: it is missing, damaged or of another format.
        """
        try:
            record = json.loads(self._run_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(f"{self.path} is not the folder of a run: it has no run.json") from error
        except OSError as error:
            raise StoreError(f"{self._run_file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise StoreError(f"{self._run_file} is damaged ({error}); the run must be made again in another folder") from error
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise StoreError(f"{self._run_file} is not of format {FORMAT}, which is all this sepbench can read; run the suite again")
        return record

    def write_run(self, record: Mapping[str, Any]) -> None:
        self._write(self._run_file, lambda path: path.write_bytes(_json(record)))

    def set_metrics(self, metrics: Sequence[str]) -> None:
        """Record which metrics the scores hold now."""
        record = self.read_run()
        if record.get("metrics") != list(metrics):
            self.write_run(record | {"metrics": list(metrics)})

    def _check_same(self, record: Mapping[str, Any]) -> None:
        there, here = identity(self.read_run()), identity(record)
        for key in [*here, *there]:
            if here.get(key) != there.get(key):
                raise StoreError(
                    f"{self.path} holds another run: {key} is {_brief(there.get(key))} there and {_brief(here.get(key))} here; choose another --out"
                )

    def _cell_file(self, task: str, method: str) -> Path:
        return self.path / "cells" / f"{cell_key(task, method)}.json"

    def read_cell(self, task: str, method: str) -> CellRecord | None:
        """The record of a cell; None if there is none or it is damaged."""
        path = self._cell_file(task, method)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            self._warn(f"{path} is damaged and is made again")
            return None
        return record if isinstance(record, dict) else None

    def write_cell(self, task: str, method: str, record: CellRecord) -> None:
        self._write(self._cell_file(task, method), lambda path: path.write_bytes(_json(record)))

    def read_cells(self) -> dict[tuple[str, str], CellRecord]:
        """All cells of the run that have a record, by (task, method), in the order of ``run.json``."""
        run = self.read_run()
        found = {(task, method): self.read_cell(task, method) for task in run["tasks"] for method in run["methods"]}
        return {key: record for key, record in found.items() if record is not None}

    # -- estimates/

    def _estimates_file(self, shard: Shard) -> Path:
        return self.path / "estimates" / f"{cell_key(shard.task, shard.method)}--{shard.index:05d}.safetensors"

    def has_estimates(self, shard: Shard) -> bool:
        """See ``Sink``. Reads the header only, which also shows whether the file is cut off."""
        return self._estimates_file(shard).is_file() and not self.has_damaged_estimates(shard)

    def has_damaged_estimates(self, shard: Shard) -> bool:
        """See ``Sink``."""
        path = self._estimates_file(shard)
        if not path.is_file():
            return False
        try:
            with safe_open(path, "pt") as file:
                return bool(file.get_slice("estimates").get_shape()[0] != len(shard) or file.get_slice("seconds").get_shape() != [len(shard)])
        except (SafetensorError, OSError) as error:
            self._warn(f"{path} is damaged ({error}); the run's own command makes it again")
            return True

    def write_estimates(self, shard: Shard, data: ShardEstimates) -> None:
        tensors = {"estimates": data.estimates.contiguous(), "example_ids": torch.arange(shard.start, shard.stop), "seconds": data.seconds}
        metadata = {"errors": json.dumps(dict(data.errors))}
        self._write(self._estimates_file(shard), lambda path: save_file(tensors, path, metadata))

    def read_estimates(self, shard: Shard) -> ShardEstimates:
        """See ``Sink``.

        Raises:
            StoreError: the file is missing or damaged.
        """
        path = self._estimates_file(shard)
        try:
            with safe_open(path, "pt") as file:
                errors = {int(example): text for example, text in json.loads((file.metadata() or {})["errors"]).items()}
                return ShardEstimates(file.get_tensor("estimates"), file.get_tensor("seconds"), errors)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise StoreError(f"{path} cannot be read ({error}); delete it and run the same command again") from error

    def remove_estimates(self, shard: Shard) -> None:
        self._estimates_file(shard).unlink(missing_ok=True)

    # -- scores/

    def _scores_file(self, shard: Shard) -> Path:
        return self.path / "scores" / f"{cell_key(shard.task, shard.method)}--{shard.index:05d}.parquet"

    def _facts(self, shard: Shard) -> dict[str, Any] | None:
        path = self._scores_file(shard)
        if not path.is_file():
            return None
        try:
            facts = json.loads((pq.read_schema(path).metadata or {})[_FACTS])
            return facts if (facts["start"], facts["stop"]) == (shard.start, shard.stop) else None
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            self._warn(f"{path} is damaged ({error}) and is made again")
            return None

    def has_scores(self, shard: Shard, metrics: Sequence[str]) -> bool:
        """See ``Sink``. Reads the footer only, which a cut-off file lacks."""
        facts = self._facts(shard)
        return facts is not None and not facts["fit_failed"] and facts["metrics"] == list(metrics)

    def read_totals(self, shard: Shard) -> ShardTotals:
        facts = self._facts(shard)
        if facts is None:
            raise StoreError(f"{self._scores_file(shard)} is missing; run the same command again")
        return ShardTotals(facts["n_separated"], facts["n_failed"], facts["separate_seconds"], facts["error"])

    def write_scores(self, shard: Shard, scores: ShardScores) -> None:
        self._suite = self._suite or self.read_run()["suite"]["name"]
        facts = {
            "start": shard.start,
            "stop": shard.stop,
            "metrics": list(scores.metrics),
            "fit_failed": scores.fit_failed,
            "n_separated": scores.n_separated,
            "n_failed": scores.n_failed,
            "separate_seconds": scores.separate_seconds,
            "error": next((text for text in scores.errors if text), ""),
        }
        table = score_table(self._suite, shard, scores).replace_schema_metadata({_FACTS: json.dumps(facts)})
        self._write(self._scores_file(shard), lambda path: pq.write_table(table, path, compression="zstd"))

    def score_files(self, task: str, method: str) -> list[Path]:
        """The Parquet files of a cell's scores, in the order of their examples."""
        return sorted((self.path / "scores").glob(f"{cell_key(task, method)}--*.parquet"))

    def read_scores(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Scores of all shards, in the order task, method, shard; texts as categories.

        Args:
            columns: a part of ``SCORE_COLUMNS``; all by default.

        Raises:
            StoreError: a shard cannot be read.
        """
        run = self.read_run()
        prefixes = [f"{cell_key(task, method)}--" for task in run["tasks"] for method in run["methods"]]
        files = [path for prefix in prefixes for path in sorted((self.path / "scores").glob(f"{prefix}*.parquet"))]
        return read_parts(files, list(columns or SCORE_COLUMNS))

    # -- writing

    def _write(self, path: Path, write: Callable[[Path], Any]) -> None:
        """Atomic and durable: after a crash ``path`` holds either its old content or all of the new."""
        temporary = path.with_name(f"{path.name}.{os.getpid()}{_TEMPORARY}")
        try:
            if not path.parent.is_dir():
                path.parent.mkdir()
                _flush(path.parent.parent)
            write(temporary)
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            raise _unusable(path, error) from error


def _flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unusable(path: Path, error: Exception) -> StoreError:
    return StoreError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}; choose a writable folder with --out")


def _json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:28] + "..." + text[-28:]
