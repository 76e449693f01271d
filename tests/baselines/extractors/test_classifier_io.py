"""Classifiers on disk, and those that ship: how good they are on images that nobody trained on, and that an image's features are its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from baselines.extractors import shipped
from baselines.extractors.classifier_io import load_classifier, read_classifier_card, save_classifier
from baselines.extractors.shipped import CIFARNET, MNISTNET, ClassifierFeatures
from baselines.networks.classifier import ClassifierConfig, SmallClassifier
from baselines.training.classifier import accuracy
from sepbench.data.datasets import open_dataset
from sepbench.errors import DataError
from sepbench.files import file_sha256
from sepbench.metrics.sets.extractors import extracted

SHIPPED = {"cifar10": (CIFARNET, 0.91), "mnist": (MNISTNET, 0.994)}


def saved(path: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = SmallClassifier(ClassifierConfig(1, (4, 4, 4), 3))
    return save_classifier(path, network, (1, 20, 20), {"accuracy": {}})


def test_what_is_written_is_read_as_float16(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors")
    network, again = load_classifier(path), load_classifier(save_classifier(tmp_path / "b.safetensors", load_classifier(path), (1, 20, 20), {"accuracy": {}}))
    images = torch.rand(2, 1, 20, 20, generator=torch.Generator().manual_seed(1))
    assert torch.equal(network(images), again(images))
    assert not network.training


@pytest.mark.parametrize("fault", ["no card", "no weights", "other weights", "other layout", "no JSON"])
def test_broken_files_are_one_line(tmp_path: Path, fault: str) -> None:
    path = saved(tmp_path / "a.safetensors")
    card = path.with_suffix(".json")
    if fault == "no card":
        card.unlink()
    elif fault == "no weights":
        path.unlink()
    elif fault == "other weights":
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    elif fault == "other layout":
        card.write_text(json.dumps({**json.loads(card.read_text()), "network": {"channels": 1, "widths": [4, 4, 8], "classes": 3}}))
    else:
        card.write_text("{")
    with pytest.raises(DataError) as refused:
        load_classifier(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("data", SHIPPED)
def test_cards_promise_the_accuracy_that_the_metrics_need(data: str) -> None:
    extractor, least = SHIPPED[data]
    card = read_classifier_card(extractor.path)
    assert card["accuracy"]["value"] >= least
    assert tuple(card["shape"]) == extractor.info.shape
    assert card["network"]["widths"][-1] == extractor.info.features
    assert extractor.path.stat().st_size < 8_000_000


@pytest.mark.slow
@pytest.mark.parametrize("data", SHIPPED)
def test_shipped_classifiers_are_as_good_on_the_test_split(data: str) -> None:
    try:
        test = open_dataset(data, "test")
    except DataError as error:
        pytest.skip(str(error))
    extractor, least = SHIPPED[data]
    assert accuracy(load_classifier(extractor.path), test.load(torch.arange(len(test))), test.labels) >= least


@pytest.mark.parametrize("extractor", [CIFARNET, MNISTNET], ids=lambda extractor: extractor.info.name)
def test_an_image_has_the_same_features_beside_any_others(extractor: ClassifierFeatures) -> None:
    images = torch.randint(0, 256, (70, *extractor.info.shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    features, logits = extracted(extractor, images, "cpu")
    order = torch.randperm(70, generator=torch.Generator().manual_seed(1))
    shuffled, _ = extracted(extractor, images[order], "cpu")
    assert torch.equal(shuffled, features[order])
    alone, _ = extracted(extractor, images[:1], "cpu")
    assert torch.equal(alone, features[:1])
    torch.testing.assert_close(logits, load_classifier(extractor.path).head(features))


def test_a_card_says_what_the_file_is(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = SmallClassifier(ClassifierConfig(1, (4, 5, 6), 3))
    path = save_classifier(tmp_path / "own.safetensors", network, (1, 20, 24), {"accuracy": {"value": 0.5}})
    card = json.loads(path.with_suffix(".json").read_text())
    layout = {"channels": 1, "widths": [4, 5, 6], "classes": 3}
    count = sum(p.numel() for p in network.parameters())
    own = {"format": 1, "kind": "small-classifier", "name": "own", "shape": [1, 20, 24], "network": layout, "parameters": count}
    assert card == {**own, "accuracy": {"value": 0.5}, "stored": "float16", "weights_sha256": file_sha256(path), "bytes": path.stat().st_size}
    assert read_classifier_card(path) == card
    stored = load_file(path)
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert set(stored) == {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
    loaded = load_classifier(path)
    assert loaded.config == network.config
    assert not any(p.requires_grad for p in loaded.parameters())
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name].half().to(value.dtype), msg=name)


def test_words_for_files_that_are_wrong(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors")
    card = path.with_suffix(".json")
    entries = json.loads(card.read_text())

    def says() -> str:
        with pytest.raises(DataError) as refused:
            load_classifier(path)
        return str(refused.value)

    good, found = path.read_bytes(), file_sha256(path)
    card.write_text(json.dumps(entries | {"weights_sha256": "0123456789"}))
    assert says() == f"{path} has digest {found[:8]}, its card says 01234567; copy both files again"
    for missing in ("network", "shape", "weights_sha256", "accuracy"):
        card.write_text(json.dumps({key: value for key, value in entries.items() if key != missing}))
        assert says() == f"{card} is no card of a classifier that this version reads; train one with `sepbench train classifier`"
    card.write_text("[]")
    assert says() == f"{card} is no card of a classifier that this version reads; train one with `sepbench train classifier`"
    card.write_text(json.dumps(entries | {"network": {"widths": [4, 4, 4], "depth": 3}}))
    assert says() == f"{path} cannot be read as a classifier (TypeError); copy weights and card again"
    card.write_text(json.dumps(entries | {"network": {**entries["network"], "classes": 4}}))
    assert says() == f"{path} cannot be read as a classifier (RuntimeError); copy weights and card again"
    card.write_text(json.dumps(entries | {"network": {**entries["network"], "classes": 1}}))
    assert says() == f"{path} cannot be read as a classifier (ValueError); copy weights and card again"
    path.write_bytes(b"nothing")
    card.write_text(json.dumps(entries | {"weights_sha256": file_sha256(path)}))
    assert says() == f"{path} cannot be read as a classifier (SafetensorError); copy weights and card again"
    path.unlink()
    assert says() == f"{path} cannot be read as a classifier (FileNotFoundError); copy weights and card again"
    card.write_text("{")
    assert says() == f"{card} cannot be read (JSONDecodeError): the card must lie beside the weights; copy both files"
    path.write_bytes(good)
    card.write_text(json.dumps(entries))
    assert not load_classifier(path).training


def test_networks_are_read_once_for_each_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = saved(tmp_path / "a.safetensors"), list[Path]()
    own = ClassifierFeatures(CIFARNET.info, path)
    load = shipped.load_classifier
    monkeypatch.setattr(shipped, "load_classifier", lambda place: (read.append(place), load(place))[1])
    images = torch.randint(0, 256, (2, 1, 20, 20), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for _ in range(2):
        features, logits = own.extract(images, "cpu")
    assert read == [path]
    assert not features.requires_grad
    assert not logits.requires_grad
    for _ in range(2):
        own.digest()
    assert read == [path, path]
    path.write_bytes(b"changed")
    assert own.digest().endswith(" small-classifier, float32, 1")
    with pytest.raises(DataError):
        ClassifierFeatures(CIFARNET.info, path).digest()


def test_what_ships_says_what_it_was_trained_on() -> None:
    for extractor, data in ((CIFARNET, "CIFAR-10"), (MNISTNET, "MNIST")):
        assert extractor.info.source == f"a small classifier of our own, trained on {data}; images as they are"
