"""Non-negative least squares of many right-hand sides on one matrix.

Each is solved until it is optimal to a stated tolerance. It minimises ``1/2 h G h^T - h t^T`` over ``h >= 0`` for
every row t, with ``G = W W^T`` and ``t = x W^T`` for a signal x on atoms W. In this Gram form the cost of an iteration
does not depend on the length of the signals. The method is accelerated projected gradient (Nesterov 1983) with the
restart of O'Donoghue and Candes (2015, sec. 3.2). The unknowns are scaled so that the diagonal of G is ones. Rows are
independent: each stops by its own gradient, and never by its batch's.

Why is it not a library's? ``scipy.optimize.nnls`` takes one right-hand side at a time. ``sklearn.decomposition.NMF``
can neither fix atoms nor take a squared L1 norm. The test compares every row with ``scipy.optimize.nnls``.
"""

from __future__ import annotations

import torch

_CHECK_EVERY = 10
_CHUNK_ELEMENTS = 1 << 17
"""Elements handled at a time on the CPU, so that the work arrays stay in the cache."""


def nnls(gram: torch.Tensor, targets: torch.Tensor, *, tolerance: float = 1e-6, limit: int = 10_000, start: torch.Tensor | None = None) -> torch.Tensor:
    """The minimisers ``(N, R)``.

    The projected gradient is the gradient where h is positive, and its negative part where h is zero. A row is done
    when its projected gradient is at most ``tolerance`` times the largest of its targets, both in scaled unknowns.

    Args:
        gram: ``G``, ``(R, R)``, symmetric and positive semidefinite.
        targets: ``(N, R)``.
        tolerance: see above. A row whose targets are all zero or negative has the solution zero.
        limit: the most iterations. A row that needs more is returned unfinished.
        start: ``(N, R)``, not negative; zeros by default.
    """
    scale = gram.diagonal().clamp(min=0.0).sqrt()
    inverse = torch.where(scale > 0, 1.0 / scale, 0.0)  # an atom that is zero everywhere gets no code
    scaled = gram * inverse[:, None] * inverse
    step = float(1.0 / (1.001 * torch.linalg.eigvalsh(scaled.double())[-1]).clamp(min=1e-12))
    wanted = targets * inverse
    begun = torch.zeros_like(wanted) if start is None else start * scale
    rows = max(1, _CHUNK_ELEMENTS // gram.shape[0]) if targets.device.type == "cpu" else max(1, len(targets))
    parts = [_solve(scaled, goal, first, step, tolerance, limit) for goal, first in zip(wanted.split(rows), begun.split(rows), strict=True)]
    return torch.cat(parts) * inverse


def _solve(gram: torch.Tensor, targets: torch.Tensor, start: torch.Tensor, step: float, tolerance: float, limit: int) -> torch.Tensor:
    """Solve one chunk. Finished rows leave it."""
    solved = start.clone()
    small = tolerance * targets.amax(1, keepdim=True).clamp(min=0.0)
    left = torch.arange(len(targets), device=targets.device)
    codes, goals = solved, targets
    ahead, momentum = codes, torch.ones_like(codes[:, :1])
    for iteration in range(limit):
        new = torch.addmm(goals, ahead, gram, alpha=-1.0).mul_(step).add_(ahead).clamp_(min=0.0)
        change = new - codes
        momentum = torch.where(((ahead - new) * change).sum(1, keepdim=True) > 0.0, 1.0, momentum)
        grown = (1.0 + (1.0 + 4.0 * momentum.square()).sqrt()) / 2.0
        ahead = torch.addcmul(new, (momentum - 1.0) / grown, change)
        codes, momentum = new, grown
        if iteration % _CHECK_EVERY == _CHECK_EVERY - 1 or iteration == limit - 1:
            solved[left] = codes
            going = ~_is_optimal(gram, goals, codes, small[left])
            if not bool(going.any()):
                break
            left, goals, codes, ahead, momentum = left[going], goals[going], codes[going], ahead[going], momentum[going]
    return solved


def _is_optimal(gram: torch.Tensor, targets: torch.Tensor, codes: torch.Tensor, small: torch.Tensor) -> torch.Tensor:
    """Whether the projected gradient of each row is small, ``(N,)`` bool."""
    gradient = codes @ gram - targets
    projected = torch.where(codes > 0.0, gradient.abs(), (-gradient).clamp(min=0.0))
    return (projected <= small).all(1)
