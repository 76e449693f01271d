"""What tests of audio separators share: two kinds of sound, tasks over them, nussl where it is installed, SDR under the best assignment."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
import torch
from method_toys import mix

from sepbench.compat import import_nussl
from sepbench.errors import SepbenchError
from sepbench.protocols import Assignment, Mixtures, TaskSpec

RATE = 8_000


def sounds(batch: int = 3, length: int = 8_000, seed: int = 0) -> torch.Tensor:
    """``(B, 2, 1, T)`` at 8 kHz: a gliding voice with pauses, and a repeated chord with noise bursts."""
    g = torch.Generator().manual_seed(seed)
    time = torch.arange(length) / RATE
    pitch = 150 + 100 * torch.rand(batch, 1, generator=g) + 30 * torch.sin(2 * math.pi * (2 + torch.rand(batch, 1, generator=g)) * time)
    phase = 2 * math.pi * pitch.cumsum(1) / RATE
    voice = sum(torch.sin(k * phase) / k for k in range(1, 9)) * (torch.sin(2 * math.pi * 1.7 * time + 6 * torch.rand(batch, 1, generator=g)) > -0.3)
    chord = sum(torch.sin(2 * math.pi * f * time) for f in (440.0, 660.0, 880.0)) * torch.exp(-6 * (time % 0.25))
    burst = torch.randn(batch, length, generator=g) * torch.exp(-40 * ((time + 0.1) % 0.5))
    return 0.2 * torch.stack([voice, 0.5 * chord + burst], 1).unsqueeze(2).float()


def sound_task(
    length: int = 8_000,
    classes: tuple[str, ...] = ("a", "b"),
    operator: str = "mean",
    *,
    assignment: Assignment = "permutation",
    observed: int | None = None,
    channels: int = 1,
    rate: int | None = RATE,
) -> TaskSpec:
    slots = tuple(range(len(classes)))
    return TaskSpec("toys", "sounds", "audio", len(classes), (channels, length), operator, classes, assignment, slots, observed, rate)


def nussl() -> ModuleType:
    """The reference implementation; skips the test where it is missing."""
    try:
        return import_nussl()
    except SepbenchError as error:
        pytest.skip(str(error))


def nussl_signal(values: torch.Tensor, rate: int = RATE) -> object:
    """One mixture ``(C, T)`` as nussl takes it."""
    return nussl().AudioSignal(audio_data_array=values.double().numpy(), sample_rate=rate)


def nussl_estimates(separator: object) -> torch.Tensor:
    """``(K, C, T)`` float64: what a nussl separator makes of its signal."""
    separator.run()  # type: ignore[attr-defined]
    return torch.from_numpy(np.stack([estimate.audio_data for estimate in separator.make_audio_signals()]))  # type: ignore[attr-defined]


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Cosine of the angle between two signals."""
    a, b = a.double().flatten(), b.double().flatten()
    return float((a * b).sum() / (a.norm() * b.norm()))


def best_sdr(estimates: torch.Tensor, references: torch.Tensor) -> float:
    """dB, the mean over sources and mixtures ``(B, 2, C, T)`` under the better of the two assignments."""
    errors = (estimates.unsqueeze(2) - references.unsqueeze(1)).square().flatten(3).sum(3)
    levels = 10 * (references.square().flatten(2).sum(2).unsqueeze(1) / errors.clamp(min=1e-9)).log10()
    straight, crossed = levels[:, 0, 0] + levels[:, 1, 1], levels[:, 0, 1] + levels[:, 1, 0]
    return float((torch.maximum(straight, crossed) / 2).mean())


def mixed(sources: torch.Tensor, operator: str = "mean") -> Mixtures:
    return mix(sources, operator)
