"""Peak signal-to-noise ratio in the four conventions that the papers' tables mix.

=================  ============================================================  ==================
key                one value                                                     used by
=================  ============================================================  ==================
``psnr``           per image, estimate clamped to [0, 1]; the ranking metric     BASIS, LASS
``psnr_unclamped`` per image, estimate as it is                                  (NES on full images)
``psnr_sum_mse``   per mixture: the sources' MSEs summed, then dB                Kong et al. (S-D)
``psnr_pad32``     per image, zero-padded to 32 x 32 first, not clamped          NES on MNIST
=================  ============================================================  ==================

All have peak 1 and are capped at ``PSNR_CAP_DB`` = 100 dB. For the same error ``psnr_sum_mse`` is 3.01 dB below a mean
over two sources, and ``psnr_pad32`` of a 28 x 28 image is 1.16 dB above ``psnr_unclamped``, because the empty border
has no error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sepbench.metrics.kinds import MetricInfo
from sepbench.metrics.squared_error import Array, as_float64, decibels, pairwise_mse
from sepbench.protocols import Support, TaskSpec
from sepbench.torch_later import torch

CANVAS = 32


@dataclass(frozen=True, slots=True)
class PeakSignalToNoise:
    """PSNR per image: ``-10 log10(MSE)`` with peak 1.

    Attributes:
        clamps: estimates are cut to [0, 1] first.
        canvas: side of the square that images are zero-padded to, 0 for none. The border has no error, so this is MSE * H W / canvas^2.
    """

    info: MetricInfo
    clamps: bool
    canvas: int = 0

    def supports(self, task: TaskSpec) -> Support:
        if self.canvas and max(task.source_shape[-2:]) > self.canvas:
            side = f"{self.canvas}x{self.canvas}"
            return Support(False, f"is defined for images up to {side}, the task has {task.source_shape[-2]}x{task.source_shape[-1]}")
        return Support(True)

    def from_mse(self, mse: Array, image_size: tuple[int, int]) -> Array:
        """Mean squared errors (any shape) of images ``(H, W)`` to dB.

        Raises:
            ValueError: the image is larger than the canvas.
        """
        if not self.canvas:
            return decibels(mse)
        if max(image_size) > self.canvas:
            raise ValueError(f"{self.info.name} is defined for images up to {self.canvas}x{self.canvas}, got {image_size[0]}x{image_size[1]}")
        return decibels(mse * (image_size[0] * image_size[1] / self.canvas**2))

    def pairwise(self, estimates: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """``(B, K, C, H, W)`` twice -> ``(B, K, K)`` float64 dB; NaN where an image holds NaN or infinity."""
        mse = pairwise_mse(as_float64(estimates), as_float64(references), self.clamps)
        return torch.from_numpy(self.from_mse(mse, (estimates.shape[-2], estimates.shape[-1])))


@dataclass(frozen=True, slots=True)
class SumOfErrorsPsnr:
    """Kong et al.: one value per mixture, ``10 log10(1 / sum_k MSE_k)`` under the assignment of the smallest sum.

    Its pairwise value is the negative MSE, whose best sum over the sources is the smallest error; ``combine`` makes dB of it.
    """

    info: MetricInfo
    clamps: bool = False

    def from_mse(self, mse: Array, image_size: tuple[int, int]) -> Array:
        return -mse

    def pairwise(self, estimates: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """``(B, K, C, H, W)`` twice -> ``(B, K, K)`` float64, the negative mean squared errors."""
        return torch.from_numpy(-pairwise_mse(as_float64(estimates), as_float64(references), self.clamps))

    def combine(self, assigned: torch.Tensor) -> torch.Tensor:
        """``(B, S)`` pairwise values of the assigned sources -> ``(B,)`` dB."""
        total = np.zeros(assigned.shape[0])
        for values in assigned.T.numpy():
            total -= values
        return torch.from_numpy(decibels(total))


def _info(name: str, per: Literal["source", "mixture"], source: str) -> MetricInfo:
    return MetricInfo(name, "dB", True, frozenset({"image"}), per, source, assigned_by=name)


PSNR = PeakSignalToNoise(_info("psnr", "source", "BASIS sec. 5 and code: clamp, per image, best permutation, mean of dB"), clamps=True)
PSNR_UNCLAMPED = PeakSignalToNoise(_info("psnr_unclamped", "source", "as psnr, without the clamp"), clamps=False)
PSNR_SUM_MSE = SumOfErrorsPsnr(_info("psnr_sum_mse", "mixture", "Kong et al. 2019, released code: the sources' MSEs summed per mixture"))
PSNR_PAD32 = PeakSignalToNoise(_info("psnr_pad32", "source", "NES app. A: images zero-padded to 32x32, not clamped; per image"), clamps=False, canvas=CANVAS)
