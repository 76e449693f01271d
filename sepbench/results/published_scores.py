"""Per-example values beside a committed leaderboard: ``leaderboards/scores/<suite>.parquet``.

From them you can make a leaderboard's means and intervals again, and compare a user's run with its rows mixture by
mixture. There is one row per (task, method, metric, example): the mean over the example's scored sources, float32, NaN
if it failed. Of a run with several seeds or fits it is the mean over them too; the
leaderboard's row says how far they lie apart (``repeats.told_values``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sepbench.errors import SepbenchError, some
from sepbench.files import write_atomically
from sepbench.metrics.catalogue import get_metric
from sepbench.metrics.kinds import PooledMetric, SetMetric
from sepbench.results.parquet_files import checked, write_parquet
from sepbench.results.values import CellValues, MetricValues, Values

_SCHEMA = pa.schema(
    [
        *((name, pa.dictionary(pa.int32(), pa.string())) for name in ("task", "method", "metric")),
        *(("example", pa.int32()), ("value", pa.float32())),
    ]
)
_KEY = ("task", "method")
_SMALL: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 19,
    "use_dictionary": ["task", "method", "metric"],
    "column_encoding": {"example": "DELTA_BINARY_PACKED", "value": "BYTE_STREAM_SPLIT"},
}
"""How the files are written: half the size of Parquet's defaults, for they lie in the repository."""


def scores_path(leaderboard: Path) -> Path:
    """Path of the scores of a leaderboard."""
    return leaderboard.parent / "scores" / f"{leaderboard.stem}.parquet"


def read_scores(leaderboard: Path) -> Values | None:
    """The per-example values of a leaderboard; None if there are none.

    Raises:
        SepbenchError: the file is damaged, when a cell of it is asked for.
    """
    path = scores_path(leaderboard)
    table = cache(lambda: _read(path))  # a few megabytes, of which a check wants hundreds of cells
    return Values(lambda task, method: _cell(table(), task, method)) if path.is_file() else None


def _read(path: Path) -> pa.Table:
    try:
        source = checked(path)
        columns = pq.read_schema(source).names
        missing = [name for name in _SCHEMA.names if name not in columns]
        if missing:  # pyarrow would fill them with nulls, which no cell matches
            raise ValueError(f"no column {some(missing)}")
        return pq.read_table(source, schema=_SCHEMA, page_checksum_verification=True)
    except (OSError, pa.ArrowException, ValueError) as error:  # the last also for names that are no UTF-8
        why = " ".join(str(error).split())[:120]
        raise SepbenchError(f"{path} cannot be read ({why}); restore the file, or remove it and publish the runs again") from error


def _cell(table: pa.Table, task: str, method: str) -> CellValues:
    chosen = table.filter(pc.and_(_is(table["task"], task), _is(table["method"], method)))
    metrics = chosen["metric"].cast(pa.string()).to_numpy()
    examples, values = chosen["example"].to_numpy().astype(np.int64), chosen["value"].to_numpy().astype(np.float64)
    found = {}
    for metric in dict.fromkeys(metrics.tolist()):
        rows = np.flatnonzero(metrics == metric)
        rows = rows[np.argsort(examples[rows], kind="stable")]
        found[metric] = MetricValues(examples[rows], values[rows], whole_only=_of_a_set(metric), made=_spread(metric))
    return found


def _is(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Where a column of words holds this one, by the words' numbers; -1, which no row has, where a chunk does not know the word."""
    return pa.chunked_array([pc.equal(chunk.indices, chunk.dictionary.index(name).cast(pa.int32())) for chunk in column.chunks], pa.bool_())


def _of_a_set(metric: str) -> bool:
    try:
        return get_metric(metric).info.per in ("group", "set")
    except SepbenchError:  # a metric that is not installed here
        return False


def _spread(metric: str) -> str:
    """How the values of a metric of ``_of_a_set`` were made."""
    found = get_metric(metric) if _of_a_set(metric) else None
    return found.spread if isinstance(found, PooledMetric | SetMetric) else ""


def merge_scores(leaderboard: Path, values: Values, cells: Iterable[tuple[str, str]], kept: Iterable[tuple[str, str, str]] = ()) -> None:
    """Put the values of some cells (task, method) of a run beside a leaderboard; those that were there of the same cells are replaced.

    Args:
        leaderboard: its CSV.
        values: of the run.
        cells: those to put there.
        kept: (task, method, metric) of these cells whose values there stay; the run has none of them.

    Raises:
        SepbenchError: what is there cannot be read, or the file cannot be written.
    """
    path, cells = scores_path(leaderboard), list(cells)
    parts = [*_kept(path, cells, kept), *(_table(task, method, values.cell(task, method)) for task, method in cells)]
    merged = pa.concat_tables(part.cast(_SCHEMA) for part in parts) if parts else _SCHEMA.empty_table()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: write_parquet(merged, temporary, **_SMALL))
    except OSError as error:
        raise SepbenchError(f"cannot write {path}: {error.strerror or error}; choose another folder with --to") from error


def _kept(path: Path, cells: Iterable[tuple[str, str]], metrics: Iterable[tuple[str, str, str]]) -> Iterator[pa.Table]:
    """What is there of other cells, and of these metrics of the cells."""
    if not path.is_file():
        return
    table = _read(path)
    yield table.filter(pc.or_(pc.invert(_among(table, _KEY, cells)), _among(table, (*_KEY, "metric"), metrics)))


def _among(table: pa.Table, columns: Sequence[str], names: Iterable[tuple[str, ...]]) -> pa.ChunkedArray:
    """Where the words in these columns are one of the tuples. No task or method has ``--`` in its name, so joined words are told apart."""
    joined = pc.binary_join_element_wise(*(table[name].cast(pa.string()) for name in columns), "--")
    return pc.is_in(joined, value_set=pa.array(sorted({"--".join(words) for words in names}), pa.string()))


def _table(task: str, method: str, cell: CellValues) -> pa.Table:
    lengths = [len(values) for values in cell.values()]
    count = sum(lengths)
    columns = [
        *([name] * count for name in (task, method)),
        np.repeat(np.array(list(cell), dtype=np.str_), lengths),
        np.concatenate([np.empty(0, np.int32), *(values.examples.astype(np.int32) for values in cell.values())]),
        np.concatenate([np.empty(0, np.float32), *(values.values.astype(np.float32) for values in cell.values())]),
    ]
    arrays = [pa.array(column, pa.string()).dictionary_encode() for column in columns[:3]]
    return pa.table([*arrays, pa.array(columns[3], pa.int32()), pa.array(columns[4], pa.float32())], names=_SCHEMA.names)
