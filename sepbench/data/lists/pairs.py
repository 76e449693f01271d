"""Frozen pair lists: which signals are mixed, as a CSV file that anyone can open.

Columns are ``example,source_0,..,source_{K-1}`` and, for operator ``gain``, ``gain_0,..,gain_{K-1}`` after them. ``example`` counts from 0.
What a source number means (a row of the split, or a rank among a class's rows) is said by the suite.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sepbench.errors import SuiteError
from sepbench.torch_later import torch


@dataclass(frozen=True, slots=True)
class PairList:
    """A list of M mixtures of K sources each.

    Attributes:
        indices: ``(M, K)`` int64, one signal number per source slot.
        sha256: hex digest of the CSV file's bytes (what ``sha256sum`` prints).
        gains: ``(M, K)`` float32 linear gains, or None where the operator needs none.
    """

    indices: torch.Tensor
    sha256: str
    gains: torch.Tensor | None = None

    def __len__(self) -> int:
        return int(self.indices.shape[0])

    @property
    def n_sources(self) -> int:
        return int(self.indices.shape[1])


@dataclass(frozen=True, slots=True)
class PairNumbers:
    """A list as arrays: ``indices`` ``(M, K)`` int64, ``gains`` ``(M, K)`` float32 or None; otherwise as ``PairList``."""

    indices: np.ndarray
    sha256: str
    gains: np.ndarray | None = None


def as_tensors(numbers: PairNumbers) -> PairList:
    """The same list as tensors, which share its memory."""
    gains = None if numbers.gains is None else torch.from_numpy(numbers.gains)
    return PairList(torch.from_numpy(numbers.indices), numbers.sha256, gains)


def pairs_csv(indices: np.ndarray, gains: np.ndarray | None = None) -> bytes:
    """The bytes of a pair list's file.

    Args:
        indices: ``(M, K)`` non-negative integers.
        gains: ``(M, K)`` floats, written with the shortest digits that read back exactly.
    """
    n_sources = indices.shape[1]
    header = ["example", *(f"source_{k}" for k in range(n_sources))]
    columns: list[list[object]] = [list(range(len(indices))), *(indices[:, k].tolist() for k in range(n_sources))]
    if gains is not None:
        header += [f"gain_{k}" for k in range(n_sources)]
        columns += [gains[:, k].astype(np.float64).tolist() for k in range(n_sources)]
    lines = [",".join(header), *(",".join(map(str, row)) for row in zip(*columns, strict=True))]
    return ("\n".join(lines) + "\n").encode("ascii")


def list_sha256(path: Path) -> str:
    """Hex digest of a list's file.

    Raises:
        SuiteError: the file is missing or unreadable.
    """
    return hashlib.sha256(_read(path)).hexdigest()


def read_pairs(path: Path) -> PairList:
    """Read a pair list; raises as ``read_numbers``."""
    return as_tensors(read_numbers(path))


def read_numbers(path: Path) -> PairNumbers:
    """Read a pair list, strictly.

    Raises:
        SuiteError: missing file, wrong header, anything but whole non-negative numbers, examples not numbered 0, 1, 2, ...
    """
    raw = _read(path)
    header = raw.split(b"\n", 1)[0].decode("ascii", "replace").strip().split(",")
    n_sources, n_gains = _columns(path, header)
    numbers = _parse(path, raw, range(n_sources + 1), np.int64)
    if not len(numbers):
        raise SuiteError(f"the pair list {path} has no examples")
    wrong = np.flatnonzero((numbers[:, 0] != np.arange(len(numbers))) | (numbers[:, 1:] < 0).any(axis=1))
    if len(wrong):
        raise SuiteError(f"pair list {path}, line {wrong[0] + 2}: examples must be numbered 0, 1, 2, ... and sources from 0 on")
    gains = None
    if n_gains:
        gains = _parse(path, raw, range(n_sources + 1, 2 * n_sources + 1), np.float32)
        if not np.isfinite(gains).all():
            raise SuiteError(f"pair list {path} holds a gain that is not finite")
    return PairNumbers(np.ascontiguousarray(numbers[:, 1:]), hashlib.sha256(raw).hexdigest(), gains)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SuiteError(f"pair list {path} cannot be read: {error.strerror}") from error


def _columns(path: Path, header: list[str]) -> tuple[int, int]:
    n_sources = sum(name.startswith("source_") for name in header)
    n_gains = sum(name.startswith("gain_") for name in header)
    expected = ["example", *(f"source_{k}" for k in range(n_sources)), *(f"gain_{k}" for k in range(n_gains))]
    if header != expected or n_sources == 0 or n_gains not in (0, n_sources):
        raise SuiteError(f"pair list {path} must start with example,source_0,..,source_K-1[,gain_0,..,gain_K-1], found {','.join(header)[:80]!r}")
    return n_sources, n_gains


def _parse(path: Path, raw: bytes, columns: range, dtype: type) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "input contained no data": answered by the caller with the file's name
            return np.loadtxt(io.BytesIO(raw), dtype=dtype, delimiter=",", skiprows=1, usecols=list(columns), ndmin=2)
    except (ValueError, UnicodeDecodeError) as error:
        raise SuiteError(f"pair list {path}: {str(error).splitlines()[0]}") from error
