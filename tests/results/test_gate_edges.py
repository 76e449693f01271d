"""The gate and comparisons at their edges: whole lines, the order of findings, whose clusters count, and rounding."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.results import compare
from sepbench.results.compare import Side, compare_sides, open_side
from sepbench.results.gate import OTHER_TOLERANCE, TOLERANCES, Scope, check_results, parse_tolerances
from sepbench.results.statistics import PairedDifference
from sepbench.results.target import Results
from sepbench.results.values import MetricValues, Values


def results(run: SyntheticRun, label: str, values: bool = True, suite: bool = True) -> Results:
    return Results(label, run.frame(), run.suite if suite else None, run.values() if values else None)


def line(new: Results, old: Results, **more: object) -> str:
    with pytest.raises(SepbenchError) as caught:
        check_results(new, old, **more)  # type: ignore[arg-type]
    return str(caught.value)


def test_whole_lines_about_what_cannot_be_checked() -> None:
    digits, mnist = results(SyntheticRun(n=3), "D"), results(SyntheticRun(n=3, suite="mnist-pairs"), "M")
    empty = Results("E", digits.frame.iloc[:0], None)
    assert line(digits, empty) == "E has no rows: there is nothing to check against"
    assert line(mnist, digits) == "not comparable: M is of suite mnist-pairs, D of digits-pairs"
    assert line(empty, digits) == "not comparable: E is of suite none, D of digits-pairs"
    assert line(digits, digits, tolerances={"psnrr": 1.0}) == "unknown metric (--tolerance; metrics of D) 'psnrr'; did you mean psnr?"
    assert line(digits, digits, scope=Scope(tasks=("class-splt",))) == "unknown task (--tasks; tasks of D) 'class-splt'; did you mean class-split?"
    assert line(digits, digits, scope=Scope(methods=("zzz",))) == "unknown method (--methods; methods of D) 'zzz'; known: average, nmf"
    none = results(SyntheticRun({"ica": 3.0}, n=3), "N")
    assert line(none, digits, scope=Scope(subset=True)) == "N and D have no row in common; check what --tasks and --methods name"


@pytest.mark.parametrize(
    ("assignments", "told"),
    [
        (["psnr"], "--tolerance takes METRIC=VALUE with a value >= 0 (for example psnr=0.05), got 'psnr'"),
        (["psnr=-0.1"], "--tolerance takes METRIC=VALUE with a value >= 0 (for example psnr=0.05), got 'psnr=-0.1'"),
        (["psnr=1", "ssim=1", "psnr = 2"], "--tolerance gives psnr twice"),
    ],
)
def test_whole_lines_about_tolerances(assignments: list[str], told: str) -> None:
    with pytest.raises(SepbenchError) as caught:
        parse_tolerances(assignments)
    assert str(caught.value) == told


def test_findings_stand_in_the_order_of_old_and_then_of_new_with_the_tolerance_of_their_unit() -> None:
    assert (dict(TOLERANCES), OTHER_TOLERANCE) == ({"dB": 0.01, "1": 0.001}, 0.001)
    old = results(SyntheticRun(n=12), "old")
    new = results(SyntheticRun({"rpca": 13.0, "average": 14.0, "nmf": 16.0}, n=12), "new", values=False)
    reversed_old = replace(old, frame=old.frame.iloc[::-1].reset_index(drop=True), values=None)
    rows = check_results(new, reversed_old, {"ssim": 50.0, "mixture_error": 50.0}).rows
    assert [(row.method, row.metric) for row in rows] == [
        *((record["method"], record["metric"]) for record in reversed_old.frame.to_dict("records")),
        *(("rpca", metric) for metric in ("psnr", "ssim", "mixture_error")),
    ]
    assert [row.tolerance for row in rows[:3]] == [50.0, 50.0, 0.01]
    assert [(row.status, row.reason, row.basis) for row in rows[6:]] == [("new", "not in OLD", "")] * 3
    assert math.isnan(rows[6].old)
    assert rows[6].new == new.frame["mean"].iloc[0]
    assert [row.unit for row in rows[6:]] == ["dB", "1", "1"]
    foreign = old.frame.assign(unit="ms")
    assert {row.tolerance for row in check_results(Results("a", foreign, None), Results("b", foreign, None)).rows} == {0.001}


def test_reasons_where_a_side_has_no_value() -> None:
    frame = results(SyntheticRun(n=12), "x").frame
    lost = frame.assign(mean=[math.nan, *frame["mean"][1:]])
    few = frame.assign(mean=[math.nan, *frame["mean"][1:]])
    both = check_results(Results("a", few, None), Results("b", lost, None)).rows[0]
    assert (both.status, both.reason) == ("holds", "no value of so few mixtures on either side")
    nothing = lost.assign(n_scored=[0, *frame["n_scored"][1:]])
    neither = check_results(Results("a", nothing, None), Results("b", nothing, None)).rows[0]
    assert (neither.status, neither.reason) == ("not comparable", "no value (NaN) in NEW")
    newly = check_results(Results("a", frame, None), Results("b", lost, None)).rows[0]
    assert (newly.status, newly.reason) == ("new", "no value in OLD")
    other = check_results(Results("a", few.assign(n_scored=[11, *frame["n_scored"][1:]]), None), Results("b", lost, None)).rows[0]
    assert other.status == "not comparable"


def test_a_subset_without_any_example_that_both_have_scored() -> None:
    old, new = SyntheticRun({"nmf": 16.0}, n=4, metrics=("psnr",)), SyntheticRun({"nmf": 16.0}, n=4, metrics=("psnr",))
    for example in (0, 1):
        old = old.fail("nmf", example)
        new = new.fail("nmf", 3 - example)
    (row,) = check_results(results(new, "new"), results(old, "old"), scope=Scope(subset=True)).rows
    assert (row.status, row.reason) == ("not comparable", "no example that both have scored")
    (row,) = check_results(results(new, "new"), results(old, "old")).rows
    assert row.reason == "2 examples scored in OLD have no value in NEW"


def test_a_subset_passes_over_a_value_that_needs_more_mixtures() -> None:
    """Such as FID's limit: every mixture has its features, and there is no value. A mean that is lost by failures is no such case."""
    sides = [results(SyntheticRun({"nmf": 16.0}, n=n, metrics=("psnr", "ssim")), str(n)) for n in (12, 20)]
    features: Any = SimpleNamespace(scored=np.ones(12, np.bool_), spread="")
    lost = sides[0].frame.assign(mean=lambda frame: frame["mean"].where(frame["metric"] == "psnr"))
    for parts, code in ((features, 0), (None, 2)):
        cell = {**sides[0].values.cell("class-split", "nmf"), "ssim": MetricValues(np.arange(12), np.full(12, math.nan), parts=parts)}  # type: ignore[union-attr]
        report = check_results(replace(sides[0], frame=lost, values=Values(lambda task, method, cell=cell: cell)), sides[1], scope=Scope(subset=True))
        assert report.exit_code == code
        assert ["ssim is passed over for class-split nmf: the 12 mixtures of NEW are too few for ssim; run NEW again with more"] * (code == 0) == report.notes


