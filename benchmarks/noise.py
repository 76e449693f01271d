"""Throughput of the counter-based noise beside torch's own generator, interleaved in one process.

python benchmarks/noise.py [--device cuda]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from sepbench.noise import NoiseSource


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    shape = (1, 28, 28)
    ids = torch.arange(arguments.examples)
    noise = NoiseSource(0)
    generator = torch.Generator(arguments.device)
    draws = {
        "uniform (Philox, by example)": lambda: noise.uniform(ids, 0, 0, shape, arguments.device),
        "normal (Philox, by example)": lambda: noise.normal(ids, 0, 0, shape, arguments.device),
        "torch.randn (one stream)": lambda: torch.randn(len(ids), *shape, generator=generator, device=arguments.device),
    }
    seconds: dict[str, list[float]] = {name: [] for name in draws}
    for repeat in range(arguments.repeats + 1):
        for name, draw in draws.items():
            start = time.perf_counter()
            draw()
            if arguments.device != "cpu":
                torch.cuda.synchronize()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    count = arguments.examples * 784
    print(f"{arguments.examples} examples of 784 numbers, {torch.get_num_threads()} threads, {arguments.device}")
    for name, taken in seconds.items():
        print(f"{name:32s} median {count / statistics.median(taken) / 1e6:8.1f} M/s   range {count / max(taken) / 1e6:.1f} .. {count / min(taken) / 1e6:.1f}")


if __name__ == "__main__":
    main()
