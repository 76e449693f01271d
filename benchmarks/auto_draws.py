"""PSNR against mean evaluations of ``projected-auto`` as its threshold varies, beside ``projected``, ``-4x`` and ``-8x``: what its defaults follow from.

    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/auto_draws.py --kept FOLDER             # curve, then the points
    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/auto_draws.py --kept FOLDER --timing    # and seconds beside projected-4x, in turns
    python benchmarks/auto_draws.py --plot-only

Mixtures are the first of the validation tasks of ``mnist-pairs``: no choice made here sees a test image. Every mixture is searched ``most_draws`` times
once; losses, probes and finished estimates are kept in FOLDER, so that a run which is stopped goes on there, and a threshold costs nothing to try: with
the method's own noise, the draws are those that it would make. Rows go to ``benchmarks/results/auto_draws.csv``. ``evaluations`` are calls of the network
per source and mixture, probes included; ``below_20_db`` is the share of mixtures that are lost.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from baselines.projected_auto import ProjectedAuto
from baselines.sampling.draw_until import finish, search
from baselines.sampling.separator import ScoreSeparator
from sepbench.noise import NoiseSource
from sepbench.protocols import RunContext
from sepbench.registry import create_separator
from sepbench.selection import by_denoising_loss, by_truth, weighted_mean
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Task

CSV = Path(__file__).parent / "results" / "auto_draws.csv"
TASKS = ("class-split-val", "class-agnostic-val")
ACCEPT = [-1.5, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0]
"""Thresholds of the curve, in standard deviations of the loss of clean images."""
PROBES = (0.2, 0.3, 0.4, 0.6)
"""Noise levels of the probes that are kept; the method uses those of its setting among them."""
AT_ONCE = 20
Kept = dict[str, torch.Tensor]


def fitted(method: str, task: Task, **settings: Any) -> tuple[ScoreSeparator, RunContext]:
    separator = create_separator(method, {"precision": "bfloat16", **settings})
    assert isinstance(separator, ScoreSeparator)
    ctx = RunContext(task.spec, "cuda" if torch.cuda.is_available() else "cpu", NoiseSource(0), 0)
    separator.fit(task.view("prior"), ctx)
    return separator, ctx


def stored(path: Path, make: Any) -> Kept:
    """What ``make`` returns, worked out once."""
    if path.exists():
        found: Kept = torch.load(path, weights_only=True)
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    made: Kept = make()
    torch.save(made, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)
    return made


def searched(separator: ScoreSeparator, task: Task, ctx: RunContext, ids: torch.Tensor) -> Kept:
    """Losses ``(B, N, levels)``, probes ``(B, N, len(PROBES))`` and PSNR of the finished estimates ``(B, N)`` of all N searches per mixture."""
    assert isinstance(separator, ProjectedAuto)
    chain, problem = separator.chain(ctx), separator.problem(task.mixture_set().mixtures(ids, ctx.device), ctx)
    rows = problem.repeat(separator.most_draws)
    clean, losses = search(rows, chain)
    both = (len(ids), separator.most_draws)
    few = clean.unflatten(0, both)
    probes = torch.stack([-by_denoising_loss(few, problem.priors, problem.mixtures, problem.noise, (sigma,)) for sigma in PROBES], -1)
    estimates = finish(rows, chain, clean).unflatten(0, both).cpu()
    psnr = by_truth(estimates, task.mixture_set().sources(ids), task.spec)
    return {"losses": losses.unflatten(0, both), "probes": probes, "psnr": psnr, "search": few.half(), "estimates": estimates.half()}


def gathered(args: argparse.Namespace, name: str) -> tuple[ProjectedAuto, RunContext, Kept]:
    """All searches of one task."""
    task = load_suite("mnist-pairs").tasks[name]
    separator, ctx = fitted("projected-auto", task)
    assert isinstance(separator, ProjectedAuto)
    chain = separator.chain(ctx)
    key = f"auto-{name}-{len(chain.search)}-{chain.search[0]:g}-{chain.search[-1]:g}-{len(chain.finish)}-{chain.finish[-1]:g}-{separator.most_draws}"
    parts = []
    for ids in torch.arange(args.examples).split(AT_ONCE):
        parts.append(stored(Path(args.kept) / f"{key}-{int(ids[0])}.pt", lambda ids=ids: searched(separator, task, ctx, ids)))
        print(name, int(ids[-1]) + 1, flush=True)
    return separator, ctx, {field: torch.cat([part[field] for part in parts]) for field in parts[0]}


def decided(separator: ProjectedAuto, ctx: RunContext, kept: Kept, enough: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """PSNR, evaluations and searches per mixture at a threshold, as ``draw_until`` decides."""
    chain = separator.chain(ctx)
    losses = kept["losses"][..., chain.counted].mean(-1)
    probes = kept["probes"][..., [PROBES.index(sigma) for sigma in separator.probe_sigmas]].mean(-1)
    good = losses <= enough
    searches = torch.where(good.any(1), good.double().argmax(1) + 1, separator.most_draws)
    psnr, evaluations = [], searches * len(chain.search) + len(chain.finish)
    for row, made in enumerate(searches.tolist()):
        order = losses[row, :made].argsort(stable=True)[: separator.finalists]
        if len(order) > 1:
            evaluations[row] += len(order) * len(separator.probe_sigmas)
            order = order[(losses[row, order] + separator.probe_weight * probes[row, order]).argsort(stable=True)]
        psnr.append(kept["psnr"][row, order[0]])
    return torch.stack(psnr), evaluations, searches


def row(method: str, task: str, psnr: torch.Tensor, evaluations: float, **more: Any) -> dict[str, Any]:
    values = psnr.double()
    return {
        "method": method,
        "task": task,
        "mixtures": len(values),
        "evaluations": round(evaluations, 2),
        "psnr_mean": round(float(values.mean()), 3),
        "psnr_sem": round(float(values.std() / len(values) ** 0.5), 3),
        "psnr_median": round(float(values.median()), 3),
        "below_20_db": round(float((values < 20).double().mean()), 4),
        **more,
    }


def curve(args: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """Rows of ``projected-auto`` over ACCEPT; the default's is named ``projected-auto (default)``."""
    separator, ctx, kept = gathered(args, name)
    rows = []
    for accept in sorted({*ACCEPT, separator.accept}):
        psnr, evaluations, searches = decided(separator, ctx, kept, separator.enough(accept))
        method = "projected-auto" + (" (default)" if accept == separator.accept else "")
        first = {"accept": accept, "solved_by_first": round(float((searches == 1).double().mean()), 3), "searches": round(float(searches.double().mean()), 2)}
        rows.append(row(method, name, psnr, float(evaluations.double().mean()), **first))
    return rows