def test_the_clusters_are_those_of_the_side_that_knows_its_suite() -> None:
    """Where NEW is of a suite version that is not here, OLD's suite says which mixtures share images."""
    a = SyntheticRun({"nmf": 16.0}, n=200, metrics=("psnr",))
    b = SyntheticRun({"nmf": 16.0}, n=200, metrics=("psnr",))
    a.scores["value"] += np.random.default_rng(0).normal(size=200).repeat(2)
    p = {
        (new, old): check_results(results(a, "a", suite=new), results(b, "b", suite=old)).rows[0].p_worse
        for new, old in ((True, True), (True, False), (False, True), (False, False))
    }
    assert p[True, True] == p[True, False] == p[False, True] != p[False, False]


def test_means_are_compared_to_six_digits_on_both_sides() -> None:
    frame = results(SyntheticRun(n=12), "x").frame.iloc[:1]
    (row,) = check_results(Results("a", frame.assign(mean=14.0000004), None), Results("b", frame.assign(mean=14.0000001), None), {"psnr": 0.0}).rows
    assert (row.status, row.difference, row.basis) == ("holds", 0.0, "means")
    (row,) = check_results(Results("a", frame.assign(mean=13.9999), None), Results("b", frame.assign(mean=14.0), None), {"psnr": 0.0}).rows
    assert (row.status, row.difference) == ("regression", pytest.approx(-0.0001))


def test_a_note_that_all_metrics_share_is_told_once() -> None:
    old = SyntheticRun(n=12)
    new = SyntheticRun(n=12)
    new.record["device"] = "cuda"
    notes = check_results(results(new, "new"), results(old, "old")).notes
    assert list(notes) == ["average: device cpu in OLD, cuda in NEW", "nmf: device cpu in OLD, cuda in NEW"]


# --- comparisons


