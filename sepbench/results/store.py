"""A run's folder on disk. A file is written under a temporary name, flushed to the disk and renamed: it is whole or it is not there."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from sepbench.errors import flat, reason
from sepbench.files import TEMPORARY, write_atomically
from sepbench.results.another_run import another_run
from sepbench.results.columns import SCORE_COLUMNS, cell_key
from sepbench.results.feature_files import CellFeatures, save_features
from sepbench.results.layout import Layout
from sepbench.results.parquet_files import checked_schema, write_parquet
from sepbench.results.score_files import StoreError, read_parts, readable, score_table, unreadable
from sepbench.run.plan import Shard
from sepbench.run.provenance import FORMAT, conflict, grown
from sepbench.run.records import CellRecord, FitRecord, RunRecord
from sepbench.run.sink import FoundShard, ShardEstimates, ShardScores, ShardTotals
from sepbench.torch_later import torch

__all__ = ["RunStore", "StoreError"]

_FACTS = b"sepbench"
"""Key of the shard's counters in a Parquet file's schema metadata."""
_READABLE = (1, FORMAT)


class RunStore:
    """The folder of one run; see ``results/layout.py`` for its files.

    Args:
        path: the folder.
        warn: told in one line about damaged files that are made again.
    """

    def __init__(self, path: Path, warn: Callable[[str], None] = lambda text: None) -> None:
        self.path = path
        self._root = path.absolute()  # a method may go to another folder
        if not _is_text(self._root):
            raise StoreError(f"the name of folder {flat(self._root)} is not UTF-8, in which Parquet and safetensors write names; rename it")
        self._layout = Layout(self._root)
        self._warn = warn
        self._suite = ""

    def opener(self) -> Callable[[], RunStore]:
        """See ``Sink``; warnings of the other process are not told."""
        return partial(RunStore, self._root.resolve())

    def check(self) -> None:
        """See ``Sink``."""
        self.read_run()

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
    def create(cls, path: Path, record: RunRecord, warn: Callable[[str], None] = lambda text: None) -> RunStore:
        """A new run, or one that is resumed or grows.

        Args:
            path: the folder; made if missing.
            record: contents of ``run.json``. What there is already must agree with it in everything that decides numbers.
            warn: see ``RunStore``.

        Raises:
            StoreError: the folder holds another run or something else, the record of some results is lost, or it cannot be written. Nothing in it is
                changed then.
        """
        store = cls(Path(path), warn)
        try:
            if store._run_file.is_file():
                store._check_same(record)
            elif store.path.is_dir() and any(not entry.name.endswith(TEMPORARY) for entry in store.path.iterdir()):
                raise StoreError(f"{path} contains something other than a run; choose a new or empty folder with --out")
            elif store.path.exists() and not store.path.is_dir():
                raise StoreError(f"{path} is a file; choose a new or empty folder with --out")
            store.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(store.path, error) from error
        return store

    @contextmanager
    def session(self, record: RunRecord | None = None) -> Iterator[None]:
        """Hold the folder against other processes; ``record`` goes into ``run.json``. Leftovers of a killed run are removed.

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
            for leftover in self._layout.leftovers():
                leftover.unlink(missing_ok=True)
            if record is not None:
                self.write_run(grown(self.read_run(), record) if self._run_file.is_file() else record)
            yield
        finally:
            os.close(handle)

    # -- run.json and cells/

    @property
    def _run_file(self) -> Path:
        return self._root / "run.json"

    def read_run(self) -> RunRecord:
        """The contents of ``run.json``.

        Raises:
            StoreError: it is missing, damaged or of another format.
        """
        try:
            content = json.loads(self._run_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(f"{self.path} is not the folder of a run: it has no run.json; name one that 'sepbench run' wrote") from error
        except OSError as error:
            raise unreadable(self._run_file, error) from error
        except ValueError as error:
            raise StoreError(f"{self._run_file} is damaged ({error}); the run must be made again in another folder") from error
        if not isinstance(content, dict) or content.get("format") not in _READABLE:
            raise StoreError(f"{self._run_file} is not of format {FORMAT}, which is what this sepbench reads; run the suite again")
        try:
            return RunRecord.model_validate(content)
        except ValidationError as error:
            what = reason(error).removeprefix("ValidationError: ")
            raise StoreError(f"{self._run_file} is damaged ({what}); the run must be made again in another folder") from error

    def write_run(self, record: RunRecord) -> None:
        self._write(self._run_file, lambda path: path.write_bytes(_json(record)))

    def refit_name(self) -> str:
        """See ``Sink``."""
        record = self.read_run()
        if not record.refit:
            record.refit = uuid.uuid4().hex
            self.write_run(record)
        return record.refit

    def end_session(self, metrics: Sequence[str]) -> None:
        """Record in ``run.json`` which metrics the scores hold now, and how the fits went. What was to be fitted again is."""
        record = self.read_run()
        fits: dict[str, dict[str, FitRecord]] = {}
        for (task, method), cell in self.read_cells().items():
            if cell.fit_seconds is not None:
                fits.setdefault(task, {})[method] = FitRecord(seconds=cell.fit_seconds, cached=cell.fit_cached, timing_group=cell.fit_timing_group)
        ended = record.model_copy(update={"metrics": list(metrics), "fits": fits, "refit": ""})
        if ended != record:
            self.write_run(ended)

    def refuse_older(self, record: RunRecord) -> None:
        """For what reads or writes estimates, which runs of format 1 laid down in another way.

        Raises:
            StoreError: ``record`` is that of such a run.
        """
        if record.format != FORMAT:
            raise StoreError(
                f"{self.path} contains a run of an earlier sepbench: this one shows and compares its scores, but does not read its estimates; "
                "run the suite again with another --out"
            )

    def _check_same(self, record: RunRecord) -> None:
        there = self.read_run()
        self.refuse_older(there)
        difference = conflict(there, record)
        if difference is not None:
            key, old, new = difference
            raise StoreError(another_run(self.path, key, old, new))
        RunStore(self.path).read_cells()  # what is lost is told before anything is done, and warnings by who comes to a cell

    def read_cell(self, task: str, method: str) -> CellRecord | None:
        """The record of a cell; None if there is none or it is damaged, and there are no results that it speaks of.

        Raises:
            StoreError: it is there and cannot be read, or it is lost: results are there, and nothing says how they were made.
        """
        path = self._layout.cell(task, method)
        try:
            return CellRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            found = "missing"
        except OSError as error:
            raise unreadable(path, error) from error
        except ValueError:
            found = "damaged"
        if self.estimates_of(task, method) or self.score_files(task, method):
            if found == "missing" and path.is_file():  # a run that is at work has begun the cell meanwhile
                return self.read_cell(task, method)
            raise StoreError(
                f"{path} is {found}, and nothing else says how the results of {method} on {task} were made: put a copy of it back, or delete "
                f"{cell_key(task, method)} in estimates/, scores/ and features/ of {self.path} and run the command that made them again"
            )
        if found == "damaged":
            self._warn(f"{path} is damaged and is made again")
        return None

    def write_cell(self, task: str, method: str, record: CellRecord) -> None:
        self._write(self._layout.cell(task, method), lambda path: path.write_bytes(_json(record)))

    def read_cells(self) -> dict[tuple[str, str], CellRecord]:
        """All cells of the run that have a record, by (task, method), in the order of ``run.json``.

        Raises:
            StoreError: see ``read_cell``.
        """
        run = self.read_run()
        found = {(task, method): self.read_cell(task, method) for task in run.tasks for method in run.methods_on(task)}
        return {key: record for key, record in found.items() if record is not None}

    # -- shards

    def find(self, task: str, method: str, metrics: Sequence[str]) -> list[FoundShard]:
        """See ``Sink``. Of estimates the headers are read, which shows files that are cut off; scores are held against their checksums."""
        estimates, scores = self._layout.shards("estimates", task, method), self._layout.shards("scores", task, method)
        found = []
        for shard in sorted({*estimates, *scores}, key=lambda shard: shard.start):
            damaged = shard in estimates and self._damaged(shard, estimates[shard])
            facts = self._facts(shard, scores[shard]) if shard in scores else None
            known = facts is not None and facts["metrics"] == list(metrics)
            totals = _totals(facts) if facts is not None and known else None
            found.append(FoundShard(shard, shard in estimates and not damaged, damaged, totals, bool(facts and facts["fit_failed"])))
        return found

    def _damaged(self, shard: Shard, path: Path) -> bool:
        readable(path)
        try:
            with safe_open(path, "pt") as file:
                return bool(file.get_slice("estimates").get_shape()[0] != len(shard) or file.get_slice("seconds").get_shape() != [len(shard)])
        except (SafetensorError, OSError) as error:
            self._warn(f"{path} is damaged ({error}); the run's own command makes it again")
            return True

    def write_estimates(self, shard: Shard, data: ShardEstimates) -> None:
        tensors = {"estimates": data.estimates.contiguous(), "example_ids": torch.arange(shard.start, shard.stop), "seconds": data.seconds}
        tensors |= {} if data.evaluations is None else {"evaluations": data.evaluations}
        metadata = {"errors": json.dumps(dict(data.errors))}
        from safetensors.torch import save_file  # imports torch

        self._write(self._layout.estimates(shard), lambda path: save_file(tensors, path, metadata))

    def read_estimates(self, shard: Shard) -> ShardEstimates:
        """See ``Sink``.

        Raises:
            StoreError: the file is missing or damaged.
        """
        path = self._layout.estimates(shard)
        if path.is_file():
            readable(path)
        try:
            with safe_open(path, "pt") as file:
                errors = {int(example): text for example, text in json.loads((file.metadata() or {})["errors"]).items()}
                counted = file.get_tensor("evaluations") if "evaluations" in file.keys() else None  # noqa: SIM118 - safe_open is no mapping
                return ShardEstimates(file.get_tensor("estimates"), file.get_tensor("seconds"), errors, counted)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise StoreError(f"{path} cannot be read ({error}); delete it and run the same command again") from error

    def estimates_of(self, task: str, method: str) -> list[Shard]:
        """The shards that have a file of estimates, in the order of their mixtures."""
        return sorted(self._layout.shards("estimates", task, method), key=lambda shard: shard.start)

    def is_damaged(self, shard: Shard) -> bool:
        """True if the shard's file of estimates is not whole."""
        return self._damaged(shard, self._layout.estimates(shard))

    def remove_estimates(self, shard: Shard) -> None:
        self._layout.estimates(shard).unlink(missing_ok=True)

    def remove_scores(self, shard: Shard) -> None:
        self._layout.scores(shard).unlink(missing_ok=True)
        self._layout.features(shard).unlink(missing_ok=True)

    def _facts(self, shard: Shard, path: Path) -> dict[str, Any] | None:
        readable(path)
        try:
            facts: dict[str, Any] = json.loads((checked_schema(path).metadata or {})[_FACTS])
            return facts if (facts["start"], facts["stop"]) == (shard.start, shard.stop) else None
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            self._warn(f"{path} is damaged ({error}) and is made again")
            return None

    def read_totals(self, shard: Shard) -> ShardTotals:
        path = self._layout.scores(shard)
        facts = self._facts(shard, path) if path.is_file() else None
        if facts is None:
            raise StoreError(f"{path} is missing; run the same command again")
        return _totals(facts)

    def write_scores(self, shard: Shard, scores: ShardScores) -> None:
        self._suite = self._suite or self.read_run().suite.name
        self._write_features(shard, scores)  # before the scores, whose file says that the shard is done
        facts = {
            "start": shard.start,
            "stop": shard.stop,
            "metrics": list(scores.metrics),
            "fit_failed": scores.fit_failed,
            "n_separated": scores.n_separated,
            "n_failed": scores.n_failed,
            "separate_seconds": scores.separate_seconds,
            "evaluations": scores.evaluations,
            "error": next((text for text in scores.errors if text), ""),
        }
        table = score_table(self._suite, shard, scores).replace_schema_metadata({_FACTS: json.dumps(facts)})
        self._write(self._layout.scores(shard), lambda path: write_parquet(table, path, compression="zstd"))

    def _write_features(self, shard: Shard, scores: ShardScores) -> None:
        path = self._layout.features(shard)
        if scores.features:
            self._write(path, lambda temporary: save_features(temporary, scores.feature_examples, scores.features))
        else:
            path.unlink(missing_ok=True)

    def keep_reference(self, key: str, path: Path) -> None:
        """See ``Sink``."""
        mine = self._layout.reference(key)
        if not mine.is_file():
            self._write(mine, lambda temporary: shutil.copyfile(path, temporary))

    def features(self, task: str, method: str) -> CellFeatures:
        """The features of a cell for metrics of sets; they are read when they are asked for."""
        found = self._layout.shards("features", task, method)
        return CellFeatures([found[shard] for shard in sorted(found, key=lambda shard: shard.start)], self._layout.reference)

    def score_files(self, task: str, method: str) -> list[Path]:
        """Parquet files of a cell's scores, in the order of their mixtures."""
        found = self._layout.shards("scores", task, method)
        return [found[shard] for shard in sorted(found, key=lambda shard: shard.start)] or self._layout.old_scores(task, method)

    def read_scores(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Scores of all shards, in the order task, method, shard; texts as categories.

        Args:
            columns: a part of ``SCORE_COLUMNS``; all by default.

        Raises:
            StoreError: a shard cannot be read.
        """
        run = self.read_run()
        files = [path for task in run.tasks for method in run.methods_on(task) for path in self.score_files(task, method)]
        return read_parts(files, list(columns or SCORE_COLUMNS))

    # -- writing

    def _write(self, path: Path, write: Callable[[Path], Any]) -> None:
        """Atomic and durable: after a crash ``path`` holds either its old content or all of the new."""
        try:
            write_atomically(path, write)
        except (OSError, SafetensorError) as error:
            raise _unusable(path, error) from error


def _is_text(path: Path) -> bool:
    """Whether a path's bytes are UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _totals(facts: dict[str, Any]) -> ShardTotals:
    return ShardTotals(facts["n_separated"], facts["n_failed"], facts["separate_seconds"], facts["error"], facts.get("evaluations"))


def _unusable(path: Path, error: Exception) -> StoreError:
    return StoreError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}; choose a writable folder with --out")


def _json(record: RunRecord | CellRecord) -> bytes:
    return (json.dumps(record.mapping(), indent=1, ensure_ascii=False) + "\n").encode(errors="replace")  # what methods say need not be sound text
