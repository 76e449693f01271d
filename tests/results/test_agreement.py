"""A leaderboard's table and the values per mixture beside it: what cannot both be right is told, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from synthetic_run import SyntheticRun

from sepbench.cli.main import main
from sepbench.errors import SepbenchError
from sepbench.resources import resource_root
from sepbench.results.agreement import check_agreement
from sepbench.results.leaderboard_file import read_leaderboard, write_leaderboard
from sepbench.results.publication import publish_run
from sepbench.results.published_scores import scores_path
from sepbench.results.target import open_csv, open_results

COMMITTED = sorted(path for path in resource_root("leaderboards").glob("*.csv") if scores_path(path).is_file())


@pytest.fixture
def board(tmp_path: Path) -> Path:
    publish_run(SyntheticRun(n=40).fail("nmf", 3).save(tmp_path / "run"), tmp_path / "boards")
    return tmp_path / "boards" / "digits-pairs.csv"


def edit(board: Path, metric: str, **columns: float) -> None:
    """Change the row of ``nmf`` in the table alone."""
    frame = read_leaderboard(board)
    frame.loc[(frame["method"] == "nmf") & (frame["metric"] == metric), list(columns)] = list(columns.values())
    write_leaderboard(frame, board)


def contradicts(board: Path) -> bool:
    """Whether a table is told to differ from its values."""
    try:
        check_agreement(open_results(str(board)))
    except SepbenchError as error:
        return "contradicts itself" in str(error)
    return False


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_leaderboards_agree_with_their_values(path: Path) -> None:
    check_agreement(open_csv(path, str(path)))


def test_there_are_committed_leaderboards_with_values() -> None:
    assert len(COMMITTED) > 10


def test_a_table_of_another_branch_is_told(board: Path) -> None:
    check_agreement(open_results(str(board)))
    edit(board, "psnr", mean=20.0)
    results = open_results(str(board))
    line = r"digits-pairs.csv contradicts itself: nmf psnr on class-split is 20 in the table, 1\d\.\d+ over scores/digits-pairs.parquet; publish again, or"
    with pytest.raises(SepbenchError, match=line):
        check_agreement(results)
    check_agreement(results, methods=["average"])
    check_agreement(results, tasks=["class-agnostic"])
    edit(board, "ssim", mean=0.1)
    with pytest.raises(SepbenchError, match=r"parquet \(and 1 more\); publish again"):
        check_agreement(open_results(str(board)))


@pytest.mark.parametrize(("columns", "told"), [({"n_scored": 38}, False), ({"mean": float("nan")}, False), ({"mean": 1.00005}, False), ({"mean": 1.001}, True)])
def test_only_what_cannot_both_be_right_is_told(board: Path, columns: dict[str, float], told: bool) -> None:
    """Values of other mixtures, no mean, digits that were rounded away; ``mean`` is a factor."""
    frame = read_leaderboard(board).set_index(["method", "metric"])
    old = float(frame.loc[("nmf", "psnr"), "mean"])
    edit(board, "psnr", **(columns | ({"mean": old * columns["mean"]} if "mean" in columns else {"mean": 99.0})))
    assert contradicts(board) == told


@pytest.mark.parametrize(("kind", "away", "told"), [("seeds", 1.4, False), ("fits", 1.4, False), ("seeds", 1.6, True), ("fits", 1.6, True)])
def test_a_mean_over_repetitions_may_be_as_far_as_their_spread_allows(board: Path, kind: str, away: float, told: bool) -> None:
    """Of four numbers one is at most 3 / 2 standard deviations from their mean: 0, 0, 0, 4 has mean 1 and deviation 2."""
    old = float(read_leaderboard(board).set_index(["method", "metric"]).loc[("nmf", "psnr"), "mean"])
    edit(board, "psnr", **{kind: 4, f"std_{kind}": 2.0, "mean": old + 2.0 * away})
    assert contradicts(board) == told


def test_runs_and_tables_without_values_are_left_alone(board: Path, tmp_path: Path) -> None:
    check_agreement(open_results(str(tmp_path / "run")))
    edit(board, "psnr", mean=20.0)
    scores_path(board).unlink()
    check_agreement(open_results(str(board)))


@pytest.mark.parametrize("side", ["NEW", "OLD"])
def test_check_ends_with_one_line_and_code_2(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], side: str
) -> None:
    edit(board, "psnr", mean=20.0)
    new, old = (board, tmp_path / "run") if side == "NEW" else (tmp_path / "run", board)
    monkeypatch.setattr(sys, "argv", ["sepbench", "check", str(new), "--against", str(old)])
    with pytest.raises(SystemExit) as stopped:
        main()
    shown = capsys.readouterr()
    assert (stopped.value.code, shown.out, len(shown.err.splitlines())) == (2, "", 1)
    assert "contradicts itself: nmf psnr" in shown.err
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--methods", "average"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
