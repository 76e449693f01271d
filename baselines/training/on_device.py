"""A training that stays on its device: images lie there, everything random is drawn there, and no value is read back from step to step.

A GPU computes ahead only while nobody asks it for a number. So losses and gradient norms are added up where they are, and whether all was finite is
asked when the log or a checkpoint is due. Batches depend on (seed, step) alone, as on the CPU, but their noise is the device's own.
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
        images: ``(N, C, H, W)`` uint8 or float32; they are copied to the device as they are.
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
    """One gradient of a batch in as many parts as its memory needs: one, and twice as many whenever that was too much. The sum stays the same.

    Args:
        gradient: adds the gradient of some rows of a batch to what is there and returns their losses.
        clear: takes gradients away.
    """

    def __init__(self, gradient: Callable[[Batch, slice], torch.Tensor], clear: Callable[[], None]) -> None:
        self.count = 1
        self._gradient, self._clear = gradient, clear

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Losses ``(B,)``; the gradients are where ``gradient`` left them."""
        size, device = len(batch[0]), batch[0].device
        while True:
            losses = self._once(batch, size)
            if losses is not None:
                return losses
            self.count *= 2
            release(device)
            warnings.warn(f"out of memory: a batch of {size:,} images is computed in {self.count} parts from here on", RuntimeWarning, stacklevel=2)

    def _once(self, batch: Batch, size: int) -> torch.Tensor | None:
        """None where memory was too short and there can be more parts; the error, which holds tensors, is gone then."""
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
    """Whether all numbers so far were finite, asked now and then.

    Args:
        device: where the numbers are.
    """

    def __init__(self, device: torch.device) -> None:
        self._all = torch.ones((), dtype=torch.bool, device=device)

    def add(self, number: torch.Tensor) -> None:
        """One more, a scalar on the device."""
        self._all = self._all & torch.isfinite(number)

    def __bool__(self) -> bool:
        """Waits for the device."""
        return bool(self._all)
