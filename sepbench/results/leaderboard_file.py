"""Leaderboards on disk: CSV with fixed columns and formats, read strictly, merged row by row.

Format: UTF-8, LF line ends, one header line, fields quoted only where they must be. Floats have six significant digits (finer than any
tolerance of the gate, coarse enough that a last-bit difference between processors rarely shows) and are empty where there is no value;
booleans are ``true`` and ``false``. Writing what was read gives the same bytes.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sepbench import __version__
from sepbench.errors import SepbenchError, some
from sepbench.files import write_atomically
from sepbench.results import columns
from sepbench.results.columns import Column, Kind, column_names, key_names

_TYPES: Mapping[Kind, Any] = {"text": object, "integer": np.int64, "number": np.float64, "flag": np.bool_}
_READERS: Mapping[Kind, tuple[Callable[[str], Any], str]] = {
    "text": (str, "text"),
    "integer": (int, "a whole number"),
    "number": (lambda text: float(text) if text else math.nan, "a number"),
    "flag": ({"true": True, "false": False}.__getitem__, "true or false"),
}


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of leaderboards (``columns.COLUMNS``) in order with their types: int64, float64 (NaN where empty), bool, else str.

    Raises:
        ValueError: a column is missing, or a value is not of its column's type.
    """
    names = column_names()
    missing = [name for name in names if name not in frame]
    if missing and len(frame):
        raise ValueError(f"columns are missing: {', '.join(missing)}")
    return frame.reindex(columns=list(names)).reset_index(drop=True).astype({column.name: _TYPES[column.kind] for column in columns.COLUMNS})


def format_leaderboard(frame: pd.DataFrame) -> str:
    """The CSV text of a leaderboard."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column_names())
    for record in typed(frame).to_dict("records"):
        writer.writerow([_field(column.kind, record[column.name]) for column in columns.COLUMNS])
    return text.getvalue()


def _field(kind: Kind, value: Any) -> str:
    if kind == "number":
        return "" if math.isnan(value) else f"{value:.6g}"
    if kind == "flag":
        return "true" if value else "false"
    return str(value)


def differing(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> tuple[str, ...]:
    """The columns that do not belong to a metric and in which two rows differ, as they are written: numbers by six digits.

    Two rows of one method on one task without such a column were made by one run.
    """
    shared = [column for column in columns.COLUMNS if not column.of_metric]
    return tuple(column.name for column in shared if _field(column.kind, old[column.name]) != _field(column.kind, new[column.name]))


def write_leaderboard(frame: pd.DataFrame, path: Path | str) -> None:
    """Write a leaderboard; whoever reads meanwhile sees the old file or the new one, never a part.

    Raises:
        SepbenchError: the file cannot be written.
    """
    path, text = Path(path), format_leaderboard(frame)
    try:
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline=""))
    except OSError as error:
        raise SepbenchError(f"cannot write the leaderboard {path}: {error.strerror or error}; choose another folder") from error


def read_leaderboard(path: Path | str) -> pd.DataFrame:
    """Read and check a leaderboard of this version or any earlier one, its columns in any order.

    Columns that were added since get their defaults; ``columns.RETIRED`` are read over.

    Returns:
        The columns of ``columns.COLUMNS``: int64, float64 (NaN where empty), bool and str.

    Raises:
        SepbenchError: not readable, a column missing that every version has, a column of a later version, a value of the wrong kind, or two
            rows with the same key; names file and line.
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
    key = list(key_names())
    repeated = frame.duplicated(key)
    if repeated.any():
        raise SepbenchError(f"{path} has two rows for {', '.join(frame.loc[repeated, key].iloc[0])}; keep one")
    return frame


def _check_header(header: list[str], path: Path) -> None:
    known = {*column_names(), *columns.RETIRED}
    missing = [column.name for column in columns.COLUMNS if column.default is None and column.name not in header]
    unknown = [name for name in header if name not in known]
    if missing:
        also = f" and has unknown columns {some(unknown)[:80]}" if unknown else ""
        raise SepbenchError(f"{path} is not a leaderboard: it lacks {some(missing)}{also}")
    if unknown:
        raise SepbenchError(f"{path} has columns that sepbench {__version__} does not know ({some(unknown)[:80]}); upgrade sepbench to read it")
    repeated = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    if repeated:
        raise SepbenchError(f"{path} is not a leaderboard: it has two columns {repeated[0]}")


def _record(header: list[str], fields: list[str], where: str) -> dict[str, Any]:
    if len(fields) != len(header):
        raise SepbenchError(f"{where}: {len(fields)} fields instead of {len(header)}")
    texts = dict(zip(header, fields, strict=True))
    return {column.name: _parsed(column, texts[column.name], where) if column.name in texts else column.default for column in columns.COLUMNS}


def _parsed(column: Column, text: str, where: str) -> Any:
    read, kind = _READERS[column.kind]
    try:
        value = read(text)
    except (ValueError, KeyError) as error:
        raise SepbenchError(f"{where}: {column.name} must be {kind}, got {text!r}") from error
    if not text and not column.empty:
        raise SepbenchError(f"{where}: {column.name} is empty")
    return value


def merge_leaderboards(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Put the rows of ``new`` into ``old``.

    A row with the same (suite, task, method, metric) is replaced where it stands. Other rows follow the last row of their method, their
    task, or the table. Rows of ``old`` keep their order where they are grouped by task and method, as this project writes them.

    Raises:
        SepbenchError: another suite, another suite version, or a task with another digest (``Column.one_per``): such rows must not share a table.
    """
    if not len(old) or not len(new):
        return typed(new if len(new) else old)
    for column in columns.COLUMNS:
        if column.one_per == "file":
            a, b = sorted(set(old[column.name])), sorted(set(new[column.name]))
            if a != b or len(a) != 1:
                both = f"{', '.join(map(str, a))} and {', '.join(map(str, b))}"
                raise SepbenchError(f"cannot merge leaderboards of different {column.name}: {both}; start a new file")
        elif column.one_per == "task":
            _check_tasks(column, old, new)
    merged = pd.concat([typed(old), typed(new)], ignore_index=True)
    key = list(key_names())
    order = {name: _appearance(merged, key[:depth]) for name, depth in (("task", 2), ("method", 3), ("metric", 4))}
    latest = merged[~merged.duplicated(key, keep="last")].index.to_numpy()
    ranks = tuple(order[name][latest] for name in ("metric", "method", "task"))  # lexsort's last key is its first
    return typed(merged.loc[latest[np.lexsort(ranks)]])


def _check_tasks(column: Column, old: pd.DataFrame, new: pd.DataFrame) -> None:
    there, word = dict(zip(old["task"], old[column.name], strict=True)), (column.word or column.name).removeprefix("task ")
    for task, value in zip(new["task"], new[column.name], strict=True):
        if there.get(task, value) != value:
            raise SepbenchError(
                f"cannot merge: task {task} has {word} {str(value)[:12]} in the new rows and {str(there[task])[:12]} in the old; start a new file"
            )


def _appearance(frame: pd.DataFrame, names: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Per row, the number of its group in order of first appearance."""
    return np.asarray(frame.groupby(names, sort=False).ngroup(), dtype=np.int64)
