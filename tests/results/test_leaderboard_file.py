"""Leaderboards' files: whole lines about what is wrong with one, fields as they are written, and tables that must not be joined."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_run import SyntheticRun

from sepbench import __version__
from sepbench.errors import SepbenchError
from sepbench.results.columns import column_names
from sepbench.results.leaderboard_file import _field, differing, format_leaderboard, merge_leaderboards, read_leaderboard, typed, write_leaderboard


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return SyntheticRun({"nmf": 16.0}, tasks=("class-split", "class-agnostic"), n=3, metrics=("psnr", "ssim")).frame()


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("number", math.nan, ""),
        ("number", 1 / 3, "0.333333"),
        ("number", 123456.7, "123457"),
        ("number", 0.0, "0"),
        ("number", 1e-9, "1e-09"),
        ("flag", True, "true"),
        ("flag", np.False_, "false"),
        ("integer", np.int64(7), "7"),
        ("text", "", ""),
        ("text", "a,b", "a,b"),
    ],
)
def test_a_field_as_it_is_written(kind: str, value: object, text: str) -> None:
    assert _field(kind, value) == text  # type: ignore[arg-type]


def test_whole_lines_about_a_file(frame: pd.DataFrame, tmp_path: Path) -> None:
    path, text = tmp_path / "board.csv", format_leaderboard(frame)
    head, first, *rest = text.splitlines()
    many = ",".join(f"x{number}" for number in range(6))
    lines = {
        text.replace("n_scored,", "", 1): "is not a leaderboard: it lacks n_scored",
        "a,b\n": "is not a leaderboard: it lacks suite, suite_version, task and 25 more and has unknown columns a, b",
        f"{head},{many}\n": f"has columns that sepbench {__version__} does not know (x0, x1, x2 and 3 more); upgrade sepbench to read it",
        text.replace("fit_cached,", "seed,", 1): "is not a leaderboard: it has two columns seed",
        "\n".join([head, first, *rest, first, ""]): "has two rows for digits-pairs, class-split, nmf, psnr; keep one",
    }
    for content, told in lines.items():
        path.write_text(content, encoding="utf-8")
        with pytest.raises(SepbenchError) as caught:
            read_leaderboard(path)
        assert str(caught.value) == f"{path} {told}"
    path.unlink()
    with pytest.raises(SepbenchError) as caught:
        read_leaderboard(path)
    assert str(caught.value) == f"cannot read the leaderboard {path}: No such file or directory"
    path.mkdir()
    with pytest.raises(SepbenchError) as caught:
        write_leaderboard(frame, path)
    assert str(caught.value) == f"cannot write the leaderboard {path}: Is a directory; choose another folder"


def test_a_table_that_lacks_a_column_is_a_mistake_of_the_program_s_unless_it_is_empty(frame: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"^columns are missing: mean, command$"):
        typed(frame.drop(columns=["command", "mean"]))
    assert tuple(typed(pd.DataFrame()).columns) == column_names()
    assert typed(pd.DataFrame())["seed"].dtype == np.int64


def test_whole_lines_about_tables_that_must_not_be_joined(frame: pd.DataFrame) -> None:
    lines = {
        "cannot merge leaderboards of different suite: digits-pairs and other; start a new file": frame.assign(suite="other"),
        "cannot merge leaderboards of different suite_version: 1 and 2; start a new file": frame.assign(suite_version=2),
        f"cannot merge: task class-agnostic has digest {'f' * 12} in the new rows and {frame['task_digest'].iloc[-1][:12]} in the old; start a new file": frame[
            frame["task"] == "class-agnostic"
        ].assign(task_digest="f" * 30),
    }
    for told, other in lines.items():
        with pytest.raises(SepbenchError) as caught:
            merge_leaderboards(frame, other)
        assert str(caught.value) == told
    mixed = frame.assign(suite=["digits-pairs", *["other"] * (len(frame) - 1)])
    with pytest.raises(SepbenchError, match=r"different suite: digits-pairs, other and digits-pairs, other"):
        merge_leaderboards(mixed, mixed)


def test_new_rows_follow_their_method_their_task_or_the_table(frame: pd.DataFrame) -> None:
    more = SyntheticRun({"ica": 1.0, "nmf": 2.0}, tasks=("class-agnostic",), n=3, metrics=("mixture_error", "psnr")).frame()
    merged = merge_leaderboards(frame, more)
    assert list(zip(merged["task"], merged["method"], merged["metric"], strict=True)) == [
        *(("class-split", "nmf", metric) for metric in ("psnr", "ssim")),
        *(("class-agnostic", "nmf", metric) for metric in ("psnr", "ssim", "mixture_error")),
        *(("class-agnostic", "ica", metric) for metric in ("psnr", "mixture_error")),
    ]
    replaced = merged[(merged["task"] == "class-agnostic") & (merged["method"] == "nmf") & (merged["metric"] == "psnr")]["mean"].iloc[0]
    assert replaced == more[(more["method"] == "nmf") & (more["metric"] == "psnr")]["mean"].iloc[0]
    assert list(merged.index) == list(range(7))


def test_what_tells_the_rows_of_two_runs_apart(frame: pd.DataFrame) -> None:
    """As they are written: a row that was read has six digits, and NaN is NaN."""
    rows = frame[frame["task"] == "class-split"].to_dict("records")
    assert [row["metric"] for row in rows] == ["psnr", "ssim"]
    assert differing(rows[0], rows[1]) == ()
    assert differing(rows[0], rows[1] | {"peak_mb": 300.5000001, "fit_seconds": math.nan}) == ()
    assert differing(rows[0], rows[1] | {"seed": 7, "peak_mb": 300.6, "fit_cached": True, "seeds": 5, "n_scored": 1}) == ("fit_cached", "peak_mb", "seed")
