"""``sepbench.compare``: what ``sepbench compare`` says, as values."""

from __future__ import annotations

import dataclasses
import math
import traceback
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from synthetic_run import SyntheticRun

import sepbench
from sepbench import Run, SepbenchError
from sepbench.api import comparing
from sepbench.api.comparing import ComparedRow, Comparison
from sepbench.errors import ArgumentError, UnknownNameError
from sepbench.results.compare import COMPARE_COLUMNS, compare_sides, open_side


def test_rows_are_those_of_the_command(shared_run: Run) -> None:
    expected = compare_sides(open_side(f"{shared_run.path}:nmf"), open_side(f"{shared_run.path}:average"), ["psnr", "ssim"])
    found = sepbench.compare(shared_run.method("nmf"), f"{shared_run.path}:average", metric=["psnr", "ssim"])
    assert tuple(found.frame.columns) == COMPARE_COLUMNS
    pd.testing.assert_frame_equal(found.frame, expected, check_dtype=False)
    assert len(found) == len(list(found)) == 4
    assert found.a == f"{shared_run.path}:nmf"


def test_one_row_speaks_for_itself(shared_run: Run) -> None:
    comparison = sepbench.compare(shared_run.method("nmf"), shared_run.method("shares"), task="class-split", metric="psnr")
    row = comparison.only
    values = shared_run.scores.query("task == 'class-split' and metric == 'psnr'").pivot_table("value", "example", "method", aggfunc="mean")
    assert row.difference == pytest.approx((values["nmf"] - values["shares"]).mean())
    assert row.ci_low < row.difference < row.ci_high
    assert row.n == 12
    assert (row.better is None) == (row.ci_low < 0 < row.ci_high)
    assert f"difference {row.difference:.2f} [{row.ci_low:.2f}, {row.ci_high:.2f}] dB, n = 12 over" in str(comparison)
    assert str(comparison).splitlines()[0] == f"A = {shared_run.path}:nmf"
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.difference = 0.0  # type: ignore[misc]


@pytest.mark.parametrize(("shift", "verdict", "better"), [(1.0, "B better", "nmf"), (0.0, "no difference shown", None), (-1.0, "A better", "nmf")])
def test_the_verdict_follows_the_interval(shift: float, verdict: str, better: str | None, tmp_path: Path) -> None:
    one = SyntheticRun(n=50).save(tmp_path / "one")
    other = SyntheticRun(n=50).shift("nmf", "psnr", shift).save(tmp_path / "other")
    row = next(row for row in sepbench.compare(one, Path(other), metric="psnr") if row.method_a == "nmf")
    assert (row.verdict, row.better) == (verdict, better)
    assert row.difference == pytest.approx(-shift, abs=1e-9)


def test_swapped_sides_swap_signs(shared_run: Run) -> None:
    there = sepbench.compare(shared_run.method("nmf"), shared_run.method("average"))
    back = sepbench.compare(shared_run.method("average"), shared_run.method("nmf"))
    for one, other in zip(there, back, strict=True):
        assert math.isclose(one.difference, -other.difference, rel_tol=1e-12)
        assert (one.share_a_better, one.better) == (other.share_b_better, other.better)


def test_what_cannot_be_compared_is_one_line(shared_run: Run) -> None:
    whole = sepbench.compare(shared_run, shared_run)
    for call, kind, text in (
        (lambda: whole.only, SepbenchError, "this comparison has 6 rows"),
        (lambda: sepbench.compare(shared_run, 3), ArgumentError, "b must be a run"),  # type: ignore[arg-type]
        (lambda: sepbench.compare(shared_run, "nowhere"), SepbenchError, "unknown run folder, CSV or suite 'nowhere'"),
        (lambda: sepbench.compare(shared_run, shared_run, metric="psnrr"), UnknownNameError, "did you mean psnr"),
        (lambda: sepbench.compare(shared_run, shared_run, task="class-spilt"), UnknownNameError, "did you mean class-split"),
        (lambda: sepbench.compare(f"{shared_run.path}:nmff", shared_run), UnknownNameError, "did you mean nmf"),
        (lambda: sepbench.compare(shared_run, "mnist-pairs"), SepbenchError, "not comparable"),
    ):
        with pytest.raises(kind, match=text) as caught:
            call()
        assert "\n" not in str(caught.value)
        files = {Path(frame.filename).name for frame in traceback.extract_tb(caught.value.__traceback__)}
        assert files <= {"test_comparing.py", "arguments.py", "comparing.py"}


