"""Scores beside a leaderboard: the same statistics again, pairs with a user's run, and one file that grows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError, UnknownNameError
from sepbench.results.compare import A_BETTER, compare_sides, open_side
from sepbench.results.gate import Scope, check_results
from sepbench.results.publication import publish_run
from sepbench.results.published_scores import merge_scores, read_scores, scores_path
from sepbench.results.target import open_results
from sepbench.results.values import MetricValues, Values


def published(tmp_path: Path, run: SyntheticRun, name: str = "run", **options: object) -> Path:
    publish_run(run.save(tmp_path / name), tmp_path / "boards", **options)  # type: ignore[arg-type]
    return tmp_path / "boards" / "digits-pairs.csv"


def test_values_come_back_as_they_were_but_for_float32(tmp_path: Path) -> None:
    run = SyntheticRun(n=20).fail("nmf", 3)
    board = open_results(str(published(tmp_path, run)))
    assert board.values is not None
    for method in ("average", "nmf"):
        for metric, there in run.values().cell("class-split", method).items():
            found = board.values.of("class-split", method, metric)
            assert np.array_equal(found.examples, there.examples)
            np.testing.assert_allclose(found.values, there.values, rtol=1e-6)


def test_a_run_is_compared_with_a_leaderboard_mixture_by_mixture(tmp_path: Path) -> None:
    board = published(tmp_path, SyntheticRun(n=60))
    mine = SyntheticRun({"nmf": 16.0}, n=30)  # the same draws for the first method and fewer mixtures
    mine.shift("nmf", "psnr", 3.0)
    rows = compare_sides(open_side(mine.save(tmp_path / "mine")), open_side(f"{board}:nmf"))
    (row,) = rows.to_dict("records")
    assert (row["n"], row["verdict"]) == (30, A_BETTER)


def test_a_check_against_a_leaderboard_is_paired(tmp_path: Path) -> None:
    board = open_results(str(published(tmp_path, SyntheticRun(n=60))))
    same = open_results(SyntheticRun(n=60).save(tmp_path / "same"))
    report = check_results(same, board)
    assert report.exit_code == 0
    assert {row.basis for row in report.rows} == {"paired test"}
    worse = open_results(SyntheticRun(n=60).shift("nmf", "psnr", -1.0).save(tmp_path / "worse"))
    assert check_results(worse, board, scope=Scope(methods=("nmf",))).exit_code == 1


def test_rows_without_values_are_checked_by_their_means(tmp_path: Path) -> None:
    path = published(tmp_path, SyntheticRun(n=60))
    run = SyntheticRun(n=60)
    merge_scores(path, Values(lambda task, method: {}), [("class-split", "average")])
    report = check_results(open_results(run.save(tmp_path / "new")), open_results(str(path)))
    assert report.exit_code == 0
    assert {(row.method, row.basis) for row in report.rows} == {("average", "means"), ("nmf", "paired test")}


def test_cells_are_replaced_and_others_kept(tmp_path: Path) -> None:
    board = published(tmp_path, SyntheticRun(n=20))
    published(tmp_path, SyntheticRun({"nmf": 10.0, "ica": 9.0}, n=25), "again")
    values = open_results(str(board)).values
    assert values is not None
    assert [len(values.of("class-split", method, "psnr")) for method in ("average", "nmf", "ica")] == [20, 25, 25]


def test_only_what_is_named_is_published(tmp_path: Path) -> None:
    board = published(tmp_path, SyntheticRun(n=20), methods=("nmf",))
    assert set(open_results(str(board)).frame["method"]) == {"nmf"}
    with pytest.raises(UnknownNameError, match="method of"):
        published(tmp_path, SyntheticRun(n=20), "more", methods=("nmff",))


def test_leaderboards_without_scores_have_none_and_damaged_ones_are_named(tmp_path: Path) -> None:
    board = published(tmp_path, SyntheticRun(n=20))
    scores_path(board).write_bytes(b"hello")
    values = open_results(str(board)).values
    assert values is not None
    with pytest.raises(SepbenchError, match=r"digits-pairs\.parquet cannot be read"):
        values.of("class-split", "nmf", "psnr")
    scores_path(board).unlink()
    assert open_results(str(board)).values is None


def _written(board: Path, cells: dict[tuple[str, str], dict[str, MetricValues]]) -> None:
    merge_scores(board, Values(lambda task, method: cells[task, method]), cells)


OURS = ("task", "method", "metric", "example", "value")


@pytest.mark.parametrize(
    ("left", "told"), [(OURS, "task, method, metric and 2 more"), *(((name,), name) for name in OURS), (("task", "value"), "task, value")], ids=str
)
def test_a_table_of_something_else_is_named_and_stays(tmp_path: Path, left: tuple[str, ...], told: str) -> None:
    """Whole Parquet without our columns: it holds no values of anybody's, and nothing may be written over it."""
    board, cell = tmp_path / "x.csv", {"psnr": MetricValues(np.arange(2), np.ones(2))}
    _written(board, {("t", "m"): cell})
    path = scores_path(board)
    pq.write_table(pq.read_table(path).append_column("price", [[1.0, 2.0]]).drop_columns(list(left)), path)
    there = path.read_bytes()
    values = read_scores(board)
    assert values is not None
    for use in (lambda: values.of("t", "m", "psnr"), lambda: _written(board, {("t", "other"): cell})):
        with pytest.raises(SepbenchError) as caught:
            use()
        assert str(caught.value) == f"{path} cannot be read (no column {told}); restore the file, or remove it and publish the runs again"
    assert path.read_bytes() == there


