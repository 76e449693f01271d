"""VQ-VAE of LASS. van den Oord, Vinyals and Kavukcuoglu, NeurIPS 2017, sec. 3.

The paper is "Neural discrete representation learning". The size is that of Postolache et al. (AAAI 2023). An encoder
makes a map of vectors that is a quarter as high and as wide as the image. Each vector is replaced with the nearest of
K codes. The number of the code is a *token*. A decoder turns the codes into an image. Images of 28x28x1 have 7x7
tokens, and with 256 codes of 128 numbers the network has 1,220,481 parameters.

Encoder and decoder have batch norm. In training mode the tokens of an image therefore depend on its batch. So tokens,
counts of sums and samples are taken in evaluation mode. The authors' code counts in training mode (flag 44 of
docs/protocols.md), and ours never does.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

STRIDE = 4
"""Pixels of an image per token, in height and in width."""


class Coded(NamedTuple):
    """The outputs of ``VQVAE.forward``.

    Attributes:
        images: ``(B, C, H, W)`` in [0, 1], decoded.
        latents: ``(B, D, h, w)`` before they are quantised.
        codes: ``(B, D, h, w)``, the nearest codes, with the codebook's gradients.
        tokens: ``(B, h, w)`` int64.
    """

    images: torch.Tensor
    latents: torch.Tensor
    codes: torch.Tensor
    tokens: torch.Tensor


class _ResidualBlock(nn.Module):
    """``x + f(x)``; f is LeakyReLU, 3x3, batch norm, LeakyReLU, 1x1, batch norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LeakyReLU(), nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.LeakyReLU(), nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.layers(x)
        return x + changed


class VQVAE(nn.Module):
    """The VQ-VAE: see the top of this file.

    Args:
        channels: of the image.
        size: its height and width, multiples of 4.
        codes: K, how many codes there are.
        width: of all layers, and the dimension D of a code.

    Raises:
        ValueError: height or width is no multiple of 4.
    """

    def __init__(self, channels: int = 1, size: tuple[int, int] = (28, 28), codes: int = 256, width: int = 128) -> None:
        super().__init__()
        if any(side < STRIDE or side % STRIDE for side in size):
            raise ValueError(f"height and width must be multiples of {STRIDE}, got {size[0]} x {size[1]}")
        self.grid = (size[0] // STRIDE, size[1] // STRIDE)
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 4, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(),
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            _ResidualBlock(width),
            _ResidualBlock(width),
        )
        self.decoder = nn.Sequential(
            _ResidualBlock(width),
            _ResidualBlock(width),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(),
            nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
        )
        self.codebook = nn.Parameter(torch.zeros(codes, width))

    def draw_weights(self, random: torch.Generator) -> None:
        """Draw the first weights: Xavier (Glorot and Bengio 2010), zero biases, and codes uniform in [-1/K, 1/K]."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight, generator=random)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        bound = 1.0 / len(self.codebook)
        nn.init.uniform_(self.codebook, -bound, bound, generator=random)

    def forward(self, images: torch.Tensor) -> Coded:
        """Images ``(B, C, H, W)`` in [0, 1] to everything that the losses need.

        The gradient of the decoder's input passes straight through to the latents (sec. 3.2).
        """
        latents = self.encode(images)
        tokens = self.quantise(latents)
        codes = self.embed(tokens)
        return Coded(self.decode(latents + (codes - latents).detach()), latents, codes, tokens)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(B, C, H, W)`` to float32 latents ``(B, D, h, w)``."""
        latents: torch.Tensor = self.encoder(images)
        return latents.float()

    def quantise(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents ``(B, D, h, w)`` to the numbers of their nearest codes ``(B, h, w)`` int64.

        It always computes in float32.
        """
        with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
            vectors, codebook = latents.float().movedim(1, -1).flatten(0, -2), self.codebook.float()
            # |v - e|^2 without |v|^2, which is the same for all codes
            distances = torch.addmm(codebook.square().sum(1), vectors, codebook.T, alpha=-2.0)
            return distances.argmin(1).reshape(len(latents), *latents.shape[2:])

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens ``(B, h, w)``, or ``(B, h * w)`` in raster order, to their codes ``(B, D, h, w)``."""
        return functional.embedding(tokens.reshape(-1, *self.grid), self.codebook).movedim(-1, 1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents or codes ``(B, D, h, w)`` to float32 images ``(B, C, H, W)`` in [0, 1]."""
        made: torch.Tensor = self.decoder(latents)
        return torch.sigmoid(made.float())

    def tokens_of(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(B, C, H, W)`` to tokens in raster order ``(B, h * w)`` int64.

        Raises:
            ValueError: the network is in training mode, in which the tokens of an image depend on its batch.
        """
        if self.training:
            raise ValueError("tokens are taken in evaluation mode; call eval() first")
        with torch.no_grad():
            return self.quantise(self.encode(images)).flatten(1)
