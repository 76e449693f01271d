"""What a suite needs before it runs: bytes to download, copies that only the user can get, and the folders that are named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from own_files import pixels

from sepbench.data.files.fetch import status
from sepbench.data.files.manifests import load_manifest
from sepbench.registry import SUITE_FILE
from sepbench.suites.freeze import freeze_suite
from sepbench.suites.loader import load_suite
from sepbench.suites.readiness import Readiness, readiness

SIZES = {"train-images": 9_912_422, "train-labels": 28_881, "t10k-images": 1_648_877, "t10k-labels": 4_542}


def put(folder: Path, part: str, size: int) -> None:
    """A file of MNIST with holes, of this size."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{part}-idx{3 if 'images' in part else 1}-ubyte.gz").open("wb") as file:
        file.truncate(size)


loaded = lru_cache(load_suite)


@pytest.fixture
def of(data_home: Path) -> Callable[..., Readiness]:
    """The readiness of a built-in suite, or of one with the data sets of several."""

    def found(name: str, *others: str) -> Readiness:
        tasks = {f"{one}.{key}": task for one in (name, *others) for key, task in loaded(one).tasks.items()}
        return readiness(name, replace(loaded(name), tasks=tasks))

    return found


def test_what_a_download_takes_is_what_the_cache_lacks(of: Callable[..., Readiness], data_home: Path) -> None:
    whole, cached = sum(SIZES.values()), data_home / "cache" / "mnist"
    assert of("mnist-quads") == Readiness("download", whole, ("mnist",), ())
    put(cached, "train-images", SIZES["train-images"])
    assert of("mnist-quads") == Readiness("download", whole - SIZES["train-images"], ("mnist",), (cached,))
    put(cached, "train-images", 7)  # it broke off
    assert of("mnist-quads") == Readiness("download", whole, ("mnist",), (cached,))
    for part, size in SIZES.items():
        put(cached, part, size)
    assert of("mnist-quads") == Readiness("ready", 0, (), (cached,))
    put(cached, "t10k-labels", 4_541)
    assert status(load_manifest("mnist")).state == "damaged"
    assert of("mnist-quads") == Readiness("download", SIZES["t10k-labels"], ("mnist",), (cached,))


def test_a_copy_of_ones_own_counts_where_it_is_whole(of: Callable[..., Readiness], data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home / "own"))
    mine = data_home / "own" / "mnist"
    for part, size in SIZES.items():
        put(mine, part, size)
    assert of("mnist-quads") == Readiness("ready", 0, (), (mine,))
    put(mine, "t10k-labels", 4_541)  # the cache, where downloads go, has none of it
    assert of("mnist-quads") == Readiness("download", sum(SIZES.values()), ("mnist",), (mine,))


def test_several_data_sets_are_told_in_order_and_one_without_download_decides(of: Callable[..., Readiness]) -> None:
    whole = sum(SIZES.values())
    found = of("speech-noise", "mnist-quads", "gaussian-exact")
    assert (found.state, found.download, found.lacking) == ("own copy", whole, ("esc50", "lrw", "mnist"))
    assert of("gaussian-exact") == Readiness("ready", 0, (), ())
    digits = of("digits-pairs")
    assert (digits.state, digits.lacking, len(digits.where)) == ("ready", (), 1)
    assert (of("mnist-quads", "digits-pairs").state, of("mnist-quads", "digits-pairs").where) == ("download", digits.where)
    assert of("drums-bass-synth") == Readiness("ready", 0, (), ())  # made when they are first needed


def test_a_folder_that_serves_two_data_sets_is_named_once_and_downloads_add_up(of: Callable[..., Readiness], data_home: Path) -> None:
    manifest, cached = load_manifest("cifar10"), data_home / "cache" / "cifar10"
    files = manifest.required(manifest.download_form or "")
    both = of("mnist-quads", "cifar10-color")
    assert (both.state, both.download, both.lacking) == ("download", sum(SIZES.values()) + sum(file.size for file in files), ("cifar10", "mnist"))
    for file in files:
        (cached / file.name).parent.mkdir(parents=True, exist_ok=True)
        with (cached / file.name).open("wb") as sparse:
            sparse.truncate(file.size)
    assert of("cifar10-color", "cifar10-mini-color") == Readiness("ready", 0, (), (cached,))  # the small one is cut from it


OWN = """\
format = 1
name = "own"
version = 1
title = "t"
description = "d"
domain = "image"
metrics = ["psnr"]
ranking_metric = "psnr"
methods = ["average"]

[data]
shape = [3, 8, 8]

[classes]
low = { dataset = "beside:low" }
high = { dataset = "beside:high" }

[rules]
test = { builder = "one-of-each", n = 2 }

[tasks.split]
pairs = "rule:test"
sources = ["low", "high"]
operator = "sum"
assignment = "permutation"
"""


def test_a_suite_of_ones_own_needs_its_test_files(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data_home / "elsewhere"
    for key, name in enumerate(("low", "high")):
        (folder / name).mkdir(parents=True)
        for split in ("train", "test"):
            np.save(folder / name / f"{split}.npy", np.stack([pixels(10 * key + n, (8, 8)) for n in range(3)]))
    (folder / SUITE_FILE).write_text(OWN)
    suite = freeze_suite(str(folder))
    monkeypatch.chdir(folder)
    for name in (str(folder), f"{folder}/suite.toml", "suite.toml", "./"):
        found = readiness(name, suite)
        assert (found.state, found.where) == ("ready", (folder,))
    speech = replace(suite, tasks={**suite.tasks, **loaded("speech-noise").tasks, **loaded("mnist-quads").tasks})
    others = readiness(str(folder), speech)  # its own files are all there, and one of the others' can only be got by hand
    assert (others.state, others.download, others.lacking) == ("own copy", sum(SIZES.values()), ("esc50", "lrw", "mnist"))
    (folder / "low" / "train.npy").unlink()
    assert readiness(str(folder), suite).state == "ready"
    (folder / "low" / "test.npy").unlink()
    assert readiness(str(folder), suite) == Readiness("own copy", 0, ("beside:low",), (folder,))
    shutil.rmtree(folder / "high")
    (folder / "high" / "test.npy").mkdir(parents=True)  # a folder of the file's name
    assert readiness(str(folder), suite).lacking == ("beside:high", "beside:low")
