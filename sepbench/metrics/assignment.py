"""Which estimate answers to which reference, on tasks where the order of the sources carries no meaning."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np
from scipy.optimize import linear_sum_assignment

from sepbench.errors import SuiteError
from sepbench.torch_later import torch

MAX_SOURCES = 8
EXHAUSTIVE_UP_TO = 4


@cache
def _permutations(n_sources: int) -> torch.Tensor:
    """``(K!, K)`` int64 in lexicographic order; never to be changed in place."""
    return torch.tensor(list(permutations(range(n_sources))), dtype=torch.int64)


def total_score(pairwise: torch.Tensor, assignment: torch.Tensor) -> torch.Tensor:
    """Sum over references j of ``pairwise[b, assignment[b, j], j]``, added from left to right: ``(B,)``."""
    chosen = matched(pairwise, assignment)
    total = chosen[:, 0].clone()
    for j in range(1, chosen.shape[1]):
        total += chosen[:, j]
    return total


def matched(pairwise: torch.Tensor, assignment: torch.Tensor) -> torch.Tensor:
    """``(B, K)``: entry [b, j] is ``pairwise[b, assignment[b, j], j]``, the value of reference j under the assignment."""
    return pairwise.gather(1, assignment.unsqueeze(1)).squeeze(1)


def exhaustive_assignment(pairwise: torch.Tensor, maximise: bool = True) -> torch.Tensor:
    """``(B, K)`` int64: the best of all K! assignments; of equal totals the lexicographically first."""
    batch, n_sources, _ = pairwise.shape
    table = _permutations(n_sources)
    totals = pairwise.new_empty(batch, len(table))
    for p, row in enumerate(table):
        totals[:, p] = total_score(pairwise, row.expand(batch, -1))
    return table[(totals if maximise else -totals).argmax(1)]


def hungarian_assignment(pairwise: torch.Tensor, maximise: bool = True) -> torch.Tensor:
    """``(B, K)`` int64: the best assignment by scipy's ``linear_sum_assignment``; deterministic, but with its own choice among ties."""
    by_reference = np.ascontiguousarray(pairwise.transpose(1, 2).numpy())
    rows = [linear_sum_assignment(scores, maximize=maximise)[1] for scores in by_reference]
    return torch.from_numpy(np.asarray(rows, dtype=np.int64).reshape(pairwise.shape[:2]))


def best_assignment(pairwise: torch.Tensor, maximise: bool = True) -> torch.Tensor:
    """The assignment with the best sum of scores (BASIS: all k! orders, the largest sum of PSNRs).

    Exhaustive up to K = 4, Hungarian up to K = 8. The best of an example depends on that example alone.

    Args:
        pairwise: ``(B, K, K)`` float; entry [b, i, j] scores estimate i against reference j.
        maximise: True where a higher score is better.

    Returns:
        ``(B, K)`` int64 on the CPU; entry [b, j] is the estimate that is assigned to reference j. An example with a NaN or an infinite
        entry has no best assignment and gets the identity; whoever uses it must report NaN for that example, as ``score_batch`` does.

    Raises:
        ValueError: not ``(B, K, K)`` or not floating point.
        SuiteError: K > 8.
    """
    if pairwise.ndim != 3 or pairwise.shape[1] != pairwise.shape[2] or pairwise.shape[1] == 0 or not pairwise.is_floating_point():
        raise ValueError(f"pairwise scores must be a floating-point (B, K, K), got {pairwise.dtype} {tuple(pairwise.shape)}")
    n_sources = pairwise.shape[1]
    if n_sources > MAX_SOURCES:
        raise SuiteError(f"the best assignment is found for at most {MAX_SOURCES} sources, the task has {n_sources}; declare its assignment 'ordered'")
    scores = pairwise.detach().cpu().double()
    defined = scores.isfinite().flatten(1).all(1)
    scores = torch.where(defined[:, None, None], scores, 0.0)
    find = exhaustive_assignment if n_sources <= EXHAUSTIVE_UP_TO else hungarian_assignment
    return torch.where(defined[:, None], find(scores, maximise), torch.arange(n_sources))
