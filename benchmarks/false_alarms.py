"""False alarms and power of ``sepbench check``: a check is one decision over all its rows.

    python benchmarks/false_alarms.py [--pairs 400]

Pairs of runs are simulated that differ in nothing but chance: every row's difference new - old per mixture has mean zero, a standard deviation of 0.5 dB,
and a part (``share``) that mixtures with an image in common have in common, on the first 500 mixtures of ``mnist-pairs`` (class-split). Rows are alike to
the degree that metrics of one method are (``correlation``). ``check_results``, what the command calls, decides. For power one row has a true change of
-0.1 dB. Beside it three other rules on the same differences: any row's own 95 % interval below zero, Bonferroni, and max-t (the 95 % quantile of the
largest t over 400 redraws with random signs of mixtures, which knows that rows are alike). Writes ``benchmarks/results/false_alarms.csv``.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from sepbench.results.columns import COLUMNS
from sepbench.results.gate import check_results
from sepbench.results.intervals import Design
from sepbench.results.leaderboard_file import typed
from sepbench.results.target import Results
from sepbench.results.values import CellValues, MetricValues, Values
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite

RESULTS = Path(__file__).with_name("results") / "false_alarms.csv"
SUITE, TASK, METRIC = "mnist-pairs", "class-split", "psnr"
N, SD, EFFECT = 500, 0.5, -0.1
LEVEL, SIGNS = 0.05, 400

Floats = npt.NDArray[np.float64]


def frame(means: Floats, suite: Suite) -> pd.DataFrame:
    """A leaderboard with one method per mean."""
    blank = {column.name: {"text": "", "integer": 0, "number": np.nan, "flag": False}[column.kind] for column in COLUMNS}
    task = suite.tasks[TASK]
    known = {"suite": SUITE, "suite_version": suite.version, "task": TASK, "task_digest": task.digest, "metric": METRIC, "unit": "dB"}
    counted = {"higher_is_better": True, "n_expected": N, "n_scored": N}
    return typed(pd.DataFrame([{**blank, **known, **counted, "method": f"m{row}", "mean": mean} for row, mean in enumerate(means)]))


def results(label: str, values: Floats, suite: Suite) -> Results:
    """``(N, rows)`` values as results that can be checked."""
    examples = np.arange(N)

    def read(task: str, method: str) -> CellValues:
        return {METRIC: MetricValues(examples, values[:, int(method[1:])])}

    return Results(label, frame(values.mean(axis=0), suite), suite, Values(read))


def differences(generator: np.random.Generator, design: Design, images: npt.NDArray[np.int64], rows: int, correlation: float, share: float) -> Floats:
    """``(N, rows)`` with mean zero and standard deviation ``SD``."""

    def normal(count: int) -> Floats:
        common, own = generator.standard_normal((count, 1)), generator.standard_normal((count, rows))
        return np.asarray(np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own)

    of_images = normal(int(images.max()) + 1)
    return np.asarray(SD * (np.sqrt(share / 2) * of_images[images].sum(axis=1) + np.sqrt(1 - share) * normal(design.n)))


def largest_t(generator: np.random.Generator, design: Design, d: Floats) -> float:
    """The quantile of the smallest t over rows, under random signs of mixtures."""
    centred = d - d.mean(axis=0)
    errors = design.standard_errors(d)
    means = generator.choice([-1.0, 1.0], (SIGNS, design.n)) @ centred / design.n
    return float(np.quantile((means / errors).min(axis=1), LEVEL))


def alarms(generator: np.random.Generator, suite: Suite, design: Design, d: Floats) -> dict[str, bool]:
    """Whether each rule calls the pair a regression."""
    old = np.zeros_like(d)
    report = check_results(results("new", 20 + d, suite), results("old", 20 + old, suite))
    t = d.mean(axis=0) / design.standard_errors(d)
    worse = d.mean(axis=0) < -0.01
    return {
        "check": report.exit_code == 1,
        "each row's interval": bool(((t < design.quantile(0.025)) & worse).any()),
        "Bonferroni": bool(((design.tail(t) < LEVEL / d.shape[1]) & worse).any()),
        "max-t": bool(((t < largest_t(generator, design, d)) & worse).any()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=400)
    chosen = parser.parse_args()
    suite = load_suite(SUITE)
    clusters = suite.tasks[TASK].clusters().of(np.arange(N))
    design = Design(clusters)
    lines = []
    for rows in (1, 30, 120):
        for correlation in (0.0, 0.7):
            for share in (0.0, 0.4):
                generator = np.random.Generator(np.random.Philox(key=[rows, int(100 * correlation + 10 * share)]))
                counts: dict[str, list[int]] = {}
                for _ in range(chosen.pairs):
                    d = differences(generator, design, clusters.keys, rows, correlation, share)
                    for effect, kind in ((0.0, 0), (EFFECT, 1)):
                        d[:, 0] += effect
                        for rule, raised in alarms(generator, suite, design, d).items():
                            counts.setdefault(rule, [0, 0])[kind] += raised
                for rule, (false, true) in counts.items():
                    lines.append((rows, correlation, share, rule, chosen.pairs, f"{false / chosen.pairs:.3f}", f"{true / chosen.pairs:.3f}"))
                    print(*lines[-1])
    with RESULTS.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("rows", "correlation", "share", "rule", "pairs", "false_alarms", f"power_at_{EFFECT}_dB"))
        writer.writerows(lines)


if __name__ == "__main__":
    main()
