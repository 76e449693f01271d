"""What a fit hands on: the run's seed, batch and precision to every network that it makes, numbers under the quick budget, and nothing of the fit before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from method_toys import ToyView, context, mix, toy_task
from setting_worlds import World, audio, images

import baselines.am
import baselines.nes
import baselines.nmf
import baselines.nmf_audio
import baselines.nmf_semi
import baselines.nmf_semi_audio
import baselines.nmf_semi_printed
import baselines.supervised
from baselines.nmf_semi import SemiSupervisedNMF
from baselines.nmf_semi_printed import PrintedSemiSupervisedNMF
from sepbench.errors import MethodError
from sepbench.registry import create_separator

Told = dict[str, Any]


class Enough(Exception):
    """Ends a fit where what it hands on is known."""


def recorded(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, told: list[Told], stop: bool = False) -> None:
    """Notes the arguments of every call of a function; positions count from 0."""
    before: Callable[..., Any] = getattr(module, name)

    def record(*given: Any, **named: Any) -> Any:
        told.append({**dict(enumerate(given)), **named})  # type: ignore[dict-item]
        if stop:
            raise Enough
        return before(*given, **named)

    monkeypatch.setattr(module, name, record)


# ---- seeds, batches, precision ---------------------------------------------------------------------------------------------------------

SMALL = {"batch": 9, "samples": 20, "fit_precision": "float32"}
LEARNERS: list[tuple[str, ModuleType, dict[str, Any], str]] = [
    ("am", baselines.am, {}, "MaskRecipe"),
    ("supervised", baselines.supervised, {}, "MaskRecipe"),
    ("nes", baselines.nes, {}, "MaskRecipe"),
    ("nes", baselines.nes, {"init": "glom"}, "LatentRecipe"),
]


@pytest.mark.parametrize(("name", "module", "more", "recipe"), LEARNERS)
def test_recipe_and_first_weights_have_the_seed_of_the_run(
    monkeypatch: pytest.MonkeyPatch, name: str, module: ModuleType, more: dict[str, Any], recipe: str
) -> None:
    recipes: list[Told] = []
    seeds: list[Told] = []
    recorded(monkeypatch, module, recipe, recipes)
    makes = "new_generators" if recipe == "LatentRecipe" else "new_network"
    recorded(monkeypatch, module, makes, seeds)
    monkeypatch.setattr(module, "resume", lambda *given: (_ for _ in ()).throw(Enough))
    world = images()
    method = create_separator(name, {**SMALL, **more})
    with pytest.raises(Enough):
        method.fit(world.view(method.info.supervision), context(world.task, 5))
    assert {(one["seed"], one["batch"], one["precision"]) for one in recipes} == {(5, 9, "float32")}
    assert {one[3 if makes == "new_generators" else 1] for one in seeds} == {5}  # type: ignore[index]


def test_masks_of_am_that_nes_starts_from_have_the_seed_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe of ``nes`` is made first, that of its start after it; both networks begin with the run's seed."""
    recipes: list[Told] = []
    seeds: list[Told] = []
    recorded(monkeypatch, baselines.nes, "MaskRecipe", recipes)
    recorded(monkeypatch, baselines.nes, "new_network", seeds)
    monkeypatch.setattr(baselines.nes, "resume", lambda *given: (_ for _ in ()).throw(Enough))
    world = images()
    with pytest.raises(Enough):
        create_separator("nes", {**SMALL, "init": "am"}).fit(world.view("mixtures+one"), context(world.task, 5))
    assert [(one[0], one["seed"], one["batch"], one["precision"]) for one in recipes] == [  # type: ignore[index]
        (0.01, 5, 9, "float32"),
        (2e-4, 5, 9, "float32"),
    ]
    assert [one[1] for one in seeds] == [5, 5]  # type: ignore[index]


def test_random_eggs_have_the_seed_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Told] = []
    recorded(monkeypatch, baselines.nes, "generator", told, stop=True)
    world = images()
    with pytest.raises(Enough):
        create_separator("nes", {**SMALL, "init": "random"}).fit(world.view("mixtures+one"), context(world.task, 5))
    assert told == [{0: 5, 1: "eggs"}]


# ---- the quick budget ------------------------------------------------------------------------------------------------------------------


def asked_of(method: Any, world: World, level: Any, budget: str) -> list[int | None]:
    view = world.view(level)
    method.fit(view, context(world.task, budget=budget))
    return [limit for _, limit in view.asked]


FLOORS: list[tuple[str, str, ModuleType, str, int]] = [
    ("nmf", "image", baselines.nmf, "factorise", 2),
    ("nmf", "audio", baselines.nmf_audio, "learn_atoms", 2),
    ("nmf-semi", "image", baselines.nmf_semi, "learn_observed_and_other", 3),
    ("nmf-semi", "audio", baselines.nmf_semi_audio, "learn_observed_and_other", 3),
    ("nmf-semi-printed", "image", baselines.nmf_semi_printed, "alternate", 3),
]


