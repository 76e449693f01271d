"""Data sets by name: conventions of range and layout, splits without overlap, caching."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from sepbench.data import datasets
from sepbench.data.datasets import dataset_names, manifest_of, open_dataset
from sepbench.data.files import fetch
from sepbench.data.files.manifests import DataFile, Manifest, load_manifest
from sepbench.data.readers.digits import read_digits
from sepbench.errors import DataError, UnknownNameError
from sepbench.protocols import SignalSet


def content_hashes(signals: SignalSet) -> list[bytes]:
    return [hashlib.sha256(row.numpy().tobytes()).digest() for row in signals.load(range(len(signals)))]


@pytest.fixture
def toy_mnist(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images per split under SEPBENCH_DATA/mnist and a manifest that fits them."""
    folder = data_home / "own" / "mnist"
    folder.mkdir(parents=True)
    rng = np.random.Generator(np.random.Philox(5))
    files = []
    for prefix in ("train", "t10k"):
        images, labels = rng.integers(0, 256, (6, 28, 28), dtype=np.uint8), rng.integers(0, 10, 6, dtype=np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = gzip.compress(struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())
            (folder / f"{prefix}-{kind}-ubyte.gz").write_bytes(content)
            files.append(DataFile(f"{prefix}-{kind}-ubyte.gz", len(content), sha256=hashlib.sha256(content).hexdigest()))
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home / "own"))
    monkeypatch.setattr(datasets, "load_manifest", lambda name: Manifest("mnist", "t", "l", "c", "h", tuple(files)))
    return folder


def test_a_data_set_is_found_verified_and_read(toy_mnist: Path) -> None:
    signals = open_dataset("mnist", "test")
    assert (signals.name, signals.split, signals.domain, signals.shape, len(signals)) == ("mnist", "test", "image", (1, 28, 28), 6)
    loaded = signals.load([3, 0, 3])
    assert (loaded.dtype, tuple(loaded.shape)) == (torch.float32, (3, 1, 28, 28))
    assert float(loaded.min()) >= 0.0
    assert float(loaded.max()) <= 1.0
    assert torch.equal(loaded[0], loaded[2])
    assert signals.labels.dtype == torch.int64


def test_a_split_is_read_once_and_damage_is_noticed_all_the_same(toy_mnist: Path) -> None:
    assert open_dataset("mnist", "train") is open_dataset("mnist", "train")
    path = toy_mnist / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz has the wrong size"):
        open_dataset("mnist", "train")


def test_another_folder_is_another_entry_of_the_cache(toy_mnist: Path, data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_dataset("mnist", "train")
    (data_home / "moved").mkdir()
    toy_mnist.rename(data_home / "moved" / "mnist")
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home / "moved"))
    second = open_dataset("mnist", "train")
    assert second is not first
    assert torch.equal(second.load([0]), first.load([0]))


