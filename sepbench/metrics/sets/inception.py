"""The extractor of published FIDs: InceptionV3 with the weights of 2015, by torch-fidelity (its ``inception-v3-compat``).

Images of any size, grey ones with their channel three times; torch-fidelity resizes them to 299 x 299 as TensorFlow 1 did. Features are the 2,048 of
the last pooling, logits those without the bias of the last layer, as the published inception scores have them. The weights (96 MB) are no part of
sepbench: ``data_manifests/extractors.toml`` says where they come from and what their SHA-256 is.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sepbench.compat import import_torch_fidelity
from sepbench.data.files.fetch import fetch
from sepbench.data.files.manifests import load_manifest
from sepbench.errors import DataError
from sepbench.files import file_sha256
from sepbench.metrics.sets.extractors import ExtractorInfo
from sepbench.precision import float32_products

_MANIFEST = "extractors"
_CODE_VERSION = "torch-fidelity inception-v3-compat, float32, 1"
_LAYERS = ["2048", "logits_unbiased"]


class InceptionV3:
    """See the top of this file."""

    info = ExtractorInfo("inception", 2048, 1008, (), "InceptionV3 of 2015 by torch-fidelity: 299 x 299 as TensorFlow 1 resizes, grey three times")

    @cached_property
    def _weights(self) -> str:
        manifest = load_manifest(_MANIFEST)
        return str(fetch(manifest) / manifest.files[0].name)

    def digest(self) -> str:
        """See ``FeatureExtractor``."""
        return f"{file_sha256(Path(self._weights))} {_CODE_VERSION}"

    @cached_property
    def _networks(self) -> dict[str, Any]:
        return {}

    def _network(self, device: str) -> Any:
        if device not in self._networks:
            extractors = import_torch_fidelity("feature_extractor_inceptionv3")
            try:
                network = extractors.FeatureExtractorInceptionV3("inception-v3-compat", _LAYERS, feature_extractor_weights_path=self._weights)
            except RuntimeError as error:
                raise DataError(
                    f"{self._weights} does not fit torch-fidelity's InceptionV3 ({type(error).__name__}); install torch-fidelity 0.3 or later"
                ) from error
            self._networks[device] = network.to(device)
        return self._networks[device]

    def extract(self, images: torch.Tensor, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``FeatureExtractor``."""
        with torch.no_grad(), float32_products(device):
            colour = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
            features, logits = self._network(device)(colour.to(device).contiguous())
        return features.float().cpu(), logits.float().cpu()


INCEPTION = InceptionV3()
