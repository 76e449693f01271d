"""``conv-tasnet`` and ``demucs`` on one core: the SDR of a short training on validation chunks, and the seconds of a step and of a separation.

    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/waveform_steps.py learn conv-tasnet --steps 300
    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/waveform_steps.py step

``learn`` trains on ``drums-bass-synth`` (``--suite``, ``--task``) and separates the first ``--examples`` validation mixtures, with the parts as they are and
with what they leave of the mixture spread over them. ``step`` measures both precisions by turns and takes the least of five. Seconds are CPU seconds of the
process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

from baselines.networks.conv_tasnet import ConvTasNet, ConvTasNetConfig
from baselines.networks.demucs import Demucs, DemucsConfig
from sepbench.metrics.sdr import median_of_windows, window_ratios
from sepbench.noise import NoiseSource
from sepbench.protocols import RunContext
from sepbench.registry import create_separator
from sepbench.suites.loader import load_suite

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "conv-tasnet": lambda: ConvTasNet(ConvTasNetConfig(2, 1, 256, 66, 96, 192, 96, 3, 7, 2)),
    "demucs": lambda: Demucs(DemucsConfig(2, 1, 24, 5)),
}
"""The registered layouts at 22,050 Hz."""


def learn(method: str, steps: int, suite: str, name: str, examples: int) -> None:
    task = load_suite(suite).tasks[name]
    separator = create_separator(method, {"steps": steps}, task.spec.domain)
    view, ctx = task.view("sources"), RunContext(task.spec, "cpu", NoiseSource(0), 0)
    view.rows("sources", 0)  # opens the data
    start = time.process_time()
    separator.fit(view, ctx)
    seconds = time.process_time() - start
    print(f"{method}: {steps} steps in {seconds:.0f} s, {steps / seconds:.2f} a second")
    ids = torch.arange(min(examples, task.n_examples))
    mixtures, sources = task.mixture_set().mixtures(ids, "cpu"), task.mixture_set().sources(ids)
    for consistent in (False, True):
        separator.consistent = consistent  # type: ignore[attr-defined]
        ratios = median_of_windows(window_ratios(separator.separate(mixtures, ctx), sources, task.spec.sample_rate or 1, crossed=False))
        means = torch.as_tensor(ratios).nanmean(0)
        print(f"  consistent={consistent}: SDR {', '.join(f'{value:.2f}' for value in means.tolist())}; mean {float(means.mean()):.2f}")


def step() -> None:
    for method, make in NETWORKS.items():
        network, least = make(), {"float32": float("inf"), "bfloat16": float("inf"), "separation": float("inf")}
        batch, one = torch.randn(4, 1, 32_768), torch.randn(1, 1, 65_536)
        for _ in range(5):
            for precision in ("float32", "bfloat16"):
                start = time.process_time()
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                    parts = network(batch)
                parts.float().abs().mean().backward()
                least[precision] = min(least[precision], time.process_time() - start)
            start = time.process_time()
            with torch.no_grad():
                network(one)
            least["separation"] = min(least["separation"], time.process_time() - start)
        print(method, {name: round(seconds, 3) for name, seconds in least.items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["learn", "step"])
    parser.add_argument("method", nargs="?", choices=list(NETWORKS), default="conv-tasnet")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--suite", default="drums-bass-synth")
    parser.add_argument("--task", default="by-role-val")
    parser.add_argument("--examples", type=int, default=20)
    asked = parser.parse_args()
    if asked.what == "step":
        step()
    else:
        learn(asked.method, asked.steps, asked.suite, asked.task, asked.examples)
