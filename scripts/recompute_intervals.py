"""Put the statistics of a run into the committed leaderboard whose rows it repeats, and keep the seconds that were measured on an idle machine.

    python scripts/recompute_intervals.py RUN [RUN ...] [--to leaderboards]
    python scripts/recompute_intervals.py --independent [--to leaderboards]

For runs made again only because their values per mixture were not kept. Every row of the run that the leaderboard has must have the same mean to
``TOLERANCE``, relative; it then takes the run's statistics (columns ``STATISTICS``), and keeps its command, seconds and versions. Metrics that the
leaderboard lacks for a (task, method) are added with the seconds of that cell's rows. Methods that it lacks are left to ``sepbench publish``.
Values per mixture go to ``leaderboards/scores``.

``--independent`` needs no run: where no two of a row's mixtures share a cluster, the interval is that of the t test and follows from mean, std and n.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import pandas as pd

from sepbench.registry import suite_names
from sepbench.results.columns import OLD_INTERVAL, key_names
from sepbench.results.intervals import LEVEL, Design
from sepbench.results.leaderboard import clusters_of
from sepbench.results.leaderboard_file import merge_leaderboards, read_leaderboard, write_leaderboard
from sepbench.results.published_scores import merge_scores
from sepbench.results.statistics import Designs
from sepbench.results.target import open_run
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite

TOLERANCE = 2e-5
STATISTICS = ("mean", "std", "median", "ci_low", "ci_high", "interval", "cluster", "n_clusters", "n_scored", "n_failed", "prior")
OF_METRIC = ("metric", "unit", "higher_is_better", *STATISTICS)


def recomputed(board: pd.DataFrame, run: pd.DataFrame, label: str) -> pd.DataFrame:
    """The rows of a run as they go into the leaderboard.

    Raises:
        SystemExit: a row has another mean, or other mixtures.
    """
    key = list(key_names())
    there = {tuple(record[name] for name in key): record for record in board.to_dict("records")}
    cells = {(record["task"], record["method"]): record for record in board.to_dict("records")}
    rows = []
    for named in dict.fromkeys(zip(run["task"], run["method"], strict=True)):
        if named not in cells:
            print(f"{label}: {', '.join(named)} is not in the leaderboard; publish it")
    for record in run.to_dict("records"):
        cell = cells.get((record["task"], record["method"]))
        if cell is None:
            continue
        old = there.get(tuple(record[name] for name in key))
        if cell["task_digest"] != record["task_digest"] or cell["n_expected"] != record["n_expected"]:
            raise SystemExit(f"{label}: {record['task']}, {record['method']} has other mixtures than the leaderboard")
        if old is not None and not math.isclose(old["mean"], record["mean"], rel_tol=TOLERANCE, abs_tol=1e-6) and math.isfinite(old["mean"]):
            raise SystemExit(f"{label}: {record['task']}, {record['method']}, {record['metric']} is {record['mean']:.6g}, was {old['mean']:.6g}")
        rows.append({**cell, **{name: record[name] for name in OF_METRIC}})
    return pd.DataFrame(rows, columns=board.columns).astype(board.dtypes)


def independent(board: pd.DataFrame, suite: Suite) -> pd.DataFrame:
    """The rows with intervals of the old kind whose mixtures share nothing, with new intervals."""
    rows = []
    for record in board[(board["interval"] == OLD_INTERVAL) & (board["n_scored"] == board["n_expected"])].to_dict("records"):
        clusters = clusters_of(suite, record["task"])
        if clusters is None or not math.isfinite(record["std"]):
            continue
        n = record["n_scored"]
        design = Design(clusters.of(np.arange(n)))
        if all(shared.n_codes == len(shared.examples) for shared in design.shared):
            half = design.quantile((1 + LEVEL) / 2) * record["std"] / math.sqrt(n)
            made = {"interval": Designs(clusters).interval, "cluster": design.unit, "n_clusters": design.n_clusters}
            rows.append({**record, **made, "ci_low": record["mean"] - half, "ci_high": record["mean"] + half})
    return pd.DataFrame(rows, columns=board.columns).astype(board.dtypes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--independent", action="store_true")
    parser.add_argument("--to", type=Path, default=Path("leaderboards"))
    chosen = parser.parse_args()
    for path in sorted(chosen.to.glob("*.csv")) if chosen.independent else ():
        if path.stem in suite_names():
            board = read_leaderboard(path)
            rows = independent(board, load_suite(path.stem))
            if len(rows):
                write_leaderboard(merge_leaderboards(board, rows), path)
            print(f"{path}: {len(rows)} rows of mixtures that share nothing")
    for name in chosen.runs:
        results = open_run(Path(name), name)
        if results.values is None or results.suite is None:
            raise SystemExit(f"{name} is no run of an installed suite")
        path = chosen.to / f"{results.suite.name}.csv"
        board = read_leaderboard(path)
        rows = recomputed(board, results.frame[results.frame["n_scored"] + results.frame["n_failed"] == results.frame["n_expected"]], name)
        if len(rows):
            merge_scores(path, results.values, list(dict.fromkeys(zip(rows["task"], rows["method"], strict=True))))
            write_leaderboard(merge_leaderboards(board, rows), path)
        print(f"{path}: {len(rows)} rows of {name}")


if __name__ == "__main__":
    main()
