from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from train_until_done import LAYOUT, tiny_images

from baselines.networks.unet import UNetConfig
from baselines.priors.edm import loss_weight
from baselines.priors.score_prior import EDMPrior
from baselines.priors.weights_io import images_sha256, load_prior, save_prior
from baselines.training.config import TrainConfig
from baselines.training.edm_loss import as_float, loss_per_level
from baselines.training.loop import CHECKPOINT
from baselines.training.score import RECIPES, build_model, check_writable, export, material, network_of, recipe_for, train, train_score
from baselines.training.trainer import ScoreTraining
from sepbench.data.datasets import open_dataset
from sepbench.errors import SepbenchError

ROOT = Path(__file__).resolve().parents[3]


def test_weights_depend_on_the_seed_and_leave_the_global_state_alone() -> None:
    images = tiny_images()
    before = torch.get_rng_state()
    first, again, other = (build_model(LAYOUT, images, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    stems = [m.network.get_submodule("stem").get_parameter("weight") for m in (first, again, other)]
    assert torch.equal(stems[0], stems[1])
    assert not torch.equal(stems[0], stems[2])
    pixels = images.double() / 255
    assert (first.mean, first.sigma_data) == pytest.approx((float(pixels.mean()), float(pixels.std())))


def test_fine_tuning_starts_from_the_given_prior(tmp_path: Path) -> None:
    images = tiny_images()
    start = EDMPrior(build_model(LAYOUT, images, 5), (1, 8, 8), (0.005, 2.0))
    model = build_model(LAYOUT, images[:10], 0, start)
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 0.5])
    assert torch.equal(model(x, sigma), start.denoiser(x, sigma))


def test_weights_of_another_layout_are_refused() -> None:
    start = EDMPrior(build_model(LAYOUT, tiny_images(), 5), (1, 8, 8), (0.005, 2.0), name="small")
    with pytest.raises(SepbenchError, match=r"the weights to start from \(small, [\d,]+ parameters\) are of another layout") as refused:
        build_model(UNetConfig(widths=(8, 16, 24), blocks=(1, 1, 1), heads=2, embedding=16), tiny_images(), 0, start)
    assert "\n" not in str(refused.value)


def test_weights_to_start_from_bring_their_layout_and_their_kind_of_images(tmp_path: Path) -> None:
    layout = UNetConfig(widths=(8, 16, 24), blocks=(1, 1, 1), heads=2, embedding=16)
    assert layout != recipe_for("digits", (1, 8, 8)).layout
    start, colour = tmp_path / "start.safetensors", tmp_path / "colour.safetensors"
    save_prior(start, EDMPrior(build_model(layout, tiny_images(), 5), (1, 8, 8), (0.005, 2.0)), {})
    save_prior(colour, EDMPrior(build_model(replace(layout, channels=3), tiny_images(), 5), (3, 8, 8), (0.005, 2.0)), {})
    options: dict[str, Any] = {"labels": (), "steps": 1, "minutes": None, "seed": 0, "device": "cpu", "command": "x", "progress": lambda done, text: None}
    signals = open_dataset("digits", "train")
    made = load_prior(train(signals, folder=tmp_path / "run", out=tmp_path / "made.safetensors", init=start, **options))
    assert isinstance(made, EDMPrior)
    assert network_of(made).config == layout
    with pytest.raises(SepbenchError, match="a prior of images with 3 channels, these have 1"):
        train(signals, folder=tmp_path / "other", out=tmp_path / "made.safetensors", init=colour, **options)


def test_a_run_is_resumed_with_the_weights_it_started_from(tmp_path: Path) -> None:
    images, config = tiny_images(), TrainConfig(steps=1, batch=8)
    one, other = (EDMPrior(build_model(LAYOUT, images, seed), (1, 8, 8), (0.005, 2.0)) for seed in (5, 6))
    first, again = (train_score(images[:50], images[50:], LAYOUT, config, tmp_path, init=one) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.ema.values(), again.ema.values(), strict=True))
    for init in (other, None):
        with pytest.raises(SepbenchError, match="started from other weights"):
            train_score(images[:50], images[50:], LAYOUT, config, tmp_path, init=init)


def test_a_place_that_cannot_be_written_is_known_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.safetensors").mkdir()
    check_writable(tmp_path / "deep" / "er" / "a.safetensors", "--out")
    assert list((tmp_path / "deep" / "er").iterdir()) == []
    for name in ("file/a.safetensors", "folder.safetensors", "a" * 300, "a.png"):
        with pytest.raises(SepbenchError, match="--out"):
            check_writable(tmp_path / name, "--out")
    with pytest.raises(SepbenchError, match=r"cannot write .*file is no folder; choose another place with --folder"):
        train_score(tiny_images()[:50], tiny_images()[50:], LAYOUT, TrainConfig(steps=1, batch=8), tmp_path / "file")


