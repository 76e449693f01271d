"""What tests of separators share: a training view over tensors, contexts, tasks, PSNR by the benchmark's rule, digits cut in two."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations

import torch
from sklearn.datasets import load_digits

from sepbench.errors import SupervisionError
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import MixingOperator, Mixtures, RunContext, ScorePrior, Supervision, TaskSpec

ALLOWED: dict[str, set[str]] = {
    "blind": set(),
    "bound": set(),
    "prior": {"clean"},
    "sources": {"clean", "sources"},
    "mixtures+one": {"mixtures", "observed"},
}


@dataclass
class ToyView:
    """A training view over given tensors; ``asked`` records accessor and limit of every call, a level's ban is enforced."""

    task: TaskSpec
    supervision: Supervision
    by_slot: tuple[torch.Tensor, ...] = ()
    pooled: torch.Tensor | None = None
    mixed: torch.Tensor | None = None
    one: torch.Tensor | None = None
    asked: list[tuple[str, int | None]] = field(default_factory=list)

    def _give(self, accessor: str, data: torch.Tensor | None, limit: int | None) -> torch.Tensor:
        if accessor not in ALLOWED[self.supervision] or data is None:
            raise SupervisionError(f"{self.supervision} has no {accessor}")
        self.asked.append((accessor, limit))
        return data[:limit]

    def mixtures(self, limit: int | None = None) -> torch.Tensor:
        return self._give("mixtures", self.mixed, limit)

    def observed(self, limit: int | None = None) -> torch.Tensor:
        return self._give("observed", self.one, limit)

    def clean(self, limit: int | None = None) -> torch.Tensor:
        return self._give("clean", self.pooled, limit)

    def sources(self, slot: int, limit: int | None = None) -> torch.Tensor:
        return self._give("sources", self.by_slot[slot], limit)

    def prior(self, slot: int) -> ScorePrior:
        raise SupervisionError(f"{self.task.name} has no analytic prior")


def toy_task(
    shape: tuple[int, ...] = (1, 8, 8),
    classes: tuple[str, ...] = ("a", "b"),
    operator: str = "sum",
    domain: str = "image",
    observed: int | None = None,
) -> TaskSpec:
    slots = tuple(range(len(classes)))
    return TaskSpec("toys", "task", domain, len(classes), shape, operator, classes, "permutation", slots, observed)  # type: ignore[arg-type]


def context(task: TaskSpec, seed: int = 0, **more: object) -> RunContext:
    return RunContext(task, "cpu", NoiseSource(seed), seed, **more)  # type: ignore[arg-type]


def operator_for(name: str, batch: int, n_sources: int) -> MixingOperator:
    gains = torch.rand(batch, n_sources, generator=torch.Generator().manual_seed(5)) + 0.25
    return make_operator(name, n_sources, gains=gains if name == "gain" else None)


def mix(sources: torch.Tensor, operator: str | MixingOperator = "sum") -> Mixtures:
    """Sources ``(B, K, ...)`` to a batch of mixtures with example ids 0, 1, ..."""
    batch, n_sources = sources.shape[:2]
    operator = operator_for(operator, batch, n_sources) if isinstance(operator, str) else operator
    return Mixtures(operator.forward(sources), torch.arange(batch), operator)


def rows_of(mixtures: Mixtures, rows: torch.Tensor) -> Mixtures:
    return Mixtures(mixtures.values[rows], mixtures.example_ids[rows], mixtures.operator.select(rows))


def mean_psnr(estimates: torch.Tensor, references: torch.Tensor) -> float:
    """The rule of BASIS: clamped, per image, best assignment by the sum, mean of dB."""
    errors = (estimates.clamp(0, 1).unsqueeze(2) - references.unsqueeze(1)).square().flatten(3).mean(3)
    levels = -10.0 * errors.clamp(min=1e-10).log10()
    slots = range(estimates.shape[1])
    scores = torch.stack([torch.stack([levels[:, order[k], k] for k in slots], 1).mean(1) for order in permutations(slots)])
    return float(scores.amax(0).mean())


@dataclass(frozen=True)
class Digits:
    """scikit-learn's digits in [0, 1]: training images of 0-4, of 5-9 and pooled; 200 test pairs ``(200, 2, 1, 8, 8)``."""

    low: torch.Tensor
    high: torch.Tensor
    pooled: torch.Tensor
    pairs: torch.Tensor

    @classmethod
    def read(cls) -> Digits:
        data = load_digits()
        images = torch.from_numpy(data.images / 16.0).float().unsqueeze(1)
        labels = torch.from_numpy(data.target)
        train, test = images[:1200], images[1200:]
        low_train, low_test = train[labels[:1200] < 5], test[labels[1200:] < 5]
        high_train, high_test = train[labels[:1200] >= 5], test[labels[1200:] >= 5]
        return cls(low_train, high_train, train, torch.stack([low_test[:200], high_test[:200]], 1))

    def view(self, supervision: Supervision, task: TaskSpec) -> ToyView:
        """Half of the high digits are observed, the other half come mixed."""
        half = len(self.high) // 2
        mixed = self.low[:half] + self.high[half : 2 * half]
        return ToyView(task, supervision, (self.low, self.high), self.pooled, mixed, self.high[:half])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def digit_mixtures(count: int) -> torch.Tensor:
    """``(count, 1, 8, 8)`` sums of two of scikit-learn's digits."""
    images = torch.from_numpy(load_digits().images / 16.0).float().unsqueeze(1)
    return images[:count] + images[count : 2 * count]
