"""``sepbench train vqvae`` and ``tokens``: a folder that ``lass`` takes, cards that say what is in it, and requests that mean nothing."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from method_toys import context, toy_task

from baselines.priors.shipped_tokens import CARD, FILES, read_card
from baselines.priors.weights_io import images_sha256
from baselines.training import token_models, token_trainers
from baselines.training.codec import figures, network_digest, new_vqvae, tokens_of
from baselines.training.score import hardware, material
from baselines.training.token_models import LearntTokens, load_network
from baselines.training.token_trainers import train_tokens, train_vqvae
from baselines.training.tokens import bits_per_token, new_transformer
from sepbench.data.datasets import open_dataset
from sepbench.errors import SepbenchError
from sepbench.files import file_sha256


def call(trainer: Callable[..., Path], folder: Path, out: str, places: Mapping[str, Path] = {}, **changes: Any) -> Path:
    asked: dict[str, Any] = {"labels": (), "steps": 3, "minutes": None, "init": None, "seed": 0, "device": "cpu", "command": "sepbench train"}
    places = {"folder": folder / f"work-{trainer.__name__}", "out": folder / out, **places}
    return trainer(open_dataset("digits", "train"), **{**asked, **places, **changes}, progress=lambda fraction, text: None)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"CODES": 12, "WIDTH": 8, "PRIOR_WIDTH": 8, "PRIOR_LAYERS": 1, "PASSES": 2}.items():
        monkeypatch.setattr(token_trainers, name, value)


@pytest.mark.usefixtures("small")
def test_a_codec_and_its_tokens_make_a_folder_that_lass_takes(tmp_path: Path) -> None:
    codec = call(train_vqvae, tmp_path, "codec.safetensors")
    card = json.loads(codec.with_suffix(".json").read_text())
    assert card["steps"] == 3
    assert {"psnr", "codes", "perplexity", "psnr_of_means"} <= set(card["figures"])
    folder = call(train_tokens, tmp_path, "mine.safetensors", init=codec)
    assert folder == tmp_path / "mine"
    read_card(folder).check()
    told = json.loads((folder / CARD).read_text())
    assert 0 < told["figures"]["bits_per_token"] < 5
    assert told["figures"]["density_percent"] > 0
    assert told["codec"]["steps"] == 3
    method = LearntTokens(codes=12, width=8, prior_width=8, prior_layers=1)
    method.load(folder, context(toy_task()))
    assert sorted(path.name for path in folder.glob("*.safetensors")) == sorted(FILES)


@pytest.mark.usefixtures("small")
def test_the_same_command_goes_on(tmp_path: Path) -> None:
    whole = call(train_vqvae, tmp_path / "whole", "codec.safetensors", steps=4)
    call(train_vqvae, tmp_path / "part", "codec.safetensors", steps=4)
    (tmp_path / "part" / "codec.safetensors").unlink()
    assert call(train_vqvae, tmp_path / "part", "codec.safetensors", steps=4).read_bytes() == whole.read_bytes()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("changes", [{"seed": 9}, {"steps": 2}], ids=str)
def test_another_request_does_not_take_the_checkpoint(tmp_path: Path, changes: dict[str, Any]) -> None:
    call(train_vqvae, tmp_path, "codec.safetensors")
    with pytest.raises(SepbenchError, match=rf"another request .{next(iter(changes)) if 'steps' in changes else 'recipe, seed'}"):
        call(train_vqvae, tmp_path, "codec.safetensors", **changes)


@pytest.mark.usefixtures("small")
def test_tokens_of_another_codec_do_not_go_on(tmp_path: Path) -> None:
    one = call(train_vqvae, tmp_path, "codec.safetensors")
    other = call(train_vqvae, tmp_path / "other", "codec.safetensors", seed=1)
    call(train_tokens, tmp_path, "mine.safetensors", init=one)
    with pytest.raises(SepbenchError, match=r"another request .init"):
        call(train_tokens, tmp_path, "mine.safetensors", init=other)


@pytest.mark.parametrize(
    ("trainer", "changes", "told"),
    [
        (train_tokens, {}, "--init"),
        (train_vqvae, {"minutes": 1.0}, "--minutes"),
        (train_vqvae, {"labels": (77,)}, "classes 77"),
        (train_tokens, {"init": Path("nowhere.safetensors")}, "nowhere.safetensors is missing"),
    ],
)
def test_requests_that_mean_nothing_are_one_line(tmp_path: Path, trainer: Callable[..., Path], changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SepbenchError, match=told) as error:
        call(trainer, tmp_path, "out.safetensors", **changes)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("small")
def test_cards_say_all_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_trainers, "_HELD_OUT", 21)
    codec = call(train_vqvae, tmp_path, "codec.safetensors", labels=(0, 1, 2, 3), seed=3, steps=2, command="a command")
    card, data = json.loads(codec.with_suffix(".json").read_text()), material(open_dataset("digits", "train"), (0, 1, 2, 3))
    made = new_vqvae((1, 8, 8), 12, 8, 0, "cpu")
    load_network(made, codec)
    half = 0.5 * (data.held_out[:10] + data.held_out[10:20])
    figures_of = {**figures(made, data.held_out[:21]), "psnr_of_means": figures(made, half)["psnr"], "held_out": 21}
    shared = {"dataset": "digits", "shape": [1, 8, 8], "minutes": 0.0, "command": "a command", "hardware": hardware()}
    shared["data"] = {"name": data.name, "images": len(data.images), "sha256": images_sha256(data.images)}
    shared["packages"] = {"torch": torch.__version__, "python": platform.python_version()}
    recipe = replace(token_trainers.CODEC, seed=3)
    assert card | {"minutes": 0.0} == {
        **shared,
        "files": {"codec.safetensors": file_sha256(codec)},
        "figures": figures_of,
        "recipe": asdict(recipe),
        "steps": 2,
        "init": "",
    }

    told: list[tuple[float, str]] = []
    places = {"folder": tmp_path / "tokens", "out": tmp_path / "mine.safetensors", "progress": lambda done, text: told.append((done, text))}
    asked = {"labels": (0, 1, 2, 3), "steps": 2, "minutes": None, "init": codec, "seed": 4, "device": "cpu", "command": "another"}
    folder = train_tokens(open_dataset("digits", "train"), **asked, **places)  # type: ignore[arg-type]
    card, whole = json.loads((folder / CARD).read_text()), json.loads(codec.with_suffix(".json").read_text())
    found = LearntTokens(codes=12, width=8, prior_width=8, prior_layers=1)
    found.load(folder, context(toy_task()))
    models = found.fitted()
    bits = bits_per_token(models.prior, tokens_of(models.codec, data.held_out[:21]))
    assert card["figures"] == {**figures_of, "bits_per_token": round(bits, 4), "density_percent": round(100 * models.sums.density, 3)}
    assert card["recipe"] == {**asdict(replace(token_trainers.TOKENS, seed=4)), "passes": 2}
    assert (card["steps"], card["codec"], card["command"], card["dataset"]) == (2, whole, "another", "digits")
    assert card["files"] == {name: file_sha256(folder / name) for name in FILES}
    assert told[0][1].startswith("prior: step 2,")
    assert told[0][0] == pytest.approx(0.9)
    assert told[-1][1].startswith("sums: step ")
    assert told[-1][0] == 1.0
    assert sorted(path.name for path in (tmp_path / "tokens").iterdir()) == ["prior", "request.json", "sums"]
    request = json.loads((tmp_path / "tokens" / "request.json").read_text())
    assert request == {"seed": 4, "recipe": asdict(replace(token_trainers.TOKENS, seed=4)), "passes": 2, "steps": 2} | {
        "data": images_sha256(data.images),
        "init": file_sha256(codec),
    }


@pytest.mark.usefixtures("small")
def test_a_codec_starts_from_another_and_its_card_says_so(tmp_path: Path) -> None:
    first = call(train_vqvae, tmp_path / "a", "codec.safetensors", steps=1)
    second = call(train_vqvae, tmp_path / "b", "codec.safetensors", steps=1, init=first)
    fresh = call(train_vqvae, tmp_path / "c", "codec.safetensors", steps=1)
    assert first.read_bytes() == fresh.read_bytes() != second.read_bytes()
    card = json.loads(second.with_suffix(".json").read_text())
    assert card["init"] == str(first)
    first.with_suffix(".json").unlink()
    folder = call(train_tokens, tmp_path, "mine.safetensors", init=first, steps=1)
    assert json.loads((folder / CARD).read_text())["codec"] == str(first)


def test_requests_that_differ_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    asked = {"seed": 0, "recipe": {"lr": 0.5}, "steps": 3}
    for _ in range(2):
        token_trainers._same_request(folder, asked)
    with pytest.raises(SepbenchError) as refused:
        token_trainers._same_request(folder, {**asked, "seed": 1, "more": 2, "recipe": {"lr": 0.25}})
    names = "more, recipe, seed"
    assert str(refused.value) == f"{folder} holds a training of another request ({names}); ask for the same, or give another --folder"


@pytest.mark.parametrize(
    ("shape", "minutes", "says"),
    [
        ((1, 8, 8), 2.0, "token models are trained for a number of steps; leave out --minutes"),
        ((1, 8, 6), None, "data set 'mine' holds signals of shape (1, 8, 6); the codec takes images whose sides are multiples of 4"),
        ((1, 6, 8), None, "data set 'mine' holds signals of shape (1, 6, 8); the codec takes images whose sides are multiples of 4"),
        ((1, 64), None, "data set 'mine' holds signals of shape (1, 64); the codec takes images whose sides are multiples of 4"),
    ],
)
def test_words_for_what_the_codec_cannot_take(shape: tuple[int, ...], minutes: float | None, says: str) -> None:
    with pytest.raises(SepbenchError) as refused:
        token_trainers._material(SimpleNamespace(name="mine", shape=shape), (), minutes)  # type: ignore[arg-type]
    assert str(refused.value) == says


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("trainer", [train_vqvae, train_tokens])
def test_places_that_cannot_be_written_are_known_before_the_first_step(trainer: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for option, place in (("--out", "out"), ("--folder", "folder")):
        with pytest.raises(SepbenchError, match=f"choose another place with {option}"):
            call(trainer, tmp_path, "x.safetensors", init=tmp_path / "none", places={place: tmp_path / "file" / "x.safetensors"})


def test_bytes_are_255ths_for_the_codec() -> None:
    assert token_trainers._as_float(torch.tensor([0, 51], dtype=torch.uint8)).tolist() == pytest.approx([0.0, 0.2])
    assert token_trainers._as_float(torch.tensor([0.5])).tolist() == [0.5]


class _Stop(Exception):
    pass


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("steps", [None, 7])
def test_what_is_asked_for_is_what_is_trained(steps: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a number of steps, those of the recipe: 30 epochs of 800 // 128 batches, and 60 of 800 // 256."""
    seen: list[Any] = []

    def learn(*given: Any) -> None:
        seen.extend(given[:3])
        raise _Stop

    monkeypatch.setattr(token_trainers, "_learn", learn)
    with pytest.raises(_Stop):
        call(train_vqvae, tmp_path, "x.safetensors", steps=steps, seed=6)
    training, folder, device = seen
    assert (training.steps, folder, device) == (steps or 30 * 6, tmp_path / "work-train_vqvae", "cpu")
    assert training.recipe == replace(token_trainers.CODEC, seed=6)
    assert network_digest(training.network) == network_digest(new_vqvae((1, 8, 8), 12, 8, 6, "cpu"))
    assert (len(training.images), training.images.dtype, float(training.images.max())) == (800, torch.float32, 1.0)
    token_models.save_network(training.network, tmp_path / "codec.safetensors")
    seen.clear()
    with pytest.raises(_Stop):
        call(train_tokens, tmp_path, "x.safetensors", steps=steps, seed=6, init=tmp_path / "codec.safetensors")
    training, folder, device = seen
    assert (training.steps, folder, device) == (steps or 60 * 3, tmp_path / "work-train_tokens" / "prior", "cpu")
    assert training.recipe == replace(token_trainers.TOKENS, seed=6)
    assert network_digest(training.network) == network_digest(new_transformer(12, 4, 8, 1, 2, 6, "cpu"))


@pytest.mark.usefixtures("small")
def test_a_request_for_a_codec_is_of_data_start_recipe_and_steps(tmp_path: Path) -> None:
    first = call(train_vqvae, tmp_path / "a", "codec.safetensors", steps=1)
    call(train_vqvae, tmp_path / "b", "codec.safetensors", steps=1, init=first, seed=2, labels=(0, 1))
    asked = {"seed": 2, "recipe": asdict(replace(token_trainers.CODEC, seed=2)), "init": file_sha256(first), "steps": 1}
    request = json.loads((tmp_path / "b" / "work-train_vqvae" / "request.json").read_text())
    assert request == {**asked, "data": images_sha256(material(open_dataset("digits", "train"), (0, 1)).images)}


@pytest.mark.usefixtures("small")
def test_minutes_on_a_card_are_those_of_all_its_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_trainers, "_learn", lambda training, *rest: setattr(training, "seconds", 54.0))
    codec = call(train_vqvae, tmp_path, "codec.safetensors")
    folder = call(train_tokens, tmp_path, "mine.safetensors", init=codec)
    assert [json.loads(path.read_text())["minutes"] for path in (codec.with_suffix(".json"), folder / CARD)] == [0.9, 1.8]