# ---- rows by hand ----------------------------------------------------------------------------------------------------------------------


def row(task: str = "t", **changes: object) -> ComparedRow:
    known = {
        **{"task": task, "metric": "psnr", "unit": "dB", "higher_is_better": True, "method_a": "nmf", "method_b": "ica", "n": 1_000, "mean_a": 16.214},
        **{"mean_b": 12.644, "difference": 3.57, "ci_low": 3.504, "ci_high": 3.636, "interval": "cluster t", "cluster": "image", "n_clusters": 700},
        **{"share_a_better": 0.75, "share_b_better": 0.25, "verdict": "A better", "failed_a": 0, "failed_b": 1},
    }
    return ComparedRow(**(known | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "t, psnr: nmf 16.21, ica 12.64, difference 3.57 [3.50, 3.64] dB, n = 1,000 over 700 images: A better (nmf)"),
        ({"verdict": "B better"}, "t, psnr: nmf 16.21, ica 12.64, difference 3.57 [3.50, 3.64] dB, n = 1,000 over 700 images: B better (ica)"),
        (
            {"mean_a": 0.005, "unit": "1", "mean_b": 250.0, "verdict": "too few"},
            "t, psnr: nmf 0.005, ica 250.000, difference 3.570 [3.504, 3.636], n = 1,000 over 700 images: too few",
        ),
        ({"unit": "1", "verdict": "too few"}, "t, psnr: nmf 16.214, ica 12.644, difference 3.570 [3.504, 3.636], n = 1,000 over 700 images: too few"),
    ],
)
def test_a_row_in_words(changes: dict[str, object], line: str) -> None:
    one = row(**changes)  # type: ignore[arg-type]
    assert str(one) == line
    assert str(Comparison("x", "y:m", (one, one))) == f"A = x\nB = y:m\n{line}\n{line}"


@pytest.mark.parametrize(("verdict", "better"), [("A better", "nmf"), ("B better", "ica"), ("no difference shown", None), ("", None)])
def test_who_is_better(verdict: str, better: str | None) -> None:
    assert row(verdict=verdict).better == better


def test_the_only_row_is_there_where_there_is_one() -> None:
    assert Comparison("x", "y", (row(),)).only == row()
    for rows in ((), (row(), row("u"))):
        with pytest.raises(SepbenchError) as refused:
            Comparison("x", "y", rows).only  # noqa: B018
        told = "name task= and metric=, and one method of each side, or read .rows and .frame"
        assert str(refused.value) == f"this comparison has {len(rows)} rows; {told}"
    empty = Comparison("x", "y", ())
    assert (list(empty.frame.columns), len(empty), str(empty)) == (list(COMPARE_COLUMNS), 0, "A = x\nB = y")


def test_tasks_are_chosen_after_all_were_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    frame = pd.DataFrame([dataclasses.asdict(row(task)) for task in ("t", "u", "t", "v")])
    monkeypatch.setattr(comparing, "open_side", lambda given: SimpleNamespace(label=f"<{given}>"))
    monkeypatch.setattr(comparing, "compare_sides", lambda a, b, metrics: asked.append((a.label, b.label, metrics)) or frame)
    for task, metric, tasks, metrics in (
        (None, None, ["t", "u", "t", "v"], ()),
        ("t", "psnr", ["t", "t"], ("psnr",)),
        (["v", "t"], ["psnr", "ssim"], ["t", "t", "v"], ("psnr", "ssim")),
        ((), (), ["t", "u", "t", "v"], ()),
    ):
        found = sepbench.compare("one", Path("two"), task=task, metric=metric)
        assert [one.task for one in found] == tasks
        assert asked.pop() == ("<one>", "<two>", metrics)
        assert (found.a, found.b) == ("<one>", "<two>")
    with pytest.raises(UnknownNameError, match=r"^unknown task \(of both sides\) 'w'"):
        sepbench.compare("one", "two", task=["t", "w"])
    with pytest.raises(ArgumentError, match=r"^a must be a run, run.method\(...\), or the path of a run, got 3$"):
        sepbench.compare(3, "two")  # type: ignore[arg-type]
