"""Supervised masks: true sources are found, targets, the falling rate, resuming, the contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mask_toys import Stripes, error
from method_toys import Digits, ToyView, context, mean_psnr, mix, rows_of, toy_task

from baselines import supervised
from baselines.supervised import PRESETS, SupervisedMask, SupervisedTraining
from baselines.training import loop
from baselines.training.mask import MaskRecipe, mask_layout, new_network, observed_error
from sepbench.protocols import Fitted, Separator, TaskSpec
from sepbench.settings import describe


def fitted(view: ToyView, seed: int = 0, cache: Path | None = None, name: str = "supervised", **settings: Any) -> SupervisedMask:
    method = PRESETS[name](**settings)
    method.fit(view, context(view.task, seed, cache=cache))
    return method


def separated(method: SupervisedMask, world: Stripes) -> torch.Tensor:
    return method.separate(world.mixtures(), context(world.task))


@pytest.mark.parametrize("name", ["supervised", "supervised-sources", pytest.param("supervised-unet", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("observed", "operator"), [(1, "sum"), (0, "mean")])
def test_known_sources_come_apart_in_their_slots(name: str, observed: int, operator: str) -> None:
    world = Stripes.make(observed, operator)
    estimates = separated(fitted(world.view("sources"), name=name, epochs=12, lr=0.01, power=1), world)
    assert error(estimates, world.test) < 0.02 * error(0.5 * world.test.sum(1, keepdim=True), world.test)
    torch.testing.assert_close(world.mixtures().operator.forward(estimates), world.mixtures().values)


def test_sources_of_one_class_come_apart_in_some_order() -> None:
    """Each pool holds both kinds of stripes, so that the loss sees sources in either order; half of its mixtures are of one kind and cannot be told apart."""
    world = Stripes.make(agnostic=True)
    pool = world.hidden.flatten(0, 1)
    view = ToyView(world.task, "sources", (pool, pool))
    estimates = separated(fitted(view, name="supervised-pit", epochs=12, lr=0.01), world)
    straight, average = mean_psnr(estimates, world.test), mean_psnr(0.5 * world.mixtures().values.unsqueeze(1).expand(-1, 2, -1, -1, -1), world.test)
    assert straight > average + 3.0
    torch.testing.assert_close(estimates.sum(1), world.mixtures().values)


def test_three_classes() -> None:
    task = toy_task((1, 4, 8), classes=("a", "b", "c"))
    g = torch.Generator().manual_seed(0)
    pools = [torch.zeros(64, 1, 4, 8) for _ in range(3)]
    for number, pool in enumerate(pools):
        pool[:, :, number] = torch.rand(64, 1, 8, generator=g)
    method = fitted(ToyView(task, "sources", tuple(pools)), name="supervised-sources", epochs=20, lr=0.01)
    sources = torch.stack([pool.flip(0) for pool in pools], 1)
    estimates = method.separate(mix(sources), context(task))
    assert error(estimates, sources) < 0.1 * error(sources.sum(1, keepdim=True) / 3, sources)


@pytest.mark.parametrize(("observed", "first"), [(0, 0), (1, 1), (None, 1)])
def test_the_one_mask_is_of_the_observed_source_or_the_last(observed: int | None, first: int, digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(supervised, "run", lambda one, folder, progress: seen.extend(one.parts))
    task = toy_task(observed=observed)
    view = ToyView(task, "sources", (digits.low, digits.high))
    fitted(view, samples=77)
    assert view.asked == [("sources", 77)] * 2
    assert torch.equal(seen[0], (digits.low, digits.high)[first][:77])
    assert torch.equal(seen[1], (digits.low, digits.high)[1 - first][:77])


def test_the_rate_falls_to_zero_at_the_end_and_pairs_change(monkeypatch: pytest.MonkeyPatch) -> None:
    world = Stripes.make()
    shares: list[float] = []
    batches: list[torch.Tensor] = []
    monkeypatch.setattr(SupervisedTraining, "update", lambda self, truth, share: (shares.append(share), batches.append(truth)))
    parts = [world.clean, world.hidden[:100, 0]]
    one = SupervisedTraining(new_network(mask_layout("autoencoder", (1, 8, 8)), 0), MaskRecipe(1e-3), observed_error, parts, epochs=5, decay=0.4)
    loop.run(one, None)
    assert len(shares) == 5 * 3  # the smaller class fills three batches of 32
    assert shares[:10] == [1.0] * 10
    assert shares[9:] == pytest.approx([1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert not torch.equal(torch.cat(batches[:3]), torch.cat(batches[3:6]))


def test_an_interrupted_fit_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = Stripes.make()
    whole = fitted(world.view("sources"), epochs=4)
    advance = SupervisedTraining.advance

    class Killed(BaseException):
        pass

    def until(self: SupervisedTraining) -> None:
        if self.step == 6:
            raise Killed
        advance(self)

    with monkeypatch.context() as patched:
        patched.setattr(SupervisedTraining, "advance", until)
        patched.setattr(supervised, "run", lambda one, folder, progress: loop.run(one, folder, checkpoint_seconds=0.0, progress=progress))
        with pytest.raises(Killed):
            fitted(world.view("sources"), epochs=4, cache=tmp_path)
    resumed = fitted(world.view("sources"), epochs=4, cache=tmp_path)
    assert torch.equal(separated(resumed, world), separated(whole, world))
    assert not torch.equal(separated(fitted(world.view("sources"), 1, epochs=4), world), separated(whole, world))


@pytest.mark.parametrize("name", ["supervised", "supervised-sources"])
def test_what_was_learnt_is_read_as_it_was_written(tmp_path: Path, name: str) -> None:
    world = Stripes.make()
    method, read = fitted(world.view("sources"), name=name, epochs=1), PRESETS[name]()
    method.save(tmp_path)
    read.load(tmp_path, context(world.task))
    assert torch.equal(separated(read, world), separated(method, world))


def test_a_row_depends_on_its_mixture_alone() -> None:
    world = Stripes.make()
    method = fitted(world.view("sources"), epochs=1)
    mixtures = world.mixtures()
    singly = torch.cat([method.separate(rows_of(mixtures, torch.tensor([row])), context(world.task)) for row in range(40)])
    torch.testing.assert_close(singly, separated(method, world), atol=1e-5, rtol=0)


def test_quick_makes_a_tenth_of_the_epochs(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(supervised, "run", lambda one, folder, progress: steps.append(one.steps))
    task = toy_task()
    for budget in ("paper", "quick"):
        SupervisedMask(samples=64).fit(ToyView(task, "sources", (digits.low, digits.high)), context(task, budget=budget))
    assert steps == [50 * 2, 5 * 2]


def test_presets_differ_by_what_they_say() -> None:
    defaults = {name: {setting.name: setting.default for setting in describe(cls)} for name, cls in PRESETS.items()}
    assert defaults["supervised-sources"] == {**defaults["supervised"], "targets": "classes", "samples": None}
    assert defaults["supervised-pit"] == {**defaults["supervised"], "targets": "permutations", "samples": None}
    assert defaults["supervised-long"] == {**defaults["supervised"], "epochs": 3 * defaults["supervised"]["epochs"]}
    assert (defaults["supervised"]["targets"], defaults["supervised"]["samples"]) == ("observed", 12_000)


ONE_CLASS, TWO, THREE = toy_task(classes=("a", "a")), toy_task(observed=1), toy_task(classes=("a", "b", "c"))
SOUND, UNKNOWN_WEIGHTS, SOME_ALIKE = toy_task((1, 99), domain="audio"), toy_task(operator="gain"), toy_task(classes=("a", "b", "a"))


@pytest.mark.parametrize(
    ("name", "takes", "leaves"),
    [
        ("supervised", [TWO, toy_task(operator="mean")], [ONE_CLASS, THREE, SOUND, UNKNOWN_WEIGHTS, SOME_ALIKE]),
        ("supervised-sources", [TWO, THREE], [ONE_CLASS, SOUND, UNKNOWN_WEIGHTS, SOME_ALIKE]),
        ("supervised-pit", [ONE_CLASS, toy_task(classes=("a",) * 4)], [TWO, THREE, SOUND, toy_task(classes=("a",) * 6)]),
    ],
)
def test_what_it_takes(name: str, takes: list[TaskSpec], leaves: list[TaskSpec]) -> None:
    method = PRESETS[name]()
    assert isinstance(method, Separator)
    assert isinstance(method, Fitted)
    assert method.info.supervision == "sources"
    assert all(method.supports(task).ok for task in takes)
    assert not any(method.supports(task).ok or not method.supports(task).note for task in leaves)
    with pytest.raises(ValueError, match="fit"):
        method.separate(mix(torch.rand(2, 2, 1, 8, 8)), context(TWO))


@pytest.mark.parametrize(("name", "task"), [("supervised", "class-split"), ("supervised-sources", "class-split"), ("supervised-pit", "class-agnostic")])
def test_keeps_the_contract(broken_rules: Callable[..., list[str]], name: str, task: str) -> None:
    assert broken_rules(name, task, epochs=2) == []


def test_what_the_unet_and_ordered_tasks_are_refused() -> None:
    ordered = replace(toy_task(classes=("a", "a")), assignment="ordered")
    assert PRESETS["supervised-pit"]().supports(toy_task(classes=("a", "a"))).ok
    assert "best assignment" in PRESETS["supervised-pit"]().supports(ordered).note
    sounds = replace(toy_task((1, 4_000), domain="audio"), sample_rate=8_000)
    assert SupervisedMask().supports(sounds).ok
    assert not PRESETS["supervised-unet"]().supports(sounds).ok
