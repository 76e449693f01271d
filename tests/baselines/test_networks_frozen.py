"""Networks of every layout give the numbers that weights on disk were trained for.

Weights, prior files and kept fits hold parameters alone: what is done with them is code. Here every parameter is a wave of its place, and the outputs and
gradients are held against a few numbers that were written down once (run this file to write them again, which makes all trained weights worthless).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from frozen_outcomes import projections
from torch import nn

from baselines.networks.classifier import ClassifierConfig, SmallClassifier
from baselines.networks.conv_tasnet import ConvTasNet, ConvTasNetConfig
from baselines.networks.dcgan import egg_discriminator, egg_generator, sd_discriminator, sd_generator
from baselines.networks.demucs import Demucs, DemucsConfig
from baselines.networks.mask_autoencoder import MaskAutoencoder, MaskConfig
from baselines.networks.mask_unet import MaskUNet, MaskUNetConfig
from baselines.networks.ncsn_refinenet import CondRefineNetDilated
from baselines.networks.token_transformer import TokenTransformer
from baselines.networks.unet import ScoreUNet, UNetConfig
from baselines.networks.vqvae import VQVAE

FILE = Path(__file__).parents[1] / "golden" / "network_outputs.json"
IMAGES = (2, 1, 8, 8)
TOKENS = torch.tensor([[1, 4, 2, 0], [3, 3, 1, 2]])
LEVELS = torch.tensor([-0.7, 0.2])


def wave(*shape: int) -> torch.Tensor:
    """Values in [0, 1] of which no two neighbours agree."""
    count = torch.Size(shape).numel()
    return (0.5 + 0.5 * torch.sin(1.7 * torch.arange(count, dtype=torch.float32) + 0.3)).reshape(shape)


def filled(network: nn.Module) -> nn.Module:
    """Its parameters and running statistics are waves, as large as sums of so many terms want."""
    for number, (name, tensor) in enumerate(network.state_dict().items()):
        if not tensor.is_floating_point():
            continue
        spread = 1.0 / max(1, tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.5
        place = torch.arange(tensor.numel(), dtype=torch.float32)
        values = spread * torch.cos(2.1 * place + number).reshape(tensor.shape)
        tensor.copy_(1.0 + 0.5 * values.abs() if name.endswith("running_var") else values)
    return network


CASES: Mapping[str, Callable[[], tuple[nn.Module, Callable[[nn.Module], torch.Tensor]]]] = {
    "unet": lambda: (ScoreUNet(UNetConfig(1, (8, 8, 16), (1, 2, 1), 2, 8)), lambda net: net(wave(*IMAGES), LEVELS)),
    "unet, no attention": lambda: (ScoreUNet(UNetConfig(3, (8, 16, 8), (2, 1, 1), 0, 8)), lambda net: net(wave(2, 3, 8, 12), LEVELS)),
    "ncsn": lambda: (CondRefineNetDilated(1, 4), lambda net: net(wave(*IMAGES), torch.tensor([2, 7]))),
    "mask-unet": lambda: (MaskUNet(MaskUNetConfig(1, 2, (8, 8, 8), (1, 1, 1), 2)), lambda net: net(wave(*IMAGES))),
    "mask-autoencoder": lambda: (MaskAutoencoder(MaskConfig(1, 2, 3)), lambda net: net(wave(2, 1, 9, 8))),
    "mask-autoencoder, masks": lambda: (MaskAutoencoder(MaskConfig(2, 2, 3, 3, running_statistics=False)), lambda net: net(wave(2, 2, 8, 8))),
    "sd-generator": lambda: (sd_generator(3, (1, 6, 6)), lambda net: net(wave(2, 3))),
    "sd-discriminator": lambda: (sd_discriminator((1, 8, 8)), lambda net: net(wave(*IMAGES))),
    "egg-generator": lambda: (egg_generator(3, 1, 16, 4, (9, 12)), lambda net: net(wave(2, 3))),
    "egg-discriminator": lambda: (egg_discriminator(1, (16, 16), 2, 4, spectral=False), lambda net: net(wave(2, 1, 16, 16))),
    "egg-discriminator, spectral": lambda: (egg_discriminator(1, (16, 16), 2, 4), lambda net: net(wave(2, 1, 16, 16))),
    "conv-tasnet": lambda: (ConvTasNet(ConvTasNetConfig(2, 1, 6, 8, 5, 7, 4, 3, 2, 2)), lambda net: net(wave(2, 1, 50))),
    "demucs": lambda: (Demucs(DemucsConfig(2, 1, 4, 2, lstm_layers=1)), lambda net: net(wave(2, 1, 50))),
    "demucs, no lstm": lambda: (Demucs(DemucsConfig(3, 2, 4, 2, lstm_layers=0)), lambda net: net(wave(2, 2, 50))),
    "transformer": lambda: (TokenTransformer(5, 4, 8, 2, 2), lambda net: net(TOKENS)),
    "vqvae": lambda: (VQVAE(1, (8, 8), 5, 4), lambda net: net(wave(*IMAGES)).images),
    "classifier": lambda: (SmallClassifier(ClassifierConfig(3, (4, 5, 6), 3)), lambda net: net(wave(2, 3, 18, 20))),
    "classifier, features": lambda: (SmallClassifier(ClassifierConfig(1, (4, 5, 6), 3)), lambda net: net.features(wave(2, 1, 18, 20))),  # type: ignore[operator]
    "classifier, maps": lambda: (
        SmallClassifier(ClassifierConfig(1, (4, 5, 6), 3)),
        lambda net: torch.cat([m.flatten() for m in net.maps(wave(2, 1, 18, 20))]),
    ),  # type: ignore[operator]
}


def numbers(case: str, training: bool) -> list[float]:
    """Of the output, then of all its parameters' gradients."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network, run = CASES[case]()
        filled(network).train(training)
        out = run(network)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    found = torch.autograd.grad((out * (1.0 + wave(*out.shape))).square().sum(), weights, allow_unused=True)
    gradient = torch.cat([torch.zeros(weight.numel()) if part is None else part.flatten() for weight, part in zip(weights, found, strict=True)])
    return [*projections(out), *projections(gradient)]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("case", CASES)
def test_a_layout_gives_the_numbers_that_it_gave(case: str, training: bool) -> None:
    wanted = json.loads(FILE.read_text(encoding="utf-8"))[f"{case} {training}"]
    found = numbers(case, training)
    half = len(wanted) // 2
    for own, kept in ((found[:half], wanted[:half]), (found[half:], wanted[half:])):
        assert own == pytest.approx(kept, abs=2e-3 * kept[0])


if __name__ == "__main__":
    table = {f"{case} {training}": [float(f"{value:.6g}") for value in numbers(case, training)] for case in CASES for training in (False, True)}
    lines = ",\n".join(f"{json.dumps(name)}: {values}" for name, values in table.items())
    FILE.write_text("{\n" + lines + "\n}\n", encoding="utf-8", newline="")
