"""SDR of BSS Eval v4, and v3: our batched versions against a loop over museval, interleaved in one run.

::

    OMP_NUM_THREADS=1 python benchmarks/sdr.py [--mixtures 20] [--repeats 5] [--seconds 2.972] [--rate 22050]

A mixture has two mono sources (noise of two colours) and two estimates with leakage and noise, float32. Each repeat times museval and ours on the
same mixtures one after the other, in chunks, so that other work on the machine hits both. Prints medians over the repeats and the ratio of the
medians, museval / ours, on the wall and in CPU time (with one thread the fairer of the two on a busy machine). Target: at least 100 for SDR
alone (v4); v3 is printed for the record.

``museval.evaluate`` has no way to compute SDR alone: its time includes ISR, SIR and SAR.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
import scipy.signal
import torch

from sepbench.compat import import_museval
from sepbench.metrics.bss_eval_v3 import SDR_V3
from sepbench.metrics.sdr import median_of_windows, window_ratios

TARGET = 100.0

Side = Callable[[torch.Tensor, torch.Tensor], np.ndarray]


def make_mixtures(count: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Estimates and references ``(count, 2, 1, length)`` float32."""
    rng = np.random.Generator(np.random.PCG64(0))
    white = rng.standard_normal((count, 2, 1, length))
    sources = np.stack([scipy.signal.lfilter([0.1], [1.0, -0.9], white[:, 0]), scipy.signal.lfilter([0.1, -0.09], [1.0], white[:, 1])], axis=1)
    estimates = sources + 0.3 * sources[:, ::-1] + 0.02 * rng.standard_normal(sources.shape)
    return torch.from_numpy(estimates.astype(np.float32)), torch.from_numpy(sources.astype(np.float32))


def sides(rate: int) -> dict[str, tuple[Side, Side, float | None]]:
    """By name: museval's loop, ours, and the ratio that is wanted. Each maps ``(B, 2, 1, T)`` twice to ``(B, 2)`` dB."""
    museval = import_museval()

    def each(score: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Side:
        def loop(estimates: torch.Tensor, references: torch.Tensor) -> np.ndarray:
            pairs = zip(estimates.numpy(), references.numpy(), strict=True)
            return np.stack([score(x.swapaxes(1, 2), y.swapaxes(1, 2)) for x, y in pairs])

        return loop

    def v4(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.nanmedian(museval.evaluate(y, x, win=rate, hop=rate)[0], axis=1)

    def v3(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return museval.metrics.bss_eval_sources(y, x, compute_permutation=False)[0][:, 0]

    def our_v4(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
        return median_of_windows(window_ratios(x, y, rate, crossed=False))

    def our_v3(x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
        return SDR_V3.pairwise(x.flatten(0, 1)[:, None], y.flatten(0, 1)[:, None]).reshape(-1, 2).numpy()

    return {"sdr (v4)": (each(v4), our_v4, TARGET), "sdr_v3": (each(v3), our_v3, None)}


def both_clocks() -> np.ndarray:
    """Seconds on the wall and of CPU time."""
    return np.array([time.perf_counter(), time.process_time()])


def time_interleaved(theirs: Side, ours: Side, x: torch.Tensor, y: torch.Tensor, chunk: int) -> tuple[np.ndarray, float]:
    """``[[wall, CPU] of museval's loop, [wall, CPU] of ours]`` in seconds, and the largest difference in dB."""
    seconds, difference = np.zeros((2, 2)), 0.0
    for start in range(0, len(x), chunk):
        a, b = x[start : start + chunk], y[start : start + chunk]
        begin = both_clocks()
        expected = theirs(a, b)
        middle = both_clocks()
        got = ours(a, b)
        end = both_clocks()
        seconds += np.stack([middle - begin, end - middle])
        difference = max(difference, float(np.abs(got - expected).max()))
    return seconds, difference


def main() -> None:
    parser = argparse.ArgumentParser(description="SDR against a loop over museval")
    parser.add_argument("--mixtures", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=65_536 / 22_050)
    parser.add_argument("--rate", type=int, default=22_050)
    parser.add_argument("--chunk", type=int, default=10, help="mixtures between two switches of the side that is timed")
    args = parser.parse_args()
    length = round(args.seconds * args.rate)
    x, y = make_mixtures(args.mixtures, length)
    print(f"{args.mixtures} mixtures of 2 mono sources, {length:,} samples at {args.rate} Hz; {args.repeats} repeats; load {os.getloadavg()[0]:.1f}")
    for name, (theirs, ours, target) in sides(args.rate).items():
        time_interleaved(theirs, ours, x[:2], y[:2], 2)  # warm-up
        rows = [time_interleaved(theirs, ours, x, y, args.chunk) for _ in range(args.repeats)]
        medians = np.median([seconds for seconds, _ in rows], axis=0) / args.mixtures * 1e3
        print(f"{name}: largest difference {max(difference for _, difference in rows):.1e} dB" + (f"; target: ratio {target:.0f}" if target else ""))
        for clock, (slow, fast) in zip(("wall", "CPU"), medians.T, strict=True):
            print(f"  {clock:4} time per mixture: museval {slow:.1f} ms, ours {fast:.3f} ms, ratio of medians {slow / fast:.0f}")


if __name__ == "__main__":
    main()
