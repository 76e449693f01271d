"""Demucs in the time domain. Defossez, Usunier, Bottou and Bach 2019 (arXiv 1911.13254), sec. 4.

The paper is "Music source separation in the waveform domain". The network is a U-Net on samples with an LSTM at its
bottom:

* The encoder has L layers. A layer is a convolution of K = 8 taps and stride S = 4, ReLU, and a 1x1 convolution to
  twice the channels, which a gated linear unit halves again. The first layer has C channels, and each further layer
  twice as many.
* The bottom is a bidirectional LSTM of two layers, as wide as the last encoder layer. A linear layer takes both
  directions back to that width.
* The decoder mirrors the encoder. A layer adds the output of the encoder layer of the same depth. Then it has a
  convolution of 3 taps to twice the channels, a gated linear unit, a transposed convolution of K taps and stride S,
  and ReLU. The last layer has no ReLU and gives the K sources.

Weights start as torch draws them, and are then rescaled (sec. 4.3): the weights of a convolution with standard
deviation d are divided by ``sqrt(d / 0.1)``. Nothing makes the sources add up to the mixture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

RESCALE = 0.1
"""The standard deviation towards which weights are rescaled (the paper's a)."""


@dataclass(frozen=True, slots=True)
class DemucsConfig:
    """Layout of a ``Demucs``. The defaults are the paper's, except that it has four sources of two channels.

    Attributes:
        sources: K.
        channels: of the signal.
        width: C, channels of the first layer.
        depth: L, layers.
        growth: ratio of the channels of a layer to those of the layer before.
        kernel: K, taps of the strided convolutions.
        stride: S.
        context: taps of the decoder's other convolutions, an odd number.
        lstm_layers: layers of the LSTM at the bottom; 0: no LSTM.

    Raises:
        ValueError: a size is not positive, the kernel is shorter than the stride, or the context is even.
    """

    sources: int = 2
    channels: int = 1
    width: int = 64
    depth: int = 6
    growth: float = 2.0
    kernel: int = 8
    stride: int = 4
    context: int = 3
    lstm_layers: int = 2

    def __post_init__(self) -> None:
        if min(self.sources, self.channels, self.width, self.depth, self.stride, self.context) < 1 or self.lstm_layers < 0 or self.growth <= 0:
            raise ValueError(f"all sizes must be positive, got {self}")
        if self.kernel < self.stride or not self.context % 2:
            raise ValueError(f"the kernel must be at least the stride and the context odd, got {self}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the layers, the outermost first."""
        return tuple(round(self.width * self.growth**layer) for layer in range(self.depth))

    def whole_length(self, samples: int) -> int:
        """The smallest length, at least ``samples``, that every layer divides without a rest."""
        frames = samples
        for _ in range(self.depth):
            frames = 1 + max(0, -((self.kernel - frames) // self.stride))
        for _ in range(self.depth):
            frames = (frames - 1) * self.stride + self.kernel
        return frames


class Demucs(nn.Module):
    """Mixtures ``(B, C, T)`` to parts ``(B, K, C, T)``, one for each source."""

    def __init__(self, config: DemucsConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        outer = config.channels
        for layer, width in enumerate(config.widths):
            self.encoder.append(
                nn.Sequential(nn.Conv1d(outer, width, config.kernel, config.stride), nn.ReLU(), nn.Conv1d(width, 2 * width, 1), nn.GLU(dim=1)),
            )
            back = nn.Sequential(
                nn.Conv1d(width, 2 * width, config.context, padding=config.context // 2),
                nn.GLU(dim=1),
                nn.ConvTranspose1d(width, outer if layer else config.sources * config.channels, config.kernel, config.stride),
            )
            self.decoder.insert(0, back.append(nn.ReLU()) if layer else back)
            outer = width
        self.lstm = nn.LSTM(outer, outer, config.lstm_layers, batch_first=True, bidirectional=True) if config.lstm_layers else None
        self.both_ways = nn.Linear(2 * outer, outer) if config.lstm_layers else None
        rescale_convolutions(self, RESCALE)

    def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
        """Mixtures ``(B, C, T)`` to parts ``(B, K, C, T)``, for any T.

        Zeros pad both sides to a length that all layers divide.
        """
        samples = mixtures.shape[-1]
        missing = self.config.whole_length(samples) - samples
        x = functional.pad(mixtures, (missing // 2, missing - missing // 2))
        passed = []
        for layer in self.encoder:
            x = layer(x)
            passed.append(x)
        if self.lstm is not None and self.both_ways is not None:
            x = self.both_ways(self.lstm(x.mT)[0]).mT
        for layer in self.decoder:
            x = layer(x + passed.pop())
        parts: torch.Tensor = x.unflatten(1, (self.config.sources, self.config.channels))
        return parts[..., missing // 2 : missing // 2 + samples]


def rescale_convolutions(network: nn.Module, reference: float) -> None:
    """Divide weights and biases of every convolution by ``sqrt(std(weights) / reference)``, in place."""
    for module in network.modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            with torch.no_grad():
                scale = (module.weight.std() / reference).sqrt()
                for values in module.parameters():
                    values.div_(scale)
