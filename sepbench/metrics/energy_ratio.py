"""What the audio metrics share: ratios of energies in decibels, and which signals they take.

Computed by numpy, one row after the other, for the reason given in ``squared_error.py``: the bits of a row must depend on that row alone.
"""

from __future__ import annotations

import numpy as np

from sepbench.metrics.squared_error import Array
from sepbench.protocols import Support, TaskSpec
from sepbench.torch_later import torch

RATIO_CAP_DB = 200.0
"""Ratios are cut to +-200 dB, so that means and assignments stay finite: museval says +inf of an estimate without error. float32 rounding
alone is an error of about -150 dB, so on top only exact equality is cut."""


def energy_ratio_db(signal: Array, error: Array) -> Array:
    """``10 log10(signal / error)`` of two energies, elementwise, within ``RATIO_CAP_DB``; NaN for 0 / 0 and where one is not finite."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values = 10.0 * np.log10(signal / error)
    defined = np.isfinite(signal) & np.isfinite(error)
    return np.asarray(np.where(defined, np.clip(values, -RATIO_CAP_DB, RATIO_CAP_DB), np.nan))


def energy(signals: Array) -> Array:
    """Sum of squares over the last axis, ``(..., T) -> (...)``."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray((signals * signals).sum(-1))


def over_channels(energies: Array) -> Array:
    """Sum over axis 1, ``(n, channels, ...) -> (n, ...)``, added from left to right."""
    total = energies[:, 0].copy()
    for channel in range(1, energies.shape[1]):
        total += energies[:, channel]
    return total


def finite(signals: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """``(..., channels, T) -> (...)``: whether a signal holds neither NaN nor infinity."""
    return np.asarray(np.isfinite(signals).all((-2, -1)))


def check_audio(estimates: torch.Tensor, references: torch.Tensor) -> None:
    """Refuse what is no pair of audio batches.

    Raises:
        ValueError: not two ``(B, K, channels, T)`` of one shape and of floats, or no samples. Nothing is padded or cut to fit, unlike in
            ``museval.evaluate``: an estimate of another length is an error of its method.
    """
    shape = tuple(references.shape)
    if tuple(estimates.shape) != shape or len(shape) != 4 or not (estimates.is_floating_point() and references.is_floating_point()):
        raise ValueError(
            f"audio metrics need estimates and references as two float tensors of one shape (B, K, channels, T), "
            f"got {estimates.dtype} {tuple(estimates.shape)} and {references.dtype} {shape}"
        )
    if 0 in shape[1:]:
        raise ValueError(f"audio metrics need at least one source, channel and sample, got (B, K, channels, T) = {shape}")


def supports_rate(task: TaskSpec) -> Support:
    """Whether a task has what windows of one second need."""
    return Support(True) if task.sample_rate else Support(False, "has windows of one second, but the task declares no sample_rate")
