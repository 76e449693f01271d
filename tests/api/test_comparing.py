"""``sepbench.compare``: what ``sepbench compare`` says, as values."""

from __future__ import annotations

import dataclasses
import math
import traceback
from pathlib import Path

import pandas as pd
import pytest
from synthetic_run import SyntheticRun

import sepbench
from sepbench import Run, SepbenchError
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
