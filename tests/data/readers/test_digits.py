"""The digits of the installed scikit-learn, read without scikit-learn."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch
from sklearn.datasets import load_digits

from sepbench.data.files.manifests import load_manifest
from sepbench.data.readers.digits import digits_sha256, read_digits
from sepbench.errors import DataError

PACKAGE = Path(str(sklearn.__file__)).parent


def test_images_and_labels_are_those_of_scikit_learn_itself() -> None:
    bunch, digest = load_digits(), load_manifest("digits").array_sha256
    for split, rows in (("train", slice(1000)), ("test", slice(1000, None))):
        images, labels = read_digits(PACKAGE, split, digest)
        assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert np.array_equal(images[:, 0].numpy(), bunch.images[rows] / 16)
        assert np.array_equal(labels.numpy(), bunch.target[rows])


def test_a_package_without_digits_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError) as told:
        digits_sha256(tmp_path)
    path = tmp_path / "datasets" / "data" / "digits.csv.gz"
    assert str(told.value) == f"scikit-learn has no digits at {path}; install the version of scikit-learn that constraints.txt names"


@pytest.mark.parametrize("change", ["pixel", "label"])
def test_one_other_value_is_noticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "datasets" / "data" / "digits.csv.gz"
    path.parent.mkdir(parents=True)
    shutil.copyfile(PACKAGE / "datasets" / "data" / path.name, path)
    digest = digits_sha256(tmp_path)
    assert digest == load_manifest("digits").array_sha256
    rows = np.loadtxt(path, delimiter=",")
    rows[5, 3 if change == "pixel" else -1] += 1
    with gzip.open(path, "wt") as file:
        np.savetxt(file, rows, delimiter=",")
    with pytest.raises(DataError, match=f"not the frozen ones: sha256 [0-9a-f]{{64}}, expected {digest}"):
        read_digits(tmp_path, "train", digest)
