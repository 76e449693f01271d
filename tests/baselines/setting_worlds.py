"""Small worlds in which every setting of every registered method can be changed and its estimates looked at, in milliseconds where nothing is learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from frozen_outcomes import hold_against_frozen, name_of
from method_toys import Digits, ToyView, context, mix, toy_task
from sound_toys import sound_task, sounds
from wave_toys import LoadedRows

from baselines.networks.unet import ScoreUNet, UNetConfig
from baselines.priors.edm import EDMDenoiser
from baselines.priors.score_prior import EDMPrior
from baselines.priors.weights_io import save_prior
from sepbench.gmm import GaussianMixture
from sepbench.noise import NoiseSource
from sepbench.protocols import CountsEvaluations, Mixtures, RunContext, Supervision, TaskSpec
from sepbench.registry import create_separator

Settings = Mapping[str, Any]
DIMENSION = 3


class WorldView(ToyView):
    """Sources come by index too, and vectors have true priors."""

    def rows(self, what: Literal["mixtures", "observed", "clean", "sources"], slot: int = 0) -> LoadedRows:
        return LoadedRows({"sources": lambda: self.sources(slot), "clean": self.clean, "mixtures": self.mixtures, "observed": self.observed}[what]())

    def prior(self, slot: int) -> GaussianMixture:
        return mixture_priors()[slot]


@dataclass(frozen=True)
class World:
    """A task, what there is to learn from, and mixtures to separate.

    Attributes:
        references: whether the method is a bound and is shown the sources.
    """

    task: TaskSpec
    view: Callable[[Supervision], WorldView]
    sources: torch.Tensor
    references: bool = False

    def mixtures(self) -> Mixtures:
        return mix(self.sources, self.task.operator)

    def context(self, budget: str = "paper") -> RunContext:
        more: dict[str, Any] = {"references": lambda ids: self.sources[ids]} if self.references else {}
        return context(self.task, budget=budget, **more)


@cache
def mixture_priors() -> list[GaussianMixture]:
    """Two components per source, so that draws of one mixture end in other places."""
    found = []
    for seed in (1, 2):
        g = torch.Generator().manual_seed(seed)
        root = 0.15 * torch.randn(2, DIMENSION, DIMENSION, generator=g, dtype=torch.float64)
        eye = 0.004 * torch.eye(DIMENSION, dtype=torch.float64)
        found.append(GaussianMixture(torch.tensor([0.6, 0.4]).double(), torch.rand(2, DIMENSION, generator=g).double() * 1.4 - 0.2, root @ root.mT + eye))
    return found


@cache
def vectors() -> World:
    """Sources whose true priors are known."""
    task = replace(toy_task((DIMENSION,), domain="vector"), analytic_prior=True)
    sources = torch.stack([prior.sample(NoiseSource(3), torch.arange(12), 0, k) for k, prior in enumerate(mixture_priors())], 1).float()
    return World(task, lambda level: WorldView(task, level), sources)


@cache
def images(shape: tuple[int, ...] = (1, 8, 8), *, agnostic: bool = False, operator: str = "sum", references: bool = False, count: int = 40) -> World:
    """Digits of two kinds."""
    digits = Digits.read()
    kinds = ("any", "any") if agnostic else ("a", "b")
    task = toy_task(shape, kinds, operator, observed=None if agnostic else 1)
    mixed = mix(torch.stack([digits.low[:count], digits.high[:count]], 1), operator).values

    def view(level: Supervision) -> WorldView:
        pool = digits.pooled[:count]
        slots = (pool, pool.flip(0)) if agnostic else (digits.low[:count], digits.high[:count])
        return WorldView(task, level, slots, pool, mixed, digits.high[count : 2 * count])

    return World(task, view, digits.pairs[:4], references)


@cache
def audio(length: int = 2_400, classes: tuple[str, ...] = ("a", "b"), observed: int | None = None, *, references: bool = False) -> World:
    """A voice and a chord at 8 kHz."""
    task, train = sound_task(length, classes, observed=observed), sounds(6, length, seed=100)

    def view(level: Supervision) -> WorldView:
        return WorldView(task, level, (train[:, 0], train[:, 1]), train.flatten(0, 1), mix(train, "mean").values, train[:, 1].flip(0))

    return World(task, view, sounds(2, length, seed=1), references)


def under(world: World, operator: str, classes: tuple[str, ...] = ()) -> World:
    """The same sources mixed by another operator, or in slots of other classes."""
    task = replace(world.task, operator=operator, source_classes=classes or world.task.source_classes)
    return replace(world, task=task, view=lambda level: replace(world.view(level), task=task))


def tiny_prior(folder: Path, seed: int) -> str:
    """A file of a score network for 8x8 images that nobody has trained."""
    path = folder / f"tiny-{seed}.safetensors"
    if not path.exists():
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = ScoreUNet(UNetConfig(1, (8, 8, 8), (1, 1, 1), 1, 8))
            for weight in network.parameters():
                torch.nn.init.normal_(weight, std=0.2)
        save_prior(path, EDMPrior(EDMDenoiser(network.eval(), 0.35, 0.3), (1, 8, 8), (0.005, 2.0)))
    return str(path)


@dataclass(frozen=True)
class Case:
    """A method in a world.

    Attributes:
        world: where.
        small: settings that make it fast, and under which every other setting matters.
        among: setting -> others that it needs to matter.
        to: setting -> what it is changed to, where the next value will not do.
        quiet: setting, or ``budget`` -> why it may change nothing.
        within: setting -> another world, the only one where it matters.
        learnt: settings that need not move an estimate of so few mixtures, but what was learnt.
    """

    world: Callable[[], World]
    small: Settings = field(default_factory=dict)
    among: Mapping[str, Settings] = field(default_factory=dict)
    to: Settings = field(default_factory=dict)
    quiet: Mapping[str, str] = field(default_factory=dict)
    within: Mapping[str, Callable[[], World]] = field(default_factory=dict)
    learnt: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """What a method made of a world: estimates, and the digest of what it learnt where it tells one."""

    estimates: torch.Tensor
    learnt: str


def outcome(method: str, world: World, settings: Settings, budget: str = "paper") -> Outcome:
    """What a fresh method makes of the world's mixtures, which must be what is frozen for its version. ``sepbench`` runs methods in this way."""
    separator = create_separator(method, settings, world.task.domain)
    supervision: Supervision = "prior" if separator.info.supervision == "sources" and world.task.class_agnostic else separator.info.supervision
    support = separator.supports(world.task)
    assert support.ok, support.note
    told: list[float] = []
    ctx = replace(world.context(budget), progress=lambda fraction, text: told.append(fraction))
    separator.fit(world.view(supervision), ctx)
    of_fit = tuple(told)
    told.clear()
    estimates = separator.separate(world.mixtures(), ctx)
    assert sum(fraction == 1.0 for fraction in of_fit) <= 1, f"{method} tells several times that its fit is done: {of_fit}"
    for fractions in (of_fit, told):
        assert all(0.0 <= before <= after <= 1.0 for before, after in pairwise([0.0, *fractions])), f"{method} tells its progress as {fractions}"
    evaluations = separator.network_evaluations() if isinstance(separator, CountsEvaluations) else None
    more = [max(of_fit, default=0.0), max(told, default=0.0), *([] if evaluations is None else evaluations.tolist())]
    hold_against_frozen(name_of(method, separator.info.version, world.task, settings, budget), estimates, more)
    return Outcome(estimates, getattr(separator, "weights_sha256", ""))
