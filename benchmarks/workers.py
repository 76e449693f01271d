"""Wall-clock of one worker and of two on the same work, and what a shard costs beside its own work under each backend.

    SEPBENCH_DATA=... python benchmarks/workers.py [--repeats 3] [--limit 20] [--mixtures 1000]

On a machine with at least two idle cores. 1 and 2 workers take turns, so that a machine that slows down slows both. The work is ``projected-4x`` on
both tasks of MNIST pairs, one thread per process; the wall-clock is that of the command, start and leaderboard included. The cost of a shard is that of
``average`` on the embedded digits in shards of 5 mixtures, from the first file of scores to the last one, so without the start of anything.
Writes ``benchmarks/results/workers.csv``.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).with_name("results") / "workers.csv"
SHARD = 5


def run(*arguments: str) -> tuple[float, float, int]:
    """``sepbench run`` with these arguments, in a folder of its own and a process of its own.

    Returns:
        Seconds of the command, seconds between its first and its last file of scores, and the number of these files.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "sepbench.cli.main", "run", *arguments, "--out", f"{folder}/run", "--device", "cpu"]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        taken = time.perf_counter() - started
        written = sorted(path.stat().st_mtime for path in Path(folder).rglob("scores/**/*.parquet"))
        return taken, written[-1] - written[0], len(written)


def speed_up(repeats: int, limit: int) -> list[tuple[str, str, float]]:
    """Medians of 1 and 2 workers in seconds, and of each pair's ratio."""
    work = ("--suite", "mnist-pairs", "--methods", "projected-4x", "--limit", str(limit), "--shard-size", "4")
    pairs = [(run(*work, "--workers", "1")[0], run(*work, "--workers", "2")[0]) for _ in range(repeats)]
    one, two = (statistics.median(pair[number] for pair in pairs) for number in (0, 1))
    of = f"mnist-pairs, projected-4x, 2 x {limit} mixtures"
    return [
        ("seconds, 1 worker", of, one),
        ("seconds, 2 workers", of, two),
        ("ratio of 1 to 2 workers", f"median of {repeats} pairs", statistics.median(a / b for a, b in pairs)),
    ]


def overhead(repeats: int, mixtures: int) -> list[tuple[str, str, float]]:
    """Wall-clock per shard in milliseconds, of a method that costs nothing; backends take turns."""
    backends = {"local, 1 worker": (), "local, 2 workers": ("--workers", "2"), "ray, 2 workers": ("--workers", "2", "--backend", "ray")}
    base = ("--suite", "digits-pairs", "--tasks", "class-split", "--methods", "average", "--shard-size", str(SHARD), "--limit", str(mixtures))
    spent: dict[str, list[float]] = {name: [] for name in backends}
    for _ in range(repeats):
        for name, options in backends.items():
            _, between, files = run(*base, *options)
            spent[name].append(1e3 * between / (files - 1))
    of = f"{mixtures // SHARD} shards of {SHARD} mixtures"
    return [(f"milliseconds per shard, {name}", of, statistics.median(times)) for name, times in spent.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--mixtures", type=int, default=1000)
    chosen = parser.parse_args()
    rows = speed_up(chosen.repeats, chosen.limit) + overhead(chosen.repeats, chosen.mixtures)
    with RESULTS.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("what", "of", "value"))
        for what, of, value in rows:
            writer.writerow((what, of, f"{value:.4g}"))
            print(f"{what:45s} {value:10.4g}   {of}")


if __name__ == "__main__":
    main()
