"""A method that learns step by step through ``ctx.cache`` and can be kept (``Fitted``); registered as ``learner`` beside the fakes of ``run_fakes``.

It counts what it does in files, for its fits and its workers may be processes of their own: ``LEARNER_PULSE`` names one that gets a letter for
every step (``s``), batch (``b``), load (``l``), begun (``f``) and ended fit (``e``). ``LEARNER_NAP`` is how long a step and a batch take, in seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from run_fakes import info
from safetensors.torch import load_file, save_file

from baselines.training.loop import resume, run
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingRows, TrainingView


def pulse(letter: str) -> None:
    """One letter more in the file that counts."""
    path = os.environ.get("LEARNER_PULSE", "")
    if path:
        with Path(path).open("a", encoding="utf-8") as handle:
            handle.write(letter)


def counted(path: Path, letters: str) -> int:
    """How often any of these letters stands there."""
    return sum(letter in letters for letter in path.read_text(encoding="utf-8")) if path.exists() else 0


def nap() -> None:
    time.sleep(float(os.environ.get("LEARNER_NAP", "0")))


class Mean:
    """Learns the mean signal by gradient steps with momentum, on rows that the step's number chooses."""

    def __init__(self, rows: TrainingRows, steps: int, rate: float, seed: int) -> None:
        self.rows, self.steps, self.rate, self.seed = rows, steps, rate, seed
        self.step, self.seconds = 0, 0.0
        self.mean = torch.zeros_like(rows.load([0])[0])
        self.speed = torch.zeros_like(self.mean)

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    @property
    def fraction(self) -> float:
        return self.step / self.steps

    def advance(self) -> None:
        numbers = torch.randint(len(self.rows), (8,), generator=torch.Generator().manual_seed(1000 * self.seed + self.step))
        self.speed = 0.9 * self.speed + self.rate * (self.rows.load(numbers) - self.mean).mean(0)
        self.mean = self.mean + self.speed
        nap()
        pulse("s")
        self.step += 1

    def row(self) -> dict[str, Any]:
        return {"loss": round(float(self.speed.norm()), 6)}

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "speed": self.speed}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.mean, self.speed = state["mean"], state["speed"]


@dataclass
class Learner:
    """Halves of the mixture plus a little of the learnt mean and of noise.

    Attributes:
        breaks_at: a step at which fits fail for now.
        caches: what ``ctx.cache`` was in every fit.
        table, start: settings of kinds that a key must cope with: names of entries that are no words, a file.
    """

    info: ClassVar[MethodInfo] = info("learner", "prior", max_batch=3, deterministic=False)
    breaks_at: ClassVar[int | None] = None
    caches: ClassVar[list[Path | None]] = []
    steps: int = 5
    rate: float = 0.1
    table: dict[Any, Any] = field(default_factory=dict)
    start: str = ""
    mean: torch.Tensor = field(init=False, repr=False)

    def supports(self, task: TaskSpec) -> Support:
        return Support(True)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        pulse("f")
        self.caches.append(ctx.cache)
        training = Mean(view.rows("clean"), self.steps, self.rate, ctx.seed)
        if ctx.cache is not None:
            resume(training, ctx.cache, ctx.device)
        training.steps = self.steps if self.breaks_at is None else self.breaks_at
        run(training, ctx.cache, checkpoint_seconds=0.0, log_every=1, progress=ctx.progress)
        if self.breaks_at is not None:
            raise ValueError("diverged")
        self.mean = training.mean
        pulse("e")

    def save(self, folder: Path) -> None:
        save_file({"mean": self.mean}, folder / "mean.safetensors")

    def load(self, folder: Path, ctx: RunContext) -> None:
        pulse("l")
        self.mean = load_file(folder / "mean.safetensors", ctx.device)["mean"]

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        nap()
        pulse("b")
        ctx.progress(0.5, "halfway")
        noise = [ctx.noise.normal(mixtures.example_ids, 0, k, ctx.task.source_shape) for k in range(mixtures.n_sources)]
        return mixtures.operator.pseudo_inverse(mixtures.values) + 0.1 * self.mean + 0.05 * torch.stack(noise, 1)
