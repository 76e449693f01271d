"""What ``conv-tasnet`` and ``demucs`` have in common: bands come apart in their slots, in any order, under any weights; resuming; tasks they take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from method_toys import context, rows_of, toy_task
from sound_toys import best_sdr, sound_task
from wave_toys import SMALL, Bands, ordered_sdr

from baselines.conv_tasnet import PRESETS as CONV_TASNET
from baselines.demucs import PRESETS as DEMUCS
from baselines.training import loop, waveform_method
from baselines.training.waveform import WaveformTraining
from sepbench.protocols import Fitted, Mixtures, Separator
from sepbench.settings import describe

MADE: Mapping[str, type] = {**CONV_TASNET, **DEMUCS}
NAMES = tuple(SMALL)


def fitted(name: str, world: Bands, seed: int = 0, cache: Path | None = None, budget: str = "paper", **changed: Any) -> Any:
    method = MADE[name](**{**SMALL[name], "steps": 4, "batch": 4, "segment": 1_000, **changed})
    method.fit(world.view, context(world.task, seed, cache=cache, budget=budget))
    return method


def separated(method: Any, world: Bands) -> torch.Tensor:
    return method.separate(world.mixtures(), context(world.task))


@pytest.mark.parametrize("operator", ["mean", "sum", "gain"])
@pytest.mark.parametrize("name", NAMES)
def test_bands_come_apart_in_their_slots(name: str, operator: str) -> None:
    world = Bands.make(operator)
    found = separated(fitted(name, world, steps=120), world)
    average = world.mixtures().operator.pseudo_inverse(world.mixtures().values)
    assert ordered_sdr(found, world.test) > ordered_sdr(average, world.test) + 6.0


@pytest.mark.parametrize("name", NAMES)
def test_bands_of_one_class_come_apart_in_some_order(name: str) -> None:
    world = Bands.make("sum", agnostic=True)
    found = separated(fitted(name, world, steps=150), world)
    assert best_sdr(found, world.test) > best_sdr(world.test.sum(1, keepdim=True).expand_as(world.test) / 2, world.test) + 6.0


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_fit_ends_with_the_same_bits(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = Bands.make()
    whole = separated(fitted(name, world), world)
    advance = WaveformTraining.advance

    class Killed(BaseException):
        pass

    def until(self: WaveformTraining) -> None:
        if self.step == 2:
            raise Killed
        advance(self)

    with monkeypatch.context() as patched:
        patched.setattr(WaveformTraining, "advance", until)
        patched.setattr(waveform_method, "run", lambda one, folder, progress: loop.run(one, folder, checkpoint_seconds=0.0, progress=progress))
        with pytest.raises(Killed):
            fitted(name, world, cache=tmp_path)
    assert torch.equal(separated(fitted(name, world, cache=tmp_path), world), whole)
    assert not torch.equal(separated(fitted(name, world, seed=1), world), whole)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_learnt_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    world = Bands.make()
    method, read = fitted(name, world), MADE[name](**SMALL[name])
    method.save(tmp_path)
    read.load(tmp_path, context(world.task))
    assert torch.equal(separated(read, world), separated(method, world))


@pytest.mark.parametrize("name", NAMES)
def test_a_row_depends_on_its_mixture_alone_bit_for_bit(name: str) -> None:
    world = Bands.make("gain")
    method, mixtures = fitted(name, world), world.mixtures()
    whole, ctx = separated(method, world), context(world.task)
    order = torch.tensor([4, 2, 0, 3, 1])
    assert torch.equal(method.separate(rows_of(mixtures, order), ctx), whole[order])
    singly = torch.cat([method.separate(rows_of(mixtures, torch.tensor([row])), ctx) for row in range(5)])
    assert torch.equal(singly, whole)


@pytest.mark.parametrize("name", NAMES)
def test_silence_nan_and_loudness(name: str) -> None:
    world = Bands.make()
    method, ctx, mixtures = fitted(name, world), context(world.task), world.mixtures()
    values = mixtures.values.clone()
    values[1] = 0.0
    values[2, 0, 77] = torch.nan
    found = method.separate(Mixtures(values, mixtures.example_ids, mixtures.operator), ctx)
    whole = separated(method, world)
    assert torch.equal(found[[0, 3, 4]], whole[[0, 3, 4]])
    assert torch.equal(found[1], torch.zeros_like(found[1]))
    assert bool(found[2].isnan().all())
    soft = method.separate(Mixtures(0.01 * mixtures.values, mixtures.example_ids, mixtures.operator), ctx)
    torch.testing.assert_close(100 * soft, whole, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("length", [1, 40, 333])
@pytest.mark.parametrize("name", NAMES)
def test_signals_of_any_length(name: str, length: int) -> None:
    world = Bands.make(length=length)
    found = separated(fitted(name, world, steps=2), world)
    assert found.shape == world.test.shape
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("name", NAMES)
def test_estimates_that_explain_the_mixture_have_no_more_error(name: str) -> None:
    """They are the nearest point of a plane that the true sources lie on."""
    world = Bands.make()
    free, explaining = (separated(fitted(name, world, consistent=consistent), world) for consistent in (False, True))
    errors = [(found - world.test).square().sum((1, 2, 3)) for found in (free, explaining)]
    assert bool((errors[1] < errors[0]).all())


@pytest.mark.parametrize("name", NAMES)
def test_estimates_mix_to_the_mixture_where_that_is_asked_for(name: str) -> None:
    world = Bands.make("gain")
    mixtures = world.mixtures()
    left = {}
    for consistent in (True, False):
        found = separated(fitted(name, world, consistent=consistent), world)
        left[consistent] = float((mixtures.operator.forward(found) - mixtures.values).abs().max())
    assert left[True] < 1e-5 < 1e-3 < left[False]


@pytest.mark.parametrize("name", NAMES)
def test_quick_makes_a_tenth_of_the_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(waveform_method, "run", lambda one, folder, progress: steps.append(one.recipe.steps))
    for budget in ("paper", "quick"):
        fitted(name, Bands.make(), budget=budget, steps=41)
    assert steps == [41, 5]


@pytest.mark.parametrize("name", sorted(MADE))
def test_what_it_takes(name: str) -> None:
    method = MADE[name]()
    assert isinstance(method, Separator)
    assert isinstance(method, Fitted)
    assert method.info.name == name
    assert method.info.supervision == "sources"
    takes = [sound_task(assignment="ordered"), sound_task(classes=("a", "a")), sound_task(classes=("a", "b", "c"), operator="gain"), sound_task(channels=2)]
    leaves = [sound_task(classes=("a", "a"), assignment="ordered"), sound_task(classes=("a",)), toy_task(), sound_task(classes=("a",) * 6)]
    assert all(method.supports(task).ok for task in takes)
    assert not any(method.supports(task).ok or not method.supports(task).note for task in leaves)
    with pytest.raises(ValueError, match="fit"):
        method.separate(Bands.make().mixtures(), context(sound_task()))


@pytest.mark.parametrize(("name", "millions"), [("conv-tasnet", 0.87), ("conv-tasnet-paper", 4.98), ("demucs", 9.35), ("demucs-paper", 265.6)])
def test_sizes_of_the_registered_networks(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = MADE[name]().network(sound_task())
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)


def test_the_presets_have_the_papers_sizes_and_estimates() -> None:
    defaults = {name: {setting.name: setting.default for setting in describe(cls)} for name, cls in MADE.items()}
    assert (defaults["conv-tasnet-paper"]["filters"], defaults["conv-tasnet-paper"]["repeats"]) == (512, 3)
    assert (defaults["demucs-paper"]["width"], defaults["demucs-paper"]["depth"]) == (64, 6)
    assert [defaults[name]["consistent"] for name in sorted(MADE)] == [True, False, True, False]
