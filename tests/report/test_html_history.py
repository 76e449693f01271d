"""Rows over time: flags of each state against the one before, points of the chart, and states of a file that git keeps."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_run import SyntheticRun

from sepbench.report.html import history
from sepbench.report.html.history import State, _git, _read_now, git_states
from sepbench.results.gate import GateReport, GateRow
from sepbench.results.leaderboard import write_leaderboard
from sepbench.results.published_scores import merge_scores, scores_path
from sepbench.results.target import Results
from sepbench.results.values import MetricValues, Values

pytest.importorskip("altair")


def results(
    change: Callable[[SyntheticRun], object] = lambda run: None, methods: tuple[str, ...] = ("nmf", "ica"), tasks: tuple[str, ...] = ("class-split",)
) -> Results:
    run = SyntheticRun({name: 16.0 - place for place, name in enumerate(methods)}, tasks, n=20)
    change(run)
    return Results("x", run.frame(), run.suite, run.values())


def drawn(states: list[State]) -> dict[str, list[dict[str, Any]]]:
    found = history.history(states)
    assert found is not None
    return {task: list(next(iter(chart.spec["datasets"].values()))) for task, chart in found.charts}


def test_each_state_is_held_against_the_one_before() -> None:
    shifts = (0.0, -3.0, -3.0, 1.0)
    states = [State(f"day {k}", f"what {k}", results(lambda run, by=shift: run.shift("nmf", "psnr", by))) for k, shift in enumerate(shifts)]  # type: ignore[misc]
    rows = drawn(states)["class-split"]
    ours = [row for row in rows if row["method"] == "nmf"]
    assert [(row["when"], row["step"], row["flag"]) for row in ours] == [
        *(("day 0", 0, "new"), ("day 1", 1, "regression"), ("day 2", 2, "holds"), ("day 3", 3, "improvement")),
    ]
    assert {row["flag"] for row in rows if row["method"] == "ica" and row["step"]} == {"holds"}
    frames = [state.results.frame for state in states]
    means = [frame.loc[(frame["method"] == "nmf") & (frame["metric"] == "psnr"), "mean"].item() for frame in frames]
    assert [row["mean"] for row in ours] == means
    assert ours[0]["text"].startswith(f"{means[0]:.2f} [")
    found = history.history(states)
    assert found is not None
    assert [(step.when, step.what, step.verdict) for step in found.steps][:2] == [("day 0", "what 0", ""), ("day 1", "what 1", "regression")]
    assert found.steps[0].counts == "6 rows"
    assert found.charts[0][1].words == "psnr of every method on class-split over 4 states; the table names what the gate found"


def test_tasks_are_those_of_the_last_state_and_rows_without_a_mean_have_no_point() -> None:
    old = results(tasks=("class-split", "class-agnostic"))
    new = results(lambda run: [run.fail("ica", example) for example in range(20)], methods=("nmf", "ica", "rpca"))
    found = drawn([State("a", "", old), State("b", "", new)])
    assert list(found) == ["class-split"]
    assert sorted((row["method"], row["when"], row["flag"]) for row in found["class-split"]) == [
        *(("ica", "a", "new"), ("nmf", "a", "new"), ("nmf", "b", "holds"), ("rpca", "b", "new")),
    ]
    nothing = results(lambda run: [run.fail(name, example) for name in ("nmf", "ica") for example in range(20)])
    empty = history.history([State("a", "", nothing), State("b", "", nothing)])
    assert empty is not None
    assert empty.charts == ()


# -- states that git keeps


class Git:
    """A repository with one file in a folder of it."""

    def __init__(self, folder: Path) -> None:
        self.root, self.csv = folder, folder / "boards" / "digits-pairs.csv"
        self.csv.parent.mkdir(parents=True)
        self.run("init", "-q")

    def run(self, *arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", *arguments]
        return subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True).stdout

    def commit(self, subject: str) -> str:
        self.run("add", ".")
        self.run("commit", "-q", "--date=2026-03-04T12:00:00", "-m", subject)
        return self.run("rev-parse", "HEAD")[:7]


def test_the_last_states_of_a_file_with_the_scores_beside_it(tmp_path: Path) -> None:
    git, frame = Git(tmp_path), SyntheticRun({"nmf": 16.0}, n=12).frame()
    write_leaderboard(frame, git.csv)
    git.commit("too\told")
    git.csv.write_text(git.csv.read_text().replace(",true,", ",perhaps,", 1))
    broken = git.commit("broken")
    write_leaderboard(frame, git.csv)
    values = np.arange(12.0)
    merge_scores(git.csv, Values(lambda task, method: {"psnr": MetricValues(np.arange(12), values)}), [("class-split", "nmf")])
    second = git.commit("with\tscores: <b>ä</b>")
    (tmp_path / "other").write_text("x")
    git.commit("of another file")
    git.csv.write_text(git.csv.read_text().replace("sepbench run", "sepbench run2"))
    scores_path(git.csv).unlink()
    third = git.commit("last")
    write_leaderboard(frame.iloc[:1], git.csv)  # not committed
    told: list[str] = []
    states = git_states(git.csv, 3, told.append)
    assert len(told) == 1
    assert told[0].startswith(f"history of digits-pairs.csv: {broken} is left out: ")
    day = git.run("log", "-1", "--format=%cs").strip()
    assert [(state.when, state.what, state.results.label) for state in states] == [
        (f"{day} {second}", "with\tscores: <b>ä</b>", second),
        (f"{day} {third}", "last", third),
    ]
    assert [len(state.results.frame) for state in states] == [3, 3]
    first, last = (state.results.values for state in states)
    assert last is None
    assert first is not None  # though the files that they were read from are gone
    assert first.of("class-split", "nmf", "psnr").values.tolist() == values.tolist()
    assert [state.what for state in git_states(git.csv, 1, pytest.fail)] == ["last"]
    link = tmp_path / "link.csv"
    link.symlink_to(git.csv)
    assert [state.when for state in git_states(link, 1, pytest.fail)] == [f"{day} {third}"]


def test_values_are_read_at_once() -> None:
    asked: list[tuple[str, str]] = []

    def read(task: str, method: str) -> Any:
        asked.append((task, method))
        return {"psnr": MetricValues(np.arange(1), np.array([float(len(method))]))}

    frame = pd.DataFrame([{"task": "t", "method": name} for name in ("a", "bb", "a")])
    kept = _read_now(Results("x", frame, None, Values(read)))
    assert sorted(asked) == [("t", "a"), ("t", "bb")]
    assert kept.values is not None
    assert kept.values.of("t", "bb", "psnr").values.tolist() == [2.0]
    assert len(kept.values.of("t", "nobody", "psnr")) == 0
    assert len(asked) == 2
    assert kept.label == "x"
    bare = Results("x", frame, None)
    assert _read_now(bare) is bare


@pytest.mark.parametrize("error", [FileNotFoundError(), PermissionError(), subprocess.TimeoutExpired("git", 60)])
def test_where_git_is_not_there_or_does_not_answer_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception) -> None:
    def run(command: list[str], **options: Any) -> Any:
        assert command == ["git", "log"]
        assert (options["cwd"], options["timeout"]) == (tmp_path, 60)
        raise error

    monkeypatch.setattr(history.subprocess, "run", run)
    assert _git(tmp_path, "log") == b""


def test_what_fails_in_git_is_nothing(tmp_path: Path) -> None:
    assert _git(tmp_path, "show", "nothing") == b""
    assert git_states(tmp_path / "x.csv", 5, pytest.fail) == []


def test_numbers_of_rows_have_commas_and_rows_of_the_last_comparison_their_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    made = results()
    many = Results("x", pd.concat([made.frame] * 200), made.suite)
    rows = [GateRow("s", "class-split", "nmf", "psnr", "holds", basis="means")] * 1200 + [GateRow("s", "class-split", "ica", "psnr", "regression")]
    asked: list[Any] = []

    def check(new: Results, old: Results) -> GateReport:
        asked.append((new, old))
        return GateReport(rows, ["seed"])

    monkeypatch.setattr(history, "check_results", check)
    found = history.history([State("a", "first", many), State("b", "second", made)])
    assert found is not None
    assert asked == [(made, many)]
    first, second = found.steps
    assert (first.counts, first.notes, first.regressions, first.untested) == ("1,200 rows", (), (), ())
    assert (second.when, second.what, second.verdict, second.counts) == ("b", "second", "worse, not tested", "1,200 holds, 1 worse, not tested")
    assert (second.notes, second.regressions, second.untested) == (("seed",), (), ("class-split, ica, psnr: nan to nan, tolerance nan",))
    (chart,) = (chart for task, chart in found.charts if task == "class-split")
    last = [row for row in next(iter(chart.spec["datasets"].values())) if row["when"] == "b"]
    assert {row["method"]: row["flag"] for row in last} == {"nmf": "holds", "ica": "worse, not tested"}
