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
    """Predictions ``(B, K, ...)`` moved onto the mixture: ``D + V A^T (A V A^T)^-1 (m - A D)``, with A the operator.

    For a weighted sum this is ``D_k + w_k v_k / (sum_j w_j^2 v_j) (m - g(D))``. For a mean of channels, each pixel's
    channels share the residual.

    Args:
        problem: mixtures with any operator of one row, and priors.
        predicted: the prior's predictions D of the clean sources.
        bounded: sources and predictions are in [0, 1]. The error variances v, the diagonal of V, are then D (1 - D),
            their upper bound, and at least ``VARIANCE_FLOOR``. Otherwise all v are equal.
    """
    operator, residual = problem.operator, problem.residual(predicted)
    variance = (predicted * (1 - predicted)).clamp_min(VARIANCE_FLOOR) if bounded else torch.ones_like(predicted)
    weighted = operator.adjoint(torch.ones_like(residual)) * variance
    share: torch.Tensor = weighted / operator.forward(weighted).unsqueeze(1)
    return predicted + share * residual.unsqueeze(1)
