"""The classifier's recipe: it learns, resumes to the same bits, sees what it says it sees, and refuses what it cannot train on."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from baselines.extractors.classifier_io import load_classifier, read_classifier_card
from baselines.networks.classifier import ClassifierConfig, SmallClassifier
from baselines.priors.weights_io import images_sha256
from baselines.training import classifier, loop
from baselines.training.classifier import ClassifierRecipe, ClassifierTraining, accuracy, recipe_for, shifted, train
from baselines.training.config import TrainConfig
from baselines.training.score import hardware
from sepbench.data.signals import ArraySignals
from sepbench.errors import SepbenchError

RECIPE = ClassifierRecipe(widths=(8, 16, 16), epochs=4, batch=32, smoothing=0.1)


def bars(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy 18 x 18 images, class 0 with a horizontal bar, class 1 with a vertical one, uint8."""
    draw = torch.Generator().manual_seed(seed)
    images, labels = torch.rand(count, 1, 18, 18, generator=draw) * 0.5, torch.arange(count) % 2
    for image, label in zip(images, labels, strict=True):
        start = int(torch.randint(3, 14, (1,), generator=draw))
        if label:
            image[:, :, start : start + 2] += 0.5
        else:
            image[:, start : start + 2] += 0.5
    return (images * 255).to(torch.uint8), labels


def test_it_learns_what_can_be_learnt(tmp_path: Path) -> None:
    training = ClassifierTraining(*bars(256), RECIPE, tmp_path)
    assert accuracy(training.network.eval(), *bars(128, 1)) < 0.8
    loop.run(training, tmp_path)
    assert training.step == training.steps == 32
    assert accuracy(training.network.eval(), *bars(128, 1)) > 0.95


def test_a_run_that_is_resumed_has_the_bits_of_one_that_was_left_alone(tmp_path: Path) -> None:
    whole = ClassifierTraining(*bars(64), RECIPE, tmp_path / "whole")
    loop.run(whole, tmp_path / "whole")
    first = ClassifierTraining(*bars(64), RECIPE, tmp_path / "parts")
    for _ in range(3):
        first.advance()
    loop.save(first, tmp_path / "parts" / loop.CHECKPOINT)
    rest = ClassifierTraining(*bars(64), RECIPE, tmp_path / "parts")
    assert rest.step == 3
    loop.run(rest, tmp_path / "parts")
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, rest.network.state_dict()[name]), name


@pytest.mark.parametrize("change", ["recipe", "images", "steps"])
def test_another_run_in_the_folder_is_refused(tmp_path: Path, change: str) -> None:
    training = ClassifierTraining(*bars(64), RECIPE, tmp_path)
    loop.save(training, tmp_path / loop.CHECKPOINT)
    images, labels = bars(64, 5 if change == "images" else 0)
    recipe, steps = (replace(RECIPE, lr=1e-3) if change == "recipe" else RECIPE), (3 if change == "steps" else None)
    with pytest.raises(SepbenchError, match="is of another run") as refused:
        ClassifierTraining(images, labels, recipe, tmp_path, steps=steps)
    assert "\n" not in str(refused.value)


def test_the_first_layer_whitens_patches_and_is_not_trained(tmp_path: Path) -> None:
    images = bars(64)[0].float() / 255
    network = SmallClassifier(ClassifierConfig(1, (8, 8, 8), 2))
    network.whiten_by(images, floor=0.0)
    responses = network.whiten(images).transpose(0, 1).flatten(1)[:4].double()
    torch.testing.assert_close(torch.cov(responses), torch.eye(4, dtype=torch.float64), atol=1e-3, rtol=0)
    torch.testing.assert_close(responses.mean(1), torch.zeros(4, dtype=torch.float64), atol=1e-4, rtol=0)
    training = ClassifierTraining(*bars(64), RECIPE, tmp_path)
    before = training.network.whiten.weight.clone()
    training.advance()
    assert torch.equal(training.network.whiten.weight, before)
    assert not torch.equal(training.network.head.weight, ClassifierTraining(*bars(64), RECIPE, tmp_path / "other").network.head.weight)


