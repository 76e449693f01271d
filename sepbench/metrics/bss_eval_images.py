"""ISR, SIR and SAR of BSS Eval v4, by museval itself: what the error of ``sdr`` is made of.

They tell apart spatial or filtering distortion, interference by the example's other sources, and artifacts, by 512-tap
filters that are fitted to the whole signals (museval's mode ``v4``). Windows, silence and aggregation are those of
``sdr.py``: one second, the median of the windows in which nothing is silent, within +-200 dB. They are slow: about as
slow as museval, 0.1 s per 3-second pair at 22,050 Hz. One call gives all three.

**Take medians over mixtures, and never rank by them.** Where a source is silent, the last bit of the samples decides.
Take four real songs from start to end, and noise within half a 16-bit step, as much as a 16-bit file differs from a
decoder to floating point. This noise moves the SIR of a window by up to 33 dB, its mean over all windows by 3, and the
median by 0.13 (``benchmarks/bss_eval_rounding.py``). SDR moves as far in such windows, so chunks that are scored should
sound. In those of ``stems-drums-bass`` the same noise moves one of 224 windows by more than 1 dB. Suites refuse the
three as ``ranking_metric``.

They are also defined where museval raises. An example with a source or an estimate that is silent throughout is NaN. An
estimate with NaN or infinity is itself NaN. A reference with one makes the example NaN.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sepbench.compat import import_museval
from sepbench.metrics.energy_ratio import RATIO_CAP_DB, check_audio, finite, supports_rate
from sepbench.metrics.kinds import MetricInfo
from sepbench.metrics.sdr import median_of_windows, silent_windows
from sepbench.metrics.squared_error import Array, as_float64
from sepbench.protocols import Mixtures, Support, TaskSpec
from sepbench.torch_later import torch

_NAMES = ("isr", "sir", "sar")


def museval_ratios(estimates: Array, references: Array, window: int) -> Array:
    """ISR, SIR and SAR per window, ``(3, K, windows)`` dB, of one example ``(K, channels, T)`` whose estimates are in the references' order.

    Raises:
        SepbenchError: museval is not installed.
        ValueError: a signal is silent throughout.
    """
    museval = import_museval()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of NaN estimates, and of numpy names that museval still uses
        _, *ratios = museval.evaluate(references.swapaxes(1, 2), estimates.swapaxes(1, 2), win=window, hop=window, mode="v4", padding=False)
    return np.asarray(np.clip(np.stack(ratios), -RATIO_CAP_DB, RATIO_CAP_DB), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class BssEvalImages:
    """One of museval's three ratios, named as the metric is; on permutation tasks under the best assignment of ``sdr``.

    Attributes:
        sample_rate: samples per second, hence per window; None until ``for_task`` sets it.
    """

    info: MetricInfo
    sample_rate: int | None = None

    def supports(self, task: TaskSpec) -> Support:
        return supports_rate(task)

    def for_task(self, task: TaskSpec) -> BssEvalImages:
        return replace(self, sample_rate=task.sample_rate)

    def mixture_scores(self, estimates: torch.Tensor, references: torch.Tensor, mixtures: Mixtures) -> Mapping[str, torch.Tensor]:
        """``(B, K, channels, T)`` twice, estimate k for reference k -> ``(B, K)`` float64 dB by the name of the metric.

        Raises:
            SepbenchError: museval is not installed.
        """
        check_audio(estimates, references)
        if self.sample_rate is None:
            raise ValueError(f"{self.info.name} needs the sample rate for its windows of one second; get the metric with get_metric(name, task)")
        x, y = as_float64(estimates), as_float64(references)
        length = x.shape[-1]
        never_silent = ~(silent_windows(x, length) | silent_windows(y, length))[:, 0] & finite(y).all(1)
        values = np.full((len(_NAMES), *x.shape[:2]), np.nan)
        for row in np.flatnonzero(never_silent):
            values[:, row] = median_of_windows(museval_ratios(x[row], y[row], self.sample_rate))
        values[:, ~finite(x)] = np.nan
        return {name: torch.from_numpy(part) for name, part in zip(_NAMES, values, strict=True)}


def _info(name: str, what: str) -> MetricInfo:
    source = f"museval 0.4.1 (BSS Eval v4), through museval itself: {what}, per window of 1 s, median over windows"
    return MetricInfo(name, "dB", True, frozenset({"audio"}), "source", source, assigned_by="sdr")


ISR = BssEvalImages(_info("isr", "image to spatial distortion"))
SIR = BssEvalImages(_info("sir", "source to interference"))
SAR = BssEvalImages(_info("sar", "source to artifacts"))
