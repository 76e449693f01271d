"""Which rows of a run go into a leaderboard that has rows already: none in place of better-founded ones, and each (task, method) from one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sepbench.errors import some
from sepbench.results.columns import key_names
from sepbench.results.leaderboard_file import differing, merge_leaderboards

Cell = tuple[str, str]
"""A task and a method."""


@dataclass(frozen=True, slots=True, eq=False)
class Replacement:
    """What becomes of the rows of a run and of those that are there.

    Attributes:
        merged: the leaderboard with the rows that go in.
        frame: these rows.
        removed: how many rows go without another in their place.
        kept: (task, method, metric) that this run gave the leaderboard before and does not have now; they stay.
        left_out: one line per (task, method) that stays out, with the reason.
    """

    merged: pd.DataFrame
    frame: pd.DataFrame
    removed: int
    kept: tuple[tuple[str, str, str], ...]
    left_out: tuple[str, ...]


Weaker = Callable[[pd.DataFrame, pd.DataFrame], "pd.Series[bool]"]
"""Where a row (second) is weaker than the one that is there (first, NaN where there is none)."""

_WEAKER: Mapping[str, Weaker] = {
    "of more mixtures": lambda there, here: there["n_expected"] > here["n_expected"],
    "of the paper's budget": lambda there, here: (there["budget"] == "paper") & (here["budget"] == "quick"),
    "of more scored mixtures": lambda there, here: there["n_scored"] > here["n_scored"],
    "without failed mixtures": lambda there, here: (there["n_failed"] == 0) & (here["n_failed"] > 0),
    "one with a mean": lambda there, here: there["mean"].notna() & here["mean"].isna(),
    "of more seeds": lambda there, here: there["seeds"] > here["seeds"],
    "of more fits": lambda there, here: there["fits"] > here["fits"],
}
"""What the row that is there is, in words; the first that holds is told. ``docs/results.md`` lists them."""
_FOUNDATION = ("n_expected", "budget", "n_scored", "n_failed", "mean", "seeds", "fits")


def cells_of(frame: pd.DataFrame) -> list[Cell]:
    """Every (task, method) of a frame, in order."""
    return list(dict.fromkeys(zip(frame["task"], frame["method"], strict=True)))


def replace_rows(old: pd.DataFrame, frame: pd.DataFrame, run: str, *, force: bool = False) -> Replacement:
    """Put the finished rows of a run into a leaderboard, cell by cell: all rows of a (task, method) go in, or none.

    A cell stays out if a row of it is weaker than the one that is there, or if it lacks metrics that the cell there has from another run. ``force``
    puts it in, and takes the rows away that it has no others for. Rows that the same run gave (``leaderboard_file.differing``) stay either way.

    Args:
        old: the leaderboard; may be empty.
        frame: the rows.
        run: what the user called the run.
        force: see above.

    Raises:
        SepbenchError: the rows must not share a table with those that are there, see ``merge_leaderboards``.
    """
    out = {} if force else _weaker(old, frame)
    frame = _without(frame, out)
    merge_leaderboards(old, frame)  # another suite version or other mixtures: no metric that is scored anew would help
    lacking = [_Lacking.of(rows, frame) for rows in _lacking(old, frame)]
    foreign = [one for one in lacking if one.differs]
    if not force:
        out |= {one.cell: one.told(run) for one in foreign}
        frame, foreign = _without(frame, out), []
    merged = merge_leaderboards(old, frame)
    gone = {key for one in foreign for key in _keys(one.rows)}
    merged = _chosen(merged, [key not in gone for key in _keys(merged)]).reset_index(drop=True)
    kept = tuple(key for one in lacking if not one.differs for key in _keys(one.rows))
    return Replacement(merged, frame, len(gone), kept, tuple(out.values()))


def _weaker(old: pd.DataFrame, frame: pd.DataFrame) -> dict[Cell, str]:
    """The cells with a row that is weaker than the one there, each with its line, by reason."""
    key = list(key_names())
    there, here = frame[key].merge(old[[*key, *_FOUNDATION]], on=key, how="left"), frame.reset_index(drop=True)
    found: dict[Cell, str] = {}
    for words, weaker in _WEAKER.items():
        for task, method in cells_of(here[weaker(there, here)]):
            found.setdefault((task, method), f"{task}, {method}: the row that is there is {words}; --force replaces it")
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Lacking:
    """A cell of a run without some of the metrics that the leaderboard has for it.

    Attributes:
        cell: the cell.
        rows: what is there with these metrics.
        metrics: what the run has.
        differs: the columns that say that another run made the rows; empty for the same run.
    """

    cell: Cell
    rows: pd.DataFrame
    metrics: tuple[str, ...]
    differs: tuple[str, ...]

    @classmethod
    def of(cls, rows: pd.DataFrame, frame: pd.DataFrame) -> _Lacking:
        (cell,) = cells_of(rows)
        mine = frame[(frame["task"] == cell[0]) & (frame["method"] == cell[1])]
        new = mine.to_dict("records")[0]  # in columns that are not of the metric its rows agree
        differs = dict.fromkeys(name for old in rows.to_dict("records") for name in differing(old, new))
        return cls(cell, rows, tuple(mine["metric"]), tuple(differs))

    def told(self, run: str) -> str:
        other = some(reversed(self.differs))  # command and seed are last, and say most
        every = ",".join([*self.metrics, *self.rows["metric"]])
        return (
            f"{', '.join(self.cell)}: the rows that are there are of another run ({other}) and have {some(self.rows['metric'])} too; "
            f"`sepbench score {run} --metrics {every}` gives this run all of them, or --force replaces the rows of all metrics"
        )


def _lacking(old: pd.DataFrame, frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Rows that are there of cells of the frame, with metrics that the frame does not have for them, cell by cell."""
    cells, mine = set(cells_of(frame)), set(_keys(frame))
    chosen = _chosen(old, [key[:2] in cells and key not in mine for key in _keys(old)])
    return [rows for _, rows in chosen.groupby(["task", "method"], sort=False)]


def _keys(frame: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(task, method, metric) of every row; a leaderboard is of one suite."""
    return list(zip(frame["task"], frame["method"], frame["metric"], strict=True))


def _without(frame: pd.DataFrame, cells: Mapping[Cell, Any]) -> pd.DataFrame:
    return _chosen(frame, [key[:2] not in cells for key in _keys(frame)])


def _chosen(frame: pd.DataFrame, where: Sequence[bool]) -> pd.DataFrame:
    """The rows where it is true; an empty list alone would choose no columns."""
    return frame[np.array(where, np.bool_)]