def test_shifts_move_every_image_by_its_own_whole_pixels_and_mirror_the_border() -> None:
    images = torch.rand(40, 2, 6, 7, generator=torch.Generator().manual_seed(3))
    found = shifted(images, 2, torch.Generator().manual_seed(4))
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    places = []
    for image, wide in zip(found, padded, strict=True):
        hits = [(down, right) for down in range(5) for right in range(5) if torch.equal(wide[:, down : down + 6, right : right + 7], image)]
        assert len(hits) == 1
        places += hits
    assert len(set(places)) > 10


def test_every_image_is_seen_both_ways_in_turn(tmp_path: Path) -> None:
    recipe = replace(RECIPE, mirror=True, shift=0, batch=64)
    training = ClassifierTraining(*bars(64), recipe, tmp_path)
    seen = []
    for _ in range(2):
        images, _ = training._batch()
        seen.append({image.numpy().tobytes() for image in images})
        training.step += 1
    own = training.images.float() / 255
    for image in own:
        ways = {image.numpy().tobytes(), image.flip(-1).contiguous().numpy().tobytes()}
        assert len(ways & seen[0]) == 1
        assert ways & seen[0] | ways & seen[1] == ways


def signals(count: int, shape: tuple[int, ...] = (1, 18, 18)) -> ArraySignals:
    images, labels = bars(count)
    return ArraySignals("bars", "train", "image", images if shape == (1, 18, 18) else torch.zeros(count, *shape, dtype=torch.uint8), labels)


def options(tmp_path: Path, **more: object) -> dict[str, Any]:
    base = {"labels": (), "folder": tmp_path / "run", "out": tmp_path / "bars.safetensors", "steps": 2, "minutes": None, "init": None}
    return {**base, "seed": 0, "device": "cpu", "command": "sepbench train", "progress": lambda done, text: None, **more}


def test_the_card_has_the_accuracy_of_the_stored_weights_on_the_held_out_tenth(tmp_path: Path) -> None:
    path = train(signals(200), **options(tmp_path))
    card, network = read_classifier_card(path), load_classifier(path)
    assert card["data"]["images"] == 180
    assert card["accuracy"]["images"] == "bars train 180..199"
    images, labels = bars(200)
    assert card["accuracy"]["value"] == pytest.approx(accuracy(network, images[180:], labels[180:]), abs=1e-4)
    assert network.features(images[:3].float() / 255).shape == (3, 128)


@pytest.mark.parametrize(
    ("given", "says"),
    [({"labels": (1,)}, "leave out --labels"), ({"minutes": 2.0}, "leave out --minutes"), ({"init": Path("x")}, "leave out --init")],
)
def test_options_that_mean_nothing_are_refused(tmp_path: Path, given: dict[str, object], says: str) -> None:
    with pytest.raises(SepbenchError, match=says):
        train(signals(40), **options(tmp_path, **given))


def test_small_images_and_sounds_are_refused() -> None:
    for shape in ((1, 8, 8), (1, 16384)):
        with pytest.raises(SepbenchError, match="the classifier takes images of at least 18 x 18"):
            recipe_for("digits", shape)
    assert recipe_for("mine", (3, 64, 64)) == recipe_for("cifar10", (3, 32, 32))
    with pytest.raises(ValueError, match="classes at least 2"):
        ClassifierConfig(classes=1)


