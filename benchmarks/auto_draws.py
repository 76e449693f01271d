"""PSNR against mean evaluations of ``projected-auto`` as its threshold varies, beside ``projected``, ``-4x`` and ``-8x``: what its defaults follow from.

    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/auto_draws.py curve anew points --kept FOLDER
    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/auto_draws.py timing                   # seconds beside projected-4x, in turns
    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/auto_draws.py count --examples 500     # evaluations on the test tasks, whose references are not read
    python benchmarks/auto_draws.py plot

Mixtures of all but ``count`` are the first of the validation tasks of ``mnist-pairs``: no choice made here sees a test image. Every mixture is searched
``most_draws`` times once. Losses, probes and searches are kept in FOLDER, so that a run which is stopped goes on there and a threshold costs what it
finishes anew: with the method's own noise, the draws are those that it would make. Rows go to ``benchmarks/results/auto_draws.csv``, those of the last two to
``auto_draws_cost.csv``. ``evaluations`` are calls of the network per source and mixture, probes included; ``below_20_db`` is the share of
mixtures that are lost.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
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
ACCEPT = [-4.0, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0]
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


def searched(separator: ProjectedAuto, task: Task, ctx: RunContext, ids: torch.Tensor) -> Kept:
    """Losses ``(B, N, levels)``, probes ``(B, N, len(PROBES))`` and clean sources ``(B, N, K, ...)`` of all N searches per mixture."""
    problem = separator.problem(task.mixture_set().mixtures(ids, ctx.device), ctx)
    clean, losses = search(problem.repeat(separator.most_draws), separator.chain(ctx))
    few = clean.unflatten(0, (len(ids), separator.most_draws))
    probes = torch.stack([-by_denoising_loss(few, problem.priors, problem.mixtures, problem.noise, (sigma,)) for sigma in PROBES], -1)
    return {"losses": losses.unflatten(0, few.shape[:2]).cpu(), "probes": probes.cpu(), "search": few.half().cpu()}


def gathered(kept: Path, examples: int, name: str, separator: ProjectedAuto, ctx: RunContext) -> Kept:
    """All searches of the first mixtures of a task."""
    task, chain = load_suite("mnist-pairs").tasks[name], separator.chain(ctx)
    key = f"search-{name}-{len(chain.search)}-{chain.search[0]:g}-{chain.search[-1]:g}-{chain.mirrored:g}-{separator.most_draws}"
    parts = []
    for ids in torch.arange(examples).split(AT_ONCE):
        parts.append(stored(kept / f"{key}-{int(ids[0])}.pt", lambda ids=ids: searched(separator, task, ctx, ids)))
        print(key, int(ids[-1]) + 1, flush=True)
    return {field: torch.cat([part[field] for part in parts]) for field in parts[0]}


def decided(separator: ProjectedAuto, ctx: RunContext, kept: Kept, accept: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The search that is taken, evaluations and number of searches per mixture at a threshold, as ``draw_until`` decides."""
    chain = separator.chain(ctx)
    losses = kept["losses"][..., chain.counted].mean(-1)
    probes = kept["probes"][..., [PROBES.index(sigma) for sigma in separator.probe_sigmas]].mean(-1)
    good = losses.cummin(1).values <= torch.tensor(separator.enough(accept))
    searches = torch.where(good.any(1), good.double().argmax(1) + 1, separator.most_draws)
    taken, evaluations = [], searches * len(chain.search) + len(chain.finish)
    for row, made in enumerate(searches.tolist()):
        order = losses[row, :made].argsort(stable=True)[: separator.finalists]
        if len(order) > 1:
            evaluations[row] += len(order) * len(separator.probe_sigmas)
            order = order[(losses[row, order] + separator.probe_weight * probes[row, order]).argsort(stable=True)]
        taken.append(order[0])
    return torch.stack(taken), evaluations, searches


def finished(separator: ProjectedAuto, ctx: RunContext, name: str, kept: Kept, wanted: torch.Tensor) -> torch.Tensor:
    """PSNR ``(B, N)`` of the finished estimates where ``wanted``, NaN elsewhere."""
    task, psnr = load_suite("mnist-pairs").tasks[name], torch.full(wanted.shape, float("nan"), dtype=torch.float64)
    for pairs in wanted.nonzero().split(64):
        ids, draws = pairs.unbind(1)
        problem = separator.problem(task.mixture_set().mixtures(ids, ctx.device), ctx)
        estimates = finish(replace(problem, draws=draws.to(ctx.device)), separator.chain(ctx), kept["search"][ids, draws].float().to(ctx.device))
        psnr[ids, draws] = by_truth(estimates.unsqueeze(1).cpu(), task.mixture_set().sources(ids), task.spec)[:, 0]
    return psnr


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


