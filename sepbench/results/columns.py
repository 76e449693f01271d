"""Columns and file names of a run's folder, and the one table of a leaderboard's columns: what a result looks like is said here only.

::

    RUN/
      run.json                                     provenance, see ``run/provenance.py``
      cells/<task>--<method>.json                  state of one (task, method): fit seconds, peak memory, notes, errors
      estimates/<task>--<method>--<shard>.safetensors   ``estimates`` (n, K, ...) float32, ``example_ids`` (n,) int64, ``seconds`` (n,) float64
                                                   (``estimates`` (n, N, K, ...) where the suite scores N posterior draws)
      scores/<task>--<method>--<shard>.parquet     one row per (example, source, metric)
      leaderboard.csv                              one row per (task, method, metric)

A new column of leaderboards is one new entry in ``COLUMNS``, with a ``default`` for the files that lack it. Writing, reading, merging, the gate
and the tables follow it; so does ``leaderboard.py``, which asks each column where its value comes from.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

SCORE_COLUMNS = ("suite", "task", "method", "example", "source", "metric", "value", "seconds", "error")
"""``source`` is -1 for metrics of a whole mixture and for failed examples; ``value`` is NaN and ``error`` one line where an example failed."""

CELL_STATES = ("done", "failed", "unsupported", "partial")

Record = Mapping[str, Any]
Facts = Mapping[str, Record]
"""What a row is made of: ``run`` (``run.json``), its parts ``suite``, ``task`` and ``method``, the ``cell``'s record, and ``row``: the row's
names, its metric's unit and direction, and its statistics."""

Kind = Literal["text", "integer", "number", "flag"]


@dataclass(frozen=True, slots=True)
class Shown:
    """How tables show a column by itself, right of the metrics, where a row of the table has a value.

    Attributes:
        head: the column's head.
        always: shown also where no row has a value.
        timing_group: the column that names the machine whose seconds these are, ``timing_group`` where it is empty; seconds of different
            machines carry different letters.
        flag: a column of kind ``flag`` whose true rows carry a star, and ``flag_note``, the footnote that explains it.
    """

    head: str
    always: bool = False
    timing_group: str = ""
    flag: str = ""
    flag_note: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of leaderboards.

    Attributes:
        name: its head in the file.
        kind: text; integer; number (float64, six significant digits, NaN where empty); flag (``true`` or ``false``).
        source: where the value comes from: ``"cell.samples"`` is the key ``samples`` of the cell's record; of several keys the first with a value
            counts; or a function of the ``Facts``. Only the cell's record may lack a key (older runs, cells that were not reached).
        default: the value of rows in files and of cells that lack the column; None: every file has it.
        empty: whether there may be no value: NaN, or an empty text.
        key: part of a row's identity.
        one_per: ``file`` or ``task``: all rows of a file, or of a task, have the same value, else they must not share a table.
        gate: ``agree``: rows with other values are not comparable; ``note``: another value is only mentioned. ``word``: what messages call it.
        shown: how tables show it; None: not by a column of its own.
    """

    name: str
    kind: Kind
    source: str | tuple[str, ...] | Callable[[Facts], Any]
    default: Any = None
    empty: bool = False
    key: bool = False
    one_per: Literal["", "file", "task"] = ""
    gate: Literal["", "agree", "note"] = ""
    word: str = ""
    shown: Shown | None = None

    @property
    def nothing(self) -> Any:
        """What stands where there is no value."""
        return {"text": "", "number": math.nan}[self.kind] if self.default is None else self.default

    def value(self, facts: Facts) -> Any:
        """The column's value of a row.

        Raises:
            KeyError: the run's record lacks a key, or the cell's record lacks one that must be there.
        """
        if callable(self.source):
            return self.source(facts)
        for path in (self.source,) if isinstance(self.source, str) else self.source:
            record, _, key = path.partition(".")
            value = of_record(facts["cell"], key) if record == "cell" else facts[record][key]
            if value not in (None, ""):
                return value
        if self.default is None and not self.empty:
            raise KeyError(self.name)
        return self.nothing


def of_record(record: Record, key: str, default: Any = None) -> Any:
    """An entry of a cell's record, ``default`` where it has none: the one place that reads keys of such records."""
    return record.get(key, default)


def _seconds_per_mixture(facts: Facts) -> float:
    separated, seconds = of_record(facts["cell"], "n_separated") or 0, of_record(facts["cell"], "separate_seconds")
    if separated and seconds is None:
        raise KeyError("separate_seconds")
    return float(seconds) / separated if separated else math.nan


