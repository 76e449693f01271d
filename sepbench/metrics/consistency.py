"""How well the estimates explain their mixture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sepbench.metrics.kinds import MetricInfo
from sepbench.metrics.squared_error import as_float64
from sepbench.protocols import Mixtures
from sepbench.torch_later import torch

_ELEMENTS_PER_PASS = 32_000
"""Below torch's grain size of 32,768: the operator then runs in one thread and never waits for a second one that others hold."""


@dataclass(frozen=True, slots=True)
class MixtureError:
    """Root mean square over pixels (samples) of ``m - g(x)``, in units of the mixture; nothing is clamped.

    BASIS sec. 5 prints the squared error and calls it below 8-bit quantisation; the root is what compares with 1/255 = 0.0039.
    """

    info: MetricInfo

    def mixture_scores(self, estimates: torch.Tensor, references: torch.Tensor, mixtures: Mixtures) -> Mapping[str, torch.Tensor]:
        """``(B, K, ...)`` estimates in any order -> ``(B,)`` float64 >= 0 on the CPU; NaN where an estimate holds NaN or infinity."""
        step = max(1, _ELEMENTS_PER_PASS * len(estimates) // max(1, estimates.numel()))
        parts = [np.zeros(0)]
        for start in range(0, len(estimates), step):
            rows = torch.arange(start, min(start + step, len(estimates)))
            explained = mixtures.operator.select(rows).forward(torch.from_numpy(as_float64(estimates[start : start + step])))
            with np.errstate(invalid="ignore", over="ignore"):
                residual = as_float64(mixtures.values[start : start + step]) - as_float64(explained)
                residual *= residual
                parts.append(np.sqrt(residual.reshape(len(residual), -1).mean(-1)))
        errors = np.concatenate(parts)
        errors[~np.isfinite(errors)] = np.nan
        return {self.info.name: torch.from_numpy(errors)}


MIXTURE_ERROR = MixtureError(MetricInfo("mixture_error", "1", False, frozenset({"image", "audio", "vector"}), "mixture", "BASIS sec. 5: RMS of m - g(x)"))
