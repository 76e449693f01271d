"""Small methods that behave, misbehave and keep count; registered by ``conftest.py`` for the tests of the runner."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from sepbench.protocols import MethodInfo, Mixtures, RunContext, Supervision, Support, TaskSpec, TrainingView
from sepbench.registry import SEPARATOR_GROUP


def info(name: str, supervision: Supervision = "blind", **changes: Any) -> MethodInfo:
    facts: dict[str, Any] = {"title": name.title(), "version": "1", "domains": frozenset({"image"}), "paper": "none", "deterministic": True}
    return MethodInfo(name=name, supervision=supervision, **(facts | changes))


class Fake:
    """Every source is a K-th of the mixture; ``batches`` holds the sizes that ``separate`` was given, ``fits`` counts fits."""

    info: ClassVar[MethodInfo] = info("halves", max_batch=4)
    batches: ClassVar[list[int]] = []
    fits: ClassVar[list[str]] = []

    def supports(self, task: TaskSpec) -> Support:
        return Support(True)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        self.fits.append(self.info.name)

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        self.batches.append(len(mixtures))
        return mixtures.operator.pseudo_inverse(mixtures.values)


@dataclass
class Halves(Fake):
    """Settings of several kinds."""

    gain: float = 1.0
    rank: int = 3
    mode: str = "plain"
    fast: bool = False

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        return super().separate(mixtures, ctx) * self.gain


@dataclass
class Noisy(Fake):
    """Halves plus noise, slow if asked; learns the mean source, so that a resumed run must fit again."""

    info: ClassVar[MethodInfo] = info("noisy", "sources", max_batch=3, deterministic=False)
    nap: float = 0.0
    mean: torch.Tensor = field(init=False, repr=False)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        super().fit(view, ctx)
        self.mean = torch.stack([view.sources(k, 100).mean(0) for k in range(view.task.n_sources)])

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        time.sleep(self.nap)
        noise = [ctx.noise.normal(mixtures.example_ids, 0, k, ctx.task.source_shape) for k in range(mixtures.n_sources)]
        return super().separate(mixtures, ctx) + 0.1 * self.mean + 0.05 * torch.stack(noise, 1)


@dataclass
class Broken(Fake):
    """Breaks the contract in the way of ``how``, for batches that hold example ``at`` (all if -1)."""

    info: ClassVar[MethodInfo] = info("broken", max_batch=4)
    how: str = "raise"
    at: int = -1

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        estimates = super().separate(mixtures, ctx)
        rows = torch.nonzero(mixtures.example_ids == self.at).flatten() if self.at >= 0 else torch.arange(len(mixtures))
        if not len(rows):
            return estimates
        match self.how:
            case "raise":
                raise RuntimeError("no convergence\nat all")
            case "memory":
                raise MemoryError
            case "exit":
                raise SystemExit(3)
            case "shape":
                return estimates[:, :1]
            case "dtype":
                return estimates.double()
            case "type":
                return estimates.numpy()  # type: ignore[return-value]
            case "nan":
                estimates = estimates.clone()
                estimates[rows, 0] = torch.nan
                return estimates
            case "mutate":
                mixtures.values.mul_(2.0)
            case "mutate-numpy":
                np.multiply(mixtures.values.numpy(), 2.0, out=mixtures.values.numpy())
            case "flip":
                mixtures.values.copy_(mixtures.values.flip(0))
            case "ids":
                mixtures.example_ids.add_(1)
            case "ids-reversed":
                mixtures.example_ids.copy_(mixtures.example_ids.flip(0).clone())
            case "ids-numpy":
                mixtures.example_ids.numpy()[:] += 7
            case "peek":
                ctx.references(mixtures.example_ids)
            case "interrupt":
                signal.raise_signal(signal.SIGINT)
        return estimates


@dataclass
class FailsFit(Fake):
    """Cannot be fitted while ``broken`` is set."""

    info: ClassVar[MethodInfo] = info("fails-fit")
    broken: ClassVar[type[BaseException] | None] = ValueError

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        if self.broken is not None:
            raise self.broken("singular\nmatrix")


class Oracle(Fake):
    """Hands back the references."""

    info: ClassVar[MethodInfo] = info("oracle", "bound", bound="upper")

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        return ctx.references(mixtures.example_ids)


class Picky(Fake):
    """Takes class-split tasks only."""

    info: ClassVar[MethodInfo] = info("picky")

    def supports(self, task: TaskSpec) -> Support:
        return Support(False, "wants two classes") if task.class_agnostic else Support(True, "with care")


class AudioOnly(Fake):
    """Of another kind of signal."""

    info: ClassVar[MethodInfo] = info("audio-only", domains=frozenset({"audio"}))


@dataclass
class ScaledByFile(Fake):
    """A stranger's plain dataclass: what it does stands in a file that a setting names, of which it says nothing else."""

    info: ClassVar[MethodInfo] = info("scaled-by-file", max_batch=4)
    scale: str = ""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        return super().separate(mixtures, ctx) * float(Path(self.scale).read_text())


class ScaledByList(Fake):
    """A stranger's plain class, with files in a list, which does not even say its settings."""

    info: ClassVar[MethodInfo] = info("scaled-by-list", max_batch=4)

    def __init__(self, scales: Any = ()) -> None:
        self._scale = float(np.prod([float(Path(path).read_text()) for path in scales]))

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        return super().separate(mixtures, ctx) * self._scale


@dataclass
class Counting(Fake):
    """Says what it spent on every mixture, in the way of ``how``; a mixture's number alone decides, and example ``at`` has no estimate."""

    info: ClassVar[MethodInfo] = info("counting", max_batch=3)
    how: str = "each"
    at: int = -1
    spent: Any = field(default=None, init=False, repr=False)

    @staticmethod
    def cost(example: int) -> float:
        return 10.0 + example**2

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        spent = torch.tensor([self.cost(example) for example in mixtures.example_ids.tolist()])
        self.spent = {"each": spent, "none": None, "one number": 3.0, "shape": spent[:, None], "minus": -spent, "nan": spent * torch.nan}[self.how]
        estimates = super().separate(mixtures, ctx).clone()
        estimates[mixtures.example_ids == self.at] = torch.nan
        return estimates

    def network_evaluations(self) -> Any:
        return self.spent


FAKES = {
    "counting": "Counting",
    "halves": "Halves",
    "noisy": "Noisy",
    "broken": "Broken",
    "fails-fit": "FailsFit",
    "oracle": "Oracle",
    "picky": "Picky",
    "audio-only": "AudioOnly",
    "scaled-by-file": "ScaledByFile",
    "scaled-by-list": "ScaledByList",
}


def entry_points() -> dict[str, EntryPoint]:
    """All fake methods as they would be registered by a package."""
    named = {name: f"run_fakes:{cls}" for name, cls in FAKES.items()} | {"learner": "training_fake:Learner"}
    return {name: EntryPoint(name, target, SEPARATOR_GROUP) for name, target in named.items()}
