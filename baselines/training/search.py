"""The search for the codes of mixtures under a fixed generator, for ``glom`` and ``s-d``.

It is descent with Adam, for every mixture by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

CHECK_EVERY = 50
"""Steps between two checks whether a search still improves."""
_BETAS, _SMALL = (0.9, 0.999), 1e-8

Errors = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A function from codes ``(n, ...)`` and the numbers of their searches ``(n,)`` to errors ``(n,)``.

Each error depends only on its own code.
"""


def descend(
    start: torch.Tensor,
    errors_of: Errors,
    steps: int,
    lr: float,
    *,
    tolerance: float | None = None,
    nearest: Callable[[torch.Tensor], torch.Tensor] = lambda codes: codes,
    progress: Callable[[float], None] = lambda fraction: None,
) -> torch.Tensor:
    """The codes ``(N, ...)`` of least error in each search, by Adam.

    The algorithm is Kingma and Ba 2015, algorithm 1, with its usual betas. A search ends when ``CHECK_EVERY`` more
    steps did not lower its least error by the share ``tolerance``. It then leaves the batch. Searches do not affect
    each other.

    Args:
        start: codes ``(N, ...)`` to begin with.
        errors_of: the errors to minimise. The other tensors in it must not need gradients.
        steps: the most steps of a search.
        lr: Adam's rate.
        tolerance: None makes all steps.
        nearest: moves codes ``(n, ...)`` to the nearest allowed ones, after every step.
        progress: called with the share of the steps that are done, in [0, 1], after every ``CHECK_EVERY`` steps.
    """
    rows = torch.arange(len(start), device=start.device)
    found, codes = start.detach().clone(), start.detach().clone()
    best, mean, square = codes.clone(), torch.zeros_like(codes), torch.zeros_like(codes)
    least = torch.full((len(start),), math.inf, device=start.device)
    before = least.clone()
    for step in range(1, steps + 1):
        errors, gradient = _gradient(codes, rows, errors_of)
        better = errors < least
        least = torch.where(better, errors, least)
        best = torch.where(better.reshape(-1, *[1] * (codes.ndim - 1)), codes, best)
        mean.mul_(_BETAS[0]).add_(gradient, alpha=1.0 - _BETAS[0])
        square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1.0 - _BETAS[1])
        rms = (square / (1.0 - _BETAS[1] ** step)).sqrt_().add_(_SMALL)
        codes = nearest(codes - (lr / (1.0 - _BETAS[0] ** step)) * mean / rms)
        if step % CHECK_EVERY == 0:
            progress(step / steps)
            if tolerance is None:
                continue
            going = least < (1.0 - tolerance) * before
            found[rows[~going]] = best[~going]
            rows, codes, best, mean, square, least = (part[going] for part in (rows, codes, best, mean, square, least))
            before = least
            if not len(rows):
                break
    found[rows] = best
    return found


def _gradient(codes: torch.Tensor, rows: torch.Tensor, errors_of: Errors) -> tuple[torch.Tensor, torch.Tensor]:
    """Errors ``(n,)``, and the gradient of each with respect to its own code ``(n, ...)``."""
    with torch.enable_grad():
        leaf = codes.detach().requires_grad_(True)
        errors = errors_of(leaf, rows)
        (gradient,) = torch.autograd.grad(errors.sum(), leaf)
    return errors.detach(), gradient
