"""One file and three lines of somebody else's package: a metric, a data set, and a suite that uses both; run from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from third_parties import install

from sepbench.resources import suites_root
from sepbench.suites.freeze import write_digests

# The file: a metric of pairs, and a data set with files of its own (the digits of scikit-learn, upside down).
CODE = """
from pathlib import Path
from sepbench.data.datasets import open_dataset
from sepbench.data.signals import ArraySignals
from sepbench.metrics.kinds import MetricInfo

class LargestError:
    info = MetricInfo("largest_error", "1", False, frozenset({"image"}), "source", "max |x - y|", assigned_by="psnr")

    def pairwise(self, estimates, references):
        return (estimates.unsqueeze(2) - references.unsqueeze(1)).abs().flatten(3).amax(-1)

class UpsideDown:
    manifest = ""
    splits = ("train", "test")

    def open(self, name, split, found):
        digits = open_dataset("digits", split)
        return ArraySignals(name, split, "image", digits.load(range(len(digits))).flip(2), digits.labels)

METRIC, DATA, SUITE = LargestError(), UpsideDown(), Path(__file__).with_name("upside-down-pairs.toml")
"""

# The three lines.
LINES = {
    "sepbench.metrics": {"largest_error": "upside_down:METRIC"},
    "sepbench.datasets": {"digits/upside-down": "upside_down:DATA"},
    "sepbench.suites": {"upside-down-pairs": "upside_down:SUITE"},
}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    install(monkeypatch, tmp_path, "upside-down", LINES, {"upside_down": CODE})
    folder = tmp_path / "upside-down"
    text = (suites_root() / "digits-pairs.toml").read_text(encoding="utf-8")
    text = text.replace('name = "digits-pairs"', 'name = "upside-down-pairs"').replace('"mixture_error"]', '"mixture_error", "largest_error"]')
    path = folder / "upside-down-pairs.toml"
    path.write_text(text.replace('dataset = "digits"', 'dataset = "digits/upside-down"'), encoding="utf-8")
    write_digests([path], folder / "tasks.toml")
    return folder


@pytest.mark.slow
def test_a_run_scores_a_suite_of_another_package_by_its_own_metric(site: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "200"}

    def sepbench(*arguments: str) -> str:
        command = [sys.executable, "-m", "sepbench.cli.main", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    sepbench("run", "--suite", "upside-down-pairs", "--methods", "mixture", "--tasks", "class-split", "--limit", "40", "--out", "run")
    board = pd.read_csv(tmp_path / "run" / "leaderboard.csv").set_index("metric")
    assert board.loc["largest_error", "n_scored"] == 40
    # The largest error of the mixture as the estimate of a digit is the largest pixel of the other one: 1 in nearly all digits.
    assert 0.9 < board.loc["largest_error", "mean"] <= 1.0
    assert not board.loc["largest_error", "higher_is_better"]
    assert np.isfinite(board.loc["psnr", "mean"])
    assert "largest_error" in sepbench("list", "metrics")
    assert "digits/upside-down" in sepbench("data", "list")
