"""Methods as a user would write them in a notebook: no package, no entry point."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from sepbench.protocols import MethodInfo, Mixtures, RunContext, Supervision, Support, TaskSpec, TrainingView
from sepbench.settings import FitScope


def about(name: str, supervision: Supervision = "blind", **changes: Any) -> MethodInfo:
    facts: dict[str, Any] = {"title": name.title(), "version": "1", "domains": frozenset({"image", "audio"}), "paper": "none", "deterministic": True}
    return MethodInfo(name=name, supervision=supervision, **(facts | changes))


class Takes:
    """Every task, and learns nothing."""

    def supports(self, task: TaskSpec) -> Support:
        return Support(True)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        pass


@dataclass
class Shares(Takes):
    """The first source gets ``share`` of the mixture, the others the rest in equal parts."""

    info: ClassVar[MethodInfo] = about("shares")
    share: float = 0.5

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        first = self.share * mixtures.values
        rest = (mixtures.values - first) / max(1, mixtures.n_sources - 1)
        return torch.stack([first, *[rest] * (mixtures.n_sources - 1)], dim=1)


class Hidden(Takes):
    """Holds what it does where no setting says so, and learns on top of it."""

    info: ClassVar[MethodInfo] = about("hidden", "sources")

    def __init__(self, share: float, layer: torch.nn.Module | None = None) -> None:
        self._share = torch.tensor(share)
        self._layer = layer
        self.fits = 0

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        self.fits += 1
        self._mean = torch.stack([view.sources(slot, 20).mean(0) for slot in range(view.task.n_sources)])

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        halves = torch.stack([self._share * mixtures.values, (1 - self._share) * mixtures.values], dim=1)
        return halves + 0.01 * self._mean


class Keeps(Hidden):
    """What it learns can be kept; ``learnt`` counts fits of all its copies."""

    info: ClassVar[MethodInfo] = about("keeps", "sources")
    learnt: ClassVar[list[str]] = []

    def __init__(self) -> None:
        super().__init__(0.4)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        super().fit(view, ctx)
        self.learnt.append(view.task.name)

    def save(self, folder: Path) -> None:
        torch.save(self._mean, folder / "mean.pt")

    def load(self, folder: Path, ctx: RunContext) -> None:
        self._mean = torch.load(folder / "mean.pt")


class Scoped(Keeps):
    """Says that its fits depend on nothing but the class."""

    info: ClassVar[MethodInfo] = about("scoped", "sources")
    learnt: ClassVar[list[str]] = []
    fit_scope: ClassVar[FitScope]


Scoped.fit_scope = FitScope(frozenset({"name"}), code=Scoped)


class Raises(Takes):
    """Cannot do it."""

    info: ClassVar[MethodInfo] = about("raises")

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        raise RuntimeError("no convergence\nat all")


class Misshapes(Takes):
    """Forgets a source."""

    info: ClassVar[MethodInfo] = about("misshapes")

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        return mixtures.values[:, None]


class NamedAverage(Shares):
    """Takes the name of a registered method."""

    info: ClassVar[MethodInfo] = about("average")
