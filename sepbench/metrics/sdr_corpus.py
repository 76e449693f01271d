"""SDR as NES reports it: all estimates of a test set laid end to end, cut into windows of one second, and the median over these.

With s and e the true and the estimated sources of mixtures 0, 1, 2, ... of the frozen list one after the other, each source for itself::

    value = median over windows of 10 log10(|s|^2 / |s - e|^2)

This is ``museval.metrics.bss_eval`` (BSS Eval v4) with window and hop of one second on the concatenated waveform, read as NES' released code reads it.

==============  =========================================================================================================
windows         ``sample_rate`` samples, hop the same, numbered from the first sample of mixture 0: they cross the borders of
                mixtures. A last window that is not full is left out, as museval does. A window counts only if all its mixtures
                have been scored. A set that fills no window is one window.
silent window   0 dB: museval says NaN where the true source or the estimate is zero throughout, NES' code puts 0 in its place.
no error        +200 dB instead of museval's +inf, see ``energy_ratio.py``.
signals         mono. NES' code puts spectrograms end to end and inverts them together, which blends the borders of mixtures
                over one frame (25 ms); here waveforms are put end to end.
==============  =========================================================================================================

A run keeps, per mixture and source, the energies of signal and error of every piece between two borders of windows: a function of the mixture's
number, its length and the rate alone, so the value does not depend on shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from sepbench.metrics.energy_ratio import check_audio, energy, energy_ratio_db, supports_rate
from sepbench.metrics.kinds import MetricInfo
from sepbench.metrics.squared_error import Array, Integers, as_float64
from sepbench.protocols import Support, TaskSpec
from sepbench.torch_later import torch

SAMPLES, RATE, SIGNAL, ERROR = "samples", "rate", "signal", "error"
"""Names of parts: length of the example and of a window in samples; energies, with the number of the piece behind."""


def pieces(example: int, samples: int, window: int) -> Iterator[tuple[int, int, int]]:
    """(number of the window, first sample, end) of each piece of an example of so many samples; samples count from the example's start."""
    start = example * samples
    for number in range(start // window, (start + samples - 1) // window + 1):
        yield number, max(number * window - start, 0), min((number + 1) * window - start, samples)


def n_pieces(samples: int, window: int) -> int:
    """The most pieces that an example can have."""
    return (samples + window - 2) // window + 1


@dataclass(frozen=True, slots=True)
class CorpusSdr:
    """See the top of this file.

    Attributes:
        sample_rate: samples per second, hence per window; None until ``for_task`` sets it.
    """

    info: MetricInfo
    sample_rate: int | None = None

    @property
    def spread(self) -> str:
        return "influence"

    def supports(self, task: TaskSpec) -> Support:
        if task.source_shape[0] != 1:
            return Support(False, f"is defined for mono signals, the task has {task.source_shape[0]} channels")
        return supports_rate(task)

    def for_task(self, task: TaskSpec) -> CorpusSdr:
        return replace(self, sample_rate=task.sample_rate)

    def parts(self, estimates: torch.Tensor, references: torch.Tensor, examples: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """``(B, K, 1, T)`` twice -> energies ``(B, K)`` per piece, 0 for pieces that an example does not have; its length and the rate."""
        check_audio(estimates, references)
        window = self.sample_rate
        if window is None:
            raise ValueError(f"{self.info.name} needs the sample rate for its windows of one second; get the metric with get_metric(name, task)")
        true = as_float64(references)[:, :, 0]
        with np.errstate(invalid="ignore", over="ignore"):
            error = as_float64(estimates)[:, :, 0] - true
        samples = true.shape[-1]
        found = np.zeros((2, n_pieces(samples, window), *true.shape[:2]))
        for row, example in enumerate(examples.tolist()):
            for place, (_, start, stop) in enumerate(pieces(example, samples, window)):
                found[0, place, row] = energy(np.ascontiguousarray(true[row, :, start:stop]))
                found[1, place, row] = energy(np.ascontiguousarray(error[row, :, start:stop]))
        found[:, :, ~np.isfinite(found).all(axis=(0, 1))] = np.nan
        names = [f"{kind}_{place}" for kind in (SIGNAL, ERROR) for place in range(found.shape[1])]
        constants = {name: torch.full(true.shape[:2], float(number), dtype=torch.float64) for name, number in ((SAMPLES, samples), (RATE, window))}
        return constants | dict(zip(names, map(torch.from_numpy, found.reshape(-1, *true.shape[:2])), strict=True))

    def pool(self, parts: Mapping[str, Array], examples: Integers) -> Array:
        """Energies ``(n,)`` of the examples ``(n,)`` -> ``(n,)`` dB whose mean is the median over windows.

        A window's deviation is the influence function of the median, ``sign(x - median) / (2 f)`` with f the density there (``sparsity``). It is shared
        out to the window's examples by the square root of their samples, so that the squares of the shares add up to the window's own square.
        ``benchmarks/coverage_pooled.py`` shows how often intervals of these values hold the median. One window alone says nothing of its deviation:
        all values are then equal, and the median has no interval (``results.values.without_spread``).
        """
        windows = corpus_windows(parts, examples)
        scored = np.isfinite(parts[SAMPLES]) & np.isfinite(parts[f"{SIGNAL}_0"])
        if windows is None:
            return np.full(len(examples), np.nan)
        value, influence = median_and_influence(windows.decibels)
        shares = np.sqrt(windows.shares) * influence[windows.numbers] * (scored.sum() / len(influence))
        found = np.where(scored, value + np.bincount(windows.rows, weights=shares, minlength=len(examples)), np.nan)
        return np.asarray(found + (value - np.nanmean(found)))


@dataclass(frozen=True, slots=True, eq=False)
class CorpusWindows:
    """The windows of a set that count, W of them, and the pieces that they are made of.

    Attributes:
        decibels: ``(W,)`` SDR, 0 where silent.
        rows, numbers, shares: per piece: place of its example; place of its window; share of the window's samples.
    """

    decibels: Array
    rows: Integers
    numbers: Integers
    shares: Array


def corpus_windows(parts: Mapping[str, Array], examples: Integers) -> CorpusWindows | None:
    """The windows of one source; None if no example is scored.

    Raises:
        ValueError: examples of several lengths or rates.
    """
    rows = np.flatnonzero(np.isfinite(parts[SAMPLES]) & np.isfinite(parts[f"{SIGNAL}_0"]))
    if not len(rows):
        return None
    samples, window = (_only(parts[name][rows], name) for name in (SAMPLES, RATE))
    start = examples[rows] * samples
    columns: list[tuple[Integers, Integers, Integers, Array, Array]] = []
    for place in range(n_pieces(samples, window)):
        number = start // window + place
        size = np.minimum((number + 1) * window, start + samples) - np.maximum(number * window, start)
        here = size > 0
        columns.append((rows[here], number[here], size[here], parts[f"{SIGNAL}_{place}"][rows][here], parts[f"{ERROR}_{place}"][rows][here]))
    owner, number, size, signal, error = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.lexsort((owner, number))  # a window's pieces are added from left to right
    owner, number, size, signal, error = (column[order] for column in (owner, number, size, signal, error))
    code = np.unique(number, return_inverse=True)[1].reshape(-1)
    whole = (np.bincount(code, weights=size) == window)[code]
    if not whole.any():
        whole[:], code = True, np.zeros_like(code)
    owner, size, signal, error, code = owner[whole], size[whole], signal[whole], error[whole], code[whole]
    code = np.unique(code, return_inverse=True)[1].reshape(-1)
    energies = np.stack([np.bincount(code, weights=signal), np.bincount(code, weights=error)]).astype(np.float64)
    return CorpusWindows(np.where(energies[0] > 0, energy_ratio_db(*energies), 0.0), owner, code, size / np.bincount(code, weights=size)[code])


def _only(values: Array, name: str) -> int:
    if (values != values[0]).any():
        raise ValueError(f"examples laid end to end must agree in {name}, got {sorted(set(values.tolist()))}")
    return int(values[0])


def median_and_influence(values: Array) -> tuple[float, Array]:
    """``(W,)`` -> the median and each value's influence on it, ``(W,)`` with mean 0."""
    value = float(np.median(values))
    influence = np.asarray(np.sign(values - value) * (sparsity(values) / 2))
    return value, influence - influence.mean()


def sparsity(values: Array) -> float:
    """One over the density at the median, by the distance of two quantiles (Siddiqui 1960): with the bandwidth of Bofinger (1975), or of the
    quartiles if that is more. The first alone is right for independent windows and too small for those of a few songs."""
    widths = np.array([min(0.648 * len(values) ** -0.2, 0.25), 0.25])  # (4.5 phi(0)^4)^(1/5)
    return float(np.max((np.quantile(values, 0.5 + widths) - np.quantile(values, 0.5 - widths)) / (2 * widths)))


SDR_CORPUS_MEDIAN = CorpusSdr(
    MetricInfo(
        "sdr_corpus_median",
        "dB",
        True,
        frozenset({"audio"}),
        "group",
        "NES, released code: museval over the test set laid end to end, windows of 1 s, silent ones 0 dB; median over windows",
        assigned_by="sdr",
    )
)
