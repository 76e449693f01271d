"""Columns of scores, and the one table of a leaderboard's columns: what a result looks like is said here only.

The files of a run's folder stand in ``layout.py``.

A new column of leaderboards is one new entry in ``COLUMNS``, with a ``default`` for the files that lack it. Writing, reading, merging, the gate
and the tables follow it; so does ``leaderboard.py``, which asks each column where its value comes from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sepbench.run.provenance import commit
from sepbench.run.records import CellRecord, MethodRecord, RunRecord, SuiteRecord, TaskRecord

SCORE_COLUMNS = ("suite", "task", "method", "example", "source", "metric", "value", "seconds", "error")
"""``source`` is -1 for metrics of a whole mixture and for failed examples; ``value`` is NaN and ``error`` one line where an example failed."""


OLD_INTERVAL = "bootstrap of mixtures"
"""How the intervals of files without this column were made: percentile bootstrap of mixtures, as if none shared a song, an image or a recording."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a row is made of.

    Attributes:
        run: ``run.json``; ``suite``, ``task`` and ``method`` are parts of it.
        cell: the cell's record, an empty one if the cell was not reached.
        row: the row's names, its metric's unit and direction, and its statistics.
    """

    run: RunRecord
    suite: SuiteRecord
    task: TaskRecord
    method: MethodRecord
    cell: CellRecord
    row: Mapping[str, Any]

    def find(self, path: str) -> Any:
        """The value at ``record.key``; None where the record has none."""
        record, _, key = path.partition(".")
        return self.row.get(key) if record == "row" else getattr(getattr(self, record), key, None)


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
        source: where the value comes from: ``"cell.samples"`` is the entry ``samples`` of the cell's record; of several entries the first with a
            value counts; or a function of the ``Facts``.
        default: the value of rows in files and of cells that lack the column; None: every file has it.
        empty: whether there may be no value: NaN, or an empty text.
        key: part of a row's identity.
        one_per: ``file`` or ``task``: all rows of a file, or of a task, have the same value, else they must not share a table.
        gate: ``agree``: rows with other values are not comparable; ``note``: another value is only mentioned. ``word``: what messages call it.
        shown: how tables show it; None: not by a column of its own.
        of_metric: the rows of one method on one task differ in it; in all other columns they agree, for one run made them.
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
    of_metric: bool = False

    @property
    def nothing(self) -> Any:
        """What stands where there is no value."""
        return {"text": "", "number": math.nan}.get(self.kind) if self.default is None else self.default

    def value(self, facts: Facts) -> Any:
        """The column's value of a row."""
        if callable(self.source):
            return self.source(facts)
        found = (facts.find(path) for path in ((self.source,) if isinstance(self.source, str) else self.source))
        return next((value for value in found if value not in (None, "")), self.nothing)


def _seconds_per_mixture(facts: Facts) -> float:
    """Nothing for estimates that were supplied: nobody measured them."""
    cell = facts.cell
    return cell.separate_seconds / cell.n_separated if cell.n_separated and not cell.estimates_sha256 else math.nan


def _evaluations_per_mixture(facts: Facts) -> float:
    """Nothing where they were not counted."""
    cell = facts.cell
    return math.nan if cell.evaluations is None or not cell.n_separated else cell.evaluations / cell.n_separated


def _of_the_run(name: str) -> Callable[[Facts], str]:
    """An entry of the run's record; empty for estimates that were supplied, which were made nobody knows where and how."""
    return lambda facts: "" if facts.cell.estimates_sha256 else getattr(facts.run, name)


def _fit_seconds(facts: Facts) -> float | None:
    """Nothing for methods that learn nothing: their microseconds are those of an empty call."""
    supervision = facts.cell.supervision or facts.method.supervision
    return math.nan if facts.cell.fit_seconds is None or supervision in ("blind", "bound") else facts.cell.fit_seconds


def _timing_group(facts: Facts) -> str:
    """The group of the run, or of the workers where theirs is another, with a method's own ``precision`` in place of the session's, and the workers."""
    if facts.cell.estimates_sha256:
        return ""
    group, own = facts.cell.timing_group or facts.run.timing_group, facts.method.settings.get("precision")
    group = group if own is None else f"{group.rpartition(':')[0]}:{own}"  # float32 too: it is that whatever the session's own products are
    return f"{group}:{facts.cell.workers}workers" if facts.cell.workers > 1 else group


