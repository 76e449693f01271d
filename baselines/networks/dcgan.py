"""Generator and discriminator of DCGAN. Radford, Metz and Chintala, ICLR 2016.

The paper is "Unsupervised representation learning with deep convolutional generative adversarial networks". Both have
4x4 convolutions of stride 2, which are transposed in the generator. Batch norm follows all of them except the
generator's last and the discriminator's first. The generator has ReLU, and the discriminator LeakyReLU 0.2. Here the
generator ends in a sigmoid, because images are in [0, 1], and convolutions have no biases.

There are two families of sizes:

* S-D (Kong et al., IJCAI 2019) has 128 filters next to the image. For 28x28x1 it has 3.44 M and 2.63 M parameters:
  ``sd_generator``, ``sd_discriminator``.
* GLOM and AM (Halperin, Ephrat and Hoshen 2018) have 64 filters, for 64x64 or, with "one layer fewer", 32x32:
  ``egg_generator``, ``egg_discriminator``.

Generators make squares whose side is a power of two. Other images are the middle of the next larger square.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from baselines.networks.halving import DoublingConv2d, HalvingConv2d

_SLOPE = 0.2
_START = 4
"""Side of the generator's first map, and of the last map in the discriminators of GLOM and AM."""
_MOST_FILTERS = 1024
"""The most filters of S-D's layers, reached at 128 x 128 and more. DCGAN itself has as many at 64 x 64."""


class DCGANGenerator(nn.Module):
    """Codes ``(B, latent)`` to images ``(B, C, H, W)`` in [0, 1].

    Args:
        latent: dimension of a code.
        widths: filters of all layers except the last. The first turns the code into a 4x4 map, and each further one
            doubles the side.
        channels: of the image.
        last_padding: of the last layer; 1 doubles the side once more, 3 turns 16 into 28.
        size: height and width of the image, the middle of the layers' output; None: the whole output.
    """

    def __init__(self, latent: int, widths: tuple[int, ...], channels: int, last_padding: int = 1, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.latent, self.size = latent, size
        self.layers = nn.Sequential(nn.ConvTranspose2d(latent, widths[0], _START, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        for before, after in pairwise(widths):
            self.layers.extend([DoublingConv2d(before, after), nn.BatchNorm2d(after), nn.ReLU()])
        self.layers.append(nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=last_padding, bias=False))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """``(B, latent)`` to ``(B, C, H, W)`` in [0, 1]."""
        made: torch.Tensor = self.layers(codes[:, :, None, None])
        if self.size is not None:
            top, left = ((side - kept) // 2 for side, kept in zip(made.shape[-2:], self.size, strict=True))
            made = made[..., top : top + self.size[0], left : left + self.size[1]]
        return torch.sigmoid(made)


class DCGANDiscriminator(nn.Module):
    """Images ``(B, C, H, W)`` to one number each, ``(B,)``, before any sigmoid.

    Args:
        channels: of the image.
        widths: filters of the layers. Each layer halves the side. Without layers it is a linear function of the image.
        size: height and width of the image.
        spectral: spectral norm (Miyato et al. 2018) on all weights instead of batch norm, as in that paper.

    Raises:
        ValueError: there are too many layers for the image.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], size: tuple[int, int], *, spectral: bool = False) -> None:
        super().__init__()
        self.size, self.halvings = size, len(widths)
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise((channels, *widths))):
            layers.append(HalvingConv2d(before, after))
            if number and not spectral:
                layers.append(nn.BatchNorm2d(after))
            layers.append(nn.LeakyReLU(_SLOPE))
        left = [side >> len(widths) for side in size]
        if min(left) < 1:
            raise ValueError(f"{len(widths)} layers leave nothing of {size[0]} x {size[1]} pixels")
        head = nn.Linear((channels, *widths)[-1] * left[0] * left[1], 1, bias=False)
        self.layers, self.head = nn.Sequential(*layers), head
        if spectral:
            for module in [*self.layers, self.head]:
                if isinstance(module, nn.Conv2d | nn.Linear):
                    spectral_norm(module)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(B, C, H, W)`` to ``(B,)``."""
        values: torch.Tensor = self.head(self.layers(images).flatten(1)).squeeze(1)
        return values


def square_side(size: tuple[int, int]) -> int:
    """Side of the smallest square of a generator that covers an image of this height and width: 32 for 28 x 28."""
    return max(2 * _START, 1 << math.ceil(math.log2(max(size))))


def sd_generator(latent: int = 100, shape: tuple[int, ...] = (1, 28, 28)) -> DCGANGenerator:
    """The generator of S-D: codes to images ``(C, H, W)``.

    It has 3,444,480 parameters for a code of 100 and 28x28x1, the only size in the paper. The paper's last layer has a
    padding of 3, and so cuts the middle out of 32 x 32. Other sizes therefore have the same layout: 128 filters before
    the image, and twice as many in each layer before that.
    """
    height, width = shape[-2:]
    side = square_side((height, width))
    widths = _doublings(side, 128, _MOST_FILTERS)[::-1]
    if height == width and side - height in (0, 2, 4):  # a kernel of 4 can have a padding up to 3, and computes nothing that is cut off
        return DCGANGenerator(latent, widths, shape[0], last_padding=1 + (side - height) // 2)
    return DCGANGenerator(latent, widths, shape[0], size=(height, width))


def sd_discriminator(shape: tuple[int, ...] = (1, 28, 28)) -> DCGANDiscriminator:
    """The discriminator of S-D, as deep as the generator if the shorter side allows it.

    It has 2,629,632 parameters for 28x28x1. The paper does not say whether its linear layer has a bias. It is 2.63 M
    either way.
    """
    height, width = shape[-2:]
    layers = min(height, width).bit_length() - 1
    return DCGANDiscriminator(shape[0], _doublings(square_side((height, width)), 128, _MOST_FILTERS)[:layers], (height, width))


def egg_generator(latent: int, channels: int, side: int, filters: int = 64, size: tuple[int, int] | None = None) -> DCGANGenerator:
    """The generator of GLOM: codes to images of ``side`` x ``side``, or to the ``size`` in their middle.

    The layers are the paper's for 64 x 64. Each smaller power of two has one layer fewer.

    Raises:
        ValueError: the side is no power of two, or less than 8.
    """
    return DCGANGenerator(latent, _doublings(side, filters)[::-1], channels, size=size)


def egg_discriminator(channels: int, size: tuple[int, int], layers: int, filters: int = 64, *, spectral: bool = True) -> DCGANDiscriminator:
    """The discriminator of AM: 4 layers for 64 x 64, and 3 for 32 x 32 or 28 x 28.

    The linear layer at the end is DCGAN's 4x4 convolution of its last map.
    """
    return DCGANDiscriminator(channels, tuple(filters << layer for layer in range(layers)), size, spectral=spectral)


def _doublings(side: int, filters: int, most: int | None = None) -> tuple[int, ...]:
    """``(f, 2 f, ...)``: a layer for each factor of two between 4 and ``side``, with at most ``most`` filters."""
    layers = (side // _START).bit_length() - 1
    if layers < 1 or _START << layers != side:
        raise ValueError(f"DCGAN makes images whose side is a power of two from {2 * _START} on, got {side}")
    return tuple(min(filters << layer, most or filters << layer) for layer in range(layers))