@pytest.mark.parametrize(
    ("name", "shape", "like"),
    [
        ("mnist", (1, 28, 28), "mnist"),
        ("cifar10", (3, 32, 32), "cifar10"),
        ("mnist", (3, 32, 32), "mnist"),
        ("mine", (1, 18, 18), "mnist"),
        ("mine", (2, 18, 40), "cifar10"),
        ("mine", (3, 17, 18), None),
        ("mine", (3, 18, 17), None),
        ("mine", (1, 3, 32, 32), None),
    ],
)
def test_recipes_are_those_of_the_most_similar_data(name: str, shape: tuple[int, ...], like: str | None) -> None:
    if like is not None:
        assert recipe_for(name, shape) == classifier.RECIPES[like]
        return
    with pytest.raises(SepbenchError, match="the classifier takes") as refused:
        recipe_for(name, shape)
    assert str(refused.value) == f"data set 'mine' holds signals of shape {shape}; the classifier takes images of at least 18 x 18"


@pytest.mark.parametrize(("steps", "warmup"), [(100, 15), (10, 2), (2, 1), (1, 1)])
def test_settings_of_the_optimiser_come_from_the_recipe(steps: int, warmup: int) -> None:
    recipe = ClassifierRecipe(batch=24, lr=0.5, matrix_lr=0.25, seed=7)
    assert recipe.optimiser(steps) == TrainConfig(steps, batch=24, workers=1, seed=7, lr=0.5, matrix_lr=0.25, warmup=warmup)


def test_steps_are_those_of_the_epochs_rounded_up_or_as_many_as_are_asked_for(tmp_path: Path) -> None:
    """Nine epochs of seven images in batches of four: 63 / 4."""
    recipe = replace(RECIPE, epochs=9, batch=4)
    assert ClassifierTraining(*bars(7), recipe, tmp_path / "a").steps == 16
    asked = ClassifierTraining(*bars(7), recipe, tmp_path / "b", steps=3)
    assert (asked.steps, asked.config.steps, asked.origin["steps"]) == (3, 3, 3)


def test_the_first_images_whiten_and_the_outer_layers_are_adamws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "_WHITENING_IMAGES", 10)
    images, labels = bars(30)
    labels[-1] = 4
    training = ClassifierTraining(images, labels, RECIPE, tmp_path)
    assert training.network.config == ClassifierConfig(1, RECIPE.widths, 5)
    other = SmallClassifier(training.network.config)
    other.whiten_by(images[:10].float() / 255)
    torch.testing.assert_close(training.network.whiten.weight, other.whiten.weight)
    matrices = {id(weight) for weight, _ in training.optimiser.pairs}
    names = {name for name, weight in training.network.named_parameters() if id(weight) in matrices}
    assert {name.split(".")[0] for name in names} == {"blocks"}
    assert names == {name for name, weight in training.network.named_parameters() if name.startswith("blocks") and weight.ndim > 1}


def test_labels_are_part_of_what_a_run_is(tmp_path: Path) -> None:
    images, labels = bars(64)
    loop.save(ClassifierTraining(images, labels, RECIPE, tmp_path), tmp_path / loop.CHECKPOINT)
    with pytest.raises(SepbenchError) as refused:
        ClassifierTraining(images, 1 - labels, replace(RECIPE, lr=1e-3), tmp_path)
    checkpoint = tmp_path / "checkpoint.pt"
    assert str(refused.value) == f"{checkpoint} is of another run (labels, lr); ask for the same, or give another --folder"


def test_a_row_has_the_means_since_the_last_one(tmp_path: Path) -> None:
    training = ClassifierTraining(*bars(64), RECIPE, tmp_path)
    training._window = [(1.0, 0.5), (1.5, 1.0), (1 / 3, 0.0)]
    assert training.row() == {"loss": 0.9444, "accuracy": 0.5}
    training.advance()
    assert training.row()["loss"] != 0.9444
    assert training._window == []


def test_accuracy_is_over_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "_ACCURACY_BATCH", 3)
    sizes: list[int] = []

    def brightest(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return images.flatten(1)

    images = torch.eye(8).reshape(8, 1, 2, 4)
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 0, 7])
    assert accuracy(brightest, images, labels) == 0.75  # type: ignore[arg-type]
    assert sizes == [3, 3, 2]


