"""Signal-to-distortion ratio of BSS Eval v4 (Stoeter, Liutkus and Ito 2018), as ``museval.evaluate`` computes it by default.

Per window of one second, without overlap, with s the true source and e the estimate, over all samples and channels of the window::

    SDR = 10 log10(|s|^2 / |s - e|^2)

The 512-tap filters of v4 only split the error into spatial distortion, interference and artifacts; its total does not depend on them.

=============  ==========================================================================================================
windows        ``sample_rate`` samples, hop the same; a last window that is not full is left out. A signal that is
               shorter than one window is one window.
silent window  NaN in **all** sources where any true source or any estimate of the example is silent in it. Silent: the
               sum of the channels is exactly zero throughout, as museval has it.
one value      ``sdr``: median of the other windows (museval's own default); ``sdr_mean``: their mean. Over one or two
               windows the two are the same number.
no window      NaN. museval raises where a whole signal is silent; here that is the same rule, applied to every window.
NaN, infinity  anywhere in a signal, the left-out remainder included: NaN for every pair that it enters.
no error       +200 dB instead of museval's +inf, see ``energy_ratio.py``.
=============  ==========================================================================================================

On permutation tasks the assignment is that of the best sum of ``sdr`` over all sources (museval's own option maximises the SIR instead).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from sepbench.metrics.energy_ratio import check_audio, energy, energy_ratio_db, finite, over_channels, supports_rate
from sepbench.metrics.kinds import MetricInfo
from sepbench.metrics.squared_error import Array, as_float64
from sepbench.protocols import Mixtures, Support, TaskSpec
from sepbench.torch_later import torch

Bools = npt.NDArray[np.bool_]


def in_windows(signals: Array, window: int) -> Array:
    """``(..., T) -> (..., windows, samples)``: whole windows of so many samples, or one window of all T samples if T is less.

    Raises:
        ValueError: a window below one sample.
    """
    if window < 1:
        raise ValueError(f"a window must have at least one sample, got {window}")
    samples = min(window, signals.shape[-1])
    count = signals.shape[-1] // samples
    return signals[..., : count * samples].reshape(*signals.shape[:-1], count, samples)


def silent_windows(signals: Array, window: int) -> Bools:
    """``(B, K, channels, T) -> (B, windows)``: whether any of the K signals is silent in a window."""
    mono = signals[:, :, 0] if signals.shape[2] == 1 else signals.sum(2)
    heard: Bools = np.any(in_windows(mono, window), axis=-1)
    return np.asarray(~heard.all(axis=1))


def window_ratios(estimates: torch.Tensor, references: torch.Tensor, window: int, crossed: bool) -> Array:
    """SDR per window, in dB, by the rules above, except that NaN of a signal is looked for in each window alone.

    Args:
        estimates, references: ``(B, K, channels, T)``.
        window: samples.
        crossed: every estimate against every reference, instead of estimate k against reference k.

    Returns:
        ``(B, K, K, windows)`` if crossed, entry [b, i, j] for estimate i and reference j; else ``(B, K, windows)``.
    """
    check_audio(estimates, references)
    x, y = as_float64(estimates), as_float64(references)
    n_sources = x.shape[1]
    columns = []
    with np.errstate(invalid="ignore", over="ignore"):
        for j in range(n_sources):
            signal = over_channels(energy(in_windows(y[:, j], window)))
            wanted = range(n_sources) if crossed else [j]
            columns.append([energy_ratio_db(signal, over_channels(energy(in_windows(x[:, i] - y[:, j], window)))) for i in wanted])
        silent = silent_windows(x, window) | silent_windows(y, window)
    values = np.stack([np.stack(column, axis=1) for column in columns], axis=2)
    values[np.broadcast_to(silent[:, None, None], values.shape)] = np.nan
    return values if crossed else np.ascontiguousarray(values[:, 0])


def median_of_windows(values: Array) -> Array:
    """``(..., windows) -> (...)``: median of the entries that are not NaN; NaN where all are."""
    ordered = np.sort(values, axis=-1)  # NaN last
    count = (~np.isnan(values)).sum(-1, keepdims=True)
    low, high = (np.take_along_axis(ordered, np.maximum(middle, 0), axis=-1) for middle in ((count - 1) // 2, np.minimum(count // 2, values.shape[-1] - 1)))
    return np.asarray(((low + high) / 2)[..., 0])


def mean_of_windows(values: Array) -> Array:
    """``(..., windows) -> (...)``: mean of the entries that are not NaN; NaN where all are."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, values, 0.0).sum(-1) / defined.sum(-1))


_AGGREGATES = {"median": median_of_windows, "mean": mean_of_windows}


@dataclass(frozen=True, slots=True)
class WindowedSdr:
    """SDR of BSS Eval v4 over windows of one second; see the top of this file.

    Attributes:
        aggregate: what becomes of the windows.
        sample_rate: samples per second, hence per window; None until ``for_task`` sets it.
    """

    info: MetricInfo
    aggregate: Literal["median", "mean"]
    sample_rate: int | None = None

    def supports(self, task: TaskSpec) -> Support:
        return supports_rate(task)

    def for_task(self, task: TaskSpec) -> WindowedSdr:
        return replace(self, sample_rate=task.sample_rate)

    def _window(self) -> int:
        if self.sample_rate is None:
            raise ValueError(f"{self.info.name} needs the sample rate for its windows of one second; get the metric with get_metric(name, task)")
        return self.sample_rate

    def pairwise(self, estimates: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """``(B, K, channels, T)`` twice -> ``(B, K, K)`` float64 dB. All K signals of both sides decide which windows are silent."""
        values = _AGGREGATES[self.aggregate](window_ratios(estimates, references, self._window(), crossed=True))
        values[~(finite(as_float64(estimates))[:, :, None] & finite(as_float64(references))[:, None, :])] = np.nan
        return torch.from_numpy(values)

    def mixture_scores(self, estimates: torch.Tensor, references: torch.Tensor, mixtures: Mixtures) -> Mapping[str, torch.Tensor]:
        """``(B, K, channels, T)`` twice, estimate k for reference k -> ``(B, K)`` float64 dB by the name of the metric."""
        windows = window_ratios(estimates, references, self._window(), crossed=False)
        windows[~(finite(as_float64(estimates)) & finite(as_float64(references)))] = np.nan
        return {metric.info.name: torch.from_numpy(_AGGREGATES[metric.aggregate](windows)) for metric in (SDR, SDR_MEAN)}


def _info(name: str, source: str) -> MetricInfo:
    return MetricInfo(name, "dB", True, frozenset({"audio"}), "source", source, assigned_by="sdr")


SDR = WindowedSdr(_info("sdr", "museval 0.4.1 (BSS Eval v4): SDR per window of 1 s, median over windows"), "median")
SDR_MEAN = WindowedSdr(_info("sdr_mean", "museval 0.4.1 (BSS Eval v4): SDR per window of 1 s, mean over windows"), "mean")