def _timing_group(facts: Facts) -> str:
    """The run's group, with the arithmetic of a method that sets its own (``precision``) in place of the session's, and the number of workers."""
    group, own = str(facts["run"]["timing_group"]), facts["method"].get("settings", {}).get("precision", "float32")
    group = group if own == "float32" else f"{group.rpartition(':')[0]}:{own}"
    workers = of_record(facts["cell"], "workers") or 1
    return f"{group}:{workers}workers" if workers > 1 else group


def _git_sha(facts: Facts) -> str:
    environment = facts["run"]["environment"]
    sha = environment.get("git_sha") or ""
    return of_record(facts["cell"], "git_sha") or sha + ("-dirty" if sha and environment.get("git_dirty") else "")


def _command(facts: Facts) -> str:
    command = of_record(facts["cell"], "command") or facts["run"]["command"]
    return command if isinstance(command, str) else shlex.join(command)


COLUMNS: tuple[Column, ...] = (
    Column("suite", "text", "suite.name", key=True, one_per="file"),
    Column("suite_version", "integer", "suite.version", one_per="file", gate="agree", word="suite version"),
    Column("task", "text", "row.task", key=True),
    Column("task_digest", "text", "task.digest", empty=True, one_per="task", gate="agree", word="task digest"),
    Column("method", "text", "row.method", key=True),
    Column("method_version", "text", "method.version", empty=True, gate="note", word="version"),
    Column("weights_sha256", "text", "cell.weights_sha256", default="", empty=True, gate="note", word="weights"),
    Column("supervision", "text", ("cell.supervision", "method.supervision"), empty=True, gate="agree", word="supervision"),
    Column("metric", "text", "row.metric", key=True),
    Column("unit", "text", "row.unit", empty=True, gate="agree", word="unit"),
    Column("higher_is_better", "flag", "row.higher_is_better", gate="agree", word="direction"),
    Column("mean", "number", "row.mean", empty=True),
    Column("std", "number", "row.std", empty=True),
    Column("median", "number", "row.median", empty=True),
    Column("ci_low", "number", "row.ci_low", empty=True),
    Column("ci_high", "number", "row.ci_high", empty=True),
    Column("n_expected", "integer", ("cell.n_planned", "task.n_planned"), gate="agree", word="planned examples"),
    Column("n_scored", "integer", "row.n_scored"),
    Column("n_failed", "integer", "row.n_failed"),
    Column("samples", "integer", lambda facts: of_record(facts["cell"], "samples") or 1, gate="note", word="samples"),
    Column(
        "fit_seconds",
        "number",
        "cell.fit_seconds",
        default=math.nan,
        empty=True,
        shown=Shown("s/fit", False, "fit_timing_group", "fit_cached", "not fitted again but loaded from the cache; the seconds are those of the fit"),
    ),
    Column("fit_cached", "flag", "cell.fit_cached", default=False),
    Column("fit_timing_group", "text", "cell.fit_timing_group", default="", empty=True),
    Column("seconds_per_mixture", "number", _seconds_per_mixture, empty=True, shown=Shown("s/mixture", True, "timing_group")),
    Column("timing_group", "text", _timing_group, empty=True),
    Column("peak_mb", "number", "cell.peak_mb", empty=True),
    Column("device", "text", "run.device", empty=True, gate="note", word="device"),
    Column("budget", "text", "run.budget", empty=True, gate="agree", word="budget"),
    Column("seed", "integer", "run.seed", gate="agree", word="seed"),
    Column("sepbench_version", "text", "run.sepbench_version", empty=True),
    Column("git_sha", "text", _git_sha, empty=True),
    Column("command", "text", _command, empty=True),
)

RETIRED = ("published", "published_source")
"""Columns of leaderboards of earlier versions that are read over. Published numbers are joined when a table is drawn, see ``report/rows.py``."""


def column_names() -> tuple[str, ...]:
    """The head of a leaderboard that this version writes."""
    return tuple(column.name for column in COLUMNS)


def key_names() -> tuple[str, ...]:
    """The columns that tell a row from all others."""
    return tuple(column.name for column in COLUMNS if column.key)


def cell_key(task: str, method: str) -> str:
    """File stem of a (task, method); neither name may contain ``--``."""
    return f"{task}--{method}"
