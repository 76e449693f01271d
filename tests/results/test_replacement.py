"""Rows that may not take the place of others, and cells that come from one run: decided from two tables alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pytest
from synthetic_run import METRICS, SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.results.leaderboard_file import typed
from sepbench.results.replacement import cells_of, replace_rows

N = 6
BOTH = ("class-split", "class-agnostic")


@pytest.fixture(scope="module")
def old() -> pd.DataFrame:
    """Two methods on two tasks, three metrics each: twelve rows."""
    return SyntheticRun({"average": 14.0, "nmf": 16.0}, BOTH, n=N).frame()


def with_values(frame: pd.DataFrame, values: Mapping[str, Any], metric: str = "", method: str = "nmf") -> pd.DataFrame:
    """The rows of one method on one task, with other values in all of them or in those of one metric."""
    rows = frame[(frame["task"] == "class-split") & (frame["method"] == method)].copy()
    where = rows["metric"] == metric if metric else rows["metric"] != ""
    for name, value in values.items():
        rows.loc[where, name] = value
    return typed(rows)


STRONG = {"n_expected": 20, "n_scored": 20, "n_failed": 0, "seeds": 5, "fits": 3}
WEAKER: dict[str, tuple[dict[str, Any], str]] = {
    "one of twenty": ({"n_scored": 1, "n_failed": 19}, "of more scored mixtures"),
    "none": ({"n_scored": 0, "n_failed": 20, "mean": math.nan}, "of more scored mixtures"),
    "without a mean": ({"mean": math.nan}, "one with a mean"),
    "more mixtures, some failed": ({"n_expected": 100, "n_scored": 99, "n_failed": 1}, "without failed mixtures"),
    "fewer seeds": ({"seeds": 4}, "of more seeds"),
    "fewer fits": ({"fits": 1, "seeds": 9}, "of more fits"),
    "more planned, fewer scored": ({"n_expected": 100, "n_scored": 19, "n_failed": 81}, "of more scored mixtures"),
    "fewer planned": ({"n_expected": 19, "n_scored": 19}, "of more mixtures"),
    "quick": ({"budget": "quick", "n_scored": 1, "n_failed": 19}, "of the paper's budget"),
}


@pytest.mark.parametrize("metric", ["", "ssim"], ids=["every metric", "one metric"])
@pytest.mark.parametrize("case", WEAKER)
def test_a_weaker_row_keeps_its_cell_out_unless_forced(old: pd.DataFrame, case: str, metric: str) -> None:
    values, words = WEAKER[case]
    board = typed(pd.concat([with_values(old, STRONG), with_values(old, STRONG, method="average")]))
    new = with_values(old, STRONG)
    for_cell = {name: value for name, value in values.items() if name in ("n_expected", "budget")}
    new = with_values(with_values(new, for_cell), values, metric)
    beside = with_values(old, {**STRONG, "mean": 1.5}, method="average")
    found = replace_rows(board, pd.concat([new, beside]), "run")
    assert found.left_out == (f"class-split, nmf: the row that is there is {words}; --force replaces it",)
    assert cells_of(found.frame) == [("class-split", "average")]
    pd.testing.assert_frame_equal(found.merged[found.merged["method"] == "nmf"].reset_index(drop=True), with_values(board, {}))
    assert (found.removed, found.kept) == (0, ())
    forced = replace_rows(board, new, "run", force=True)
    assert forced.left_out == ()
    pd.testing.assert_frame_equal(forced.merged[forced.merged["method"] == "nmf"].reset_index(drop=True), new)


STRONGER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as good": ({}, {}),
    "failed before": ({"n_scored": 1, "n_failed": 19, "mean": math.nan}, {}),
    "fewer failed, of more": ({"n_scored": 18, "n_failed": 2}, {"n_expected": 100, "n_scored": 90, "n_failed": 10}),
    "all failed both times": ({"n_scored": 0, "n_failed": 20, "mean": math.nan}, {"n_scored": 0, "n_failed": 20, "mean": math.nan}),
    "no mean in either": ({"mean": math.nan}, {"mean": math.nan}),
    "more seeds and fits": ({"seeds": 1, "fits": 1}, {}),
    "the paper's budget": ({"budget": "quick"}, {"budget": "paper"}),
}


@pytest.mark.parametrize("case", STRONGER)
def test_a_row_goes_in_that_is_weaker_in_nothing(old: pd.DataFrame, case: str) -> None:
    there, here = ({**STRONG, **values} for values in STRONGER[case])
    new = with_values(old, here)
    found = replace_rows(with_values(old, there), new, "run")
    assert (found.left_out, found.removed, found.kept) == ((), 0, ())
    pd.testing.assert_frame_equal(found.merged, new)


def test_lines_come_by_reason_and_each_cell_once(old: pd.DataFrame) -> None:
    new = old.copy()
    new.loc[new["method"] == "average", ["n_scored", "n_failed"]] = (N - 1, 1)
    new.loc[(new["method"] == "nmf") & (new["task"] == "class-agnostic"), "budget"] = "quick"
    found = replace_rows(old, new, "run")
    assert [line.partition(": the row that is there is ")[::2] for line in found.left_out] == [
        ("class-agnostic, nmf", "of the paper's budget; --force replaces it"),
        ("class-split, average", "of more scored mixtures; --force replaces it"),
        ("class-agnostic, average", "of more scored mixtures; --force replaces it"),
    ]
    assert cells_of(found.frame) == [("class-split", "nmf")]


# -- one run for all rows of a cell


def test_another_run_with_fewer_metrics_stays_out_and_force_takes_the_others_away(old: pd.DataFrame) -> None:
    new = with_values(old, {"seed": 7, "command": "sepbench run --seed 7", "mean": 20.0}).query("metric == 'psnr'")
    found = replace_rows(old, new, "runs/x")
    assert found.left_out == (
        "class-split, nmf: the rows that are there are of another run (command, seed) and have ssim, mixture_error too; "
        "`sepbench score runs/x --metrics psnr,ssim,mixture_error` gives this run all of them, or --force replaces the rows of all metrics",
    )
    assert not len(found.frame)
    pd.testing.assert_frame_equal(found.merged, old)
    forced = replace_rows(old, new, "runs/x", force=True)
    assert (forced.left_out, forced.removed, forced.kept) == ((), 2, ())
    keys = list(zip(forced.merged["task"], forced.merged["method"], forced.merged["metric"], strict=True))
    gone = {("class-split", "nmf", metric) for metric in METRICS[1:]}
    assert keys == [key for key in zip(old["task"], old["method"], old["metric"], strict=True) if key not in gone]
    assert forced.merged.iloc[3][["mean", "seed"]].tolist() == [20.0, 7]


def test_another_run_with_all_metrics_and_more_replaces_them_all(old: pd.DataFrame) -> None:
    new = with_values(old, {"seed": 7})
    more = typed(pd.concat([new, new.iloc[:1].assign(metric="psnr_pad32")]))
    found = replace_rows(old, more, "run")
    assert (found.left_out, found.removed, found.kept) == ((), 0, ())
    cell = found.merged[(found.merged["task"] == "class-split") & (found.merged["method"] == "nmf")]
    assert cell["metric"].tolist() == [*METRICS, "psnr_pad32"]
    assert set(cell["seed"]) == {7}
    assert len(found.merged) == len(old) + 1


@pytest.mark.parametrize("force", [False, True])
def test_the_same_run_adds_metrics_and_keeps_its_others(old: pd.DataFrame, force: bool) -> None:
    """What was read has six digits, and figures of a metric, the seeds and fits of its row among them, say nothing of the run."""
    there = old.assign(peak_mb=float(f"{100 / 3:.6g}"))
    new = with_values(old.assign(peak_mb=100 / 3), {"mean": 20.0, "seeds": 5}).query("metric == 'psnr'")
    new = typed(pd.concat([new, new.assign(metric="psnr_pad32", n_scored=N - 1, n_failed=1)]))
    found = replace_rows(there, new, "run", force=force)
    assert (found.left_out, found.removed) == ((), 0)
    assert found.kept == (("class-split", "nmf", "ssim"), ("class-split", "nmf", "mixture_error"))
    cell = found.merged[(found.merged["task"] == "class-split") & (found.merged["method"] == "nmf")]
    assert dict(zip(cell["metric"], cell["mean"], strict=True)) == {
        **dict(zip(METRICS, [20.0, *with_values(old, {})["mean"][1:]], strict=True)),
        "psnr_pad32": 20.0,
    }
    assert len(found.merged) == len(old) + 1


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"seed": 1}, "seed"),
        ({"estimates_sha256": "feed"}, "estimates_sha256"),
        ({"n_expected": N - 1}, "n_expected"),
        ({"git_sha": "1", "command": "2", "seed": 3, "device": "cuda", "weights_sha256": "4"}, "command, git_sha, seed and 2 more"),
    ],
)
def test_what_makes_it_another_run(old: pd.DataFrame, values: dict[str, Any], told: str) -> None:
    """Also where the metric that both have is the run's own: the rows that would stay are not."""
    board = with_values(with_values(old, values, "ssim"), values, "mixture_error")
    (line,) = replace_rows(board, with_values(old, {}).query("metric == 'psnr'"), "run").left_out
    assert f"are of another run ({told}) and have ssim, mixture_error too" in line


def test_a_cell_that_is_new_needs_no_metrics_of_its_neighbours(old: pd.DataFrame) -> None:
    new = with_values(old, {"seed": 7}).query("metric == 'psnr'").assign(method="ica")
    found = replace_rows(old, new, "run")
    assert (found.left_out, len(found.merged)) == ((), len(old) + 1)
    nothing = replace_rows(old.iloc[:0], new, "run")
    assert (nothing.left_out, len(nothing.merged)) == ((), 1)


def test_other_mixtures_are_told_before_metrics_that_would_not_help(old: pd.DataFrame) -> None:
    new = with_values(old, {"seed": 7, "task_digest": "feed"}).query("metric == 'psnr'")
    with pytest.raises(SepbenchError, match="cannot merge: task class-split has digest feed"):
        replace_rows(old, new, "run")
