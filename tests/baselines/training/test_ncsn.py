"""Training of the published network: the loss of the paper, a run that resumes to the same bits, weights that BASIS takes, refusals in one line."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from train_until_done import tiny_images

from baselines.basis import Basis
from baselines.networks.ncsn_refinenet import CondRefineNetDilated, ncsn_sigmas
from baselines.priors.score_prior import NCSNPrior
from baselines.priors.weights_io import images_sha256, load_prior, read_card
from baselines.training import loop, ncsn, score
from baselines.training.config import batch_indices, generator
from baselines.training.edm_loss import as_float, fixed_noise
from baselines.training.loop import CHECKPOINT
from baselines.training.ncsn import NCSNConfig, NCSNTraining, export, ncsn_losses
from sepbench.data.datasets import open_dataset
from sepbench.data.signals import ArraySignals
from sepbench.errors import SepbenchError
from sepbench.suites.loader import load_suite

SMALL = NCSNConfig(steps=6, batch=8, features=4)


def training(folder: Path, config: NCSNConfig = SMALL, **options: object) -> NCSNTraining:
    images = tiny_images()
    return NCSNTraining(images[:50], images[50:], config, folder, **options)  # type: ignore[arg-type]


def finished(folder: Path, config: NCSNConfig = SMALL, **options: object) -> NCSNTraining:
    run = training(folder, config, **options)
    loop.run(run, folder)
    return run


def same(one: NCSNTraining, other: NCSNTraining) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True))


class TrueScore(torch.nn.Module):
    """The score of noisy images of which every clean one is grey: ``-(x - 1/2) / sigma^2``, and so exactly minus the noise over sigma."""

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return -(x - 0.5) / ncsn_sigmas().float()[level][:, None, None, None] ** 2


def test_the_loss_is_the_papers() -> None:
    """Zero where the score is true; half the squared noise where the network says nothing, at every level."""
    clean, level = torch.full((10, 1, 8, 8), 0.5), torch.arange(10)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    silent = lambda x, level: torch.zeros_like(x)  # noqa: E731
    torch.testing.assert_close(ncsn_losses(TrueScore(), clean, noise, level), torch.zeros(10), atol=1e-3, rtol=0)  # type: ignore[arg-type]
    torch.testing.assert_close(ncsn_losses(silent, clean, noise, level), 0.5 * noise.square().flatten(1).sum(1))  # type: ignore[arg-type]


def test_the_defaults_are_the_papers() -> None:
    config = NCSNConfig()
    assert (config.steps, config.batch, config.lr, config.betas, config.features) == (200_000, 128, 1e-3, (0.9, 0.999), 64)
    assert sum(p.numel() for p in CondRefineNetDilated(1, config.features).parameters()) == 7_638_657


@pytest.mark.slow
def test_the_loss_falls(tmp_path: Path) -> None:
    run = training(tmp_path, replace(SMALL, steps=60))
    before = sum(run.held_out_loss().values())
    loop.run(run, None)
    assert sum(run.held_out_loss().values()) < 0.8 * before


def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = finished(tmp_path / "whole")
    finished(tmp_path / "parts", replace(SMALL, steps=2))
    resumed = finished(tmp_path / "parts")
    assert (resumed.step, whole.step) == (6, 6)
    assert same(whole, resumed)
    assert not same(whole, finished(tmp_path / "other", replace(SMALL, seed=1)))


def test_parts_of_a_batch_add_up_to_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once, parts = training(tmp_path / "once"), training(tmp_path / "parts")
    once.advance()
    monkeypatch.setattr(ncsn, "_CPU_CHUNK", 3)
    parts.advance()
    assert float(once.loss) > 0
    torch.testing.assert_close(float(parts.loss), float(once.loss), rtol=1e-5, atol=0)
    for own, other in zip(parts.network.parameters(), once.network.parameters(), strict=True):  # Adam alone would hide another scale
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-5)


def test_minutes_end_it(tmp_path: Path) -> None:
    run = finished(tmp_path, replace(SMALL, steps=10_000), minutes=1e-9)
    assert run.step == 1
    assert run.fraction == 1.0


def test_basis_takes_the_weights(tmp_path: Path) -> None:
    """Trained at the width of a test, exported, loaded, and used at its own ten levels."""
    path = export(finished(tmp_path / "run"), tmp_path / "ten.safetensors", "tiny", "sepbench train ncsn")
    prior = load_prior(path)
    assert isinstance(prior, NCSNPrior)
    assert prior.shape == (1, 8, 8)
    card = read_card(path)
    assert card["training"]["steps"] == 6
    assert card["training"]["images_seen"] == 48
    assert card["data"] == {"name": "tiny", "images": 50, "sha256": images_sha256(tiny_images()[:50]), "held_out": 10}
    assert (card["training"]["seed"], card["training"]["command"]) == (SMALL.seed, "sepbench train ncsn")
    assert card["training"]["config"] == json.loads(json.dumps(asdict(SMALL)))
    assert list(card["held_out_loss"]) == [f"{sigma:.5f}" for sigma in ncsn_sigmas().tolist()]
    assert Basis(weights=str(path)).supports(load_suite("digits-pairs").tasks["class-agnostic"].spec).ok


def test_another_run_in_the_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    finished(tmp_path / "run", replace(SMALL, steps=1))
    images = tiny_images()
    start = NCSNPrior(CondRefineNetDilated(1, 4), (1, 8, 8))
    for change in (
        lambda: training(tmp_path / "run", replace(SMALL, seed=3)),
        lambda: training(tmp_path / "run", init=start),
        lambda: NCSNTraining(images[:40], images[50:], SMALL, tmp_path / "run"),
    ):
        with pytest.raises(SepbenchError, match=r"checkpoint.pt is of another run \((seed|--init|images)\)") as refused:
            change()
        assert "\n" not in str(refused.value)
    assert (tmp_path / "run" / CHECKPOINT).exists()


def test_weights_to_start_from(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        start, wide = (NCSNPrior(CondRefineNetDilated(1, width), (1, 8, 8), name="start") for width in (4, 6))
    begun = training(tmp_path / "a", init=start)
    assert all(torch.equal(a, b) for a, b in zip(begun.network.state_dict().values(), start.network.state_dict().values(), strict=True))
    with pytest.raises(SepbenchError, match="of another width"):
        training(tmp_path / "b", init=wide)


def test_the_trainer_from_a_data_set_to_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncsn, "_HELD_OUT", 2)
    monkeypatch.setattr(ncsn, "NCSNConfig", lambda **given: NCSNConfig(**{**given, "batch": 4, "features": 8}))
    options = {"folder": tmp_path / "run", "steps": 1, "minutes": None, "init": None, "seed": 0, "device": "cpu", "command": "x"}
    lines: list[str] = []
    out = ncsn.train(open_dataset("digits", "train"), labels=(0, 1), out=tmp_path / "d.safetensors", progress=lambda done, text: lines.append(text), **options)  # type: ignore[arg-type]
    assert read_card(out)["data"]["name"] == "digits train 0..799, classes 0, 1"
    data = read_card(out)["data"]
    assert (data["images"], data["held_out"]) == (int((open_dataset("digits", "train").labels[:800] < 2).sum()), 2)
    assert read_card(out)["kind"] == "ncsn-refinenet"
    assert lines[-1].startswith("step 1, ")
    edm = next(Path(ncsn.__file__).parents[1].joinpath("weights").glob("digits*.safetensors"))
    with pytest.raises(SepbenchError, match="holds no ncsn-refinenet"):
        ncsn.train(open_dataset("digits", "train"), labels=(), out=tmp_path / "e.safetensors", progress=lambda done, text: None, **{**options, "init": edm})  # type: ignore[arg-type]


def test_a_step_is_on_dequantised_images(tmp_path: Path) -> None:
    """The loss of the first step: levels of 1/256 filled up evenly, the network's own noise levels, everything drawn from the seed in the order of the code."""
    run = training(tmp_path)
    random = generator(SMALL.seed, "step", 0)
    images = as_float(run.images[batch_indices(SMALL.seed, 0, SMALL.batch, len(run.images))])
    clean = (255 * images + torch.rand(images.shape, generator=random)) / 256
    level = torch.randint(10, (SMALL.batch,), generator=random)
    noise = torch.randn(clean.shape, generator=random)
    wanted = float(ncsn_losses(run.network, clean, noise, level).detach().double().mean())
    run.advance()
    assert float(run.loss) == pytest.approx(wanted, rel=1e-5)


