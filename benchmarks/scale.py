"""A million mixtures x ten methods: time and memory of planning, looking for what exists, the leaderboard and a comparison.

    SEPBENCH_DATA=... python benchmarks/scale.py [--sizes 10000 100000 300000 1000000] [--shard-size 1000] [--folder /tmp]

For each N writes a temporary run of N mixtures, one task, two metrics (one per source, one per mixture) and ten methods with simulated scores and
estimates of two numbers each, by the store's own functions; every method fails on other mixtures. Intervals are resampled up to
``statistics.BOOTSTRAP_MAX`` mixtures and normal above, which shows in the leaderboard's time. Each step runs in a process of its own, which reports
its seconds (of the clock and of the processor, imports apart) and its peak resident memory. Writes ``benchmarks/results/scale.csv`` and
``scale.png``; ``most_files`` is the number of entries of the fullest folder. The run of a million takes 0.7 GB of disk and is deleted.

``plan`` is what a run does before it makes its folder, on a suite of N random pairs of ``digits`` in the temporary folder: it checks and reads the
pair list, and no mixture is made; its cells are cut into shards, too. ``scan`` is what a run that is resumed does: which shards have estimates, and
which of them scores of these metrics?
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sepbench.run.records import RunRecord

RESULTS = Path(__file__).resolve().parent / "results"
METRICS = ("psnr", "mixture_error")
METHODS = tuple(f"method-{number}" for number in range(10))
PLANNED = ("average", "mixture", "nmf", "ica", "rpca", "basis-ncsn", "basis-ncsn-10x", "basis-ncsn-code", "basis-ncsn-denoised", "alpha-rgs")
TASK = "class-agnostic"
STEPS = ("plan", "scan", "leaderboard", "compare")
LIMITS = {"seconds": 30.0, "peak_mb": 1500.0}


def make_record(n: int, methods: Sequence[str] = METHODS, suite_name: str = "digits-pairs") -> RunRecord:
    """``run.json`` of a run on a suite, as if it had so many mixtures."""
    from sepbench.run.provenance import FORMAT
    from sepbench.run.records import EnvironmentRecord, MethodRecord, RunRecord, SuiteRecord, TaskRecord
    from sepbench.suites.loader import load_suite

    suite = load_suite(suite_name)
    return RunRecord(
        format=FORMAT,
        sepbench_version="0",
        command="benchmarks/scale.py",
        suite=SuiteRecord(name=suite.name, version=suite.version),
        tasks={TASK: TaskRecord(digest="simulated", pairs_sha256="", mixtures_sha256="", n_examples=n, n_planned=n)},
        methods={name: MethodRecord(version="1", supervision="blind", deterministic=True) for name in methods},
        metrics=list(METRICS),
        seed=0,
        budget="paper",
        device="cpu",
        limit=n,
        shard_size=None,
        timing_group="simulated",
        environment=EnvironmentRecord(),
    )


def write_run(folder: Path, n: int, shard_size: int, methods: Sequence[str] = METHODS, suite_name: str = "digits-pairs", estimates: bool = True) -> None:
    """A run of ``n`` mixtures: difficulty shared by the methods, one mixture in 10,000 failed."""
    import torch

    from sepbench.results.store import RunStore
    from sepbench.run.plan import Shard
    from sepbench.run.records import CellRecord
    from sepbench.run.sink import ShardEstimates

    record = make_record(n, methods, suite_name)
    store = RunStore.create(folder, record)
    with store.session(record):
        for number, method in enumerate(methods):
            for start in range(0, n, shard_size):
                shard = Shard(TASK, method, start, min(start + shard_size, n))
                if estimates:
                    store.write_estimates(shard, ShardEstimates(torch.zeros(len(shard), 2, 1), torch.full((len(shard),), 0.25, dtype=torch.float64)))
                store.write_scores(shard, _simulated(shard.start, shard.stop, number))
            store.write_cell(TASK, method, CellRecord(state="done", n_planned=n, n_separated=n, separate_seconds=1.0, fit_seconds=1.0))


def _simulated(start: int, stop: int, level: int) -> Any:
    from sepbench.run.sink import ShardScores

    noise = np.random.Generator(np.random.Philox([level, start]))
    ids = np.arange(start, stop)
    good, failed = ids[ids % 10_000 != level], ids[ids % 10_000 == level]
    n = len(good)
    difficulty = np.random.Generator(np.random.Philox([99, start])).normal(size=stop - start)[ids % 10_000 != level]
    lost = np.repeat(failed, len(METRICS))
    value = [np.repeat(15 + 0.01 * level + 3 * difficulty, 2) + noise.normal(size=2 * n), noise.exponential(size=n), np.full(len(lost), np.nan)]
    return ShardScores(
        example=np.concatenate([good.repeat(2), good, lost]),
        source=np.concatenate([np.tile([0, 1], n), np.full(n + len(lost), -1)]),
        metric=np.concatenate([np.repeat(np.array([0, 1], np.int32), (2 * n, n)), np.tile(np.array([0, 1], np.int32), len(failed))]),
        value=np.concatenate(value),
        seconds=np.full(3 * n + len(lost), 0.25),
        error=np.repeat(np.array([0, 1], np.int32), (3 * n, len(lost))),
        metrics=METRICS,
        errors=["", "ValueError: simulated"],
        fit_failed=False,
        n_separated=n,
        n_failed=len(failed),
        separate_seconds=0.25 * n,
    )


def write_suite(folder: Path, n: int) -> Path:
    """A suite with one list of ``n`` random pairs of digits; its TOML file. The digest of its mixtures is made up: the real one takes all of them."""
    import memory  # the benchmark beside this one

    from sepbench.data.datasets import open_dataset
    from sepbench.data.lists.pairs import pairs_csv
    from sepbench.files import file_sha256

    folder.mkdir()
    indices = np.random.default_rng(0).integers(0, len(open_dataset("digits", "test")), size=(n, 2))
    (folder / "pairs.csv").write_bytes(pairs_csv(indices))
    path = folder / "suite.toml"
    path.write_text(memory._SUITE.format(name="scale", shape=memory.SHAPES["digits"], dataset="digits"), encoding="utf-8")
    digests = f'pairs_sha256 = "{file_sha256(folder / "pairs.csv")}"\nmixtures_sha256 = "{"0" * 64}"\n'
    (folder / "tasks.toml").write_text(f"[scale.{TASK}]\nn = {n}\n{digests}", encoding="utf-8")
    return path


def plan(folder: Path, n: int, shard_size: int) -> int:
    from sepbench.run.execute import check_data
    from sepbench.run.plan import Shard, make_plan
    from sepbench.run.request import RunRequest
    from sepbench.suites.loader import load_suite

    path = str(folder / "suite" / "suite.toml")
    planned = make_plan(RunRequest(path, PLANNED, device="cpu"), load_suite(path))
    check_data(planned)
    return sum(1 for cell in planned.cells for _ in cell.pieces(Shard(TASK, cell.method, 0, cell.n_planned), shard_size))


def scan(folder: Path, n: int, shard_size: int) -> int:
    from sepbench.results.store import RunStore

    store = RunStore.open(folder / "run")
    return sum(found.estimates and found.scored for method in METHODS for found in store.find(TASK, method, METRICS))


def leaderboard(folder: Path, n: int, shard_size: int) -> int:
    from sepbench.results.target import open_run

    frame = open_run(folder / "run", "run").frame
    return int((frame["n_scored"] + frame["n_failed"] == n).sum())


def compare(folder: Path, n: int, shard_size: int) -> int:
    from sepbench.results.compare import compare_sides, open_side

    (row,) = compare_sides(open_side(f"{folder / 'run'}:{METHODS[0]}"), open_side(f"{folder / 'run'}:{METHODS[1]}")).to_dict("records")
    return int(row["n"])


def child(step: str, folder: Path, n: int, shard_size: int) -> None:
    """One step in this process; its numbers as JSON."""
    import torch  # noqa: F401  imports are not what is measured

    from sepbench.results import compare as _compare  # noqa: F401
    from sepbench.run import execute as _execute  # noqa: F401
    from sepbench.run.timing import resident_peak

    steps: dict[str, Callable[[Path, int, int], int]] = {"plan": plan, "scan": scan, "leaderboard": leaderboard, "compare": compare}
    clock, processor = time.perf_counter(), time.process_time()
    found = steps[step](folder, n, shard_size)
    seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - processor
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": resident_peak() / 1e6, "found": found}))


def measure(n: int, shard_size: int, folder: Path) -> list[dict[str, Any]]:
    """Rows of all steps for one N, in a temporary folder that is deleted."""
    rows = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        start = time.perf_counter()
        write_run(place / "run", n, shard_size)
        write_suite(place / "suite", n)
        files = sorted(path for path in (place / "run").rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in files)
        fullest = max(sum(1 for _ in folder.iterdir()) for folder in (place / "run").rglob("*") if folder.is_dir())
        print(f"{n:,} mixtures: {len(files):,} files, {size / 1e6:,.0f} MB, written in {time.perf_counter() - start:.0f} s", flush=True)
        for step in STEPS:
            command = [sys.executable, __file__, "--child", step, name, str(n), str(shard_size)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            counts = {"step": step, "mixtures": n, "methods": len(METHODS), "files": len(files), "most_files": fullest}
            rows.append({**counts, **json.loads(done.stdout.splitlines()[-1])})
            print(f"  {step:12} {rows[-1]['seconds']:8.2f} s {rows[-1]['peak_mb']:8.0f} MB, found {rows[-1]['found']:,}", flush=True)
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds and memory over the number of mixtures, log-log, with the limits of issue 15."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from sepbench.results.statistics import BOOTSTRAP_MAX

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for axis, (column, label) in zip(axes, (("seconds", "seconds (dotted: of the processor)"), ("peak_mb", "peak resident memory, MB")), strict=True):
        for step, marker, colour in zip(STEPS, "svo^", ("C0", "C1", "C2", "C3"), strict=True):
            mine = [row for row in rows if row["step"] == step]
            axis.loglog([row["mixtures"] for row in mine], [row[column] for row in mine], marker + "-", color=colour, label=step)
            if column == "seconds":
                axis.loglog([row["mixtures"] for row in mine], [row["cpu_seconds"] for row in mine], ":", color=colour)
        axis.axhline(LIMITS[column], color="black", linestyle="--", linewidth=0.8, label="limit")
        axis.axvline(BOOTSTRAP_MAX, color="grey", linewidth=0.8, label="normal intervals\nto the right")
        axis.set_xlabel(f"mixtures (x {len(METHODS)} methods, {len(METRICS)} metrics)")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[1].set_ylim(100, 3000)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 300_000, 1_000_000])
    parser.add_argument("--shard-size", type=int, default=1_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], Path(options.child[1]), int(options.child[2]), int(options.child[3]))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = [row for n in options.sizes for row in measure(n, options.shard_size, options.folder)]
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "scale.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows)
    draw(rows, RESULTS / "scale.png")


if __name__ == "__main__":
    main()
