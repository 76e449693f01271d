"""What goes into a committed leaderboard and what stays out, row by row: some and not all, better founded or forced."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError, UnknownNameError
from sepbench.results.leaderboard_file import read_leaderboard
from sepbench.results.publication import publish_run

MORE = "the row that is there is of more mixtures; --force replaces it"
PAPER = "the row that is there is of the paper's budget; --force replaces it"


def saved(folder: Path, methods: dict[str, float], n: int, budget: str = "paper", tasks: tuple[str, ...] = ("class-split",)) -> str:
    run = SyntheticRun(methods, n=n, tasks=tasks)
    run.record["budget"] = budget
    return run.save(folder)


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A leaderboard of two methods on nine mixtures, with the paper's budget."""
    publish_run(saved(tmp_path / "first", {"average": 14.0, "nmf": 16.0}, 9), tmp_path / "boards")
    return tmp_path / "boards"


@pytest.mark.parametrize(
    ("n", "budget", "left_out", "replaced"),
    [
        (9, "paper", [], 3),
        (10, "paper", [], 3),
        (8, "paper", [f"class-split, nmf: {MORE}"], 0),
        (9, "quick", [f"class-split, nmf: {PAPER}"], 0),
        (10, "quick", [f"class-split, nmf: {PAPER}"], 0),
        (8, "quick", [f"class-split, nmf: {MORE}"], 0),
    ],
)
def test_a_row_replaces_one_that_is_no_better_founded(board: Path, tmp_path: Path, n: int, budget: str, left_out: list[str], replaced: int) -> None:
    """Beside a method that is new there, which goes in whatever the others do."""
    name = saved(tmp_path / "second", {"nmf": 12.0, "ica": 11.0}, n, budget)
    found = publish_run(name, board)
    assert (found.path, found.replaced, found.added, list(found.left_out)) == (board / "digits-pairs.csv", replaced, 3, left_out)
    forced = publish_run(name, board, force=True)
    assert (forced.replaced, forced.added, forced.left_out) == (6, 0, ())
    frame = read_leaderboard(board / "digits-pairs.csv")
    assert set(frame.loc[frame["method"] == "nmf", "budget"]) == {budget}


def test_a_quick_row_is_replaced_by_any_of_as_many_mixtures(tmp_path: Path) -> None:
    publish_run(saved(tmp_path / "a", {"nmf": 14.0}, 5, "quick"), tmp_path)
    for name, budget in (("b", "quick"), ("c", "paper")):
        assert publish_run(saved(tmp_path / name, {"nmf": 15.0}, 5, budget), tmp_path).replaced == 3


def test_of_a_run_only_finished_cells_of_the_tasks_and_methods_asked_for_go_in(tmp_path: Path) -> None:
    run = SyntheticRun({"average": 14.0, "nmf": 16.0}, n=5, tasks=("class-split", "class-agnostic"))
    run.scores = run.scores[~(run.where("nmf", example=4) & (run.scores["task"] == "class-split"))]
    name = run.save(tmp_path / "run")
    some = publish_run(name, tmp_path / "some", tasks=("class-agnostic",), methods=("nmf",))
    assert (some.added, some.left_out) == (3, ())
    frame = read_leaderboard(some.path)
    assert set(zip(frame["task"], frame["method"], strict=True)) == {("class-agnostic", "nmf")}
    every = publish_run(name, tmp_path / "all")
    assert (every.added, every.left_out) == (9, ("class-split, nmf: not finished",))
    with pytest.raises(SepbenchError) as caught:
        publish_run(name, tmp_path / "none", tasks=("class-split",), methods=("nmf",))
    assert str(caught.value) == f"nothing of {name} can be published: class-split, nmf: not finished"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({"tasks": ("class-splitt",)}, "unknown task of {run} 'class-splitt'; did you mean class-split?"),
        ({"methods": ("nmf", "averag")}, "unknown method of {run} 'averag'; did you mean average?"),
    ],
)
def test_what_the_run_does_not_have_is_an_error(tmp_path: Path, chosen: dict[str, tuple[str, ...]], told: str) -> None:
    name = saved(tmp_path / "run", {"average": 14.0, "nmf": 16.0}, 3)
    with pytest.raises(UnknownNameError) as caught:
        publish_run(name, tmp_path, **chosen)  # type: ignore[arg-type]
    assert str(caught.value) == told.format(run=name)


def test_nothing_is_written_where_the_tables_cannot_be_one(board: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in board.rglob("*") if path.is_file()}
    run = SyntheticRun({"nmf": 12.0}, n=9)
    run.record["tasks"]["class-split"]["digest"] = "feed"
    with pytest.raises(SepbenchError, match="cannot merge: task class-split has digest feed in the new rows and "):
        publish_run(run.save(tmp_path / "other"), board)
    assert {path: path.read_bytes() for path in board.rglob("*") if path.is_file()} == before


def test_a_run_without_its_suite_cannot_be_published(tmp_path: Path) -> None:
    run = SyntheticRun(n=3)
    name = run.save(tmp_path / "run")
    from sepbench.results.leaderboard_file import write_leaderboard

    write_leaderboard(run.frame(), tmp_path / "run" / "leaderboard.csv")
    record = tmp_path / "run" / "run.json"
    record.write_text(record.read_text(encoding="utf-8").replace('"name": "digits-pairs"', '"name": "nobody-s"'), encoding="utf-8")
    with pytest.raises(SepbenchError) as caught:
        publish_run(name, tmp_path)
    assert str(caught.value) == f"{name} cannot be published: its suite in its version is not installed, or it has no run.json"
