"""What is written when a run is published: scores of the cells that go in and of no others, and the reasons of all that stay out, in their order."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.results.leaderboard_file import read_leaderboard
from sepbench.results.publication import publish_run
from sepbench.results.published_scores import read_scores

TASKS = ("class-split", "class-agnostic")


def test_values_are_those_of_the_cells_that_go_in(tmp_path: Path) -> None:
    """One cell is not finished, one is weaker than what is there: the values of neither are touched."""
    old = SyntheticRun({"nmf": 10.0}, n=6).save(tmp_path / "old")
    publish_run(old, tmp_path / "boards")
    board = tmp_path / "boards" / "digits-pairs.csv"
    kept = read_scores(board)
    assert kept is not None
    before = kept.of("class-split", "nmf", "psnr").values.tolist()
    made = SyntheticRun({"nmf": 16.0, "ica": 13.0, "rpca": 12.0}, n=5).fail("rpca", 2)
    made.scores = made.scores[~made.where("ica", example=4)]
    found = publish_run(made.save(tmp_path / "new"), tmp_path / "boards")
    assert found.left_out == (
        "class-split, ica: not finished",
        "class-split, nmf: the row that is there is of more mixtures; --force replaces it",
    )
    assert (found.added, found.replaced) == (3, 0)
    values = read_scores(board)
    assert values is not None
    assert values.of("class-split", "nmf", "psnr").values.tolist() == before
    assert len(values.of("class-split", "ica", "psnr")) == 0
    rpca = values.of("class-split", "rpca", "psnr")
    assert rpca.examples.tolist() == [0, 1, 2, 3, 4]
    assert rpca.scored.tolist() == [True, True, False, True, True]  # it is finished though one mixture failed
    assert sorted(set(read_leaderboard(board)["method"])) == ["nmf", "rpca"]


def test_all_reasons_are_told_where_nothing_goes_in(tmp_path: Path) -> None:
    publish_run(SyntheticRun({"nmf": 10.0, "average": 9.0}, TASKS, n=6).save(tmp_path / "old"), tmp_path / "boards")
    made = SyntheticRun({"nmf": 16.0, "average": 13.0}, TASKS, n=6)
    made.record["budget"] = "quick"
    made.record["tasks"]["class-agnostic"]["n_planned"] = 5
    made.scores = made.scores[~((made.scores["task"] == "class-agnostic") & (made.scores["example"] == 5))]
    made.scores = made.scores[~((made.scores["task"] == "class-split") & made.where("average", example=1))]
    before = {path: path.read_bytes() for path in (tmp_path / "boards").rglob("*") if path.is_file()}
    name = made.save(tmp_path / "new")
    with pytest.raises(SepbenchError) as caught:
        publish_run(name, tmp_path / "boards")
    assert str(caught.value) == (
        f"nothing of {name} can be published: class-split, average: not finished; "
        "class-agnostic, nmf: the row that is there is of more mixtures; --force replaces it; "
        "class-agnostic, average: the row that is there is of more mixtures; --force replaces it; "
        "class-split, nmf: the row that is there is of the paper's budget; --force replaces it"
    )
    assert {path: path.read_bytes() for path in (tmp_path / "boards").rglob("*") if path.is_file()} == before
    forced = publish_run(name, tmp_path / "boards", force=True)
    assert (forced.replaced, forced.added, forced.left_out) == (9, 0, ("class-split, average: not finished",))


@pytest.mark.parametrize(
    ("tasks", "methods", "cells"), [(("class-agnostic",), (), 2), ((), ("nmf",), 2), (TASKS, ("nmf", "average"), 4), (("class-split",), ("nmf",), 1)]
)
def test_only_what_is_asked_for_goes_in(tmp_path: Path, tasks: tuple[str, ...], methods: tuple[str, ...], cells: int) -> None:
    name = SyntheticRun({"nmf": 10.0, "average": 9.0}, TASKS, n=3).save(tmp_path / "run")
    found = publish_run(name, tmp_path / "boards", tasks=tasks, methods=methods)
    frame = read_leaderboard(found.path)
    wanted = {(task, method) for task in tasks or TASKS for method in methods or ("nmf", "average")}
    assert set(zip(frame["task"], frame["method"], strict=True)) == wanted
    assert (found.added, len(wanted)) == (3 * cells, cells)
    values = read_scores(found.path)
    assert values is not None
    assert {(task, method): len(values.of(task, method, "psnr")) for task in TASKS for method in ("nmf", "average")} == {
        (task, method): 3 * ((task, method) in wanted) for task in TASKS for method in ("nmf", "average")
    }
