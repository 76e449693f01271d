"""A compact U-Net for denoising small images on a CPU: thin at full resolution, wide at a half and a quarter of it.

The layout follows Ho, Jain and Abbeel, "Denoising diffusion probabilistic models" (2020), app. B (residual blocks with
group norm and SiLU, self-attention at low resolution). Three changes make it faster on a CPU. Skips are added instead
of concatenated. Resolution changes by space-to-depth with a 1x1 convolution. Most channels are at low resolutions,
where a pixel costs little. The attention sees the whole image: at a quarter of the resolution 28x28 pixels are 49
tokens, so the choice of a digit is one global decision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

_EMBEDDING_FREQUENCIES = 16


class NormSilu(Protocol):
    """``silu(norm(x) * scale + shift)`` in one pass, as in ``baselines/networks/norm_kernel.py``."""

    def __call__(self, x: torch.Tensor, norm: nn.GroupNorm, scale: torch.Tensor | None = None, shift: torch.Tensor | None = None) -> torch.Tensor: ...


def fuse(network: nn.Module, norm_silu: NormSilu) -> None:
    """Make all ``ScoreUNet`` in ``network`` use a kernel for their norms from now on. This is for inference only."""
    for module in network.modules():
        if isinstance(module, (ResidualBlock, ScoreUNet)):
            module.fused = norm_silu


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """Layout of a ``ScoreUNet``.

    Attributes:
        channels: image channels C.
        widths: feature channels at full, half and quarter resolution; multiples of ``group_size``.
        blocks: residual blocks per resolution on the way down. The way up has as many.
        heads: attention heads at the quarter resolution, a divisor of its width; 0 for none.
        embedding: width of the noise embedding.
        group_size: channels per group of the group norm.

    Raises:
        ValueError: widths, heads and group size do not fit together.
    """

    channels: int = 1
    widths: tuple[int, int, int] = (32, 96, 128)
    blocks: tuple[int, int, int] = (1, 2, 2)
    heads: int = 4
    embedding: int = 128
    group_size: int = 8

    def __post_init__(self) -> None:
        if any(w <= 0 or w % self.group_size for w in self.widths):
            raise ValueError(f"widths must be positive multiples of {self.group_size}, got {self.widths}")
        if self.heads and self.widths[-1] % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the width {self.widths[-1]}")


class NoiseEmbedding(nn.Module):
    """Fourier features of the noise label, then two linear layers: ``(B,)`` -> ``(B, embedding)``."""

    frequencies: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        # The label ln(sigma)/4 spans about 1.5. Periods from 4 down to 0.06 resolve it without aliasing of levels.
        self.register_buffer("frequencies", 2 * math.pi * torch.logspace(math.log10(0.25), math.log10(16.0), _EMBEDDING_FREQUENCIES), persistent=False)
        self.first = nn.Linear(2 * _EMBEDDING_FREQUENCIES, width)
        self.second = nn.Linear(width, width)

    def forward(self, label: torch.Tensor) -> torch.Tensor:
        phase = label[:, None] * self.frequencies
        features = torch.cat([phase.cos(), phase.sin()], dim=1)
        return F.silu(self.second(F.silu(self.first(features))))


class ResidualBlock(nn.Module):
    """norm, SiLU, conv, norm, scale and shift, SiLU, conv, plus the input.

    The noise embedding gives scale and shift. The last conv is zero at the start.
    """

    fused: NormSilu | None = None

    def __init__(self, width: int, embedding: int, group_size: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(width // group_size, width)
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.norm_out = nn.GroupNorm(width // group_size, width, affine=False)
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias) if self.conv_out.bias is not None else None

    def forward(self, h: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        if self.fused is not None:
            inner = self.fused(self.conv_in(self.fused(h, self.norm_in)), self.norm_out, 1 + scale, shift)
            added: torch.Tensor = h + self.conv_out(inner)
            return added
        inner = self.conv_in(F.silu(self.norm_in(h)))
        inner = self.norm_out(inner) * (1 + scale).to(inner.dtype) + shift.to(inner.dtype)  # addcmul is four times slower in bfloat16 on CPUs
        out: torch.Tensor = h + self.conv_out(F.silu(inner))
        return out


class SelfAttention(nn.Module):
    """Multi-head self-attention over all pixels, with a residual connection that is zero at the start."""

    def __init__(self, width: int, heads: int, group_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(width // group_size, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias) if self.out.bias is not None else None

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        batch, width, rows, columns = h.shape
        # Written out, with channels before tokens. For 49 tokens on a CPU it is twice as fast as the fused kernel with
        # its copies.
        q, k, v = self.qkv(self.norm(h)).reshape(batch, 3, self.heads, width // self.heads, rows * columns).unbind(1)
        attention = torch.softmax(q.transpose(-1, -2) @ k * (width // self.heads) ** -0.5, dim=-1)
        mixed = v @ attention.transpose(-1, -2)
        out: torch.Tensor = h + self.out(mixed.reshape(batch, width, rows, columns))
        return out


class Stage(nn.Module):
    """Residual blocks at one resolution. If the stage has heads, attention follows each block."""

    def __init__(self, width: int, blocks: int, heads: int, config: UNetConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(width, config.embedding, config.group_size) for _ in range(blocks))
        self.attention = nn.ModuleList(SelfAttention(width, heads, config.group_size) for _ in range(blocks if heads else 0))

    def forward(self, h: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        for number, block in enumerate(self.blocks):
            h = block(h, embedding)
            if len(self.attention):
                h = self.attention[number](h)
        return h


def halve(h: torch.Tensor, layer: nn.Conv2d) -> torch.Tensor:
    """Space-to-depth and a 1x1 convolution, computed as one strided convolution.

    It takes ``(B, C, H, W)`` to ``(B, out_channels, H / 2, W / 2)``.
    """
    return F.conv2d(h, layer.weight.view(layer.out_channels, h.shape[1], 2, 2), layer.bias, stride=2)


class ScoreUNet(nn.Module):
    """The network F of EDM preconditioning: ``(B, C, H, W)`` and noise labels ``(B,)`` -> ``(B, C, H, W)``.

    H and W are multiples of 4.
    """

    fused: NormSilu | None = None

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        full, half, quarter = config.widths
        self.embedding = NoiseEmbedding(config.embedding)
        self.stem = nn.Conv2d(config.channels, full, 3, padding=1)
        self.down_full = Stage(full, config.blocks[0], 0, config)
        self.to_half = nn.Conv2d(4 * full, half, 1)
        self.down_half = Stage(half, config.blocks[1], 0, config)
        self.to_quarter = nn.Conv2d(4 * half, quarter, 1)
        self.middle = Stage(quarter, 2 * config.blocks[2], config.heads, config)
        self.from_quarter = nn.Conv2d(quarter, 4 * half, 1)
        self.up_half = Stage(half, config.blocks[1], 0, config)
        self.from_half = nn.Conv2d(half, 4 * full, 1)
        self.up_full = Stage(full, config.blocks[0], 0, config)
        self.norm = nn.GroupNorm(full // config.group_size, full)
        self.head = nn.Conv2d(full, config.channels, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        embedding = self.embedding(label)
        full = self.down_full(self.stem(x), embedding)
        half = self.down_half(halve(full, self.to_half), embedding)
        h = self.middle(halve(half, self.to_quarter), embedding)
        h = self.up_half(half + F.pixel_shuffle(self.from_quarter(h), 2), embedding)
        h = self.up_full(full + F.pixel_shuffle(self.from_half(h), 2), embedding)
        out: torch.Tensor = self.head(F.silu(self.norm(h)) if self.fused is None else self.fused(h, self.norm))
        return out
