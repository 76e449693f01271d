"""The mask network of Neural Egg Separation: Halperin, Ephrat and Hoshen, "Neural separation of observed and unobserved distributions" (2018), appendix A.

A DiscoGAN-like autoencoder (Kim et al. 2017): 4x4 convolutions of stride 2 that double their filters from 64 on, the same number of transposed ones back,
and a sigmoid at the end. The paper says 64 filters at both ends and "two fewer layers" for MNIST; the released code has 4 + 4 layers at 64x64 and on
spectrograms of 257x64, LeakyReLU 0.2 on the way down, ReLU on the way up, batch norm after all layers but the first and the last, and a bias in the last
layer only.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

_SLOPE = 0.2


@dataclass(frozen=True, slots=True)
class MaskConfig:
    """Layout of a ``MaskAutoencoder``.

    Attributes:
        channels: C, of the mixture and of each mask.
        layers: L, convolutions down and as many up.
        filters: of the first layer; every further layer down has twice as many.
        masks: K; 1 gives the mask of one source by a sigmoid, more give K masks that add up to 1 by a softmax.
        running_statistics: batch norm keeps running means and evaluates with them; without, it normalises by the batch at hand in ``eval`` too, and a
            mask then depends on the other mixtures of its batch.
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
        """How many rows more than a multiple of ``2 ** layers`` the network takes as they are."""
        return 1


class MaskAutoencoder(nn.Module):
    """Masks in [0, 1] of mixtures.

    The width must be a multiple of ``2 ** layers``; the height too, or one more: the output of a spectrogram of 257 rows has 256, and its last row but one
    is repeated below it (reflection).
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
        """Mixtures ``(B, C, H, W)`` to masks, ``(B, C, H, W)``; ``(B, K, C, H, W)`` where ``config.masks`` is above 1.

        Raises:
            ValueError: a size that the layers cannot give back.
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
    """Half the size; without batch norm if ``running_statistics`` is None."""
    layers = nn.Sequential(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False))
    if running_statistics is not None:
        layers.append(nn.BatchNorm2d(after, track_running_stats=running_statistics))
    return layers.append(nn.LeakyReLU(_SLOPE))


def _up(before: int, after: int, running_statistics: bool) -> nn.Sequential:
    """Twice the size."""
    convolution = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after, track_running_stats=running_statistics), nn.ReLU())