class Silent(torch.nn.Module):
    """Says nothing of any image, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, set[int]]] = []

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        self.asked.append((len(x), set(level.tolist())))
        return torch.zeros_like(x)


def test_the_loss_of_held_out_images_is_at_each_level_and_of_the_first_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncsn, "_HELD_OUT", 5)
    monkeypatch.setattr(ncsn, "_CPU_CHUNK", 2)
    run = training(tmp_path)
    run.network = silent = Silent()  # type: ignore[assignment]
    noise = fixed_noise(torch.Size((5, 1, 8, 8)))
    wanted = round(0.5 * float(noise.square().flatten(1).sum(1).double().mean()), 4)
    assert run.held_out_loss() == {f"{sigma:.5f}": wanted for sigma in ncsn_sigmas().tolist()}
    assert silent.asked == [(size, {level}) for level in range(10) for size in (2, 2, 1)]


@pytest.mark.parametrize(
    ("steps", "seconds", "minutes", "fraction", "finished"),
    [
        (3, 0.0, None, 0.5, False),
        (3, 60.0, 1.5, 2 / 3, False),
        (3, 90.0, 1.5, 1.0, True),
        (6, 0.0, 9.0, 1.0, True),
        (4, 60.0, 9.0, 2 / 3, False),
        (9, 0.0, None, 1.0, True),
    ],
)
def test_a_run_ends_by_its_steps_or_its_minutes(tmp_path: Path, steps: int, seconds: float, minutes: float | None, fraction: float, finished: bool) -> None:
    run = training(tmp_path, minutes=minutes)
    run.step, run.seconds = steps, seconds
    assert (run.fraction, run.finished) == (pytest.approx(fraction), finished)


def test_a_row_has_the_mean_since_the_last_one(tmp_path: Path) -> None:
    run = training(tmp_path)
    assert run.row() == {"loss": 0.0}
    run.loss, run.counted = torch.tensor(2.0, dtype=torch.float64), 3
    assert run.row() == {"loss": 0.6667}
    assert (float(run.loss), run.counted) == (0.0, 0)


def test_all_that_changed_is_named(tmp_path: Path) -> None:
    finished(tmp_path, replace(SMALL, steps=1))
    images = tiny_images()
    start = NCSNPrior(CondRefineNetDilated(1, 4), (1, 8, 8))
    with pytest.raises(SepbenchError) as refused:
        NCSNTraining(images[:40], images[50:], replace(SMALL, seed=3, lr=0.5, steps=9), tmp_path, init=start)
    assert str(refused.value) == f"{tmp_path / CHECKPOINT} is of another run (lr, seed, images, --init); ask for the same, or use another --folder"


@pytest.mark.parametrize(("channels", "features"), [(1, 64), (3, 128)])
def test_colour_images_are_mirrored_and_take_a_wider_network(channels: int, features: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    class Stop(Exception):
        pass

    def begin(images: torch.Tensor, held_out: torch.Tensor, config: NCSNConfig, folder: Path, **options: object) -> NCSNTraining:
        seen.extend([len(images), len(held_out), config, folder, options])
        raise Stop

    monkeypatch.setattr(ncsn, "NCSNTraining", begin)
    monkeypatch.setattr(score, "RECIPES", {"digits": replace(score.RECIPES["digits"], held_out=2), "cifar10": replace(score.RECIPES["digits"], held_out=2)})
    signals = ArraySignals("mine", "train", "image", torch.zeros(9, channels, 8, 8, dtype=torch.uint8), torch.zeros(9, dtype=torch.int64))
    given = {"labels": (), "folder": tmp_path / "a" / "run", "out": tmp_path / "b" / "x.safetensors", "minutes": 2.5, "init": None, "seed": 4, "device": "cpu"}
    for steps in (None, 7):
        with pytest.raises(Stop):
            ncsn.train(signals, steps=steps, command="x", progress=lambda done, text: None, **given)  # type: ignore[arg-type]
        config = NCSNConfig(steps=steps or 200_000, features=features, mirror=channels == 3, seed=4)
        assert seen == [7, 2, config, tmp_path / "a" / "run", {"init": None, "minutes": 2.5, "device": "cpu"}]
        seen.clear()
    assert (tmp_path / "a" / "run").is_dir()
    assert (tmp_path / "b").is_dir()
    for option, place in (("--out", "out"), ("--folder", "folder")):
        (tmp_path / "file").touch()
        with pytest.raises(SepbenchError, match=option):
            ncsn.train(signals, steps=1, command="x", progress=lambda done, text: None, **{**given, place: tmp_path / "file" / "x"})  # type: ignore[arg-type]


def test_weights_are_stored_as_they_were_trained_and_their_card_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncsn, "_HELD_OUT", 1)
    run = training(tmp_path, replace(SMALL, seed=3))
    run.seconds = 90.0
    card = read_card(export(run, tmp_path / "x.safetensors", "tiny", "a command"))
    assert (card["stored"], card["name"], card["training"]["minutes"], card["training"]["seed"]) == ("float32", "x", 1.5, 3)
    assert card["training"]["packages"] == {"torch": torch.__version__, "python": platform.python_version()}
    assert card["training"]["hardware"] == score.hardware()
    assert card["training"]["images_seen"] == 0
    assert card["held_out_loss"] == run.held_out_loss()
