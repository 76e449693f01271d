"""Trainings in bfloat16 on this CPU with the convolutions of ``baselines/networks/halving.py`` and with torch's own, by turns.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/halving.py > benchmarks/results/halving.csv

One row per training: the medians of a step in milliseconds, and how many times as fast ours is. The mask networks take batches of 32 as NES does, the
adversarial generator and discriminator of S-D batches of 128. Weights are random, and so are images: no step depends on their values.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from baselines.networks.halving import DoublingConv2d, HalvingConv2d
from baselines.training.generative import GANRecipe, GANTraining, new_networks
from baselines.training.mask import MaskRecipe, MaskTraining, mask_layout, new_network
from sepbench.precision import computes_bfloat16
from sepbench.run.provenance import cpu_model

MASKS = {"masks of 32 x 32": (1, 32, 32), "masks of 64 x 64": (3, 64, 64), "masks of spectra": (1, 257, 64)}
GAN = "S-D, 28 x 28"


def with_torchs_own(network: nn.Module) -> nn.Module:
    """The same network with torch's own convolutions."""
    for module in network.modules():
        if isinstance(module, HalvingConv2d):
            module.__class__ = nn.Conv2d
        if isinstance(module, DoublingConv2d):
            module.__class__ = nn.ConvTranspose2d
    return network


def mask_step(shape: tuple[int, int, int], own: bool) -> Callable[[], object]:
    """A step of NES' network on sums of two random parts."""
    network = new_network(mask_layout("autoencoder", shape), 0)
    training = MaskTraining(with_torchs_own(network) if own else network, MaskRecipe(1e-3))
    parts = torch.rand(32, 2, *shape)
    return lambda: training.update(parts)


def gan_step(own: bool) -> Callable[[], object]:
    """A step of S-D: one update of the discriminator and one of the generator."""
    networks = new_networks(100, (1, 28, 28), 0, "cpu")
    if own:
        for network in networks:
            with_torchs_own(network)
    return GANTraining(*networks, GANRecipe(lr=2e-4, steps=1_000_000), torch.rand(512, 1, 28, 28)).advance


def seconds_of(steps: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median seconds of each step. They are taken by turns, so that a slow minute of the machine meets all."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repeat > 1:  # the first steps find kernels
                found[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    asked = parser.parse_args()
    if not computes_bfloat16("cpu"):
        sys.exit("this processor trains in float32, where both are torch's own; take one with AVX-512 BF16 or AMX")
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["cpu", "instruction_set", "threads", "training", "torch_ms", "halving_ms", "times_as_fast"])
    machine = [cpu_model(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
    makers: dict[str, Callable[[bool], Callable[[], object]]] = {name: lambda own, shape=shape: mask_step(shape, own) for name, shape in MASKS.items()}
    for training, make in {**makers, GAN: gan_step}.items():
        took = seconds_of({"own": make(True), "ours": make(False)}, asked.repeats)
        rows.writerow([*machine, training, f"{1e3 * took['own']:.1f}", f"{1e3 * took['ours']:.1f}", f"{took['own'] / took['ours']:.2f}"])
        sys.stdout.flush()
