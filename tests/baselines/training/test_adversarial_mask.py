"""The two updates of an adversarial step, by hand, with networks of one number each."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from baselines.networks.mask_autoencoder import MaskConfig
from baselines.training.adversarial_mask import AdversarialTraining, new_discriminator
from baselines.training.mask import MaskRecipe, mask_layout, new_network


class OneMask(nn.Module):
    """The mask sigmoid(a) everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.config = MaskConfig(layers=2)
        self.a = nn.Parameter(torch.zeros(()))

    def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.a) * torch.ones_like(mixtures)


class OneSlope(nn.Module):
    """D(b) = s times the mean of b."""

    def __init__(self) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.full((), 0.5))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.s * images.flatten(1).mean(1)


def by_hand(openness: float) -> AdversarialTraining:
    """Clean samples are 1, mixtures are 2; plain gradient descent at a rate of 0.1 instead of Adam shows the size of gradients."""
    recipe = MaskRecipe(0.1, batch=2, precision="float32")
    training = AdversarialTraining(OneMask(), recipe, torch.ones(2, 1, 8, 8), 2.0 * torch.ones(2, 1, 8, 8), 5, openness)  # type: ignore[arg-type]
    slope = OneSlope()
    training.discriminator = slope  # type: ignore[assignment]
    training.critic = torch.optim.SGD(slope.parameters(), lr=0.1)  # type: ignore[assignment]
    training.optimiser = torch.optim.SGD(training.network.parameters(), lr=0.1)  # type: ignore[assignment]
    return training


@pytest.mark.parametrize("openness", [1.0, 0.25])
def test_a_step_by_hand(openness: float) -> None:
    training = by_hand(openness)
    s, a = 0.5, 0.0
    for _ in range(3):
        m = 1 / (1 + math.exp(-a))
        s -= 0.1 * (2 * (s - 1) + 2 * s * (2 * m) ** 2)  # of (s - 1)^2 + (2 m s)^2
        loss = (2 * m * s - 1) ** 2 + openness * (1 - m)
        a -= 0.1 * (2 * (2 * m * s - 1) * 2 * s - openness) * m * (1 - m)
        training.advance()
        assert training.discriminator.s.item() == pytest.approx(s, rel=1e-5)  # type: ignore[union-attr,operator]
        assert training.network.a.item() == pytest.approx(a, rel=1e-5)  # type: ignore[union-attr,operator]
        assert training.row()["loss"] == pytest.approx(loss, abs=2e-6)
    assert all(parameter.requires_grad for parameter in training.discriminator.parameters())


def test_the_discriminator_is_as_deep_as_the_mask_network_and_depends_on_the_seed_alone() -> None:
    network = new_network(mask_layout("autoencoder", (1, 28, 28)), seed=0)
    before = torch.get_rng_state()
    one, same, other = (new_discriminator(network, (28, 28), seed, "cpu").state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert sum(name.endswith("weight.original") or name.endswith("original") for name in one if "head" not in name) == 3


@pytest.mark.parametrize(("size", "layers"), [((8, 64), 3), ((64, 8), 3), ((1, 16), 0), ((3, 3), 1), ((7, 5), 2), ((8, 8), 2), ((28, 28), 3), ((64, 64), 4)])
def test_the_discriminator_has_no_more_layers_than_the_shorter_side_allows(size: tuple[int, int], layers: int) -> None:
    made = new_discriminator(new_network(mask_layout("autoencoder", (2, *size)), seed=0), size, 0, "cpu", filters=4)
    assert sum(isinstance(layer, nn.Conv2d) for layer in made.layers) == layers
    assert made(torch.rand(3, 2, *size)).shape == (3,)


@pytest.mark.parametrize("shape", [(1, 8, 64), (3, 64, 8), (1, 1, 16)])
def test_images_that_are_long_or_of_one_row_are_learnt(shape: tuple[int, int, int]) -> None:
    pool = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
    training = AdversarialTraining(new_network(mask_layout("autoencoder", shape), seed=0), MaskRecipe(1e-3, batch=2), pool, pool + pool.flip(0), 1)
    training.advance()
    assert math.isfinite(training.row()["loss"])
