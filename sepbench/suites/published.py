"""The papers' numbers: links from a suite's tasks to rows of ``leaderboards/published.csv``. That file alone has the values."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sepbench.errors import SuiteError

COLUMNS = ("source", "table", "suite", "dataset", "split", "direction", "method", "metric", "value", "std", "n", "notes")
KEY_COLUMNS = COLUMNS[:8]


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One number of one paper, tied to a task.

    Attributes:
        task: the task it belongs beside.
        method: our registry key, or empty if we have no such method.
        metric: our metric whose convention the number follows.
        value, std, n: as printed; std and n are None if the paper does not give them.
        source: paper and table (``BASIS Table 2``).
        title: the paper's name of the method.
        notes: what to know before comparing.
    """

    task: str
    method: str
    metric: str
    value: float
    std: float | None
    n: int | None
    source: str
    title: str
    notes: str


@lru_cache(maxsize=8)
def published_rows(path: Path) -> tuple[Mapping[str, str], ...]:
    """All rows of the table of published numbers.

    Raises:
        SuiteError: missing file, no CSV file, other columns, or a row with more cells than columns.
    """
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle, restval="")  # a row may end before its last, empty cells
            columns, rows = tuple(reader.fieldnames or ()), tuple(reader)
    except OSError as error:
        raise SuiteError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SuiteError(f"{path} is not a CSV file in UTF-8: {error}; save it as one") from error
    if columns != COLUMNS:
        raise SuiteError(f"{path} must have the columns {','.join(COLUMNS)}")
    for row in rows:
        if len(row) > len(COLUMNS):  # the reader keeps the cells beyond the last column under a key of its own
            told = ",".join(row[name] for name in KEY_COLUMNS)
            raise SuiteError(f"{path} has a row of more than {len(COLUMNS)} cells: {told}; put cells with commas in quotes")
    return rows


@lru_cache(maxsize=32)  # a suite links a dozen numbers, by the same columns
def _rows_by(path: Path, columns: tuple[str, ...]) -> Mapping[tuple[str, ...], list[Mapping[str, str]]]:
    """All rows, by what stands in these columns."""
    found: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in published_rows(path):
        found.setdefault(tuple(row[column] for column in columns), []).append(row)
    return found


def find_published(find: Mapping[str, str], path: Path, where: str) -> Mapping[str, str]:
    """The one row whose columns equal ``find``.

    Raises:
        SuiteError: an unknown column, no row, or more than one.
    """
    for column in find:
        if column not in KEY_COLUMNS:
            raise SuiteError(f"{where}: {column!r} is no key column of {path.name}; choose from {', '.join(KEY_COLUMNS)}")
    hits = _rows_by(path, tuple(find)).get(tuple(find.values()), [])
    if len(hits) != 1:
        raise SuiteError(f"{where}: {dict(find)} matches {len(hits)} rows of {path}, it must match exactly one")
    return hits[0]


def published_row(task: str, method: str, metric: str, find: Mapping[str, str], notes: str, path: Path, where: str) -> PublishedRow:
    """The linked row.

    Raises:
        SuiteError: see ``find_published``; or its numbers do not read as numbers.
    """
    row = find_published(find, path, where)
    try:
        value = float(row["value"])
        std = float(row["std"]) if row["std"] else None
        n = int(row["n"]) if row["n"] else None
    except ValueError as error:
        raise SuiteError(f"{where}: {dict(find)} leads to a row of {path} whose numbers cannot be read: {error}") from error
    return PublishedRow(task, method, metric, value, std, n, f"{row['source']} {row['table']}", row["method"], "; ".join(filter(None, (row["notes"], notes))))
