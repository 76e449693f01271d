"""Weights of classifiers on disk: ``NAME.safetensors`` and, beside it, the card ``NAME.json`` that says where they come from and how good they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from baselines.networks.classifier import ClassifierConfig, SmallClassifier
from baselines.priors.weights_io import write_weights
from sepbench.errors import DataError
from sepbench.files import file_sha256

KIND = "small-classifier"
CARD_FORMAT = 1


def save_classifier(path: Path, network: SmallClassifier, shape: tuple[int, int, int], facts: Mapping[str, Any] | None = None) -> Path:
    """Write weights (float16) and card.

    Args:
        path: ``.../NAME.safetensors``.
        network: what to write.
        shape: ``(C, H, W)`` of the images it is for.
        facts: JSON-able entries of the card about data, training and accuracy.
    """
    card = {
        "format": CARD_FORMAT,
        "kind": KIND,
        "name": path.stem,
        "shape": list(shape),
        "network": asdict(network.config),
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    tensors = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    return write_weights(path, tensors, {**card, **(facts or {})}, torch.float16)


def read_classifier_card(path: Path) -> dict[str, Any]:
    """The card of the weights at ``path``.

    Raises:
        DataError: it is missing, or no card of a classifier.
    """
    card_path = path.with_suffix(".json")
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{card_path} cannot be read ({type(error).__name__}): the card must lie beside the weights; copy both files") from None
    needed = ("network", "shape", "weights_sha256", "accuracy")
    if not isinstance(card, dict) or (card.get("format"), card.get("kind")) != (CARD_FORMAT, KIND) or any(key not in card for key in needed):
        raise DataError(f"{card_path} is no card of a classifier that this version reads; train one with `sepbench train classifier`")
    return card


def load_classifier(path: Path) -> SmallClassifier:
    """The network at ``path``, float32, in eval mode.

    Raises:
        DataError: the file is missing, is not the one its card speaks of, or does not fit the card's layout.
    """
    card = read_classifier_card(path)
    try:
        found = file_sha256(path)
        if found != card["weights_sha256"]:
            raise DataError(f"{path} has digest {found[:8]}, its card says {str(card['weights_sha256'])[:8]}; copy both files again")
        tensors = {name: value.to(torch.float32) for name, value in load_file(path).items()}
        layout: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in card["network"].items()}
        network = SmallClassifier(ClassifierConfig(**layout))
        missing, extra = network.load_state_dict(tensors, strict=False)
    except (OSError, SafetensorError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read as a classifier ({type(error).__name__}); copy weights and card again") from None
    if extra or any(not name.endswith("num_batches_tracked") for name in missing):
        raise DataError(f"{path} does not fit the layout on its card; weights and card belong to different networks")
    return network.eval().requires_grad_(False)
