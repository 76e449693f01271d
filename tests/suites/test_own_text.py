"""What ``new-suite`` writes, to the letter: the suite's file with its settings, where each signal came from, digests; and what it refuses, in full."""

from __future__ import annotations

import csv
import hashlib
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sepbench.data.own.folders import OwnFolder
from sepbench.data.own.lists import ListPlan, OwnLists
from sepbench.data.own.signals import OwnSignals
from sepbench.errors import DataError, SepbenchError, SuiteError
from sepbench.suites import own
from sepbench.suites.own import OwnSuite, _check, _check_kind, _passed_over, _settings, _split, _suite_text, _write
from sepbench.suites.verify import _files

ASKED = OwnSuite("own", (Path("a"), Path("b")))


def signals(name: str, values: np.ndarray, files: list[int], starts: list[int] | None = None, groups: list[int] | None = None) -> OwnSignals:
    """A class whose signals come from these files, ``f0.wav`` and so on."""
    rows = [np.array(column if column is not None else [0] * len(files), dtype=np.int64) for column in (files, starts, [1] * len(files))]
    return OwnSignals(name, values, tuple(f"f{n}.wav" for n in range(max(files) + 1)), *rows, np.array(files if groups is None else groups, dtype=np.int64))


# --- the suite's file -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "domain", "operator", "rate", "wanted"),
    [
        ({}, "image", "sum", None, "--operator sum --val 0.1 --test 0.2"),
        ({"size": 8, "convert": True}, "image", "mean", None, "--size 8 --operator mean --val 0.1 --test 0.2 --convert"),
        ({"agnostic": True}, "image", "sum", None, "--operator sum --agnostic --n-sources 2 --val 0.1 --test 0.2"),
        ({"mixtures": 7, "agnostic": True, "n_sources": 3}, "image", "sum", None, "--operator sum --mixtures 7 --agnostic --n-sources 3 --val 0.1 --test 0.2"),
        ({}, "audio", "gain", 8000, "--rate 8000 --seconds 3 --operator gain --snr 0 --val 0.1 --test 0.2"),
        ({"rate": 4000, "snr_db": -2.5}, "audio", "gain", 4000, "--rate 4000 --seconds 3 --operator gain --snr -2.5 --val 0.1 --test 0.2"),
        (
            {"seconds": 0.25, "validation": 0.0, "test": 1.0, "convert": True},
            *("audio", "sum", 22_050, "--rate 22050 --seconds 0.25 --operator sum --val 0 --test 1 --convert"),
        ),
    ],
)
def test_settings_as_they_would_be_given_again(asked: dict[str, Any], domain: Any, operator: str, rate: int | None, wanted: str) -> None:
    assert _settings(replace(ASKED, **asked), domain, operator, rate) == f"Made with {wanted}."


def text(asked: OwnSuite, domain: Any, operator: str, rate: int | None, shape: tuple[int, ...], lists: OwnLists, splits: tuple[str, ...], n: int = 2) -> str:
    plan = ListPlan(asked.name, asked.agnostic, n, operator == "gain", 0.0, None, {"image": "image", "audio": "recording"}[domain])
    names = ["low"] if asked.agnostic else ["low", "high"]
    kind = np.int16 if domain == "audio" else np.uint8
    parts = [{split: signals(name, np.zeros((1, *shape), dtype=kind), [0]) for split in splits} for name in names]
    return _suite_text(asked, domain, plan, operator, rate, parts, lists)


def test_the_file_of_a_suite_of_sounds() -> None:
    lists = OwnLists({"class-split.train-mixtures": b""}, {}, {"class-split": 9, "class-split-val": 2})
    assert text(replace(ASKED, snr_db=3.0), "audio", "gain", 8000, (24_000,), lists, ("train", "validation", "test")) == (
        """\
# Written by 'sepbench new-suite'; docs/own-data.md describes every key.
format = 1
name = "own"
version = 1
title = "low and high, one of each (gain)"
description = "Own files. Made with --rate 8000 --seconds 3 --operator gain --snr 3 --val 0.1 --test 0.2."
domain = "audio"
metrics = ["sdr", "sdr_mean", "si_sdr", "si_sdr_improvement", "mixture_error"]
ranking_metric = "sdr"
methods = ["average", "mixture", "ideal-ratio-mask", "ideal-binary-mask", "nmf", "nmf-semi", "nmf-blind", "ica", "rpca", "hpss", "repet", "ft2d"]

[data]
cluster = "recording"
shape = [1, 24000]
sample_rate = 8000
validation = "validation"

[classes]
"low" = { dataset = "beside:data/low" }
"high" = { dataset = "beside:data/high" }

[tasks.class-split]
pairs = "pairs/class-split.csv"
clusters = "clusters/class-split.csv"
sources = ["low", "high"]
operator = "gain"
assignment = "permutation"
observed_source = 1
train_mixtures = "pairs/class-split.train-mixtures.csv"
train_observed = "pairs/class-split.train-observed.csv"

[tasks.class-split-val]
validates = "class-split"
pairs = "pairs/class-split-val.csv"
clusters = "clusters/class-split-val.csv"
"""
    )


