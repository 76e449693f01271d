"""Per-example scores as Parquet: one shard to a table, and files to arrays, file by file, or to one data frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sepbench.errors import SepbenchError
from sepbench.files import check_readable
from sepbench.results.columns import SCORE_COLUMNS
from sepbench.results.parquet_files import checked, open_parquet
from sepbench.run.plan import Shard
from sepbench.run.sink import ShardScores

_TEXTS = ("suite", "task", "method", "metric", "error")
_INTEGERS = ("example", "source")


class StoreError(SepbenchError):
    """A run's folder cannot be used: not writable, not a run, another run, in use, or damaged."""


def score_table(suite: str, shard: Shard, scores: ShardScores) -> pa.Table:
    """A shard's scores with the columns of ``SCORE_COLUMNS``."""
    constant = np.zeros(len(scores.example), np.int32)
    columns = {
        "suite": _texts(constant, [suite]),
        "task": _texts(constant, [shard.task]),
        "method": _texts(constant, [shard.method]),
        "example": pa.array(scores.example),
        "source": pa.array(scores.source),
        "metric": _texts(scores.metric, [*scores.metrics, *scores.parts]),
        "value": pa.array(scores.value),
        "seconds": pa.array(scores.seconds),
        "error": _texts(scores.error, scores.errors),
    }
    return pa.table({name: columns[name] for name in SCORE_COLUMNS})


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Score rows of one cell as columns of equal length.

    Attributes:
        example, source: int64.
        metric: index into ``metrics``.
        value: float64.
        failed: where the row has an error.
        metrics: the texts.
    """

    example: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]
    metric: npt.NDArray[np.int32]
    value: npt.NDArray[np.float64]
    failed: npt.NDArray[np.bool_]
    metrics: Sequence[str]

    @classmethod
    def of(cls, table: pa.Table) -> Rows:
        """The rows of a table with (at least) ``ROW_COLUMNS``, its texts dictionary-encoded or not."""
        example, source, value = (table.column(name).to_numpy() for name in ("example", "source", "value"))
        metric, error = (_encoded(table.column(name)) for name in ("metric", "error"))
        told = np.array([bool(text) for text in error.dictionary.to_pylist()] + [False])  # a null is no error either
        failed = told[pc.fill_null(error.indices, -1).to_numpy(zero_copy_only=False)]
        return cls(example, source, metric.indices.to_numpy(zero_copy_only=False), value, failed, metric.dictionary.to_pylist())


ROW_COLUMNS = ("example", "source", "metric", "value", "error")


def read_rows(files: Sequence[Path]) -> Iterator[Rows]:
    """The rows of one cell, file by file.

    Raises:
        StoreError: a file cannot be read.
    """
    for path in files:
        readable(path)
        try:
            rows = Rows.of(open_parquet(path, ["metric", "error"]).read(columns=list(ROW_COLUMNS), use_threads=False))
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise _unreadable(error, path) from error
        yield rows


def read_values(files: Sequence[Path], metric: str, examples: Sequence[int]) -> dict[tuple[int, int], float]:
    """(example, source) -> value of one metric as it was scored; no entry for sources that are not, for failures and for whole mixtures.

    Raises:
        StoreError: a file cannot be read.
    """
    wanted = (pc.field("metric") == metric) & pc.field("example").isin(list(examples)) & (pc.field("source") >= 0)
    found: dict[tuple[int, int], float] = {}
    for path in files if len(examples) else ():
        readable(path)
        try:
            table = pq.read_table(checked(path), columns=["example", "source", "value"], filters=wanted, page_checksum_verification=True)
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise _unreadable(error, path) from error
        example, source, value = (column.to_pylist() for column in table.columns)
        found |= zip(zip(example, source, strict=True), value, strict=True)
    return found


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    column = column.combine_chunks()
    return column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()


def unreadable(path: Path, error: OSError) -> StoreError:
    """The error for a file that cannot be opened. Such a file is not damaged."""
    return StoreError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}; ask its owner, or choose another --out")


def readable(path: Path) -> None:
    """Check that a file can be opened, before a library makes its own error of it.

    Raises:
        StoreError: it cannot.
    """
    try:
        check_readable(path)
    except OSError as error:
        raise unreadable(path, error) from error


def _unreadable(error: Exception, path: Path | None = None) -> StoreError:
    which = f"{path}: " if path is not None else ""
    return StoreError(f"scores cannot be read ({which}{error}); run the run's own command again to make damaged files anew")


def read_parts(files: Sequence[Path], columns: Sequence[str]) -> pd.DataFrame:
    """The rows of all files, in their order.

    Filled file by file: at no time is there a second copy of all rows. 600,000 rows take 22 MB, for texts are categories.

    Raises:
        StoreError: a file cannot be read.
    """
    texts = [name for name in columns if name in _TEXTS]
    for path in files:
        readable(path)
    try:
        total = sum(pq.read_metadata(checked(path)).num_rows for path in files)
        filled: dict[str, npt.NDArray[np.generic]] = {name: np.empty(total, _dtype(name)) for name in columns}
        known: dict[str, dict[str, int]] = {name: {"": 0} if name == "error" else {} for name in texts}
        start = 0
        for path in files:
            table = open_parquet(path, texts).read(columns=list(columns))
            for name in columns:
                column = table.column(name).combine_chunks()
                filled[name][start : start + len(column)] = _codes(column, known[name]) if name in known else column.to_numpy(zero_copy_only=False)
            start += len(table)
        if start != total:  # a footer without a checksum; the last rows would be whatever the memory held
            raise ValueError(f"{total:,} rows are promised and {start:,} there")
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise _unreadable(error) from error
    # Without copy=False pandas would make the second copy that was avoided above.
    return pd.DataFrame({name: _categories(filled[name], known[name]) if name in known else filled[name] for name in columns}, copy=False)


def _dtype(column: str) -> type[np.generic]:
    if column in _TEXTS:
        return np.int32
    return np.int64 if column in _INTEGERS else np.float64


def _texts(codes: npt.NDArray[np.int32], texts: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(list(texts), pa.string())).cast(pa.string())


def _codes(column: pa.DictionaryArray, known: dict[str, int]) -> npt.NDArray[np.int32]:
    """A file's own codes to the codes of all files."""
    here = [known.setdefault(text, len(known)) for text in column.dictionary.to_pylist()]
    codes: npt.NDArray[np.int32] = np.asarray(here, dtype=np.int32)[column.indices.to_numpy(zero_copy_only=False)]
    return codes


def _categories(codes: npt.NDArray[np.generic], known: dict[str, int]) -> Any:
    return pd.Categorical.from_codes(codes.astype(np.int32, copy=False), categories=pd.Index(list(known), dtype=str))
