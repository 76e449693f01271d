"""``sepbench train vqvae`` and ``tokens``: a folder that ``lass`` takes, cards that say what is in it, and requests that mean nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from method_toys import context, toy_task

from baselines.priors.shipped_tokens import CARD, FILES, read_card
from baselines.training import token_trainers
from baselines.training.token_models import LearntTokens
from baselines.training.token_trainers import train_tokens, train_vqvae
from sepbench.data.datasets import open_dataset
from sepbench.errors import SepbenchError


def call(trainer: Callable[..., Path], folder: Path, out: str, **changes: Any) -> Path:
    asked: dict[str, Any] = {"labels": (), "steps": 3, "minutes": None, "init": None, "seed": 0, "device": "cpu", "command": "sepbench train"}
    places = {"folder": folder / f"work-{trainer.__name__}", "out": folder / out}
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
