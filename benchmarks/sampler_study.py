"""PSNR against network evaluations for every sampler on a frozen validation task: the study that the samplers' defaults follow from.

    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/sampler_study.py                   # all of STUDY
    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/sampler_study.py --only projected
    python benchmarks/sampler_study.py --plot-only

Rows go to ``benchmarks/results/sampler_study.csv`` as they are ready; a row that is there for the same weights and mixtures is not computed
again. Mixtures are validation mixtures (``class-split-val``): no choice made here sees a test image. ``evaluations`` are calls of the network
per source, candidates and selection included. ``cpu_seconds`` are process seconds per mixture, which other programs on the machine
disturb less than wall time; compare them within one file only.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sepbench.metrics.catalogue import get_metric
from sepbench.noise import NoiseSource
from sepbench.protocols import RunContext, TaskSpec
from sepbench.registry import create_separator
from sepbench.selection import by_truth
from sepbench.suites.loader import load_suite

CSV = Path(__file__).parent / "results" / "sampler_study.csv"


@dataclass(frozen=True)
class Study:
    """One row: a method with settings; ``family`` groups rows into one line of the plot."""

    family: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return " ".join([self.method, *(f"{key}={value}" for key, value in self.settings.items())])


def _many(family: str, method: str, key: str, values: list[int], **more: Any) -> list[Study]:
    return [Study(family, method, {key: value, **more}) for value in values]


STUDY = [
    *_many("projected", "projected", "steps", [15, 25, 50, 100, 200]),
    *_many("projected, mean of N", "projected-16x", "best_of", [2, 4, 8, 16], steps=45),
    Study("projected, pruned", "projected", {"steps": 45, "candidates": 6, "prune_after": (25,), "survivors": (2,)}),
    Study("projected, pruned", "projected", {"steps": 45, "candidates": 12, "prune_after": (11, 21), "survivors": (4, 2)}),
    *_many("projected, equal variances", "projected", "steps", [50], bounded=False),
    *_many("projected, half stochastic", "projected", "steps", [50], stochasticity=0.5),
    *_many("dirac", "dirac", "steps", [25, 50, 150]),
    *_many("dirac, no churn", "dirac", "steps", [50], churn=0.0, resamplings=1),
    *_many("gaussian", "gaussian", "steps", [25, 50, 150]),
    *_many("diffusion-gibbs", "diffusion-gibbs", "levels", [10, 40]),
    *_many("alpha-rgs", "alpha-rgs", "iterations", [50, 200]),
    *_many("basis", "basis-ncsn", "steps_per_level", [10, 30, 100, 300]),
    *_many("basis, denoised", "basis-ncsn-denoised", "steps_per_level", [30]),
    *_many("basis, released settings", "basis-ncsn-code", "steps_per_level", [30, 100, 300]),
]


def measure(study: Study, task_name: str, examples: int, precision: str, weights: str) -> dict[str, Any]:
    """Separate the first mixtures of the task and score them with ``psnr``."""
    task = load_suite("mnist-pairs").tasks[task_name]
    separator: Any = create_separator(study.method, {**study.settings, "precision": precision, "weights": weights})
    ctx = RunContext(task.spec, "cuda" if torch.cuda.is_available() else "cpu", NoiseSource(0), 0)
    separator.fit(task.view("prior"), ctx)
    ids = torch.arange(examples)
    references = task.mixture_set().sources(ids)
    values, evaluations, start = [], 0, time.process_time()
    for part in ids.split(separator.info.max_batch):
        problem = separator.problem(task.mixture_set().mixtures(part, ctx.device), ctx)
        estimates = separator.estimate(problem, ctx).cpu()
        evaluations = problem.evaluations
        values.append(psnr(estimates, references[part - ids[0]], task.spec))
    seconds = time.process_time() - start
    scores = torch.cat(values)
    return {
        "family": study.family,
        "method": study.method,
        "settings": study.label,
        "task": task_name,
        "mixtures": examples,
        "evaluations": evaluations,
        "psnr_mean": round(float(scores.mean()), 3),
        "psnr_sem": round(float(scores.std() / len(scores) ** 0.5), 3),
        "psnr_median": round(float(scores.median()), 3),
        "below_20_db": round(float((scores < 20).double().mean()), 4),
        "cpu_seconds": round(seconds / examples, 4),
        "precision": precision,
        "weights_sha256": separator.weights_sha256[:16] or Path(weights).name,
    }


def psnr(estimates: torch.Tensor, references: torch.Tensor, spec: TaskSpec) -> torch.Tensor:
    """``(B,)``: the benchmark's own PSNR, best assignment, mean over sources."""
    assert get_metric("psnr").info.higher_is_better
    return by_truth(estimates.unsqueeze(1), references, spec, "psnr")[:, 0]


def plot(table: pd.DataFrame, path: Path) -> None:
    """One line per family: mean PSNR with its standard error against evaluations per source."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6), layout="constrained")
    markers = "osD^vPX*<>hpd8"
    colours = pyplot.get_cmap("tab20").colors
    order = [*range(0, 20, 2), *range(1, 20, 2)]  # the ten strong colours first
    for number, (family, rows) in enumerate(table.groupby("family", sort=False)):
        ordered = rows.sort_values("evaluations")
        style = {"marker": markers[number % len(markers)], "color": colours[order[number % 20]], "capsize": 2}
        axes.errorbar(ordered.evaluations, ordered.psnr_mean, ordered.psnr_sem, label=str(family), **style)
    axes.axhline(29.5, color="grey", linestyle="--", linewidth=1, label="29.5 dB: BASIS (NCSN) in the paper, on test mixtures")
    axes.set_xscale("log")
    axes.set_xlabel("network evaluations per source, candidates and selection included")
    axes.set_ylabel("PSNR [dB], mean and standard error")
    first = table.iloc[0]
    axes.set_title(f"Samplers on mnist-pairs {first.task}, first {first.mixtures} mixtures, one prior")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--task", default="class-split-val")
    parser.add_argument("--only", default="", help="families that begin with this")
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--weights", default="", help="a prior of your own instead of the shipped one")
    parser.add_argument("--csv", type=Path, default=CSV)
    parser.add_argument("--plot-only", action="store_true")
    args = parser.parse_args()
    args.csv.parent.mkdir(exist_ok=True)
    rows = pd.read_csv(args.csv).to_dict("records") if args.csv.exists() else []
    for study in STUDY if not args.plot_only else []:
        key = (study.label, args.task, args.examples, args.precision)
        if not study.family.startswith(args.only) or any(key == (r["settings"], r["task"], r["mixtures"], r["precision"]) for r in rows):
            continue
        rows.append(measure(study, args.task, args.examples, args.precision, args.weights))
        print(rows[-1], flush=True)
        pd.DataFrame(rows).to_csv(args.csv, index=False)
    table = pd.DataFrame(rows)
    if table.weights_sha256.nunique() > 1:
        raise SystemExit(f"error: {args.csv} holds rows of different weights; remove it and run again")
    plot(table, args.csv.with_suffix(".png"))


if __name__ == "__main__":
    main()