def test_unknown_names_and_splits_are_answered(data_home: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean bags-shoes-mini/"):
        open_dataset("bags-shoes-mini", "test")
    with pytest.raises(UnknownNameError, match="did you mean cifar10"):
        open_dataset("cifar", "test")
    with pytest.raises(DataError, match="unknown split 'valid'"):
        open_dataset("digits", "valid")


def test_every_name_has_a_manifest() -> None:
    assert dataset_names() == sorted(dataset_names())
    for name in dataset_names():
        load_manifest(manifest_of(name))
    assert manifest_of("folder:/x") == manifest_of("npy:/x.npy") == ""


def test_missing_data_offline_are_one_clear_line(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    made_here = {"digits", "drums-bass-synth/drums", "drums-bass-synth/bass"}
    for name in set(dataset_names()) - made_here:
        with pytest.raises(DataError, match="is not complete") as caught:
            open_dataset(name, "test")
        assert "\n" not in str(caught.value)


# --- digits


def test_digits_are_exact_sixteenths_in_a_split_without_overlap() -> None:
    train, test = open_dataset("digits", "train"), open_dataset("digits", "test")
    assert (len(train), len(test), train.shape) == (1_000, 797, (1, 8, 8))
    values = torch.cat([train.load(range(1_000)), test.load(range(797))])
    assert values.dtype == torch.float32
    assert sorted((values.unique() * 16).tolist()) == list(range(17))
    hashes = content_hashes(train) + content_hashes(test)
    assert len(set(hashes)) == 1_797
    assert train.labels[:10].tolist() == list(range(10))
    assert sorted(test.labels.unique().tolist()) == list(range(10))


def test_other_digits_of_another_scikit_learn_are_noticed() -> None:
    with pytest.raises(DataError, match="not the frozen ones"):
        read_digits(fetch.find(load_manifest("digits")).folder, "train", "0" * 64)


# --- the user's own data


def test_a_folder_of_images_is_a_data_set(data_home: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    for label in ("a", "b"):
        (data_home / "pictures" / label).mkdir(parents=True)
        image.new("RGB", (6, 5), (255, 0, 51)).save(data_home / "pictures" / label / "0.png")
    name = f"folder:{data_home / 'pictures'}"
    signals = open_dataset(name, "test")
    assert (signals.shape, signals.labels.tolist(), signals.name) == ((3, 5, 6), [0, 1], name)
    assert signals.load([0])[0, :, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.2])
    assert open_dataset(name, "test") is signals
    image.new("RGB", (6, 5), (0, 0, 0)).save(data_home / "pictures" / "b" / "1.png")
    assert len(open_dataset(name, "test")) == 3
    with pytest.raises(DataError, match="has no train split; lay the data out as"):
        open_dataset(name, "train")


def test_a_divided_folder_has_both_splits(data_home: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    for split, value in (("train", 10), ("test", 20)):
        (data_home / "pictures" / split).mkdir(parents=True)
        image.new("L", (6, 5), value).save(data_home / "pictures" / split / "0.png")
    for split, value in (("train", 10), ("test", 20)):
        assert float(open_dataset(f"folder:{data_home / 'pictures'}", split).load([0]).max()) == pytest.approx(value / 255)


def test_an_array_is_a_data_set(data_home: Path) -> None:
    path = data_home / "toy.npy"
    np.save(path, np.full((2, 4, 4), 51, dtype=np.uint8))
    signals = open_dataset(f"npy:{path}", "test")
    assert float(signals.load([1]).max()) == pytest.approx(0.2)
    np.save(path, np.full((2, 4, 4), 102, dtype=np.uint8))
    os.utime(path, ns=(1, 1))
    assert float(open_dataset(f"npy:{path}", "test").load([1]).max()) == pytest.approx(0.4)
    with pytest.raises(DataError, match="has no train split"):
        open_dataset(f"npy:{path}", "train")
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(f"npy:{data_home / 'none.npy'}", "test")


def test_a_folder_of_arrays_has_both_splits(data_home: Path) -> None:
    np.save(data_home / "train.npy", np.zeros((3, 4, 4), dtype=np.uint8))
    name = f"npy:{data_home}"
    assert len(open_dataset(name, "train")) == 3
    with pytest.raises(DataError, match="has no test split"):
        open_dataset(name, "test")


# --- the real data


@pytest.mark.parametrize(("name", "n_train", "n_test", "shape"), [("mnist", 60_000, 10_000, (1, 28, 28)), ("cifar10-mini", 5_085, 1_017, (3, 32, 32))])
def test_real_splits_have_their_sizes_and_share_no_image(real_data, name: str, n_train: int, n_test: int, shape: tuple[int, ...]) -> None:
    real_data(name)
    train, test = open_dataset(name, "train"), open_dataset(name, "test")
    assert (len(train), len(test), train.shape, test.shape) == (n_train, n_test, shape, shape)
    assert sorted(train.labels.unique().tolist()) == list(range(10))
    assert not set(content_hashes(train)) & set(content_hashes(test))


def test_real_bags_and_shoes_are_inverted(real_data) -> None:
    folder = real_data("bags-shoes-mini")
    for kind in ("bags", "shoes"):
        signals = open_dataset(f"bags-shoes-mini/{kind}", "test")
        assert (len(signals), signals.shape) == (200, (3, 64, 64))
        stored = np.load(folder / kind / "test.npy", allow_pickle=False)
        wanted = 1 - stored[[7, 3]].transpose(0, 3, 1, 2).astype(np.float64) / 255
        assert np.abs(signals.load([7, 3]).double().numpy() - wanted).max() < 1e-7
        with pytest.raises(DataError, match=f"test arrays of {kind} only"):
            open_dataset(f"bags-shoes-mini/{kind}", "train")


def test_the_real_cifar10_is_looked_up_but_not_downloaded_offline(real_data) -> None:
    real_data("cifar10-mini")
    if fetch.status(load_manifest("cifar10")).state == "present":
        assert len(open_dataset("cifar10", "test")) == 10_000
    else:
        with pytest.raises(DataError, match="SEPBENCH_OFFLINE forbids downloading"):
            open_dataset("cifar10", "test")


def test_the_mini_set_is_read_from_the_full_one_where_only_that_is_here(real_data, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real_data("cifar10-mini")
    own = [open_dataset("cifar10-mini", split) for split in ("train", "test")]
    monkeypatch.delenv("SEPBENCH_CACHE")
    if fetch.status(load_manifest("cifar10")).state != "present":
        pytest.skip("the cache folder does not hold cifar10")
    monkeypatch.setenv("SEPBENCH_DATA", str(tmp_path))
    assert fetch.status(load_manifest("cifar10-mini")).state == "present"
    for mini, split in zip(own, ("train", "test"), strict=True):
        cut = open_dataset("cifar10-mini", split)
        assert cut is not mini
        rows = torch.arange(len(mini))
        assert torch.equal(cut.load(rows), mini.load(rows))
        assert torch.equal(cut.labels, mini.labels)
