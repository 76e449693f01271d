"""Puts a run into a committed leaderboard. Such a leaderboard consists of several runs (one per group of methods)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sepbench.errors import SepbenchError
from sepbench.registry import nearest
from sepbench.results.columns import key_names
from sepbench.results.leaderboard_file import merge_leaderboards, read_leaderboard, write_leaderboard
from sepbench.results.published_scores import merge_scores
from sepbench.results.target import open_run


@dataclass(frozen=True, slots=True)
class Publication:
    """What became of a run's rows.

    Attributes:
        path: the leaderboard.
        replaced, added: numbers of rows.
        left_out: one line per (task, method) that was left out, with the reason.
    """

    path: Path
    replaced: int
    added: int
    left_out: tuple[str, ...]


def publish_run(run: str, folder: Path, *, force: bool = False, tasks: Sequence[str] = (), methods: Sequence[str] = ()) -> Publication:
    """Merge a run into ``folder/<suite>.csv``, and its per-example values into ``folder/scores/<suite>.parquet``.

    A row goes in if every planned example was scored or failed. Unless ``force``, a row does not replace one of more examples, and a quick
    one does not replace one of the paper's budget.

    Args:
        run: its folder.
        folder: of the leaderboards.
        force: see above.
        tasks, methods: only these; empty for all.

    Raises:
        UnknownNameError: a task or method that the run does not have.
        SepbenchError: not a run, nothing to publish, a leaderboard of another suite version or other mixtures, or not writable.
    """
    results = open_run(Path(run), run)
    if results.suite is None or results.values is None:
        raise SepbenchError(f"{run} cannot be published: its suite in its version is not installed, or it has no run.json")
    frame = results.frame
    for column, wanted in (("task", tasks), ("method", methods)):
        known = list(dict.fromkeys(frame[column]))
        for name in wanted:
            if name not in known:
                raise nearest(name, known, f"{column} of {run}")
        frame = frame[frame[column].isin(wanted)] if wanted else frame
    path = folder / f"{results.suite.name}.csv"
    finished = frame["n_scored"] + frame["n_failed"] == frame["n_expected"]
    left_out = [f"{task}, {method}: not finished" for task, method in _cells(frame[~finished])]
    frame = frame[finished]
    old = read_leaderboard(path) if path.is_file() else frame.iloc[:0]
    if not force:
        frame, weaker = _without_weaker(frame, old)
        left_out += weaker
    if not len(frame):
        raise SepbenchError(f"nothing of {run} can be published: {'; '.join(left_out) or 'it has no rows'}")
    merged = merge_leaderboards(old, frame)
    merge_scores(path, results.values, _cells(frame))
    write_leaderboard(merged, path)
    added = len(merged) - len(old)
    return Publication(path, len(frame) - added, added, tuple(left_out))


def _cells(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return list(dict.fromkeys(zip(frame["task"], frame["method"], strict=True)))


def _without_weaker(frame: pd.DataFrame, old: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Rows that do not replace better-founded ones, and why the others stay out."""
    key = list(key_names())
    there = frame[key].merge(old[[*key, "n_expected", "budget"]], on=key, how="left")
    shorter = (there["n_expected"] > frame["n_expected"].to_numpy()).to_numpy()
    quicker = ((there["budget"] == "paper").to_numpy()) & (frame["budget"] == "quick").to_numpy()
    reasons = [f"{task}, {method}: the row that is there is of more mixtures; --force replaces it" for task, method in _cells(frame[shorter])]
    reasons += [f"{task}, {method}: the row that is there is of the paper's budget; --force replaces it" for task, method in _cells(frame[quicker & ~shorter])]
    return frame[~(shorter | quicker)], reasons
