"""A data set whose training images all occur in its test split: a method that learns says so, and the others run."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from sepbench.cli.main import main
from sepbench.data.datasets import open_dataset
from sepbench.data.lists.pairs import pairs_csv
from sepbench.suites.freeze import write_digests

SUITE = """\
format = 1
name = "own"
version = 1
title = "Own"
description = "Ours"
domain = "image"
metrics = ["psnr"]
ranking_metric = "psnr"
methods = ["average"]

[data]
shape = [1, 4, 4]

[classes]
all = {{ dataset = "npy:{folder}" }}

[tasks.pairs]
pairs = "pairs.csv"
sources = ["all", "all"]
operator = "sum"
assignment = "permutation"
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).random((10, 4, 4)).astype(np.float32)
    for split in ("train", "test"):
        np.save(tmp_path / f"{split}.npy", images)
    (tmp_path / "pairs.csv").write_bytes(pairs_csv(np.array([[0, 1], [2, 3], [4, 5]])))
    path = tmp_path / "own.toml"
    path.write_text(SUITE.format(folder=tmp_path))
    write_digests([path], tmp_path / "tasks.toml", open_dataset)
    return path


@pytest.mark.parametrize(("methods", "code"), [("nmf", 2), ("nmf,average", 1)])
def test_nothing_is_left_to_learn_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, suite: Path, methods: str, code: int
) -> None:
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["sepbench", "run", "--suite", str(suite), "--methods", methods, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stopped:
        main()
    err = capsys.readouterr().err
    assert "none of the 10 training images is left: all occur in the test split" in " ".join(err.split())
    assert "Traceback" not in err
    assert stopped.value.code == code
    assert ("done pairs / average" in err) == ("average" in methods)
