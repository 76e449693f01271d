"""Principal component pursuit by inexact augmented Lagrange multipliers, batched; for ``rpca`` on images and on audio.

See Lin, Chen and Ma, arXiv 1009.5055 (2010), Algorithm 5. Principal component pursuit (Candes, Li, Ma and Wright, J.
ACM 2011) splits a matrix D into a low-rank part A and a sparse part E:

    min ||A||_* + lambda ||E||_1   subject to   D = A + E,   lambda = 1 / sqrt(max(m, n)).

Algorithm 5, with Y the multiplier, mu the penalty and S_t the soft threshold at t:

    A <- U S_{1/mu}(Sigma) V^T,  where U Sigma V^T = D - E + Y / mu
    E <- S_{lambda/mu}(D - A + Y / mu)
    Y <- Y + mu (D - A - E)
    mu <- rho mu   if min(mu, sqrt(mu)) ||E_new - E_old||_F < eps_2 ||D||_F
    until          ||D - A - E||_F < eps_1 ||D||_F
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from baselines.decomposition.shrinkage import ExactShrinkage, Shrinkage


@dataclass(frozen=True, slots=True)
class Decomposition:
    """The result of ``robust_pca``.

    Attributes:
        low_rank, sparse: ``(B, m, n)`` in the chosen precision. If converged, they add up to the matrix within
            ``tolerance``.
        iterations: ``(B,)`` int64, iterations of each matrix.
        converged: ``(B,)`` bool; False if ``max_iterations`` ended it.
    """

    low_rank: torch.Tensor
    sparse: torch.Tensor
    iterations: torch.Tensor
    converged: torch.Tensor


def soft_threshold(values: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """``sign(v) max(|v| - t, 0)``, elementwise. ``threshold`` broadcasts and is not negative."""
    return values - values.clamp(min=-threshold, max=threshold)


def robust_pca(
    matrices: torch.Tensor,
    *,
    sparsity: float = 1.0,
    growth: float = 1.6,
    tolerance: float = 1e-7,
    penalty_tolerance: float = 1e-3,
    max_iterations: int = 300,
    precision: torch.dtype = torch.float64,
    shrinkage: Shrinkage | None = None,
) -> Decomposition:
    """Principal component pursuit of each matrix of a batch (Lin, Chen and Ma 2010, Algorithm 5).

    Each matrix has its own penalty and stops by its own residual, so its result does not depend on the rest of the
    batch.

    Args:
        matrices: ``(B, m, n)``, any scale. A matrix of zeros gives zeros.
        sparsity: ``lambda sqrt(max(m, n))``; 1 in the paper. Larger values make the sparse part sparser.
        growth: rho, growth of the penalty.
        tolerance: eps_1, for the relative residual.
        penalty_tolerance: eps_2. The penalty grows if E moves less than this. With ``inf`` it always grows, as in the
            authors' released code (with growth 1.5).
        max_iterations: the most iterations of a matrix.
        precision: float64, or float32 with ``WarmShrinkage`` for tolerances of 1e-4 and more.
        shrinkage: of the singular values; ``ExactShrinkage`` by default. ``WarmShrinkage`` is faster if ranks are low.
    """
    if matrices.shape[-2] > matrices.shape[-1]:
        found = robust_pca(
            matrices.mT,
            sparsity=sparsity,
            growth=growth,
            tolerance=tolerance,
            penalty_tolerance=penalty_tolerance,
            max_iterations=max_iterations,
            precision=precision,
            shrinkage=shrinkage,
        )
        return Decomposition(found.low_rank.mT, found.sparse.mT, found.iterations, found.converged)
    data = matrices.to(precision)
    batch, _, columns = data.shape
    weight = sparsity / columns**0.5
    low_rank, sparse = torch.zeros_like(data), torch.zeros_like(data)
    iterations = torch.zeros(batch, dtype=torch.int64, device=data.device)
    converged = data.flatten(1).eq(0).all(1)
    active = (~converged).nonzero().squeeze(1)
    state = _State.start(data[active], weight, shrinkage or ExactShrinkage())
    for _ in range(max_iterations):
        if active.numel() == 0:
            break
        done = state.step(weight, growth, tolerance, penalty_tolerance)
        iterations[active] += 1
        if bool(done.any()):
            low_rank[active[done]], sparse[active[done]] = state.low_rank[done], state.sparse[done]
            converged[active[done]] = True
            active, state = active[~done], state.select(~done)
    low_rank[active], sparse[active] = state.low_rank, state.sparse
    return Decomposition(low_rank, sparse, iterations, converged)


@dataclass(slots=True)
class _State:
    """The iterates of the matrices that have not converged.

    D, A, E and Y are ``(B, m, n)``. mu and ||D||_F are ``(B, 1, 1)``.
    """

    data: torch.Tensor
    low_rank: torch.Tensor
    sparse: torch.Tensor
    multiplier: torch.Tensor
    penalty: torch.Tensor
    norm: torch.Tensor
    shrinkage: Shrinkage

    @classmethod
    def start(cls, data: torch.Tensor, weight: float, shrinkage: Shrinkage) -> _State:
        """The paper's start: Y = D / max(||D||_2, ||D||_inf / lambda), E = 0, mu = 1.25 / ||D||_2."""
        spectral = torch.linalg.eigvalsh((data @ data.mT).double())[:, -1].clamp(min=0.0).sqrt().reshape(-1, 1, 1).to(data.dtype)
        largest = data.abs().amax((1, 2), keepdim=True)
        dual = torch.maximum(spectral, largest / weight)
        zeros = torch.zeros_like(data)
        return cls(data, zeros, zeros, data / dual, 1.25 / spectral, _frobenius(data), shrinkage)

    def step(self, weight: float, growth: float, tolerance: float, penalty_tolerance: float) -> torch.Tensor:
        """Make one pass of Algorithm 5. Returns which matrices are done, ``(B,)`` bool."""
        shifted = (self.multiplier / self.penalty).add_(self.data)
        self.low_rank = self.shrinkage(shifted - self.sparse, 1.0 / self.penalty.flatten())
        sparse = soft_threshold(shifted.sub_(self.low_rank), weight / self.penalty)
        residual = (self.data - self.low_rank).sub_(sparse)
        self.multiplier = (self.penalty * residual).add_(self.multiplier)
        if math.isinf(penalty_tolerance):
            self.penalty = growth * self.penalty
        else:
            moved = torch.minimum(self.penalty, self.penalty.sqrt()) * _frobenius(sparse - self.sparse)
            self.penalty = torch.where(moved < penalty_tolerance * self.norm, growth * self.penalty, self.penalty)
        self.sparse = sparse
        return (_frobenius(residual) < tolerance * self.norm).flatten()

    def select(self, rows: torch.Tensor) -> _State:
        return _State(
            self.data[rows], self.low_rank[rows], self.sparse[rows], self.multiplier[rows], self.penalty[rows], self.norm[rows], self.shrinkage.select(rows)
        )


def _frobenius(matrices: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.matrix_norm(matrices, keepdim=True)
    return norms
