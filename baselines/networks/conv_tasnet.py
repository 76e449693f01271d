"""Conv-TasNet.

Luo and Mesgarani, IEEE/ACM Transactions on Audio, Speech, and Language Processing 27(8), 2019, sec. II. The paper is
"Conv-TasNet: surpassing ideal time-frequency magnitude masking for speech separation". The network has a learnt
transform, masks on it, and a learnt transform back:

1. The encoder (II-B) has N filters of L samples, half overlapping, without bias: ``w = relu(U * y)``.
2. The separator (II-C) normalises, goes to B channels (bottleneck), and has R times X blocks with dilations 1, 2, ...,
   2^(X-1). A block is a 1x1 convolution to H channels, PReLU, norm, a depthwise convolution of P taps, PReLU, norm,
   and two 1x1 convolutions. One goes back to B channels and is added to the block's input. The other goes to Sc
   channels. The Sc channels are summed over all blocks. PReLU, a 1x1 convolution and a sigmoid turn the sum into the
   masks of K sources, in (0, 1).
3. The decoder ``V`` turns every masked ``w m_k`` into L samples per frame, and adds them where frames overlap.

Norms are gLN (II-D, eq. 9-10): over channels and time of one example, with a gain and a bias per channel. The names of
the hyper-parameters are the paper's (table I). In the last block nothing uses the convolution back to B channels, so
we left it out. The paper counts it among its 5.1 M parameters. The paper has one channel. Here a filter spans all
channels of the signal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

_EPSILON = 1e-8


@dataclass(frozen=True, slots=True)
class ConvTasNetConfig:
    """Layout of a ``ConvTasNet``. The defaults are the paper's best.

    Attributes:
        sources: K.
        channels: of the signal.
        filters: N, of the encoder and the decoder.
        length: L, samples of a filter, an even number. Frames are L / 2 apart.
        bottleneck: B, channels between blocks.
        hidden: H, channels within a block.
        skip: Sc, channels from a block to the masks.
        kernel: P, taps of the depthwise convolutions, an odd number.
        blocks: X, blocks of a repeat. Dilations double, and the first is 1.
        repeats: R.

    Raises:
        ValueError: a size is not positive, the length is odd, or the kernel is even.
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
        """Samples between the starts of two frames."""
        return self.length // 2

    @property
    def receptive_field(self) -> int:
        """How many samples a mask depends on, apart from its norms, which depend on the whole signal."""
        frames = 1 + self.repeats * (self.kernel - 1) * ((1 << self.blocks) - 1)
        return (frames - 1) * self.stride + self.length


class GlobalNorm(nn.GroupNorm):
    """gLN: zero mean and unit variance over channels and time of each example ``(B, C, T)``.

    A gain and a bias per channel follow.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels, eps=_EPSILON)


class OneSlope(nn.PReLU):
    """PReLU of one slope a, as ``(1 - a) relu(x) + a x``.

    On a CPU, torch's own needs three times as long for the gradient.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        slope = self.weight.to(x.dtype)
        return torch.addcmul(slope * x, 1 - slope, functional.relu(x))


class DepthwiseConvolution(nn.Conv1d):
    """A dilated convolution of every channel by itself: ``(B, C, T)`` to ``(B, C, T)``.

    It computes taps along the rows of ``(B, C, T / d, d)``, with d the dilation. The result is the same, in a third of
    the time on a CPU.

    Args:
        channels: how many.
        kernel: taps, an odd number.
        dilation: samples between two taps.
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
        last: no block follows, so it does not go back to the bottleneck.
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
        """``(B, bottleneck, frames)`` to the next block's input, and this block's share of the masks.

        The shapes are ``(B, bottleneck, frames)`` and ``(B, skip, frames)``.
        """
        ends = self.ends(self.body(x))
        onward, to_masks = ends[:, : self.onward], ends[:, self.onward :]
        return (x + onward if self.onward else x), to_masks


class ConvTasNet(nn.Module):
    """Mixtures ``(B, C, T)`` to parts ``(B, K, C, T)``, one for each source."""

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
        """Mixtures ``(B, C, T)`` to parts ``(B, K, C, T)``, for any T.

        Zeros pad the signal, so that every sample is in two frames.
        """
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