def points(args: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """Rows of the methods with a fixed number of draws on the same mixtures. The first four of eight draws are those of ``projected-4x``."""
    task = load_suite("mnist-pairs").tasks[name]
    one, ctx = fitted("projected", task)
    eight, _ = fitted("projected-8x", task)

    def drawn(ids: torch.Tensor) -> Kept:
        references, mixtures = task.mixture_set().sources(ids), task.mixture_set().mixtures(ids, ctx.device)
        draws, criterion = eight.ranked(eight.problem(mixtures, ctx), 8, ctx)
        estimates = [one.separate(mixtures, ctx)]
        estimates += [weighted_mean(draws[:, :n], criterion[:, :n], eight.temperature, exchangeable=True) for n in (4, 8)]
        return {"psnr": by_truth(torch.stack(estimates, 1).cpu(), references, task.spec)}

    parts = []
    for ids in torch.arange(args.examples).split(AT_ONCE):
        parts.append(stored(Path(args.kept) / f"points-{name}-{int(ids[0])}.pt", lambda ids=ids: drawn(ids))["psnr"])
        print("points", name, int(ids[-1]) + 1, flush=True)
    psnr = torch.cat(parts)
    return [row(method, name, psnr[:, i], cost) for i, (method, cost) in enumerate((("projected", 100), ("projected-4x", 200), ("projected-8x", 400)))]


def timing(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds per mixture of ``projected-auto`` and ``projected-4x`` in one process, in turns, and the median of the turns' ratios."""
    rows = []
    for name in TASKS:
        task = load_suite("mnist-pairs").tasks[name]
        pair = [fitted(method, task) for method in ("projected-auto", "projected-4x")]
        turns = []
        for ids in torch.arange(32 * args.turns).split(32):
            mixtures, seconds = task.mixture_set().mixtures(ids, pair[0][1].device), []
            for separator, ctx in pair:
                start = time.process_time()
                separator.separate(mixtures, ctx).cpu()
                seconds.append((time.process_time() - start) / len(ids))
            turns.append(seconds)
        auto, four = (statistics.median(turn[i] for turn in turns) for i in (0, 1))
        ratio = statistics.median(turn[1] / turn[0] for turn in turns)
        rows.append({"task": name, "mixtures": 32 * args.turns, "auto_seconds": auto, "four_seconds": four, "four_over_auto": ratio, "turns": args.turns})
        print(rows[-1], flush=True)
    return rows


def plot(table: pd.DataFrame, path: Path) -> None:
    """One panel per task: the curve with its default, and the points."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(TASKS), figsize=(11, 4.5), layout="constrained", sharey=True)
    for panel, name in zip(panels, TASKS, strict=True):
        rows = table[table.task == name]
        auto = rows[rows.method.str.startswith("projected-auto")].sort_values("evaluations")
        panel.errorbar(auto.evaluations, auto.psnr_mean, auto.psnr_sem, marker=".", capsize=2, label="projected-auto, threshold varies")
        default = auto[auto.method.str.contains("default")]
        panel.plot(default.evaluations, default.psnr_mean, "o", markersize=9, markerfacecolor="none", color="black", label="its default")
        fixed = rows[~rows.method.str.startswith("projected-auto")]
        panel.errorbar(fixed.evaluations, fixed.psnr_mean, fixed.psnr_sem, marker="s", linestyle="none", capsize=2, label="fixed number of draws")
        for _, one in fixed.iterrows():
            panel.annotate(one.method, (one.evaluations, one.psnr_mean), textcoords="offset points", xytext=(6, -12), fontsize=8)
        panel.set_xscale("log")
        panel.set_xlabel("network evaluations per source, mean over mixtures")
        panel.set_title(f"{name}, first {rows.mixtures.iloc[0]} mixtures", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("PSNR [dB], mean and standard error")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kept", help="folder of draws and points, made if absent")
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--no-points", action="store_true", help="the curve alone")
    parser.add_argument("--timing", action="store_true", help="time it beside projected-4x too")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--csv", type=Path, default=CSV)
    parser.add_argument("--plot-only", action="store_true")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    if not args.plot_only:
        if not args.kept:
            parser.error("--kept FOLDER is needed to draw")
        rows = [one for name in TASKS for one in curve(args, name)]
        rows += [] if args.no_points else [one for name in TASKS for one in points(args, name)]
        pd.DataFrame(rows).to_csv(args.csv, index=False)
        if args.timing:
            pd.DataFrame(timing(args)).round(4).to_csv(args.csv.with_name("auto_draws_timing.csv"), index=False)
    plot(pd.read_csv(args.csv), args.csv.with_suffix(".png"))


if __name__ == "__main__":
    main()
