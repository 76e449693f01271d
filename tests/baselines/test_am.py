"""Adversarial masking: a world with a known answer, the start that it gives NES, resuming, the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mask_toys import Stripes, error
from method_toys import Digits, context, mix, rows_of, toy_task

from baselines import am
from baselines.am import AdversarialMasking
from baselines.nes import PRESETS
from baselines.training import loop
from baselines.training.adversarial_mask import AdversarialTraining
from sepbench.protocols import Fitted, Separator


def fitted(world: Stripes, seed: int = 0, cache: Path | None = None, **settings: Any) -> AdversarialMasking:
    method = AdversarialMasking(**settings)
    method.fit(world.view("mixtures+one"), context(world.task, seed, cache=cache))
    return method


def separated(method: AdversarialMasking, world: Stripes) -> torch.Tensor:
    return method.separate(world.mixtures(), context(world.task))


@pytest.mark.parametrize(("observed", "operator"), [(1, "sum"), (0, "mean")])
def test_what_looks_like_the_observed_source_is_found(observed: int, operator: str) -> None:
    world = Stripes.make(observed, operator)
    estimates = separated(fitted(world, epochs=20, lr=1e-3), world)
    assert error(estimates, world.test) < 0.05 * error(0.5 * world.test.sum(1, keepdim=True), world.test)
    torch.testing.assert_close(world.mixtures().operator.forward(estimates), world.mixtures().values)


def test_nes_starts_from_its_estimates(tmp_path: Path) -> None:
    """``nes-am``: X_0 is what ``am`` at its defaults leaves of the training mixtures; a second fit in the same folder repeats no step of it."""
    world = Stripes.make()
    told: list[tuple[float, str]] = []
    view = world.view("mixtures+one")
    ctx = context(world.task, cache=tmp_path, budget="quick", progress=lambda done, text: told.append((done, text)))
    method = PRESETS["nes-am"](iterations=1, epochs=1)
    method.fit(view, ctx)
    plain = AdversarialMasking()
    plain.fit(view, context(world.task, budget="quick"))
    left = plain.separate(mix(world.hidden), context(world.task))[:64, 0]
    assert method.eggs is not None
    torch.testing.assert_close(method.eggs[0], left, atol=1e-5, rtol=0)
    fractions = [done for done, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert told[0][1].startswith("am: ")
    before = torch.load(tmp_path / "am" / loop.CHECKPOINT, weights_only=True)
    again = PRESETS["nes-am"](iterations=1, epochs=1)
    again.fit(view, ctx)
    after = torch.load(tmp_path / "am" / loop.CHECKPOINT, weights_only=True)
    assert after["step"] == before["step"] == 5 * 4
    assert after["seconds"] == before["seconds"]
    assert again.eggs is not None
    assert torch.equal(again.eggs, method.eggs)


def test_an_interrupted_fit_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = Stripes.make()
    whole = fitted(world, epochs=3)
    advance = AdversarialTraining.advance

    class Killed(BaseException):
        pass

    def until(self: AdversarialTraining) -> None:
        if self.step == 7:
            raise Killed
        advance(self)

    with monkeypatch.context() as patched:
        patched.setattr(AdversarialTraining, "advance", until)
        patched.setattr(am, "run", lambda one, folder, progress: loop.run(one, folder, checkpoint_seconds=0.0, progress=progress))
        with pytest.raises(Killed):
            fitted(world, epochs=3, cache=tmp_path)
    resumed = fitted(world, epochs=3, cache=tmp_path)
    assert torch.equal(separated(resumed, world), separated(whole, world))
    assert not torch.equal(separated(fitted(world, 1, epochs=3), world), separated(whole, world))


def test_a_row_depends_on_its_mixture_alone() -> None:
    world = Stripes.make()
    method = fitted(world, epochs=1)
    mixtures = world.mixtures()
    singly = torch.cat([method.separate(rows_of(mixtures, torch.tensor([row])), context(world.task)) for row in range(40)])
    torch.testing.assert_close(singly, separated(method, world), atol=1e-5, rtol=0)


def test_asks_for_mixtures_and_one_source_only_and_quick_cuts_epochs(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    task = toy_task(observed=1)
    steps: list[int] = []
    monkeypatch.setattr(am, "run", lambda one, folder, progress: steps.append(one.steps))
    for budget in ("paper", "quick"):
        view = digits.view("mixtures+one", task)
        AdversarialMasking(samples=77).fit(view, context(task, budget=budget))
        assert sorted(view.asked) == [("mixtures", 77), ("observed", 77)]
    assert steps == [50 * 2, 5 * 2]


def test_what_it_takes() -> None:
    method = AdversarialMasking()
    assert isinstance(method, Separator)
    assert isinstance(method, Fitted)
    assert method.info.supervision == "mixtures+one"
    assert method.supports(toy_task(observed=0)).ok
    assert "observed" in method.supports(toy_task()).note
    assert not method.supports(toy_task(observed=0, operator="gain")).ok
    with pytest.raises(ValueError, match="fit"):
        method.separate(mix(torch.rand(2, 2, 1, 8, 8)), context(toy_task(observed=0)))


@pytest.mark.parametrize(("name", "settings"), [("am", {"epochs": 1}), pytest.param("nes-am", {"iterations": 1, "epochs": 1}, marks=pytest.mark.slow)])
def test_keeps_the_contract(broken_rules: Callable[..., list[str]], name: str, settings: dict[str, int]) -> None:
    assert broken_rules(name, "class-split", **settings) == []
