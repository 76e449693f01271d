"""Scale-invariant SDR (Le Roux, Wisdom, Erdogan and Hershey 2019, equation 4), over the whole signal.

With s the true source and e the estimate, as vectors of all samples (of all channels, with one scale for them together)::

    a = <e, s> / |s|^2        SI-SDR = 10 log10(|a s|^2 / |a s - e|^2) = 20 log10 |cot(angle between e and s)|

The **reference** is scaled, and **no mean is removed** from either: so do PnF and MSDM, whose numbers it stands beside. (Scaling the estimate
to the smallest error instead gives 1 / sin^2 in place of cot^2, which is never below 0 dB.)

Defined: NaN for a silent reference, a silent estimate, or one with NaN or infinity; -200 dB for an estimate orthogonal to the reference,
+200 dB for one that is a multiple of it (``energy_ratio.py``).

``si_sdr_improvement`` subtracts, source by source, the SI-SDR of the mixture taken as the estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sepbench.metrics.energy_ratio import check_audio, energy, energy_ratio_db
from sepbench.metrics.kinds import MetricInfo
from sepbench.metrics.squared_error import Array, as_float64
from sepbench.protocols import Mixtures
from sepbench.torch_later import torch


def scale_invariant_ratios(estimates: Array, references: Array) -> Array:
    """SI-SDR of pairs, ``(n, samples)`` float64 twice -> ``(n,)`` dB; the channels laid end to end."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        scale = (estimates * references).sum(-1) / energy(references)
        target = scale[:, None] * references
        return energy_ratio_db(energy(target), energy(target - estimates))


@dataclass(frozen=True, slots=True)
class ScaleInvariantSdr:
    """SI-SDR of a source; see the top of this file."""

    info: MetricInfo

    def pairwise(self, estimates: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """``(B, K, channels, T)`` twice -> ``(B, K, K)`` float64 dB."""
        check_audio(estimates, references)
        x, y = _flat(estimates), _flat(references)
        slots = range(x.shape[1])
        return torch.from_numpy(np.stack([np.stack([scale_invariant_ratios(x[:, i], y[:, j]) for j in slots], axis=1) for i in slots], axis=1))


@dataclass(frozen=True, slots=True)
class ScaleInvariantImprovement:
    """By how much SI-SDR is above that of the mixture itself."""

    info: MetricInfo

    def mixture_scores(self, estimates: torch.Tensor, references: torch.Tensor, mixtures: Mixtures) -> Mapping[str, torch.Tensor]:
        """``(B, K, channels, T)`` twice, estimate k for reference k -> ``(B, K)`` float64 dB by the name of the metric.

        Raises:
            ValueError: mixtures that are not shaped like a source.
        """
        check_audio(estimates, references)
        if tuple(mixtures.values.shape) != (len(references), *references.shape[2:]):
            raise ValueError(f"{self.info.name} needs mixtures shaped like one source, got {tuple(mixtures.values.shape)} for {tuple(references.shape)}")
        x, y, mixture = _flat(estimates), _flat(references), as_float64(mixtures.values.flatten(1))
        gains = [scale_invariant_ratios(x[:, k], y[:, k]) - scale_invariant_ratios(mixture, y[:, k]) for k in range(x.shape[1])]
        return {self.info.name: torch.from_numpy(np.stack(gains, axis=1))}


def _flat(signals: torch.Tensor) -> Array:
    """``(B, K, channels, T) -> (B, K, channels * T)``."""
    return as_float64(signals.flatten(2))


def _info(name: str, source: str) -> MetricInfo:
    return MetricInfo(name, "dB", True, frozenset({"audio"}), "source", source, assigned_by="si_sdr")


SI_SDR = ScaleInvariantSdr(_info("si_sdr", "Le Roux et al. 2019: the reference scaled, no mean removed, whole signal"))
SI_SDR_IMPROVEMENT = ScaleInvariantImprovement(_info("si_sdr_improvement", "si_sdr of the estimate minus si_sdr of the mixture"))
