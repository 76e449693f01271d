"""The denoising loss with the weights of EDM, one number per example.

Training minimises it, and validation reports it per noise band. ``sepbench.selection.denoising_losses`` has other
weights. With those, the losses of several levels add up to a bound on the likelihood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from baselines.priors.edm import loss_weight
from baselines.training.config import generator
from sepbench.precision import float32_products

BAND_EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, math.inf)
N_BANDS = len(BAND_EDGES) - 1


def as_float(images: torch.Tensor) -> torch.Tensor:
    """Images as float32: uint8 as v / 255, floats unchanged."""
    return images.to(torch.float32) / 255.0 if images.dtype == torch.uint8 else images.to(torch.float32)


def edm_losses(model: nn.Module, clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor, sigma_data: float) -> torch.Tensor:
    """Weighted squared error of each example, ``(B,)`` float32: Karras et al. (2022), eq. (8) before the expectation.

    Args:
        model: denoiser ``(B, C, H, W), (B,) -> (B, C, H, W)``.
        clean: images ``(B, C, H, W)`` in [0, 1].
        noise: standard normal, the same shape.
        sigma: noise levels ``(B,)``.
        sigma_data: standard deviation of the data. A model whose output is only ``c_skip`` times its input scores 1 at
            every level.
    """
    axes = (-1, *([1] * (clean.ndim - 1)))
    error: torch.Tensor = (model(clean + sigma.view(axes) * noise, sigma) - clean).square().flatten(1).mean(1)
    return loss_weight(sigma, sigma_data) * error


@dataclass(slots=True)
class BandMeans:
    """Running means of losses per noise band, and of the gradient norm per step."""

    total: torch.Tensor
    count: torch.Tensor
    norm: float | torch.Tensor = 0.0
    steps: int = 0

    @classmethod
    def empty(cls, device: str | torch.device = "cpu") -> BandMeans:
        return cls(torch.zeros(N_BANDS, dtype=torch.float64, device=device), torch.zeros(N_BANDS, dtype=torch.float64, device=device))

    def add(self, sigma: torch.Tensor, losses: torch.Tensor, norm: float | torch.Tensor = 0.0) -> None:
        """Add losses ``(B,)`` at levels ``sigma`` ``(B,)``, and the step's gradient norm.

        All are on one device, and the call does not wait for it.
        """
        band = torch.bucketize(sigma, _edges(sigma.device), right=True)
        if sigma.device.type == "cpu":
            self.total.index_add_(0, band, losses.to(torch.float64))
            self.count.index_add_(0, band, torch.ones_like(losses, dtype=torch.float64))
        else:  # the same sums, in an order that does not depend on the threads' timing
            members = (band == torch.arange(N_BANDS, device=band.device)[:, None]).to(torch.float64)
            self.total += members @ losses.to(torch.float64)
            self.count += members.sum(1)
        self.norm, self.steps = self.norm + norm, self.steps + 1

    def means(self) -> list[float]:
        """One mean per band, rounded to five decimals; NaN for an empty band."""
        return [round(value, 5) for value in (self.total / self.count).tolist()]


@lru_cache(maxsize=4)
def _edges(device: torch.device) -> torch.Tensor:
    return torch.tensor(BAND_EDGES[1:-1], device=device)


def fixed_noise(shape: torch.Size) -> torch.Tensor:
    """The validation noise, standard normals of ``shape`` on the CPU: the same at every call."""
    return torch.randn(shape, generator=generator("validation"))


def spread_sigmas(count: int, low: float, high: float) -> torch.Tensor:
    """``count`` fixed levels, log-uniform in [low, high], in golden-ratio order.

    Any stretch of them covers the range evenly.
    """
    position = (torch.arange(count) * 0.6180339887498949) % 1.0
    return torch.exp(math.log(low) + position * math.log(high / low))


@torch.no_grad()
def loss_per_level(model: nn.Module, images: torch.Tensor, levels: torch.Tensor, sigma_data: float, chunk: int = 64) -> tuple[list[float], list[float]]:
    """Weighted loss and denoising PSNR of held-out images at each level: two lists of L numbers.

    Args:
        model: denoiser, see ``edm_losses``.
        images: ``(N, C, H, W)`` uint8, or float32 in [0, 1].
        levels: ``(L,)``.
        sigma_data: standard deviation of the data.
        chunk: images per pass.

    Returns:
        The losses, and the PSNRs in dB (peak 1, of the mean error).
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    clean = as_float(images).to(device)
    noise = fixed_noise(clean.shape).to(device)
    losses, psnrs = [], []
    for level in levels.to(torch.float32):
        sigma = level.to(device).expand(len(clean))
        rows = zip(*(torch.split(t, chunk) for t in (clean, noise, sigma)), strict=True)
        with float32_products(device):
            parts = [edm_losses(model, c, n, s, sigma_data) for c, n, s in rows]
        weighted = float(torch.cat(parts).double().mean())
        losses.append(weighted)
        psnrs.append(-10.0 * math.log10(weighted / float(loss_weight(level, sigma_data))))
    return losses, psnrs
