"""A backend is one file and one entry point, as ``docs/contributing.md`` says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from third_parties import install
from typer.testing import CliRunner

from sepbench.cli.main import app
from sepbench.errors import SepbenchError, UnknownNameError
from sepbench.run.backends.chosen import make_backend

BACKEND = """
from sepbench.run.backends.dispatch import run_plan
from sepbench.run.backends.local import Inline

USED = []


class Mine:
    def __init__(self, workers=None):
        self.workers = workers or 1

    def run(self, plan, sink, progress, command="", git_sha=""):
        USED.append(len(plan.cells))
        return run_plan(plan, sink, progress, Inline(plan, sink, progress, "session"), command, git_sha)
"""


def test_one_file_and_one_line_make_a_backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, "my-backend", {"sepbench.backends": {"mine": "my_backend:Mine"}}, {"my_backend": BACKEND})
    monkeypatch.chdir(tmp_path)
    command = ["run", "--suite", "digits-pairs", "--tasks", "class-split", "--limit", "6", "--methods", "average", "--device", "cpu"]
    done = CliRunner().invoke(app, [*command, "--out", "run", "--backend", "mine"])
    assert done.exit_code == 0, done.output
    assert sys.modules["my_backend"].USED == [1]
    assert (tmp_path / "run" / "leaderboard.csv").is_file()


@pytest.mark.parametrize("workers", ["0", "-1", "many", "1.5"])
def test_a_number_of_workers_that_is_none_is_one_line(workers: str) -> None:
    with pytest.raises(SepbenchError, match="--workers must be a number of at least 1, or auto"):
        make_backend("local", workers, "cpu")


def test_an_unknown_backend_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown backend 'locl'; did you mean local"):
        make_backend("locl", "", "cpu")


def test_auto_is_a_worker_per_core() -> None:
    assert make_backend("local", "auto", "cpu").workers >= 1
    assert make_backend("local", "", "cpu").workers == 1
