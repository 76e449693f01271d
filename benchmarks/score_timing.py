"""One separation after LASS Table 4: latency at batch 1, throughput at a full batch, evaluations; the published RefineNet beside ours.

    python benchmarks/score_timing.py                          # 2 of BASIS' 100 steps per level are timed, times 50: column "timed_share"
    python benchmarks/score_timing.py --full --batches 1       # all of them: minutes per mixture for the RefineNet on a CPU
    python benchmarks/score_timing.py --methods lass,lass-topk,lass-projected,projected-4x --batches 1 8 --out benchmarks/results/lass_timing.csv

Everything runs in one process on one device, in turns; each figure is the median over ``--repeats`` turns, and ratios are medians of the ratios
within a turn. The RefineNet (7,638,657 parameters, docs/protocols.md 3.1) has random weights: its arithmetic does not depend on them.
The mixtures are validation mixtures of MNIST: what LASS costs depends on their tokens. Rows go to ``benchmarks/results/score_timing.csv`` or ``--out``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from baselines.basis import basis
from baselines.networks.ncsn_refinenet import CondRefineNetDilated
from baselines.priors.score_prior import NCSNPrior
from baselines.sampling.noise_levels import ncsn_levels
from baselines.sampling.problem import Problem
from sepbench.noise import NoiseSource
from sepbench.protocols import Mixtures, RunContext
from sepbench.registry import create_separator
from sepbench.suites.loader import load_suite

CSV = Path(__file__).parent / "results" / "score_timing.csv"
SHAPE = (1, 28, 28)
OURS = [
    ("basis-ncsn", {}),
    ("basis-ncsn", {"precision": "bfloat16"}),
    ("projected", {"precision": "bfloat16"}),
    ("projected-4x", {"precision": "bfloat16"}),
    ("projected-16x", {"precision": "bfloat16"}),
]


LASS = ("lass", "lass-selected", "lass-topk", "lass-projected")
PAPER_STEPS = 100


@dataclass
class Job:
    """One row: ``separate`` takes mixtures and returns the evaluations per source; ``share`` of the whole work is timed."""

    method: str
    network: str
    parameters: int
    precision: str
    separate: Callable[[Mixtures], int]
    share: float = 1.0

    def timed(self, batch: Mixtures) -> tuple[float, int]:
        """Seconds per mixture and evaluations per source, of the whole work."""
        start = time.perf_counter()
        evaluations = self.separate(batch)
        if batch.values.is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / self.share / len(batch), round(evaluations / self.share)


def mixtures(batch: int, device: str) -> Mixtures:
    return load_suite("mnist-pairs").tasks["class-split-val"].mixture_set().mixtures(torch.arange(batch), device)


def refinenet(device: str, steps: int) -> Job:
    """BASIS at paper settings on the network of Song and Ermon (2019)."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = CondRefineNetDilated().eval().requires_grad_(False)
    prior = NCSNPrior(network, SHAPE).to(device)

    def separate(batch: Mixtures) -> int:
        problem = Problem(batch, [prior], NoiseSource(0), SHAPE)
        basis(problem, ncsn_levels(), steps_per_level=steps)
        return problem.evaluations

    return Job("basis-ncsn", "NCSN RefineNet", sum(p.numel() for p in network.parameters()), "float32", separate, steps / PAPER_STEPS)


def ours(method: str, settings: dict[str, Any], device: str, steps: int) -> Job:
    """A registered separator on the prior that ships."""
    task = load_suite("mnist-pairs").tasks["class-split-val"]
    shortened = {"steps_per_level": steps} if method.startswith("basis") else {}
    separator: Any = create_separator(method, {**settings, **shortened})
    ctx = RunContext(task.spec, device, NoiseSource(0), 0)
    separator.fit(task.view("prior"), ctx)

    def separate(batch: Mixtures) -> int:
        problem: Problem = separator.problem(batch, ctx)
        separator.estimate(problem, ctx)
        return problem.evaluations

    parameters = sum(p.numel() for p in separator.score_prior(0).denoiser.parameters())
    share = steps / PAPER_STEPS if shortened else 1.0
    return Job(method, "U-Net", parameters, str(settings.get("precision", separator.precision)), separate, share)


def tokens(method: str, device: str) -> Job:
    """LASS on the token models that ship; evaluations are those of a score prior, which ``lass-projected`` alone has."""
    task = load_suite("mnist-pairs").tasks["class-split-val"]
    separator: Any = create_separator(method, {})
    ctx = RunContext(task.spec, device, NoiseSource(0), 0)
    separator.fit(task.view("prior"), ctx)
    models = separator.fitted()

    def separate(batch: Mixtures) -> int:
        separator.separate(batch, ctx)
        return getattr(separator, "evaluations", 0)

    parameters = sum(p.numel() for network in (models.codec, models.prior) for p in network.parameters())
    return Job(method, "VQ-VAE and transformer", parameters, "float32", separate)


def row(job: Job, size: int, device: str, own: list[float], first: list[float], evaluations: int, repeats: int) -> dict[str, Any]:
    """One line of the table; ``first`` are the seconds of the RefineNet in the same turns."""
    seconds = statistics.median(own)
    return {
        "method": job.method,
        "network": job.network,
        "parameters": job.parameters,
        "precision": job.precision,
        "device": "cpu" if device == "cpu" else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "batch": size,
        "evaluations": evaluations,
        "seconds_per_mixture": float(f"{seconds:.4g}"),
        "mixtures_per_second": float(f"{1 / seconds:.4g}"),
        "times_faster_than_refinenet": float(f"{statistics.median(a / b for a, b in zip(first, own, strict=True)):.4g}"),
        "timed_share": job.share,
        "repeats": repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", default="", help="only these, and the RefineNet; default: all")
    parser.add_argument("--out", type=Path, default=CSV)
    parser.add_argument("--full", action="store_true", help="time every step of BASIS")
    args = parser.parse_args()
    steps = PAPER_STEPS if args.full else 2
    wanted = [*OURS, *((name, {}) for name in LASS)]
    if args.methods:
        wanted = [(name, settings) for name, settings in wanted if name in args.methods.split(",")]
    jobs = [refinenet(args.device, steps)]
    jobs += [tokens(name, args.device) if name in LASS else ours(name, settings, args.device, steps) for name, settings in wanted]
    rows = []
    for size in args.batches:
        batch = mixtures(size, args.device)
        turns = [[job.timed(batch) for job in jobs] for _ in range(args.repeats)]
        for number, job in enumerate(jobs):
            own = [turn[number][0] for turn in turns]
            rows.append(row(job, size, args.device, own, [turn[0][0] for turn in turns], turns[0][number][1], args.repeats))
            print(rows[-1], flush=True)
        args.out.parent.mkdir(exist_ok=True)
        pd.DataFrame(rows).to_csv(args.out, index=False)


if __name__ == "__main__":
    main()
