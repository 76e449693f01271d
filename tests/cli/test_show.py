"""``sepbench show``: run, CSV and suite; filters and formats."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import typer
from synthetic_run import METRICS, SyntheticRun
from typer.testing import CliRunner, Result

from sepbench.cli.publish import publish
from sepbench.cli.show import show
from sepbench.errors import SepbenchError
from sepbench.results import target
from sepbench.results.leaderboard import read_leaderboard, write_leaderboard
from sepbench.results.target import open_results

app = typer.Typer()
app.command("show")(show)
app.command("publish")(publish)


def invoke(*arguments: str, width: int = 80) -> Result:
    return CliRunner(env={"COLUMNS": str(width)}).invoke(app, arguments)


def fails(*arguments: str) -> str:
    result = invoke(*arguments)
    assert isinstance(result.exception, SepbenchError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


@pytest.fixture
def saved(tmp_path: Path) -> str:
    return SyntheticRun({"nmf": 16.0, "ica": 13.0}, n=6, suite="mnist-pairs", tasks=("class-split", "class-agnostic")).save(tmp_path / "run")


@pytest.mark.parametrize("width", [80, 120])
def test_a_run(saved: str, width: int) -> None:
    result = invoke("show", saved, width=width)
    assert result.exit_code == 0, result.output
    assert "class-split" in result.output
    assert "first 6 of 6,000 mixtures" in result.output
    assert "BASIS (NCSN)" in result.output
    assert max(map(len, result.output.splitlines())) <= width


def test_an_unfinished_run_shows_what_is_there(tmp_path: Path) -> None:
    run = SyntheticRun(n=6)
    run.scores = run.scores[~run.where("nmf")]
    del run.cells["class-split", "nmf"]
    result = invoke("show", run.save(tmp_path / "run"))
    assert result.exit_code == 0, result.output
    assert "nmf: 0 of 6 mixtures scored, 6 not reached" in result.output


def test_a_csv_says_the_same(saved: str, tmp_path: Path) -> None:
    as_csv = invoke("show", saved, "--format", "csv")
    (tmp_path / "board.csv").write_text(as_csv.output)
    shown = invoke("show", str(tmp_path / "board.csv"))
    assert shown.exit_code == 0, shown.output
    assert shown.output == invoke("show", saved).output
    assert invoke("show", str(tmp_path / "board.csv"), "--format", "csv").output == as_csv.output


def test_csv_and_markdown_have_the_chosen_rows(saved: str) -> None:
    rows = list(csv.DictReader(io.StringIO(invoke("show", saved, "--task", "class-split", "--metric", "ssim", "--format", "csv").output)))
    assert {(row["task"], row["metric"]) for row in rows} == {("class-split", "ssim")}
    assert len(rows) == 2
    markdown = invoke("show", saved, "--task", "class-split", "--metric", "ssim,psnr", "--format", "markdown").output
    assert "| rank | method | supervision | ssim | psnr |" in markdown
    assert "class-agnostic" not in markdown


def test_the_first_metric_ranks(saved: str) -> None:
    assert "ranked by ssim" in invoke("show", saved, "--metric", "ssim").output


def test_the_committed_leaderboard_of_a_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "resource_root", lambda name: tmp_path / name)
    monkeypatch.chdir(tmp_path)
    said = fails("show", "digits-pairs")
    assert "no leaderboard is committed for suite digits-pairs; there is no run of it in ./runs either: name the folder of one, or make one with" in said
    SyntheticRun(n=4).save(tmp_path / "runs" / "mine")
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.json").write_text("{")
    assert "name the folder of a run: `sepbench show runs/mine`" in fails("show", "digits-pairs")
    write_leaderboard(SyntheticRun(n=4).frame(), tmp_path / "leaderboards" / "digits-pairs.csv")
    assert "first 4 of 1,000 mixtures" in invoke("show", "digits-pairs").output
    (tmp_path / "digits-pairs").mkdir()  # a folder that happens to be called so hides no suite
    assert "first 4 of 1,000 mixtures" in invoke("show", "digits-pairs").output


def test_a_run_of_another_suite_version_is_shown_from_its_own_leaderboard(tmp_path: Path) -> None:
    run = SyntheticRun(n=4)
    frame = run.frame().assign(suite_version=99)
    run.record["suite"]["version"] = 99
    folder = run.save(tmp_path / "run")
    assert "version 99" in fails("show", folder)
    write_leaderboard(frame, Path(folder) / "leaderboard.csv")
    assert "digits-pairs version 99" in invoke("show", folder).output


def test_what_is_not_there(saved: str, tmp_path: Path) -> None:
    assert "did you mean digits-pairs" in fails("show", "digit-pairs")
    assert "there is no" in fails("show", str(tmp_path / "nothing"))
    assert "has no run.json" in fails("show", str(tmp_path))
    assert "did you mean class-split" in fails("show", saved, "--task", "class-splt")
    assert "did you mean psnr" in fails("show", saved, "--metric", "psnrr")
    (tmp_path / "text.csv").write_text("hello\n")
    assert "text.csv is not a leaderboard" in fails("show", str(tmp_path / "text.csv"))


# -- publish


def test_publish_pieces_a_leaderboard_together(tmp_path: Path) -> None:
    board = tmp_path / "boards" / "digits-pairs.csv"
    to = ("--to", str(board.parent))
    first = invoke("publish", SyntheticRun({"average": 14.0, "nmf": 16.0}, n=5).save(tmp_path / "a"), *to)
    assert first.exit_code == 0, first.output
    assert "0 rows replaced, 6 added" in first.output
    second = invoke("publish", SyntheticRun({"nmf": 20.0, "rpca": 12.0}, n=5).fail("rpca", 1).save(tmp_path / "b"), *to)
    assert "3 rows replaced, 3 added" in second.output
    frame = read_leaderboard(board)
    assert list(frame["method"]) == ["average"] * 3 + ["nmf"] * 3 + ["rpca"] * 3
    assert list(frame["n_failed"]) == [0] * 6 + [1] * 3
    assert frame.loc[frame["method"] == "nmf", "mean"].iloc[0] > 19


def test_publish_leaves_out_what_is_not_finished(tmp_path: Path) -> None:
    run = SyntheticRun(n=5)
    run.scores = run.scores[~(run.where("nmf") & (run.scores["example"] > 2))]
    result = invoke("publish", run.save(tmp_path / "a"), "--to", str(tmp_path))
    assert "left out: class-split, nmf: not finished" in result.output
    assert set(read_leaderboard(tmp_path / "digits-pairs.csv")["method"]) == {"average"}
    run.scores = run.scores.iloc[:0]
    assert "nothing of" in fails("publish", run.save(tmp_path / "b"), "--to", str(tmp_path))


def test_publish_does_not_replace_better_founded_rows_unless_forced(tmp_path: Path) -> None:
    invoke("publish", SyntheticRun(n=9).save(tmp_path / "long"), "--to", str(tmp_path))
    before = (tmp_path / "digits-pairs.csv").read_bytes()
    short = SyntheticRun(n=4).save(tmp_path / "short")
    assert "of more mixtures" in fails("publish", short, "--to", str(tmp_path))
    quick = SyntheticRun(n=9)
    quick.record["budget"] = "quick"
    assert "of the paper's budget" in fails("publish", quick.save(tmp_path / "quick"), "--to", str(tmp_path))
    assert (tmp_path / "digits-pairs.csv").read_bytes() == before
    assert invoke("publish", short, "--to", str(tmp_path), "--force").exit_code == 0
    assert set(read_leaderboard(tmp_path / "digits-pairs.csv")["n_expected"]) == {4}


def test_publish_refuses_other_mixtures_and_damaged_boards(tmp_path: Path) -> None:
    run = SyntheticRun(n=5)
    board = tmp_path / "digits-pairs.csv"
    write_leaderboard(run.frame().assign(task_digest="feed"), board)
    before = board.read_bytes()
    name = run.save(tmp_path / "run")
    assert "class-split has digest" in fails("publish", name, "--to", str(tmp_path))
    assert board.read_bytes() == before
    board.write_text("not a board")
    assert "not a leaderboard" in fails("publish", name, "--to", str(tmp_path))
    assert board.read_text() == "not a board"
    assert "is not the folder of a run" in fails("publish", str(tmp_path), "--to", str(tmp_path))


def test_metrics_of_the_material_are_known() -> None:
    assert set(METRICS) <= set(SyntheticRun(n=1).suite.metrics)


# -- long boards


@pytest.fixture
def long_board(tmp_path: Path) -> str:
    levels = {"ideal-mask": 25.0, "nmf": 19.0, "ica": 17.0, "average": 15.0, "rpca": 13.0, "nmf-semi": 11.0}
    return SyntheticRun(levels, n=20, suite="mnist-pairs", tasks=("class-split", "class-agnostic")).save(tmp_path / "long")


def _methods(*arguments: str) -> list[tuple[str, str]]:
    rows = list(csv.DictReader(io.StringIO(invoke(*arguments, "--format", "csv").output)))
    return list(dict.fromkeys((row["task"], row["method"]) for row in rows))


def test_the_first_methods_of_each_task(long_board: str) -> None:
    shown = invoke("show", long_board, "--top", "2", "--task", "class-split", width=120).output
    assert "4 of 6 methods shown" not in shown
    assert "3 of 6 methods shown" in shown  # two, and the bound above them
    assert [word for word in ("ideal-mask", "nmf", "ica", "average", "rpca", "nmf-semi") if f" {word} " in shown] == ["ideal-mask", "nmf", "ica"]
    assert shown.count("BASIS Table 2") == 2  # as many of the papers
    assert set(_methods("show", long_board, "--top", "1")) == {(task, name) for task in ("class-split", "class-agnostic") for name in ("ideal-mask", "nmf")}
    assert "methods shown" not in invoke("show", long_board, "--top", "99").output


def test_chosen_methods_keep_their_ranks(long_board: str) -> None:
    shown = invoke("show", long_board, "--method", "rpca,ica", width=120).output
    assert [line.split()[:2] for line in shown.splitlines() if "blind" in line] == [["2", "ica"], ["3", "rpca"]] * 2
    assert "BASIS (NCSN)" not in shown
    assert set(_methods("show", long_board, "--methods", "ica", "--tasks", "class-split")) == {("class-split", "ica")}
    assert "did you mean rpca" in fails("show", long_board, "--method", "rcpa")
    assert invoke("show", long_board, "--top", "0").exit_code == 2


def test_footnotes_stand_once_per_page(long_board: str) -> None:
    shown = invoke("show", long_board, width=120).output
    for note in ("intervals: cluster t over 20 images", "seconds on cpu, Test CPU, 2 threads, float32"):
        assert shown.count(note) == 1
    numbered = [line.split()[0] for line in shown.splitlines() if line.startswith("(")]
    assert numbered == [f"({number})" for number in range(1, len(numbered) + 1)]


def test_methods_that_do_not_take_a_task_share_a_line(tmp_path: Path) -> None:
    run = SyntheticRun({"nmf": 16.0, "ica": 13.0, "rpca": 12.0, "hpss": 1.0}, n=12, tasks=("class-split", "class-agnostic"))
    for name, why in (("ica", "needs two channels"), ("rpca", "needs two channels"), ("hpss", "separates audio signals only")):
        run.scores = run.scores[~(run.where(name) & (run.scores["task"] == "class-split"))]
        run.cells["class-split", name] = {"state": "unsupported", "note": why}
    shown = invoke("show", run.save(tmp_path / "run"), width=200).output
    assert "not on class-split: ica, rpca (needs two channels); hpss (separates audio signals only)" in shown
    assert shown.count("needs two channels") == 1


@pytest.mark.parametrize("width", [40, 50, 60])
def test_narrow_terminals_get_every_number(long_board: str, width: int) -> None:
    shown = invoke("show", long_board, width=width).output
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    for name in ("ideal-mask", "nmf-semi", "average"):
        assert f"{name} " in shown
    for row in csv.DictReader(io.StringIO(invoke("show", long_board, "--metric", "psnr", "--format", "csv").output)):
        assert f"{float(row['mean']):.2f}" in shown
        assert f"[{float(row['ci_low']):.2f}, {float(row['ci_high']):.2f}]" in shown
    for head in ("supervision", "published", "s/mixture"):
        assert head in shown


# -- JSON


def test_json_has_the_same_numbers_and_ranks(long_board: str) -> None:
    result = invoke("show", long_board, "--json", "--top", "2")
    document = json.loads(result.output)
    assert (document["format"], document["target"]) == (1, long_board)
    assert [task["methods"] for task in document["tasks"]] == [["ideal-mask", "nmf", "ica"]] * 2
    ranks = {(row["method"], row["rank"], row["mark"]) for row in document["rows"]}
    assert ranks == {("ideal-mask", None, "bound"), ("nmf", 1, ""), ("ica", 2, "")}
    frame = open_results(long_board).frame
    for row in document["rows"]:
        (mine,) = frame[(frame["task"] == row["task"]) & (frame["method"] == row["method"]) & (frame["metric"] == row["metric"])].to_dict("records")
        assert row["mean"] == mine["mean"]  # every digit
        assert row["std_seeds"] is None
    assert {row["source"] for row in document["published"]} >= {"BASIS Table 2"}


def test_json_of_statistics(long_board: str) -> None:
    document = json.loads(invoke("show", long_board, "--stats", "--method", "nmf,ica", "--task", "class-split", "--json").output)
    first, second = document["rows"]
    assert (first["method"], first["best_is_better"]) == ("nmf", None)
    assert second["iqm_ci_low"] < second["iqm"] < second["iqm_ci_high"]
    assert 0.5 < second["best_is_better"] <= 1


def test_options_that_exclude_each_other(long_board: str) -> None:
    assert "exclude each other" in fails("show", long_board, "--json", "--format", "csv")
    assert "--stats" in fails("show", long_board, "--stats", "--top", "3")