def curve(args: argparse.Namespace, name: str, **settings: Any) -> list[dict[str, Any]]:
    """Rows of ``projected-auto`` over ACCEPT; the default's is named ``projected-auto (default)``, those with settings after these."""
    separator, ctx = fitted("projected-auto", load_suite("mnist-pairs").tasks[name], **settings)
    assert isinstance(separator, ProjectedAuto)
    kept = gathered(Path(args.kept), args.examples, name, separator, ctx)
    choices = {accept: decided(separator, ctx, kept, accept) for accept in sorted({*ACCEPT, separator.accept})}
    wanted = torch.zeros(len(kept["losses"]), separator.most_draws, dtype=torch.bool)
    for taken, _, _ in choices.values():
        wanted[torch.arange(len(taken)), taken] = True
    psnr, rows = finished(separator, ctx, name, kept, wanted), []
    for accept, (taken, evaluations, searches) in choices.items():
        changed = "".join(f" {key}={value:g}" for key, value in settings.items())
        method = "projected-auto" + (changed or (" (default)" if accept == separator.accept else ""))
        first = {"accept": accept, "one_search": round(float((searches == 1).double().mean()), 3), "searches": round(float(searches.double().mean()), 2)}
        rows.append(row(method, name, psnr[torch.arange(len(taken)), taken], float(evaluations.double().mean()), **first))
    return rows


def anew(args: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """The curve with noise that is drawn anew at every step."""
    return curve(args, name, mirrored=0.0)


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


def timing(args: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """Process seconds per mixture of ``projected-auto`` and ``projected-4x`` in turns of 32 mixtures, and the median of the turns' ratios."""
    task, turns = load_suite("mnist-pairs").tasks[name], []
    pair = [fitted(method, task) for method in ("projected-auto", "projected-4x")]
    for ids in torch.arange(32 * args.turns).split(32):
        mixtures, seconds = task.mixture_set().mixtures(ids, pair[0][1].device), []
        for separator, ctx in pair:
            start = time.process_time()
            separator.separate(mixtures, ctx).cpu()
            seconds.append((time.process_time() - start) / len(ids))
        turns.append(seconds)
    auto, four = (statistics.median(turn[i] for turn in turns) for i in (0, 1))
    ratio = statistics.median(turn[1] / turn[0] for turn in turns)
    more = {"auto_seconds": round(auto, 4), "projected_4x_seconds": round(four, 4), "ratio": round(ratio, 3)}
    return [{"what": "timing", "task": name, "mixtures": 32 * args.turns, **more}]


def count(args: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """Mean evaluations per source of ``projected-auto`` on the test task of a validation task."""
    name = name.removesuffix("-val")
    task = load_suite("mnist-pairs").tasks[name]
    separator, ctx = fitted("projected-auto", task, finish_steps=1)
    assert isinstance(separator, ProjectedAuto)
    spent = []
    for ids in torch.arange(args.examples).split(separator.info.max_batch):
        problem = separator.problem(task.mixture_set().mixtures(ids, ctx.device), ctx)
        spent.append(separator.drawn(problem, ctx)[1])
        print("count", name, int(ids[-1]) + 1, flush=True)
    evaluations = torch.cat(spent).double() - 1 + create_separator("projected-auto", {}).finish_steps  # type: ignore[attr-defined]
    most = float(evaluations.max())
    more = {"evaluations": round(float(evaluations.mean()), 2), "median": float(evaluations.median()), "most": most}
    return [{"what": "evaluations", "task": name, "mixtures": args.examples, **more}]


def plot(table: pd.DataFrame, path: Path) -> None:
    """One panel per task: the curve with its default, and the points."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(TASKS), figsize=(11, 4.5), layout="constrained", sharey=True)
    for panel, name in zip(panels, TASKS, strict=True):
        rows = table[table.task == name]
        old = rows[rows.method == "projected-auto mirrored=0"].sort_values("evaluations")
        panel.plot(old.evaluations, old.psnr_mean, marker=".", linestyle=":", color="grey", label="the same, all noise drawn anew")
        auto = rows[rows.method.isin(["projected-auto", "projected-auto (default)"])].sort_values("evaluations")
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


def written(path: Path, rows: list[dict[str, Any]], keys: tuple[str, ...]) -> None:
    """Rows added to the file; those that stand there for the same keys go."""
    table = pd.DataFrame(rows)
    if path.exists():
        old = pd.read_csv(path)
        new = set(map(tuple, table[list(keys)].itertuples(index=False)))
        table = pd.concat([old[[tuple(one) not in new for one in old[list(keys)].itertuples(index=False)]], table])
    table.to_csv(path, index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["curve", "anew", "points", "timing", "count", "plot"])
    parser.add_argument("--kept", help="folder of searches and points, made if absent; curve, anew and points need it")
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--csv", type=Path, default=CSV)
    args = parser.parse_args()
    if not args.kept and {"curve", "anew", "points"} & {*args.parts}:
        parser.error("curve, anew and points need --kept FOLDER")
    torch.set_grad_enabled(False)
    for part in args.parts:
        for name in TASKS if part != "plot" else ():
            rows = {"curve": curve, "anew": anew, "points": points, "timing": timing, "count": count}[part](args, name)
            for one in rows:
                print(one, flush=True)
            costs = part in ("timing", "count")
            path, keys = (args.csv.with_name(args.csv.stem + "_cost.csv"), ("what", "task")) if costs else (args.csv, ("method", "task"))
            written(path, rows, ("accept", *keys) if part in ("curve", "anew") else keys)
    if args.csv.exists():
        plot(pd.read_csv(args.csv), args.csv.with_suffix(".png"))


if __name__ == "__main__":
    main()
