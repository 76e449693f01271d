"""The first steps of every training: its loss at each, and how far and where its weights have moved, against what was written down once.

Trained weights, kept fits and figures of the documentation come out of these steps. Whoever changes them knowingly runs this file, which writes what is
frozen, and raises the versions of the methods that learn by them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from frozen_outcomes import projections
from torch import nn
from train_until_done import LAYOUT, tiny_images

from baselines.networks.classifier import ClassifierConfig
from baselines.networks.conv_tasnet import ConvTasNet, ConvTasNetConfig
from baselines.networks.mask_autoencoder import MaskConfig
from baselines.networks.mask_unet import MaskUNetConfig
from baselines.training.adversarial_mask import AdversarialTraining
from baselines.training.classifier import ClassifierRecipe, ClassifierTraining
from baselines.training.codec import VQVAERecipe, VQVAETraining, new_vqvae
from baselines.training.config import TrainConfig
from baselines.training.generative import GANRecipe, GANTraining
from baselines.training.generative import new_networks as new_gan
from baselines.training.latent import LatentRecipe, LatentTraining, new_generators
from baselines.training.mask import Loss, MaskRecipe, MaskTraining, mean_error, new_network, observed_error, permutation_invariant_error
from baselines.training.ncsn import NCSNConfig, NCSNTraining
from baselines.training.score import build_model
from baselines.training.tokens import SumTraining, TokenRecipe, TokenTraining, new_transformer
from baselines.training.trainer import ScoreTraining
from baselines.training.waveform import Remixes, WaveformRecipe, WaveformTraining, absolute_errors, negative_sdr
from baselines.training.waveform import new_network as new_waveform

FILE = Path(__file__).parents[1] / "golden" / "first_steps.json"
STEPS = 3
LOSS, MOVED = 2e-3, 0.1
"""How far rounding may take the loss (a share of it) and a projection of the weights' way (of its root mean square): Adam's first steps go by signs."""
MOVED_FURTHER: Mapping[str, float] = {"codec": 0.3}
"""The same where more was measured: between products with AVX2 and with AVX-512, 0.15 of the root mean square."""
Made = tuple[Any, list[nn.Module]]


def bars(count: int = 24, channels: int = 1) -> torch.Tensor:
    return (tiny_images(count).float() / 255.0).repeat(1, channels, 1, 1)


def waves(count: int, shift: float) -> torch.Tensor:
    """``(count, 1, 120)``."""
    place = torch.arange(120, dtype=torch.float32)
    return 0.3 * torch.sin(place * (0.05 + 0.02 * torch.arange(count)[:, None]) * shift + torch.arange(count)[:, None]).unsqueeze(1)


class Rows:
    def __init__(self, signals: torch.Tensor) -> None:
        self.signals = signals

    def __len__(self) -> int:
        return len(self.signals)

    def load(self, indices: torch.Tensor) -> torch.Tensor:
        return self.signals[indices]


def score(folder: Path, resident: bool = False, **changes: Any) -> Made:
    settings = {"steps": 4, "batch": 8, "warmup": 2, "workers": 2, "matrix_lr": 0.0, "mirror": True, "bf16": False, "ema": 0.15, "seed": 2}
    config = TrainConfig(**{**settings, **changes})  # type: ignore[arg-type]
    images = tiny_images()
    training = ScoreTraining(build_model(LAYOUT, images[:50], config.seed), images[:50], images[50:], config, folder, resident=resident)
    return training, [training.model]


def ncsn(folder: Path) -> Made:
    images = tiny_images()
    training = NCSNTraining(images[:50], images[50:], NCSNConfig(steps=9, batch=6, features=4, mirror=True, seed=3), folder)
    return training, [training.network]


def codec(means: float, restart: int) -> Made:
    recipe = VQVAERecipe(2, 8, 2e-3, 0.9, 0.4, 3.0, restart, "float32", 1, means)
    network = new_vqvae((1, 8, 8), 6, 5, 1, "cpu")
    return VQVAETraining(network, recipe, bars(), bars(4)), [network]


def tokens(dropout: float) -> Made:
    network = new_transformer(6, 4, 8, 2, 2, 5, "cpu")
    recipe = TokenRecipe(2, 8, 3e-3, 0.9, dropout, "float32", 5)
    words = torch.randint(6, (20, 4), generator=torch.Generator().manual_seed(0))
    return TokenTraining(network, recipe, words, words[:5]), [network]


def classifier(folder: Path, mirror: bool) -> Made:
    images = torch.rand(20, 3, 18, 18, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(20) % 3
    recipe = ClassifierRecipe((4, 5, 6), 2, 8, mirror, 2, 0.1, seed=6)
    training = ClassifierTraining(images, labels, recipe, folder)
    assert training.network.config == ClassifierConfig(3, (4, 5, 6), 3)
    return training, [training.network]


def gan() -> Made:
    networks = new_gan(6, (1, 8, 8), 7, "cpu")
    return GANTraining(*networks, GANRecipe(9, 1e-3, (0.4, 0.9), 8, "float32", 7), bars()), list(networks)


def latent(joint: bool) -> Made:
    generators = new_generators(5, (1, 8, 8), (0.7, 0.4), 8, "cpu")
    recipe = LatentRecipe(5, 1 + joint, 2e-3, 2e-2, (0.5, 0.9), 8, joint, 0.3, 0.0, "float32", 8)
    training = LatentTraining(generators, recipe, 0.7 * bars(17), 0.7 * bars(24)[:20] + 0.4 * bars(24)[4:24])
    return training, [generators, *training.codes.values()]


class OneBatch(MaskTraining):
    """Four steps on the same images, at half of the rate."""

    @property
    def fraction(self) -> float:
        return self.step / 4

    @property
    def finished(self) -> bool:
        return self.step >= 4

    def advance(self) -> None:
        self.update(torch.stack([bars(8), bars(16)[8:]], 1), 0.5)
        self.step += 1


def mask(layout: MaskConfig | MaskUNetConfig, loss: Loss, power: int = 1) -> Made:
    network = new_network(layout, 9)
    training = OneBatch(network, MaskRecipe(2e-3, (0.5, 0.9), 8, power, "float32", 9), loss)  # type: ignore[arg-type]
    return training, [network]


def adversarial() -> Made:
    network = new_network(MaskConfig(1, 2, 4), 10)
    training = AdversarialTraining(network, MaskRecipe(2e-3, (0.5, 0.9), 8, 1, "float32", 10), bars(17), bars(24) + bars(24).flip(0), 3, 0.5)
    return training, [network, training.discriminator]


def waveform(any_order: bool, weights: tuple[float, ...] | None) -> Made:
    network = new_waveform(lambda: ConvTasNet(ConvTasNetConfig(2, 1, 6, 8, 5, 7, 4, 3, 2, 2)), 11)
    errors = negative_sdr if any_order else absolute_errors
    recipe = WaveformRecipe(errors, any_order, 4, 3, 80, 2e-3, 0.9, 0.5, (0.3, 1.1), "float32", 11)
    return WaveformTraining(network, recipe, Remixes([Rows(waves(7, 1.0)), Rows(waves(5, 3.0))], weights, recipe)), [network]


CASES: Mapping[str, Callable[[Path], Made]] = {
    "score, AdamW": lambda folder: score(folder),
    "score, resident": lambda folder: score(folder, True),
    "score, Muon": lambda folder: score(folder, matrix_lr=5e-3),
    "score, bfloat16": lambda folder: score(folder, bf16=True),
    "ncsn": ncsn,
    "codec": lambda folder: codec(0.0, 0),
    "codec, means and restarts": lambda folder: codec(0.5, 2),
    "tokens": lambda folder: tokens(0.0),
    "tokens, dropout": lambda folder: tokens(0.2),
    "classifier": lambda folder: classifier(folder, False),
    "classifier, mirrored": lambda folder: classifier(folder, True),
    "gan": lambda folder: gan(),
    "latent": lambda folder: latent(False),
    "latent, joint": lambda folder: latent(True),
    "mask, observed": lambda folder: mask(MaskConfig(1, 2, 4), observed_error),
    "mask, power": lambda folder: mask(MaskConfig(1, 2, 4), observed_error, 2),
    "mask, all": lambda folder: mask(MaskUNetConfig(1, 2, (8, 8, 8), (1, 1, 1), 2), mean_error, 2),
    "mask, any order": lambda folder: mask(MaskConfig(1, 2, 4, 2), permutation_invariant_error),
    "adversarial": lambda folder: adversarial(),
    "waveform": lambda folder: waveform(False, (0.5, 0.25)),
    "waveform, any order": lambda folder: waveform(True, None),
}


def weights_of(networks: list[nn.Module]) -> torch.Tensor:
    return torch.cat([weight.detach().double().flatten() for network in networks for weight in network.parameters()])


def sizes(networks: list[nn.Module]) -> list[float]:
    """Root mean squares of all weights, one by one."""
    return [float(f"{float(weight.detach().square().mean().sqrt()):.5g}") for network in networks for weight in network.parameters()]


def steps(case: str, folder: Path) -> tuple[list[float], list[float]]:
    """Numbers of the log after each step, and of the weights' way."""
    training, networks = CASES[case](folder)
    start, told = weights_of(networks), []
    for _ in range(STEPS):
        training.advance()
        row = training.row()
        told += [float(value) for name, value in sorted(row.items()) if isinstance(value, float) and name != "perplexity"]
    told += [training.fraction, float(training.finished)]
    if isinstance(training, ScoreTraining):
        told += projections(torch.cat([value.double().flatten() for value in training.ema.values()]))
        told += training.validate()
    return told, projections(weights_of(networks) - start)


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("case", CASES)
def test_the_first_steps_are_those_that_were_made(case: str, tmp_path: Path) -> None:
    wanted = json.loads(FILE.read_text(encoding="utf-8"))[case]
    told, moved = steps(case, tmp_path)
    assert told == pytest.approx(wanted["told"], rel=LOSS, abs=2e-4, nan_ok=True)
    assert moved == pytest.approx(wanted["moved"], abs=MOVED_FURTHER.get(case, MOVED) * wanted["moved"][0])


