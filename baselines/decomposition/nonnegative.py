"""Non-negative matrix factorisation and coding in Gram form, batched in torch; shared by ``nmf`` and ``nmf-semi``.

Signals are rows: codes ``H (N, R)`` times atoms ``W (R, D)`` explain ``X (N, D)``. Everything is non-negative, and the
objective is

    F(W, H) = 1/2 ||X - H W||^2 + sparsity * sum(H).

Both families of solvers use a signal only through ``X W^T`` and ``W W^T``. So an iteration of coding costs N R^2,
whatever D is. Iterations are counted, and no statistic of the batch stops them: row n of the codes depends only on row
n of the signals.

* ``encode`` and ``factorise`` use the multiplicative updates of Lee and Seung, "Algorithms for non-negative matrix
  factorization" (NIPS 2000), theorem 1, codes first. If they stop early from a flat start, they regularise: see
  ``baselines/nmf.py``.
* ``sparse_encode`` and ``sparse_factorise`` use alternating non-negative least squares with an L1 penalty and atoms in
  the unit ball. Accelerated projected gradient solves for the codes (Nesterov 1983, eq. 2; restart of O'Donoghue and
  Candes 2015, sec. 3.2, for each row by itself). The atoms are solved one after the other, exactly (block-coordinate
  descent: Mairal et al. 2010, algorithm 2). Any exact NNLS solver has these fixed points. Kim and Park's block
  pivoting (2011) solves each column's own active set and cannot be batched. We measured F per digit on 4,000 MNIST
  digits with 50 atoms and sparsity 1 (iterations: seconds): 18.46 (50: 2.5) and 18.37 (100: 5.3), against 18.55 (100:
  2.8) and 18.42 (200: 6.1) with multiplicative updates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from sepbench.noise import NoiseSource

FLOOR = 1e-12
"""Added to denominators, so that an atom or code that is zero everywhere stays zero instead of becoming 0 / 0."""

_CHUNK_ELEMENTS = 1 << 17
"""Code elements handled at a time on the CPU: 512 KiB per float32 work array, to stay in the cache.

