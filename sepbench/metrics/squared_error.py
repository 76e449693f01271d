"""Mean squared errors between every estimate and every reference: all four PSNR conventions are read off them.

Computed by numpy and not by torch: torch splits such small reductions and sums over threads, which makes the bits depend on the batch
and on the number of threads, and stalls for seconds where another process holds the second core. A numpy sum over the contiguous last
axis treats every row alike.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from sepbench.torch_later import torch

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

PSNR_CAP_DB = 100.0
"""The most decibels a PSNR can have: an estimate without error scores this instead of +inf, so that means stay finite (MSE floor 1e-10)."""

_MSE_FLOOR = 10.0 ** (-PSNR_CAP_DB / 10.0)


def as_float64(signals: torch.Tensor) -> Array:
    """A float32 or float64 tensor on any device as a C-contiguous float64 array; shares memory with a float64 one, so never change it in place."""
    return np.ascontiguousarray(signals.detach().cpu().numpy(), dtype=np.float64)


def pairwise_mse(estimates: Array, references: Array, clamp: bool, pairs: Iterable[tuple[int, int]] | None = None) -> Array:
    """Mean squared error of every estimate against every reference.

    Args:
        estimates, references: ``(B, K, ...)`` float64.
        clamp: cut the estimates (never the references) to [0, 1] first.
        pairs: the (estimate, reference) slots that are wanted; all by default.

    Returns:
        ``(B, K, K)``: entry [b, i, j] for estimate i and reference j; NaN where the pair is not wanted, or where one of the two
        holds a NaN or an infinity: clamping would turn an infinite pixel into a white one.
    """
    batch, n_sources = estimates.shape[:2]
    x = estimates.reshape(batch, n_sources, -1)
    y = references.reshape(batch, n_sources, -1)
    mse = np.full((batch, n_sources, n_sources), np.nan)
    clamped = np.clip(x, 0.0, 1.0) if clamp else x
    everything = ((i, j) for i in range(n_sources) for j in range(n_sources))
    with np.errstate(invalid="ignore", over="ignore"):
        for i, j in everything if pairs is None else pairs:
            error = clamped[:, i] - y[:, j]
            error *= error
            mse[:, i, j] = error.mean(-1)
    if clamp:
        mse[~np.isfinite(x).all(-1)] = np.nan
    mse[~np.isfinite(mse)] = np.nan
    return mse


def decibels(mse: Array) -> Array:
    """``-10 log10(mse)``: PSNR in dB at peak 1, at most ``PSNR_CAP_DB``; NaN stays NaN."""
    with np.errstate(divide="ignore"):
        values = -10.0 * np.log10(mse)
    return np.asarray(np.where(mse <= _MSE_FLOOR, PSNR_CAP_DB, values))