def test_a_run_is_exported_while_it_stands_as_when_it_ended(tmp_path: Path) -> None:
    images = tiny_images()
    config = TrainConfig(steps=9, batch=8, seed=3)
    request = (images[:50], images[50:], LAYOUT, config, tmp_path / "run")
    with pytest.raises(SepbenchError, match="no checkpoint to export"):
        train_score(*request, export_only=True)
    export(train_score(*request), tmp_path / "a.safetensors", "bars", "a command", "tiny")
    export(train_score(*request, export_only=True), tmp_path / "b.safetensors", "bars", "a command", "tiny")
    cards = [json.loads((tmp_path / f"{name}.json").read_text()) for name in "ab"]
    assert cards[0]["weights_sha256"] == cards[1]["weights_sha256"]
    assert cards[0]["training"]["steps"] == 9
    assert cards[0]["data"] == {"name": "bars", "images": 50, "sha256": images_sha256(images[:50]), "held_out": 10}
    assert (cards[0]["training"]["command"], cards[0]["notes"]) == ("a command", "tiny")
    assert isinstance(load_prior(tmp_path / "a.safetensors"), EDMPrior)


@pytest.mark.slow
def test_the_script_exports_a_training_under_way(tmp_path: Path) -> None:
    options = ["--dataset", "digits", "--labels", "0,1", "--seed", "3", "--folder", str(tmp_path / "run")]
    command = [sys.executable, str(ROOT / "scripts" / "export_checkpoint.py"), *options, "--out", str(tmp_path / "early.safetensors")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1
    data = material(open_dataset("digits", "train"), (0, 1))
    config = replace(data.recipe.config, seed=3)
    training = ScoreTraining(build_model(data.recipe.layout, data.images, 3), data.images, data.held_out, config, tmp_path / "run")
    training.train_step()
    training.save(tmp_path / "run" / CHECKPOINT)
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()
    subprocess.run(command, env=environment, check=True)
    card = json.loads((tmp_path / "early.json").read_text())
    assert (card["training"]["steps"], card["data"]["name"]) == (1, "digits train 0..799, classes 0, 1")
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    config = TrainConfig(steps=2)
    with pytest.raises(ValueError, match="multiples of 4"):
        train_score(torch.zeros(8, 1, 9, 8), torch.zeros(2, 1, 9, 8), UNetConfig(), config, tmp_path)
    with pytest.raises(ValueError, match=r"\(N, 1, H, W\)"):
        train_score(torch.zeros(8, 3, 8, 8), torch.zeros(2, 3, 8, 8), UNetConfig(), config, tmp_path)


def _wiener_losses(images: torch.Tensor, held_out: torch.Tensor, levels: torch.Tensor, sigma_data: float) -> list[float]:
    """Weighted loss of the best linear denoiser, the exact one of a Gaussian with the images' mean and covariance."""
    flat, test = images.flatten(1).double(), held_out.flatten(1).double()
    mean, covariance = flat.mean(0), torch.cov(flat.T)
    random = torch.Generator().manual_seed(0)
    losses = []
    for level in levels.double():
        noisy = test + level * torch.randn(test.shape, generator=random, dtype=torch.float64)
        gain = torch.linalg.solve(covariance + level**2 * torch.eye(len(mean), dtype=torch.float64), covariance)
        error = (mean + (noisy - mean) @ gain - test).square().mean()
        losses.append(float(loss_weight(level, sigma_data) * error))
    return losses


@pytest.mark.slow
def test_digits_recipe_beats_the_best_linear_denoiser(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    recipe = RECIPES["digits"]
    images = torch.from_numpy(load_digits().images / 16.0).float()[:, None]
    train, held_out = images[: -recipe.held_out], images[-recipe.held_out :]
    trainer = train_score(train, held_out, recipe.layout, recipe.config, tmp_path)
    model = trainer.averaged()
    levels = torch.tensor([0.05, 0.1, 0.2, 0.5, 1.0])
    ours, _ = loss_per_level(model, held_out, levels, model.sigma_data)
    linear = _wiener_losses(as_float(train), as_float(held_out), levels, model.sigma_data)
    assert all(a < b for a, b in zip(ours, linear, strict=True)), (ours, linear)
