"""SDR of BSS Eval v3, "sources" version (Vincent, Gribonval and Fevotte 2006): an estimate may be any filtered version of its source.

With P e the projection of the estimate e onto the span of the source s delayed by 0 to 511 samples (of all its channels; each channel of e is
projected on its own), over the whole signal, which is continued by 511 zeros::

    SDR = 10 log10(|P e|^2 / |e - P e|^2)

This is ``museval.metrics.bss_eval_sources`` without its search for a permutation, to 1e-6 dB. It forgives every short
filter, including gains and delays, and it grows when both lose the same frequencies. museval itself advises against it.
It is here for tables that report it.

The filters c solve the normal equations ``G c = D`` of 512 unknowns per channel, G the (block) Toeplitz matrix of the source's correlations, by FFT.
One Cholesky factor per source serves all estimates; the systems are factored one by one, by LAPACK and not by torch's batched LU, which
returns wrong numbers in some settings, and a batch could not share work anyway.

Where G is singular to rounding (equal channels, a signal of few frequencies) the filters are not unique but their projection is: it is
then found by least squares with the smallest filters. Defined: NaN for a silent source or estimate (museval raises), and where one holds NaN or
infinity; else within +-200 dB (``energy_ratio.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.linalg

from sepbench.metrics.energy_ratio import check_audio, energy, energy_ratio_db, finite
from sepbench.metrics.kinds import MetricInfo
from sepbench.metrics.squared_error import Array, as_float64
from sepbench.torch_later import torch

TAPS = 512

Spectra = npt.NDArray[np.complex128]


def _gram(spectra: Spectra, n_fft: int) -> Array:
    """Inner products of all delayed channels: spectra ``(channels, bins)`` -> ``(channels * TAPS, channels * TAPS)``, symmetric."""
    channels = len(spectra)
    gram = np.empty((channels, TAPS, channels, TAPS))
    for a in range(channels):
        for b in range(a, channels):
            correlation = scipy.fft.irfft(spectra[a].conj() * spectra[b], n_fft)
            block = scipy.linalg.toeplitz(correlation[:TAPS], np.concatenate([correlation[:1], correlation[:-TAPS:-1]]))
            gram[a, :, b], gram[b, :, a] = block, block.T
    return gram.reshape(channels * TAPS, channels * TAPS)


def _filters(gram: Array, right: Array) -> Array:
    """``(n, m)`` solution of ``gram c = right``, of least norm where ``gram`` is singular to rounding."""
    try:
        factor = scipy.linalg.cho_factor(gram, check_finite=False)
        return np.asarray(scipy.linalg.cho_solve(factor, right, check_finite=False))
    except np.linalg.LinAlgError:
        return np.asarray(scipy.linalg.lstsq(gram, right, cond=len(gram) * np.finfo(np.float64).eps, check_finite=False, lapack_driver="gelsy")[0])


def _ratios_of_one(estimates: Array, reference: Array) -> Array:
    """Estimates ``(M, channels, T)`` of one source ``(channels, T)``, all finite, the source not silent -> ``(M,)`` dB."""
    count, channels, length = estimates.shape
    padded = length + TAPS - 1
    n_fft = scipy.fft.next_fast_len(padded, real=True)
    source, estimated = scipy.fft.rfft(reference, n_fft), scipy.fft.rfft(estimates, n_fft)
    right = np.empty((channels, TAPS, count, channels))
    for a in range(channels):
        right[a] = np.moveaxis(scipy.fft.irfft(source[a].conj() * estimated, n_fft)[..., :TAPS], -1, 0)
    filters = _filters(_gram(source, n_fft), right.reshape(channels * TAPS, count * channels))
    responses = scipy.fft.rfft(np.moveaxis(filters.reshape(channels, TAPS, count, channels), 1, -1), n_fft)  # (from, M, to, bins)
    projected = scipy.fft.irfft(np.einsum("amcf,af->mcf", responses, source), n_fft)[..., :padded]
    signal = energy(projected).sum(-1)
    projected[..., :length] -= estimates
    return energy_ratio_db(signal, energy(projected).sum(-1))


def filtered_ratios(estimates: Array, references: Array) -> Array:
    """SDR v3 of M estimates of each of n sources.

    Args:
        estimates: ``(n, M, channels, T)`` float64.
        references: ``(n, channels, T)`` float64.

    Returns:
        ``(n, M)`` dB.
    """
    usable = finite(estimates) & estimates.any((-2, -1)) & (finite(references) & references.any((-2, -1)))[:, None]
    values = np.full(usable.shape, np.nan)
    for row in np.flatnonzero(usable.any(1)):
        # All M at once whatever is usable, so that one estimate's bits do not depend on the others being so.
        clean = np.where(usable[row][:, None, None], estimates[row], 0.0)
        values[row] = np.where(usable[row], _ratios_of_one(clean, references[row]), np.nan)
    return values


@dataclass(frozen=True, slots=True)
class FilteredSdr:
    """SDR of BSS Eval v3; on permutation tasks under the best assignment of ``sdr``."""

    info: MetricInfo

    def pairwise(self, estimates: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """``(B, K, channels, T)`` twice -> ``(B, K, K)`` float64 dB."""
        check_audio(estimates, references)
        x, y = as_float64(estimates), as_float64(references)
        return torch.from_numpy(np.stack([filtered_ratios(x, y[:, j]) for j in range(y.shape[1])], axis=2))


SDR_V3 = FilteredSdr(
    MetricInfo("sdr_v3", "dB", True, frozenset({"audio"}), "source", "BSS Eval v3 sources, 512-tap filters (Vincent et al. 2006), whole signal", "sdr")
)