@pytest.mark.parametrize(("given", "paper", "quick"), [(3, 3, 1), (4, 4, 1), (7, 7, 1), (8, 8, 2)])
@pytest.mark.parametrize(("name", "domain", "module", "learns", "place"), FLOORS)
def test_a_quarter_of_samples_and_iterations_and_one_at_least(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    domain: Any,
    module: ModuleType,
    learns: str,
    place: int,
    given: int,
    paper: int,
    quick: int,
) -> None:
    told: list[Told] = []
    recorded(monkeypatch, module, learns, told)
    world = images() if domain == "image" else audio(observed=1)
    level = "sources" if name == "nmf" else "mixtures+one"
    for budget, wanted in (("paper", paper), ("quick", quick)):
        told.clear()
        assert asked_of(create_separator(name, {"samples": given, "iterations": given}, domain), world, level, budget) == [wanted, wanted]
        assert {one[place] for one in told} == {wanted}  # type: ignore[index]


@pytest.mark.parametrize(("given", "paper", "quick"), [(3, 3, 1), (9, 9, 2)])
@pytest.mark.parametrize(("name", "module"), [("nmf", baselines.nmf_audio), ("nmf-semi", baselines.nmf_semi_audio)])
def test_a_quarter_of_the_frames_and_one_at_least(monkeypatch: pytest.MonkeyPatch, name: str, module: ModuleType, given: int, paper: int, quick: int) -> None:
    told: list[tuple[int, int]] = []

    def frames(signals: torch.Tensor, sample_rate: int, limit: int, device: str) -> torch.Tensor:
        told.append((sample_rate, limit))
        return torch.ones(2, 129)

    monkeypatch.setattr(module, "training_frames", frames)
    world, level = audio(observed=1), "sources" if name == "nmf" else "mixtures+one"
    for budget, wanted in (("paper", paper), ("quick", quick)):
        told.clear()
        create_separator(name, {"frames": given, "iterations": 4}, "audio").fit(world.view(level), context(world.task, budget=budget))  # type: ignore[arg-type]
        assert told == [(8_000, wanted)] * 2


# ---- fitted twice ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", ["image", "audio"])
def test_a_second_fit_knows_nothing_of_the_first(domain: Any) -> None:
    """One dictionary for all, and then one per class, by the same object."""
    pooled = images(agnostic=True) if domain == "image" else audio(1_000, ("any", "any"))
    split = images() if domain == "image" else audio(1_000)
    small = {"atoms": 3, "shared_atoms": 4, "iterations": 4, "coding_iterations": 3}

    def made(*worlds: tuple[World, Any]) -> torch.Tensor:
        method = create_separator("nmf", small, domain)
        for world, level in worlds:
            method.fit(world.view(level), world.context())
        return method.separate(split.mixtures(), split.context())

    assert torch.equal(made((pooled, "prior"), (split, "sources")), made((split, "sources")))


# ---- negative and damaged training data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [SemiSupervisedNMF, PrintedSemiSupervisedNMF])
@pytest.mark.parametrize("which", ["clean", "mixed"])
def test_one_negative_value_of_either_kind_is_refused(method: Any, which: str) -> None:
    task, values = toy_task(observed=0), {"clean": torch.rand(4, 1, 8, 8), "mixed": torch.rand(4, 1, 8, 8)}
    values[which][3, 0, 7, 7] = -1e-3
    with pytest.raises(MethodError, match=r"^NMF needs training data without negative values$"):
        method(samples=8).fit(ToyView(task, "mixtures+one", mixed=values["mixed"], one=values["clean"]), context(task))


@pytest.mark.parametrize("slot", [0, 1])
def test_one_negative_value_of_any_class_is_refused(slot: int) -> None:
    values = [torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8)]
    values[slot][3, 0, 7, 7] = -1e-3
    with pytest.raises(MethodError, match=r"^NMF needs training samples without negative values$"):
        create_separator("nmf", {"iterations": 1}).fit(ToyView(toy_task(), "sources", tuple(values)), context(toy_task()))


# ---- before the fit --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "domain", "line"),
    [
        *((name, "image", "separate() before fit()") for name in ("nmf", "nmf-semi", "nmf-semi-printed")),
        *((name, "audio", "separate() before fit()") for name in ("nmf", "nmf-semi")),
        *((name, "image", "fit() or load() first") for name in ("am", "nes", "supervised")),
        ("exact-posterior", "vector", "exact-posterior: asked to separate before fit()"),
        ("projected", "vector", "projected: separate() was called before fit()"),
    ],
)
def test_a_method_that_was_not_fitted_says_so(name: str, domain: Any, line: str) -> None:
    shape = {"image": (1, 8, 8), "audio": (1, 1_000), "vector": (3,)}[domain]
    task = replace(toy_task(shape, domain=domain, observed=0), sample_rate=8_000)
    with pytest.raises((ValueError, MethodError)) as told:
        create_separator(name, {}, domain).separate(mix(torch.rand(2, 2, *shape)), context(task))
    assert str(told.value) == line


def test_original_hands_out_the_references_as_the_mixtures_are() -> None:
    sources = torch.rand(2, 2, 1, 4, 4, dtype=torch.float64)
    task = toy_task((1, 4, 4))
    mixtures = mix(sources.float())
    found = create_separator("original", {}).separate(mixtures, context(task, references=lambda ids: sources[ids]))
    assert found.dtype == torch.float32
    assert torch.equal(found, sources.float())
