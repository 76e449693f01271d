"""A run that grows, as a user calls it: run, score, show, compare and check on one folder."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import run_fakes
import typer
from typer.testing import CliRunner, Result

from sepbench.cli import check, compare, run, score, show
from sepbench.errors import SepbenchError

RUN = ("run", "--suite", "digits-pairs", "--device", "cpu", "--out", "here")


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake_methods: None) -> None:
    monkeypatch.chdir(tmp_path)


def _sepbench(*arguments: str) -> Result:
    app = typer.Typer()
    for command in (run.run, score.score, show.show, compare.compare, check.check):
        app.command(command.__name__)(command)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def _well(*arguments: str) -> str:
    done = _sepbench(*arguments)
    assert done.exit_code == 0, f"{done.output} {done.exception}"
    return done.stdout


@pytest.fixture
def grown() -> dict[tuple[str, str], int]:
    """halves on class-split grew from 6 to 9 mixtures, noisy joined with 7, and with class-agnostic; returns the mixtures of every pair."""
    _well(*RUN, "--tasks", "class-split", "--methods", "halves", "--limit", "6")
    _well(*RUN, "--tasks", "class-split", "--methods", "halves", "--limit", "9")
    _well(*RUN, "--tasks", "class-split", "--methods", "noisy", "--limit", "7")
    _well(*RUN, "--tasks", "class-agnostic", "--methods", "noisy", "--limit", "5")
    return {("class-split", "halves"): 9, ("class-split", "noisy"): 7, ("class-agnostic", "noisy"): 5}


def _board() -> dict[tuple[str, str], int]:
    frame = pd.read_csv("here/leaderboard.csv")
    assert (frame["n_scored"] == frame["n_expected"]).all()
    return {(row.task, row.method): row.n_scored for row in frame[frame["metric"] == "psnr"].itertuples()}


def test_the_leaderboard_has_what_was_asked_for(grown: dict[tuple[str, str], int]) -> None:
    assert _board() == grown
    assert len(json.loads(Path("here/run.json").read_text())["sessions"]) == 4


def test_the_first_command_again_does_nothing_and_shows_all(grown: dict[tuple[str, str], int]) -> None:
    before = {path: path.stat().st_mtime_ns for part in ("scores", "estimates", "cells") for path in Path("here", part).rglob("*.*")}
    run_fakes.Fake.batches.clear()
    _well(*RUN, "--tasks", "class-split", "--methods", "halves", "--limit", "6")
    assert run_fakes.Fake.batches == []
    assert {path: path.stat().st_mtime_ns for part in ("scores", "estimates", "cells") for path in Path("here", part).rglob("*.*")} == before
    assert _board() == grown


def test_score(grown: dict[tuple[str, str], int]) -> None:
    before = Path("here/leaderboard.csv").read_bytes()
    _well("score", "here", "--metrics", "ssim")
    assert set(pd.read_csv("here/leaderboard.csv")["metric"]) == {"ssim"}
    _well("score", "here")
    assert Path("here/leaderboard.csv").read_bytes() == before


def test_show(grown: dict[tuple[str, str], int]) -> None:
    shown = _well("show", "here")
    assert shown.index("class-split") < shown.index("class-agnostic")
    assert shown.count("  halves  ") == 1
    assert shown.count("  noisy  ") == 2
    assert "class-split: halves: first 9 of 1,000 mixtures\nclass-split: noisy: first 7 of 1,000 mixtures" in shown
    csv = pd.read_csv(Path("here/leaderboard.csv"))
    assert len(_well("show", "here", "--format", "csv").splitlines()) == len(csv) + 1


def test_compare_takes_the_mixtures_that_both_have(grown: dict[tuple[str, str], int]) -> None:
    said = _well("compare", "here:halves", "here:noisy")
    assert "class-split" in said
    assert "class-agnostic" not in said
    assert " 7 " in said


def test_check_holds_against_itself_and_not_against_what_it_was(grown: dict[tuple[str, str], int]) -> None:
    assert "holds" in _well("check", "here", "--against", "here/leaderboard.csv")
    Path("old.csv").write_bytes(Path("here/leaderboard.csv").read_bytes())
    _well(*RUN, "--tasks", "class-split", "--methods", "halves", "--limit", "12")
    done = _sepbench("check", "here", "--against", "old.csv")
    assert done.exit_code == 2
    assert "planned examples" in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("option", "value", "what"), [("--seed", "1", "seed is 0 in here and 1 here"), ("--set", "halves.gain=0.5", "holds another run of method halves: gain")]
)
def test_another_run_is_one_line_and_changes_nothing(option: str, value: str, what: str) -> None:
    _well(*RUN, "--tasks", "class-split", "--methods", "halves", "--limit", "6")
    before = {path: path.read_bytes() for path in Path("here").rglob("*") if path.is_file()}
    done = _sepbench(*RUN, "--tasks", "class-split", "--methods", "halves", "--limit", "9", option, value)
    assert isinstance(done.exception, SepbenchError)
    assert what in str(done.exception)
    assert "\n" not in str(done.exception)
    assert {path: path.read_bytes() for path in Path("here").rglob("*") if path.is_file()} == before
