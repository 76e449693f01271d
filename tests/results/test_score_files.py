"""Scores on disk: which rows are read for what is asked, what counts as failed, and whole lines about files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sepbench.results.columns import SCORE_COLUMNS
from sepbench.results.score_files import Rows, StoreError, read_parts, read_rows, read_values, score_table, unreadable
from sepbench.run.plan import Shard
from sepbench.run.sink import ShardScores


def shard_scores(first: int) -> ShardScores:
    """Two examples of two sources in two metrics, of which the second example failed in the second metric."""
    return ShardScores(
        example=np.array([first, first, first + 1, first + 1, first, first + 1]),
        source=np.array([0, 1, 0, 1, -1, -1]),
        metric=np.array([0, 0, 0, 0, 1, 1], np.int32),
        value=np.array([1.0, 2.0, 3.0, 4.0, 5.0, np.nan]) + first,
        seconds=np.full(6, 0.5),
        error=np.array([0, 0, 0, 0, 0, 1], np.int32),
        metrics=("psnr", "mixture_error"),
        errors=["", "broken"],
        fit_failed=False,
        n_separated=2,
        n_failed=1,
        separate_seconds=1.0,
    )


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for first, path in zip((10, 20), paths, strict=True):
        pq.write_table(score_table("s", Shard("t", "m", first, first + 2), shard_scores(first)), path)
    return paths


def test_values_of_the_examples_and_the_metric_asked_for(files: list[Path]) -> None:
    assert read_values(files, "psnr", [10, 21, 99]) == {(10, 0): 11.0, (10, 1): 12.0, (21, 0): 23.0, (21, 1): 24.0}
    assert read_values(files, "mixture_error", [10, 11]) == {}  # of whole mixtures
    assert read_values(files, "ssim", [10]) == {}
    assert read_values(files, "psnr", []) == {}
    assert read_values([], "psnr", [10]) == {}


def test_rows_come_file_by_file(files: list[Path]) -> None:
    first, second = read_rows(files)
    assert (first.example.tolist(), second.example.tolist()) == ([10, 10, 11, 11, 10, 11], [20, 20, 21, 21, 20, 21])
    assert first.source.tolist() == [0, 1, 0, 1, -1, -1]
    assert [first.metrics[code] for code in first.metric] == ["psnr"] * 4 + ["mixture_error"] * 2
    assert first.failed.tolist() == [False] * 5 + [True]
    assert first.value[:5].tolist() == [11.0, 12.0, 13.0, 14.0, 15.0]


def test_an_error_is_a_text_and_neither_an_empty_one_nor_none() -> None:
    table = pa.table({"example": [0, 1, 2], "source": [0, 0, 0], "metric": ["m"] * 3, "value": [1.0] * 3, "error": pa.array([None, "", "no"], pa.string())})
    assert Rows.of(table).failed.tolist() == [False, False, True]
    nothing = table.set_column(4, "error", pa.array([None] * 3, pa.string()))
    assert Rows.of(nothing).failed.tolist() == [False] * 3


def test_all_rows_as_one_frame_with_the_columns_asked_for(files: list[Path]) -> None:
    frame = read_parts(files, list(SCORE_COLUMNS))
    assert tuple(frame.columns) == SCORE_COLUMNS
    assert [str(kind) for kind in frame.dtypes] == ["category"] * 3 + ["int64"] * 2 + ["category", "float64", "float64", "category"]
    assert frame["metric"].tolist() == (["psnr"] * 4 + ["mixture_error"] * 2) * 2
    assert frame["error"].tolist() == ([""] * 5 + ["broken"]) * 2
    assert {name: set(frame[name]) for name in ("suite", "task", "method", "seconds")} == {"suite": {"s"}, "task": {"t"}, "method": {"m"}, "seconds": {0.5}}
    assert read_parts(files[:1], ["value", "example"]).columns.tolist() == ["value", "example"]
    assert len(read_parts([], ["value", "error"])) == 0


def test_no_error_is_the_first_category_also_where_every_row_failed(tmp_path: Path) -> None:
    failed = pa.table(
        {name: ["x"] for name in ("suite", "task", "method", "metric")} | {"example": [0], "source": [-1], "value": [np.nan], "error": ["broken"]}
    )
    pq.write_table(failed, tmp_path / "a.parquet")
    frame = read_parts([tmp_path / "a.parquet"], ["error", "metric"])
    assert (frame["error"].tolist(), frame["error"].cat.categories.tolist()) == (["broken"], ["", "broken"])
    assert frame["metric"].cat.categories.tolist() == ["x"]


@pytest.mark.parametrize("read", ["rows", "values", "parts"])
def test_a_damaged_file_is_told_with_what_to_do(files: list[Path], read: str) -> None:
    files[1].write_bytes(b"damaged")
    calls = {"rows": lambda: list(read_rows(files)), "values": lambda: read_values(files, "psnr", [10]), "parts": lambda: read_parts(files, ["value"])}
    where = f"{files[1]}: " if read == "rows" else ""
    with pytest.raises(StoreError) as caught:
        calls[read]()  # type: ignore[operator]
    assert str(caught.value).startswith(f"scores cannot be read ({where}")
    assert str(caught.value).endswith("); run the run's own command again to make damaged files anew")


@pytest.mark.parametrize(("error", "told"), [(PermissionError(13, "Permission denied"), "permission denied"), (OSError("Odd Words"), "odd words")])
def test_a_file_that_may_not_be_opened_is_its_owner_s_affair(error: OSError, told: str) -> None:
    assert str(unreadable(Path("R/x"), error)) == f"R/x cannot be read: {told}; ask its owner, or choose another --out"


def test_a_footer_that_promises_more_rows_than_there_are(files: list[Path]) -> None:
    """Files of earlier versions have no checksum of the footer. The rows that are lacking would be whatever the memory held."""
    content = files[1].read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    rows = content.index(b"\x16\x0c\x19", footer)  # of the file, 6 as a zigzag number, before the list of row groups
    files[1].write_bytes(content[:rows] + b"\x16\x0e" + content[rows + 2 :])
    assert pq.read_metadata(files[1]).num_rows == 7
    with pytest.raises(StoreError, match="13 rows are promised and 12 there"):
        read_parts(files, SCORE_COLUMNS)
