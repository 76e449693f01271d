"""Tasks and random batches that several tests of the metrics share."""

from __future__ import annotations

import torch

from sepbench.operators import make_operator
from sepbench.protocols import Assignment, Mixtures, TaskSpec


def image_task(k: int, shape: tuple[int, int, int] = (1, 8, 8), assignment: Assignment = "permutation", scored: tuple[int, ...] | None = None) -> TaskSpec:
    slots = tuple(range(k)) if scored is None else scored
    return TaskSpec("toy", "task", "image", k, shape, "sum", ("digit",) * k, assignment, slots)


def mixtures_of(references: torch.Tensor) -> Mixtures:
    operator = make_operator("sum", references.shape[1])
    return Mixtures(operator.forward(references), torch.arange(len(references)) + 100, operator)


def random_batch(n: int, k: int, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Mixtures]:
    """Estimates (references in a shuffled order with noise), references and mixtures, float32."""
    generator = torch.Generator().manual_seed(seed)
    references = torch.rand(n, k, *shape, generator=generator)
    order = torch.rand(n, k, generator=generator).argsort(1)
    estimates = references[torch.arange(n)[:, None], order] + 0.3 * torch.randn(references.shape, generator=generator)
    return estimates, references, mixtures_of(references)
