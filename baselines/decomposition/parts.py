"""From parts that add up to a mixture to estimates of its sources, for any operator that weighs and adds sources.

Methods without a model of the sources (robust PCA, single-channel ICA) cut the mixture itself into K parts. Under ``m
= sum_k w_k x_k`` part k stands for ``w_k x_k``, so the estimate is the part divided by the weight.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from sepbench.protocols import Domain, MixingOperator, Support, TaskSpec

WEIGHTED_SUMS = frozenset({"sum", "mean", "gain"})
"""The operators of the form ``m = sum_k w_k x_k``."""


def part_support(task: TaskSpec, method: str, domains: Collection[Domain] = frozenset({"image"})) -> Support:
    """Whether a method that cuts signals into parts takes a task.

    The task must be of one of the domains, with at least two sources, mixed by weighted addition.
    """
    if task.domain not in domains:
        return Support(False, f"{method} separates {' and '.join(sorted(domains))} signals here, the task is of domain {task.domain!r}")
    if task.operator not in WEIGHTED_SUMS:
        return Support(False, f"{method} cuts a mixture into parts that add up to it; operator {task.operator!r} does not add sources")
    if task.n_sources < 2:
        return Support(False, f"{method} needs at least two sources, the task has {task.n_sources}")
    return Support(True)


def estimates_from_parts(parts: torch.Tensor, mixtures: torch.Tensor, operator: MixingOperator) -> torch.Tensor:
    """Estimates whose mixture is the given one.

    Args:
        parts: ``(B, K, ...)`` parts with ``parts.sum(1)`` (about) equal to the mixtures.
        mixtures: ``(B, ...)``.
        operator: a weighted sum of K sources.

    Returns:
        ``(B, K, ...)`` in the dtype of ``parts``: ``parts[:, k] / w_k`` plus the least correction that makes their
            mixture the given one to rounding. A source of weight zero does not show in the mixture, and its estimate
            is zero.
    """
    estimates = parts_over_weights(parts, operator)
    return estimates + operator.pseudo_inverse(mixtures.to(parts.dtype) - operator.forward(estimates))


def parts_over_weights(parts: torch.Tensor, operator: MixingOperator) -> torch.Tensor:
    """Parts ``(B, K, ...)`` to ``parts[:, k] / w_k``, or zero if the weight is zero.

    They need not add up to a mixture.
    """
    matrix = operator.matrix().to(device=parts.device, dtype=parts.dtype)
    weights = matrix.expand(parts.shape[0], 1, -1).squeeze(1).reshape(parts.shape[:2] + (1,) * (parts.ndim - 2))
    return torch.where(weights != 0, parts / torch.where(weights != 0, weights, 1.0), 0.0)
