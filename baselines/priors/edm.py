"""Denoisers and scores over a continuous noise range: the preconditioning of Karras, Aittala, Aila and Laine,
"Elucidating the design space of diffusion-based generative models" (NeurIPS 2022), table 1, column "EDM".

A noisy image is ``x = y + sigma * n`` with ``n ~ N(0, I)`` and ``y`` an image in [0, 1]. Vincent (2011) and Karras et al. eq. (3):
``grad_x log p_sigma(x) = (D(x; sigma) - x) / sigma^2`` where ``D`` is the least-squares denoiser ``E[y | x]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Preconditioning:
    """The four coefficients of Karras et al. (2022), eq. (7), each ``(B,)`` or scalar."""

    skip: torch.Tensor
    out: torch.Tensor
    into: torch.Tensor
    noise: torch.Tensor


def preconditioning(sigma: torch.Tensor, sigma_data: float) -> Preconditioning:
    """Table 1 of Karras et al. (2022) for noise levels ``sigma`` > 0 and data of standard deviation ``sigma_data``."""
    total = sigma.square() + sigma_data**2
    return Preconditioning(
        skip=sigma_data**2 / total,
        out=sigma * sigma_data * total.rsqrt(),
        into=total.rsqrt(),
        noise=sigma.log() / 4.0,
    )


def loss_weight(sigma: torch.Tensor, sigma_data: float) -> torch.Tensor:
    """``lambda(sigma) = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2``: every level's loss is 1 for a network that outputs zero."""
    return (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()


def _axes(x: torch.Tensor) -> tuple[int, ...]:
    return (-1, *([1] * (x.ndim - 1)))


class EDMDenoiser(nn.Module):
    """``D(x; sigma) = mu + c_skip (x - mu) + c_out F(c_in (x - mu); c_noise)``.

    Table 1 assumes data of zero mean; images in [0, 1] are shifted by their mean pixel ``mu`` here, which leaves the score unchanged.

    Args:
        network: F, called with ``(B, C, H, W)`` of about unit variance and labels ``(B,)``.
        sigma_data: standard deviation of all training pixels.
        mean: mean of all training pixels.
    """

    def __init__(self, network: nn.Module, sigma_data: float, mean: float) -> None:
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data
        self.mean = mean

    def _centred_and_raw(self, x: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``x - mu`` and the network's output, both float32."""
        c = preconditioning(sigma.to(torch.float32), self.sigma_data)
        centred = x.to(torch.float32) - self.mean
        return centred, self.network(c.into.view(_axes(x)) * centred, c.noise).to(torch.float32)

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Denoised ``(B, C, H, W)`` float32 for noisy ``x`` of the same shape (data scale) and levels ``sigma`` ``(B,)``."""
        centred, raw = self._centred_and_raw(x, sigma)
        c = preconditioning(sigma.to(torch.float32), self.sigma_data)
        return self.mean + c.skip.view(_axes(x)) * centred + c.out.view(_axes(x)) * raw

    def score(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """``(D(x; sigma) - x) / sigma^2`` without the difference of two nearly equal images, which at small sigma costs half the digits.

        With table 1, ``(c_skip - 1) / sigma^2 = -1 / (sigma^2 + sigma_data^2)`` and ``c_out / sigma^2 = c_in sigma_data / sigma``.
        """
        centred, raw = self._centred_and_raw(x, sigma)
        level = sigma.to(torch.float32).view(_axes(x))
        total = level.square() + self.sigma_data**2
        return self.sigma_data / level * total.rsqrt() * raw - centred / total
