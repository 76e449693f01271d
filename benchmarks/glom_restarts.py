"""How many searches a mixture of ``glom`` needs, on validation mixtures.

    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/glom_restarts.py --task x-0-4 --examples 128 --most 16

Takes the fit of ``glom`` from the cache, or makes it (an hour of a core). Each mixture has ``--most`` searches, from the starts that a run has; with R
restarts the one of the first R counts that has the least error of the mixture. Rows go to ``benchmarks/results/glom_restarts.csv``: PSNR of X per image without
clamping, its standard error, the median, PSNR of the mean squared error of all images, and the mean error of the explained mixture.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from baselines.glom import LatentMasking, found_parts
from baselines.training.latent import in_unit_ball, shared_out
from baselines.training.perceptual import ImageError
from sepbench.noise import NoiseSource
from sepbench.run.plan import make_plan
from sepbench.run.request import RunRequest
from sepbench.run.session import open_session
from sepbench.suites.loader import load_suite

CSV = Path(__file__).parent / "results" / "glom_restarts.csv"


def fitted(task: str) -> LatentMasking:
    """From the cache of fits, as a run would have it."""
    suite = load_suite("mnist-nes")
    plan = make_plan(RunRequest("mnist-nes", ("glom",), (task,), limit=1, device="cpu"), suite)
    session = open_session(plan.cells[0], plan, suite.tasks[task].mixture_set(), lambda tell: None)
    assert isinstance(session.separator, LatentMasking)
    return session.separator


def searched(method: LatentMasking, task: str, args: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared errors of X and absolute errors of the mixture, ``(most, examples)`` each, one row per search."""
    validation = load_suite("mnist-nes").tasks[task]
    scored, ids, noise = validation.spec.scored_sources[0], torch.arange(args.examples), NoiseSource(0)
    mixtures, truth = validation.mixture_set().mixtures(ids).values, validation.mixture_set().sources(ids)[:, scored]
    wrong, unexplained = [], []
    for number in range(args.most):
        starts = in_unit_ball(noise.normals(ids, number, 2, (method.latent,), "cpu") / math.sqrt(method.latent))[:, None]
        made = found_parts(method.fitted(), mixtures, starts, method.search_steps, method.search_lr, method.tolerance, ImageError())
        estimate = shared_out(made, mixtures)[:, 1]  # the observed source comes first, X second
        wrong.append((estimate - truth).double().square().flatten(1).mean(1))
        unexplained.append((made.sum(1) - mixtures).double().abs().flatten(1).mean(1))
        print(f"search {number + 1} of {args.most}", flush=True)
    return torch.stack(wrong), torch.stack(unexplained)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="x-0-4", choices=("x-0-4", "x-5-9"))
    parser.add_argument("--examples", type=int, default=128)
    parser.add_argument("--most", type=int, default=16)
    args = parser.parse_args()
    wrong, unexplained = searched(fitted(f"{args.task}-val"), f"{args.task}-val", args)
    rows: list[dict[str, Any]] = []
    for restarts in [2**power for power in range(args.most.bit_length()) if 2**power <= args.most]:
        best = unexplained[:restarts].argmin(0, keepdim=True)
        errors, left = wrong.gather(0, best)[0], unexplained.gather(0, best)[0]
        psnr = -10 * errors.log10()
        row = {"task": f"{args.task}-val", "restarts": restarts, "mixtures": args.examples, "psnr_mean": float(psnr.mean())}
        row |= {"psnr_sem": float(psnr.std() / math.sqrt(args.examples)), "psnr_median": float(psnr.median())}
        rows.append(row | {"psnr_pooled": -10 * math.log10(float(errors.mean())), "mixture_error": float(left.mean())})
    table = pd.DataFrame(rows)
    if CSV.exists():
        table = pd.concat([pd.read_csv(CSV), table]).drop_duplicates(["task", "restarts"], keep="last")
    table.round(4).to_csv(CSV, index=False)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
