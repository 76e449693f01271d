from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from train_until_done import LAYOUT, tiny_images

from baselines.networks.ncsn_refinenet import ncsn_sigmas
from baselines.networks.unet import UNetConfig
from baselines.priors.edm import EDMDenoiser, loss_weight
from baselines.priors.score_prior import EDMPrior
from baselines.priors.weights_io import images_sha256, load_prior, save_prior
from baselines.training import score
from baselines.training.config import TrainConfig
from baselines.training.edm_loss import as_float, loss_per_level
from baselines.training.loop import CHECKPOINT
from baselines.training.samples import sample_report
from baselines.training.score import (
    RECIPES,
    build_model,
    check_writable,
    export,
    hardware,
    material,
    network_of,
    recipe_for,
    train,
    train_score,
    weights_digest,
)
from baselines.training.trainer import ScoreTraining
from sepbench.data.datasets import open_dataset
from sepbench.data.signals import ArraySignals
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
    taken = train_score(images[:50], images[50:], LAYOUT, config, tmp_path, init=one, export_only=True)
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(first.ema.values(), again.ema.values(), taken.ema.values(), strict=True))
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
    images, config = tiny_images(), TrainConfig(steps=9, batch=8, seed=3)
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


def signals(count: int, shape: tuple[int, ...] = (1, 8, 8), labels: tuple[int, ...] = (0, 1)) -> ArraySignals:
    images = torch.arange(count, dtype=torch.uint8).reshape(-1, *[1] * len(shape)).expand(-1, *shape).clone()
    return ArraySignals("mine", "train", "image", images, torch.tensor([labels[i % len(labels)] for i in range(count)]))


@pytest.mark.parametrize(
    ("chosen", "images", "held_out", "name"),
    [
        ((), range(6), range(6, 10), "mine train 0..5"),
        ((1,), (1, 3, 5), (7, 9), "mine train 0..5, classes 1"),
        ((0, 1), range(6), range(6, 10), "mine train 0..5, classes 0, 1"),
    ],
)
def test_the_last_images_are_held_out(chosen: tuple[int, ...], images: Any, held_out: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPES["digits"], held_out=4)
    monkeypatch.setattr(score, "RECIPES", {"digits": recipe})
    found = material(signals(10), chosen)
    for part, rows in ((found.images, images), (found.held_out, held_out)):
        assert (255 * as_float(part))[:, 0, 0, 0].round().tolist() == list(rows)
    assert (found.recipe, found.name) == (recipe, name)


@pytest.mark.parametrize(
    ("count", "chosen", "says"),
    [
        (4, (), "has 4 training images, of which 4 would be held out; it takes more"),
        (3, (), "has 3 training images, of which 4 would be held out; it takes more"),
        (10, (2, 3), "has no training images of classes 2, 3; see its labels"),
        (5, (1,), "has no training images of classes 1; see its labels"),
        (5, (0,), None),
    ],
)
def test_what_leaves_nothing_to_train_on(count: int, chosen: tuple[int, ...], says: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "RECIPES", {"digits": replace(RECIPES["digits"], held_out=4)})
    if says is None:
        assert len(material(signals(count), chosen).images) == 1
        return
    with pytest.raises(SepbenchError) as refused:
        material(signals(count), chosen)
    assert str(refused.value) == f"data set 'mine' {says}"


def test_refusals_of_shapes_name_data_and_shape() -> None:
    with pytest.raises(SepbenchError) as refused:
        recipe_for("own", (1, 8, 6))
    assert str(refused.value) == "data set 'own' holds signals of shape (1, 8, 6); the network takes images whose height and width are multiples of 4"
    assert recipe_for("cifar10-mini", (1, 8, 8)) == RECIPES["cifar10-mini"]


@pytest.mark.parametrize(
    ("shape", "like"),
    [
        ((1, 8, 8), "digits"),
        ((3, 16, 16), "digits"),
        ((1, 16, 20), "mnist"),
        ((1, 20, 16), "mnist"),
        ((2, 20, 16), "cifar10"),
        ((3, 64, 64), "cifar10"),
        ((1, 64, 64), "mnist"),
    ],
)
def test_data_without_a_recipe_take_that_of_small_of_coloured_or_of_grey_images(shape: tuple[int, int, int], like: str) -> None:
    found, recipe = recipe_for("own", shape), RECIPES[like]
    assert (found.config, found.held_out) == (recipe.config, recipe.held_out)
    assert found.layout == replace(recipe.layout, channels=shape[0])


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8, 8), (1, 6, 8), (1, 8, 6), (1, 2, 2)])
def test_shapes_that_the_network_cannot_halve_twice(shape: tuple[int, ...]) -> None:
    with pytest.raises(SepbenchError, match=r"^data set 'own' holds signals of shape "):
        recipe_for("own", shape)


