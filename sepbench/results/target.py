"""From the name that a user gives on the command line (a run's folder, a leaderboard CSV, a suite) to results that can be shown and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from sepbench.errors import SepbenchError, some
from sepbench.registry import nearest, suite_names
from sepbench.resources import resource_root
from sepbench.results.leaderboard import build_leaderboard, clusters_of, outline
from sepbench.results.leaderboard_file import read_leaderboard
from sepbench.results.published_scores import read_scores, scores_path
from sepbench.results.ranking import Evidence
from sepbench.results.repeats import mean_values, told_values, with_repetitions
from sepbench.results.statistics import TaskDesigns
from sepbench.results.store import RunStore
from sepbench.results.values import Values
from sepbench.run.records import CellRecord, SuiteRecord
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite

RUNS = "runs"
"""The folder below the working folder in which runs are that name none."""


@dataclass(frozen=True, slots=True)
class Results:
    """The results that were found.

    Attributes:
        label: what the user called them.
        frame: leaderboard rows, see ``columns.COLUMNS``.
        suite: the suite, if this installation has the version of the results.
        values: per-example values, read when asked for, where the results are a run, or a leaderboard with scores beside it; else None. Means over
            the repetitions where there are any, as the means of the rows are.
        cells: ``(task, method)`` -> state of that part of the run; empty for a CSV.
        bounds: method -> ``lower``, ``upper`` or empty; None where only the registry could say (a CSV).
    """

    label: str
    frame: pd.DataFrame
    suite: Suite | None
    values: Values | None = None
    cells: Mapping[tuple[str, str], CellRecord] = field(default_factory=dict)
    bounds: Mapping[str, str] | None = None

    @property
    def designs(self) -> TaskDesigns:
        """Which examples of each task share clusters."""
        return TaskDesigns(lambda task: clusters_of(self.suite, task))

    @property
    def evidence(self) -> Evidence | None:
        """Evidence of which methods the best one beats; None without per-example values."""
        return None if self.values is None else Evidence(self.values, self.designs)

    @property
    def ranking_metric(self) -> str:
        """The suite's ranking metric, or the first one of the rows."""
        if self.suite is not None:
            return self.suite.ranking_metric
        return str(self.frame["metric"].iloc[0]) if len(self.frame) else ""


def open_results(target: str, *, suites: bool = False, statistics: bool = True) -> Results:
    """Open a run's folder or a leaderboard CSV, or with ``suites`` the committed leaderboard of a suite.

    Args:
        target: what the user named.
        suites: whether it may be a suite.
        statistics: see ``open_run``.

    Raises:
        SepbenchError: there is no such thing, or it cannot be read.
    """
    path = Path(target)
    if path.is_dir() and not (suites and target in suite_names() and not (path / "run.json").is_file()):
        _refuse_boards(path, target)
        return open_run(path, target, statistics=statistics)
    if path.is_file():
        return open_csv(path, target)
    if not suites:
        raise SepbenchError(f"there is no {target}; name the folder of a run or a leaderboard CSV")
    if path.suffix or len(path.parts) > 1:
        raise SepbenchError(f"there is no {target}; name the folder of a run, a leaderboard CSV or a suite")
    if target not in suite_names():
        otherwise = "there is no folder, CSV or suite of that name; name the folder of a run ('runs/...'), or see 'sepbench list suites'"
        raise nearest(target, suite_names(), "run folder, CSV or suite", otherwise)
    committed = committed_path(target)
    if not committed.is_file():
        raise SepbenchError(f"no leaderboard is committed for suite {target}; {_runs_of(target)}")
    return open_csv(committed, target)


def _refuse_boards(path: Path, label: str) -> None:
    """A folder that ``publish`` wrote is no run, and what was meant is in it.

    Raises:
        SepbenchError: it has leaderboards of suites, and neither a run nor its leaderboard.
    """
    if (path / "run.json").is_file() or (path / "leaderboard.csv").is_file():
        return
    found = [board for board in sorted(path.glob("*.csv")) if board.stem in suite_names() or scores_path(board).is_file()]
    if found:
        raise SepbenchError(f"{label} is not the folder of a run; it holds {some(found)}; name {'that' if len(found) == 1 else 'one of them'}")


