"""Blind audio separation: seconds per mixture of nussl 1.1.9 and of ours, at batch 1 and in batches, in one run; and how far the estimates agree.

::

    python benchmarks/nussl_speed.py [--batch 64] [--repeats 5] [--methods hpss,repet] [--task fsdd-pairs/class-split-val]

Mixtures are 3 s of drums and bass at 22,050 Hz, made here, or the first ones of a suite's task. Each repeat times nussl on some of them
one by one, then ours one by one, then ours in one batch, so that other work on the machine hits all three; printed are medians over repeats
and the ratios of medians. Both sides start from the signal and end with both estimates as signals; both are warmed up first (the first call
of nussl's HPSS compiles for seconds). The agreement is the lowest correlation of an estimate of nussl's with ours, over all mixtures.

On a machine with other work, threads that spin while they wait make torch ten times slower: set ``GOMP_SPINCOUNT=0``. On an idle one leave it
unset: there it takes rPCA on two threads from 0.10 to 0.22 s.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sepbench.compat import import_nussl
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures, RunContext, Separator, TaskSpec
from sepbench.registry import create_separator
from sepbench.suites.loader import load_suite

RATE, SECONDS = 22_050, 3.0
METHODS = {"hpss": "HPSS", "repet": "Repet", "repet-sim": "RepetSim", "ft2d": "FT2D", "rpca": "RPCA"}
"""Our name and nussl's."""

Signal = NDArray[np.float64]


def drums_and_bass(seed: int) -> Signal:
    """A bar of noise bursts over plucked low notes, ``(T,)`` in [-1, 1]."""
    rng = np.random.Generator(np.random.PCG64(seed))
    length, beat = int(SECONDS * RATE), 0.4 + 0.2 * rng.random()
    signal = np.zeros(length)
    for number in range(int(SECONDS / beat) + 1):
        start = min(length, int(number * beat * RATE))
        time_left = np.arange(length - start) / RATE
        signal[start:] += 0.5 * np.exp(-30 * time_left) * rng.standard_normal(len(time_left))
        pitch = 55 * 2 ** (rng.integers(0, 12) / 12)
        note = sum(np.sin(2 * np.pi * pitch * overtone * time_left) / overtone for overtone in range(1, 9))
        signal[start:] += 0.3 * note * np.exp(-4 * time_left) * (time_left < beat)
    return signal / np.abs(signal).max()


@dataclass(frozen=True)
class Contest:
    """The two sides of a method on the same mixtures."""

    theirs: Callable[[Signal], Any]
    ours: Separator
    context: RunContext
    signals: list[Signal]

    def seconds_of_nussl(self, count: int) -> float:
        begin = time.perf_counter()
        for signal in self.signals[:count]:
            self.theirs(signal)
        return (time.perf_counter() - begin) / count

    def seconds_of_ours(self, count: int, batch: int) -> float:
        values = torch.from_numpy(np.stack(self.signals[:count])).float().unsqueeze(1)
        operator = make_operator("mean", 2)
        begin = time.perf_counter()
        for rows in torch.arange(count).split(batch):
            self.ours.separate(Mixtures(values[rows], rows, operator), self.context)
        return (time.perf_counter() - begin) / count

    def least_correlation(self) -> float:
        """Lowest correlation of one of nussl's two estimates with ours, over all mixtures; estimates of silence count as equal."""
        values = torch.from_numpy(np.stack(self.signals)).float().unsqueeze(1)
        ours = self.ours.separate(Mixtures(values, torch.arange(len(values)), make_operator("mean", 2)), self.context)[:, :, 0].double().numpy()
        theirs = np.stack([[estimate.audio_data[0] for estimate in self.theirs(signal)] for signal in self.signals])
        products, energies = (ours * theirs).sum(-1), np.sqrt(np.square(ours).sum(-1) * np.square(theirs).sum(-1))
        return float(np.where(energies > 0, products / np.maximum(energies, np.finfo(float).tiny), 1.0).min())

    def measure(self, count: int, batch: int) -> tuple[float, float, float]:
        """Seconds per mixture of nussl, of ours one by one, and of ours in one batch."""
        return self.seconds_of_nussl(count), self.seconds_of_ours(count, 1), self.seconds_of_ours(batch, batch)


def contest(method: str, nussl: Any, signals: list[Signal], rate: int) -> Contest | None:
    """None if our method does not take audio (yet)."""
    spec = TaskSpec(
        "benchmark", method, "audio", 2, (1, len(signals[0])), "mean", ("a", "b"), "permutation", (0, 1), sample_rate=rate, datasets=("none", "none")
    )
    ours = create_separator(method, domain="audio")
    if not ours.supports(spec).ok:
        return None
    algorithm = _nussl_class(METHODS[method])

    def theirs(signal: Signal) -> Any:
        return algorithm(nussl.AudioSignal(audio_data_array=signal.copy(), sample_rate=rate))()

    return Contest(theirs, ours, RunContext(spec, "cpu", NoiseSource(0), 0), signals)


def _nussl_class(name: str) -> Any:
    rooms = (importlib.import_module(f"nussl.separation.{room}") for room in ("primitive", "factorization"))
    return next(getattr(room, name) for room in rooms if hasattr(room, name))


def mixtures_of(task: str, count: int) -> tuple[list[Signal], int]:
    """The first mixtures of ``SUITE/TASK``, one channel, and their sample rate."""
    suite, _, name = task.partition("/")
    chosen = load_suite(suite).tasks[name]
    if not chosen.spec.sample_rate or chosen.spec.source_shape[0] != 1:
        raise SystemExit(f"{task} is no task of mono recordings")
    values = chosen.mixture_set().mixtures(torch.arange(min(count, chosen.n_examples)), "cpu").values
    return list(values[:, 0].double().numpy()), chosen.spec.sample_rate


def main() -> None:
    parser = argparse.ArgumentParser(description="nussl against ours, seconds per mixture")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--single", type=int, default=4, help="mixtures that each repeat separates one by one")
    parser.add_argument("--task", default="", help="SUITE/TASK of mono recordings, instead of the mixtures made here")
    parser.add_argument("--methods", default=",".join(METHODS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    nussl = import_nussl()
    signals, rate = mixtures_of(args.task, args.batch) if args.task else ([drums_and_bass(seed) for seed in range(args.batch)], RATE)
    print(f"{len(signals)} mixtures of {len(signals[0]) / rate:.1f} s at {rate} Hz; {args.repeats} repeats; {torch.get_num_threads()} threads", end="; ")
    print(f"load {os.getloadavg()[0]:.1f}")
    print(f"{'method':<10} {'nussl':>10} {'batch 1':>10} {f'batch {len(signals)}':>10}   ratios of medians   least correlation")
    for method in args.methods.split(","):
        sides = contest(method, nussl, signals, rate)
        if sides is None:
            print(f"{method:<10} does not take audio")
            continue
        sides.measure(1, len(signals))  # warm-up
        rows = [sides.measure(args.single, len(signals)) for _ in range(args.repeats)]
        theirs, single, batched = (statistics.median(row[side] for row in rows) for side in range(3))
        times = f"{method:<10} {1e3 * theirs:>7.1f} ms {1e3 * single:>7.1f} ms {1e3 * batched:>7.1f} ms"
        print(f"{times}   {theirs / single:.1f}x and {theirs / batched:.1f}x   {sides.least_correlation():.5f}", flush=True)


if __name__ == "__main__":
    main()
