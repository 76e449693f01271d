"""A stranger's package for workers that are processes of their own: methods that end their process, nap, or cannot be read back, and data that fade.

They listen to variables of the environment, which every worker of this machine inherits, and not to settings, which are part of what a run is.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from sepbench.data.datasets import open_dataset
from sepbench.data.signals import ArraySignals
from sepbench.errors import DataError
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView

FADES_AT = 37
"""The example, or the row of the data, at which things happen."""


def _facts(name: str, **changes: Any) -> MethodInfo:
    facts: dict[str, Any] = {"title": name.title(), "version": "1", "supervision": "blind", "paper": "none", "deterministic": True, "max_batch": 5}
    return MethodInfo(name=name, domains=frozenset({"image"}), **(facts | changes))


def _first_time(variable: str) -> bool:
    """Whether nobody has asked before: the variable names a file that is made now. False if it is not set."""
    if variable not in os.environ:
        return False
    try:
        os.close(os.open(os.environ[variable], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class Plain:
    """Halves of the mixture, and noise, so that an example done twice or by another number would show."""

    info: ClassVar[MethodInfo] = _facts("plain")

    def supports(self, task: TaskSpec) -> Support:
        return Support(True)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        pass

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        noise = [ctx.noise.normal(mixtures.example_ids, 0, k, ctx.task.source_shape) for k in range(mixtures.n_sources)]
        return mixtures.operator.pseudo_inverse(mixtures.values) + 0.05 * torch.stack(noise, 1)


class Mortal(Plain):
    """Kills its process once, half-way through a batch."""

    info: ClassVar[MethodInfo] = _facts("mortal")

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        if FADES_AT in mixtures.example_ids.tolist() and _first_time("DEADLY_MARKER"):
            ctx.progress(0.5, "half-way")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().separate(mixtures, ctx)


class Lethal(Plain):
    """Kills every process that separates with it."""

    info: ClassVar[MethodInfo] = _facts("lethal")

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("dead")


class Sleepy(Plain):
    """Naps for ``DEADLY_NAP`` seconds a batch, and leaves its process id in the folder ``DEADLY_PIDS``."""

    info: ClassVar[MethodInfo] = _facts("sleepy")

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        (Path(os.environ["DEADLY_PIDS"]) / str(os.getpid())).touch()
        time.sleep(float(os.environ["DEADLY_NAP"]))
        return super().separate(mixtures, ctx)


class Forgetful(Plain):
    """Can be kept, and cannot be read back."""

    info: ClassVar[MethodInfo] = _facts("forgetful")

    def save(self, folder: Path) -> None:
        (folder / "nothing").touch()

    def load(self, folder: Path, ctx: RunContext) -> None:
        raise ValueError("forgotten")


class Changeling(Plain):
    """Learns whatever weights ``DEADLY_WEIGHTS`` names."""

    info: ClassVar[MethodInfo] = _facts("changeling")

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        self.weights_sha256 = os.environ["DEADLY_WEIGHTS"]


class _Fading(ArraySignals):
    def load(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        if "DEADLY_FADE" in os.environ:
            raise DataError("the disk is gone; put it back")
        return super().load(indices)


class FadingDigits:
    """The digits of scikit-learn, which cannot be read while ``DEADLY_FADE`` is set."""

    manifest = ""
    splits = ("train", "test")

    def open(self, name: str, split: str, found: object) -> _Fading:
        digits = open_dataset("digits", split)
        return _Fading(name, split, "image", digits.load(range(len(digits))), digits.labels)


DATA = FadingDigits()
METHODS = {"plain": "Plain", "mortal": "Mortal", "lethal": "Lethal", "sleepy": "Sleepy", "forgetful": "Forgetful", "changeling": "Changeling"}
