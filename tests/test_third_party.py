"""A method in somebody else's package: discovered by entry point, runs, stands in the leaderboard beside ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest


def _sepbench(*arguments: str, site: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "160"}
    return subprocess.run([sys.executable, "-m", "sepbench.cli.main", *arguments], capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site folder with the package that ``sepbench new-method`` writes, installed by pip as any third party's."""
    work = tmp_path_factory.mktemp("third-party")
    made = _sepbench("new-method", "my-wiener", site=work, cwd=work)
    assert made.returncode == 0, made.stderr
    target = work / "site"
    offline = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    pip = [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(work / "my-wiener")]
    subprocess.run(pip, check=True, capture_output=True, text=True)
    return target


@pytest.mark.slow
def test_it_is_listed(site: Path, tmp_path: Path) -> None:
    listed = _sepbench("list", "methods", site=site, cwd=tmp_path)
    assert "my-wiener" in listed.stdout
    assert "my-wiener" not in _sepbench("list", "methods", site=tmp_path, cwd=tmp_path).stdout


@pytest.mark.slow
def test_the_template_keeps_the_contract(site: Path, tmp_path: Path) -> None:
    done = _sepbench("validate", "my-wiener", site=site, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.slow
def test_it_runs_and_beats_average(site: Path, tmp_path: Path) -> None:
    arguments = ["run", "--suite", "digits-pairs", "--methods", "average,my-wiener", "--tasks", "class-split", "--out", "mine"]
    done = _sepbench(*arguments, site=site, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    board = pd.read_csv(tmp_path / "mine" / "leaderboard.csv")
    psnr = board[board.metric == "psnr"].set_index("method")["mean"]
    assert psnr["my-wiener"] > psnr["average"] + 1.0
    assert "my-wiener" in done.stdout
    assert set(board.supervision[board.method == "my-wiener"]) == {"sources"}


@pytest.mark.slow
def test_settings_reach_it(site: Path, tmp_path: Path) -> None:
    arguments = ["run", "--suite", "digits-pairs", "--methods", "my-wiener", "--tasks", "class-split", "--limit", "50", "--set", "my-wiener.ridg=1"]
    done = _sepbench(*arguments, site=site, cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean ridge" in done.stderr
