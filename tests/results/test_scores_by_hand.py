"""Scores beside a leaderboard, as a file: what is written, in which order it is read, what a damaged one says, and metrics of a whole set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sepbench.errors import SepbenchError
from sepbench.results import published_scores
from sepbench.results.published_scores import merge_scores, read_scores, scores_path
from sepbench.results.values import MetricValues, Values


def values(**cells: dict[str, tuple[list[int], list[float]]]) -> Values:
    """Cells by ``task--method``."""

    def cell(task: str, method: str) -> dict[str, MetricValues]:
        given = cells[f"{task}__{method}"]
        return {metric: MetricValues(np.array(examples, np.int64), np.array(numbers)) for metric, (examples, numbers) in given.items()}

    return Values(cell)


def table(path: Path) -> list[tuple[object, ...]]:
    read = pq.read_table(path)
    return list(zip(*(read[name].to_pylist() for name in ("task", "method", "metric", "example", "value")), strict=True))


ONE = {"psnr": ([2, 0], [20.5, 0.1]), "ssim": ([1], [float("nan")])}


def test_a_file_is_written_row_by_row_small_and_typed(tmp_path: Path) -> None:
    board = tmp_path / "boards" / "toy.csv"
    merge_scores(board, values(a__x=ONE, b__y={}), [("a", "x"), ("b", "y")])
    path = tmp_path / "boards" / "scores" / "toy.parquet"
    assert scores_path(board) == path
    rows = table(path)
    assert [row[:4] for row in rows] == [("a", "x", "psnr", 2), ("a", "x", "psnr", 0), ("a", "x", "ssim", 1)]
    assert [row[4] for row in rows[:2]] == [20.5, float(np.float32(0.1))]
    assert rows[2][4] != rows[2][4]  # NaN: it failed
    file = pq.ParquetFile(path)
    assert {name: str(file.schema_arrow.field(name).type) for name in file.schema_arrow.names} == {
        **dict.fromkeys(("task", "method", "metric"), "dictionary<values=string, indices=int32, ordered=0>"),
        **{"example": "int32", "value": "float"},
    }
    column = {file.metadata.row_group(0).column(k).path_in_schema: file.metadata.row_group(0).column(k) for k in range(5)}
    assert {one.compression for one in column.values()} == {"ZSTD"}
    assert "DELTA_BINARY_PACKED" in column["example"].encodings
    assert "BYTE_STREAM_SPLIT" in column["value"].encodings
    assert [path.name for path in (tmp_path / "boards" / "scores").iterdir()] == ["toy.parquet"]


def test_values_are_read_in_the_order_of_their_mixtures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = tmp_path / "toy.csv"
    assert read_scores(board) is None
    merge_scores(board, values(a__x=ONE, a__xx={"fid": ([5], [7.0]), "nobody-s": ([5], [7.0])}), [("a", "x"), ("a", "xx")])
    found = read_scores(board)
    assert found is not None
    psnr = found.of("a", "x", "psnr")
    assert (psnr.examples.tolist(), psnr.values.tolist(), psnr.whole_only) == ([0, 2], [float(np.float32(0.1)), 20.5], False)
    assert (psnr.examples.dtype, psnr.values.dtype) == (np.int64, np.float64)
    assert list(found.cell("a", "x")) == ["psnr", "ssim"]
    assert found.of("a", "x", "ssim").scored.tolist() == [False]
    assert list(found.cell("a", "y")) == list(found.cell("b", "x")) == []
    assert not found.of("a", "xx", "nobody-s").whole_only  # of a metric that is not installed nobody knows
    for per, whole in (("source", False), ("mixture", False), ("group", True), ("set", True)):
        monkeypatch.setattr(published_scores, "get_metric", lambda name, per=per: type("M", (), {"info": type("I", (), {"per": per})}))
        again = read_scores(board)
        assert again is not None
        assert again.of("a", "xx", "fid").whole_only is whole


def test_cells_that_come_again_are_replaced_and_all_others_kept_where_they_are(tmp_path: Path) -> None:
    board = tmp_path / "toy.csv"
    cells = {f"{task}__{method}": {"psnr": ([0], [float(number)])} for number, (task, method) in enumerate([("a", "x"), ("a", "y"), ("b", "x")])}
    merge_scores(board, values(**cells), [("a", "x"), ("a", "y"), ("b", "x")])
    merge_scores(board, values(a__y={"psnr": ([0, 1], [8.0, 9.0])}, b__y={"psnr": ([0], [7.0])}), [("a", "y"), ("b", "y")])
    rows = table(scores_path(board))
    assert [(*row[:2], row[4]) for row in rows] == [("a", "x", 0.0), ("b", "x", 2.0), ("a", "y", 8.0), ("a", "y", 9.0), ("b", "y", 7.0)]
    merge_scores(board, values(a__x={}), [("a", "x")])
    assert ("a", "x") not in {row[:2] for row in table(scores_path(board))}
    merge_scores(tmp_path / "empty.csv", values(), [])
    assert table(scores_path(tmp_path / "empty.csv")) == []


def test_a_damaged_file_is_told_when_it_is_asked_for_and_never_written_over(tmp_path: Path) -> None:
    board = tmp_path / "toy.csv"
    path = scores_path(board)
    merge_scores(board, values(a__x=ONE), [("a", "x")])
    whole = path.read_bytes()
    for before in (b"PAR1 no", whole[:-9], b""):
        path.write_bytes(before)
        found = read_scores(board)
        assert found is not None
        for ask in (lambda found=found: found.cell("a", "x"), lambda: merge_scores(board, values(a__x=ONE), [("a", "x")])):
            with pytest.raises(SepbenchError) as caught:
                ask()
            assert str(caught.value).startswith(f"{path} cannot be read (")
            assert str(caught.value).endswith("); restore the file, or remove it and publish the runs again")
            assert "\n" not in str(caught.value)
        assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "scores").write_text("a file where the folder should be")
    with pytest.raises(SepbenchError) as caught:
        merge_scores(tmp_path / "toy.csv", values(a__x=ONE), [("a", "x")])
    assert str(caught.value) == f"cannot write {tmp_path / 'scores' / 'toy.parquet'}: File exists; choose another folder with --to"


def test_metrics_that_are_kept_stay_beside_the_new_ones_of_their_cell(tmp_path: Path) -> None:
    board = tmp_path / "toy.csv"
    merge_scores(board, values(a__x=ONE, a__y=ONE, b__x={"ssim": ([4], [4.0])}), [("a", "x"), ("a", "y"), ("b", "x")])
    merge_scores(board, values(a__x={"sdr": ([0], [1.0])}, a__y={"psnr": ([0], [2.0])}), [("a", "x"), ("a", "y")], [("a", "x", "psnr"), ("a", "y", "ssim")])
    assert [row[:4] for row in table(scores_path(board))] == [
        *(("a", "x", "psnr", 2), ("a", "x", "psnr", 0), ("a", "y", "ssim", 1), ("b", "x", "ssim", 4)),
        *(("a", "x", "sdr", 0), ("a", "y", "psnr", 0)),
    ]
