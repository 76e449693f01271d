"""Conv-TasNet: Luo and Mesgarani, "Conv-TasNet: surpassing ideal time-frequency magnitude masking for speech separation" (IEEE/ACM TASLP 27(8), 2019), sec. II.

A learnt transform, masks on it, and a learnt transform back:

1. encoder (II-B): N filters of L samples, half overlapping, without bias: ``w = relu(U * y)``;
2. separator (II-C): normalise, bottleneck to B channels, then R times X blocks with dilations 1, 2, ..., 2^(X-1). A block is a 1x1 convolution to H channels,
   PReLU, norm, a depthwise convolution of P taps, PReLU, norm, and two 1x1 convolutions: one back to B channels, added to the block's input, and one to Sc
   channels, whose sum over all blocks, by PReLU and a 1x1 convolution, gives the masks of K sources, in (0, 1) by a sigmoid;
3. decoder: ``V`` turns every masked ``w m_k`` into L samples per frame, which are added where frames overlap.

Norms are gLN (II-D, eq. 9-10): over channels and time of one example, with a gain and a bias per channel. Hyper-parameters are the paper's (table I).
The last block's way back to B channels leads nowhere and is left out, though the paper counts it among its 5.1 M parameters. The paper has one channel; here
a filter spans all channels of the signal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

_EPSILON = 1e-8


@dataclass(frozen=True, slots=True)
class ConvTasNetConfig:
    """Layout of a ``ConvTasNet``; the defaults are the paper's best.

    Attributes:
        sources: K.
        channels: of the signal.
        filters: N, of the encoder and the decoder.
        length: L, samples of a filter, an even number; frames are L / 2 apart.
        bottleneck: B, channels between blocks.
        hidden: H, channels within a block.
        skip: Sc, channels of the way from a block to the masks.
        kernel: P, taps of the depthwise convolutions, an odd number.
        blocks: X, of a repeat; dilations double from 1 on.
        repeats: R.
    """

    sources: int = 2
    channels: int = 1
    filters: int = 512
    length: int = 16
    bottleneck: int = 128
    hidden: int = 512
    skip: int = 128
    kernel: int = 3
    blocks: int = 8
    repeats: int = 3

    def __post_init__(self) -> None:
        sizes = (self.sources, self.channels, self.filters, self.bottleneck, self.hidden, self.skip, self.kernel, self.blocks, self.repeats)
        if min(sizes) < 1 or self.length < 2 or self.length % 2 or not self.kernel % 2:
            raise ValueError(f"all sizes must be positive, the filters' length even and the kernel odd, got {self}")

    @property
    def stride(self) -> int:
        """Samples from frame to frame."""
        return self.length // 2

    @property
    def receptive_field(self) -> int:
        """Samples that a mask looks at, its norms aside, which look at everything."""
        frames = 1 + self.repeats * (self.kernel - 1) * ((1 << self.blocks) - 1)
        return (frames - 1) * self.stride + self.length


class GlobalNorm(nn.GroupNorm):
    """gLN: zero mean and unit variance over channels and time of each example ``(B, C, T)``, then a gain and a bias per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels, eps=_EPSILON)


class OneSlope(nn.PReLU):
    """PReLU of one slope a, as ``(1 - a) relu(x) + a x``: on a CPU torch's own takes three times as long to differentiate."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        slope = self.weight.to(x.dtype)
        return torch.addcmul(slope * x, 1 - slope, functional.relu(x))


class DepthwiseConvolution(nn.Conv1d):
    """A dilated convolution of every channel by itself; the length stays.

    Computed as taps along the rows of ``(B, C, T / d, d)`` with d the dilation, which is the same and takes a CPU a third of the time.

    Args:
        channels: how many.
        kernel: taps, an odd number.
        dilation: samples from tap to tap.
    """

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__(channels, channels, kernel, dilation=dilation, groups=channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length, dilation = x.shape[-1], self.dilation[0]
        missing = -length % dilation
        rows = (functional.pad(x, (0, missing)) if missing else x).unflatten(-1, (-1, dilation))
        result = functional.conv2d(rows, self.weight.unsqueeze(-1), self.bias, padding=(self.kernel_size[0] // 2, 0), groups=self.groups).flatten(2)
        return result[..., :length] if missing else result


class DilatedBlock(nn.Module):
    """One dilated block of the separator.

    Args:
        config: sizes.
        dilation: of the depthwise convolution.
        last: nothing follows, so there is no way back to the bottleneck.
    """

    def __init__(self, config: ConvTasNetConfig, dilation: int, last: bool = False) -> None:
        super().__init__()
        hidden = config.hidden
        self.body = nn.Sequential(
            nn.Conv1d(config.bottleneck, hidden, 1),
            OneSlope(),
            GlobalNorm(hidden),
            DepthwiseConvolution(hidden, config.kernel, dilation),
            OneSlope(),
            GlobalNorm(hidden),
        )
        self.onward = 0 if last else config.bottleneck
        self.ends = nn.Conv1d(hidden, self.onward + config.skip, 1)  # both 1x1 convolutions at the end in one

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B, bottleneck, frames)`` to the next block's input and to this one's share of the masks ``(B, skip, frames)``."""
        ends = self.ends(self.body(x))
        onward, to_masks = ends[:, : self.onward], ends[:, self.onward :]
        return (x + onward if self.onward else x), to_masks


class ConvTasNet(nn.Module):
    """Mixtures to parts, one for each source."""

    def __init__(self, config: ConvTasNetConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Conv1d(config.channels, config.filters, config.length, stride=config.stride, bias=False)
        self.norm = GlobalNorm(config.filters)
        self.bottleneck = nn.Conv1d(config.filters, config.bottleneck, 1)
        count = config.repeats * config.blocks
        self.blocks = nn.ModuleList(DilatedBlock(config, 1 << (number % config.blocks), number == count - 1) for number in range(count))
        self.masks = nn.Sequential(OneSlope(), nn.Conv1d(config.skip, config.sources * config.filters, 1), nn.Sigmoid())
        self.decoder = nn.ConvTranspose1d(config.filters, config.channels, config.length, stride=config.stride, bias=False)

    def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
        """Mixtures ``(B, C, T)`` to parts ``(B, K, C, T)``, of any T: zeros are added around it so that every sample lies in two frames."""
        stride, samples = self.config.stride, mixtures.shape[-1]
        padded = functional.pad(mixtures, (stride, stride + -samples % stride))
        frames = functional.relu(self.encoder(padded))
        x = self.bottleneck(self.norm(frames))
        total: torch.Tensor | None = None
        for block in self.blocks:
            x, share = block(x)
            total = share if total is None else total + share
        masks = self.masks(total).unflatten(1, (self.config.sources, self.config.filters))
        masked = frames.unsqueeze(1) * masks
        parts: torch.Tensor = self.decoder(masked.flatten(0, 1)).unflatten(0, masked.shape[:2])
        return parts[..., stride : stride + samples]
