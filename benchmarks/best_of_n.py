"""PSNR against N = 1..16 posterior draws, by criterion, on frozen validation mixtures: what best-of-N is worth.

    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/best_of_n.py --method projected --examples 64
    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/best_of_n.py --method basis-ncsn --examples 16 --draws 8

Criteria (``sepbench.selection``): mixture error, denoising loss, log prior by the probability-flow ODE (Hutchinson with fixed probes), each keeping
the best draw; the mean of the best draw's mode; and the oracle, a bound. For every N the first N draws are used. Curves go to
``benchmarks/results/best_of_n.csv`` (rows of other methods there are kept) and a plot.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from baselines.sampling.separator import ScoreSeparator
from sepbench.noise import NoiseSource
from sepbench.protocols import RunContext
from sepbench.registry import create_separator
from sepbench.selection import (
    by_denoising_loss,
    by_log_prior,
    by_mixture_error,
    by_truth,
    select,
    weighted_mean,
)
from sepbench.suites.loader import load_suite

CSV = Path(__file__).parent / "results" / "best_of_n.csv"


def log_prior(separator: ScoreSeparator, sources: torch.Tensor, steps: int, probes: int) -> torch.Tensor:
    """``(M, K, ...)`` to ``(M, K)`` nats."""
    prior: Any = separator.score_prior(0)
    nats: torch.Tensor = prior.log_prob(sources.flatten(0, 1), steps, probes).unflatten(0, sources.shape[:2])
    return nats


def curves(args: argparse.Namespace) -> list[dict[str, Any]]:
    task = load_suite("mnist-pairs").tasks[args.task]
    separator = create_separator(args.method, {"precision": args.precision})
    assert isinstance(separator, ScoreSeparator)
    ctx = RunContext(task.spec, "cuda" if torch.cuda.is_available() else "cpu", NoiseSource(0), 0)
    separator.fit(task.view("prior"), ctx)
    ids = torch.arange(args.examples)
    mixtures, references = task.mixture_set().mixtures(ids, ctx.device), task.mixture_set().sources(ids)
    problem = separator.problem(mixtures, ctx)
    draws = separator.draws(problem, args.draws, ctx, separator.draw)
    evaluations = problem.evaluations // args.draws
    loss = by_denoising_loss(draws, problem.priors, mixtures, problem.noise, separator.loss_sigmas)
    criteria = {
        "mixture error": by_mixture_error(draws, mixtures),
        "denoising loss": loss,
        "log prior": by_log_prior(draws, lambda x: log_prior(separator, x, args.flow_steps, args.probes)),
        "oracle": by_truth(draws.cpu(), references, task.spec),
    }
    rows = []
    for n in range(1, args.draws + 1):
        estimates = {name: select(draws[:, :n], values[:, :n].to(draws.device)) for name, values in criteria.items()}
        estimates["mean of the best mode"] = weighted_mean(draws[:, :n], loss[:, :n], separator.temperature, exchangeable=True)
        for name, estimate in estimates.items():
            scores = by_truth(estimate.unsqueeze(1).cpu(), references, task.spec)[:, 0]
            rows.append(
                {
                    "method": args.method,
                    "evaluations_per_draw": evaluations,
                    "criterion": name,
                    "n": n,
                    "psnr_mean": round(float(scores.mean()), 3),
                    "psnr_sem": round(float(scores.std() / len(scores) ** 0.5), 3),
                    "below_20_db": round(float((scores < 20).double().mean()), 4),
                    "task": args.task,
                    "mixtures": args.examples,
                    "precision": args.precision,
                    "weights_sha256": separator.weights_sha256[:16],
                }
            )
    return rows


def plot(table: pd.DataFrame, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    methods = list(table.method.unique())
    figure, axes = pyplot.subplots(1, len(methods), figsize=(1 + 5 * len(methods), 4.5), sharey=True, squeeze=False, layout="constrained")
    for panel, method in zip(axes[0], methods, strict=True):
        rows = table[table.method == method]
        for criterion, marker in zip(rows.criterion.unique(), "os^D*", strict=False):
            line = rows[rows.criterion == criterion]
            panel.plot(line.n, line.psnr_mean, marker=marker, markersize=4, linestyle="--" if criterion == "oracle" else "-", label=criterion)
        first = rows.iloc[0]
        panel.set_title(f"{method}, {first.evaluations_per_draw} evaluations per draw\n{first.task}, {first.mixtures} mixtures", fontsize=10)
        panel.set_xlabel("draws N")
        panel.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("mean PSNR [dB]")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="projected")
    parser.add_argument("--task", default="class-split-val")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--flow-steps", type=int, default=8)
    parser.add_argument("--probes", type=int, default=2)
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float32"])
    args = parser.parse_args()
    old = pd.read_csv(CSV) if CSV.exists() else pd.DataFrame()
    rows = pd.DataFrame(curves(args))
    kept = old[old.method != args.method] if len(old) else old
    table = pd.concat([kept, rows], ignore_index=True)
    CSV.parent.mkdir(exist_ok=True)
    table.to_csv(CSV, index=False)
    plot(table, CSV.with_suffix(".png"))
    print(rows[rows.n.isin([1, 2, 4, 8, 16])].to_string())


if __name__ == "__main__":
    main()
