"""The mask network of Neural Egg Separation. Halperin, Ephrat and Hoshen 2018, appendix A.

The paper is "Neural separation of observed and unobserved distributions". The network is an autoencoder like
DiscoGAN's (Kim et al. 2017). It has 4x4 convolutions of stride 2, whose filters double from 64, as many transposed
ones back, and a sigmoid at the end. The paper states 64 filters at both ends and "two fewer layers" for MNIST. The
rest is from the released code. It has 4 + 4 layers at 64x64 and on spectrograms of 257x64. It has LeakyReLU 0.2 on the
way down and ReLU on the way up. Batch norm follows all layers except the first and the last, and only the last layer
has a bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from baselines.networks.halving import DoublingConv2d, HalvingConv2d

_SLOPE = 0.2


@dataclass(frozen=True, slots=True)
class MaskConfig:
    """Layout of a ``MaskAutoencoder``.

    Attributes:
        channels: C, of the mixture and of each mask.
        layers: L, how many convolutions go down, and how many go up; at least 2.
        filters: of the first layer. Every further layer down has twice as many.
        masks: K; 1 gives the mask of one source by a sigmoid, more give K masks that add up to 1 by a softmax.
        running_statistics: batch norm keeps running means, and uses them in evaluation mode. Otherwise it always
            normalises by the present batch, and a mask depends on the other mixtures of its batch.

    Raises:
        ValueError: a number is too small.
    """

    channels: int = 1
    layers: int = 3
    filters: int = 64
    masks: int = 1
    running_statistics: bool = True

    def __post_init__(self) -> None:
        if min(self.channels, self.filters, self.masks) < 1 or self.layers < 2:
            raise ValueError(f"channels, filters and masks must be positive and layers at least 2, got {self}")

    @property
    def extra_rows(self) -> int:
        """By how many rows the height may exceed a multiple of ``2 ** layers``."""
        return 1


class MaskAutoencoder(nn.Module):
    """Masks in [0, 1] of mixtures.

    The width must be a multiple of ``2 ** layers``. The height must be one too, or one more. For a spectrogram of 257
    rows the layers give 256. The last row but one is then repeated at the end (reflection).
    """

    def __init__(self, config: MaskConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.filters << layer for layer in range(config.layers)]
        self.encoder = nn.Sequential(_down(config.channels, widths[0]))
        for before, after in pairwise(widths):
            self.encoder.append(_down(before, after, config.running_statistics))
        self.decoder = nn.Sequential()
        for before, after in pairwise(widths[::-1]):
            self.decoder.append(_up(before, after, config.running_statistics))
        self.last = nn.ConvTranspose2d(config.filters, config.masks * config.channels, 4, stride=2, padding=1)

    def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to masks: ``(B, C, H, W)`` for one mask, else ``(B, K, C, H, W)``.

        Raises:
            ValueError: the layers do not fit the height or the width.
        """
        height, width = mixtures.shape[-2:]
        unit = 1 << self.config.layers
        if min(height, width) < unit or height % unit > 1 or width % unit:
            raise ValueError(f"{self.config.layers} layers take heights of {unit} n or {unit} n + 1 and widths of {unit} n, got {height} x {width}")
        logits = self.last(self.decoder(self.encoder(mixtures)))
        if height % unit:
            logits = functional.pad(logits, (0, 0, 0, 1), mode="reflect")
        if self.config.masks == 1:
            return torch.sigmoid(logits)
        masks: torch.Tensor = logits.unflatten(1, (self.config.masks, self.config.channels)).softmax(1)
        return masks


def _down(before: int, after: int, running_statistics: bool | None = None) -> nn.Sequential:
    """A layer that halves the size. It has no batch norm if ``running_statistics`` is None."""
    layers = nn.Sequential(HalvingConv2d(before, after))
    if running_statistics is not None:
        layers.append(nn.BatchNorm2d(after, track_running_stats=running_statistics))
    return layers.append(nn.LeakyReLU(_SLOPE))


def _up(before: int, after: int, running_statistics: bool) -> nn.Sequential:
    """A layer that doubles the size."""
    convolution = DoublingConv2d(before, after)
    return nn.Sequential(convolution, nn.BatchNorm2d(after, track_running_stats=running_statistics), nn.ReLU())
