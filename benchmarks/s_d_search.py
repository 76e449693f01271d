"""Where stage 2 of ``s-d`` may end, and what its searches and a step of its fit cost.

    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/s_d_search.py curve --examples 8 --restarts 2
    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/s_d_search.py cost

Both look at the first mixtures of ``class-agnostic-val`` of ``mnist-pairs``: no choice made here sees a test image. ``curve`` takes the fit of ``s-d`` from the
cache, or makes it (``--steps`` for a shorter one), makes all steps of stage 2, and works out where each tolerance would have ended it: steps, the loss
as a multiple of that after all steps, and PSNR of the summed MSEs. ``cost`` needs no fit, since what the weights are costs the same: process seconds
on one thread, the variants in turns. Rows go to ``benchmarks/results/s_d_search.csv`` and ``s_d_cost.csv``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from baselines.s_d import GenerativeSeparation, Scene, best_of_starts
from baselines.training.generative import GANRecipe, GANTraining, new_networks
from baselines.training.search import CHECK_EVERY, descend
from sepbench.metrics.psnr import PSNR_SUM_MSE
from sepbench.noise import NoiseSource
from sepbench.run.plan import make_plan
from sepbench.run.request import RunRequest
from sepbench.run.session import open_session
from sepbench.suites.loader import load_suite

RESULTS = Path(__file__).parent / "results"
TASK = "class-agnostic-val"
TOLERANCES = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0)
STEPS = 20
"""Of a search whose cost is measured."""


def fitted(settings: dict[str, Any]) -> GenerativeSeparation:
    """From the cache of fits, as a run would have it."""
    suite = load_suite("mnist-pairs")
    plan = make_plan(RunRequest("mnist-pairs", ("s-d",), (TASK,), limit=1, device="cpu", settings={"s-d": settings}), suite)
    session = open_session(plan.cells[0], plan, suite.tasks[TASK].mixture_set(), lambda tell: None)
    assert isinstance(session.separator, GenerativeSeparation)
    return session.separator


class Looks:
    """Least loss and its codes of every mixture at every look of ``descend``."""

    def __init__(self, scene: Scene, rows: torch.Tensor, codes: torch.Tensor) -> None:
        self._losses = scene.losses(rows)
        self._made = 0
        self._least, self._best = torch.full((len(rows),), torch.inf), codes
        self.losses: list[torch.Tensor] = []
        self.codes: list[torch.Tensor] = []

    def __call__(self, codes: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        losses = self._losses(codes, rows)
        better = losses.detach() < self._least
        self._least = torch.where(better, losses.detach(), self._least)
        self._best = torch.where(better[:, None, None], codes.detach(), self._best)
        self._made += 1
        if self._made % CHECK_EVERY == 0:
            self.losses.append(self._least)
            self.codes.append(self._best)
        return losses

    def ends(self, tolerance: float) -> torch.Tensor:
        """The look ``(B,)`` that ends each search, by the rule of ``descend``."""
        losses = torch.stack(self.losses)
        over = torch.cat([torch.zeros(1, losses.shape[1], dtype=torch.bool), losses[1:] >= (1.0 - tolerance) * losses[:-1]])
        over[-1] = True
        return over.int().argmax(0)


def curve(args: argparse.Namespace) -> None:
    method = fitted({"steps": args.steps})
    ids = torch.arange(args.examples)
    mixture_set = load_suite("mnist-pairs").tasks[TASK].mixture_set()
    scene, sources = Scene(method.fitted(), mixture_set.mixtures(ids, "cpu"), method.pull), mixture_set.sources(ids)
    codes, _ = best_of_starts(scene, ids, args.restarts, NoiseSource(0), method.first_steps, method.search_lr)
    looks = Looks(scene, ids, codes)
    descend(codes, looks, method.last_steps, method.search_lr)
    images = torch.stack([scene.images(one) for one in looks.codes])
    rows = []
    for tolerance in TOLERANCES:
        ends = looks.ends(tolerance)
        psnr = sum_mse_psnr(images[ends, ids], sources)
        share = torch.stack(looks.losses)[ends, ids] / looks.losses[-1]
        steps = (ends + 1) * CHECK_EVERY
        row = {"tolerance": tolerance, "fit_steps": method.steps, "restarts": args.restarts, "mixtures": len(ids)}
        rows.append(row | {"steps": float(steps.double().mean()), "most": int(steps.max()), "loss": round(float(share.mean()), 4), "psnr": round(psnr, 3)})
    write(rows, "s_d_search.csv")


def sum_mse_psnr(estimates: torch.Tensor, sources: torch.Tensor) -> float:
    """Mean over mixtures, of the better of both assignments."""
    pairs = PSNR_SUM_MSE.pairwise(estimates, sources)
    orders = [torch.stack([pairs[:, one, 0], pairs[:, 1 - one, 1]], 1) for one in (0, 1)]
    return float(torch.stack([PSNR_SUM_MSE.combine(order) for order in orders]).amax(0).mean())


def cost(args: argparse.Namespace) -> None:
    """Milliseconds of a step of the fit; seconds of the two stages per mixture, of stage 2 for each 1,000 steps."""
    made, critic = new_networks(100, (1, 28, 28), 0, "cpu")
    images = torch.rand(256, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    trainings = {precision: GANTraining(made, critic, GANRecipe(precision=precision), images) for precision in ("bfloat16", "float32")}  # type: ignore[arg-type]
    of_fit = in_turns({f"fit, {name}, ms a step": training.advance for name, training in trainings.items()}, args.turns)
    mixture_set = load_suite("mnist-pairs").tasks[TASK].mixture_set()
    scenes = {count: Scene(made.eval().requires_grad_(False), mixture_set.mixtures(torch.arange(count), "cpu"), 1e-3) for count in (1, 8)}
    of_starts = {
        f"stage 1, {restarts} restarts, s a mixture": lambda restarts=restarts: best_of_starts(
            scenes[1], torch.arange(1), restarts, NoiseSource(0), STEPS, 0.01
        )
        for restarts in (1, 8, 32)
    }
    of_rest = {
        f"stage 2, {count} mixtures at once, s a mixture and 1,000 steps": lambda count=count: descend(
            torch.zeros(count, 2, 100), scenes[count].losses(torch.arange(count)), STEPS, 0.01
        )
        for count in (1, 8)
    }
    seconds = {name: 1000 * value for name, value in of_fit.items()}
    seconds |= {name: 201 / STEPS * value for name, value in in_turns(of_starts, args.turns).items()}
    seconds |= {name: 1000 / STEPS * value / count for (name, value), count in zip(in_turns(of_rest, args.turns).items(), (1, 8), strict=True)}
    write([{"what": name, "value": round(value, 2)} for name, value in seconds.items()], "s_d_cost.csv")


def in_turns(calls: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Median process seconds of every call, made in turns after one turn that does not count."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn:
                spent[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in spent.items()}


def write(rows: list[dict[str, Any]], name: str) -> None:
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS / name, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("curve", "cost"))
    parser.add_argument("--steps", type=int, default=10_001, help="of the fit")
    parser.add_argument("--examples", type=int, default=8)
    parser.add_argument("--restarts", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    told = parser.parse_args()
    {"curve": curve, "cost": cost}[told.what](told)
