"""What Algorithm 1 (BASIS) reaches on the shipped MNIST prior: step sizes, weights of the likelihood and noise levels, at 1,000 to 2,000 evaluations.

    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/basis_settings.py                   # all of SETTINGS
    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/basis_settings.py --only released

Validation mixtures only (``class-agnostic-val``; ``--task class-split-val`` for the other): no test image is seen. Estimates fail in two ways that
pull apart: the wrong mode (below 20 dB), decided at noise levels of about 0.6 to 0.2, and fine errors, put right below. Both want time, so rows
state the failures and the mean of the rest.
Rows go to ``benchmarks/results/basis_settings.csv`` as they are ready; a row that is there for the same weights is not computed again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from baselines.basis import PRESETS, basis
from baselines.sampling.noise_levels import ncsn_levels
from baselines.sampling.problem import Problem
from baselines.sampling.separator import ScoreSeparator
from sepbench.noise import NoiseSource
from sepbench.protocols import RunContext
from sepbench.registry import create_separator
from sepbench.selection import by_truth
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Task

CSV = Path(__file__).parent / "results" / "basis_settings.csv"
LOWEST = 0.01
LOWER_LEVELS = (*ncsn_levels(), 0.007, 0.005)
"""At 0.01 noise is a tenth of an estimate's squared error; the shipped prior knows levels down to 0.005."""


@dataclass(frozen=True)
class Setting:
    """One row. ``relative_step`` is eta / sigma^2, so delta is 1e-4 times as much; ``factor`` is c of gamma^2 = sigma^2 / c."""

    name: str
    relative_step: float
    factor: float
    sigmas: Sequence[float] = field(default_factory=ncsn_levels)
    steps: int | Sequence[int] = 100


FINE_LEVELS = (1.0, 0.7, 0.5, 0.42, 0.36, 0.31, 0.27, 0.23, 0.19, 0.15, 0.1, 0.06, 0.03, 0.015, LOWEST)
FINE_STEPS = (40, 60, 100, 120, 120, 120, 100, 80, 60, 40, 32, 32, 32, 32, 32)
BETWEEN_LEVELS = (1.0, 0.65, 0.48, 0.39, 0.32, 0.26, 0.21, 0.16, 0.115, *ncsn_levels()[5:])
BETWEEN_STEPS = (30, 60, 90, 110, 110, 110, 80, 60, 50, 60, 60, 60, 60, 60)
SETTINGS = [
    Setting("paper", 0.2, 1.0),
    Setting("released", 0.3, 2.0),
    Setting("larger steps", 0.4, 1.5),
    Setting("larger steps, weak likelihood", 0.45, 1.0),
    Setting("small steps, strong likelihood", 0.2, 4.0),
    Setting("more steps at levels 2 to 4", 0.3, 2.0, steps=(60, 140, 180, 140, 80, 80, 80, 80, 80, 80)),
    Setting("still more steps at levels 2 to 4", 0.3, 2.0, steps=(40, 180, 220, 180, 80, 60, 60, 60, 60, 60)),
    Setting("twice as many steps, more at levels 2 to 4", 0.3, 2.0, steps=(120, 280, 360, 280, 160, 160, 160, 160, 160, 160)),
    Setting("two levels below 0.01, more steps at levels 2 to 4", 0.3, 2.0, LOWER_LEVELS, (55, 130, 165, 130, 80, 75, 75, 70, 65, 65, 45, 45)),
    Setting("basis-ncsn-tuned", 0.3, 2.0, ncsn_levels(12, 1.0, 0.005), PRESETS["basis-ncsn-tuned"]().steps(160)),
    Setting("more steps at levels 1 to 5", 0.3, 2.0, steps=(100, 140, 160, 140, 110, 70, 70, 70, 70, 70)),
    Setting("fine levels from 0.5 to 0.15", 0.3, 2.0, FINE_LEVELS, FINE_STEPS),
    Setting("twenty levels of 50 steps", 0.3, 2.0, ncsn_levels(20), 50),
    Setting("twenty levels of 100 steps", 0.3, 2.0, ncsn_levels(20)),
    Setting("twice as many levels above 0.1", 0.3, 2.0, BETWEEN_LEVELS, BETWEEN_STEPS),
    # On white directions of the prior the state then carries 1.085 sigma of noise whether sources are added or subtracted (the linear recursion).
    Setting("equal noise in sum and difference", 0.3, 7 / 3),
]


