"""LASS Table 3 on frozen validation mixtures: samplers with one refinement, which candidate to keep, and the best of N.

    OMP_NUM_THREADS=1 python benchmarks/lass_table3.py                      # the first 40 mixtures; an hour of one core
    OMP_NUM_THREADS=1 python benchmarks/lass_table3.py --part 1/2 --csv a.csv   # every second batch, for a second process
    python benchmarks/lass_table3.py --join a.csv b.csv                     # the tables of parts to one
    python benchmarks/lass_table3.py --summary                              # means, and differences from the row of the paper

Every sampler draws its candidates once. What is kept of them and how it is refined are rows of their own, so the same candidates stand
behind all rows of a sampler: ``candidates`` N takes the first N of them. ``keep`` is ``error`` (least squared error of the decoded mean, as in
the paper), ``posterior`` (the likeliest tokens) or ``both`` (log posterior minus 5 times the squared error). ``refine`` is ``adam`` (the released
code), ``descent`` (eqs. 12 and 13) or ``none``. Mixtures are those of ``mnist-lass``, task ``permuted-val``: no choice made here sees a test
mixture. The table has one line per mixture and row; a line that is there is not computed again.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from baselines.lass import LatentSeparation
from baselines.training.token_candidates import errors_of, images_at_once
from sepbench.noise import NoiseSource
from sepbench.protocols import RunContext
from sepbench.registry import create_separator
from sepbench.selection import by_truth
from sepbench.suites.loader import load_suite

CSV = Path(__file__).parent / "results" / "lass_table3.csv"
BATCH = 4
PIXEL_WEIGHT = 5.0
"""Nats per unit of squared error where both the tokens and the pixels count; the ``evidence`` of ``lass``."""
KEYS = ["sampler", "candidates", "keep", "refine"]


@dataclass(frozen=True)
class Sampler:
    """One sampler and its rows: (candidates, keep, refine)."""

    name: str
    settings: dict[str, Any]
    rows: list[tuple[int, str, str]] = field(default_factory=list)


def _top(k: int, rows: list[tuple[int, str, str]]) -> Sampler:
    return Sampler(f"top-k {k}" if k else "ancestral", {"top_k": k}, rows)


WHOLE = (512, "error", "adam")
STAGES = [(512, keep, refine) for keep in ("error", "posterior", "both") for refine in ("none", "adam")]
FEWER = [(count, "error", "adam") for count in (1, 8, 64)]
SAMPLERS = [
    Sampler("greedy", {"sampler": "greedy", "candidates": 1}, [(1, "error", "adam")]),
    Sampler("beam", {"sampler": "beam", "candidates": 128}, [(128, "posterior", "adam"), (128, "error", "adam")]),
    _top(0, [WHOLE]),
    _top(16, [WHOLE]),
    _top(32, [*STAGES, (512, "error", "descent"), *FEWER]),
    _top(64, [WHOLE]),
    Sampler(
        "particles",
        {"sampler": "particles", "candidates": 256, "top_k": 0, "evidence": 5.0},
        [(256, keep, refine) for keep in ("error", "posterior", "both") for refine in ("none", "adam")],
    ),
]


def kept(keep: str, errors: torch.Tensor, logs: torch.Tensor) -> torch.Tensor:
    """Which candidate ``(B,)`` of ``(B, N)`` is kept."""
    if keep == "error":
        return errors.argmin(1)
    return (logs if keep == "posterior" else logs - PIXEL_WEIGHT * errors.double()).argmax(1)


def table_of(sampler: Sampler, ids: torch.Tensor) -> pd.DataFrame:
    """All rows of a sampler on some mixtures: one line per mixture and row."""
    task = load_suite("mnist-lass").tasks["permuted-val"]
    mixtures, truth = task.mixture_set().mixtures(ids), task.mixture_set().sources(ids)
    ctx = RunContext(task.spec, "cpu", NoiseSource(0), 0)
    method = create_separator("lass-topk", {**sampler.settings, "refinement": "none"})
    assert isinstance(method, LatentSeparation)
    method.fit(task.view("prior"), ctx)
    means = mixtures.values / float(mixtures.operator.matrix().sum())
    found, logs = method.found(means, 2, mixtures.example_ids, ctx)
    errors = errors_of(method.fitted(), found, logs, means, images_at_once(ctx))
    chosen = {row: kept(row[1], errors[:, : row[0]], logs[:, : row[0]]) for row in sampler.rows}
    lines = []
    for refine in sorted({row[2] for row in sampler.rows}):
        rows = [row for row in sampler.rows if row[2] == refine]
        pairs = torch.stack([torch.stack([torch.arange(len(ids)), chosen[row]], 1) for row in rows]).flatten(0, 1)
        different, which = pairs.unique(dim=0, return_inverse=True)  # one candidate that several rows keep is refined once
        method.refinement = refine  # type: ignore[assignment]
        images = method._refined(method.fitted(), found[different[:, 0], different[:, 1]], means[different[:, 0]], ctx)[which]
        images = images.unflatten(0, (len(rows), len(ids)))
        for row, estimates in zip(rows, images, strict=True):
            scores = by_truth(estimates.unsqueeze(1), truth, task.spec, "psnr")[:, 0]
            left = (estimates.mean(1) - means).square().flatten(1).mean(1).sqrt()
            for number, score, error in zip(ids.tolist(), scores.tolist(), left.tolist(), strict=True):
                told = {"psnr": round(score, 3), "mixture_rmse": round(error, 5)}
                lines.append({"mixture": number, "sampler": sampler.name, **dict(zip(KEYS[1:], row, strict=True)), **told})
    return pd.DataFrame(lines)


def study(examples: int, part: tuple[int, int], csv: Path) -> None:
    """Complete the table, batch by batch."""
    table = pd.read_csv(csv) if csv.is_file() else pd.DataFrame(columns=["mixture", *KEYS])
    for number, ids in enumerate(torch.arange(examples).split(BATCH)):
        if number % part[1] != part[0] - 1:
            continue
        for sampler in SAMPLERS:
            there = table[(table.sampler == sampler.name) & table.mixture.isin(ids.tolist())]
            if len(there) < len(ids) * len(sampler.rows):
                table = pd.concat([table.drop(there.index), table_of(sampler, ids)], ignore_index=True)
                table.to_csv(csv, index=False)
        print(f"mixtures up to {int(ids[-1])} are done", flush=True)


def summary(csv: Path) -> pd.DataFrame:
    """Mean, standard error and share below 20 dB of each row; the difference from the paper's row on the same mixtures."""
    table = pd.read_csv(csv)
    wide = table.pivot(index="mixture", columns=KEYS, values="psnr")
    paper = wide[("top-k 32", *WHOLE)]
    apart = wide.sub(paper, axis=0)
    told = pd.DataFrame({"psnr": wide.mean(), "sem": wide.sem(), "below_20_db": (wide < 20).mean(), "difference": apart.mean(), "difference_sem": apart.sem()})
    return told.round(2).assign(mixtures=wide.count()).reset_index()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=40, help="the first so many mixtures")
    parser.add_argument("--part", default="1/1", help="I/N: every N-th batch, from the I-th on")
    parser.add_argument("--csv", type=Path, default=CSV)
    parser.add_argument("--join", type=Path, nargs="+", help="tables of parts")
    parser.add_argument("--summary", action="store_true")
    given = parser.parse_args()
    if given.join:
        joined = pd.concat([pd.read_csv(one) for one in given.join]).sort_values(["mixture", *KEYS])
        joined.to_csv(given.csv, index=False)
    elif given.summary:
        print(summary(given.csv).to_string(index=False))
    else:
        first, of = (int(one) for one in given.part.split("/"))
        study(given.examples, (first, of), given.csv)
