"""Denoisers known in closed form, written as the network F of an EDM denoiser."""

from __future__ import annotations

import torch
from torch import nn

from baselines.priors.edm import preconditioning


class ZeroNetwork(nn.Module):
    """F = 0: the exact denoiser of Gaussian data with the preconditioning's own mean and deviation."""

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


class MixtureNetwork(nn.Module):
    """F of the exact denoiser of a mixture of isotropic Gaussians with deviation ``spread`` around ``centres`` ``(M, C, H, W)``."""

    def __init__(self, centres: torch.Tensor, spread: float, sigma_data: float, mean: float) -> None:
        super().__init__()
        self.centres, self.spread, self.sigma_data, self.mean = centres, spread, sigma_data, mean

    def log_density(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        variance = (sigma.square() + self.spread**2)[:, None]
        distance = (x[:, None] - self.centres[None]).flatten(2).square().sum(2)
        dims = x[0].numel()
        return torch.logsumexp(-distance / (2 * variance) - 0.5 * dims * torch.log(variance), dim=1)

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        variance = (sigma.square() + self.spread**2)[:, None]
        distance = (x[:, None] - self.centres[None]).flatten(2).square().sum(2)
        weights = torch.softmax(-distance / (2 * variance), dim=1)
        gain = (self.spread**2 / variance).view(-1, 1, 1, 1, 1)
        means = self.centres[None] + gain * (x[:, None] - self.centres[None])
        return (weights.view(*weights.shape, 1, 1, 1) * means).sum(1)

    def forward(self, scaled: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        sigma = torch.exp(4 * label)
        c = preconditioning(sigma, self.sigma_data)
        axes = (-1, 1, 1, 1)
        x = scaled / c.into.view(axes)
        return (self.denoise(x + self.mean, sigma) - self.mean - c.skip.view(axes) * x) / c.out.view(axes)
