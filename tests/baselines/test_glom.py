"""GLO masking: a world with a known answer, searches that end, the start that it gives NES, resuming, rows that depend on themselves, the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mask_toys import Stripes, error
from method_toys import Digits, ToyView, context, mix, rows_of, toy_task
from torch import nn

from baselines import glom
from baselines.glom import PRESETS, LatentMasking, found_parts
from baselines.nes import PRESETS as OF_NES
from baselines.training import latent, loop
from baselines.training.latent import Generators, LatentTraining, LearntGenerators
from baselines.training.perceptual import ImageError
from baselines.training.search import CHECK_EVERY
from sepbench.protocols import Fitted, Separator
from sepbench.settings import setting_names

FAST: dict[str, Any] = {"latent": 16, "lr": 3e-3, "code_lr": 3e-2}


def fitted(world: Stripes, seed: int = 0, cache: Path | None = None, name: str = "glom", **settings: Any) -> LatentMasking:
    method = PRESETS[name](**{**FAST, **settings})
    method.fit(world.view("mixtures+one"), context(world.task, seed, cache=cache))
    return method


def separated(method: LatentMasking, world: Stripes) -> torch.Tensor:
    return method.separate(world.mixtures(), context(world.task))


@pytest.mark.parametrize(("name", "observed", "operator"), [("glom", 1, "sum"), pytest.param("glom-joint", 0, "mean", marks=pytest.mark.slow)])
def test_known_sources_come_apart_in_their_slots(name: str, observed: int, operator: str) -> None:
    world = Stripes.make(observed, operator)
    estimates = separated(fitted(world, name=name, epochs=40), world)
    assert error(estimates, world.test) < 0.25 * error(0.5 * world.test.sum(1, keepdim=True), world.test)
    torch.testing.assert_close(world.mixtures().operator.forward(estimates), world.mixtures().values)


@pytest.mark.slow
def test_nes_starts_from_its_estimates() -> None:
    """``nes-glom``: X_0 is the share of G_X in the training mixtures, by the codes that they were learnt with: nearer to the truth than C y."""
    world = Stripes.make()
    method = OF_NES["nes-glom"](iterations=1, epochs=1)
    told: list[tuple[float, str]] = []
    method.fit(world.view("mixtures+one"), context(world.task, progress=lambda done, text: told.append((done, text))))
    assert method.eggs is not None
    hidden, mixed = world.hidden[:64, 0], world.hidden[:64].sum(1)
    assert error(method.eggs[0], hidden) < 0.7 * error(0.5 * mixed, hidden)
    assert bool((method.eggs[0] >= 0).all())
    assert bool((method.eggs[0] <= mixed + 1e-6).all())
    assert told[0][1].startswith("glom")
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stops"), [("glom", (3, 10)), ("glom-joint", (3,))])
def test_an_interrupted_fit_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stops: tuple[int, ...]) -> None:
    """Two epochs of four batches are a stage."""
    world = Stripes.make()
    whole = fitted(world, name=name, epochs=2)
    advance = LatentTraining.advance

    class Killed(BaseException):
        pass

    for stop in stops:

        def until(self: LatentTraining, stop: int = stop) -> None:
            if self.step == stop:
                raise Killed
            advance(self)

        with monkeypatch.context() as patched:
            patched.setattr(LatentTraining, "advance", until)
            patched.setattr(latent, "run", lambda one, folder, progress: loop.run(one, folder, checkpoint_seconds=0.0, progress=progress))
            with pytest.raises(Killed):
                fitted(world, name=name, epochs=2, cache=tmp_path)
    resumed = fitted(world, name=name, epochs=2, cache=tmp_path)
    assert torch.equal(separated(resumed, world), separated(whole, world))
    assert not torch.equal(separated(fitted(world, 1, name=name, epochs=2), world), separated(whole, world))


@pytest.mark.slow
def test_a_row_depends_on_its_mixture_alone() -> None:
    world = Stripes.make()
    method = fitted(world, epochs=5)
    mixtures = world.mixtures()
    singly = torch.cat([method.separate(rows_of(mixtures, torch.tensor([row])), context(world.task)) for row in range(8)])
    torch.testing.assert_close(singly, separated(method, world)[:8], atol=1e-4, rtol=0)


def test_sides_that_are_no_power_of_two() -> None:
    task = toy_task((3, 6, 10), observed=0)
    sources = torch.rand(64, 2, 3, 6, 10, generator=torch.Generator().manual_seed(0))
    view = ToyView(task, "mixtures+one", mixed=mix(sources).values, one=sources[:, 0])
    method = LatentMasking(epochs=1, search_steps=3)
    method.fit(view, context(task))
    assert method.separate(mix(sources[:5]), context(task)).shape == (5, 2, 3, 6, 10)


class Planes(Generators):
    """Generators whose image is the code itself, doubled; G_X makes nothing."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.latent, self.weights = 4, (1.0, 1.0)
        self.calls = 0

    def part(self, which: int, codes: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return (2.0 * codes if which == 0 else 0.0 * codes).reshape(-1, 1, 2, 2)


def test_a_search_finds_the_codes_within_the_ball() -> None:
    """The first mixture is twice a code of length 0.5; the second would need one of length 2."""
    mixtures = torch.tensor([[0.5] * 4, [2.0] * 4]).reshape(2, 1, 2, 2)
    found = found_parts(Planes(), mixtures, torch.zeros(2, 1, 2, 4), 400, 0.01, 0.0, ImageError())
    torch.testing.assert_close(found[:, 0].flatten(1), torch.tensor([[0.5] * 4, [1.0] * 4]), atol=0.03, rtol=0)


class Saturated(Planes):
    """As a sigmoid that learnt empty pixels: nothing comes of codes near the middle of the ball, and no gradient either."""

    def part(self, which: int, codes: torch.Tensor) -> torch.Tensor:
        return super().part(which, codes) * (codes.norm(dim=1) > 0.3).float().reshape(-1, 1, 1, 1)


def test_a_mixture_keeps_the_best_of_its_searches() -> None:
    """From the middle nothing is found; each mixture has one start of three from which it is."""
    mixtures = torch.tensor([[0.5] * 4, [0.6] * 4]).reshape(2, 1, 2, 2)
    starts = torch.zeros(2, 3, 2, 4)
    assert float(found_parts(Saturated(), mixtures, starts, 200, 0.01, 0.0, ImageError()).abs().max()) == 0.0
    starts[0, 1, 0], starts[1, 2, 0] = 0.4, 0.4
    found = found_parts(Saturated(), mixtures, starts, 200, 0.01, 0.0, ImageError())
    torch.testing.assert_close(found[:, 0].flatten(1), mixtures.flatten(1), atol=0.03, rtol=0)


@pytest.mark.parametrize(("tolerance", "looks"), [(0.5, 2), (0.0, 8)])
def test_a_search_ends_when_it_finds_no_more(tolerance: float, looks: int) -> None:
    """With a tolerance of one half the second look sees too little gain; without any, the last of eight is reached while the error still creeps."""
    told: list[float] = []
    planes = Planes()
    mixtures = torch.full((1, 1, 2, 2), 1.9)
    found_parts(planes, mixtures, torch.zeros(1, 1, 2, 4), 8 * CHECK_EVERY, 0.001, tolerance, ImageError(), told.append)
    assert len(told) == looks
    assert planes.calls == 2 * looks * CHECK_EVERY + 4


def test_a_classifier_may_judge_too() -> None:
    """Learnt and searched with ``perceptual`` the estimates are others, and still explain the mixtures."""
    task = toy_task((3, 20, 20), observed=0)
    sources = torch.rand(64, 2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    found = []
    for perceptual in (0.0, 0.5):
        method = LatentMasking(latent=8, epochs=1, search_steps=3, restarts=1, perceptual=perceptual)
        method.fit(ToyView(task, "mixtures+one", mixed=mix(sources).values, one=sources[:, 0]), context(task))
        found.append(method.separate(mix(sources[:2]), context(task)))
        torch.testing.assert_close(found[-1].sum(1), sources[:2].sum(1))
    assert not torch.equal(*found)
    assert "colour" in LatentMasking(perceptual=0.5).supports(toy_task((1, 32, 32), observed=0)).note


def test_quick_cuts_epochs_and_searches(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    searched: list[int] = []
    monkeypatch.setattr(latent, "run", lambda one, folder, progress: steps.append(one.steps))
    monkeypatch.setattr(glom, "found_parts", lambda generators, values, starts, count, *rest: (searched.append(count), torch.ones(len(values), 2, 1, 8, 8))[1])
    task = toy_task(observed=1)
    for budget in ("paper", "quick"):
        view = digits.view("mixtures+one", task)
        method, ctx = LatentMasking(samples=77), context(task, budget=budget)
        method.fit(view, ctx)
        assert sorted(view.asked) == [("mixtures", 77), ("observed", 77)]
        method.separate(mix(digits.pairs[:3]), ctx)
    assert steps == [50 * (2 + 2), 5 * (2 + 2)]
    assert searched == [400, 100]


def test_a_fit_is_shared_by_all_settings_of_the_search() -> None:
    """Another number of restarts must not train for an hour again."""
    scope = LatentMasking.fit_scope
    assert {id(made.fit_scope) for made in PRESETS.values()} == {id(scope)}
    assert scope.code is LearntGenerators
    assert {*setting_names(LatentMasking)} - {*setting_names(LearntGenerators)} == {"search_steps", "restarts", "search_lr", "tolerance"}


def test_what_it_takes() -> None:
    method = LatentMasking()
    assert isinstance(method, Separator)
    assert isinstance(method, Fitted)
    assert method.info.supervision == "mixtures+one"
    assert method.supports(toy_task(observed=0)).ok
    assert "observed" in method.supports(toy_task()).note
    assert not method.supports(toy_task(observed=0, operator="gain")).ok
    assert (PRESETS["glom"]().joint, PRESETS["glom-joint"]().joint) == (False, True)
    with pytest.raises(ValueError, match="fit"):
        method.separate(mix(torch.rand(2, 2, 1, 8, 8)), context(toy_task(observed=0)))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param("glom", {"epochs": 1, "search_steps": 120}, marks=pytest.mark.slow),
        ("glom-joint", {"epochs": 1, "search_steps": 40}),
        pytest.param("nes-glom", {"iterations": 1, "epochs": 1}, marks=pytest.mark.slow),
    ],
)
def test_keeps_the_contract(broken_rules: Callable[..., list[str]], name: str, settings: dict[str, int]) -> None:
    assert broken_rules(name, "class-split", **settings) == []
