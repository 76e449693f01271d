"""Peak memory of a run against the number of mixtures: with every backend 6,000 and 60,000 must agree within 10 %.

    SEPBENCH_DATA=... python benchmarks/memory.py [--dataset mnist] [--method average] [--sizes 6000 60000] [--backends local-1 local-2 ray-2]

Writes a temporary suite of so many random pairs (class-agnostic, sum) for each size and runs it with each backend in fresh processes. The process of
the run reports its peak resident set after separating and scoring, and again after the leaderboard is built from all scores; where others work, theirs
are read every tenth of a second while they live (Linux). Ray's own processes do not belong to the run. Writes ``benchmarks/results/memory.csv``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).resolve().parent / "results" / "memory.csv"
BACKENDS = ("local-1", "local-2", "ray-2")
LIMIT = 1.1
"""The most that the largest size may take of the memory of the smallest."""
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


def child(suite_path: Path, method: str, backend: str, out: Path) -> None:
    """Run the suite from this process and print its peaks in bytes as JSON."""
    from sepbench.results.leaderboard import build_leaderboard
    from sepbench.results.store import RunStore
    from sepbench.results.values import Values
    from sepbench.run.backends.chosen import make_backend
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
    name, _, workers = backend.partition("-")
    team = make_backend(name, workers, "cpu")
    with store.session(record):
        execute(plan, store, backend=team)
        executed = resident_peak()
        build_leaderboard(Values.of_run(store), store.read_run(), store.read_cells(), suite)
    print(json.dumps({"imports": started, "execute": executed, "leaderboard": resident_peak()}))


def _is_worker(pid: str) -> bool:
    """A process of ``LocalBackend``, or an actor of ``RayBackend``."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    return b"spawn_main" in command or command.startswith(b"ray::RayWorker")


def _tree(root: int) -> list[str]:
    """Process ids of a process and everything that it started."""
    parents: dict[str, list[str]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(path.read_text(encoding="utf-8").rpartition(")")[2].split()[1], []).append(path.parent.name)
        except OSError:  # it has ended meanwhile
            continue
    found = [str(root)]
    for pid in found:
        found += parents.get(pid, [])
    return found


def _peak(pid: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def measure(suite: Path, method: str, backend: str, out: Path) -> dict[str, int]:
    """Run in a fresh process; its peaks by stage, and under ``worker`` the largest of the processes that worked for it, if there were any."""
    command = [sys.executable, __file__, "--method", method, "--child", str(suite), backend, str(out)]
    # A process of Ray's that outlives the run would keep a pipe open.
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as ray_folder:
        environment = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0", **os.environ, "RAY_TMPDIR": ray_folder}
        run = subprocess.Popen(command, stdout=told, env=environment)
        workers: dict[str, int] = {}
        while run.poll() is None:
            for pid in _tree(run.pid)[1:]:
                try:
                    if _is_worker(pid):
                        workers[pid] = max(workers.get(pid, 0), _peak(pid))
                except OSError:
                    continue
            time.sleep(0.1)
        if run.returncode:
            raise SystemExit(f"the run with {backend} failed with exit code {run.returncode}")
        told.seek(0)
        peaks: dict[str, int] = json.loads(told.read().splitlines()[-1])
    return peaks | ({"worker": max(workers.values())} if workers else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=sorted(SHAPES), default="mnist")
    parser.add_argument("--method", default="average")
    parser.add_argument("--sizes", type=int, nargs="+", default=[6_000, 60_000])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(Path(options.child[0]), options.method, options.child[1], Path(options.child[2]))
        return
    rows: list[tuple[str, str, str, int, float, float]] = []
    with tempfile.TemporaryDirectory() as temporary:
        suites = {size: write_suite(Path(temporary) / str(size), options.dataset, size) for size in options.sizes}
        for backend in options.backends:
            first: dict[str, int] = {}
            for size, suite in suites.items():
                peaks = measure(suite, options.method, backend, Path(temporary) / f"run-{size}-{backend}")
                first = first or peaks
                for stage, value in peaks.items():
                    rows.append((options.dataset, backend, stage, size, value / 1e6, value / first[stage]))
                print(f"{backend:8} {size:>8,} mixtures: " + ", ".join(f"{stage} {value / 1e6:,.0f} MB" for stage, value in peaks.items()), flush=True)
            ratios = [f"{stage} {value / first[stage]:.3f}" for stage, value in peaks.items()]
            print(f"{backend:8} {options.sizes[-1]:,} mixtures take of the memory of {options.sizes[0]:,}: " + ", ".join(ratios), flush=True)
    with RESULTS.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("dataset", "backend", "stage", "mixtures", "peak_mb", "ratio"))
        writer.writerows((*row[:4], f"{row[4]:.1f}", f"{row[5]:.3f}") for row in rows)
    if any(row[5] > LIMIT for row in rows):
        raise SystemExit(f"memory grows with the mixtures, by more than {LIMIT - 1:.0%}")


if __name__ == "__main__":
    main()
