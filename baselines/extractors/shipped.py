"""The extractors that ship with their weights: small classifiers, trained by ``sepbench train classifier`` (``baselines/training/classifier.py``).

Features are the mean over the network's last map, logits those of its classes. Their accuracy on images that no step saw stands on the cards,
``baselines/weights/cifarnet.json`` and ``mnistnet.json``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from baselines.extractors.classifier_io import load_classifier
from baselines.networks.classifier import SmallClassifier
from baselines.priors.shipped import FOLDER
from sepbench.files import file_sha256
from sepbench.metrics.sets.extractors import ExtractorInfo
from sepbench.precision import float32_products

_CODE_VERSION = "small-classifier, float32, 1"


@dataclass(eq=False)
class ClassifierFeatures:
    """A ``FeatureExtractor`` from a trained classifier.

    Attributes:
        info: see ``ExtractorInfo``.
        path: the weights.
    """

    info: ExtractorInfo
    path: Path
    _networks: dict[str, SmallClassifier] = field(default_factory=dict, init=False, repr=False)
    _digest: str = field(default="", init=False, repr=False)

    def digest(self) -> str:
        """See ``FeatureExtractor``."""
        if not self._digest:
            load_classifier(self.path)  # says in one line what is wrong with the file
            self._digest = f"{file_sha256(self.path)} {_CODE_VERSION}"
        return self._digest

    def extract(self, images: torch.Tensor, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``FeatureExtractor``."""
        if device not in self._networks:
            self._networks[device] = load_classifier(self.path).to(device)
        network = self._networks[device]
        with torch.no_grad(), float32_products(device):
            features = network.features(images.to(device, torch.float32) / 255.0)
            return features.cpu(), network.head(features).cpu()


def _shipped(name: str, features: int, shape: tuple[int, int, int], data: str) -> ClassifierFeatures:
    info = ExtractorInfo(name, features, 10, shape, f"a small classifier of our own, trained on {data}; images as they are")
    return ClassifierFeatures(info, FOLDER / f"{name}.safetensors")


CIFARNET = _shipped("cifarnet", 256, (3, 32, 32), "CIFAR-10")
MNISTNET = _shipped("mnistnet", 128, (1, 28, 28), "MNIST")
