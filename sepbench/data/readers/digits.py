"""The 8 x 8 digits that ship with scikit-learn, checked against the digest in the manifest."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits

from sepbench.errors import DataError

LEVELS = 16  # pixel values run from 0 to 16
N_TRAIN = 1000  # scikit-learn has no split; this one is ours, see data_manifests/digits.toml


def _arrays() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    bunch = load_digits()
    images, labels = np.asarray(bunch.images), np.asarray(bunch.target)
    return images.astype(np.uint8), labels.astype(np.uint8)


def _digest(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


def digits_sha256() -> str:
    """sha256 of the 1,797 x 64 pixel values (uint8, C order) followed by the labels (uint8)."""
    return _digest(*_arrays())


def read_digits(split: str, expected_sha256: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``(N, 1, 8, 8)`` float32 in [0, 1] (v / 16, exact) and labels ``(N,)`` int64.

    ``train`` is the first 1,000 images, ``test`` the last 797.

    Raises:
        DataError: the installed scikit-learn ships other data than the manifest's.
    """
    images, labels = _arrays()
    found = _digest(images, labels)
    if found != expected_sha256:
        problem = f"the digits of the installed scikit-learn are not the frozen ones: sha256 {found}, expected {expected_sha256}"
        raise DataError(f"{problem}; install the version of scikit-learn that constraints.txt names")
    rows = slice(None, N_TRAIN) if split == "train" else slice(N_TRAIN, None)
    signals = torch.from_numpy(images[rows, None]).to(torch.float32) / LEVELS
    return signals, torch.from_numpy(labels[rows].astype(np.int64))
