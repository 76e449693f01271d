"""Token models that ship: found by data and shape, checked against their card, and left alone where somebody asks for another fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from method_toys import Digits, ToyView, context, toy_task

from baselines.priors import shipped_tokens
from baselines.priors.shipped_tokens import CARD, FILES, find_tokens, read_card, shipped_digest
from baselines.training.token_models import LearntTokens
from sepbench.errors import DataError
from sepbench.files import file_sha256
from sepbench.suites.loader import load_suite

TASK = replace(toy_task(), datasets=("toys", "toys"))
TINY: Mapping[str, Any] = {"codec_epochs": 1, "prior_epochs": 1, "passes": 1, "codec_batch": 32, "prior_batch": 32, "held_out": 20}


def learn(digits: Digits, **settings: Any) -> LearntTokens:
    method = LearntTokens(**settings)
    method.fit(ToyView(TASK, "prior", pooled=digits.pooled[:150]), context(TASK))
    return method


@pytest.fixture
def ships(digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LearntTokens:
    """A fit that ships for the toys; returns it."""
    monkeypatch.setattr(shipped_tokens, "FOLDER", tmp_path / "weights")
    method, folder = learn(digits, **TINY, weights="train"), tmp_path / "weights" / "toys"
    folder.mkdir(parents=True)
    method.save(folder)
    card = {"dataset": "toys", "shape": TASK.source_shape, "files": {name: file_sha256(folder / name) for name in FILES}}
    (folder / CARD).write_text(json.dumps(card))
    return method


def test_what_ships_is_used_where_no_setting_of_the_fit_is_given(digits: Digits, ships: LearntTokens) -> None:
    assert learn(digits).weights_sha256 == ships.weights_sha256
    other = learn(digits, **{**TINY, "passes": 2})
    assert other.weights_sha256 != ships.weights_sha256, "a setting that was asked for counts"
    found = find_tokens(TASK)
    assert found is not None
    assert find_tokens(replace(TASK, datasets=("toys", "others"))) is None
    assert find_tokens(replace(TASK, source_shape=(1, 16, 16))) is None


def test_a_folder_of_ones_own(digits: Digits, tmp_path: Path) -> None:
    method = learn(digits, **TINY)
    method.save(tmp_path)
    assert learn(digits, weights=str(tmp_path)).weights_sha256 == method.weights_sha256
    before = LearntTokens(weights=str(tmp_path)).weights_sha256
    (tmp_path / FILES[2]).write_bytes(b"changed")
    assert LearntTokens(weights=str(tmp_path)).weights_sha256 != before, "a kept fit of other files is not taken for theirs"
    with pytest.raises(DataError, match="no such folder; it must hold codec"):
        learn(digits, weights=str(tmp_path / "elsewhere"))


def test_another_version_of_what_ships_is_another_fit(ships: LearntTokens) -> None:
    """The key of a kept fit holds the digest that a method has before it is fitted."""
    before = LearntTokens().weights_sha256
    assert before
    assert LearntTokens(weights="train").weights_sha256 == LearntTokens(**TINY).weights_sha256 == ""
    card = shipped_tokens.FOLDER / "toys" / CARD
    card.write_text(card.read_text().replace(read_card(card.parent).sha256[FILES[0]], "0" * 64))
    assert LearntTokens().weights_sha256 not in ("", before)


def test_damage_is_told_in_one_line(digits: Digits, ships: LearntTokens) -> None:
    path = shipped_tokens.FOLDER / "toys" / FILES[2]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="not the file of its card"):
        learn(digits)


@pytest.mark.parametrize("card", sorted(shipped_tokens.FOLDER.glob(f"*/{CARD}")), ids=lambda path: path.parent.name)
def test_folders_that_ship_are_those_of_their_cards_and_small(card: Path) -> None:
    read_card(card.parent).check()
    assert all(path.stat().st_size <= 8_000_000 for path in card.parent.iterdir())


def test_mnist_ships() -> None:
    task = load_suite("mnist-lass").tasks["permuted"].spec
    found = find_tokens(task)
    assert found is not None
    assert found.folder.name == "lass-mnist"


def _folder(weights: Path, name: str, dataset: str, shape: tuple[int, ...] = (1, 8, 8)) -> Path:
    """Files that hold their names, and their card."""
    folder = weights / name
    folder.mkdir(parents=True)
    for file in FILES:
        (folder / file).write_text(f"{name} {file}")
    digests = {file: file_sha256(folder / file) for file in FILES}
    (folder / CARD).write_text(json.dumps({"dataset": dataset, "shape": shape, "files": digests}))
    return folder


def test_digests_of_what_ships_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped_tokens, "FOLDER", tmp_path)
    assert shipped_digest() == ""
    assert find_tokens(TASK) is None
    told = []
    for name in ("b", "a"):
        folder = _folder(tmp_path, name, f"toys-{name}")
        of_files = [sha256(f"{name} {file}".encode()).hexdigest() for file in ("codec.safetensors", "prior.safetensors", "sums.safetensors")]
        told.insert(0, sha256(" ".join(of_files).encode()).hexdigest())
        assert read_card(folder).digest == told[0]
    assert shipped_digest() == sha256(" ".join(told).encode()).hexdigest()
    for name in ("a", "b"):
        found = find_tokens(replace(TASK, datasets=(f"toys-{name}",) * 2))
        assert found is not None
        assert (found.folder, found.dataset, found.shape) == (tmp_path / name, f"toys-{name}", (1, 8, 8))
    assert find_tokens(replace(TASK, datasets=("toys-a", "toys-b"))) is None
    assert find_tokens(replace(TASK, datasets=())) is None


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("fault", ["missing", "other"])
def test_every_file_is_compared_with_the_card(tmp_path: Path, file: str, fault: str) -> None:
    folder = _folder(tmp_path, "a", "toys")
    card = read_card(folder)
    card.check()
    (folder / file).unlink() if fault == "missing" else (folder / file).write_text("other")
    with pytest.raises(DataError) as told:
        card.check()
    assert str(told.value) == f"{folder / file} is not the file of its card; install sepbench again, or learn with --set METHOD.weights=train"


def test_a_folder_without_a_card(tmp_path: Path) -> None:
    with pytest.raises(DataError) as told:
        read_card(tmp_path)
    assert str(told.value) == f"{tmp_path / CARD} cannot be read as a card of token models (FileNotFoundError)"
