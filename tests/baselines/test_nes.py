"""Neural Egg Separation: a world with a known answer, the parts of algorithm 1, resuming, diagnostics, the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mask_toys import Stripes, error
from method_toys import Digits, context, mix, rows_of, toy_task
from safetensors.torch import save_file

from baselines import nes
from baselines.nes import PRESETS, EggTraining, NeuralEggSeparation
from baselines.training import loop
from baselines.training.mask import MaskRecipe, mask_layout, new_network
from sepbench.conformance import BATCHES
from sepbench.errors import MethodError, SepbenchError
from sepbench.protocols import Fitted, Separator
from sepbench.settings import describe

SHORT: dict[str, Any] = {"iterations": 2, "epochs": 1}


def fitted(world: Stripes, seed: int = 0, cache: Path | None = None, **settings: Any) -> NeuralEggSeparation:
    method = NeuralEggSeparation(**{"lr": 1e-3, **settings})
    method.fit(world.view("mixtures+one"), context(world.task, seed, cache=cache))
    return method


def separated(method: NeuralEggSeparation, world: Stripes) -> torch.Tensor:
    return method.separate(world.mixtures(), context(world.task))


def training(world: Stripes, **changes: Any) -> EggTraining:
    mixed = world.view("mixtures+one").mixtures()
    given = {"clean": world.clean, "mixed": mixed, "eggs": 0.5 * mixed, "iterations": 2, "epochs": 1, "kept": 4, **changes}
    return EggTraining(new_network(mask_layout("autoencoder", (1, 8, 8)), 0), MaskRecipe(1e-3, precision="float32"), **given)


@pytest.mark.parametrize(
    ("observed", "operator", "network"), [(1, "sum", "autoencoder"), (0, "mean", "autoencoder"), pytest.param(0, "mean", "unet", marks=pytest.mark.slow)]
)
def test_every_outer_iteration_comes_nearer_to_the_hidden_source(observed: int, operator: str, network: str) -> None:
    """The start C y has half of every pixel; the answer is the odd rows. Estimates explain the mixtures exactly."""
    world = Stripes.make(observed, operator)
    rate = {"lr": 3e-3, "decay": 0.4} if network == "unet" else {"lr": 0.01}  # at a constant 0.01 the U-Net falls back on some processors
    method = fitted(world, iterations=5, epochs=6, network=network, **rate)
    other, weight = 1 - observed, 1.0 if operator == "sum" else 0.5
    assert method.eggs is not None
    torch.testing.assert_close(method.eggs[0], 0.5 * world.view("mixtures+one").mixtures()[:64] / weight)
    errors = [error(eggs, world.hidden[:64, other]) for eggs in method.eggs]
    far = [one for one in errors if one > 0.05 * errors[0]]  # nearer than that, errors of the network outweigh an iteration's gain
    assert errors[: len(far)] == far == sorted(far, reverse=True)
    assert errors[1] > 5 * errors[5]  # one iteration is not enough
    assert errors[5] < 0.05 * errors[0]
    estimates = separated(method, world)
    assert error(estimates, world.test) < 0.05 * error(0.5 * world.test.sum(1, keepdim=True), world.test)
    torch.testing.assert_close(world.mixtures().operator.forward(estimates), world.mixtures().values)


def test_the_constant_is_used() -> None:
    world = Stripes.make()
    low, half = fitted(world, **SHORT, constant=0.1), fitted(world, **SHORT)
    mixed = world.view("mixtures+one").mixtures()[:64]
    assert low.eggs is not None
    assert half.eggs is not None
    assert torch.equal(low.eggs[0], 0.1 * mixed)
    assert torch.equal(half.eggs[0], 0.5 * mixed)
    assert not torch.equal(separated(low, world), separated(half, world))


def test_other_starts(tmp_path: Path) -> None:
    world = Stripes.make(operator="mean")
    mixed = world.view("mixtures+one").mixtures()
    shares = (fitted(world, **SHORT, init="random").eggs[0] / (2 * mixed[:64]).clamp(min=1e-6))[mixed[:64] > 0]  # type: ignore[index]
    assert 0.0 <= float(shares.min()) < 0.05 < 0.95 < float(shares.max()) <= 1.0
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.05)
    path = tmp_path / "eggs.safetensors"
    save_file({"x": world.hidden[:, 0].contiguous()}, path)
    from_file = fitted(world, **SHORT, init=str(path))
    assert from_file.eggs is not None
    torch.testing.assert_close(from_file.eggs[0], world.hidden[:64, 0])  # as sources, not as parts


@pytest.mark.parametrize(
    ("content", "told"), [({"y": torch.zeros(2)}, "no tensor x"), ({"x": torch.zeros(2, 1, 8, 8)}, r"\(128, 1, 8, 8\)"), (None, "init must be")]
)
def test_starts_that_cannot_be_used(tmp_path: Path, content: dict[str, torch.Tensor] | None, told: str) -> None:
    path = tmp_path / "eggs.safetensors"
    if content is not None:
        save_file(content, path)
    with pytest.raises(MethodError, match=told):
        fitted(Stripes.make(), **SHORT, init=str(path))


def test_a_file_that_is_no_safetensors_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "eggs").write_text("eggs")
    with pytest.raises(MethodError, match="init must be"):
        fitted(Stripes.make(), **SHORT, init=str(tmp_path / "eggs"))


def test_a_batch_pairs_true_samples_with_eggs_from_independent_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mixture of the world is shown to the network while it learns, only sums of a b and an egg."""
    world = Stripes.make()
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(EggTraining, "update", lambda self, truth, share=1.0: seen.append(truth))
    one = training(world, iterations=1, epochs=2)
    eggs = one.eggs.clone()
    loop.run(one, None)
    assert len(seen) == 2 * 4  # 128 rows in batches of 32
    number_of_b = [int((world.clean == truth[0]).flatten(1).all(1).nonzero()[0]) for truth in torch.cat(seen)]
    number_of_x = [int((eggs == truth[1]).flatten(1).all(1).nonzero()[0]) for truth in torch.cat(seen)]
    # some images of the world are equal, so an epoch is known by its sum
    for numbers, pool in ((number_of_b, world.clean), (number_of_x, eggs)):
        for epoch in (numbers[:128], numbers[128:]):
            torch.testing.assert_close(pool[epoch].sum(0), pool.sum(0))
    assert number_of_b[:128] != number_of_b[128:]
    assert number_of_b[:128] != number_of_x[:128]


