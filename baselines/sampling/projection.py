"""Predictions moved onto the mixture, for all methods of the projected diffusion.

``baselines/projected.py`` has the formula and its source.
"""

from __future__ import annotations

import torch

from baselines.sampling.problem import Problem

VARIANCE_FLOOR = 1e-3
"""Smallest error variance of a prediction in [0, 1].

Without it, two sure and wrong predictions could not be corrected.
"""


def condition(problem: Problem, predicted: torch.Tensor, bounded: bool) -> torch.Tensor:
    """Predictions ``(B, K, ...)`` moved onto the mixture: ``D_k + w_k v_k / (sum_j w_j^2 v_j) (m - g(D))``.

    Args:
        problem: mixtures with a weighted-sum operator.
        predicted: the prior's predictions D of the clean sources.
        bounded: sources and predictions are in [0, 1]. The error variances v are then D (1 - D), their upper bound,
            and at least ``VARIANCE_FLOOR``. Otherwise all v are equal.
    """
    weights = problem.operator.matrix().to(predicted)[..., 0, :]
    weights = weights.reshape(-1, problem.n_sources, *([1] * len(problem.source_shape)))
    variance = (predicted * (1 - predicted)).clamp_min(VARIANCE_FLOOR) if bounded else torch.ones_like(predicted)
    share: torch.Tensor = weights * variance / (weights.square() * variance).sum(1, keepdim=True)
    return predicted + share * problem.residual(predicted).unsqueeze(1)
