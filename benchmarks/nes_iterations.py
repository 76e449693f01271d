"""NES after every outer iteration from other starts, and with sources that depend on each other: figures 2 and 3 of Halperin et al. (2018), and beyond them.

    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/nes_iterations.py starts --kept FOLDER --budget quick
    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/nes_iterations.py dependent --kept FOLDER --budget quick
    python benchmarks/nes_iterations.py plot

``starts``: X_0 = C y with C = 0.1 ... 0.9, random shares, estimates of ``am`` and of ``glom``. ``dependent``: NES pairs b and x at random although its
training mixtures may not; here a share of the training mixtures is made of pairs of the same rank in brightness (the sum of all pixels), the rest at random.
The test mixtures stay as they are. Fits are kept in FOLDER and go on there. Validation mixtures of ``mnist-nes``, X only, PSNR per image without
clamping and pooled over all of them. Rows go to ``benchmarks/results/nes_iterations.csv``.
"""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch

from baselines.nes import NeuralEggSeparation
from baselines.training.config import generator
from sepbench.noise import NoiseSource
from sepbench.protocols import Budget, RunContext, TrainingView
from sepbench.registry import create_separator
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Task

CSV = Path(__file__).parent / "results" / "nes_iterations.csv"
STARTS: dict[str, dict[str, Any]] = {
    **{f"C = {tenths / 10:g}": {"constant": tenths / 10} for tenths in (1, 3, 5, 7, 9)},
    **{name: {"init": name} for name in ("random", "am", "glom")},
}
SHARES = (0.0, 0.5, 1.0)


