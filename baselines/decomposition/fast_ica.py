"""Whitening and symmetric FastICA of a batch; for ``ica`` on images and on audio.

See Hyvarinen, IEEE Trans. Neural Networks 10(3), 1999, and Hyvarinen, Karhunen and Oja, "Independent Component
Analysis" (2001), Table 8.4, with g = tanh: W <- E[g(W z) z^T] - diag(E[g'(W z)]) W,  W <- (W W^T)^-1/2 W. After five
steps the iteration is stabilised.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

CHUNK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 27}
"""Elements of the observations that are handled at a time.

On the CPU this makes 16 MiB per float64 work array. A GPU pays for launches, and needs more at once.
"""
LOOK_EVERY = {"cpu": 1, "cuda": 8}
"""Steps after which finished examples are removed. A GPU would wait for the answer at every step."""
_SERIAL_EIGEN = 32
"""Up to this size CUDA's libraries decompose a batch of symmetric matrices together.

Some versions decompose larger ones one after the other.
"""

_DAMPING = 0.7
_LEAST_CURVATURE = 0.2
"""Both are of the stabilised steps.

With these no example of 200 digit pairs depends on perturbations of 1e-12. At damping 1 a third do.
"""


@dataclass(frozen=True, slots=True)
class Whitening:
    """White observations and the way back.

    Attributes:
        white: ``(B, d, n)`` with mean 0. The covariance is 1 if the observations have that many dimensions.
        matrix: ``(B, d, D)``, from centred observations to ``white``.
        inverse: ``(B, D, d)``, back to the projection of the centred observations on the d directions.
    """

    white: torch.Tensor
    matrix: torch.Tensor
    inverse: torch.Tensor


def whiten(observations: torch.Tensor, components: int | None = None, ridge: float = 1e-6) -> Whitening:
    """PCA whitening of each example.

    Args:
        observations: ``(B, D, n)`` float64, n samples of D dimensions.
        components: d, how many leading principal directions are kept; all by default.
        ridge: added to the variances, in units of the largest one, so that directions without variance stay (nearly)
            zero.
    """
    centred = observations - observations.mean(-1, keepdim=True)
    matrix, inverse = principal_directions(centred @ centred.mT / observations.shape[-1], components, ridge)
    return Whitening(matrix @ centred, matrix, inverse)


def principal_directions(covariance: torch.Tensor, components: int | None = None, ridge: float = 1e-6) -> tuple[torch.Tensor, torch.Tensor]:
    """``matrix`` and ``inverse`` of ``Whitening`` from covariances ``(B, D, D)``.

    The other arguments are those of ``whiten``.
    """
    variances, vectors = symmetric_eigen(covariance)
    kept = covariance.shape[1] if components is None else min(components, covariance.shape[1])
    variances, vectors = variances[:, -kept:].flip(-1).clamp(min=0.0), vectors[:, :, -kept:].flip(-1)
    floor = (ridge * variances[:, :1]).clamp(min=torch.finfo(variances.dtype).tiny)
    scale = (variances + floor).sqrt()
    return vectors.mT / scale.unsqueeze(-1), vectors * scale.unsqueeze(-2)


def symmetric_eigen(matrices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``torch.linalg.eigh`` of ``(B, D, D)``. Matrices that a GPU might take one by one go to the CPU's cores."""
    if matrices.device.type != "cuda" or matrices.shape[-1] <= _SERIAL_EIGEN:
        values, vectors = torch.linalg.eigh(matrices)
        return values, vectors
    return eigen_on_host(matrices, os.cpu_count() or 1)


