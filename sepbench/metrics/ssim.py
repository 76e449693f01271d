"""Structural similarity with scikit-image's default settings (Wang et al. 2004, equation 13), as NES reports it.

7 x 7 uniform window, sample covariance (divisor 48), K1 = 0.01, K2 = 0.03, data range 1, the mean over the windows that lie inside the
image, channels averaged. Nothing is clamped.

With s the sum over a window, n = 49, and both brackets multiplied by n^2 and n (n - 1)::

    SSIM = [2 s(x) s(y) + n^2 C1] [2 (n s(xy) - s(x) s(y)) + n (n - 1) C2]
           / [s(x)^2 + s(y)^2 + n^2 C1] / [n s(x^2 + y^2) - s(x)^2 - s(y)^2 + n (n - 1) C2]

so four window sums suffice. They run over the images of a batch laid end to end, a shift by one row being a shift by W: every operation
is one pass over contiguous memory. Windows that straddle two rows or two images are computed as well and left out of the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sepbench.metrics.kinds import MetricInfo
from sepbench.protocols import Support, TaskSpec
from sepbench.torch_later import torch

WINDOW = 7
BATCH = 128
"""Images per pass: eight buffers of 128 28x28 images stay in the cache."""

_N = WINDOW * WINDOW
_C1 = 0.01**2
_C2 = 0.03**2

Floats = npt.NDArray[np.floating[Any]]


def _sum_of_seven(x: Floats, step: int, pairs: Floats, out: Floats) -> Floats:
    """``out[p] = x[p] + x[p + step] + ... + x[p + 6 step]`` in four additions instead of six; ``pairs`` is overwritten."""
    n = len(x)
    twos = np.add(x[: n - step], x[step:], out=pairs[: n - step])
    sums = out[: n - 6 * step]
    np.add(twos[: n - 6 * step], twos[2 * step : n - 4 * step], out=sums)
    sums += twos[4 * step : n - 2 * step]
    sums += x[6 * step :]
    return sums


def _ssim_planes(x: Floats, y: Floats, buffers: Floats) -> npt.NDArray[np.float64]:
    """``(n, H, W)`` contiguous planes twice -> ``(n,)``; ``buffers`` is scratch ``(8, >= n H W)`` of the same dtype."""
    n, height, width = x.shape
    b = buffers[:, : x.size]
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)

    def window_sums(values: Floats, out: Floats) -> Floats:
        return _sum_of_seven(_sum_of_seven(values, width, b[5], b[6]), 1, b[5], out)

    s_x, s_y = window_sums(x_flat, b[0]), window_sums(y_flat, b[1])
    s_xy = window_sums(np.multiply(x_flat, y_flat, out=b[7]), b[2])
    squares = np.multiply(x_flat, x_flat, out=b[7])
    squares += np.multiply(y_flat, y_flat, out=b[4])
    s_squares = window_sums(squares, b[3])

    luminance = np.multiply(s_x, s_y, out=b[4, : len(s_x)])
    energy = s_x
    energy *= s_x
    energy += np.multiply(s_y, s_y, out=s_y)
    covariance, variance = s_xy, s_squares
    covariance *= _N
    covariance -= luminance
    variance *= _N
    variance -= energy
    for doubled in (luminance, covariance):
        doubled += doubled
    for mean_term in (luminance, energy):
        mean_term += _C1 * _N * _N
    for spread_term in (covariance, variance):
        spread_term += _C2 * _N * (_N - 1)
    luminance *= covariance
    energy *= variance
    luminance /= energy
    inside = b[4].reshape(n, height, width)[:, : height - WINDOW + 1, : width - WINDOW + 1]
    # Cast before the mean: a mean that casts on the fly works through a buffer whose edges fall differently in every batch.
    return np.asarray(inside.astype(np.float64, order="C").reshape(n, -1).mean(-1))


def structural_similarity(estimates: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """SSIM of pairs of images, equal to ``skimage.metrics.structural_similarity(data_range=1)`` to 1e-12 in float64.

    Args:
        estimates, references: ``(n, C, H, W)``, both float32 or both float64, which is also the precision of the arithmetic.

    Returns:
        ``(n,)`` float64 in [-1, 1] on the CPU; NaN where an image holds NaN or infinity. The bits do not depend on the batch.

    Raises:
        ValueError: shapes or dtypes differ, or H or W is below 7.
    """
    if estimates.shape != references.shape or estimates.ndim != 4 or estimates.dtype != references.dtype or not estimates.is_floating_point():
        raise ValueError(f"SSIM needs two (n, C, H, W) of one float type, got {tuple(estimates.shape)} and {tuple(references.shape)}")
    n, channels, height, width = estimates.shape
    if min(height, width) < WINDOW:
        raise ValueError(f"SSIM has a {WINDOW}x{WINDOW} window, the images are {height}x{width}")
    x, y = (np.ascontiguousarray(side.detach().cpu().numpy()).reshape(-1, height, width) for side in (estimates, references))
    planes = np.empty(len(x))
    buffers = np.empty((8, min(BATCH, len(x)) * height * width), dtype=x.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(x), BATCH):
            rows = slice(start, start + BATCH)
            planes[rows] = _ssim_planes(x[rows], y[rows], buffers)
    return torch.from_numpy(planes.reshape(n, channels).mean(-1))


@dataclass(frozen=True, slots=True)
class StructuralSimilarity:
    """SSIM per image; on permutation tasks under the best assignment of ``psnr``, so that both speak of the same pairs."""

    info: MetricInfo

    def supports(self, task: TaskSpec) -> Support:
        height, width = task.source_shape[-2:]
        if min(height, width) < WINDOW:
            return Support(False, f"has a {WINDOW}x{WINDOW} window, the task's images are {height}x{width}")
        return Support(True)

    def pairwise(self, estimates: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """``(B, K, C, H, W)`` twice -> ``(B, K, K)`` float64."""
        n_sources = estimates.shape[1]
        x, y = estimates.double(), references.double()
        columns = [torch.stack([structural_similarity(x[:, i], y[:, j]) for j in range(n_sources)], dim=1) for i in range(n_sources)]
        return torch.stack(columns, dim=1)


SSIM = StructuralSimilarity(
    MetricInfo("ssim", "1", True, frozenset({"image"}), "source", "scikit-image structural_similarity, default window (NES)", assigned_by="psnr")
)