def _runs_of(suite: str) -> str:
    """Where a user finds results of a suite: the runs below the working folder, the newest first."""
    found = []
    for path in Path(RUNS).glob("*/run.json"):
        try:
            name, when = RunStore(path.parent).read_run().suite.name, path.stat().st_mtime
        except (SepbenchError, OSError):  # not a run that can be shown
            continue
        if name == suite:
            found.append((when, str(path.parent)))
    if not found:
        return f"there is no run of it in ./{RUNS} either: name the folder of one, or make one with `sepbench run --suite {suite}`"
    paths = [path for _, path in sorted(found, reverse=True)]
    return f"name the folder of a run: `sepbench show {paths[0]}`" + (f" (or {some(paths[1:])})" if len(paths) > 1 else "")


def committed_path(suite: str) -> Path:
    """The file of a suite's committed leaderboard, if there is one."""
    return resource_root("leaderboards") / f"{suite}.csv"


def committed_leaderboard(suite: str) -> pd.DataFrame | None:
    """The rows of a suite's committed leaderboard; None if there is none.

    Raises:
        SepbenchError: it cannot be read.
    """
    path = committed_path(suite)
    return read_leaderboard(path) if path.is_file() else None


def open_csv(path: Path, label: str) -> Results:
    """A leaderboard CSV.

    Raises:
        SepbenchError: not readable as one.
    """
    frame = read_leaderboard(path)
    return Results(label, frame, _same_suite(frame), told_values(read_scores(path), frame))


def open_run(path: Path, label: str, *, statistics: bool = True) -> Results:
    """A run's folder. Its leaderboard is built from the scores that are there, so you can look at an unfinished run.

    Args:
        statistics: False leaves the statistics of the rows empty, for those who only want the values: then no scores are read here.

    Raises:
        SepbenchError: not a run's folder, damaged, or of a suite version that is not installed and without ``leaderboard.csv``.
    """
    if not (path / "run.json").is_file():
        if (path / "leaderboard.csv").is_file():
            return open_csv(path / "leaderboard.csv", label)
        raise SepbenchError(f"{label} is not the folder of a run (it has no run.json); name one that 'sepbench run' wrote, below {RUNS}/ by default")
    store = RunStore(path)
    run, cells, values = store.read_run(), store.read_cells(), mean_values(store)
    bounds = {name: entry.bound for name, entry in run.methods.items()}
    name, version = run.suite.name, run.suite.version
    suite = _installed(run.suite)
    if suite is not None and suite.version == version:
        frame = build_leaderboard(Values.of_run(store), run, cells, suite) if statistics else outline(run, cells, suite)
        if statistics:
            frame, cells = with_repetitions(frame, cells, store, TaskDesigns(lambda task: clusters_of(suite, task)))
        return Results(label, frame, suite, values, cells, bounds)
    if (path / "leaderboard.csv").is_file():  # written when the suite was at that version
        return Results(label, read_leaderboard(path / "leaderboard.csv"), None, values, cells, bounds)
    installed = f"version {suite.version} is" if suite is not None else "it is not"
    raise SepbenchError(f"{label} is a run of suite {name} version {version}, {installed} installed, and it has no leaderboard.csv; run it again")


def _installed(record: SuiteRecord) -> Suite | None:
    """The suite that a run was made of: the registered one of its name, or the file that it was asked for by."""
    if record.path and Path(record.path).is_file():
        return load_suite(record.path)
    return load_suite(record.name) if record.name in suite_names() else None


def _same_suite(frame: pd.DataFrame) -> Suite | None:
    """The installed suite that all rows are of, in the same version."""
    kinds = set(zip(frame["suite"], frame["suite_version"], strict=True))
    if len(kinds) != 1:
        return None
    name, version = kinds.pop()
    if name not in suite_names():
        return None
    suite = load_suite(name)
    return suite if suite.version == version else None