@pytest.mark.parametrize("case", CASES)
def test_first_weights_are_as_large_as_they_were(case: str, tmp_path: Path) -> None:
    wanted = json.loads(FILE.read_text(encoding="utf-8"))[case]["sizes"]
    assert sizes(CASES[case](tmp_path)[1]) == pytest.approx(wanted, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_a_state_is_all_that_the_steps_to_come_depend_on(case: str, tmp_path: Path) -> None:
    """Whoever goes on from a state that was written down, in another process say, comes to the same bits and tells the same of them."""
    first, networks = CASES[case](tmp_path / "one")
    second, copies = CASES[case](tmp_path / "two")
    first.advance()
    torch.save(first.state(), tmp_path / "state.pt")
    for _ in range(2):
        first.advance()
    second.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    second.step = 1
    for _ in range(2):
        second.advance()
    assert torch.equal(weights_of(networks), weights_of(copies))
    told, again = ({name: value for name, value in one.row().items() if value == value} for one in (first, second))
    assert json.dumps(told) == json.dumps(again)
    for one, other in zip(
        (value for network in networks for value in network.buffers()), (value for network in copies for value in network.buffers()), strict=True
    ):
        assert torch.equal(one, other)


LENGTHS: Mapping[str, int] = {
    "score": 4,
    "ncsn": 9,
    "codec": 2 * 3,
    "tokens": 2 * 2,
    "classifier": 5,
    "gan": 9,
    "latent": 2 + 2,
    "latent, joint": 2 * 2,
    "mask": 4,
    "adversarial": 3 * 2,
    "waveform": 4,
}
"""Steps of each case, by hand: epochs times whole batches, for classifiers rounded up."""


@pytest.mark.parametrize("case", CASES)
def test_a_training_is_done_after_its_last_step(case: str, tmp_path: Path) -> None:
    training, _ = CASES[case](tmp_path)
    steps = LENGTHS.get(case, LENGTHS[case.partition(",")[0]])
    assert (training.step, training.seconds, training.fraction, training.finished) == (0, 0.0, 0.0, False)
    training.step = steps - 1
    assert (training.fraction, training.finished) == (pytest.approx((steps - 1) / steps), False)
    training.step = steps
    assert (training.fraction, training.finished) == (1.0, True)


ROUNDED: Mapping[str, tuple[bool, ...]] = {
    "codec": (True,),
    "tokens": (True,),
    "gan": (True, True),
    "latent": (True, False, False, False),
    "latent, joint": (True, False, False, False),
    "mask, observed": (True,),
    "adversarial": (True, False),
    "waveform": (True,),
}
"""Which networks of a training are computed in bfloat16, where it is asked for. The table of codes and the discriminator with spectral norm never are."""


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", ROUNDED)
def test_networks_are_computed_in_the_precision_of_the_recipe(case: str, precision: str, tmp_path: Path) -> None:
    training, networks = CASES[case](tmp_path)
    training.recipe = replace(training.recipe, precision=precision)
    owners = {id(module): number for number, network in enumerate(networks) for module in network.modules()}
    seen: set[tuple[int, bool]] = set()

    def look(module: nn.Module, inputs: object) -> None:
        if id(module) in owners:
            seen.add((owners[id(module)], torch.is_autocast_enabled("cpu")))

    with torch.nn.modules.module.register_module_forward_pre_hook(look):  # type: ignore[no-untyped-call]
        training.advance()
    wanted = {(number, precision == "bfloat16" and rounds) for number, rounds in enumerate(ROUNDED[case])}
    assert seen == wanted - ({(2, False), (3, False)} if case == "latent" else set())  # the first stage uses the codes of clean samples alone


USUAL, OWN = (0.9, 0.999), (0.5, 0.9)
OPTIMISERS: Mapping[str, Mapping[str, tuple[float, tuple[float, float]]]] = {
    "ncsn": {"optimiser": (1e-3, USUAL)},
    "codec": {"optimiser": (2e-3, USUAL)},
    "tokens": {"optimiser": (3e-3, USUAL)},
    "gan": {"of_made": (1e-3, (0.4, 0.9)), "of_critic": (1e-3, (0.4, 0.9))},
    "latent": {"of_generators": (2e-3, OWN), "of_codes": (2e-2, OWN)},
    "mask, observed": {"optimiser": (2e-3, OWN)},
    "adversarial": {"optimiser": (2e-3, OWN), "critic": (2e-3, OWN)},
    "waveform": {"optimiser": (2e-3, USUAL)},
}
"""Rate and betas of every Adam of a training."""


@pytest.mark.parametrize("case", OPTIMISERS)
def test_rates_and_betas_are_those_of_the_recipe(case: str, tmp_path: Path) -> None:
    training, _ = CASES[case](tmp_path)
    for name, (rate, betas) in OPTIMISERS[case].items():
        groups = getattr(training, name).param_groups
        assert [(group["lr"], tuple(group["betas"])) for group in groups] == [(rate, betas)], name


def test_sums_that_are_counted(tmp_path: Path) -> None:
    """Counts of pairs are whole numbers: they follow from codec, images and seed."""
    network = new_vqvae((1, 8, 8), 6, 5, 1, "cpu").eval()
    found = torch.randint(6, (24, 4), generator=torch.Generator().manual_seed(1))
    training = SumTraining(network, bars(), found, 2, 12, batch=5)
    while not training.finished:
        training.advance()
    counts = training.counts()
    assert training.steps == 4
    assert int(counts.counts.sum()) == 2 * 4 * 5 * 4
    assert training.row()["triples"] == training.triples


if __name__ == "__main__":
    lines = []
    for name in CASES:
        with tempfile.TemporaryDirectory() as temporary:
            both = dict(zip(("told", "moved"), ([float(f"{value:.6g}") for value in part] for part in steps(name, Path(temporary))), strict=True))
            both["sizes"] = sizes(CASES[name](Path(temporary) / "again")[1])
        lines.append(f"{json.dumps(name)}: {json.dumps(both)}")
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8", newline="")
