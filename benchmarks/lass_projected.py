"""PSNR of ``lass-projected`` by how its evaluations are spent, on frozen validation mixtures: the study that its defaults follow from.

    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/lass_projected.py --fit FOLDER --kept starts.pt

FOLDER holds a fit of ``lass`` with its default settings (``sepbench cache`` lists them; the folder ``fitted`` of one). Candidates are drawn once and stand in
``--kept``; every row of STUDY then finishes the same ones. Rows go to ``benchmarks/results/lass_projected.csv`` as they are ready; a row that is there is not
computed again. Mixtures are those of ``mnist-lass``, task ``permuted-val``: no choice made here sees a test image. ``evaluations`` are calls of the
score prior per source; 0 is the best candidate as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from baselines.lass_projected import LassProjected
from sepbench.noise import NoiseSource
from sepbench.protocols import RunContext
from sepbench.registry import create_separator
from sepbench.selection import by_truth
from sepbench.suites.loader import load_suite

CSV = Path(__file__).parent / "results" / "lass_projected.csv"
MOST_STARTS = 8


def _row(starts: int, search_steps: int, finish_steps: int, highest: float) -> dict[str, Any]:
    return {"starts": starts, "search_steps": search_steps, "finish_steps": finish_steps, "highest": highest}


STUDY = [
    _row(4, 8, 16, 0.6),
    _row(8, 4, 16, 0.6),
    _row(4, 6, 24, 0.6),
    _row(1, 24, 24, 0.6),
    _row(4, 8, 16, 0.8),
    _row(5, 7, 14, 0.6),
]
"""How evaluations are spent."""


def study(fit: Path, kept: Path, examples: int, candidates: int, csv: Path) -> pd.DataFrame:
    """The rows that are not there yet, and those that are."""
    task = load_suite("mnist-lass").tasks["permuted-val"]
    ids, mixtures_of = torch.arange(examples), task.mixture_set()
    mixtures, truth = mixtures_of.mixtures(ids), mixtures_of.sources(ids)
    ctx = RunContext(task.spec, "cpu", NoiseSource(0), 0)
    method = create_separator("lass-projected", {"candidates": candidates, "starts": MOST_STARTS})
    assert isinstance(method, LassProjected)
    method.load(fit, ctx)
    starts = torch.load(kept) if kept.is_file() else method.begun(mixtures, ctx)
    torch.save(starts, kept)
    table = pd.read_csv(csv) if csv.is_file() else pd.DataFrame()
    for settings in ({"starts": 0, "search_steps": 0, "finish_steps": 0, "highest": 0.0}, *STUDY):
        row = {"candidates": candidates, "mixtures": examples, **settings, "fit_sha256": method.weights_sha256[:16]}
        if len(table) and bool((table[list(row)] == pd.Series(row)).all(axis=1).any()):
            continue
        estimates, evaluations = starts[:, 0], 0
        if settings["starts"]:
            other = create_separator("lass-projected", settings)
            assert isinstance(other, LassProjected)
            other.load(fit, ctx)
            estimates, evaluations = other.finished(mixtures, starts[:, : other.starts], ctx), other.evaluations
        scores = by_truth(estimates.clamp(0, 1).unsqueeze(1), truth, task.spec, "psnr")[:, 0]
        row |= {"evaluations": evaluations, "psnr_mean": round(float(scores.mean()), 3), "psnr_sem": round(float(scores.std() / examples**0.5), 3)}
        row |= {"psnr_median": round(float(scores.median()), 3), "below_20_db": round(float((scores < 20).double().mean()), 4)}
        table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
        table.to_csv(csv, index=False)
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", type=Path, required=True, help="folder of a fit of lass")
    parser.add_argument("--kept", type=Path, required=True, help="file of the starts, made if it is not there")
    parser.add_argument("--examples", type=int, default=50, help="the first so many mixtures")
    parser.add_argument("--candidates", type=int, default=128, help="of each")
    parser.add_argument("--csv", type=Path, default=CSV)
    given = parser.parse_args()
    study(given.fit, given.kept, given.examples, given.candidates, given.csv)
