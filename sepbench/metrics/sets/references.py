"""The images that a task's estimates are held against, and their features, kept in the cache folder.

The reference is the whole training split of the task's data sets, cut to the classes of its scored sources (the part that is held out for
validation included): for CIFAR-10 all 50,000 training images, the set with which published inception scores of CIFAR-10 and FIDs of NCSN
were computed. The paper does not name it; see docs/set_metrics.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open

from sepbench.data.files.fetch import cache_folder
from sepbench.errors import DataError
from sepbench.files import check_readable, write_atomically
from sepbench.metrics.sets.extractors import FeatureExtractor, eight_bits, extracted
from sepbench.metrics.sets.features import SetReference
from sepbench.metrics.sets.frechet import FrechetReference
from sepbench.metrics.sets.moments import Moments, moments_of
from sepbench.torch_later import torch

if TYPE_CHECKING:
    from sepbench.suites.model import Task

_IMAGES_AT_ONCE = 2_048
FOLDER = "references"


@dataclass(frozen=True, slots=True)
class KeptReference:
    """A reference's features in a file.

    Attributes:
        key: digest of extractor and images, the file's name.
        path: the file.
    """

    key: str
    path: Path


def keep_reference(task: Task, extractor: FeatureExtractor, device: str) -> KeptReference:
    """The reference of a task, made if the cache folder does not have it.

    Raises:
        UnsupportedTaskError: the task has no training split.
        DataError: data or weights are missing, or the cache folder cannot be written.
    """
    digest = hashlib.sha256(extractor.digest().encode())
    for images in _images(task):
        digest.update(images.numpy().tobytes())
    key = f"{extractor.info.name}-{digest.hexdigest()[:16]}"
    path = cache_folder() / FOLDER / f"{key}.safetensors"
    if not path.is_file():
        features = torch.cat([extracted(extractor, images, device)[0] for images in _images(task)])
        moments = moments_of(part.numpy() for part in features.split(_IMAGES_AT_ONCE))
        tensors = {"features": features, "mean": torch.from_numpy(moments.mean), "scatter": torch.from_numpy(moments.scatter)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            from safetensors.torch import save_file  # imports torch

            write_atomically(path, lambda temporary: save_file(tensors, temporary, {"images": str(moments.count)}))
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}; choose a writable cache folder with SEPBENCH_CACHE") from error
    return KeptReference(key, path)


def _images(task: Task) -> Iterator[torch.Tensor]:
    """The reference images in parts, uint8."""
    for signals, rows, transform in task.reference():
        for part in rows.split(_IMAGES_AT_ONCE):
            yield eight_bits(transform(signals.load(part)))


def read_reference(path: Path) -> SetReference:
    """A kept reference.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        check_readable(path)
        with safe_open(path, "np") as file:
            features, mean, scatter = (np.asarray(file.get_tensor(name)) for name in ("features", "mean", "scatter"))
    except (SafetensorError, OSError) as error:
        raise DataError(f"the reference features {path} cannot be read ({error}); `sepbench score` of the run makes them again") from error
    return SetReference(FrechetReference(Moments(len(features), mean, scatter)), features)