def eigen_on_host(matrices: torch.Tensor, workers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same on the CPU, in ``workers`` threads. The results are on the device of ``matrices``."""
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(torch.linalg.eigh, matrices.cpu().chunk(workers)))
    values, vectors = (torch.cat(parts).to(matrices.device) for parts in zip(*found, strict=True))
    return values, vectors


def decorrelate(unmixing: torch.Tensor) -> torch.Tensor:
    """``(W W^T)^-1/2 W``, the orthogonal matrix nearest to W (symmetric decorrelation), of each ``(B, d, d)``."""
    values, vectors = torch.linalg.eigh(unmixing @ unmixing.mT)
    nearest: torch.Tensor = (vectors / values.clamp(min=torch.finfo(values.dtype).tiny).sqrt().unsqueeze(-2)) @ (vectors.mT @ unmixing)
    return nearest


@dataclass(frozen=True, slots=True)
class Unmixing:
    """The result of ``fast_ica``: orthogonal ``(B, d, d)``, iterations ``(B,)`` int64, converged ``(B,)`` bool."""

    matrix: torch.Tensor
    iterations: torch.Tensor
    converged: torch.Tensor


def fast_ica(
    white: torch.Tensor,
    start: torch.Tensor | None = None,
    *,
    plain_steps: int = 5,
    max_iterations: int = 200,
    tolerance: float = 1e-4,
    look_every: int | None = None,
) -> Unmixing:
    """Symmetric FastICA with the log cosh contrast on each example of a batch.

    The first steps are Hyvarinen's. With few samples, or with nearly Gaussian components, these steps never settle,
    and a rounding error decides where they end (in half of all 8 x 8 digit pairs). So the later steps are stabilised.
    Every component keeps the sign of its kurtosis (is it peaked or flat?). The fixed points of FastICA are then the
    maxima of one smooth contrast. W is turned uphill by 0.7 of the Newton step of Ablin, Cardoso and Gramfort ("Faster
    ICA under orthogonal constraint", ICASSP 2018).

    Each example stops by its own rule: no row would turn by more than ``sqrt(2 tolerance)`` radians. For plain steps
    this is scikit-learn's ``max_i | |<w_i new, w_i old>| - 1 | < tolerance``. The result does not depend on the rest
    of the batch.

    Args:
        white: ``(B, d, n)`` whitened observations, float64 recommended.
        start: ``(B, d, d)`` first unmixing matrix, which is made orthogonal; the identity by default.
        plain_steps: steps before stabilisation.
        max_iterations: the most steps of an example.
        tolerance: of the stopping rule.
        look_every: steps after which finished examples are removed; None: what suits the device. Finished examples do
            not change, so this changes no number.
    """
    batch, size, _ = white.shape
    eye = torch.eye(size, dtype=white.dtype, device=white.device).expand(batch, size, size)
    matrix = eye.clone() if start is None else decorrelate(start)
    iterations = torch.zeros(batch, dtype=torch.int64, device=white.device)
    converged = torch.zeros(batch, dtype=torch.bool, device=white.device)
    active, signs = torch.arange(batch, device=white.device), torch.ones(batch, size, dtype=white.dtype, device=white.device)
    look_every = look_every or LOOK_EVERY.get(white.device.type, 1)
    going = ~converged
    for step in range(max_iterations):
        if active.numel() == 0:
            break
        old = matrix[active]
        cross, slope = _response(old, white)
        if step < plain_steps:
            new = decorrelate((cross - torch.diag_embed(slope)) @ old)
            turned = ((new * old).sum(-1).abs() - 1.0).abs().amax(-1)
            signs = torch.where(cross.diagonal(dim1=1, dim2=2) < slope, -1.0, 1.0).to(white.dtype)
        else:
            turn = _uphill(cross, slope, signs)
            new = decorrelate(old + _DAMPING * turn @ old)
            turned = turn.square().sum(-1).amax(-1) / 2
        matrix[active] = torch.where(going[:, None, None], new, old)
        iterations[active] += going.to(torch.int64)
        going = going & ~(turned < tolerance)
        if (step + 1) % look_every == 0 and not bool(going.all()):
            converged[active[~going]] = True
            active, signs, white, going = active[going], signs[going], white[going], going[going]
    converged[active] = ~going
    return Unmixing(matrix, iterations, converged)


def _response(unmixing: torch.Tensor, white: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``E[g(y) y^T]`` ``(B, d, d)`` and ``E[g'(y)]`` ``(B, d)`` for y = W z and g = tanh."""
    components = unmixing @ white
    response = torch.tanh(components)
    samples = white.shape[-1]
    # E[g'] = 1 - E[tanh^2], by a norm. This needs no third array of the size of the responses.
    slope = 1.0 - torch.linalg.vector_norm(response, dim=-1).square() / samples
    return response @ components.mT / samples, slope


def _uphill(cross: torch.Tensor, slope: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """Antisymmetric ``(B, d, d)``: the approximate Newton step for ``sum_i signs_i E[log cosh y_i]``.

    The curvatures are bounded from below.
    """
    curvature = signs * (cross.diagonal(dim1=1, dim2=2) - slope)
    gradient = signs.unsqueeze(-1) * cross
    return (gradient - gradient.mT) / (curvature.unsqueeze(-1) + curvature.unsqueeze(-2)).clamp(min=_LEAST_CURVATURE)
