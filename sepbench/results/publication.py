"""Puts a run into a committed leaderboard. Such a leaderboard consists of several runs (one per group of methods)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sepbench.errors import SepbenchError, some
from sepbench.files import holding_folder
from sepbench.registry import nearest
from sepbench.results.leaderboard_file import read_leaderboard, write_leaderboard
from sepbench.results.published_scores import merge_scores
from sepbench.results.replacement import cells_of, replace_rows
from sepbench.results.target import open_run
from sepbench.results.values import Values


@dataclass(frozen=True, slots=True)
class Publication:
    """What became of a run's rows.

    Attributes:
        path: the leaderboard.
        replaced, added: numbers of rows.
        left_out: one line per (task, method) that was left out, with the reason.
        removed: number of rows of other runs that went without another in their place.
    """

    path: Path
    replaced: int
    added: int
    left_out: tuple[str, ...]
    removed: int = 0


def publish_run(
    run: str,
    folder: Path,
    *,
    force: bool = False,
    tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
    waiting: Callable[[], None] = lambda: None,
) -> Publication:
    """Merge a run into ``folder/<suite>.csv``, and its per-example values into ``folder/scores/<suite>.parquet``.

    A row goes in if every planned example was scored or failed. All rows of a (task, method) come from one run. Unless ``force``, they do not replace
    better-founded ones, nor those of a run with more metrics (``replacement.replace_rows``). Two processes that publish into one folder take turns.

    Args:
        run: its folder.
        folder: of the leaderboards.
        force: see above.
        tasks, methods: only these; empty for all.
        waiting: called if another process holds the folder.

    Raises:
        UnknownNameError: a task or method that the run does not have.
        SepbenchError: not a run, nothing to publish, a leaderboard of another suite version or other mixtures, or not writable.
    """
    results = open_run(Path(run), run)
    if results.suite is None or results.values is None:
        raise SepbenchError(f"{run} cannot be published: its suite in its version is not installed, or it has no run.json")
    frame, left_out = _finished(_chosen(results.frame, run, tasks, methods))
    if not len(frame):
        raise _nothing(run, left_out)
    path = folder / f"{results.suite.name}.csv"
    with holding_folder(folder, waiting):  # from reading to the last write: who reads in between would write without these rows
        old = read_leaderboard(path) if path.is_file() else frame.iloc[:0]
        done = replace_rows(old, frame, run, force=force)
        left_out += done.left_out
        if not len(done.frame):
            raise _nothing(run, left_out)
        merge_scores(path, _of_rows(results.values, done.frame), cells_of(done.frame), done.kept)
        write_leaderboard(done.merged, path)
    added = len(done.merged) - len(old) + done.removed
    return Publication(path, len(done.frame) - added, added, tuple(left_out), done.removed)


def _chosen(frame: pd.DataFrame, run: str, tasks: Sequence[str], methods: Sequence[str]) -> pd.DataFrame:
    """The rows of these tasks and methods."""
    for column, wanted in (("task", tasks), ("method", methods)):
        known = list(dict.fromkeys(frame[column]))
        for name in wanted:
            if name not in known:
                raise nearest(name, known, f"{column} of {run}")
        frame = frame[frame[column].isin(wanted)] if wanted else frame
    return frame


def _finished(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows whose examples were all scored or failed, and a line for every (task, method) that has others."""
    finished = frame["n_scored"] + frame["n_failed"] == frame["n_expected"]
    done, lines = frame[finished], []
    for task, method in cells_of(frame[~finished]):
        whole = (task, method) not in cells_of(done)
        rows = frame[~finished & (frame["task"] == task) & (frame["method"] == method)]
        lines.append(f"{task}, {method}: not finished" if whole else f"{task}, {method}: {some(rows['metric'])} not finished")
    return done, lines


def _nothing(run: str, left_out: Sequence[str]) -> SepbenchError:
    return SepbenchError(f"nothing of {run} can be published: {'; '.join(left_out) or 'it has no rows'}")


def _of_rows(values: Values, frame: pd.DataFrame) -> Values:
    """The values of the metrics that have a row."""
    rows = set(zip(frame["task"], frame["method"], frame["metric"], strict=True))
    return Values(lambda task, method: {metric: of for metric, of in values.cell(task, method).items() if (task, method, metric) in rows})
