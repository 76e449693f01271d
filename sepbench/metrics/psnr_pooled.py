"""PSNR of squared errors that are pooled over batches of 32 images before the logarithm, as the released code of NES has it.

=====================  ========================================================================================================
``psnr_pooled32``      images as they are
``psnr_pooled32_pad``  images zero-padded to 32 x 32 first: NES' images of MNIST; 1.16 dB above ``psnr_pooled32`` for 28 x 28
=====================  ========================================================================================================

Per source, with b a batch of 32 mixtures (numbers 0 to 31, 32 to 63, ... of the frozen list)::

    value = mean over full batches of -10 log10(mean over all images and pixels of the batch of (estimate - source)^2)

Not clamped, peak 1, a batch without error is 100 dB as elsewhere. A batch is full if all its mixtures were scored or failed; those that failed
are left out of its mean. The last batch, if it is not full, is left out, as NES' code drops it. Fewer mixtures than one full batch are one batch.

The logarithm of a mean is larger than the mean of logarithms, so a pooled PSNR is **below** the mean over images. The
gap grows with the differences between the images. Single examples enter intervals and comparisons by jackknife values
within their batch, see ``PooledPsnr.pool``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sepbench.metrics.kinds import MetricInfo
from sepbench.metrics.psnr import CANVAS
from sepbench.metrics.squared_error import Array, Integers, as_float64, decibels
from sepbench.protocols import Support, TaskSpec
from sepbench.torch_later import torch

BATCH = 32


@dataclass(frozen=True, slots=True)
class PooledPsnr:
    """See the top of this file.

    Attributes:
        canvas: side of the square that images are zero-padded to, 0 for none.
    """

    info: MetricInfo
    canvas: int = 0

    @property
    def spread(self) -> str:
        return "jackknife"

    def supports(self, task: TaskSpec) -> Support:
        if self.canvas and max(task.source_shape[-2:]) > self.canvas:
            side = f"{self.canvas}x{self.canvas}"
            return Support(False, f"is defined for images up to {side}, the task has {task.source_shape[-2]}x{task.source_shape[-1]}")
        return Support(True)

    def parts(self, estimates: torch.Tensor, references: torch.Tensor, examples: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """``(B, K, C, H, W)`` twice -> the mean squared errors ``(B, K)``, over the canvas if there is one."""
        height, width = references.shape[-2:]
        with np.errstate(invalid="ignore", over="ignore"):
            errors = as_float64(estimates) - as_float64(references)
            errors *= errors
            mse = errors.reshape(*errors.shape[:2], -1).mean(-1) * (height * width / self.canvas**2 if self.canvas else 1.0)
        mse[~np.isfinite(mse)] = np.nan
        return {"mse": torch.from_numpy(mse)}

    def pool(self, parts: Mapping[str, Array], examples: Integers) -> Array:
        """Mean squared errors ``(n,)`` of the examples ``(n,)`` -> ``(n,)`` dB whose mean is the value.

        In a batch of k errors with the value g the deviation of example i is, but for the factors that make the sums right::

            g - value + (k - 1) (g - g without i) - their mean over the batch

        The first term is how this batch differs, the rest is the jackknife (Quenouille 1956; Tukey 1958) of g. Examples outside full batches have no
        influence.
        """
        mse = parts["mse"]
        scored = np.isfinite(mse)
        rows = _batches(scored, examples)
        used = scored[rows]
        counts = used.sum(axis=1, keepdims=True)
        rows, used, counts = rows[counts[:, 0] > 0], used[counts[:, 0] > 0], counts[counts > 0][:, None]
        if not len(rows):
            return np.full(mse.shape, np.nan)
        errors = np.where(used, mse[rows], 0.0)
        of_batch = decibels(errors.sum(axis=1, keepdims=True) / counts)
        value = float(of_batch.mean())
        own = np.where(used, (counts - 1) * (of_batch - decibels(_sums_without(errors) / np.maximum(counts - 1, 1))), 0.0)
        deviations = of_batch - value + own - own.sum(axis=1, keepdims=True) / counts
        found = np.where(scored, value, np.nan)
        found[rows[used]] += (deviations * (scored.sum() / (len(rows) * counts)))[used]
        return np.asarray(found + (value - np.nanmean(found)))


def _batches(scored: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], examples: Integers) -> Integers:
    """``(batches, size)`` places of the examples of full batches; of all examples if no batch is full."""
    _, starts, sizes = np.unique(examples // BATCH, return_index=True, return_counts=True)
    starts = starts[sizes == BATCH]
    return starts[:, None] + np.arange(BATCH) if len(starts) else np.arange(len(scored))[None]


def _sums_without(errors: Array) -> Array:
    """``(b, k)`` -> ``(b, k)``: the sum of a row without each of its entries. Added from both ends: a difference would lose small errors beside a large."""
    nothing = np.zeros((len(errors), 1))
    before = np.concatenate([nothing, np.cumsum(errors, axis=1)[:, :-1]], axis=1)
    after = np.concatenate([np.cumsum(errors[:, ::-1], axis=1)[:, -2::-1], nothing], axis=1)
    return np.asarray(before + after)


def _info(name: str, source: str) -> MetricInfo:
    return MetricInfo(name, "dB", True, frozenset({"image"}), "group", source, assigned_by="psnr_unclamped")


PSNR_POOLED32 = PooledPsnr(_info("psnr_pooled32", "NES, released code: one MSE per batch of 32 images, not clamped; mean of dB over full batches"))
PSNR_POOLED32_PAD = PooledPsnr(_info("psnr_pooled32_pad", "NES app. A and released code: as psnr_pooled32, images zero-padded to 32x32"), canvas=CANVAS)