def run(setting: Setting, problem: Problem) -> torch.Tensor:
    """Algorithm 1 on one batch."""
    delta = setting.relative_step * setting.sigmas[-1] ** 2
    return basis(problem, setting.sigmas, delta=delta, steps_per_level=setting.steps, factor=setting.factor)


def fitted(task: Task, settings: dict[str, Any]) -> tuple[ScoreSeparator, RunContext]:
    """Any method on the prior will do: the settings of Algorithm 1 come from ``Setting``."""
    separator = create_separator("basis-ncsn", settings)
    assert isinstance(separator, ScoreSeparator)
    ctx = RunContext(task.spec, "cuda" if torch.cuda.is_available() else "cpu", NoiseSource(0), 0)
    separator.fit(task.view("prior"), ctx)
    return separator, ctx


def measure(setting: Setting, task: Task, separator: ScoreSeparator, ctx: RunContext, examples: int) -> dict[str, Any]:
    """Separate the first mixtures of the task and score them with ``psnr``, with and without one denoising step."""
    scores: dict[bool, list[torch.Tensor]] = {False: [], True: []}
    evaluations = 0
    for part in torch.arange(examples).split(separator.info.max_batch):
        problem = separator.problem(task.mixture_set().mixtures(part, ctx.device), ctx)
        x = run(setting, problem)
        evaluations = problem.evaluations
        references = task.mixture_set().sources(part)
        for denoised, estimates in ((False, x), (True, problem.denoise(x, setting.sigmas[-1]))):
            scores[denoised].append(by_truth(estimates.cpu().unsqueeze(1), references, task.spec, "psnr")[:, 0])
    psnr, after = torch.cat(scores[False]), torch.cat(scores[True])
    return {
        "setting": setting.name,
        "delta": setting.relative_step * setting.sigmas[-1] ** 2,
        "factor": setting.factor,
        "levels": len(setting.sigmas),
        "evaluations": evaluations,
        "task": task.spec.name,
        "mixtures": examples,
        "psnr_mean": round(float(psnr.mean()), 3),
        "psnr_sem": round(float(psnr.std() / examples**0.5), 3),
        "psnr_median": round(float(psnr.median()), 3),
        "below_20_db": round(float((psnr < 20).double().mean()), 4),
        "psnr_mean_of_the_rest": round(float(psnr[psnr >= 20].mean()), 3),
        "psnr_mean_denoised": round(float(after.mean()), 3),
        "precision": separator.precision,
        "weights_sha256": separator.weights_sha256[:16],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--task", default="class-agnostic-val")
    parser.add_argument("--only", default="", help="settings that begin with this")
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--weights", default="", help="another prior than the one that ships")
    parser.add_argument("--csv", type=Path, default=CSV)
    args = parser.parse_args()
    args.csv.parent.mkdir(exist_ok=True)
    rows = pd.read_csv(args.csv).to_dict("records") if args.csv.exists() else []
    task = load_suite("mnist-pairs").tasks[args.task]
    separator, ctx = fitted(task, {"precision": args.precision, "weights": args.weights})
    asked = {"task": args.task, "mixtures": args.examples, "precision": args.precision, "weights_sha256": separator.weights_sha256[:16]}
    for setting in SETTINGS:
        row = {"setting": setting.name, **asked}
        if not setting.name.startswith(args.only) or any(row.items() <= done.items() for done in rows):
            continue
        rows.append(measure(setting, task, separator, ctx, args.examples))
        print(rows[-1], flush=True)
        pd.DataFrame(rows).to_csv(args.csv, index=False)


if __name__ == "__main__":
    main()
