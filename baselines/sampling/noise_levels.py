"""Sequences of noise levels for samplers, highest first."""

from __future__ import annotations

import torch


def ncsn_levels(count: int = 10, highest: float = 1.0, lowest: float = 0.01) -> list[float]:
    """Geometric noise levels of NCSN (Song and Ermon 2019, sec. 5): ten from 1 to 0.01."""
    return torch.logspace(0, 1, count, base=lowest / highest, dtype=torch.float64).mul(highest).tolist()


def karras_levels(count: int, highest: float, lowest: float, rho: float = 7.0) -> list[float]:
    """Noise levels of Karras et al. (2022), eq. (5), without the final zero."""
    ramp = torch.linspace(0, 1, count, dtype=torch.float64)
    levels = (highest ** (1 / rho) + ramp * (lowest ** (1 / rho) - highest ** (1 / rho))) ** rho
    return [float(level) for level in levels]
