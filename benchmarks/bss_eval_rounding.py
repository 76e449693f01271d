"""How much ISR, SIR and SAR of BSS Eval v4 move with the 16-bit rounding of the true sources. SDR beside them.

    python benchmarks/bss_eval_rounding.py [--pieces chunks|songs] [--methods hpss,repet] [--seconds 89]

Drums and bass of ``music-stems``, which are 16-bit files. A decoder to floating point would have given samples up to half a step away from them; in their
stead noise, uniform within half a step (Philox, seed 0), is added to both sources. Mixtures, estimates and scores are made once of the files as they
are and once of the sources with that noise, at -101 dBFS. ``chunks``: the mixtures of ``stems-drums-bass``, in which both sources sound. ``songs``: the
four songs from start to end, rests included. Windows of one second, scored by museval itself.

Per method and ratio: the largest change of a window (``from`` -> ``to``), the median change, and what becomes of the mean and the median over all
windows. Rows go to ``benchmarks/results/bss_eval_rounding_PIECES.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sepbench.data.datasets import open_dataset
from sepbench.data.readers.music_stems import CHUNKS_PER_SONG, SONGS
from sepbench.metrics.bss_eval_images import museval_ratios
from sepbench.metrics.sdr import silent_windows, window_ratios
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures, RunContext
from sepbench.registry import create_separator
from sepbench.suites.loader import load_suite

RESULTS = Path(__file__).parent / "results"
RATIOS = ("sdr", "isr", "sir", "sar")
FULL_SCALE = 32_768


def pieces(kind: str, task: Any, seconds: int) -> Iterator[torch.Tensor]:
    """Sources ``(2, 1, T)`` of one piece after the other."""
    if kind == "chunks":
        found = task.mixture_set()
        yield from (found.sources([number])[0] for number in range(len(found)))
        return
    stems = [open_dataset(f"music-stems/{stem}", "test") for stem in ("drums", "bass")]
    for song in range(len(SONGS)):
        rows = torch.arange(song * CHUNKS_PER_SONG, (song + 1) * CHUNKS_PER_SONG)
        yield torch.stack([stem.load(rows).reshape(1, -1)[:, : seconds * task.spec.sample_rate] for stem in stems])


def estimates_of(separator: Any, sources: torch.Tensor, number: int, task: Any) -> torch.Tensor:
    """``(2, 1, T)``."""
    ctx = RunContext(replace(task.spec, source_shape=tuple(sources.shape[1:])), "cpu", NoiseSource(0), 0)
    operator = make_operator("mean", 2)
    estimates: torch.Tensor = separator.separate(Mixtures(operator.forward(sources[None]), torch.tensor([number]), operator), ctx)
    return estimates[0]


def of_windows(estimates: torch.Tensor, references: torch.Tensor, window: int) -> np.ndarray:
    """``(4, K, windows)`` dB in the order of ``RATIOS``; NaN where a signal is silent in the window, or throughout."""
    x, y = (values[None].double().numpy() for values in (estimates, references))
    sdr = window_ratios(estimates[None], references[None], window, crossed=False)[0]
    if (silent_windows(x, x.shape[-1]) | silent_windows(y, y.shape[-1])).any():
        return np.full((len(RATIOS), *sdr.shape), np.nan)
    return np.concatenate([sdr[None], museval_ratios(x[0], y[0], window)])


def rows_of(method: str, exact: np.ndarray, shaken: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for name, before, after in zip(RATIOS, exact, shaken, strict=True):
        defined = np.isfinite(before) & np.isfinite(after)
        first, second = before[defined], after[defined]
        moved = np.abs(second - first)
        worst = int(moved.argmax())
        rows.append(
            {
                "method": method,
                "ratio": name,
                "windows": len(moved),
                "silent_in_16_bits": int((~np.isfinite(before) & np.isfinite(after)).sum()),
                "largest_change": round(float(moved[worst]), 2),
                "from": round(float(first[worst]), 2),
                "to": round(float(second[worst]), 2),
                "above_1_db": int((moved > 1).sum()),
                "median_change": round(float(np.median(moved)), 4),
                "mean_16_bits": round(float(first.mean()), 2),
                "mean_with_noise": round(float(second.mean()), 2),
                "median_16_bits": round(float(np.median(first)), 2),
                "median_with_noise": round(float(np.median(second)), 2),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", choices=("chunks", "songs"), default="songs")
    parser.add_argument("--methods", default="hpss,repet")
    parser.add_argument("--seconds", type=int, default=89, help="of every song")
    args = parser.parse_args()
    task = load_suite("stems-drums-bass").tasks["best-assignment"]
    draws = np.random.Generator(np.random.Philox(0))
    files = list(pieces(args.pieces, task, args.seconds))
    noisy = [piece + torch.from_numpy(draws.uniform(-0.5, 0.5, piece.shape) / FULL_SCALE).float() for piece in files]
    rows = []
    for method in args.methods.split(","):
        separator, window = create_separator(method, domain="audio"), task.spec.sample_rate or 0
        found = [
            np.concatenate([of_windows(estimates_of(separator, piece, n, task), piece, window) for n, piece in enumerate(side)], axis=2)
            for side in (files, noisy)
        ]
        rows += rows_of(method, *found)
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS / f"bss_eval_rounding_{args.pieces}.csv", index=False, lineterminator="\n")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
