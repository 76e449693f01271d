"""What goes into a committed leaderboard and what stays out, row by row: some and not all, better founded or forced."""

from __future__ import annotations

import errno
import fcntl
import shutil
import threading
from pathlib import Path

import pytest
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError, UnknownNameError
from sepbench.files import holding_folder
from sepbench.results.leaderboard_file import read_leaderboard
from sepbench.results.publication import publish_run
from sepbench.results.published_scores import read_scores

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


# -- one run for all rows of a cell, in both files


def values_of(board: Path, method: str = "nmf") -> dict[str, list[float]]:
    read = read_scores(board / "digits-pairs.csv")
    assert read is not None
    return {metric: of.values.tolist() for metric, of in read.cell("class-split", method).items()}


def means_of(board: Path, method: str = "nmf") -> dict[str, float]:
    frame = read_leaderboard(board / "digits-pairs.csv")
    frame = frame[frame["method"] == method]
    return dict(zip(frame["metric"], frame["mean"], strict=True))


def with_metrics(folder: Path, metrics: tuple[str, ...], seed: int = 0, level: float = 16.0) -> str:
    run = SyntheticRun({"nmf": level, "ica": 11.0}, n=9, metrics=metrics, key=3 + seed)
    run.record |= {"seed": seed, "command": f"sepbench run --seed {seed}"}
    return run.save(folder)


def test_a_run_that_lacks_metrics_leaves_both_files_as_they_are_and_force_replaces_the_cell_in_both(board: Path, tmp_path: Path) -> None:
    """It had one row of the new run beside two of the old, and a file of values that held the new one's metric alone."""
    old = values_of(board), means_of(board)
    name = with_metrics(tmp_path / "second", ("psnr",), seed=7)
    found = publish_run(name, board)
    assert (found.replaced, found.added, found.removed) == (0, 1, 0)
    (line,) = found.left_out
    assert line.startswith("class-split, nmf: the rows that are there are of another run (command, seed) and have ssim, mixture_error too; ")
    assert f"`sepbench score {name} --metrics psnr,ssim,mixture_error`" in line
    assert (values_of(board), means_of(board)) == old
    assert list(values_of(board, "ica")) == list(means_of(board, "ica")) == ["psnr"]
    average = values_of(board, "average"), means_of(board, "average")
    forced = publish_run(name, board, force=True)
    assert (forced.replaced, forced.added, forced.removed, forced.left_out) == (2, 0, 2, ())
    assert list(values_of(board)) == list(means_of(board)) == ["psnr"]
    assert means_of(board)["psnr"] == pytest.approx(sum(values_of(board)["psnr"]) / 9, rel=1e-5)
    assert (values_of(board, "average"), means_of(board, "average")) == average


def test_a_run_that_is_scored_with_further_metrics_keeps_those_that_it_gave_before(tmp_path: Path) -> None:
    board = tmp_path / "boards"
    publish_run(with_metrics(tmp_path / "a", ("psnr", "ssim")), board)
    before = values_of(board), means_of(board)
    again = publish_run(with_metrics(tmp_path / "b", ("mixture_error",)), board)
    assert (again.replaced, again.added, again.removed, again.left_out) == (0, 2, 0, ())
    for now, then in zip((values_of(board), means_of(board)), before, strict=True):
        assert set(now) == {"psnr", "ssim", "mixture_error"}
        assert {metric: now[metric] for metric in then} == then
    assert len(values_of(board)["mixture_error"]) == 9


def test_a_metric_that_is_not_finished_counts_as_lacking_and_its_values_stay_out(board: Path, tmp_path: Path) -> None:
    old = values_of(board), means_of(board)
    run = SyntheticRun({"nmf": 12.0, "ica": 11.0}, n=9)
    run.record["seed"] = 7
    run.scores = run.scores[~((run.scores["metric"] == "ssim") & (run.scores["example"] == 8))]
    found = publish_run(run.save(tmp_path / "second"), board)
    assert [line[:60] for line in found.left_out[:2]] == ["class-split, nmf: ssim not finished", "class-split, ica: ssim not finished"]
    assert "are of another run (seed) and have ssim too" in found.left_out[2]
    assert (values_of(board), means_of(board)) == old
    assert list(values_of(board, "ica")) == list(means_of(board, "ica")) == ["psnr", "mixture_error"]


def test_a_row_of_failed_mixtures_does_not_replace_a_good_one(board: Path, tmp_path: Path) -> None:
    old = values_of(board), means_of(board)
    run = SyntheticRun({"nmf": 12.0}, n=9)
    for example in range(8):
        run.fail("nmf", example)
    name = run.save(tmp_path / "second")
    with pytest.raises(SepbenchError) as caught:
        publish_run(name, board)
    assert str(caught.value) == (f"nothing of {name} can be published: class-split, nmf: the row that is there is of more scored mixtures; --force replaces it")
    assert (values_of(board), means_of(board)) == old
    assert publish_run(name, board, force=True).replaced == 3
    assert set(read_leaderboard(board / "digits-pairs.csv").query("method == 'nmf'")["n_failed"]) == {8}


# -- two at the same time


def test_two_that_publish_at_the_same_time_take_turns_and_lose_no_rows(board: Path, tmp_path: Path) -> None:
    """While the folder is held another process adds ``ica``: rows that were read before that would lose it."""
    name = saved(tmp_path / "second", {"rpca": 12.0}, 9)
    shutil.copytree(board, tmp_path / "others")
    publish_run(saved(tmp_path / "third", {"ica": 11.0}, 9), tmp_path / "others")
    waited = threading.Event()
    thread = threading.Thread(target=lambda: publish_run(name, board, waiting=waited.set))
    with holding_folder(board):
        thread.start()
        assert waited.wait(20), "it did not wait"
        shutil.copytree(tmp_path / "others", board, dirs_exist_ok=True)
    thread.join(20)
    assert list(dict.fromkeys(read_leaderboard(board / "digits-pairs.csv")["method"])) == ["average", "nmf", "ica", "rpca"]
    assert all(len(values_of(board, method)["psnr"]) == 9 for method in ("average", "nmf", "ica", "rpca"))
    assert sorted(path.relative_to(board).as_posix() for path in board.rglob("*")) == ["digits-pairs.csv", "scores", "scores/digits-pairs.parquet"]


def test_a_folder_that_cannot_be_locked_is_published_into(board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    found = publish_run(str(tmp_path / "first"), board, waiting=lambda: pytest.fail("nobody is there"))
    assert (found.replaced, found.added) == (6, 0)
