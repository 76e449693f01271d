"""A leaderboard's file by hand: fields of every kind, the place of rows that are merged in, and the whole line of what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_run import SyntheticRun

from sepbench import __version__
from sepbench.errors import SepbenchError
from sepbench.results import columns
from sepbench.results.columns import COLUMNS, column_names
from sepbench.results.leaderboard_file import _field, format_leaderboard, merge_leaderboards, read_leaderboard, typed, write_leaderboard


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return SyntheticRun({"nmf": 16.0}, n=3).frame()


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        *(("number", math.nan, ""), ("number", 0.0, "0"), ("number", 1234567.0, "1.23457e+06"), ("number", 1 / 3, "0.333333"), ("number", math.inf, "inf")),
        *(("flag", True, "true"), ("flag", np.False_, "false"), ("integer", np.int64(12_000), "12000"), ("text", "a, b", "a, b"), ("text", "", "")),
    ],
)
def test_fields_of_every_kind(kind: Any, value: Any, text: str) -> None:
    assert _field(kind, value) == text


def test_rows_are_quoted_only_where_they_must_be(frame: pd.DataFrame) -> None:
    one = frame.iloc[:1].assign(command='say "a, b"', suite="plain")
    head, row, end = format_leaderboard(one).split("\n")
    assert head == ",".join(column_names())
    assert row.startswith("plain,1,")
    assert '"say ""a, b"""' in row
    assert row.count('"') == 6
    assert end == ""


def test_columns_are_typed_in_their_order_and_a_lack_is_named(frame: pd.DataFrame) -> None:
    shuffled = frame[list(frame.columns[::-1])].iloc[::-1]
    found = typed(shuffled)
    assert list(found.columns) == list(column_names())
    assert found.index.tolist() == [0, 1, 2]
    kinds = {"text": "object", "integer": "int64", "number": "float64", "flag": "bool"}
    assert {name: str(dtype) for name, dtype in found.dtypes.items()} == {column.name: kinds[column.kind] for column in COLUMNS}
    with pytest.raises(ValueError, match=r"^columns are missing: metric, mean$"):
        typed(frame.drop(columns=["mean", "metric"]))
    assert list(typed(pd.DataFrame()).columns) == list(column_names())


def read(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SepbenchError) as caught:
        read_leaderboard(path)
    return str(caught.value)


def test_what_is_said_of_a_file(tmp_path: Path, frame: pd.DataFrame) -> None:
    path, text = tmp_path / "board.csv", format_leaderboard(frame)
    lines = text.splitlines()
    assert (
        read(path, text.replace("n_scored,n_failed,", "a,b,c,d,e,", 1))
        == f"{path} is not a leaderboard: it lacks n_scored, n_failed and has unknown columns a, b, c and 2 more"
    )
    long = "x" * 90
    assert read(path, text.replace("command", f"command,{long}", 1)) == (
        f"{path} has columns that sepbench {__version__} does not know ({long[:80]}); upgrade sepbench to read it"
    )
    assert read(path, text.replace("fit_cached,", "seed,", 1)).endswith(" is not a leaderboard: it has two columns seed")
    assert read(path, f"{text}{lines[-1]}\n") == f"{path} has two rows for {', '.join(frame.iloc[-1][['suite', 'task', 'method', 'metric']])}; keep one"
    assert read(path, f"{text}a\n") == f"{path}, line 5: 1 fields instead of {len(column_names())}"
    assert read(path, text.replace(",psnr,", ",,", 1)) == f"{path}, line 2: metric is empty"
    assert read(path, text.replace("\ndigits-pairs,1,", "\ndigits-pairs,one,", 1)) == f"{path}, line 2: suite_version must be a whole number, got 'one'"
    assert read(path, text + '"').startswith(f"{path} is not a CSV file: ")
    gone = tmp_path / "gone.csv"
    with pytest.raises(SepbenchError) as caught:
        read_leaderboard(gone)
    assert str(caught.value) == f"cannot read the leaderboard {gone}: No such file or directory"
    with pytest.raises(SepbenchError) as caught:
        write_leaderboard(frame, path / "x.csv")
    assert str(caught.value) == f"cannot write the leaderboard {path / 'x.csv'}: File exists; choose another folder"


def test_columns_of_any_order_defaults_and_retired_ones_are_read(tmp_path: Path, frame: pd.DataFrame) -> None:
    path = tmp_path / "board.csv"
    write_leaderboard(frame, path)
    plain = pd.read_csv(path, dtype=str, keep_default_na=False)
    new = [column for column in COLUMNS if column.default is not None]
    assert new
    older = plain.drop(columns=[column.name for column in new])[::-1]
    for name in columns.RETIRED:
        older[name] = "whatever"
    older[list(older.columns[::-1])].to_csv(path, index=False, lineterminator="\n")
    found = read_leaderboard(path)
    for column in new:
        values = found[column.name].tolist()
        assert values == [column.default] * 3 or all(isinstance(value, float) and math.isnan(value) for value in values)
    assert found["metric"].tolist() == frame["metric"].tolist()[::-1]
    head_only = tmp_path / "head.csv"
    head_only.write_text(",".join(column_names()) + "\n", encoding="utf-8")
    assert len(read_leaderboard(head_only)) == 0


def test_merged_rows_stand_where_they_stood_or_behind_their_like(frame: pd.DataFrame) -> None:
    def rows(*cells: str, mean: float) -> pd.DataFrame:
        made = pd.concat([frame.iloc[:1]] * len(cells), ignore_index=True)
        for name, values in zip(("task", "method", "metric"), zip(*(cell.split() for cell in cells), strict=True), strict=True):
            made[name] = list(values)
        return made.assign(mean=mean, task_digest="d")

    old = rows("t x p", "t x q", "t y p", "u x p", mean=1.0)
    new = rows("u x p", "t z p", "v x p", "t x r", "t y p", "u y p", mean=2.0)
    merged = merge_leaderboards(old, new)
    told = [f"{row.task} {row.method} {row.metric} {row.mean:g}" for row in merged.itertuples()]
    assert told == ["t x p 1", "t x q 1", "t x r 2", "t y p 2", "t z p 2", "u x p 2", "u y p 2", "v x p 2"]
    assert merged.index.tolist() == list(range(8))


def test_what_is_said_of_tables_that_cannot_be_one(frame: pd.DataFrame) -> None:
    cases = [
        (frame, frame.assign(suite="other"), "cannot merge leaderboards of different suite: digits-pairs and other; start a new file"),
        (frame, frame.assign(suite_version=[2, 1, 2]), "cannot merge leaderboards of different suite_version: 1 and 1, 2; start a new file"),
        (
            frame.assign(task_digest="a" * 20),
            frame.assign(task_digest="b" * 20),
            f"cannot merge: task class-split has digest {'b' * 12} in the new rows and {'a' * 12} in the old; start a new file",
        ),
    ]
    for old, new, told in cases:
        with pytest.raises(SepbenchError) as caught:
            merge_leaderboards(old, new)
        assert str(caught.value) == told
    other = frame.assign(task="another", task_digest="b" * 20)
    assert len(merge_leaderboards(frame, other)) == 6  # of another task the digest is another
