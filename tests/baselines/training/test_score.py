from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from train_until_done import LAYOUT, tiny_images

from baselines.networks.unet import UNetConfig
from baselines.priors.edm import loss_weight
from baselines.priors.score_prior import ScorePrior
from baselines.priors.weights_io import load_prior
from baselines.training.config import TrainConfig
from baselines.training.denoising_loss import as_float, loss_per_level
from baselines.training.score import RECIPES, build_model, check_writable, main, train_score
from sepbench.errors import SepbenchError


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
    start = ScorePrior(build_model(LAYOUT, images, 5), (1, 8, 8), (0.005, 2.0))
    model = build_model(LAYOUT, images[:10], 0, start)
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 0.5])
    assert torch.equal(model(x, sigma), start.denoiser(x, sigma))


def test_weights_of_another_layout_are_refused() -> None:
    start = ScorePrior(build_model(LAYOUT, tiny_images(), 5), (1, 8, 8), (0.005, 2.0), name="small")
    with pytest.raises(SepbenchError, match=r"the weights to start from \(small, [\d,]+ parameters\) are of another layout") as refused:
        build_model(UNetConfig(widths=(8, 16, 24), blocks=(1, 1, 1), heads=2, embedding=16), tiny_images(), 0, start)
    assert "\n" not in str(refused.value)


def test_a_run_is_resumed_with_the_weights_it_started_from(tmp_path: Path) -> None:
    images, config = tiny_images(), TrainConfig(steps=1, batch=8)
    one, other = (ScorePrior(build_model(LAYOUT, images, seed), (1, 8, 8), (0.005, 2.0)) for seed in (5, 6))
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
    np.save(tmp_path / "images.npy", tiny_images().numpy())
    with pytest.raises(SepbenchError, match="cannot write"):
        main(["--images", str(tmp_path / "images.npy"), "--folder", str(tmp_path / "run"), "--out", str(tmp_path / "file" / "a.safetensors")])
    assert not (tmp_path / "run").exists()


def test_command_trains_exports_and_exports_again(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", tiny_images().numpy())
    common = ["--recipe", "digits", "--images", str(tmp_path / "images.npy"), "--held-out", "10", "--folder", str(tmp_path / "run")]
    common += ["--widths", "8", "16", "16", "--batch", "8", "--seed", "3"]
    with pytest.raises(SepbenchError, match="no checkpoint to export"):
        main([*common, "--steps", "9", "--export-only"])
    main([*common, "--steps", "9", "--out", str(tmp_path / "a.safetensors"), "--notes", "tiny"])
    main([*common, "--steps", "9", "--out", str(tmp_path / "b.safetensors"), "--export-only"])
    cards = [json.loads((tmp_path / f"{name}.json").read_text()) for name in "ab"]
    assert cards[0]["weights_sha256"] == cards[1]["weights_sha256"]
    assert cards[0]["training"]["steps"] == 9
    assert "--notes tiny" in cards[0]["training"]["command"]
    assert isinstance(load_prior(tmp_path / "a.safetensors"), ScorePrior)


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