@pytest.mark.parametrize("steps", [None, 7])
def test_the_trainer_hands_on_what_it_was_asked_for(steps: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(score, "RECIPES", {"digits": replace(RECIPES["digits"], held_out=4)})
    monkeypatch.setattr(score, "train_score", lambda *given, **more: seen.append((given, more)) or "a run")
    monkeypatch.setattr(score, "export", lambda *given: seen.append(given) or given[1])
    monkeypatch.setattr(score, "batch_on", lambda device, config: {"cuda": config.batch + 5}[device])
    told = lambda done, text: None  # noqa: E731
    out = tmp_path / "made" / "x.safetensors"
    options: dict[str, Any] = {"labels": (1,), "minutes": 2.5, "seed": 8, "device": "cuda", "command": "a command", "progress": told}
    assert train(signals(10), folder=tmp_path / "run", out=out, steps=steps, init=None, **options) == out
    (given, more), exported = seen
    recipe = RECIPES["digits"]
    assert [len(part) for part in given[:2]] == [3, 2]
    assert given[2:] == (recipe.layout, replace(recipe.config, seed=8, steps=steps or recipe.config.steps, batch=recipe.config.batch + 5), tmp_path / "run")
    assert more == {"deadline_minutes": 2.5, "init": None, "device": "cuda", "progress": told}
    assert exported == ("a run", out, "mine train 0..5, classes 1", "a command")
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize(
    ("variable", "device", "compiled"), [("compile", "cuda:1", True), ("compile", "cpu", False), ("eager", "cuda", False), (None, "cuda", False)]
)
def test_a_network_is_compiled_on_a_gpu_where_the_variable_says_so(
    variable: str | None, device: str, compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    class Model:
        def to(self, place: str) -> str:
            return f"on {place}"

    class Run:
        step = 0

        def __init__(self, *given: Any, **more: Any) -> None:
            seen.extend([given[0], given[3:], more])

        def run(self, **asked: Any) -> None:
            seen.append(asked)

    monkeypatch.delenv("SEPBENCH_TRAIN", raising=False)
    if variable is not None:
        monkeypatch.setenv("SEPBENCH_TRAIN", variable)
    monkeypatch.setattr(score, "build_model", lambda *given: Model())
    monkeypatch.setattr(score, "ScoreTraining", Run)
    told = lambda done, text: None  # noqa: E731
    config = TrainConfig(steps=1)
    train_score(tiny_images(), tiny_images(), LAYOUT, config, tmp_path, deadline_minutes=1.5, device=device, progress=told)
    assert seen == [f"on {device}", (config, tmp_path, None), {"compiled": compiled}, {"deadline_minutes": 1.5, "progress": told}]
    seen.clear()
    with pytest.raises(SepbenchError) as refused:
        train_score(tiny_images(), tiny_images(), LAYOUT, config, tmp_path / "none", device=device, export_only=True)
    assert str(refused.value) == f"{tmp_path / 'none'} holds no checkpoint to export; train first"
    assert len(seen) == 3
    assert not (tmp_path / "none").exists()


def test_images_are_judged_by_channels_and_both_sides(tmp_path: Path) -> None:
    for shape in ((4, 1, 8, 6), (4, 1, 6, 8), (4, 2, 8, 8), (4, 8, 8)):
        with pytest.raises(ValueError, match="images must be") as refused:
            train_score(torch.zeros(shape), torch.zeros(shape), LAYOUT, TrainConfig(steps=1), tmp_path)
        assert str(refused.value) == f"images must be (N, 1, H, W) with H and W multiples of 4, got {shape}"


def test_the_digest_of_weights_is_of_names_and_tensors_in_their_order() -> None:
    network = torch.nn.Linear(2, 1)
    told = "".join(f"{name} {images_sha256(getattr(network, name))}\n" for name in ("weight", "bias"))
    assert weights_digest(network) == hashlib.sha256(told.encode()).hexdigest()


def test_a_prior_to_start_from_keeps_its_scale() -> None:
    start = EDMPrior(EDMDenoiser(build_model(LAYOUT, tiny_images(), 5).network, 0.125, 0.75), (1, 8, 8), (0.005, 2.0))
    model = build_model(LAYOUT, tiny_images(), 0, start)
    assert (model.sigma_data, model.mean) == (0.125, 0.75)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a.json", "--out {path}: the card and a picture take .json and .png beside the weights; name the weights NAME.safetensors"),
        ("a.png", "--out {path}: the card and a picture take .json and .png beside the weights; name the weights NAME.safetensors"),
        ("folder", "cannot write {path}: Is a directory; choose another place with --out"),
        ("file/x", "cannot write {path}: {parent} is no folder; choose another place with --out"),
    ],
)
def test_words_for_places_that_cannot_be_written(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    with pytest.raises(SepbenchError) as refused:
        check_writable(path, "--out")
    assert str(refused.value) == says.format(path=path, parent=path.parent)


def test_a_file_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_text("kept")
    check_writable(tmp_path / "x.safetensors", "--out")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.safetensors", "kept")]


def test_the_hardware_is_that_of_this_machine() -> None:
    found = hardware()
    assert list(found) == ["cpu", "cores", "torch_threads", "instruction_set", "gpu"]
    assert (found["cores"], found["torch_threads"]) == (os.cpu_count(), torch.get_num_threads())
    assert found["instruction_set"] == torch.backends.cpu.get_cpu_capability()
    info = Path("/proc/cpuinfo")
    if info.exists() and "model name" in info.read_text():
        (line, *_) = (line for line in info.read_text().splitlines() if line.startswith("model name"))
        assert line.endswith(f": {found['cpu']}")


def test_a_card_says_all_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With as few samples and held-out images as is quick; the report is of clamped samples from a prior that starts where its data is."""
    monkeypatch.setattr(score, "_CARD_SAMPLES", 2)
    monkeypatch.setattr(score, "_CARD_IMAGES", 4)
    drawn: list[Any] = []
    monkeypatch.setattr(
        score, "draw_samples", lambda *given, **more: drawn.append((given, more)) or torch.tensor([-1.0, 2.0])[:, None, None, None].expand(2, 1, 8, 8)
    )
    images, config = tiny_images(), TrainConfig(steps=9, batch=8, seed=3, sigma_range=(0.02, 1.5), workers=1)
    run = ScoreTraining(build_model(LAYOUT, images[:50], 3), images[:50], images[50:], config, tmp_path / "run")
    run.step, run.seconds, run.decay_start, run.asked = 7, 90.0, 5, {"steps": 9, "minutes": None}
    path = export(run, tmp_path / "x.safetensors", "bars", "a command", "tiny")
    card, model = json.loads((tmp_path / "x.json").read_text()), run.averaged()
    packages = {"torch": torch.__version__, "python": platform.python_version()}
    told = {"steps": 7, "images_seen": 56, "decay_start": 5, "minutes": 1.5, "seed": 3, "asked": {"steps": 9, "minutes": None}, "command": "a command"}
    assert card["training"] == {**told, "config": json.loads(json.dumps(asdict(config))), "hardware": hardware(), "packages": packages}
    assert card["data"] == {"name": "bars", "images": 50, "sha256": images_sha256(images[:50]), "held_out": 4}
    losses, psnrs = loss_per_level(model, images[50:54], ncsn_sigmas(), model.sigma_data)
    levels = [f"{sigma:.5f}" for sigma in ncsn_sigmas().tolist()]
    assert card["held_out_loss"] == pytest.approx(dict(zip(levels, losses, strict=True)), abs=2e-5)
    assert card["held_out_denoising_psnr_db"] == pytest.approx(dict(zip(levels, psnrs, strict=True)), abs=2e-3)
    assert card["sample_check"] == sample_report(torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 1, 8, 8), images[:50], images[50:])
    assert (card["sigma_range"], card["notes"], path) == ([0.02, 1.5], "tiny", tmp_path / "x.safetensors")
    (given, more) = drawn[0]
    assert (given[0].sigma_range, given[1], given[2].seed) == ((0.02, 1.5), 2, 3)
    assert more == {"sigma_range": (0.01, 1.5), "start": (model.mean, model.sigma_data), "device": "cpu"}
    assert (tmp_path / "x.png").exists() is (importlib.util.find_spec("PIL") is not None)
