"""A run as data frames and tensors, and the tasks of a suite as tensors."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_methods_toys import Raises
from synthetic_run import SyntheticRun
from told_places import without_place

import sepbench
from sepbench import Run, RunWarning, SepbenchError
from sepbench.api import opened
from sepbench.api.opened import CELL_COLUMNS, FIRST
from sepbench.errors import ArgumentError, UnknownNameError
from sepbench.metrics.kinds import PART
from sepbench.results.columns import column_names
from sepbench.results.leaderboard_file import read_leaderboard
from sepbench.run.records import CellRecord
from sepbench.suites.model import Task


def test_scores_are_tidy(shared_run: Run) -> None:
    scores = shared_run.scores
    assert list(scores.columns) == ["task", "method", "example", "source", "metric", "value", "seconds", "error"]
    assert not scores.duplicated(["task", "method", "example", "source", "metric"]).any()
    assert set(scores["metric"]) == set(shared_run.record.metrics)
    assert set(scores.query("metric == 'psnr'")["source"]) == {0, 1}
    assert set(scores.query("metric == 'mixture_error'")["source"]) == {-1}
    counts = scores.query("metric == 'psnr'").groupby(["task", "method"]).size()  # plain texts: no category that is not there
    assert list(counts) == [24] * 6


def test_the_summary_is_the_leaderboard_and_follows_from_the_scores(shared_run: Run) -> None:
    summary = shared_run.summary
    assert set(column_names()) < set(summary.columns)
    written = read_leaderboard(shared_run.path / "leaderboard.csv")
    pd.testing.assert_frame_equal(summary[list(written.columns)], written, check_exact=False, rtol=1e-5)
    per_example = shared_run.scores.query("metric == 'psnr'").groupby(["task", "method", "example"])["value"].mean()
    means = per_example.groupby(["task", "method"]).mean()
    for row in summary.query("metric == 'psnr'").itertuples():
        assert row.mean == pytest.approx(means[row.task, row.method])
        assert row.ci_low < row.mean < row.ci_high
        assert (row.n_scored, row.n_failed, row.state, row.error) == (12, 0, "done", "")
        assert row.convention
        assert row.interval == "cluster t"


def test_cells_tell_of_what_is_not_in_the_summary() -> None:
    run = sepbench.run("digits-pairs", methods=["average", "hpss"], limit=4, device="cpu")
    assert ("class-agnostic", "hpss") not in set(zip(run.summary["task"], run.summary["method"], strict=True))
    cell = run.cells.set_index(["task", "method"]).loc["class-agnostic", "hpss"]
    assert cell["state"] == "unsupported"
    assert cell["note"]
    with pytest.raises(SepbenchError, match="hpss does not take task class-agnostic: "):
        run.estimates("class-agnostic", "hpss")


def test_failed_examples_are_rows() -> None:
    with pytest.warns(RunWarning):
        run = sepbench.run("digits-pairs", methods=[Raises], tasks="class-split", limit=3, device="cpu")
    assert run.scores["value"].isna().all()
    assert {without_place(error) for error in run.scores["error"]} == {"RuntimeError: no convergence at all"}
    assert set(run.scores["source"]) == {-1}
    assert run.estimates("class-split", "raises").isnan().all()


def test_a_folder_is_opened_again(shared_run: Run) -> None:
    again = sepbench.open_run(shared_run.path)
    pd.testing.assert_frame_equal(again.scores, shared_run.scores)
    pd.testing.assert_frame_equal(again.summary, shared_run.summary)
    assert repr(again) == f"<sepbench run of digits-pairs: 2 tasks, 3 methods, {shared_run.path}>"
    assert again.suite.name == "digits-pairs"


def test_estimates_of_some_are_rows_of_all(shared_run: Run) -> None:
    whole = shared_run.estimates("class-agnostic", "nmf")
    assert whole.shape == (12, 2, 1, 8, 8)
    for ids in ([3, 0, 3], range(2, 5), np.array([11]), torch.tensor([7, 1])):
        assert torch.equal(shared_run.estimates("class-agnostic", "nmf", ids), whole[torch.as_tensor(list(ids))])


@pytest.fixture(scope="module")
def task() -> Task:
    return sepbench.load_suite("digits-pairs").task("class-split")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the folder that it runs in is no part of it
@given(ids=st.lists(st.integers(0, 999), max_size=12))
def test_mixtures_are_the_operator_of_the_references(task: Task, ids: list[int]) -> None:
    mixtures, references = task.mixtures(ids), task.references(ids)
    assert mixtures.shape == (len(ids), 1, 8, 8)
    assert references.shape == (len(ids), 2, 1, 8, 8)
    assert torch.equal(mixtures, references.sum(1))


def test_all_mixtures_are_the_frozen_ones() -> None:
    task = sepbench.load_suite("digits-pairs").task("class-agnostic")
    assert len(task.mixtures()) == task.n_examples == 1000
    assert torch.equal(task.mixtures()[[5, 900]], task.mixtures([5, 900]))


WRONG: dict[str, tuple[Callable[[Run], object], type[SepbenchError], str]] = {
    "no folder": (lambda run: sepbench.open_run("runs/nothing"), SepbenchError, "there is no runs/nothing; name the folder of a run"),
    "no run": (lambda run: sepbench.open_run(Path.cwd()), SepbenchError, "is not the folder of a run"),
    "no path": (lambda run: sepbench.open_run(7), ArgumentError, "path must be a path, got 7"),  # type: ignore[arg-type]
    "task": (lambda run: run.estimates("class-splt", "nmf"), UnknownNameError, "did you mean class-split"),
    "method": (lambda run: run.estimates("class-split", "nmff"), UnknownNameError, "did you mean nmf"),
    "one method": (lambda run: run.method("nmff"), UnknownNameError, "did you mean nmf"),
    "beyond": (lambda run: run.estimates("class-split", "nmf", [0, 12]), ArgumentError, r"from 0 to 11 \(nmf on class-split has 12 mixtures\), got 12"),
    "suite": (lambda run: sepbench.load_suite("digits"), UnknownNameError, "did you mean digits-pairs"),
    "suite object": (lambda run: sepbench.load_suite(run.suite), ArgumentError, "give its name, 'digits-pairs'"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_argument_is_one_line_at_the_door(wrong: str, shared_run: Run) -> None:
    call, kind, text = WRONG[wrong]
    with pytest.raises(kind, match=text) as caught:
        call(shared_run)
    assert "\n" not in str(caught.value)
    files = [Path(frame.filename).name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert set(files) <= {"test_opened.py", "arguments.py"}


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        (3, "got 3; write a single one as [3]"),
        ([1000], "from 0 to 999 (task 'class-split' has 1,000 mixtures), got 1000"),
        ([-1], "got -1"),
        ([0.5], "got float32 values"),
        ([[0, 1]], "got shape (1, 2)"),
        ("12", "got str"),
        ([True], "got bool values"),
    ],
)
def test_ids_are_numbers_of_the_list(task: Task, ids: object, text: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        task.mixtures(ids)  # type: ignore[arg-type]
    assert text in str(caught.value)
    with pytest.raises(UnknownNameError, match="did you mean class-split"):
        sepbench.load_suite("digits-pairs").task("class-spilt")


def test_estimates_that_were_not_kept_are_told_of() -> None:
    run = sepbench.run("digits-pairs", methods="average", tasks="class-split", limit=3, device="cpu", keep_estimates=False)
    with pytest.raises(SepbenchError, match=r"were not kept.*keep_estimates=False"):
        run.estimates("class-split", "average")


# ---- with scores made up ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def made_up(tmp_path: Path) -> Run:
    """Two methods on two tasks, of which the first takes one alone."""
    made = SyntheticRun({"nmf": 16.0, "ica": 13.0}, n=4, tasks=("class-split", "class-agnostic"))
    made.scores = made.scores[~(made.where("nmf") & (made.scores["task"] == "class-agnostic"))]
    made.cells["class-agnostic", "nmf"] = {"state": "unsupported", "note": "two classes only"}
    made.record["grid"] = {"class-split": ["nmf"], "class-agnostic": ["nmf", "ica"]}
    made.fail("nmf", 3, "ValueError: broken")
    return sepbench.open_run(made.save(tmp_path / "made"))


def test_a_run_says_what_it_holds(made_up: Run, tmp_path: Path) -> None:
    assert repr(made_up) == f"<sepbench run of digits-pairs: 2 tasks, 2 methods, {made_up.path}>"
    one = sepbench.open_run(Path(SyntheticRun({"nmf": 16.0}, n=2).save(tmp_path / "one")))
    assert repr(one) == f"<sepbench run of digits-pairs: 1 task, 1 method, {tmp_path / 'one'}>"
    assert (made_up.tasks, made_up.methods, made_up.record.limit) == (("class-split", "class-agnostic"), ("nmf", "ica"), 4)
    assert (made_up.whole.method, made_up.method("ica").method) == (None, "ica")


def test_parts_of_pooled_metrics_are_no_scores_and_texts_are_plain(tmp_path: Path) -> None:
    made = SyntheticRun(n=3)
    made.scores = pd.concat([made.scores[made.where("nmf", "psnr")].assign(metric=f"psnr{PART}squares"), made.scores], ignore_index=True)
    made_up = sepbench.open_run(made.save(tmp_path / "parts"))
    scores = made_up.scores
    assert sorted(set(scores["metric"])) == ["mixture_error", "psnr", "ssim"]
    assert list(scores.index) == list(range(len(scores)))
    assert [str(scores[name].dtype) for name in ("task", "method", "metric", "error")] == ["object"] * 4
    assert made_up.scores is scores  # read once


def test_columns_come_in_their_order_and_states_are_those_of_the_cells(made_up: Run) -> None:
    summary, cells = made_up.summary, made_up.cells
    assert tuple(summary.columns[: len(FIRST)]) == FIRST
    assert summary.columns[-1] == "convention"
    assert list(summary.columns).count("state") == 1
    states = {(row.task, row.method): (row.state, row.error) for row in summary.itertuples()}
    assert states["class-split", "nmf"] == ("partial", "ValueError: broken")
    assert tuple(cells.columns[: len(CELL_COLUMNS)]) == CELL_COLUMNS
    assert sorted(cells.columns) == sorted(["task", "method", *CellRecord.model_fields])
    known = {(row.task, row.method): (row.state, row.note) for row in cells.itertuples()}
    assert known == {
        ("class-split", "nmf"): ("partial", ""),
        ("class-agnostic", "nmf"): ("unsupported", "two classes only"),
        ("class-agnostic", "ica"): ("done", ""),
    }


def test_a_metric_that_is_not_installed_has_no_convention(monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened._convention("psnr")
    assert opened._convention("of another package") == ""


ASKED: dict[str, tuple[tuple[object, ...], str]] = {
    "task": (("class-splt", "nmf"), "unknown task of {} 'class-splt'; did you mean class-split"),
    "no text": ((3, "nmf"), "unknown task of {} '3'; "),
    "of another task": (("class-split", "ica"), "unknown method of {} on class-split 'ica'; "),
    "unsupported": (("class-agnostic", "nmf"), "nmf does not take task class-agnostic: two classes only"),
}


@pytest.mark.parametrize("case", ASKED)
def test_estimates_that_a_run_cannot_have_are_told(made_up: Run, case: str) -> None:
    given, line = ASKED[case]
    with pytest.raises(SepbenchError) as refused:
        made_up.estimates(*given)  # type: ignore[arg-type]
    assert str(refused.value).startswith(line.format(made_up.path))


def test_the_tables_of_a_run_are_drawn_of_all_that_is_known_of_it(made_up: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("sepbench.report.table.render_leaderboard", lambda frame, suite, console, **laid: drawn.append((frame, suite, laid)))
    made_up.show()
    ((frame, suite, laid),) = drawn
    known = made_up._results
    assert (frame is known.frame, suite is known.suite) == (True, True)
    assert (laid.pop("evidence").values is known.evidence.values, laid) == (True, {"cells": known.cells, "bounds": known.bounds})  # type: ignore[union-attr]
    assert (made_up.suite.name, made_up.whole.results is known, made_up.method("nmf").results is known) == ("digits-pairs", True, True)


def test_rows_whose_record_is_gone_have_the_state_of_a_record_that_says_nothing(made_up: Run) -> None:
    known = made_up._results
    known.cells.pop(("class-split", "nmf"))  # type: ignore[attr-defined]
    found = {(row.task, row.method): (row.state, row.error) for row in made_up.summary.itertuples()}
    assert found["class-split", "nmf"] == (CellRecord().state, "")
    assert found["class-agnostic", "ica"] == ("done", "")
    assert "state" not in known.frame.columns  # the summary is a copy
    assert made_up.summary is made_up.summary  # read once


@pytest.mark.parametrize(("planned", "ids"), [(3, [0, 1, 2]), (0, [0, 1, 2, 3])])
def test_all_estimates_are_those_of_the_cell_or_else_of_the_run(made_up: Run, monkeypatch: pytest.MonkeyPatch, planned: int, ids: list[int]) -> None:
    """A cell of an older run does not say how many mixtures it has."""
    asked: list[Any] = []
    real = made_up._opened
    monkeypatch.setattr(made_up._store, "read_cell", lambda task, method: CellRecord(n_planned=planned) if planned else None)
    monkeypatch.setattr(type(real), "estimates", lambda self, task, method, wanted: asked.append((task.spec.name, method, wanted)))
    made_up.estimates("class-split", "nmf")
    made_up.estimates("class-split", "nmf", [2, 0])
    assert asked == [("class-split", "nmf", ids), ("class-split", "nmf", [2, 0])]
    with pytest.raises(ArgumentError, match=rf"\(nmf on class-split has {len(ids)} mixtures\), got {len(ids)}$"):
        made_up.estimates("class-split", "nmf", [len(ids)])


def test_a_run_is_opened_by_text_path_and_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    SyntheticRun({"nmf": 16.0}, n=2).save(tmp_path / "run")
    assert [sepbench.open_run(path).path for path in ("~/run", Path("~/run"), str(tmp_path / "run"))] == [tmp_path / "run"] * 3
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(SepbenchError) as refused:
        sepbench.open_run("~/link")
    assert str(refused.value) == f"there is no {tmp_path}/link; name the folder of a run, as `sepbench run` or `sepbench.run` made it"
