"""Peak memory of a run against the number of mixtures: 6,000 and 60,000 must agree within 10 %.

    SEPBENCH_DATA=... python benchmarks/memory.py [--dataset mnist] [--method average] [--sizes 6000 60000]

Writes a temporary suite of so many random pairs (class-agnostic, sum) for each size and runs it in a fresh process, which reports its peak
resident set after separating and scoring, and again after the leaderboard is built from all scores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SHAPES = {"mnist": "[1, 28, 28]", "digits": "[1, 8, 8]"}
_SUITE = """\
format = 1
name = "{name}"
version = 1
title = "Memory"
description = "Random pairs for benchmarks/memory.py"
domain = "image"
metrics = ["psnr", "psnr_unclamped", "psnr_sum_mse", "ssim", "mixture_error"]
ranking_metric = "psnr"
methods = ["average"]

[data]
shape = {shape}

[classes]
"0-9" = {{ dataset = "{dataset}" }}

[tasks.class-agnostic]
pairs = "pairs.csv"
sources = ["0-9", "0-9"]
operator = "sum"
assignment = "permutation"
"""


def write_suite(folder: Path, dataset: str, size: int) -> Path:
    """A suite of ``size`` pairs in its own folder; its TOML file."""
    from sepbench.data.datasets import open_dataset
    from sepbench.data.lists.pairs import pairs_csv
    from sepbench.suites.freeze import write_digests

    folder.mkdir(parents=True)
    indices = np.random.default_rng(0).integers(0, len(open_dataset(dataset, "test")), size=(size, 2))
    (folder / "pairs.csv").write_bytes(pairs_csv(indices))
    path = folder / "suite.toml"
    path.write_text(_SUITE.format(name=f"memory-{size}", shape=SHAPES[dataset], dataset=dataset), encoding="utf-8")
    write_digests([path], folder / "tasks.toml")
    return path


def child(suite_path: Path, method: str, out: Path) -> None:
    """Run the suite in this process and print the peaks as JSON."""
    from sepbench.results.leaderboard import build_leaderboard
    from sepbench.results.store import RunStore
    from sepbench.results.values import Values
    from sepbench.run.execute import execute
    from sepbench.run.plan import make_plan
    from sepbench.run.provenance import run_record
    from sepbench.run.request import RunRequest
    from sepbench.run.timing import resident_peak
    from sepbench.suites.loader import load_suite

    started = resident_peak()
    suite = load_suite(str(suite_path))
    plan = make_plan(RunRequest(str(suite_path), (method,), device="cpu", keep_estimates=False), suite)
    record = run_record(plan, "benchmarks/memory.py")
    store = RunStore.create(out, record)
    with store.session(record):
        execute(plan, store)
        executed = resident_peak()
        build_leaderboard(Values.of_run(store), store.read_run(), store.read_cells(), suite)
    print(json.dumps({"imports": started, "execute": executed, "leaderboard": resident_peak()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=sorted(SHAPES), default="mnist")
    parser.add_argument("--method", default="average")
    parser.add_argument("--sizes", type=int, nargs="+", default=[6_000, 60_000])
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], options.method, options.child[1])
        return
    peaks = {}
    with tempfile.TemporaryDirectory() as temporary:
        for size in options.sizes:
            suite = write_suite(Path(temporary) / str(size), options.dataset, size)
            command = [sys.executable, __file__, "--method", options.method, "--child", str(suite), str(Path(temporary) / f"run-{size}")]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            peaks[size] = json.loads(done.stdout)
            print(f"{size:>8,} mixtures: " + ", ".join(f"{stage} {value / 1e6:,.0f} MB" for stage, value in peaks[size].items()))
    first, last = peaks[options.sizes[0]], peaks[options.sizes[-1]]
    for stage in ("execute", "leaderboard"):
        print(f"{stage}: {options.sizes[-1]:,} mixtures take {last[stage] / first[stage]:.3f} times the memory of {options.sizes[0]:,}")


if __name__ == "__main__":
    main()
