"""``sepbench run`` and ``sepbench score`` as a user calls them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import run_fakes
import typer
from broken_methods import register
from rich.console import Console
from typer.testing import CliRunner, Result

from sepbench.cli.run import _save_audio, run
from sepbench.cli.score import score
from sepbench.errors import SepbenchError

pytestmark = pytest.mark.usefixtures("fake_methods")

RUN = ("run", "--suite", "digits-pairs", "--tasks", "class-split", "--limit", "6", "--shard-size", "4", "--device", "cpu")


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def _sepbench(*arguments: str) -> Result:
    app = typer.Typer()
    app.command("run")(run)
    app.command("score")(score)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def _written() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}


def test_from_a_name_to_a_leaderboard() -> None:
    done = _sepbench(*RUN, "--methods", "halves,noisy", "--set", "halves.gain=0.5")
    assert done.exit_code == 0, done.output
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("digits-pairs-")
    assert f"leaderboard: {folder / 'leaderboard.csv'}" in done.stdout
    board = pd.read_csv(folder / "leaderboard.csv")
    assert set(board["method"]) == {"halves", "noisy"}
    assert (board["n_scored"] == 6).all()
    record = json.loads((folder / "run.json").read_text())
    assert record["methods"]["halves"]["settings"]["gain"] == 0.5
    assert record["command"].split()[0] == "sepbench"


def test_the_same_command_resumes_in_the_same_folder() -> None:
    first = _sepbench(*RUN, "--methods", "noisy")
    run_fakes.Fake.batches.clear()
    board = next(Path("runs").rglob("leaderboard.csv")).read_bytes()
    assert _sepbench(*RUN, "--methods", "noisy").stdout == first.stdout
    assert run_fakes.Fake.batches == []
    assert len(list(Path("runs").iterdir())) == 1
    assert next(Path("runs").rglob("leaderboard.csv")).read_bytes() == board
    _sepbench(*RUN, "--methods", "noisy", "--seed", "1")
    assert len(list(Path("runs").iterdir())) == 2


def test_a_dry_run_shows_the_plan_and_writes_nothing() -> None:
    done = _sepbench(*RUN, "--methods", "halves,noisy,audio-only", "--dry-run")
    assert done.exit_code == 0
    for text in ("class-split", "halves", "sources", "unsupported: separates audio signals only", "runs/digits-pairs-"):
        assert text in done.stdout
    assert _written() == {}


def test_words_in_square_brackets_are_no_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "toy", "Brackets")
    done = _sepbench(*RUN, "--methods", "toy", "--dry-run", "--out", "here[/x]")
    assert done.exit_code == 0, done.output
    assert "levels [0, 1] in [bold] steps [/x] :x:" in done.stdout
    assert "would write to here[/x]" in done.stdout
    done = _sepbench(*RUN, "--methods", "toy", "--out", "here[/x]")
    assert done.exit_code == 0, done.output
    assert "leaderboard: here[/x]/leaderboard.csv" in done.stdout


def test_notes_on_audio_keep_their_brackets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sepbench.report.panels.opened_run.OpenedRun.open", lambda path, warn: warn("left out: toy ([/x] failed)"))
    monkeypatch.setattr("sepbench.report.audio_examples.write_examples", lambda run, count, folder: [])
    _save_audio(Path("here[/x]"), 1, Console())
    assert capsys.readouterr().out == "note: left out: toy ([/x] failed)\naudio: 0 mixtures in here[/x]/audio\n"


def test_a_run_in_which_nothing_runs_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "toy", "RefusesAll")
    arguments = ("run", "--suite", "digits-pairs", "--methods", "toy,audio-only", "--device", "cpu")
    done = _sepbench(*arguments)
    assert isinstance(done.exception, SepbenchError)
    reason = "nothing to run: toy on class-split: wants [three] sources (and 3 more); choose others with --methods, --tasks or --suite"
    assert str(done.exception) == reason
    assert _written() == {}
    planned = _sepbench(*arguments, "--dry-run")
    assert planned.exit_code == 0
    assert "unsupported: separates audio signals only" in planned.stdout


def test_a_failed_method_gives_exit_code_1_and_the_others_their_rows() -> None:
    done = _sepbench(*RUN, "--methods", "fails-fit,halves", "--out", "here")
    assert done.exit_code == 1
    assert "singular matrix" in done.stderr
    board = pd.read_csv("here/leaderboard.csv").set_index(["method", "metric"])
    assert board.loc[("fails-fit", "psnr"), "n_failed"] == 6
    assert board.loc[("halves", "psnr"), "n_scored"] == 6


def test_an_interrupt_says_how_to_go_on() -> None:
    arguments = (*RUN, "--methods", "halves,broken", "--set", "broken.how=interrupt", "--set", "broken.at=5", "--out", "here")
    done = _sepbench(*arguments)
    assert done.exit_code == 130
    assert "interrupted after 10 of 12 mixtures; run the same command again to resume" in done.stderr
    assert "Traceback" not in done.output


def test_another_request_leaves_a_run_alone() -> None:
    _sepbench(*RUN, "--methods", "halves", "--out", "here")
    before = _written()
    done = _sepbench(*RUN, "--methods", "halves", "--out", "here", "--budget", "quick")
    assert isinstance(done.exception, SepbenchError)
    assert "budget is paper in here and quick here; give --budget paper to go on with that run, or choose another --out" in str(done.exception)
    assert _written() == before


def test_results_without_their_record_end_a_run_before_anything_is_done() -> None:
    _sepbench(*RUN, "--methods", "halves", "--out", "here")
    Path("here/cells/class-split--halves.json").unlink()
    before = _written()
    for methods in ("halves", "noisy"):
        done = _sepbench(*RUN, "--methods", methods, "--out", "here", "--limit", "8")
        assert isinstance(done.exception, SepbenchError)
        assert "class-split--halves.json is missing, and nothing else says how the results of halves on class-split were made" in str(done.exception)
    assert _written() == before
    for part in ("estimates", "scores"):
        shutil.rmtree(f"here/{part}/class-split--halves")
    assert _sepbench(*RUN, "--methods", "halves", "--out", "here").exit_code == 0


def test_score_again() -> None:
    _sepbench(*RUN, "--methods", "noisy", "--out", "here")
    before = Path("here/leaderboard.csv").read_bytes()
    run_fakes.Fake.fits.clear()
    done = _sepbench("score", "here", "--metrics", "ssim,psnr")
    assert done.exit_code == 0, done.output
    assert list(pd.read_csv("here/leaderboard.csv")["metric"]) == ["psnr", "ssim"]
    assert json.loads(Path("here/run.json").read_text())["metrics"] == ["ssim", "psnr"]
    assert _sepbench("score", "here").exit_code == 0
    assert Path("here/leaderboard.csv").read_bytes() == before
    assert run_fakes.Fake.fits == []


def test_without_estimates_there_is_no_scoring_again() -> None:
    done = _sepbench(*RUN, "--methods", "noisy", "--out", "here", "--no-keep-estimates")
    assert "cannot score this run again" in done.stderr
    before = _written()
    again = _sepbench("score", "here")
    assert isinstance(again.exception, SepbenchError)
    assert "--no-keep-estimates" in str(again.exception)
    assert _written() == before


@pytest.mark.parametrize("arguments", [("score", "nowhere"), ("score", "here", "--metrics", "pnsr")])
def test_scoring_what_is_not_there(arguments: tuple[str, ...]) -> None:
    _sepbench(*RUN, "--methods", "halves", "--out", "here")
    assert isinstance(_sepbench(*arguments).exception, SepbenchError)


def test_missing_data_stop_a_run_before_its_folder_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"SEPBENCH_DATA": str(tmp_path), "SEPBENCH_CACHE": str(tmp_path / "cache"), "SEPBENCH_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    done = _sepbench("run", "--suite", "mnist-pairs", "--methods", "halves", "--limit", "4", "--out", "here")
    assert isinstance(done.exception, SepbenchError)
    assert _written() == {}
