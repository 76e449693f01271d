"""Leaderboards on disk: CSV with fixed columns and formats, read strictly, merged row by row.

Format: UTF-8, LF line ends, one header line, fields quoted only where they must be. Floats have six significant digits (finer than any
tolerance of the gate, coarse enough that a last-bit difference between processors rarely shows) and are empty where there is no value;
booleans are ``true`` and ``false``. Writing what was read gives the same bytes.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sepbench.errors import SepbenchError
from sepbench.results.columns import ADDED_COLUMNS, LEADERBOARD_COLUMNS

KEY = ("suite", "task", "method", "metric")

_INTEGERS = ("suite_version", "n_expected", "n_scored", "n_failed", "samples", "seed")
_FLOATS = ("mean", "std", "median", "ci_low", "ci_high", "seconds_per_mixture", "peak_mb", "published")
_BOOLEANS = ("higher_is_better",)
_NEVER_EMPTY = ("suite", "task", "method", "metric")


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of ``LEADERBOARD_COLUMNS`` in order with their types: int64, float64 (NaN where empty), bool, else str.

    Raises:
        ValueError: a column is missing, or a value is not of its column's type.
    """
    missing = [column for column in LEADERBOARD_COLUMNS if column not in frame]
    if missing and len(frame):
        raise ValueError(f"columns are missing: {', '.join(missing)}")
    frame = frame.reindex(columns=list(LEADERBOARD_COLUMNS)).reset_index(drop=True)
    kinds: dict[str, Any] = dict.fromkeys(LEADERBOARD_COLUMNS, object)
    kinds |= dict.fromkeys(_INTEGERS, np.int64) | dict.fromkeys(_FLOATS, np.float64) | dict.fromkeys(_BOOLEANS, np.bool_)
    return frame.astype(kinds)


def format_leaderboard(frame: pd.DataFrame) -> str:
    """The CSV text of a leaderboard."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LEADERBOARD_COLUMNS)
    for record in typed(frame).to_dict("records"):
        writer.writerow([_field(str(column), record[column]) for column in LEADERBOARD_COLUMNS])
    return text.getvalue()


def _field(column: str, value: Any) -> str:
    if column in _FLOATS:
        return "" if math.isnan(value) else f"{value:.6g}"
    if column in _BOOLEANS:
        return "true" if value else "false"
    return str(value)


def write_leaderboard(frame: pd.DataFrame, path: Path | str) -> None:
    """Write a leaderboard; whoever reads meanwhile sees the old file or the new one, never a part.

    Raises:
        SepbenchError: the file cannot be written.
    """
    path = Path(path)
    text = format_leaderboard(frame)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise SepbenchError(f"cannot write the leaderboard {path}: {error.strerror or error}; choose another folder") from error


def read_leaderboard(path: Path | str) -> pd.DataFrame:
    """Read and check a leaderboard, also one of an earlier version, without ``ADDED_COLUMNS``.

    Returns:
        The columns of ``LEADERBOARD_COLUMNS``: int64, float64 (NaN where empty), bool and str.

    Raises:
        SepbenchError: not readable, other columns, a value of the wrong kind, or two rows with the same key; names file and line.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, [])
            _check_header(header, path)
            records = [_record(header, fields, f"{path}, line {reader.line_num}") for fields in reader]
    except OSError as error:
        raise SepbenchError(f"cannot read the leaderboard {path}: {error.strerror or error}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise SepbenchError(f"{path} is not a CSV file: {error}") from error
    frame = typed(pd.DataFrame(records))
    repeated = frame.duplicated(list(KEY))
    if repeated.any():
        raise SepbenchError(f"{path} has two rows for {', '.join(frame.loc[repeated, list(KEY)].iloc[0])}; keep one")
    return frame


def _check_header(header: list[str], path: Path) -> None:
    if header in (list(LEADERBOARD_COLUMNS), [column for column in LEADERBOARD_COLUMNS if column not in ADDED_COLUMNS]):
        return
    missing = [column for column in LEADERBOARD_COLUMNS if column not in header]
    unknown = [column for column in header if column not in LEADERBOARD_COLUMNS]
    wrong = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown columns {', '.join(unknown)[:80]}"] * bool(unknown)
    raise SepbenchError(f"{path} is not a leaderboard: it {' and '.join(wrong) or 'has its columns in another order'}")


def _record(header: list[str], fields: list[str], where: str) -> dict[str, Any]:
    if len(fields) != len(header):
        raise SepbenchError(f"{where}: {len(fields)} fields instead of {len(header)}")
    return dict.fromkeys(ADDED_COLUMNS, "") | {column: _parsed(column, text, where) for column, text in zip(header, fields, strict=True)}


def _parsed(column: str, text: str, where: str) -> Any:
    parse: Callable[[str], Any] = str
    kind = "text"
    if column in _INTEGERS:
        parse, kind = int, "a whole number"
    elif column in _FLOATS:
        parse, kind = (lambda t: float(t) if t else np.nan), "a number"
    elif column in _BOOLEANS:
        parse, kind = {"true": True, "false": False}.__getitem__, "true or false"
    try:
        value = parse(text)
    except (ValueError, KeyError) as error:
        raise SepbenchError(f"{where}: {column} must be {kind}, got {text!r}") from error
    if column in _NEVER_EMPTY and not text:
        raise SepbenchError(f"{where}: {column} is empty")
    return value


def merge_leaderboards(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Put the rows of ``new`` into ``old``.

    A row with the same (suite, task, method, metric) is replaced where it stands. Other rows follow the last row of their method, their
    task, or the table. Rows of ``old`` keep their order where they are grouped by task and method, as this project writes them.

    Raises:
        SepbenchError: another suite, another suite version, or a task with another digest: such rows must not share a table.
    """
    if not len(old) or not len(new):
        return typed(new if len(new) else old)
    for column in ("suite", "suite_version"):
        a, b = sorted(set(old[column])), sorted(set(new[column]))
        if a != b or len(a) != 1:
            raise SepbenchError(f"cannot merge leaderboards of different {column}: {', '.join(map(str, a))} and {', '.join(map(str, b))}; start a new file")
    digests = dict(zip(old["task"], old["task_digest"], strict=True))
    for task, digest in zip(new["task"], new["task_digest"], strict=True):
        if digests.get(task, digest) != digest:
            raise SepbenchError(f"cannot merge: task {task} has digest {digest[:12]} in the new rows and {digests[task][:12]} in the old; start a new file")
    both = pd.concat([typed(old), typed(new)], ignore_index=True)
    order = {name: _appearance(both, list(KEY[:depth])) for name, depth in (("task", 2), ("method", 3), ("metric", 4))}
    latest = both[~both.duplicated(list(KEY), keep="last")].index.to_numpy()
    ranks = tuple(order[name][latest] for name in ("metric", "method", "task"))  # lexsort's last key is its first
    return typed(both.loc[latest[np.lexsort(ranks)]])


def _appearance(frame: pd.DataFrame, columns: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Per row, the number of its group in order of first appearance."""
    return np.asarray(frame.groupby(columns, sort=False).ngroup(), dtype=np.int64)