def test_columns_may_stand_in_another_order_beside_others_and_as_plain_texts(tmp_path: Path) -> None:
    board = tmp_path / "x.csv"
    _written(board, {("t", "m"): {"psnr": MetricValues(np.arange(2), np.array([0.5, 2.0]))}})
    table = pq.read_table(scores_path(board))
    plain = table.set_column(0, "task", table["task"].cast("string")).append_column("note", table["value"])
    pq.write_table(plain.select(plain.column_names[::-1]), scores_path(board))
    values = read_scores(board)
    assert values is not None
    assert values.of("t", "m", "psnr").values.tolist() == [0.5, 2.0]


def test_a_leaderboard_stays_as_it_is_where_its_scores_cannot_be_read(tmp_path: Path) -> None:
    board = published(tmp_path, SyntheticRun(n=5))
    rows = board.read_bytes()
    scores_path(board).write_bytes(b"hello")
    with pytest.raises(SepbenchError, match="cannot be read"):
        published(tmp_path, SyntheticRun({"ica": 9.0}, n=5), "more")
    assert board.read_bytes() == rows


def test_a_cell_is_replaced_by_task_and_method_and_its_examples_are_put_in_order(tmp_path: Path) -> None:
    """``a--b`` of ``c`` is not ``a`` of ``b--c``: names never hold ``--``, here nothing but the pair decides."""
    board, two = tmp_path / "x.csv", np.array([1.0, 2.0])
    _written(board, {("t", "m"): {"psnr": MetricValues(np.array([5, 3]), two)}, ("t", "m2"): {"ssim": MetricValues(np.array([1, 2]), two)}})
    _written(board, {("u", "m"): {"psnr": MetricValues(np.array([7, 8]), two)}, ("t", "m2"): {"psnr": MetricValues(np.array([4, 9]), np.array([np.nan, 3.0]))}})
    values = read_scores(board)
    assert values is not None
    assert (values.of("t", "m", "psnr").examples.tolist(), values.of("t", "m", "psnr").values.tolist()) == ([3, 5], [2.0, 1.0])
    assert values.of("u", "m", "psnr").examples.tolist() == [7, 8]
    assert list(values.cell("t", "m2")) == ["psnr"]
    assert values.of("t", "m2", "psnr").scored.tolist() == [False, True]
    assert len(values.of("t", "u", "psnr")) == 0
    schema = pq.read_schema(scores_path(board))
    assert {name: str(schema.field(name).type) for name in schema.names} == {
        **dict.fromkeys(("task", "method", "metric"), "dictionary<values=string, indices=int32, ordered=0>"),
        **{"example": "int32", "value": "float"},
    }


def test_values_of_sets_are_of_the_whole_alone_and_of_a_stranger_s_metric_nothing_is_known(tmp_path: Path) -> None:
    board = tmp_path / "x.csv"
    names = {"psnr": False, "psnr_pooled32": True, "fid_mnistnet": True, "nobody-s": False, "mixture_error": False}
    _written(board, {("t", "m"): {name: MetricValues(np.arange(2), np.ones(2)) for name in names}})
    values = read_scores(board)
    assert values is not None
    assert {name: found.whole_only for name, found in values.cell("t", "m").items()} == names
    spreads = {name: found.spread for name, found in values.cell("t", "m").items() if found.spread}
    assert spreads == {"psnr_pooled32": "jackknife", "fid_mnistnet": "influence function"}


def test_nothing_to_publish_is_an_empty_table_and_what_cannot_be_written_says_where(tmp_path: Path) -> None:
    _written(tmp_path / "x.csv", {})
    values = read_scores(tmp_path / "x.csv")
    assert values is not None
    assert dict(values.cell("t", "m")) == {}
    scores_path(tmp_path / "x.csv").write_bytes(b"hello")
    with pytest.raises(SepbenchError) as caught:
        _written(tmp_path / "x.csv", {("t", "m"): {}})
    assert str(caught.value).startswith(f"{scores_path(tmp_path / 'x.csv')} cannot be read (")
    assert str(caught.value).endswith("); restore the file, or remove it and publish the runs again")
    (tmp_path / "file").touch()
    with pytest.raises(SepbenchError) as caught:
        _written(tmp_path / "file" / "x.csv", {})
    told = "Not a directory; choose another folder with --to"
    assert str(caught.value) == f"cannot write {tmp_path}/file/scores/x.parquet: {told}"
