"""The generator of clean signals: first weights, batches, the two updates, learning, resuming, and what a kept fit gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from method_toys import Digits, ToyView, context, toy_task
from torch import nn

from baselines.training import generative, loop
from baselines.training.generative import DEVIATION, GANRecipe, GANTraining, LearntGenerator, new_networks
from sepbench.errors import SepbenchError

TASK = toy_task()


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def training(images: torch.Tensor | None = None, **recipe: Any) -> GANTraining:
    data = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) if images is None else images
    settings = GANRecipe(**{"steps": 4, "batch": 8, "precision": "float32", **recipe})
    return GANTraining(*new_networks(6, (1, 8, 8), settings.seed, "cpu"), settings, data)


def fitted(digits: Digits, cache: Path | None = None, seed: int = 0, **settings: Any) -> LearntGenerator:
    method = LearntGenerator(**{"latent": 6, "steps": 9, "batch": 16, **settings})
    method.fit(ToyView(TASK, "prior", pooled=digits.pooled), context(TASK, seed, cache=cache))
    return method


def images(method: LearntGenerator, count: int = 200) -> torch.Tensor:
    return method.fitted()(torch.randn(count, method.latent, generator=torch.Generator().manual_seed(5)))


def test_first_weights_are_uniform_and_follow_from_the_seed() -> None:
    before = torch.get_rng_state()
    networks = new_networks(100, (1, 28, 28), 3, "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    for network in networks:
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                assert float(layer.weight.detach().std()) == pytest.approx(DEVIATION, rel=0.05)
                assert float(layer.weight.detach().abs().max()) <= 3**0.5 * DEVIATION
    for network, same, other in zip(networks, new_networks(100, (1, 28, 28), 3, "cpu"), new_networks(100, (1, 28, 28), 4, "cpu"), strict=True):
        assert all(torch.equal(value, weights(same)[name]) for name, value in weights(network).items())
        assert not torch.equal(next(network.parameters()), next(other.parameters()))


def test_an_epoch_drops_its_partial_batch() -> None:
    """Twenty images fill two batches of eight: sixteen different ones are seen in an epoch, and other ones in the next."""
    seen: list[torch.Tensor] = []

    class Watched(GANTraining):
        def _judge(self, clean: torch.Tensor, images: torch.Tensor) -> None:
            seen.append(clean)
            super()._judge(clean, images)

    numbers = torch.arange(20.0).reshape(20, 1, 1, 1).expand(20, 1, 8, 8) / 20
    loop.run(Watched(*new_networks(6, (1, 8, 8), 0, "cpu"), GANRecipe(4, batch=8, precision="float32"), numbers), None)
    epochs = [{round(20 * float(image[0, 0, 0])) for clean in seen[start : start + 2] for image in clean} for start in (0, 2)]
    assert [len(epoch) for epoch in epochs] == [16, 16]
    assert epochs[0] != epochs[1]


def test_a_step_moves_each_network_by_its_own_loss() -> None:
    one = training()
    critic, made = weights(one.critic), weights(one.made)
    clean, generated = one.images[:8], one.made(torch.randn(8, 6, generator=torch.Generator().manual_seed(1)))
    one._judge(clean, generated.detach())
    assert all(torch.equal(value, made[name]) for name, value in weights(one.made).items() if "running" not in name and "tracked" not in name)
    assert not all(torch.equal(value, critic[name]) for name, value in weights(one.critic).items())
    critic = {name: value.detach().clone() for name, value in one.critic.named_parameters()}
    one._fool(generated)
    assert all(torch.equal(value, critic[name]) for name, value in one.critic.named_parameters())
    assert not all(torch.equal(value, made[name]) for name, value in weights(one.made).items())


def test_the_losses_are_those_of_the_paper() -> None:
    """At first both networks know next to nothing, D = 1/2: the discriminator loses 2 log 2, the generator log 2."""
    one = training()
    one.advance()
    row = one.row()
    assert row["loss"] == pytest.approx(2 * 0.693, abs=0.05)
    assert row["generator"] == pytest.approx(0.693, abs=0.05)
    assert one.row() == {}


@pytest.mark.slow
def test_generated_images_come_to_look_like_the_clean_ones(digits: Digits) -> None:
    """Mean and spread of every pixel; a network with its first weights makes grey images."""
    method = fitted(digits, steps=300, batch=64, lr=1e-3, latent=16, fit_precision="float32")
    errors = []
    for made in (images(method), torch.full_like(digits.pooled, 0.5)):
        mean = (made.mean(0) - digits.pooled.mean(0)).abs().mean()
        spread = (made.std(0) - digits.pooled.std(0)).abs().mean()
        errors.append((float(mean), float(spread)))
    assert errors[0][0] < 0.4 * errors[1][0]
    assert errors[0][1] < 0.5 * errors[1][1]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_interrupted_fit_ends_with_the_same_bits(digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    whole = fitted(digits, fit_precision=precision)
    advance = GANTraining.advance

    class Killed(BaseException):
        pass

    def until(self: GANTraining) -> None:
        if self.step == 5:
            raise Killed
        advance(self)

    with monkeypatch.context() as patched:
        patched.setattr(GANTraining, "advance", until)
        patched.setattr(generative, "run", lambda one, folder, progress: loop.run(one, folder, checkpoint_seconds=0.0, progress=progress))
        with pytest.raises(Killed):
            fitted(digits, tmp_path, fit_precision=precision)
    monkeypatch.setattr(GANTraining, "advance", lambda self: (pytest.fail("began anew") if self.step < 5 else None, advance(self)))
    assert torch.equal(images(fitted(digits, tmp_path, fit_precision=precision)), images(whole))


@pytest.mark.usefixtures("bfloat16")
def test_seed_and_precision_decide_the_fit(digits: Digits) -> None:
    first = images(fitted(digits))
    assert torch.equal(images(fitted(digits)), first)
    assert not torch.equal(images(fitted(digits, seed=1)), first)
    assert not torch.equal(images(fitted(digits, fit_precision="float32")), first)


def test_a_kept_fit_gives_the_same_bits(digits: Digits, tmp_path: Path) -> None:
    method, loaded = fitted(digits), LearntGenerator(latent=6)
    with pytest.raises(ValueError, match="fit"):
        loaded.fitted()
    method.save(tmp_path)
    loaded.load(tmp_path, context(TASK))
    assert torch.equal(images(loaded), images(method))


def test_quick_makes_a_tenth_of_the_steps_on_as_many_images(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(generative, "run", lambda one, folder, progress: seen.append((one.recipe.steps, len(one.images))))
    for budget in ("paper", "quick"):
        view = ToyView(TASK, "prior", pooled=digits.pooled)
        LearntGenerator(samples=300).fit(view, context(TASK, budget=budget))
        assert view.asked == [("clean", 300)]
    assert seen == [(10_001, 300), (1_001, 300)]


def test_too_few_images_are_told_in_one_line(digits: Digits) -> None:
    with pytest.raises(SepbenchError, match="choose a smaller batch"):
        fitted(digits, samples=100, batch=128)


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    one = training(torch.full((20, 1, 8, 8), torch.nan))
    one.advance()
    with pytest.raises(SepbenchError, match="lower lr"):
        one.row()


def test_settings_and_the_run_are_handed_on(digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(generative, "resume", lambda one, folder, device: seen.append((folder, device)))
    monkeypatch.setattr(generative, "run", lambda one, folder, progress: seen.append((one.recipe, folder, progress)))
    method = LearntGenerator(latent=5, steps=7, lr=0.25, batch=3, samples=9, fit_precision="float32")
    told = lambda fraction, text: None  # noqa: E731
    method.fit(ToyView(TASK, "prior", pooled=digits.pooled), context(TASK, 4, cache=tmp_path, progress=told))
    assert seen == [(tmp_path, "cpu"), (GANRecipe(7, 0.25, (0.5, 0.999), 3, "float32", 4), tmp_path, told)]
    made = method.fitted()
    wanted = new_networks(5, (1, 8, 8), 4, "cpu")[0]
    assert all(torch.equal(value, weights(wanted)[name]) for name, value in weights(made).items())
    assert not made.training
    assert not any(p.requires_grad for p in made.parameters())
    method.save(tmp_path)
    loaded = LearntGenerator(latent=5)
    loaded.load(tmp_path, context(TASK))
    assert not loaded.fitted().training
    assert not any(p.requires_grad for p in loaded.fitted().parameters())


def test_rows_tell_both_losses_since_the_last_row() -> None:
    one = training()
    one.advance()
    first = {name: float(losses._sum) for name, losses in one.losses.items()}
    one.advance()
    both = {name: float(losses._sum) for name, losses in one.losses.items()}
    assert one.row() == {name: round(both[name] / 2, 6) for name in ("loss", "generator")}
    assert first["loss"] > first["generator"] > 0
    assert list(one.losses) == ["loss", "generator"]


def test_both_networks_train_in_training_mode_and_stay_trainable() -> None:
    one = training()
    one.made.eval()
    one.critic.eval()
    one.advance()
    assert one.made.training
    assert one.critic.training
    assert all(p.requires_grad for network in (one.made, one.critic) for p in network.parameters())


@pytest.mark.parametrize(("shape", "rounds"), [((1, 64, 8), False), ((1, 33, 5), False), ((1, 8, 64), True), ((1, 28, 28), True), ((1, 8, 8), True)])
@pytest.mark.usefixtures("bfloat16")
def test_tall_images_are_judged_in_float32(shape: tuple[int, int, int], rounds: bool) -> None:
    one = GANTraining(*new_networks(6, shape, 0, "cpu"), GANRecipe(1, batch=2), torch.rand(2, *shape))
    assert one._autocast()._enabled is rounds