def test_the_file_of_a_suite_of_images_of_one_class() -> None:
    made = tomllib.loads(text(replace(ASKED, agnostic=True, n_sources=3), "image", "mean", None, (8, 9), OwnLists(), ("test",), n=3))
    assert made["title"] == "low, 3 at a time (mean)"
    assert made["data"] == {"cluster": "image", "shape": [1, 8, 9]}
    assert (made["metrics"], made["ranking_metric"]) == (["psnr", "psnr_unclamped", "psnr_sum_mse", "ssim", "mixture_error"], "psnr")
    assert made["methods"] == ["average", "mixture", "ideal-mask", "nmf", "nmf-semi", "ica", "rpca"]
    assert made["classes"] == {"low": {"dataset": "beside:data/low"}}
    assert made["tasks"] == {
        "class-agnostic": {
            "pairs": "pairs/class-agnostic.csv",
            "clusters": "clusters/class-agnostic.csv",
            "sources": ["low"] * 3,
            "operator": "mean",
            "assignment": "permutation",
            "untrainable": "all files of this suite are for validation and test",
        }
    }
    colour = tomllib.loads(text(ASKED, "image", "sum", None, (8, 9, 3), OwnLists(), ("train", "test")))
    assert colour["data"]["shape"] == [3, 8, 9]
    assert not {"untrainable", "observed_source", "train_mixtures"} & set(colour["tasks"]["class-split"])


def test_a_suite_of_which_one_class_has_nothing_to_train_on_teaches_nothing() -> None:
    plan = ListPlan("own", False, 2, False, 0.0, None, "image")
    low, high = ({"test": signals(name, np.zeros((1, 8, 8), dtype=np.uint8), [0])} for name in ("low", "high"))
    for parts, barred in (([low | {"train": low["test"]}, high], True), ([low, high], True), ([one | {"train": one["test"]} for one in (low, high)], False)):
        made = tomllib.loads(_suite_text(ASKED, "image", plan, "sum", None, parts, OwnLists()))
        assert ("untrainable" in made["tasks"]["class-split"]) == barred


# --- the files beside it --------------------------------------------------------------------------------------------------------------