def _git_sha(facts: Facts) -> str:
    return facts.cell.git_sha or commit(facts.run.environment)


COLUMNS: tuple[Column, ...] = (
    Column("suite", "text", "suite.name", key=True, one_per="file"),
    Column("suite_version", "integer", "suite.version", one_per="file", gate="agree", word="suite version"),
    Column("task", "text", "row.task", key=True),
    Column("task_digest", "text", "task.digest", empty=True, one_per="task", gate="agree", word="task digest"),
    Column("method", "text", "row.method", key=True),
    Column("method_version", "text", "method.version", empty=True, gate="note", word="version"),
    Column("weights_sha256", "text", "cell.weights_sha256", default="", empty=True, gate="note", word="weights"),
    Column("prior", "text", "cell.prior", default="", empty=True),
    Column("estimates_sha256", "text", "cell.estimates_sha256", default="", empty=True, gate="note", word="supplied estimates"),
    Column("supervision", "text", ("cell.supervision", "method.supervision"), empty=True, gate="agree", word="supervision"),
    Column("metric", "text", "row.metric", key=True, of_metric=True),
    Column("unit", "text", "row.unit", empty=True, gate="agree", word="unit", of_metric=True),
    Column("higher_is_better", "flag", "row.higher_is_better", gate="agree", word="direction", of_metric=True),
    Column("mean", "number", "row.mean", empty=True, of_metric=True),
    Column("std", "number", "row.std", empty=True, of_metric=True),
    Column("median", "number", "row.median", empty=True, of_metric=True),
    Column("ci_low", "number", "row.ci_low", empty=True, of_metric=True),
    Column("ci_high", "number", "row.ci_high", empty=True, of_metric=True),
    Column("interval", "text", lambda facts: facts.row["interval"], default=OLD_INTERVAL, empty=True, of_metric=True),
    Column("cluster", "text", lambda facts: facts.row["cluster"], default="", empty=True, of_metric=True),
    Column("n_clusters", "integer", "row.n_clusters", default=0, of_metric=True),
    Column("seeds", "integer", lambda facts: 1, default=1, of_metric=True),
    Column("std_seeds", "number", lambda facts: math.nan, default=math.nan, empty=True, shown=Shown("sd of seeds"), of_metric=True),
    Column("fits", "integer", lambda facts: 1, default=1, of_metric=True),
    Column("std_fits", "number", lambda facts: math.nan, default=math.nan, empty=True, shown=Shown("sd of fits"), of_metric=True),
    Column("n_expected", "integer", lambda facts: facts.cell.n_planned or facts.task.n_planned, gate="agree", word="planned examples"),
    Column("n_scored", "integer", "row.n_scored", of_metric=True),
    Column("n_failed", "integer", "row.n_failed", of_metric=True),
    Column("samples", "integer", "cell.samples", gate="note", word="samples"),
    Column(
        "fit_seconds",
        "number",
        _fit_seconds,
        default=math.nan,
        empty=True,
        shown=Shown("s/fit", False, "fit_timing_group", "fit_cached", "not fitted again but loaded from the cache; the seconds are those of the fit"),
    ),
    Column("fit_cached", "flag", "cell.fit_cached", default=False),
    Column("fit_timing_group", "text", "cell.fit_timing_group", default="", empty=True),
    Column("seconds_per_mixture", "number", _seconds_per_mixture, empty=True, shown=Shown("s/mixture", True, "timing_group")),
    Column("timing_group", "text", _timing_group, empty=True),
    Column("evaluations_per_mixture", "number", _evaluations_per_mixture, default=math.nan, empty=True, shown=Shown("evaluations")),
    Column("peak_mb", "number", "cell.peak_mb", empty=True),
    Column("device", "text", _of_the_run("device"), empty=True, gate="note", word="device"),
    Column("budget", "text", _of_the_run("budget"), empty=True, gate="agree", word="budget"),
    Column("seed", "integer", "run.seed", gate="note", word="seed"),
    Column("sepbench_version", "text", "run.sepbench_version", empty=True),
    Column("git_sha", "text", _git_sha, empty=True),
    Column("command", "text", ("cell.command", "run.command"), empty=True),
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
