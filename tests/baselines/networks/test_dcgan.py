"""DCGAN: sizes and parameter counts of S-D and of GLOM and AM, ranges, spectral norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import nn

from baselines.networks.dcgan import DCGANDiscriminator, egg_discriminator, egg_generator, sd_discriminator, sd_generator, square_side

Network = TypeVar("Network", bound=nn.Module)


def seeded(make: Callable[[], Network]) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make()


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_networks_of_sd() -> None:
    """Protocol facts: 3.44 M and 2.63 M."""
    generator, discriminator = seeded(sd_generator), seeded(sd_discriminator)
    assert (parameters(generator), parameters(discriminator)) == (3_444_480, 2_629_632)
    images = generator(torch.randn(3, 100)).detach()
    assert images.shape == (3, 1, 28, 28)
    assert 0.0 <= float(images.min()) < float(images.max()) <= 1.0
    assert discriminator(images).shape == (3,)


@pytest.mark.parametrize(("channels", "side", "layers"), [(3, 64, 5), (1, 32, 4), (1, 8, 2)])
def test_the_networks_of_glom_and_am(channels: int, side: int, layers: int) -> None:
    """64 filters next to the image; 32x32 has one layer fewer than 64x64."""
    generator, discriminator = seeded(lambda: egg_generator(20, channels, side)), seeded(lambda: egg_discriminator(channels, (side, side), layers - 1))
    convolutions = [m for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert len(convolutions) == layers
    assert convolutions[-1].in_channels == 64
    images = generator(torch.randn(2, 20))
    assert images.shape == (2, channels, side, side)
    assert discriminator(images).shape == (2,)


def test_spectral_norm_bounds_every_layer_and_replaces_batch_norm() -> None:
    network = seeded(lambda: egg_discriminator(1, (32, 32), 3, filters=8))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(7.0)
    for _ in range(100):
        network(torch.rand(2, 1, 32, 32))  # every call in training takes a step of the power iteration
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    norms = [float(torch.linalg.matrix_norm(m.weight.detach().flatten(1), 2)) for m in layers]
    assert norms == pytest.approx([1.0] * 4, abs=0.01)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    plain = seeded(lambda: egg_discriminator(1, (32, 32), 3, filters=8, spectral=False))
    assert sum(isinstance(m, nn.BatchNorm2d) for m in plain.modules()) == 2


@pytest.mark.parametrize("side", [4, 28, 48])
def test_sides_are_powers_of_two(side: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        egg_generator(10, 1, side)


def test_an_image_must_be_left() -> None:
    with pytest.raises(ValueError, match="nothing"):
        DCGANDiscriminator(1, (8, 16), (2, 8))


def test_the_padding_of_sd_is_a_cut_out_of_the_next_larger_square() -> None:
    """The same weights at 28 x 28, whose last layer is padded by 3, at 32 x 32, and at 28 x 30, which is cut."""
    padded, whole, cut = (seeded(lambda shape=shape: sd_generator(7, shape)).eval() for shape in ((1, 28, 28), (1, 32, 32), (1, 28, 30)))  # type: ignore[misc]
    codes = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(padded(codes), whole(codes)[..., 2:30, 2:30])
    torch.testing.assert_close(cut(codes), whole(codes)[..., 2:30, 1:31])


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 64, 64), (3, 6, 10), (2, 4, 33), (1, 150, 20)])
def test_sd_takes_every_size_from_four_on(shape: tuple[int, int, int]) -> None:
    generator, discriminator = seeded(lambda: sd_generator(5, shape)), seeded(lambda: sd_discriminator(shape))
    images = generator(torch.randn(2, 5))
    assert images.shape == (2, *shape)
    assert discriminator(images).shape == (2,)
    widths = [layer.out_channels for layer in generator.layers if isinstance(layer, nn.ConvTranspose2d)]
    assert (widths[-2], max(widths) <= 1024) == (128, True)


@pytest.mark.parametrize(("size", "side"), [((1, 1), 8), ((8, 8), 8), ((9, 2), 16), ((2, 16), 16), ((28, 28), 32), ((32, 33), 64), ((128, 5), 128)])
def test_the_square_that_covers_an_image(size: tuple[int, int], side: int) -> None:
    assert square_side(size) == side


@pytest.mark.parametrize(
    ("shape", "widths", "padding"),
    [
        ((1, 28, 28), [512, 256, 128], 3),
        ((1, 30, 30), [512, 256, 128], 2),
        ((3, 32, 32), [512, 256, 128], 1),
        ((1, 26, 26), [512, 256, 128], 1),
        ((1, 28, 30), [512, 256, 128], 1),
        ((1, 128, 128), [1024, 1024, 512, 256, 128], 1),
        ((1, 4, 4), [128], 3),
    ],
)
def test_layers_of_sd_follow_the_size(shape: tuple[int, int, int], widths: list[int], padding: int) -> None:
    with torch.device("meta"):
        generator, discriminator = sd_generator(5, shape), sd_discriminator(shape)
    layers = [layer for layer in generator.layers if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in layers] == [*widths, shape[0]]
    assert layers[-1].padding == (padding, padding)
    assert generator.size == (None if padding > 1 or shape[1] == 32 or shape[1] == 128 else shape[1:])
    critic = [layer.out_channels for layer in discriminator.layers if isinstance(layer, nn.Conv2d)]
    assert critic == widths[::-1][: min(shape[1:]).bit_length() - 1]


def test_words_for_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="leave") as refused:
        DCGANDiscriminator(1, (8, 16, 8), (8, 7))
    assert str(refused.value) == "3 layers leave nothing of 8 x 7 pixels"
    assert DCGANDiscriminator(1, (8, 16, 8), (8, 15)).head.in_features == 8
    for side in (4, 12, 3):
        with pytest.raises(ValueError, match="DCGAN") as wrong:
            egg_generator(10, 1, side)
        assert str(wrong.value) == f"DCGAN makes images whose side is a power of two from 8 on, got {side}"


def test_norms_follow_all_layers_but_those_beside_the_image() -> None:
    generator, critic = seeded(lambda: egg_generator(3, 1, 16, 4)), seeded(lambda: egg_discriminator(1, (16, 16), 2, 4, spectral=False))
    up = ["BatchNorm2d", "ReLU"]
    assert [type(layer).__name__ for layer in generator.layers] == ["ConvTranspose2d", *up, "DoublingConv2d", *up, "ConvTranspose2d"]
    assert [type(layer).__name__ for layer in critic.layers] == ["HalvingConv2d", "LeakyReLU", "HalvingConv2d", "BatchNorm2d", "LeakyReLU"]
    assert not [name for name, _ in [*generator.named_parameters(), *critic.named_parameters()] if "bias" in name and ".".join(name.split(".")[:2]) == "head"]
