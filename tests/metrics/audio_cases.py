"""Audio tasks and random batches that several tests of the metrics share."""

from __future__ import annotations

import torch

from sepbench.operators import make_operator
from sepbench.protocols import Assignment, Mixtures, TaskSpec

RATE = 100


def audio_task(
    k: int = 2, shape: tuple[int, int] = (1, 250), assignment: Assignment = "permutation", scored: tuple[int, ...] | None = None, rate: int | None = RATE
) -> TaskSpec:
    slots = tuple(range(k)) if scored is None else scored
    return TaskSpec("toy", "task", "audio", k, shape, "mean", ("voice",) * k, assignment, slots, sample_rate=rate)


def mixtures_of(references: torch.Tensor) -> Mixtures:
    operator = make_operator("mean", references.shape[1])
    return Mixtures(operator.forward(references), torch.arange(len(references)) + 100, operator)


def random_audio(n: int, k: int = 2, shape: tuple[int, int] = (1, 250), seed: int = 0, shuffle: bool = False) -> tuple[torch.Tensor, torch.Tensor, Mixtures]:
    """Estimates (references with some of the others and noise, in a random order if ``shuffle``), references and mixtures, float32."""
    generator = torch.Generator().manual_seed(seed)
    references = 0.1 * torch.randn(n, k, *shape, generator=generator)
    leaked = 0.3 * references.roll(1, dims=1) if k > 1 else 0.0
    estimates = references + leaked + 0.03 * torch.randn(references.shape, generator=generator)
    if shuffle:
        order = torch.rand(n, k, generator=generator).argsort(1)
        estimates = estimates[torch.arange(n)[:, None], order]
    return estimates, references, mixtures_of(references)
