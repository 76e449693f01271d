"""Fig. 3 of BASIS: what the noise and the annealing are worth, on mixtures of MNIST digits and of CIFAR-10 images.

    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/ablations.py

Four rows of one algorithm (``baselines/basis.py``) at the paper's settings, 1,000 steps each: neither noise nor annealing, no noise, no annealing, both.
PSNR under the best assignment on the first mixtures of the test lists, with intervals that know which mixtures share an image
(``sepbench.results.intervals``). Few mixtures and priors that are not the paper's: the table is an illustration, as the figure of the paper is.

Estimates are kept in ``--folder`` after every batch, so the same command goes on after a kill. Numbers go to ``benchmarks/results/ablations.csv``, the
figure to ``ablations.png``: a row per mixture, a column per ablation, both estimates side by side.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sepbench.files import write_atomically
from sepbench.metrics.assignment import best_assignment
from sepbench.noise import NoiseSource
from sepbench.protocols import RunContext
from sepbench.registry import create_separator
from sepbench.results.intervals import Design
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Task

CSV = Path(__file__).parent / "results" / "ablations.csv"
TASKS = {"mnist-pairs": "class-split", "cifar10-mini-pairs": "class-split"}
ABLATIONS = {
    "neither": "basis-ncsn-no-noise-no-annealing",
    "no noise": "basis-ncsn-no-noise",
    "no annealing": "basis-ncsn-no-annealing",
    "noise and annealing": "basis-ncsn",
}


@dataclass(frozen=True)
class Result:
    """Estimates ``(n, 2, C, H, W)`` of the first n mixtures, in the order of the references, and the processor time of all."""

    estimates: torch.Tensor
    seconds: float
    weights: str


def separate(task: Task, method: str, examples: int, precision: str, kept: Path) -> Result:
    """The first mixtures, in batches; what ``kept`` holds of them is not separated again."""
    separator: Any = create_separator(method, {"precision": precision})
    ctx = RunContext(task.spec, "cpu", NoiseSource(0), 0)
    separator.fit(task.view("prior"), ctx)
    state = torch.load(kept, weights_only=True) if kept.exists() else {"estimates": torch.zeros(0, 2, *task.spec.source_shape), "seconds": 0.0}
    while len(state["estimates"]) < examples:
        first = len(state["estimates"])
        start = time.process_time()
        part = separator.separate(task.mixture_set().mixtures(torch.arange(first, min(examples, first + separator.info.max_batch_cpu))), ctx)
        state = {"estimates": torch.cat([state["estimates"], part]), "seconds": state["seconds"] + time.process_time() - start}
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, lambda temporary, state=state: torch.save(state, temporary))
        print(task.spec.suite, method, len(state["estimates"]), f"{state['seconds']:.0f} s", flush=True)
    return Result(ordered(state["estimates"][:examples], references(task, examples)), state["seconds"], separator.weights_sha256[:16])


def references(task: Task, examples: int) -> torch.Tensor:
    return task.mixture_set().sources(torch.arange(examples))


def psnr(estimates: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Of clamped images, over the last three axes."""
    error = (estimates.clamp(0, 1).double() - truth.double()).square().mean((-3, -2, -1))
    return -10 * error.clamp(min=1e-10).log10()


def ordered(estimates: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Estimates ``(n, K, ...)`` moved to the references that they are assigned to."""
    chosen = best_assignment(psnr(estimates.unsqueeze(2), truth.unsqueeze(1)))
    return estimates[torch.arange(len(estimates)).unsqueeze(1), chosen]


def row(task: Task, ablation: str, result: Result, full: Result, precision: str) -> dict[str, Any]:
    """One line of the CSV; ``minus_full`` is the mean of the differences to Algorithm 1 on the same mixtures, with its interval."""
    examples = len(result.estimates)
    values, whole = (psnr(one.estimates, references(task, examples)).mean(1).numpy() for one in (result, full))
    design = Design(task.clusters().of(np.arange(examples)))
    low, high = design.intervals(np.stack([values, values - whole], 1))
    return {
        "suite": task.spec.suite,
        "task": task.spec.name,
        "ablation": ablation,
        "method": ABLATIONS[ablation],
        "mixtures": examples,
        "cluster": design.unit,
        "n_clusters": design.n_clusters,
        "psnr_mean": round(float(values.mean()), 2),
        "ci_low": round(float(low[0]), 2),
        "ci_high": round(float(high[0]), 2),
        "minus_full": round(float((values - whole).mean()), 2),
        "minus_full_low": round(float(low[1]), 2),
        "minus_full_high": round(float(high[1]), 2),
        "psnr_median": round(float(np.median(values)), 2),
        "psnr_std": round(float(values.std(ddof=1)), 2),
        "below_20_db": round(float((values < 20).mean()), 3),
        "cpu_seconds": round(result.seconds / examples, 2),
        "precision": precision,
        "weights_sha256": result.weights,
    }


def image(pictures: torch.Tensor) -> np.ndarray[Any, Any]:
    """``(K, C, H, W)`` side by side with a white seam, ``(H, W, 3)``."""
    gap = torch.ones(*pictures.shape[1:3], 2)
    wide = torch.cat([part for picture in pictures for part in (picture, gap)][:-1], 2)
    return wide.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()


def plot(tasks: list[Task], results: dict[tuple[str, str], Result], shown: int, path: Path) -> None:
    """A row for each of the first mixtures of every task; columns: mixture, ablations, truth."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    heads = ["mixture", *ABLATIONS, "truth"]
    figure, axes = pyplot.subplots(shown * len(tasks), len(heads), figsize=(10, 0.84 * shown * len(tasks)), layout="constrained", width_ratios=[1] + [2] * 5)
    for place, task in enumerate(tasks):
        truth = references(task, shown)
        for example in range(shown):
            mixture = (truth[example].sum(0) / 2).unsqueeze(0)
            columns = [mixture, *(results[task.spec.suite, name].estimates[example] for name in ABLATIONS), truth[example]]
            for cell, pictures in zip(axes[place * shown + example], columns, strict=True):
                cell.imshow(image(pictures), interpolation="nearest")
                cell.axis("off")
    for cell, head in zip(axes[0], heads, strict=True):
        cell.set_title(head, fontsize=9)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=24)
    parser.add_argument("--shown", type=int, default=4, help="mixtures of each task in the figure")
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--folder", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--csv", type=Path, default=CSV)
    args = parser.parse_args()
    tasks = [load_suite(suite).tasks[name] for suite, name in TASKS.items()]
    results: dict[tuple[str, str], Result] = {}
    rows = []
    for task in tasks:
        for ablation, method in ABLATIONS.items():
            kept = args.folder / f"{task.spec.suite}--{method}--{args.precision}.pt"
            results[task.spec.suite, ablation] = separate(task, method, args.examples, args.precision, kept)
        for ablation in ABLATIONS:
            whole = results[task.spec.suite, list(ABLATIONS)[-1]]
            rows.append(row(task, ablation, results[task.spec.suite, ablation], whole, args.precision))
            print(rows[-1], flush=True)
    args.csv.parent.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(args.csv, index=False)
    plot(tasks, results, min(args.shown, args.examples), args.csv.with_suffix(".png"))


if __name__ == "__main__":
    main()