def test_whole_lines_about_what_cannot_be_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = Side(results(SyntheticRun({"nmf": 16.0}, n=3), "A")), Side(results(SyntheticRun({"ica": 16.0}, n=3), "B"))
    bare = Side(replace(a.results, values=None))
    lines = {
        "paired comparison needs per-example scores; name the folders of two runs": (a, bare, ()),
        "unknown metric 'zzz'; A and A have in common: psnr, ssim, mixture_error": (a, a, ("zzz",)),
        "A (nmf) and B (ica) have no method in common; name two as RUN:METHOD": (a, b, ()),
    }
    for told, (one, other, metrics) in lines.items():
        with pytest.raises(SepbenchError) as caught:
            compare_sides(one, other, metrics)
        assert str(caught.value) == told
    with pytest.raises(SepbenchError, match=r"^paired comparison needs"):
        compare_sides(bare, a)
    monkeypatch.setattr(compare, "open_results", lambda target, **more: bare.results if more == {"suites": True, "statistics": False} else None)
    with pytest.raises(SepbenchError) as caught:
        open_side("board.csv:nmf")
    assert str(caught.value) == "board.csv has no per-example scores to pair; name the folder of a run, or a leaderboard with scores beside it"


def test_by_default_the_first_side_s_ranking_metric_is_compared_and_its_clusters_count() -> None:
    run = SyntheticRun({"nmf": 16.0, "average": 14.0}, n=60, metrics=("ssim", "psnr"))
    here, elsewhere = results(run, "A"), results(run, "B", suite=False)
    assert elsewhere.ranking_metric == here.frame["metric"].iloc[0]
    rows = compare_sides(Side(here, "nmf"), Side(elsewhere, "average"))
    assert (rows["metric"].tolist(), rows["interval"].tolist()) == ([here.ranking_metric], ["cluster t"])
    turned = compare_sides(Side(elsewhere, "average"), Side(here, "nmf"))
    assert turned["interval"].tolist() == ["t, clusters unknown"]


def test_a_metric_that_one_side_lacks_is_none_in_common() -> None:
    a, b = SyntheticRun(n=5, metrics=("psnr", "ssim")), SyntheticRun(n=5, metrics=("psnr",))
    for one, other in ((a, b), (b, a)):
        with pytest.raises(SepbenchError, match=r"^unknown metric 'ssim'; A and B have in common: psnr$"):
            compare_sides(Side(results(one, "A")), Side(results(other, "B")), ["ssim"])


def test_of_what_a_side_without_rows_is() -> None:
    frame = results(SyntheticRun(n=3), "x").frame
    with pytest.raises(SepbenchError) as caught:
        compare.check_comparable(frame.iloc[:0], frame, "A", "B")
    assert str(caught.value) == "not comparable: A is of suite none, B of digits-pairs"
    with pytest.raises(SepbenchError) as caught:
        compare.check_comparable(frame, frame.assign(task_digest=""), "A", "B")
    digest = frame["task_digest"].iloc[0][:12]
    assert str(caught.value) == f"not comparable: task class-split has other mixtures (digest {digest} in A, none in B)"


def test_a_row_s_numbers_stand_under_their_heads() -> None:
    paired = PairedDifference(9, 1.0, 2.0, 3.0, 0.1, 0.2, 0.3, 0.4, "cluster t", "song", 12)
    row = dict(zip(compare.COMPARE_COLUMNS, compare._Head("t", "m", "dB", False, "x", "y", 5.0, 6.0, 7, 8).row(paired), strict=True))
    assert row == {
        **{"task": "t", "metric": "m", "unit": "dB", "higher_is_better": False, "method_a": "x", "method_b": "y", "n": 9, "mean_a": 5.0, "mean_b": 6.0},
        **{"difference": 1.0, "ci_low": 2.0, "ci_high": 3.0, "interval": "cluster t", "cluster": "song", "n_clusters": 12},
        **{"share_a_better": 0.4, "share_b_better": 0.3, "verdict": "B better", "failed_a": 7, "failed_b": 8},
    }


def test_values_of_a_cell_are_read_once_for_two_cells_in_turn() -> None:
    read: list[tuple[str, str]] = []

    def cell(task: str, method: str) -> dict[str, MetricValues]:
        read.append((task, method))
        return {}

    values = Values(cell)
    for method in ("a", "b", "a", "b", "a"):
        values.of("t", method, "psnr")
    assert read == [("t", "a"), ("t", "b")]
    values.of("t", "c", "psnr")
    values.of("t", "b", "psnr")
    assert read[2:] == [("t", "c"), ("t", "b")]


def test_a_comparison_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SepbenchError) as caught:
        compare.write_comparison(pd.DataFrame({"higher_is_better": [True]}), tmp_path / "file" / "x.csv")
    assert str(caught.value) == f"cannot write {tmp_path}/file/x.csv: File exists; choose another file with --csv"
