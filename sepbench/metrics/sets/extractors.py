"""What turns images into features: the contract, the installed extractors by name, and the one rule by which images are handed to them.

An extractor is registered by one line, an entry point of the group ``sepbench.extractors`` that names an object with ``FeatureExtractor``'s methods.

The rule, the same for estimates and references: values are cut to [0, 1] and rounded to 8 bits, ``floor(255 x + 0.5)``. What an extractor needs
besides (size, three channels) it does itself and says in its ``info``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, runtime_checkable

from sepbench.errors import MetricError
from sepbench.protocols import Support
from sepbench.registry import EXTRACTOR_GROUP, load_entry, points
from sepbench.torch_later import torch

BATCH = 64
"""Images per call. Always so many, the last call filled up with black ones: an image's features then do not depend on the images beside it."""


@dataclass(frozen=True, slots=True)
class ExtractorInfo:
    """What an extractor says of itself; asking for it reads no weights.

    Attributes:
        name: its key, the end of the metrics' names: ``cifarnet`` in ``fid_cifarnet``.
        features: number F of features.
        classes: number of classes whose logits it gives; 0 if it gives none (then it has no inception score).
        shape: ``(C, H, W)`` of the images it takes; empty: any with one or three channels.
        source: what it is, and how it treats images.
    """

    name: str
    features: int
    classes: int
    shape: tuple[int, ...]
    source: str

    def supports(self, shape: tuple[int, ...]) -> Support:
        """Whether it takes images of a shape; the reason in ``note`` if not, a verb phrase."""
        if len(shape) != 3 or shape[0] not in (1, 3):
            return Support(False, f"takes images of one or three channels, the task has signals of shape {shape}")
        if self.shape and tuple(shape) != self.shape:
            return Support(False, f"has features of images of shape {self.shape}, the task has {tuple(shape)}")
        return Support(True)


@runtime_checkable
class FeatureExtractor(Protocol):
    """Images to features. Weights are read when they are first needed."""

    @property
    def info(self) -> ExtractorInfo: ...

    def digest(self) -> str:
        """Of everything that the features depend on besides the images: weights, and a version of the code.

        Raises:
            DataError: the weights are not there; one line says where to put them.
        """

    def extract(self, images: torch.Tensor, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 images ``(BATCH, C, H, W)`` -> features ``(BATCH, F)`` and logits ``(BATCH, classes)``, float32 on the CPU.

        Raises:
            DataError: the weights are not there.
        """


def extractor_names() -> list[str]:
    """The installed extractors, sorted; imports nothing."""
    return sorted(points(EXTRACTOR_GROUP))


def get_extractor(name: str) -> FeatureExtractor:
    """The extractor of a name.

    Raises:
        UnknownNameError: no such extractor.
        MetricError: it cannot be loaded, or is none.
    """
    point = points(EXTRACTOR_GROUP).get(name)
    return _loaded(name, point.value if point else "")


@cache
def _loaded(name: str, value: str) -> FeatureExtractor:
    extractor: Any = load_entry(EXTRACTOR_GROUP, name)
    if not isinstance(extractor, FeatureExtractor) or isinstance(extractor, type):
        raise MetricError(f"extractor {name!r} ({type(extractor).__name__}) must be an object with info, digest and extract; see {__name__}")
    info: object = extractor.info
    if not isinstance(info, ExtractorInfo) or info.name != name:
        raise MetricError(f"extractor {name!r} must have an ExtractorInfo of that name as info")
    return extractor


def eight_bits(images: torch.Tensor) -> torch.Tensor:
    """Images ``(n, C, H, W)`` in [0, 1] as uint8, by the rule at the top of this file. NaN becomes black: who asks leaves such images out."""
    return (images.to(torch.float32).nan_to_num(0.0).clamp(0.0, 1.0) * 255.0 + 0.5).floor().to(torch.uint8)


def extracted(extractor: FeatureExtractor, images: torch.Tensor, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 images ``(n, C, H, W)`` -> features ``(n, F)`` and logits ``(n, classes)``, float32 on the CPU.

    Raises:
        DataError: the weights are not there.
        MetricError: the extractor does not return what it says.
    """
    info = extractor.info
    features, logits = torch.empty(len(images), info.features), torch.empty(len(images), info.classes)
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        filled = torch.cat([part, part.new_zeros(BATCH - len(part), *part.shape[1:])]) if len(part) < BATCH else part
        found = extractor.extract(filled, device)
        for what, values, width in (("features", found[0], info.features), ("logits", found[1], info.classes)):
            if tuple(values.shape) != (BATCH, width) or values.dtype != torch.float32 or values.device.type != "cpu":
                raise MetricError(f"extractor {info.name!r} must return {what} ({BATCH}, {width}) float32 on the CPU, got {values.dtype} {tuple(values.shape)}")
        features[start : start + len(part)], logits[start : start + len(part)] = found[0][: len(part)], found[1][: len(part)]
    return features, logits