class DependentView:
    """A view of level ``mixtures+one`` whose mixtures pair, for a share of them, x and b of the same rank in brightness.

    Args:
        task: whose training samples are paired; observed samples and those in mixtures are disjoint, as in the task's own lists.
        share: of the mixtures.
    """

    supervision = "mixtures+one"

    def __init__(self, task: Task, share: float) -> None:
        self.task, self._all, self._share = task.spec, task.view("sources"), share

    def observed(self, limit: int | None = None) -> torch.Tensor:
        assert limit is not None
        assert self.task.observed_source is not None
        return self._all.sources(self.task.observed_source, limit)

    def mixtures(self, limit: int | None = None) -> torch.Tensor:
        """The mixtures, sums of x and of samples of b behind the observed ones."""
        x, b = self._pairs(limit)
        return x + b

    def correlation(self, limit: int) -> float:
        """Between the brightness of x and of b, over the mixtures."""
        x, b = self._pairs(limit)
        return float(torch.corrcoef(torch.stack([x.flatten(1).sum(1), b.flatten(1).sum(1)]))[0, 1])

    def _pairs(self, limit: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        assert limit is not None
        assert self.task.observed_source is not None
        b = self._all.sources(self.task.observed_source, 2 * limit)[limit:]
        x = self._all.sources(1 - self.task.observed_source, len(b))
        x = x[torch.randperm(len(x), generator=generator(0, "pairs"))]
        of_rank = round(self._share * len(b))
        for one in (x, b):
            one[:of_rank] = one[:of_rank][one[:of_rank].flatten(1).sum(1).argsort(stable=True)]
        return x, b


def fitted(view: TrainingView, kept: Path, args: argparse.Namespace, **settings: Any) -> tuple[NeuralEggSeparation, RunContext]:
    """``nes-code`` or what ``--method`` says, learnt or read."""
    method = cast(NeuralEggSeparation, create_separator(args.method, {"samples": args.samples, **settings}))
    work, ready = kept / "work", kept / "fit"
    work.mkdir(parents=True, exist_ok=True)

    def said(fraction: float, text: str) -> None:
        print(f"\r{kept.name} {100 * fraction:.1f} % {text}", end="", flush=True)

    ctx = RunContext(view.task, args.device, NoiseSource(0), 0, budget=cast(Budget, args.budget), cache=work, progress=said)
    if ready.exists():
        method.load(ready, ctx)
        return method, ctx
    method.fit(view, ctx)
    unfinished = kept / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed here
    unfinished.mkdir()
    method.save(unfinished)
    unfinished.rename(ready)
    return method, ctx


def rows_of(method: NeuralEggSeparation, task: Task, ctx: RunContext, args: argparse.Namespace, **more: Any) -> list[dict[str, Any]]:
    """A row for every outer iteration."""
    ids, rows = torch.arange(args.examples), []
    scored = task.spec.scored_sources[0]
    mixtures, truth = task.mixture_set().mixtures(ids, ctx.device), task.mixture_set().sources(ids)[:, scored]
    for iteration in range(1, method.iterations + 1):
        estimates = method.after(iteration).separate(mixtures, ctx).cpu()[:, scored]
        errors = (estimates - truth).double().square().flatten(1).mean(1)
        psnr = -10 * errors.log10()
        row = {
            "method": args.method,
            "budget": args.budget,
            "task": task.spec.name,
            "samples": args.samples,
            "iteration": iteration,
            "dependent": 0.0,
            "correlation": 0.0,
            **more,
        }
        row |= {"mixtures": len(ids), "psnr_mean": round(float(psnr.mean()), 3), "psnr_sem": round(float(psnr.std() / math.sqrt(len(ids))), 3)}
        rows.append(row | {"psnr_pooled": round(-10 * math.log10(float(errors.mean())), 3)})
    return rows


def starts(args: argparse.Namespace) -> list[list[dict[str, Any]]]:
    """See the module."""
    task, validation = (load_suite("mnist-nes").tasks[name] for name in (args.task, f"{args.task}-val"))

    def one(name: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
        kept = Path(args.kept) / f"{args.method}-{args.budget}-{args.samples}-{args.task}-{name.replace(' ', '')}"
        method, ctx = fitted(task.view("mixtures+one"), kept, args, **settings)
        return rows_of(method, validation, ctx, args, study="starts", start=name)

    return each([(lambda name=name, settings=settings: one(name, settings)) for name, settings in STARTS.items()])


def dependent(args: argparse.Namespace) -> list[list[dict[str, Any]]]:
    """See the module."""
    task, validation = (load_suite("mnist-nes").tasks[name] for name in (args.task, f"{args.task}-val"))

    def one(share: float) -> list[dict[str, Any]]:
        view = DependentView(task, share)
        kept = Path(args.kept) / f"{args.method}-{args.budget}-{args.samples}-{args.task}-dependent-{share:g}"
        method, ctx = fitted(cast(TrainingView, view), kept, args)
        return rows_of(method, validation, ctx, args, study="dependent", start="C = 0.5", dependent=share, correlation=round(view.correlation(args.samples), 3))

    return each([(lambda share=share: one(share)) for share in SHARES])


def each(works: list[Callable[[], list[dict[str, Any]]]]) -> list[list[dict[str, Any]]]:
    """The rows of every work, written to the CSV as soon as they are there, for a work is long."""
    made = []
    for work in works:
        made.append(work())
        write(made[-1])
        print("\n" + pd.DataFrame(made[-1]).tail(1).to_string(index=False), flush=True)
    return made


def write(rows: list[dict[str, Any]]) -> None:
    """Put rows in the place of those of the same fit."""
    table, same = pd.DataFrame(rows), ["study", "method", "budget", "task", "samples", "start", "dependent", "iteration"]
    if CSV.exists():
        table = pd.concat([pd.read_csv(CSV), table]).drop_duplicates(same, keep="last")
    table.to_csv(CSV, index=False)


def plot(args: argparse.Namespace) -> None:
    """``benchmarks/results/nes_iterations.png``: a panel for the starts, one for dependent sources."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    table = pd.read_csv(CSV)
    table = table[(table.method == args.method) & (table.budget == args.budget) & (table.task == f"{args.task}-val") & (table.samples == args.samples)]
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for axes, study, key, title in ((panels[0], "starts", "start", "other starts"), (panels[1], "dependent", "dependent", "share of pairs of the same rank")):
        for name, line in table[table.study == study].groupby(key, sort=False):
            axes.plot(line.iteration, line.psnr_mean, marker="o", markersize=3, label=str(name))
        axes.set(title=title, xlabel="outer iterations k")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    panels[0].set_ylabel(f"PSNR of X, dB, mean of {table.mixtures.iloc[0]} mixtures")
    figure.savefig(CSV.with_suffix(".png"), dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("starts", "dependent", "plot"))
    parser.add_argument("--kept", default="runs/nes-iterations")
    parser.add_argument("--method", default="nes-code")
    parser.add_argument("--task", default="x-0-4")
    parser.add_argument("--budget", default="quick", choices=("quick", "paper"))
    parser.add_argument("--samples", type=int, default=12_000)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    {"starts": starts, "dependent": dependent, "plot": plot}[args.what](args)


if __name__ == "__main__":
    main()
