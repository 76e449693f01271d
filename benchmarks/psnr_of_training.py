"""Mean PSNR of separations against the training of their prior: the stages of ``baselines/weights/NAME.safetensors`` in the history (the last does not ship).

    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/psnr_of_training.py dd7fd82 fb5c1fd f4bdcf0 41cb7a0 [--methods projected-4x] [--examples 64]

Commits are given oldest first, each of whose weights went on from those before: steps, images and minutes of their cards add up. Validation mixtures only.
Rows of the methods asked for replace their old ones in ``benchmarks/results/psnr-of-training-NAME.csv``; a plot lies beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sepbench.noise import NoiseSource
from sepbench.protocols import RunContext
from sepbench.registry import create_separator
from sepbench.selection import by_truth
from sepbench.suites.loader import load_suite

ROOT = Path(__file__).parent.parent


def stage(commit: str, name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The weights of a commit, written with their card to ``folder``, and what the card says of its training."""
    for suffix in (".safetensors", ".json"):
        found = subprocess.run(["git", "show", f"{commit}:baselines/weights/{name}{suffix}"], cwd=ROOT, capture_output=True, check=False)
        if found.returncode:
            raise SystemExit(f"{commit}: {found.stderr.decode().strip()}")
        (folder / f"{name}{suffix}").write_bytes(found.stdout)
    card = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return folder / f"{name}.safetensors", {"sha256": card["weights_sha256"][:16], **card["training"]}


def separation_psnr(method: str, weights: Path, task: Any, examples: int, precision: str) -> torch.Tensor:
    """``(examples,)`` dB under the best assignment."""
    separator = create_separator(method, {"weights": str(weights), "precision": precision})
    ctx = RunContext(task.spec, "cuda" if torch.cuda.is_available() else "cpu", NoiseSource(0), 0)
    separator.fit(task.view("prior"), ctx)
    parts = []
    for ids in torch.arange(examples).split(separator.info.max_batch):
        estimates = separator.separate(task.mixture_set().mixtures(ids, ctx.device), ctx).cpu()
        parts.append(by_truth(estimates.unsqueeze(1), task.mixture_set().sources(ids), task.spec)[:, 0])
    return torch.cat(parts)


def plot(table: pd.DataFrame, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for method, rows in table.groupby("method", sort=False):
        axes.errorbar(rows.minutes, rows.psnr_mean, rows.psnr_sem, marker="o", capsize=3, label=f"{method}, {rows.mixtures.iloc[0]} mixtures")
    axes.set_xlabel("minutes of training on two shared CPU cores")
    axes.set_ylabel("mean PSNR, dB (bars: standard error)")
    axes.set_ylim(bottom=min(axes.get_ylim()[0], float(table.psnr_mean.min()) - 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs="+")
    parser.add_argument("--name", default="mnist-all")
    parser.add_argument("--task", default="mnist-pairs/class-split-val")
    parser.add_argument("--methods", default="projected-4x")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--precision", default="bfloat16")
    args = parser.parse_args()
    suite, _, name = args.task.partition("/")
    task, rows = load_suite(suite).tasks[name], []
    steps, images, minutes = 0, 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for commit in args.commits:
            weights, training = stage(commit, args.name, Path(folder))
            steps, images, minutes = steps + training["steps"], images + training["images_seen"], minutes + training["minutes"]
            for method in args.methods.split(","):
                psnr = separation_psnr(method, weights, task, args.examples, args.precision)
                row = {"method": method, "steps": steps, "images_seen": images, "minutes": round(minutes, 1), "psnr_mean": round(float(psnr.mean()), 3)}
                row |= {"psnr_sem": round(float(psnr.std() / len(psnr) ** 0.5), 3), "below_20_db": round(float((psnr < 20).double().mean()), 4)}
                rows.append(row | {"task": args.task, "mixtures": len(psnr), "precision": args.precision, "weights_sha256": training["sha256"]})
                print(rows[-1], flush=True)
    csv = ROOT / "benchmarks" / "results" / f"psnr-of-training-{args.name}.csv"
    table = pd.DataFrame(rows)
    if csv.exists():
        old = pd.read_csv(csv)
        table = pd.concat([old[~old.method.isin(table.method.unique())], table], ignore_index=True)
    table.to_csv(csv, index=False, lineterminator="\n")
    plot(table, csv.with_suffix(".png"))


if __name__ == "__main__":
    main()
