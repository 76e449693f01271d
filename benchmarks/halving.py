"""Trainings in bfloat16 on this CPU with the convolutions of ``baselines/networks/halving.py`` and with torch's own, by turns.

    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/halving.py > benchmarks/results/halving.csv
    OMP_NUM_THREADS=1 PYTHONPATH=. python benchmarks/halving.py --layers > benchmarks/results/halving_layers.csv

One row per training: the medians of a step in milliseconds, and how many times as fast ours is. The mask networks take batches of 32 as NES does, the
adversarial generator and discriminator of S-D batches of 128. Weights are random, and so are images: no step depends on their values.

``--layers`` has one row per layer instead: values and both gradients as torch computes them, with channels last, and as a matrix product.
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
from torch.nn import functional

from baselines.networks.halving import DoublingConv2d, HalvingConv2d, double, halve
from baselines.training.generative import GANRecipe, GANTraining, new_networks
from baselines.training.mask import MaskRecipe, MaskTraining, mask_layout, new_network
from sepbench.precision import computes_bfloat16
from sepbench.run.provenance import cpu_model

MASKS = {"masks of 32 x 32": (1, 32, 32), "masks of 64 x 64": (3, 64, 64), "masks of spectra": (1, 257, 64)}
GAN = "S-D, 28 x 28"
LAYERS = ((32, 64, 128, 16), (32, 128, 256, 8), (32, 128, 256, 16), (32, 256, 512, 8), (128, 128, 256, 14), (128, 256, 512, 8), (64, 64, 128, 32))
"""Batch, channels of the larger map, channels of the smaller one, side of the larger one."""


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


def layer_steps(batch: int, wide: int, deep: int, side: int, transposed: bool) -> dict[str, Callable[[], object]]:
    """Values and gradients of one layer in bfloat16, by three routes."""
    weight = torch.randn(deep, wide, 4, 4).bfloat16()
    x = (torch.randn(batch, deep, side // 2, side // 2) if transposed else torch.randn(batch, wide, side, side)).bfloat16()
    own = functional.conv_transpose2d if transposed else functional.conv2d

    def route(layout: torch.memory_format, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[[], object]:
        inputs = [value.contiguous(memory_format=layout).requires_grad_() for value in (x, weight)]
        gradient = torch.randn_like(function(*inputs))
        return lambda: torch.autograd.grad(function(*inputs), inputs, gradient)

    return {
        "torch": route(torch.contiguous_format, lambda x, w: own(x, w, stride=2, padding=1)),
        "channels_last": route(torch.channels_last, lambda x, w: own(x, w, stride=2, padding=1)),
        "product": route(torch.contiguous_format, double if transposed else halve),
    }


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
    parser.add_argument("--layers", action="store_true", help="single layers instead of whole steps")
    asked = parser.parse_args()
    if not computes_bfloat16("cpu"):
        sys.exit("this processor trains in float32, where both are torch's own; take one with AVX-512 BF16 or AMX")
    rows = csv.writer(sys.stdout, lineterminator="\n")
    machine = [cpu_model(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
    start = ["cpu", "instruction_set", "threads"]
    if asked.layers:
        rows.writerow([*start, "layer", "batch", "wide", "deep", "side", "torch_ms", "channels_last_ms", "product_ms"])
        for shape in LAYERS:
            for transposed in (False, True):
                took = seconds_of(layer_steps(*shape, transposed), asked.repeats)
                rows.writerow([*machine, "doubling" if transposed else "halving", *shape, *(f"{1e3 * seconds:.1f}" for seconds in took.values())])
                sys.stdout.flush()
        sys.exit()
    rows.writerow([*start, "training", "torch_ms", "halving_ms", "times_as_fast"])
    makers: dict[str, Callable[[bool], Callable[[], object]]] = {name: lambda own, shape=shape: mask_step(shape, own) for name, shape in MASKS.items()}
    for training, make in {**makers, GAN: gan_step}.items():
        took = seconds_of({"own": make(True), "ours": make(False)}, asked.repeats)
        rows.writerow([*machine, training, f"{1e3 * took['own']:.1f}", f"{1e3 * took['ours']:.1f}", f"{took['own'] / took['ours']:.2f}"])
        sys.stdout.flush()
