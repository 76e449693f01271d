"""Every prior that ships is listed, whole, small enough, and does what its card says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from method_toys import toy_task

from baselines.priors import shipped
from baselines.priors.score_prior import EDMPrior
from baselines.priors.shipped import FOLDER, ShippedWeights, find_weights, shipped_weights
from baselines.priors.weights_io import KINDS, MAX_BYTES, load_prior, read_card
from baselines.training.samples import draw_samples
from sepbench.errors import DataError
from sepbench.noise import NoiseSource
from sepbench.suites.loader import load_suite


def test_every_file_is_listed_and_every_entry_is_a_file() -> None:
    cards = {path.stem: json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) for path in FOLDER.glob("*.safetensors")}
    assert {entry.name for entry in shipped_weights()} == {name for name, card in cards.items() if card["kind"] in KINDS}
    assert {name for name, card in cards.items() if card["kind"] not in KINDS} == {"cifarnet", "mnistnet"}


@pytest.mark.parametrize("entry", shipped_weights(), ids=lambda entry: entry.name)
def test_it_loads_and_denoises(entry: ShippedWeights) -> None:
    assert entry.path.stat().st_size <= MAX_BYTES
    prior = load_prior(entry.path, entry.sha256)
    assert isinstance(prior, EDMPrior)
    card = read_card(entry.path)
    assert {"data", "training", "held_out_loss"} <= set(card)
    assert card["sample_check"]["ratio"] > 0.8  # copies of training images would stand far nearer to them than to held-out ones
    start = prior.denoiser.mean, prior.denoiser.sigma_data
    clean = draw_samples(prior, 4, NoiseSource(5), steps=12, start=start).clamp(0, 1)
    noise = 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    assert float((prior.denoise(clean + noise, 0.1) - clean).square().mean()) < 0.5 * float(noise.square().mean())


def test_a_task_finds_the_prior_of_its_data_and_shape_only() -> None:
    spec = load_suite("mnist-pairs").tasks["class-split"].spec
    listed = [entry for entry in shipped_weights() if entry.dataset == "mnist" and not entry.classes]
    assert find_weights(spec, 0) == (listed[0] if listed else None)
    assert find_weights(load_suite("bags-shoes-mini").tasks["x-bags"].spec, 0) is None


def test_a_task_that_pads_its_images_finds_the_prior_of_the_images() -> None:
    spec = load_suite("mnist-nes").tasks["x-5-9"].spec
    assert (spec.padding, spec.source_shape, spec.unpadded_shape) == (2, (1, 32, 32), (1, 28, 28))
    found = [find_weights(spec, slot, per_class=True) for slot in (0, 1)]
    assert [entry and (entry.name, entry.shape) for entry in found] == [("mnist-5-9", (1, 28, 28)), ("mnist-0-4", (1, 28, 28))]
    assert find_weights(replace(spec, padding=0), 0) is None
    assert find_weights(replace(spec, padding=1), 0) is None


def test_a_slot_has_the_prior_of_its_own_data_class_and_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that fits."""
    kinds = [("one", "", (1, 4, 4)), ("one", "a", (1, 8, 8)), ("two", "", (1, 8, 8)), ("one", "", (1, 8, 8)), ("two", "b", (1, 8, 8)), ("one", "", (1, 8, 8))]
    entries = [ShippedWeights(f"{number}", *kind, "digest") for number, kind in enumerate(kinds)]
    monkeypatch.setattr(shipped, "shipped_weights", lambda: entries)
    task = replace(toy_task(), datasets=("one", "two"))
    assert [find_weights(task, slot) for slot in (0, 1)] == [entries[3], entries[2]]
    assert [find_weights(task, slot, per_class=True) for slot in (0, 1)] == [entries[1], entries[4]]
    swapped = replace(task, datasets=("two", "one"))
    assert [find_weights(swapped, slot, per_class=True) for slot in (0, 1)] == [None, None]
    assert find_weights(replace(task, source_shape=(3, 8, 8)), 0) is None
    assert find_weights(toy_task(), 0) is None
    assert entries[2].path == FOLDER / "2.safetensors"


@pytest.mark.parametrize("text", ["weights = [", "weights = 3", '[[weights]]\nname = "a"', "[weights]\nname = 1"])
def test_a_damaged_list_of_weights_says_what_to_do(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "resource_root", lambda name: tmp_path / name)
    assert shipped_weights() == [], "there is none"
    path = tmp_path / "data_manifests" / "weights.toml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        shipped_weights()
    assert str(caught.value).startswith(f"{path} is damaged (")
    assert str(caught.value).endswith("); install sepbench again")
