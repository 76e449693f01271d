"""Methods that break the contract of ``sepbench.protocols`` before or while they run, one way each, for the tests of what a user is told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from sepbench import registry
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView

NO_METHOD = 3
"""What an entry point may name by mistake."""

INFO = MethodInfo(name="toy", title="Toy", version="1", domains=frozenset({"image"}), supervision="blind", paper="none", deterministic=True)


def register(monkeypatch: pytest.MonkeyPatch, name: str, what: str) -> None:
    """Register something of this file beside the real methods: as ``name``, for this test."""
    found, point = registry._separators, EntryPoint(name, f"broken_methods:{what}", registry.SEPARATOR_GROUP)
    monkeypatch.setattr(registry, "_separators", lambda: found() | {name: point})


class Toy:
    """Keeps the contract: every source is a K-th of the mixture."""

    info: Any = INFO

    def supports(self, task: TaskSpec) -> Any:
        return Support(True)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        pass

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> Any:
        return mixtures.operator.pseudo_inverse(mixtures.values)


class RaisesWhenMade(Toy):
    def __init__(self) -> None:
        raise RuntimeError("no\nlicence")


class ExitsWhenMade(Toy):
    def __init__(self) -> None:
        raise SystemExit(0)


class RefusesItsSettings(Toy):
    def __init__(self) -> None:
        raise ValueError("gain\n  must be positive")


class InfoIsADict(Toy):
    info: ClassVar[dict[str, str]] = {"name": "toy"}


class InfoIsNone(Toy):
    info = None


class InfoRaises(Toy):
    @property
    def info(self) -> MethodInfo:
        raise RuntimeError("no info today")


class InfoMissesAnAttribute(Toy):
    @property
    def info(self) -> MethodInfo:
        return self.information  # type: ignore[attr-defined,no-any-return]


class InfoComesWithTheInstance(Toy):
    """No fault: ``info`` need not be known to the class."""

    def __init__(self) -> None:
        self.info = INFO


def make_nothing() -> None:
    """A factory that forgets to return."""


class NoFit(Toy):
    fit = None  # type: ignore[assignment]


class NoInfoAndSupports:
    fit, separate = Toy.fit, Toy.separate


class SupportsIsTrue(Toy):
    def supports(self, task: TaskSpec) -> bool:
        return True


class SupportsIsNone(Toy):
    def supports(self, task: TaskSpec) -> None:
        pass


class SupportsRaises(Toy):
    def supports(self, task: TaskSpec) -> Support:
        raise KeyError("operator\nname")


class SupportsExits(Toy):
    def supports(self, task: TaskSpec) -> Support:
        raise SystemExit(0)


class Brackets(Toy):
    """No fault: its words merely look like rich markup."""

    def supports(self, task: TaskSpec) -> Support:
        return Support(True, "levels [0, 1] in [bold] steps [/x] :x:")


class RefusesAll(Toy):
    def supports(self, task: TaskSpec) -> Support:
        return Support(False, "wants [three]\nsources")


@dataclass
class OddKeys(Toy):
    table: dict[Any, Any] = field(default_factory=lambda: {("a", "b"): 1})


class Mute:
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


@dataclass
class MuteSetting(Toy):
    thing: Any = field(default_factory=Mute)


class SettingsAreNoDict(Toy):
    settings = 5


class WeightsRaise(Toy):
    @property
    def weights_sha256(self) -> str:
        raise OSError("no such file")


class NoBatch(Toy):
    info = replace(INFO, max_batch="many")  # type: ignore[arg-type]


class NoSuchLevel(Toy):
    info = replace(INFO, supervision="some")  # type: ignore[arg-type]


class OneDomain(Toy):
    info = replace(INFO, domains="image")  # type: ignore[arg-type]


class Sounds(Toy):
    """No fault: separates sounds, and takes every task that it is asked about."""

    info = replace(INFO, domains=frozenset({"audio"}))


class Vectors(Toy):
    """No fault: separates vectors."""

    info = replace(INFO, domains=frozenset({"vector"}))


class Bright(Toy):
    """No fault, but numbers from 0 to 255."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> Any:
        return 255 * super().separate(mixtures, ctx)


class OtherName(Toy):
    info = replace(INFO, name="toy\nplain")


class ReturnsAnArray(Toy):
    def separate(self, mixtures: Mixtures, ctx: RunContext) -> Any:
        return super().separate(mixtures, ctx).numpy()


class SamplesAnArray(Toy):
    def sample(self, mixtures: Mixtures, n: int, ctx: RunContext) -> Any:
        return torch.stack([self.separate(mixtures, ctx)] * n, 1).numpy()


@dataclass
class WrongAtTwo(Toy):
    frames: int = 1

    def supports(self, task: TaskSpec) -> Support:
        return Support(True, f"frames is {self.frames}")

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> Any:
        estimates = super().separate(mixtures, ctx)
        return estimates.double() if self.frames == 2 else estimates


class Keeps(Toy):
    """No fault: learns a number, and keeps it."""

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        self.shift = 0.25

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> Any:
        return super().separate(mixtures, ctx) + self.shift

    def save(self, folder: Path) -> None:
        assert not list(folder.iterdir())
        (folder / "shift").write_text(str(self.shift))

    def load(self, folder: Path, ctx: RunContext) -> None:
        self.shift = float((folder / "shift").read_text())


class KeepsTooFewDigits(Keeps):
    def save(self, folder: Path) -> None:
        (folder / "shift").write_text(f"{self.shift:.1f}")


class KeepsNothing(Keeps):
    def save(self, folder: Path) -> None:
        pass


class LoadsLater(Keeps):
    def load(self, folder: Path, ctx: RunContext) -> None:
        self.folder = folder

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> Any:
        if not hasattr(self, "shift"):
            super().load(self.folder, ctx)
        return super().separate(mixtures, ctx)


class ExitsInLoad(Keeps):
    def load(self, folder: Path, ctx: RunContext) -> None:
        raise SystemExit(4)


class ExitsInFit(Toy):
    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        raise SystemExit(3)


class ExitsInSeparate(Toy):
    def separate(self, mixtures: Mixtures, ctx: RunContext) -> Any:
        raise SystemExit("[/x] done")
