"""Classifiers on disk, and those that ship: how good they are on images that nobody trained on, and that an image's features are its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from baselines.extractors.classifier_io import load_classifier, read_classifier_card, save_classifier
from baselines.extractors.shipped import CIFARNET, MNISTNET, ClassifierFeatures
from baselines.networks.classifier import ClassifierConfig, SmallClassifier
from baselines.training.classifier import accuracy
from sepbench.data.datasets import open_dataset
from sepbench.errors import DataError
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
