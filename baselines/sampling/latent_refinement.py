"""Refinement of latents, so that their decoded images explain the mixture: Postolache et al. 2023, eqs. (12) and (13).

    e_k <- e_k - alpha grad_k || D(e_1) + D(e_2) - 2 y ||_2        T = 500, alpha = 0.1

The paper prints a plus sign, which would climb (flag 47 of docs/protocols.md). The released code descends on another
loss, ``mean ((D(e_1) + D(e_2)) / 2 - y)^2 + 1e-3 mean of (e - start)^2``. It uses Adam with a rate of 0.1 that halves
every 100 steps: ``adam``.

Ours differs in this. Every mixture is refined by itself, and keeps its images of least loss, which can be those of the
start. The released code refines a batch by one loss, and returns the images before its last step. The paper has two
sources. With K sources the loss compares the sum of all decoded images with K y.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch

Refinement = Literal["descent", "adam", "none"]
_BETAS, _SMALL = (0.9, 0.999), 1e-8
_PULL, _HALVED_EVERY = 1e-3, 100


def refined(
    decode: Callable[[torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    means: torch.Tensor,
    steps: int,
    rate: float = 0.1,
    how: Refinement = "descent",
    *,
    progress: Callable[[float], None] = lambda fraction: None,
) -> torch.Tensor:
    """The decoded images of the refined latents.

    Args:
        decode: latents ``(n, D, h, w)`` to images ``(n, C, H, W)``, each by itself. Its weights must need no
            gradients.
        start: latents ``(B, K, D, h, w)``.
        means: y, the mean of the K sources, ``(B, C, H, W)``.
        steps: T; 0 decodes the start.
        rate: alpha, or Adam's first rate.
        how: see the top of this file; ``none`` decodes the start.
        progress: called with the share of the steps that are done, in [0, 1].

    Returns:
        ``(B, K, C, H, W)``.
    """
    steps = 0 if how == "none" else steps
    latents, first = start.detach(), start.detach()
    mean, square = torch.zeros_like(latents), torch.zeros_like(latents)
    least = torch.full((len(start),), math.inf, device=start.device)
    best = torch.zeros(*start.shape[:2], *means.shape[1:], device=start.device)
    for step in range(steps + 1):
        leaf = latents.requires_grad_(step < steps)
        with torch.set_grad_enabled(step < steps):
            images = decode(leaf.flatten(0, 1)).unflatten(0, start.shape[:2])
            losses = _losses(images, means, leaf, first, how)
        better = losses.detach() < least
        least = torch.where(better, losses.detach(), least)
        best = torch.where(better[:, None, None, None, None], images.detach(), best)
        progress(step / steps if steps else 1.0)
        if step == steps:
            break
        (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        if how == "descent":
            latents = leaf.detach() - rate * gradient
            continue
        mean.mul_(_BETAS[0]).add_(gradient, alpha=1.0 - _BETAS[0])
        square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1.0 - _BETAS[1])
        now = rate * 0.5 ** (step // _HALVED_EVERY) / (1.0 - _BETAS[0] ** (step + 1))
        latents = leaf.detach() - now * mean / (square / (1.0 - _BETAS[1] ** (step + 1))).sqrt_().add_(_SMALL)
    return best


def _losses(images: torch.Tensor, means: torch.Tensor, latents: torch.Tensor, start: torch.Tensor, how: Refinement) -> torch.Tensor:
    """The loss of each mixture, ``(B,)``."""
    sources = images.shape[1]
    residual = images.sum(1) - sources * means
    if how != "adam":
        return residual.flatten(1).square().sum(1).add(1e-12).sqrt()
    return (residual / sources).flatten(1).square().mean(1) + _PULL * (latents - start).flatten(1).square().mean(1)
