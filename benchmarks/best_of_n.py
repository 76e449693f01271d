"""PSNR against N posterior draws, by criterion, on frozen validation mixtures: what best-of-N is worth.

    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/best_of_n.py --method projected --examples 32 --draws 8 --kept FOLDER --minutes 35
    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/best_of_n.py --method basis-ncsn --examples 16 --draws 8 --kept FOLDER

Criteria (``sepbench.selection``): mixture error, denoising loss, log prior by the probability-flow ODE at the shipped settings (in float32; its error is
in ``benchmarks/results/log_prior_error.csv``), each keeping the best draw; the mean of the best draw's mode; and the oracle, a bound. For every N the
first N draws are used. Draws and criteria of each mixture are kept in FOLDER as they are ready, so that a run that is stopped or out of minutes goes on
there, and what is ready is plotted. Intervals know the images that mixtures share (``sepbench.results.intervals``); ``minus_loss`` is the mean of the
paired differences to the best draw by denoising loss.

Curves go to ``benchmarks/results/best_of_n.csv`` (rows of other methods there are kept) and a plot.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from baselines.sampling.separator import ScoreSeparator
from sepbench.noise import NoiseSource
from sepbench.protocols import RunContext
from sepbench.registry import create_separator
from sepbench.results.intervals import Design
from sepbench.selection import by_denoising_loss, by_log_prior, by_mixture_error, by_truth, select, weighted_mean
from sepbench.suites.loader import load_suite

CSV = Path(__file__).parent / "results" / "best_of_n.csv"
LOSS, LOG_PRIOR, MEAN, ORACLE = "denoising loss", "log prior", "mean of the best mode", "oracle"


class Study:
    """Draws, references and criteria of single mixtures."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.task = load_suite("mnist-pairs").tasks[args.task]
        separator = create_separator(args.method, {"precision": args.precision})
        assert isinstance(separator, ScoreSeparator)
        self.separator = separator
        self.ctx = RunContext(self.task.spec, "cuda" if torch.cuda.is_available() else "cpu", NoiseSource(0), 0)
        separator.fit(self.task.view("prior"), self.ctx)
        self.mixtures = self.task.mixture_set()

    def kept(self, example: int) -> Path:
        args = self.args
        name = f"{args.method}-{args.task}-{args.precision}-{args.flow_steps}-{args.flow_spacing}-{args.draws}-{example}.pt"
        return Path(args.kept) / name

    def example(self, example: int) -> dict[str, torch.Tensor]:
        """``draws`` ``(1, N, K, ...)`` and the criteria ``(1, N)``, worked out or read."""
        if self.kept(example).exists():
            found: dict[str, torch.Tensor] = torch.load(self.kept(example), weights_only=True)
            return found
        args, separator = self.args, self.separator
        mixtures = self.mixtures.mixtures(torch.tensor([example]), self.ctx.device)
        problem = separator.problem(mixtures, self.ctx)
        draws = separator.draws(problem, args.draws, self.ctx, separator.draw)
        prior: Any = separator.score_prior(0)
        ids = torch.full((args.draws * draws.shape[2],), example)

        def log_prior(sources: torch.Tensor) -> torch.Tensor:
            flat = prior.estimated_log_prob(sources.flatten(0, 1), ids, problem.noise, steps=args.flow_steps, spacing=args.flow_spacing)
            nats: torch.Tensor = flat.unflatten(0, sources.shape[:2])
            return nats

        found = {
            "draws": draws,
            "evaluations": torch.tensor(problem.evaluations // args.draws),
            "mixture error": by_mixture_error(draws, mixtures),
            LOSS: by_denoising_loss(draws, problem.priors, mixtures, problem.noise, separator.loss_sigmas),
            LOG_PRIOR: by_log_prior(draws, log_prior),
            ORACLE: by_truth(draws.cpu(), self.mixtures.sources(torch.tensor([example])), self.task.spec),
        }
        found = {key: value.cpu() for key, value in found.items()}
        self.kept(example).parent.mkdir(parents=True, exist_ok=True)
        torch.save(found, self.kept(example).with_suffix(".tmp"))
        self.kept(example).with_suffix(".tmp").rename(self.kept(example))
        return found


def gather(study: Study) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Examples that are ready in the time given, and their draws and criteria, one after another."""
    start, ready = time.monotonic(), []
    for example in range(study.args.examples):
        if time.monotonic() - start > 60 * study.args.minutes and not study.kept(example).exists():
            break
        ready.append(study.example(example))
    return torch.arange(len(ready)), {key: torch.cat([one[key].reshape(1, *one[key].shape[-(one[key].ndim - 1) :]) for one in ready]) for key in ready[0]}


def curves(study: Study) -> list[dict[str, Any]]:
    ids, found = gather(study)
    args, references = study.args, study.mixtures.sources(ids)
    design = Design(study.task.clusters().of(ids.numpy()))
    criteria = {name: found[name] for name in ("mixture error", LOSS, LOG_PRIOR, ORACLE)}
    rows = []
    for n in range(1, args.draws + 1):
        estimates = {name: select(found["draws"][:, :n], values[:, :n]) for name, values in criteria.items()}
        estimates[MEAN] = weighted_mean(found["draws"][:, :n], found[LOSS][:, :n], study.separator.temperature, exchangeable=True)
        scores = {name: by_truth(estimate.unsqueeze(1), references, study.task.spec)[:, 0].double().numpy() for name, estimate in estimates.items()}
        for name, values in scores.items():
            both = np.stack([values, values - scores[LOSS]], 1)
            (low, less_low), (high, less_high) = design.intervals(both)
            rows.append(
                {
                    "method": args.method,
                    "evaluations_per_draw": int(found["evaluations"][0]),
                    "criterion": name,
                    "n": n,
                    "psnr_mean": values.mean(),
                    "psnr_sem": design.standard_errors(both)[0],
                    "ci_low": low,
                    "ci_high": high,
                    "minus_loss": both[:, 1].mean(),
                    "minus_loss_low": less_low,
                    "minus_loss_high": less_high,
                    "below_20_db": (values < 20).mean(),
                    "task": args.task,
                    "mixtures": len(ids),
                    "interval": f"t, clusters of {design.unit}",
                    "clusters": design.n_clusters,
                    "precision": args.precision,
                    "flow": f"{args.flow_steps} nodes, spacing {args.flow_spacing}" if name == LOG_PRIOR else "",
                    "weights_sha256": study.separator.weights_sha256[:16],
                }
            )
    return rows


def plot(table: pd.DataFrame, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    methods = list(table.method.unique())
    figure, axes = pyplot.subplots(1, len(methods), figsize=(1 + 5 * len(methods), 4.5), sharey=True, squeeze=False, layout="constrained")
    styles = dict(zip(["mixture error", LOSS, LOG_PRIOR, ORACLE, MEAN], [("C0", "o"), ("C1", "s"), ("C2", "^"), ("C3", "D"), ("C4", "*")], strict=True))
    handles: dict[str, Any] = {}
    for panel, method in zip(axes[0], methods, strict=True):
        rows = table[table.method == method]
        for place, criterion in enumerate(rows.criterion.unique()):
            line = rows[rows.criterion == criterion]
            colour, marker = styles[criterion]
            style = "--" if criterion == ORACLE else "-"
            (handles[criterion],) = panel.plot(line.n, line.psnr_mean, color=colour, marker=marker, markersize=4, linestyle=style, label=criterion)
            last = line[line.ci_low.notna()].tail(1)
            if len(last):
                panel.vlines(last.n + 0.3 + 0.15 * place, last.ci_low, last.ci_high, color=colour, linewidth=1.5)
        first = rows.iloc[0]
        panel.set_title(f"{method}, {first.evaluations_per_draw} evaluations per draw\n{first.task}, {first.mixtures} mixtures", fontsize=10)
        panel.set_xlabel("draws N" + (" (bars: 95 % interval at the largest N)" if rows.ci_low.notna().any() else ""))
        panel.set_xticks(sorted(rows.n.unique()))
        panel.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("mean PSNR [dB]")
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="projected")
    parser.add_argument("--task", default="class-split-val")
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--flow-steps", type=int, default=24)
    parser.add_argument("--flow-spacing", type=int, default=3)
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--kept", required=True, help="folder for what is ready")
    parser.add_argument("--minutes", type=float, default=1e9, help="no example is begun after these")
    args = parser.parse_args()
    rows = pd.DataFrame(curves(Study(args))).round(4)
    old = pd.read_csv(CSV) if CSV.exists() else pd.DataFrame()
    kept = old[old.method != args.method] if len(old) else old
    table = pd.concat([rows, kept], ignore_index=True)
    CSV.parent.mkdir(exist_ok=True)
    table.to_csv(CSV, index=False)
    plot(table, CSV.with_suffix(".png"))
    print(rows[rows.n.isin([1, 2, 4, 8, 16])].drop(columns=["method", "task", "weights_sha256", "precision"]).to_string())


if __name__ == "__main__":
    main()
