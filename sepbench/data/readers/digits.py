"""The 8 x 8 digits that ship with scikit-learn, checked against the digest in the manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sepbench.errors import DataError
from sepbench.torch_later import torch

LEVELS = 16  # pixel values run from 0 to 16
_INSTALL = "install the version of scikit-learn that constraints.txt names"
N_TRAIN = 1000  # scikit-learn has no split; this one is ours, see data_manifests/digits.toml


def _arrays(package: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Pixels ``(N, 8, 8)`` and labels ``(N,)``, from the file that ``sklearn.datasets.load_digits`` reads.

    scikit-learn itself is not imported: every process that opens the digits would wait some seconds for it.
    """
    path = package / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        raise DataError(f"scikit-learn has no digits at {path}; {_INSTALL}")
    rows = np.loadtxt(path, delimiter=",").astype(np.uint8)  # 64 pixels and a label
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]


def _digest(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


def digits_sha256(package: Path) -> str:
    """sha256 of the 1,797 x 64 pixel values (uint8, C order) followed by the labels (uint8).

    Args:
        package: the folder of the installed ``sklearn``.

    Raises:
        DataError: the installed scikit-learn ships no digits.
    """
    return _digest(*_arrays(package))


def read_digits(package: Path, split: str, expected_sha256: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``(N, 1, 8, 8)`` float32 in [0, 1] (v / 16, exact) and labels ``(N,)`` int64.

    ``train`` is the first 1,000 images, ``test`` the last 797.

    Args:
        package: the folder of the installed ``sklearn``.
        split: ``train`` or ``test``.
        expected_sha256: of the manifest, see ``digits_sha256``.

    Raises:
        DataError: the installed scikit-learn ships no digits, or others than the manifest's.
    """
    images, labels = _arrays(package)
    found = _digest(images, labels)
    if found != expected_sha256:
        problem = f"the digits of the installed scikit-learn are not the frozen ones: sha256 {found}, expected {expected_sha256}"
        raise DataError(f"{problem}; {_INSTALL}")
    rows = slice(None, N_TRAIN) if split == "train" else slice(N_TRAIN, None)
    signals = torch.from_numpy(images[rows, None]).to(torch.float32) / LEVELS
    return signals, torch.from_numpy(labels[rows].astype(np.int64))
