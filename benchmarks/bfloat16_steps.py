"""Training steps in float32 and in bfloat16 under autocast, by turns, and what ``training_autocast`` makes of the latter on this processor.

    OMP_NUM_THREADS=2 python benchmarks/bfloat16_steps.py > benchmarks/results/bfloat16_steps.csv

One row per network and image size: the medians of a step on 32 mixtures, in milliseconds, and how many times the seconds of float32 a step in bfloat16
takes. Where ``computes_bfloat16`` is ``no``, trainings compute in float32 whatever ``fit_precision`` says.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time

import torch

from baselines.training.mask import mask_layout, masked_parts, new_network
from sepbench.precision import computes_bfloat16
from sepbench.run.provenance import cpu_model

SHAPES = ((1, 8, 8), (1, 32, 32))


def step_seconds(name: str, shape: tuple[int, int, int], repeats: int) -> dict[str, float]:
    """Precision -> the median of forward and backward pass."""
    network, mixtures = new_network(mask_layout(name, shape), 0), torch.rand(32, *shape)
    found: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for repeat in range(repeats + 1):
        for precision, seconds in found.items():
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                parts = masked_parts(network, mixtures)
            parts.float().abs().mean().backward()
            if repeat:  # the first step of each finds kernels
                seconds.append(time.perf_counter() - start)
    return {precision: statistics.median(seconds) for precision, seconds in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["cpu", "instruction_set", "threads", "computes_bfloat16", "network", "shape", "float32_ms", "bfloat16_ms", "ratio"])
    machine = [cpu_model(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), "yes" if computes_bfloat16("cpu") else "no"]
    for shape in SHAPES:
        for name in ("autoencoder", "unet"):
            took = step_seconds(name, shape, asked.repeats)
            told = [f"{1e3 * took[precision]:.1f}" for precision in ("float32", "bfloat16")]
            rows.writerow([*machine, name, "x".join(map(str, shape)), *told, f"{took['bfloat16'] / took['float32']:.1f}"])