def test_where_each_signal_came_from_and_the_digests(tmp_path: Path) -> None:
    low = signals("low", np.arange(12, dtype=np.int16).reshape(4, 3), [0, 0, 2, 3], [0, 3, 6, 0], [1, 1, 1, 3])
    high = replace(signals("high", np.ones((2, 3), dtype=np.int16), [0, 1]), file_names=('so, "loud".wav', "Ärger.wav"))
    _write(tmp_path, [{"train": low, "test": low.of(np.array([2]))}, {"test": high}], OwnLists({"a.b": b"pairs"}, {"c": b"keys"}))
    with (tmp_path / "files.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = list(csv.reader(file))
    assert ",".join(head) == "class,split,row,file,start,group"
    assert [",".join(row) for row in rows[:5]] == [
        *("low,train,0,f0.wav,0,1", "low,train,1,f0.wav,3,1", "low,train,2,f2.wav,6,1", "low,train,3,f3.wav,0,3", "low,test,0,f2.wav,6,1")
    ]
    assert rows[5:] == [["high", "test", "0", 'so, "loud".wav', "0", "0"], ["high", "test", "1", "Ärger.wav", "0", "1"]]
    assert b"\r" not in (tmp_path / "files.csv").read_bytes()
    assert np.load(tmp_path / "data" / "low" / "test.npy").tolist() == [[6, 7, 8]]
    assert ((tmp_path / "pairs" / "a.b.csv").read_bytes(), (tmp_path / "clusters" / "c.csv").read_bytes()) == (b"pairs", b"keys")
    names = ["data/high/test.npy", "data/low/test.npy", "data/low/train.npy", "files.csv"]
    sums = "".join(f"{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    assert (tmp_path / "SHA256SUMS").read_text(encoding="utf-8") == sums
    assert [check.problem for check in _files(tmp_path)] == [""] * 4


def test_what_is_split_are_groups_of_files_and_a_part_without_any_is_not_there() -> None:
    asked, rows = replace(ASKED, validation=0.0, test=0.5), np.arange(6, dtype=np.uint8).reshape(6, 1, 1)
    parts = _split(asked, signals("low", rows, [0, 1, 2, 3, 4, 5], groups=[0, 0, 0, 3, 3, 3]))
    assert {split: len(part) for split, part in parts.items()} == {"train": 3, "test": 3}
    assert {tuple(np.unique(part.group)) for part in parts.values()} == {(0,), (3,)}
    for groups, told in (([0, 0, 0], "low: 3 files, of which those that share content count as one, 1 different file"), ([0], "low: 1 different file")):
        with pytest.raises(SuiteError) as caught:
            _split(asked, signals("low", rows[: len(groups)], list(range(len(groups))), groups=groups))
        assert str(caught.value).startswith(f"{told} cannot be split by --val 0 --test 0.5")
    with pytest.raises(SuiteError, match=r"which take at least 1 for training, 0 for validation and 3 for test"):  # as many as one mixture takes
        _split(replace(asked, agnostic=True, n_sources=3), signals("low", rows[:3], [0, 1, 2]))


def test_files_that_were_passed_over() -> None:
    folders = [OwnFolder(Path("x"), (), ()), OwnFolder(Path("y"), (), tuple(Path(f"y/z/{n}.txt") for n in range(5)))]
    assert _passed_over(["a", "b"], folders) == ["b: passed over, neither image nor sound: z/0.txt, z/1.txt, z/2.txt and 2 more"]


# --- what is refused ------------------------------------------------------------------------------------------------------------------

SIX = tuple(Path(str(n)) for n in range(6))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "a--b"}, "'a--b' is no name for a suite: use lower-case letters, digits and single hyphens, as in 'my-suite'"),
        ({"name": "mnist-pairs"}, "there is a suite 'mnist-pairs' already; choose another name (see 'sepbench list suites')"),
        ({"agnostic": True}, "--agnostic mixes the files of one folder with each other, and 2 are given; leave it out, or give one folder"),
        (
            {"sources": SIX[:1]},
            "one folder is one class: give a second folder after --sources, or --agnostic to mix the files of this one with each other",
        ),
        ({"sources": SIX[:1], "agnostic": True, "n_sources": 1}, "--n-sources must be from 2 to 6, got 1"),
        ({"sources": SIX[:1], "agnostic": True, "n_sources": 7}, "--n-sources must be from 2 to 6, got 7"),
        ({"sources": (*SIX, Path("6"))}, "--sources takes at most 6 folders, a source of each mixture from each; got 7"),
        ({"n_sources": 3}, "--n-sources goes with --agnostic; without it every folder is a source"),
        ({"test": 0.0}, "--test 0 leaves nothing to separate; give it a share of the files, such as 0.2"),
        ({"validation": -0.1}, "--val is a share of the files, from 0 to 1; got -0.1"),
    ],
)
def test_requests_that_make_no_suite(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    asked = replace(ASKED, **changes)
    with pytest.raises((SuiteError, DataError)) as caught:
        _check(asked, tmp_path / asked.name)
    assert str(caught.value) == told


def test_requests_that_make_one_and_places_that_are_taken(tmp_path: Path) -> None:
    for asked in (ASKED, replace(ASKED, sources=SIX), *(replace(ASKED, sources=SIX[:1], agnostic=True, n_sources=n) for n in (2, 6))):
        _check(asked, tmp_path / "not" / "yet" / "own")
    (tmp_path / "file").touch()
    with pytest.raises(SuiteError) as caught:
        _check(ASKED, tmp_path / "file" / "own")
    assert str(caught.value) == f"{tmp_path / 'file'} is a file; choose another folder with --out"
    with pytest.raises(SuiteError) as caught:
        _check(ASKED, tmp_path / "file")
    assert str(caught.value) == f"{tmp_path / 'file'} exists; nothing was written. Choose another name or --out, or remove the folder"


@pytest.mark.parametrize(
    ("domain", "changes", "told"),
    [
        ("image", {"rate": 8000, "seconds": 1.0, "snr_db": 0.0, "operator": "gain"}, "images; leave out --rate, --seconds, --snr, --operator gain"),
        ("audio", {"size": 8}, "sounds; leave out --size"),
        ("audio", {"snr_db": 1.0, "operator": "sum"}, "--snr goes with --operator gain, not with sum"),
        ("audio", {"snr_db": -100.5}, "--snr must be from -100 to 100 dB, got -100.5"),
    ],
)
def test_options_of_the_other_kind_in_full(domain: Any, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SuiteError) as caught:
        _check_kind(replace(ASKED, **changes), domain)
    assert str(caught.value) == (told if told.startswith("--") else f"the folders hold {told}")
    for most in (-100.0, 0.0, 100.0):
        _check_kind(replace(ASKED, snr_db=most), "audio")


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def full(target: Path) -> Iterator[Path]:
        raise OSError(28, "No space left on device")
        yield target

    images = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for n in range(4):
            images.fromarray(np.full((8, 8), 50 * n + ord(name), dtype=np.uint8)).save(tmp_path / name / f"{n}.png")
    monkeypatch.setattr(own, "making_folder", full)
    told = list[str]()
    with pytest.raises(SepbenchError) as caught:
        own.make_suite(OwnSuite("mine", (tmp_path / "a", tmp_path / "b"), validation=0.0), tmp_path / "out", told.append)
    where = tmp_path / "out" / "mine"
    assert str(caught.value) == f"cannot write {where}: No space left on device; choose another folder with --out, or free some space"
    assert told == ["reading 8 images"]
