"""One file per mixture and source: read when asked for, so that memory does not grow with their number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sepbench.data.estimates.names import FileTable
from sepbench.data.estimates.problems import MISSING, UNREADABLE, EstimatesError, FileProblem, Problems
from sepbench.data.estimates.signals import read_signal
from sepbench.data.estimates.supplied import Advance, Inspection
from sepbench.errors import reason
from sepbench.files import file_sha256
from sepbench.protocols import TaskSpec
from sepbench.torch_later import torch


def files_digest(files: Iterable[tuple[str, str]]) -> str:
    """SHA-256 of what ``sha256sum`` prints for files in the order of their names: ``digest  name`` and a line end, UTF-8.

    Args:
        files: name and digest of each.
    """
    whole = hashlib.sha256()
    for name, digest in sorted(files):
        whole.update(f"{digest}  {name}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


class FileEstimates:
    """A ``Supplied`` of files.

    Args:
        table: the files.
        root: their names in messages and in the digest are from here, where they lie below it.
        spec: the task.
    """

    def __init__(self, table: FileTable, root: Path, spec: TaskSpec) -> None:
        self._table, self._root, self._spec = table, root, spec
        self._stamps: dict[Path, tuple[int, int]] = {}

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix() if path.is_relative_to(self._root) else path.as_posix()

    def inspect(self, n_planned: int, problems: Problems, advance: Advance) -> Inspection:
        """See ``Supplied``. A mixture that lacks one of its sources is missing; which files it lacks is told."""
        slots = range(self._spec.n_sources)
        complete, digests, clipped, largest = list[int](), list[tuple[str, str]](), list[tuple[int, int, str]](), 0.0
        for example in range(n_planned):
            there = [slot for slot in slots if (example, slot) in self._table]
            if len(there) == len(slots):
                complete.append(example)
            for slot in slots:
                if slot not in there:
                    problems.add(MISSING, self._expected(example, slot))
                    continue
                path = self._table[example, slot]
                try:
                    values, at_full_scale = self._read(path)
                except FileProblem as problem:
                    problems.add(problem.kind, self._name(path), problem.detail)
                    continue
                largest = max(largest, float(np.abs(values).max(initial=0.0)))
                if at_full_scale:
                    clipped.append((example, slot, self._name(path)))
            advance(example + 1, n_planned)
        for path in self._table.values():
            try:
                digests.append((self._name(path), file_sha256(path)))
            except OSError as error:
                problems.add(UNREADABLE, self._name(path), error.strerror or reason(error))
        return Inspection(np.array(complete, np.int64), files_digest(digests), tuple(clipped), largest)

    def _read(self, path: Path) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], bool]:
        found = read_signal(path, self._spec)
        self._stamps[path] = _stamp(path)
        return found

    def _expected(self, example: int, slot: int) -> str:
        """A name for a file that is not there, in the way of those that are."""
        of_others = next(iter(self._table.values()), None)
        suffix = of_others.suffix if of_others is not None else {"image": ".png", "audio": ".wav"}.get(self._spec.domain, ".npy")
        in_folders = of_others is not None and "/" in self._name(of_others)
        return f"{example:06d}{'/' if in_folders else '_'}{slot + 1}{suffix}"

    def load(self, examples: Sequence[int]) -> torch.Tensor:
        """See ``Supplied``."""
        shape = (len(examples), self._spec.n_sources, *self._spec.source_shape)
        stacked = np.empty(shape, np.float32)
        for row, example in enumerate(examples):
            for slot in range(self._spec.n_sources):
                path = self._table[example, slot]
                try:
                    if self._stamps.get(path) != _stamp(path):
                        raise FileProblem(UNREADABLE, "it has changed")
                    stacked[row, slot] = read_signal(path, self._spec)[0]
                except (FileProblem, OSError) as error:
                    raise EstimatesError(f"{path} has changed since it was read first; leave the files alone and evaluate again") from error
        return torch.from_numpy(stacked)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
