"""From a name to results: a run's folder, a leaderboard's file, a suite; and what is said where there is no such thing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError, UnknownNameError
from sepbench.results import target
from sepbench.results.leaderboard_file import write_leaderboard
from sepbench.results.published_scores import scores_path
from sepbench.results.ranking import Evidence
from sepbench.results.target import Results, committed_leaderboard, open_csv, open_results, open_run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(name: str, when: float = 0.0, suite: str = "digits-pairs") -> str:
    SyntheticRun(n=3, suite=suite).save(Path(name))
    if when:
        os.utime(Path(name) / "run.json", (when, when))
    return name


def test_a_folder_that_has_a_suite_s_name_is_the_suite_unless_it_is_a_run(here: Path) -> None:
    Path("mnist-pairs").mkdir()
    assert set(open_results("mnist-pairs", suites=True).frame["suite"]) == {"mnist-pairs"}
    with pytest.raises(
        SepbenchError, match=r"^mnist-pairs is not the folder of a run \(it has no run\.json\); name one that 'sepbench run' wrote, below runs/ by"
    ):
        open_results("mnist-pairs")
    Path("some").mkdir()
    with pytest.raises(SepbenchError, match=r"^some is not the folder of a run"):
        open_results("some", suites=True)
    saved("digits-pairs")
    assert len(open_results("digits-pairs", suites=True).cells) == 2


def test_a_folder_of_leaderboards_names_what_is_in_it(here: Path) -> None:
    Path("boards/scores").mkdir(parents=True)
    for name in ("digits-pairs", "mine"):
        write_leaderboard(SyntheticRun(n=3).frame(), Path("boards") / f"{name}.csv")
    Path("boards/other.csv").write_text("no leaderboard")
    for suites in (True, False):
        with pytest.raises(SepbenchError, match=r"^boards is not the folder of a run; it holds boards/digits-pairs.csv; name that$"):
            open_results("boards", suites=suites)
    Path("boards/scores/mine.parquet").touch()
    with pytest.raises(SepbenchError, match=r"^boards is not the folder of a run; it holds boards/digits-pairs.csv, boards/mine.csv; name one of them$"):
        open_results("boards")
    write_leaderboard(SyntheticRun(n=3).frame(), Path("boards/leaderboard.csv"))
    assert len(open_results("boards").frame) == 6


@pytest.mark.parametrize(
    ("name", "suites", "told"),
    [
        ("nothing", False, "there is no nothing; name the folder of a run or a leaderboard CSV"),
        ("mnist-pairs", False, "there is no mnist-pairs; name the folder of a run or a leaderboard CSV"),
        ("nothing.csv", True, "there is no nothing.csv; name the folder of a run, a leaderboard CSV or a suite"),
        ("runs/nothing", True, "there is no runs/nothing; name the folder of a run, a leaderboard CSV or a suite"),
        ("mnist-pair", True, "unknown run folder, CSV or suite 'mnist-pair'; did you mean mnist-pairs"),
        (
            "zzzzzz",
            True,
            "unknown run folder, CSV or suite 'zzzzzz'; there is no folder, CSV or suite of that name; name the folder of a run ('runs/...'), "
            "or see 'sepbench list suites'",
        ),
    ],
)
def test_what_is_not_there_is_told_with_what_there_may_be(here: Path, name: str, suites: bool, told: str) -> None:
    with pytest.raises(SepbenchError) as caught:
        open_results(name, suites=suites)
    assert str(caught.value).startswith(told)
    assert isinstance(caught.value, UnknownNameError) == told.startswith("unknown")


def test_without_a_committed_leaderboard_the_runs_below_are_named_the_newest_first(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "committed_path", lambda suite: here / f"{suite}.csv")
    assert committed_leaderboard("digits-pairs") is None
    beginning = r"^no leaderboard is committed for suite digits-pairs; "
    with pytest.raises(SepbenchError, match=rf"{beginning}there is no run of it in \./runs either: .* `sepbench run --suite digits-pairs`$"):
        open_results("digits-pairs", suites=True)
    saved("runs/other", suite="mnist-pairs")
    Path("runs/damaged").mkdir()
    Path("runs/damaged/run.json").write_text("{")
    saved("runs/a", 1_000)
    with pytest.raises(SepbenchError, match=rf"{beginning}name the folder of a run: `sepbench show runs/a`$"):
        open_results("digits-pairs", suites=True)
    saved("runs/b", 3_000)
    saved("runs/c", 2_000)
    with pytest.raises(SepbenchError, match=rf"{beginning}name the folder of a run: `sepbench show runs/b` \(or runs/c, runs/a\)$"):
        open_results("digits-pairs", suites=True)
    write_leaderboard(SyntheticRun(n=3).frame(), here / "digits-pairs.csv")
    assert len(open_results("digits-pairs", suites=True).frame) == 6
    found = committed_leaderboard("digits-pairs")
    assert found is not None
    assert len(found) == 6


def test_a_folder_without_run_json_may_hold_a_leaderboard(here: Path) -> None:
    Path("board").mkdir()
    write_leaderboard(SyntheticRun(n=3).frame(), Path("board/leaderboard.csv"))
    results = open_run(Path("board"), "mine")
    assert (results.label, results.values, dict(results.cells), results.bounds) == ("mine", None, {}, None)
    assert results.suite is not None


def test_a_run_of_a_suite_that_is_not_here_in_its_version(here: Path) -> None:
    run = SyntheticRun(n=3)
    run.record["suite"] = {"name": "digits-pairs", "version": 7}
    run.save(Path("old"))
    with pytest.raises(SepbenchError) as caught:
        open_results("old")
    known = SyntheticRun(n=3).suite.version
    told = f"old is a run of suite digits-pairs version 7, version {known} is installed, and it has no leaderboard.csv; run it again"
    assert str(caught.value) == told
    run.record["suite"] = {"name": "nobody-s", "version": 7}
    run.save(Path("strange"))
    with pytest.raises(SepbenchError, match=r"^strange is a run of suite nobody-s version 7, it is not installed, and it has no leaderboard\.csv"):
        open_results("strange")
    write_leaderboard(SyntheticRun(n=3).frame(), Path("old/leaderboard.csv"))
    results = open_results("old")
    assert results.suite is None
    assert results.values is not None
    assert (len(results.cells), results.bounds) == (2, {"average": "lower", "nmf": ""})
    assert results.ranking_metric == "psnr"


def test_a_file_s_suite_is_known_if_all_its_rows_are_of_one_that_is_here(here: Path) -> None:
    frame = SyntheticRun(n=3).frame()

    def suite_of(changed: pd.DataFrame) -> object:
        write_leaderboard(changed, Path("board.csv"))
        return open_csv(Path("board.csv"), "board").suite

    assert suite_of(frame) is not None
    assert suite_of(frame.assign(suite_version=99)) is None
    assert suite_of(frame.assign(suite="nobody-s")) is None
    assert suite_of(frame.assign(suite=["mnist-pairs"] + ["digits-pairs"] * 5)) is None


def test_what_ranks_and_what_is_known_of_a_table() -> None:
    run = SyntheticRun(n=3, metrics=("ssim", "psnr"))
    assert Results("a", run.frame(), run.suite).ranking_metric == run.suite.ranking_metric == "psnr"
    by_rows = run.frame().sort_values("metric", ascending=False, ignore_index=True)
    assert Results("a", by_rows, None).ranking_metric == "ssim"
    assert Results("a", by_rows.iloc[:0], None).ranking_metric == ""
    assert Results("a", by_rows, None).evidence is None
    evidence = Results("a", by_rows, run.suite, run.values()).evidence
    assert isinstance(evidence, Evidence)
    assert evidence.designs.task("class-split").interval == "cluster t"
    assert Results("a", by_rows, None).designs.task("class-split").interval == "t, clusters unknown"


def test_a_run_of_a_suite_by_its_file_is_opened_with_that_file(here: Path) -> None:
    """A copy of a built-in suite of another version, that the run was asked for by its path."""
    from sepbench.registry import suite_path

    text = suite_path("digits-pairs").read_text(encoding="utf-8")
    assert "\nversion = 1\n" in text
    Path("mine.toml").write_text(text.replace("\nversion = 1\n", "\nversion = 4\n"), encoding="utf-8")
    run = SyntheticRun(n=3)
    run.record["suite"] = {"name": "digits-pairs", "version": 4, "path": str(here / "mine.toml")}
    run.save(Path("run"))
    results = open_results("run")
    assert results.suite is not None
    assert results.suite.version == 4
    Path("mine.toml").unlink()
    with pytest.raises(SepbenchError, match=r"version 4, version 1 is installed"):
        open_results("run")


def test_scores_beside_a_leaderboard_belong_to_it(here: Path) -> None:
    board = Path("boards/x.csv")
    assert scores_path(board) == Path("boards/scores/x.parquet")
    saved("run")
    from sepbench.results.publication import publish_run

    publication = publish_run("run", Path("boards"))
    assert (publication.path, publication.replaced, publication.added, publication.left_out) == (Path("boards/digits-pairs.csv"), 0, 6, ())
    assert open_results("boards/digits-pairs.csv").values is not None
    shutil.rmtree("boards/scores")
    assert open_results("boards/digits-pairs.csv").values is None