With fewer, threads wait more.
"""

Progress = Callable[[float], None]


def _silent(fraction: float) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Factors:
    """``X ~ codes @ atoms``: atoms ``(R, D)``, codes ``(N, R)``, both non-negative."""

    atoms: torch.Tensor
    codes: torch.Tensor

    def objective(self, signals: torch.Tensor, sparsity: float = 0.0) -> float:
        """F of the top of this file for signals ``(N, D)``, summed over all signals, in float64."""
        residual = signals.double() - self.codes.double() @ self.atoms.double()
        return float(0.5 * residual.square().sum() + sparsity * self.codes.double().sum())

    def unit_atoms(self) -> Factors:
        """The same product with every atom of length 1. Atoms of length 0 stay."""
        lengths = torch.linalg.vector_norm(self.atoms, dim=1).clamp(min=FLOOR)
        return Factors(self.atoms / lengths.unsqueeze(1), self.codes * lengths)


def random_atoms(signals: torch.Tensor, count: int, noise: NoiseSource, slot: int = 0) -> torch.Tensor:
    """Uniform start atoms ``(count, D)``, scaled to the signals ``(N, D)``.

    The draws depend only on the noise source and ``slot``. They are never zero, because a multiplicative update cannot
    leave zero.
    """
    draws = noise.uniform(torch.arange(count), step=0, source=slot, shape=signals.shape[1:], device=signals.device)
    scale = (signals.mean() / count).clamp(min=FLOOR).sqrt()
    return (draws + 2.0**-24) * (2.0 * scale).to(draws.dtype)


def sample_atoms(signals: torch.Tensor, count: int, noise: NoiseSource, slot: int = 0) -> torch.Tensor:
    """``count`` different signals of ``(N, D)``, N >= count. The choice depends only on the noise source and ``slot``.

    For ``sparse_factorise`` this start is better than ``random_atoms``: F is lower after the same number of rounds.
    For multiplicative updates it is bad, because zeros stay.
    """
    ranks = noise.uniform(torch.arange(signals.shape[0]), step=0, source=slot, shape=(1,)).squeeze(1)
    return signals[ranks.argsort(stable=True)[:count].to(signals.device)].clone()


def _rows(signals: torch.Tensor, atoms: int) -> int:
    return max(1, _CHUNK_ELEMENTS // atoms) if signals.device.type == "cpu" else max(1, signals.shape[0])


def _flat_codes(products: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """The best code of each signal with all entries equal, ``<x, s> / <s, s>`` with s the sum of all atoms.

    It needs no scale. Products with the atoms ``(R, n)`` become codes ``(R, n)``.
    """
    return (products.sum(0) / gram.sum().clamp(min=FLOOR)).expand_as(products).contiguous()


def _multiply_codes(codes: torch.Tensor, products: torch.Tensor, gram: torch.Tensor, penalty: torch.Tensor, work: torch.Tensor) -> None:
    """Make one update ``H^T <- H^T * W X^T / (W W^T H^T + penalty)`` in place.

    Codes are ``(R, n)`` here, and the penalty is ``(R, 1)``. With signals along the fast axis the small product is
    10-15 % faster.
    """
    torch.addmm(penalty, gram, codes, out=work)
    torch.div(products, work, out=work)
    codes.mul_(work)


def encode(signals: torch.Tensor, atoms: torch.Tensor, iterations: int, *, sparsity: float = 0.0) -> torch.Tensor:
    """Codes ``(N, R)`` of signals ``(N, D)`` on fixed atoms ``(R, D)``, by multiplicative updates.

    They start from the best flat code.
    """
    gram = atoms @ atoms.T
    penalty = torch.full_like(gram[:, :1], sparsity + FLOOR)
    found = signals.new_empty(signals.shape[0], atoms.shape[0])
    rows = _rows(signals, atoms.shape[0])
    for signal, code in zip(signals.split(rows), found.split(rows), strict=True):
        products = atoms @ signal.T
        codes = _flat_codes(products, gram)
        work = torch.empty_like(codes)
        for _ in range(iterations):
            _multiply_codes(codes, products, gram, penalty, work)
        code.copy_(codes.T)
    return found


def factorise(signals: torch.Tensor, atoms: torch.Tensor, iterations: int, *, codes: torch.Tensor | None = None, progress: Progress = _silent) -> Factors:
    """Atoms and codes by alternating multiplicative updates. F never rises.

    Args:
        signals: ``(N, D)``, not negative.
        atoms: ``(R, D)`` start, positive.
        iterations: updates of the codes and of the atoms.
        codes: ``(N, R)`` start; the best flat codes by default.
        progress: called with a fraction in (0, 1].
    """
    atoms = atoms.clone()
    rows = _rows(signals, atoms.shape[0])
    chunks = signals.split(rows)
    if codes is None:
        gram = atoms @ atoms.T
        parts = [_flat_codes(atoms @ signal.T, gram) for signal in chunks]
    else:
        parts = [part.T.clone(memory_format=torch.contiguous_format) for part in codes.split(rows)]
    penalty = torch.full_like(atoms[:, :1], FLOOR)
    work = [torch.empty_like(part) for part in (parts[0], parts[-1])]
    for iteration in range(iterations):
        gram = atoms @ atoms.T
        targets, code_gram = torch.zeros_like(atoms), torch.zeros_like(gram)
        for signal, part in zip(chunks, parts, strict=True):
            _multiply_codes(part, atoms @ signal.T, gram, penalty, work[0] if part.shape == work[0].shape else work[1])
            targets.addmm_(part, signal)  # for the atoms' update, now, because the chunk is in the cache
            code_gram.addmm_(part, part.T)
        atoms.mul_(targets.div_((code_gram @ atoms).add_(FLOOR)))
        progress((iteration + 1) / iterations)
    return Factors(atoms, torch.cat([part.T for part in parts]))


def sparse_encode(signals: torch.Tensor, atoms: torch.Tensor, iterations: int, *, sparsity: float = 0.0, codes: torch.Tensor | None = None) -> torch.Tensor:
    """Codes ``(N, R)`` that minimise F for fixed atoms (with ``sparsity`` 0: non-negative least squares).

    Args:
        signals: ``(N, D)``.
        atoms: ``(R, D)``.
        iterations: gradient steps. The codes may be exactly zero.
        sparsity: weight of the L1 penalty.
        codes: ``(N, R)`` start; zeros by default.
    """
    gram = atoms @ atoms.T
    # The largest eigenvalue bounds the curvature. The margin covers its rounding.
    step = float(1.0 / (1.001 * torch.linalg.eigvalsh(gram.double())[-1]).clamp(min=FLOOR))
    targets = signals @ atoms.T - sparsity
    start = torch.zeros_like(targets) if codes is None else codes
    rows = _rows(signals, atoms.shape[0])
    chunks = zip(start.split(rows), targets.split(rows), strict=True)
    return torch.cat([_accelerated_descent(code, target, gram, step, iterations) for code, target in chunks])


def _accelerated_descent(codes: torch.Tensor, targets: torch.Tensor, gram: torch.Tensor, step: float, iterations: int) -> torch.Tensor:
    """Minimise 1/2 h G h^T - h t^T over h >= 0 for each row.

    It is projected gradient from an extrapolated point. If the momentum points uphill, it is dropped.
    """
    ahead = codes
    momentum = torch.ones_like(codes[:, :1])
    for _ in range(iterations):
        new = torch.addmm(targets, ahead, gram, beta=1.0, alpha=-1.0).mul_(step).add_(ahead).clamp_(min=0.0)
        change = new - codes
        uphill = ((ahead - new) * change).sum(1, keepdim=True) > 0.0
        momentum = torch.where(uphill, 1.0, momentum)
        grown = (1.0 + (1.0 + 4.0 * momentum.square()).sqrt()) / 2.0
        ahead = torch.addcmul(new, (momentum - 1.0) / grown, change)
        codes, momentum = new, grown
    return codes


def sparse_factorise(
    signals: torch.Tensor, atoms: torch.Tensor, iterations: int, *, sparsity: float, fixed: int = 0, inner: int = 5, progress: Progress = _silent
) -> Factors:
    """Sparse codes and atoms in the unit ball, alternately.

    The atoms' step never raises F. The codes' accelerated steps may raise it slightly within a round. Without the ball
    the penalty would have no effect: atoms could grow and codes shrink at no cost.

    Args:
        signals: ``(N, D)``, not negative.
        atoms: ``(R, D)`` start, scaled to length 1 at most.
        iterations: rounds of coding and atom updates.
        sparsity: weight of the L1 penalty on the codes.
        fixed: how many atoms, the first ones, never change.
        inner: gradient steps on the codes in each round, from the codes of the round before.
        progress: called with a fraction in (0, 1].
    """
    atoms = atoms / torch.linalg.vector_norm(atoms, dim=1, keepdim=True).clamp(min=1.0)
    codes = torch.zeros(signals.shape[0], atoms.shape[0], dtype=signals.dtype, device=signals.device)
    for iteration in range(iterations):
        codes = sparse_encode(signals, atoms, inner, sparsity=sparsity, codes=codes)
        _descend_atoms(atoms, codes.T @ signals, codes.T @ codes, fixed)
        progress((iteration + 1) / iterations)
    return Factors(atoms, sparse_encode(signals, atoms, inner, sparsity=sparsity, codes=codes))


def _descend_atoms(atoms: torch.Tensor, targets: torch.Tensor, code_gram: torch.Tensor, fixed: int) -> None:
    """Move each free atom in turn to its minimiser over the non-negative part of the unit ball, in place.

    Atoms without codes stay.
    """
    for r in range(fixed, atoms.shape[0]):
        energy = code_gram[r, r]
        moved = (atoms[r] + (targets[r] - code_gram[r] @ atoms) / energy.clamp(min=FLOOR)).clamp_(min=0.0)
        moved /= torch.linalg.vector_norm(moved).clamp(min=1.0)
        atoms[r] = torch.where(energy > FLOOR, moved, atoms[r])
