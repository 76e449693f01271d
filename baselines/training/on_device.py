"""A training that stays on its device: images, random numbers and sums are there, and no step reads a value back.

A GPU works ahead only as long as nobody asks it for a number. So losses and gradient norms are added up on the device.
Whether all were finite is asked only when the log or a checkpoint is due. Batches depend only on (seed, step), as on
the CPU, but their noise is that of the device.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

from baselines.training.config import TrainConfig, batch_indices, derived_seed, draw_sigmas, mirrored
from baselines.training.edm_loss import as_float
from sepbench.memory import out_of_memory, release

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Clean images ``(B, C, H, W)``, standard normals of the same shape, and noise levels ``(B,)``."""


class DeviceBatches:
    """The batches of a run, made on a device.

    Args:
        images: ``(N, C, H, W)`` uint8 or float32. They are copied to the device as they are.
        config: batch, seed, noise levels and mirroring.
        device: where.
    """

    def __init__(self, images: torch.Tensor, config: TrainConfig, device: torch.device) -> None:
        self.images, self.config, self.device = images.to(device), config, device

    def __call__(self, step: int) -> Batch:
        """The batch of a step."""
        config = self.config
        random = torch.Generator(self.device).manual_seed(derived_seed(config.seed, "device step", step))
        rows = batch_indices(config.seed, step, config.batch, len(self.images), self.device)
        clean = as_float(self.images[rows])
        sigma = draw_sigmas(config, random, config.batch)
        noise = torch.randn(clean.shape, generator=random, device=self.device)
        return (mirrored(clean, random) if config.mirror else clean), noise, sigma


class GradientParts:
    """One gradient of a batch, in as many parts as its memory needs. The sum stays the same.

    It starts with one part. Whenever memory runs out, it doubles the number of parts.

    Args:
        gradient: adds the gradient of some rows of a batch to the present gradients, and returns the rows' losses.
        clear: removes gradients.
    """

    def __init__(self, gradient: Callable[[Batch, slice], torch.Tensor], clear: Callable[[], None]) -> None:
        self.count = 1
        self._gradient, self._clear = gradient, clear

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Losses ``(B,)`` of a batch. The gradients are where ``gradient`` left them.

        Raises:
            Exception: what ``gradient`` raises, and its error of memory once parts of one image are too large.
        """
        size, device = len(batch[0]), batch[0].device
        while True:
            losses = self._once(batch, size)
            if losses is not None:
                return losses
            self.count *= 2
            release(device)
            warnings.warn(f"out of memory: a batch of {size:,} images is computed in {self.count} parts from here on", RuntimeWarning, stacklevel=2)

    def _once(self, batch: Batch, size: int) -> torch.Tensor | None:
        """Losses ``(B,)``, or None if memory ran out and more parts are possible.

        The error holds tensors. They are freed when this function returns.
        """
        self._clear()
        losses = torch.empty(size, device=batch[0].device)
        try:
            for part in range(self.count):
                rows = slice(part, None, self.count)  # interleaved: each part gets the whole noise range
                losses[rows] = self._gradient(batch, rows)
        except Exception as error:
            if 2 * self.count > size or not out_of_memory(error):
                raise
            return None
        return losses


class Finite:
    """Whether all numbers so far were finite. The answer is read only now and then.

    Args:
        device: where the numbers are.
    """

    def __init__(self, device: torch.device) -> None:
        self._all = torch.ones((), dtype=torch.bool, device=device)

    def add(self, number: torch.Tensor) -> None:
        """Add a number, a scalar on the device."""
        self._all = self._all & torch.isfinite(number)

    def __bool__(self) -> bool:
        """Whether all were finite. This waits for the device."""
        return bool(self._all)