def test_the_last_partial_batch_is_dropped_in_training_and_covered_in_re_estimation() -> None:
    world = Stripes.make(count=75)
    one = training(world, iterations=1, epochs=3)
    assert one.steps == 3 * 2 + 3
    loop.run(one, None)
    torch.testing.assert_close(one.eggs, one.estimate(one.mixed)[:, 1])


def test_each_outer_iteration_has_a_fresh_adam_and_the_same_network() -> None:
    world = Stripes.make()
    one = training(world)
    while one.step < one.per_iteration:
        before = {name: value.clone() for name, value in one.network.state_dict().items()}
        one.advance()
    assert one.optimiser.state_dict()["state"] == {}
    assert all(torch.equal(before[name], value) for name, value in one.network.state_dict().items())
    assert all(torch.equal(one.networks[0][name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("decay", "shares"),
    [(0.0, [1.0] * 8), (0.5, [1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]), (1.0, [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])],
)
def test_the_rate_falls_to_zero_at_the_end_of_every_outer_iteration(monkeypatch: pytest.MonkeyPatch, decay: float, shares: list[float]) -> None:
    """Two epochs of four batches make an outer iteration."""
    seen: list[float] = []
    monkeypatch.setattr(EggTraining, "update", lambda self, truth, share=1.0: seen.append(share))
    one = training(Stripes.make(), epochs=2, decay=decay)
    loop.run(one, None)
    assert seen == 2 * shares


def test_a_fit_uses_its_decay() -> None:
    world = Stripes.make()
    assert not torch.equal(separated(fitted(world, **SHORT, decay=1.0), world), separated(fitted(world, **SHORT), world))


def test_a_fit_that_was_interrupted_anywhere_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted while it learns and while it re-estimates; every checkpoint is written."""
    world = Stripes.make()
    whole = fitted(world, **SHORT)
    advance = EggTraining.advance

    class Killed(BaseException):
        pass

    for stop in (2, 6, 9, 13):  # 4 steps of learning and 4 of re-estimation make an iteration

        def until(self: EggTraining, stop: int = stop) -> None:
            if self.step == stop:
                raise Killed
            advance(self)

        with monkeypatch.context() as patched:
            patched.setattr(EggTraining, "advance", until)
            patched.setattr(nes, "run", lambda one, folder, progress: loop.run(one, folder, checkpoint_seconds=0.0, progress=progress))
            with pytest.raises(Killed):
                fitted(world, cache=tmp_path, **SHORT)
        assert torch.load(tmp_path / loop.CHECKPOINT, weights_only=True)["step"] == stop
    steps: list[int] = []
    monkeypatch.setattr(EggTraining, "advance", lambda self: (steps.append(self.step), advance(self))[1])
    resumed = fitted(world, cache=tmp_path, **SHORT)
    assert steps == [13, 14, 15]
    assert torch.equal(separated(resumed, world), separated(whole, world))
    assert torch.equal(separated(resumed.after(1), world), separated(whole.after(1), world))
    assert resumed.eggs is not None
    assert whole.eggs is not None
    assert torch.equal(resumed.eggs, whole.eggs)


def test_the_method_after_each_outer_iteration() -> None:
    world = Stripes.make()
    longer, shorter = fitted(world, iterations=3, epochs=1), fitted(world, **SHORT)
    assert torch.equal(separated(longer.after(2), world), separated(shorter, world))
    assert torch.equal(separated(longer.after(3), world), separated(longer, world))
    assert not torch.equal(separated(longer.after(1), world), separated(longer, world))
    with pytest.raises(ValueError, match="1 to 3"):
        longer.after(4)
    assert longer.eggs is not None
    assert longer.eggs.shape == (4, 64, 1, 8, 8)


@pytest.mark.parametrize("kept", [64, 0])
def test_what_was_learnt_is_read_as_it_was_written(tmp_path: Path, kept: int) -> None:
    world = Stripes.make()
    method, read = fitted(world, **SHORT, kept=kept), NeuralEggSeparation(**SHORT)
    method.save(tmp_path)
    read.load(tmp_path, context(world.task))
    assert torch.equal(separated(read, world), separated(method, world))
    assert torch.equal(separated(read.after(1), world), separated(method.after(1), world))
    assert read.eggs is not None
    assert method.eggs is not None
    assert torch.equal(read.eggs, method.eggs)


def test_a_row_depends_on_its_mixture_alone_by_default_only() -> None:
    world = Stripes.make()
    mixtures = world.mixtures()
    for settings, invariant in (({}, True), ({"test_batch_statistics": True}, False)):
        method = fitted(world, **SHORT, **settings)
        whole = separated(method, world)
        singly = torch.cat([method.separate(rows_of(mixtures, torch.tensor([row])), context(world.task)) for row in range(40)])
        assert torch.allclose(singly, whole, atol=1e-5) is invariant


def test_statistics_of_the_test_batch_are_those_of_the_method_s_own_batches() -> None:
    world = Stripes.make()
    mixtures = world.mixtures()
    method = fitted(world, **{**SHORT, "batch": 8}, test_batch_statistics=True)
    eights = [method.separate(rows_of(mixtures, torch.arange(at, at + 8)), context(world.task)) for at in range(0, 40, 8)]
    assert torch.allclose(separated(method, world), torch.cat(eights), atol=1e-5)


def test_asks_for_mixtures_and_one_source_only_and_quick_cuts_epochs(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    task = toy_task(observed=1)
    steps: list[int] = []
    monkeypatch.setattr(nes, "run", lambda one, folder, progress: (steps.append(one.learning), one.kept_eggs.append(one.eggs[:64]))[1])
    for budget in ("paper", "quick"):
        view = digits.view("mixtures+one", task)
        NeuralEggSeparation(samples=77).fit(view, context(task, budget=budget))
        assert view.asked == [("mixtures", 77), ("observed", 77)]
    assert steps == [25 * 2, 3 * 2]


def test_presets_differ_by_what_they_say() -> None:
    """Flag 37: 0.01 in the paper, 1e-3 in the code; flag 39: batch norm by the batch at hand."""
    defaults = {name: {setting.name: setting.default for setting in describe(cls)} for name, cls in PRESETS.items()}
    paper = defaults["nes"]
    assert (paper["iterations"], paper["epochs"], paper["constant"], paper["lr"], paper["init"]) == (10, 25, 0.5, 0.01, "constant")
    assert not paper["test_batch_statistics"]
    assert defaults["nes-code"] == {**paper, "lr": 1e-3}
    assert defaults["nes-code-test-batch-statistics"] == {**paper, "lr": 1e-3, "test_batch_statistics": True}


def test_too_few_samples_for_a_batch_are_told() -> None:
    with pytest.raises(SepbenchError, match="batch of 32"):
        fitted(Stripes.make(), **SHORT, samples=20)


def test_what_it_takes() -> None:
    method = NeuralEggSeparation()
    assert isinstance(method, Separator)
    assert isinstance(method, Fitted)
    assert method.info.supervision == "mixtures+one"
    assert method.supports(toy_task(observed=0)).ok
    assert method.supports(toy_task(observed=1, operator="mean")).ok
    assert "observed" in method.supports(toy_task()).note
    assert "how loud" in method.supports(toy_task(observed=0, operator="gain")).note
    assert not method.supports(toy_task(classes=("a", "b", "c"), observed=0)).ok
    assert not method.supports(toy_task((1, 99), domain="audio", observed=0)).ok
    with pytest.raises(ValueError, match="fit"):
        method.separate(mix(torch.rand(2, 2, 1, 8, 8)), context(toy_task(observed=0)))


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"epochs": 0}, {"constant": -0.1}, {"lr": 0.0}, {"batch": 1}, {"fit_precision": "float16"}])
def test_bad_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        NeuralEggSeparation(**wrong)


@pytest.mark.parametrize("name", ["nes", "nes-code"])
def test_keeps_the_contract(broken_rules: Callable[..., list[str]], name: str) -> None:
    assert broken_rules(name, "class-split", **SHORT) == []


def test_statistics_of_the_test_batch_break_the_contract_and_validate_says_so(broken_rules: Callable[..., list[str]]) -> None:
    broken = broken_rules("nes-code-test-batch-statistics", "class-split", **SHORT)
    assert any(rule.startswith(BATCHES) for rule in broken)


@pytest.mark.usefixtures("bfloat16")
def test_the_precision_of_the_fit_is_used_and_does_not_move_the_group_of_separation_times() -> None:
    """Tables group times of separation by a setting of the name ``precision``; masks are always computed in float32."""
    world = Stripes.make()
    rounded, exact = fitted(world, **SHORT), fitted(world, **SHORT, fit_precision="float32")
    assert not torch.equal(separated(rounded, world), separated(exact, world))
    assert "precision" not in {setting.name for setting in describe(NeuralEggSeparation)}