def test_the_card_says_how_the_weights_were_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most so many are held out; everything that was asked for stands on the card."""
    monkeypatch.setattr(classifier, "_HELD_OUT", 7)
    monkeypatch.setattr(classifier, "RECIPES", {"mnist": ClassifierRecipe((4, 4, 4), 3, 8)})
    told: list[str] = []
    path = train(signals(100), **options(tmp_path, seed=5, steps=1, command="a command", progress=lambda done, text: told.append(text)))
    card, images = read_classifier_card(path), signals(100).load(torch.arange(93))
    assert path == tmp_path / "bars.safetensors"
    assert card["data"] == {"name": "bars train 0..92", "images": 93, "sha256": images_sha256(images)}
    assert card["accuracy"]["images"] == "bars train 93..99"
    training = card["training"]
    assert (training["steps"], training["command"], training["hardware"], training["minutes"]) == (1, "a command", hardware(), pytest.approx(0.0, abs=1.0))
    assert training["recipe"] == json.loads(json.dumps(asdict(replace(recipe_for("bars", (1, 18, 18)), seed=5))))
    assert training["packages"] == {"torch": torch.__version__, "python": platform.python_version()}
    assert card["shape"] == [1, 18, 18]
    assert told[-1].startswith("step 1, ")
    assert (tmp_path / "run" / loop.CHECKPOINT).exists()


@pytest.mark.parametrize("steps", [None, 7])
def test_the_trainer_hands_on_what_it_was_asked_for(steps: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Run:
        def __init__(self, *given: Any, **more: Any) -> None:
            seen.extend([given[2:], more, len(given[0]), given[1].tolist()])

    monkeypatch.setattr(classifier, "ClassifierTraining", Run)
    monkeypatch.setattr(loop, "run", lambda run, folder, progress: seen.extend([folder, progress]))
    monkeypatch.setattr(classifier, "export", lambda run, held_out, *rest: (seen.extend([held_out[1].tolist(), rest]), rest[0])[1])
    asked = options(tmp_path, steps=steps, seed=9, device="cuda:1", command="a command")
    assert train(signals(25), **asked) == asked["out"]
    recipe = replace(classifier.RECIPES["mnist"], seed=9)
    assert seen[:4] == [(recipe, tmp_path / "run"), {"steps": steps, "device": "cuda:1"}, 23, [i % 2 for i in range(23)]]
    assert seen[4:] == [tmp_path / "run", asked["progress"], [1, 0], (asked["out"], "bars", "a command")]
    for option, place in (("--out", "out"), ("--folder", "folder")):
        (tmp_path / "file").touch()
        with pytest.raises(SepbenchError, match=f"choose another place with {option}"):
            train(signals(25), **{**asked, place: tmp_path / "file" / "x"})


@pytest.mark.parametrize(("given", "option"), [({"labels": (0,)}, "--labels"), ({"minutes": 2.0}, "--minutes"), ({"init": Path("x")}, "--init")])
def test_words_for_options_that_mean_nothing(given: dict[str, object], option: str, tmp_path: Path) -> None:
    with pytest.raises(SepbenchError) as refused:
        train(signals(40), **options(tmp_path, **given))
    assert str(refused.value) == f"a classifier is trained on all classes, from fresh weights, for a number of steps; leave out {option}"
    assert not (tmp_path / "run").exists()


def test_rates_warm_up_and_fall_to_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five steps two warm up, and the other three fall by a third each."""
    training, shares = ClassifierTraining(*bars(8), replace(RECIPE, batch=4, warmup=0.4), tmp_path, steps=5), list[float]()
    monkeypatch.setattr(training.optimiser, "step", shares.append)
    while not training.finished:
        training.advance()
    assert shares == pytest.approx([0.5, 1.0, 1.0, 2 / 3, 1 / 3])
