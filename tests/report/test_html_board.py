"""A board task by task: what a view finds of a method among papers' rows and other metrics, and what it takes from results that hold little."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.report.html.board import Board, MetricWords, TaskView, open_board, task_views
from sepbench.report.rows import Line
from sepbench.results.values import MetricValues, Values
from sepbench.run.records import CellRecord


def line(rank: str, method: str, from_paper: bool = False) -> Line:
    return Line(rank, method, "blind", "", (), "", (), "", from_paper)


def test_what_a_view_finds_of_a_method() -> None:
    """A paper's row may have the name of a method of ours and stand above it; a method may lack the metric that ranks."""
    marks = [line("", "nmf", True), line("1+", "nmf"), line("2=", "ica"), line("bound", "average"), line("few", "rpca"), line("failed", "hpss")]
    records: dict[Any, Any] = {("ica", "ssim"): {"mean": 1.0}, ("nmf", "ssim"): {"mean": 2.0}, ("nmf", "psnr"): {"mean": 3.0}, ("hpss", "error"): {"mean": 4.0}}
    metrics = MetricWords("psnr", "dB", True, ""), MetricWords("ssim", "1", True, "")
    cells = {("A task", "nmf"): CellRecord(note="own"), ("another", "ica"): CellRecord(note="of another task")}
    board: Any = SimpleNamespace(results=SimpleNamespace(cells=cells))
    table: Any = SimpleNamespace(lines=marks)
    view = TaskView(board, "A task", table, records, metrics, {}, None)  # type: ignore[arg-type]
    kinds = {"nmf": "ranked", "ica": "ranked", "average": "bound", "rpca": "unranked", "hpss": "unranked"}
    assert {name: view.kind(name) for name in kinds} == kinds
    assert (view.methods, view.metric, view.lines) == (list(kinds), metrics[0], marks)
    assert [view.first(name)["mean"] for name in ("nmf", "ica", "hpss")] == [3.0, 1.0, 4.0]
    assert [view.cell(name) for name in ("nmf", "ica")] == [CellRecord(note="own"), CellRecord()]
    assert view.slug.startswith("a-task-")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    run = SyntheticRun({"ica": 12.0, "nmf": 16.0, "average": 14.0}, ("class-split", "class-agnostic"), n=12)
    run.cells["class-agnostic", "nmf"]["note"] = "atoms are clustered"
    return open_board(run.save(tmp_path_factory.mktemp("board") / "run"), set(), lambda text: None)


def test_each_task_has_its_rows_its_metrics_and_its_notes(board: Board) -> None:
    frame = board.results.frame
    lacks = (frame["task"] == "class-agnostic") & (frame["metric"] == "psnr")
    some = replace(board, results=replace(board.results, frame=frame[~lacks].assign(unit="u"), values=None))
    split, agnostic = task_views(some)
    assert [(view.task, [metric.name for metric in view.metrics]) for view in (split, agnostic)] == [
        ("class-split", ["psnr", "ssim", "mixture_error"]),
        ("class-agnostic", ["ssim", "mixture_error"]),  # the suite ranks by a metric that this task lacks
    ]
    assert set(agnostic.records) == {(method, metric) for method in ("ica", "nmf", "average") for metric in ("ssim", "mixture_error")}
    assert [metric.direction for metric in split.metrics] == ["higher is better", "higher is better", "lower is better"]
    assert [metric.unit for metric in split.metrics] == ["u"] * 3
    assert split.methods == ["nmf", "average", "ica"]
    assert split.kind("average") == "bound"  # the run knows
    assert "nmf: atoms are clustered" in agnostic.table.footnotes
    assert (split.values, agnostic.values) == ({}, {})
    assert [view.task for view in task_views(some, ("class-agnostic", "class-split"))] == ["class-split", "class-agnostic"]
    assert [view.task for view in task_views(some, ("class-agnostic",))] == ["class-agnostic"]
    told, _ = task_views(replace(some, results=replace(some.results, bounds={"ica": "upper"})))
    assert {name: told.kind(name) for name in told.methods} == {"nmf": "ranked", "average": "ranked", "ica": "bound"}


def test_values_are_those_of_the_ranking_metric_from_best_to_worst(board: Board) -> None:
    """Of methods that have some; of equal methods the table says that they are."""
    numbers = {"ica": np.full(12, 16.0), "nmf": 16.0 + 0.1 * np.arange(12.0), "average": np.zeros(0)}
    asked: list[tuple[str, str]] = []

    def read(task: str, method: str) -> dict[str, MetricValues]:
        asked.append((task, method))
        return {"psnr": MetricValues(np.arange(len(numbers[method])), numbers[method]), "ssim": MetricValues(np.arange(12), np.ones(12))}

    made = replace(board, results=replace(board.results, values=Values(read)))
    (view,) = task_views(made, ("class-split",))
    assert list(view.values) == ["nmf", "ica"]
    assert {method: values.values.tolist() for method, values in view.values.items()} == {name: numbers[name].tolist() for name in ("nmf", "ica")}
    assert set(asked) == {("class-split", name) for name in numbers}
    equal = replace(board, results=replace(board.results, values=Values(lambda task, method: {"psnr": MetricValues(np.arange(12), np.arange(12.0))})))
    (same,) = task_views(equal, ("class-split",))
    assert [one.rank for one in same.lines if not one.from_paper] == ["1", "bound", "2="]


def test_a_board_is_titled_by_its_suite_and_its_run(board: Board) -> None:
    suite = board.results.suite
    assert suite is not None
    results = replace(board.results, label="L")
    alone = replace(results, suite=None)
    assert replace(board, results=results).title == f"{suite.title}: L"
    assert Board("x", results).title == suite.title  # of a leaderboard
    assert (Board("x", alone).title, Board("x", alone).description, Board("x", alone).suite_name) == ("digits-pairs", "", "digits-pairs")
    assert Board("x", results).description == suite.description != ""


def test_the_address_of_a_board_is_made_of_its_file_or_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is called as without its ending, a folder with all of its name, and a suite by its own."""
    results = SimpleNamespace(frame=[1])
    asked: list[Any] = []
    monkeypatch.setattr("sepbench.report.html.board.open_results", lambda target, suites: asked.append((target, suites)) or results)
    (tmp_path / "a-board.csv").write_text("")
    (tmp_path / "v2.run").mkdir()
    monkeypatch.chdir(tmp_path)
    found = [open_board(target, set(), pytest.fail) for target in ("a-board.csv", str(tmp_path / "v2.run"), "digits-pairs", "..")]
    assert [board.slug for board in found] == ["a-board", "v2-run-b5e83c9c", "digits-pairs", "x-5ec1f7e7"]
    assert {(board.record, board.opened, board.folder) for board in found} == {(None, None, None)}
    assert asked[2] == ("digits-pairs", True)
    assert open_board(".", set(), pytest.fail).slug == "x-cdb4ee2a"
    results.frame = []
    with pytest.raises(SepbenchError) as caught:
        open_board("digits-pairs", set(), pytest.fail)
    assert str(caught.value) == "digits-pairs has no rows to show"
