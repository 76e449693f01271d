"""Paired comparison: the right pairs, the right direction, and no verdict without evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from synthetic_run import METRICS, SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.report.table import render_comparison
from sepbench.results.compare import (
    A_BETTER,
    B_BETTER,
    COMPARE_COLUMNS,
    NEVER,
    NO_DIFFERENCE,
    NO_INTERVAL,
    TOO_FEW,
    Side,
    _Head,
    compare_sides,
    open_side,
    verdict,
    write_comparison,
)
from sepbench.results.leaderboard import write_leaderboard
from sepbench.results.pairing import difference, pair_up
from sepbench.results.publication import publish_run
from sepbench.results.published_scores import scores_path
from sepbench.results.statistics import FLOAT_NOISE, MIN_CLUSTERS, Designs, PairedDifference
from sepbench.results.target import Results
from sepbench.results.values import MetricValues, Values


def side(run: SyntheticRun, method: str | None = None, label: str = "run") -> Side:
    return Side(Results(label, run.frame(), run.suite, run.values()), method)


def test_a_clear_difference_and_its_size() -> None:
    a, b = SyntheticRun({"nmf": 16.0}, n=60), SyntheticRun({"nmf": 16.0}, n=60).shift("nmf", "psnr", -0.5)
    rows = compare_sides(side(a), side(b))
    assert tuple(rows.columns) == COMPARE_COLUMNS
    (row,) = rows.to_dict("records")
    assert (row["method_a"], row["method_b"], row["metric"], row["n"], row["verdict"]) == ("nmf", "nmf", "psnr", 60, A_BETTER)
    assert row["difference"] == pytest.approx(0.5)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((0.5, 0.5))
    assert (row["share_a_better"], row["share_b_better"]) == (1.0, 0.0)


def test_two_methods_of_one_run() -> None:
    run = SyntheticRun({"average": 14.0, "nmf": 16.0}, n=80)
    (row,) = compare_sides(side(run, "nmf"), side(run, "average")).to_dict("records")
    assert row["verdict"] == A_BETTER
    (row,) = compare_sides(side(run, "average"), side(run, "nmf")).to_dict("records")
    assert row["verdict"] == B_BETTER


def test_lower_is_better_turns_the_verdict_not_the_difference() -> None:
    a, b = SyntheticRun({"nmf": 16.0}, n=60), SyntheticRun({"nmf": 16.0}, n=60).shift("nmf", "mixture_error", 0.02)
    (row,) = compare_sides(side(a), side(b), ["mixture_error"]).to_dict("records")
    assert row["difference"] == pytest.approx(-0.02)
    assert (row["verdict"], row["share_a_better"]) == (A_BETTER, 1.0)


@pytest.mark.parametrize("shift", [0.0, 1e-6])
def test_the_same_numbers_show_no_difference(shift: float) -> None:
    # 1e-6 dB, however consistent, is rounding on another processor.
    a, b = SyntheticRun({"nmf": 16.0}, n=30), SyntheticRun({"nmf": 16.0}, n=30).shift("nmf", "psnr", shift)
    (row,) = compare_sides(side(a), side(b)).to_dict("records")
    assert row["verdict"] == NO_DIFFERENCE


def test_noise_alone_shows_a_difference_about_as_often_as_it_may() -> None:
    generator = np.random.Generator(np.random.Philox(5))
    run, shown = SyntheticRun({"nmf": 16.0}, n=50, metrics=("psnr",)), 0
    base, exact = Results("a", run.frame(), run.suite, run.values()), run.values().of("class-split", "nmf", "psnr")
    for _ in range(100):
        noisy = {"psnr": MetricValues(exact.examples, exact.values + generator.normal(size=len(exact)))}
        (row,) = compare_sides(Side(base), Side(Results("b", base.frame, base.suite, Values(lambda task, method, cell=noisy: cell)))).to_dict("records")
        shown += row["verdict"] != NO_DIFFERENCE
    assert shown <= 15  # expected: 5 to 6; more than 15 in 100 has probability below 0.001


examples = st.sets(st.integers(0, 7))


@given(examples, examples, examples, examples)
@settings(max_examples=60, deadline=None)
def test_pairs_are_made_by_example_whichever_each_side_has(there_a: set[int], there_b: set[int], lost_a: set[int], lost_b: set[int]) -> None:
    def some(there: set[int], lost: set[int], factor: float) -> MetricValues:
        ids = np.array(sorted(there), dtype=np.int64)
        return MetricValues(ids, np.array([np.nan if i in lost else factor * i for i in ids]))

    pairs = pair_up(some(there_a, lost_a, 1.0), some(there_b, lost_b, 10.0))
    kept = sorted((there_a & there_b) - lost_a - lost_b)
    assert pairs.examples.tolist() == kept
    assert pairs.a.tolist() == [float(i) for i in kept]
    assert pairs.b.tolist() == [10.0 * i for i in kept]


def test_only_common_examples_count() -> None:
    a = SyntheticRun({"nmf": 16.0}, n=30).fail("nmf", 3)
    b = SyntheticRun({"nmf": 16.0}, n=30).fail("nmf", 4)
    b.scores = b.scores[b.scores["example"] < 20]
    (row,) = compare_sides(side(a), side(b)).to_dict("records")
    assert row["n"] == 18
    assert (row["failed_a"], row["failed_b"]) == (1, 1)


def test_where_one_side_failed_throughout_no_verdict_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    a, b = SyntheticRun({"nmf": 16.0}, n=5), SyntheticRun({"nmf": 17.0}, n=5)
    for example in range(5):
        b = b.fail("nmf", example)
    rows = compare_sides(side(a), side(b))
    assert list(rows["verdict"]) == ["nothing to compare"]
    render_comparison(rows, "a", "b", Console(width=200))
    assert "B: 5 mixtures of class-split that nmf failed on are not part of the comparison" in capsys.readouterr().out


def test_mixtures_that_failed_are_told_once_for_each_task_and_method(capsys: pytest.CaptureFixture[str]) -> None:
    run = SyntheticRun(n=12, tasks=("class-split", "class-agnostic"))
    for task in ("class-split", "class-agnostic"):
        for method in ("nmf", "average"):
            failed = run.where(method, example=3) & (run.scores["task"] == task)
            run.scores.loc[failed, "value"] = np.nan
    whole = SyntheticRun(n=12, tasks=("class-split", "class-agnostic"))
    render_comparison(compare_sides(side(run), side(whole), METRICS), "a", "b", Console(width=200))
    told = [line for line in capsys.readouterr().out.splitlines() if "failed on" in line]
    cells = [(task, method) for task in ("class-split", "class-agnostic") for method in ("average", "nmf")]
    assert told == [f"A: 1 mixtures of {task} that {method} failed on are not part of the comparison" for task, method in cells]


def test_every_common_method_task_and_chosen_metric() -> None:
    a = SyntheticRun({"average": 14.0, "nmf": 16.0}, tasks=("class-split", "class-agnostic"), n=5)
    b = SyntheticRun({"nmf": 16.0, "rpca": 13.0, "average": 14.0}, tasks=("class-split",), n=5)
    rows = compare_sides(side(a), side(b), METRICS)
    got = list(zip(rows["task"], rows["method_a"], rows["metric"], strict=True))
    assert got == [("class-split", method, metric) for method in ("average", "nmf") for metric in METRICS]
    one = compare_sides(side(a, "nmf"), side(b))
    assert list(one["method_b"]) == ["nmf"]


def test_what_cannot_be_compared() -> None:
    a = SyntheticRun({"nmf": 16.0}, n=5)
    other = SyntheticRun({"nmf": 16.0}, n=5)
    other.record["tasks"]["class-split"]["digest"] = "feed"
    with pytest.raises(SepbenchError, match="task class-split has other mixtures"):
        compare_sides(side(a), side(other))
    newer = SyntheticRun({"nmf": 16.0}, n=5)
    newer.record["suite"] = {"name": "digits-pairs", "version": 99}
    with pytest.raises(SepbenchError, match="suite version"):
        compare_sides(side(a), side(newer))
    with pytest.raises(SepbenchError, match="no task in common"):
        compare_sides(side(a), side(SyntheticRun({"nmf": 16.0}, tasks=("class-agnostic",), n=5)))
    with pytest.raises(SepbenchError, match="no method in common"):
        compare_sides(side(a), side(SyntheticRun({"ica": 16.0}, n=5)))
    with pytest.raises(SepbenchError, match="did you mean psnr"):
        compare_sides(side(a), side(a), ["psn"])


def test_nothing_in_common_but_names() -> None:
    a, b = SyntheticRun({"nmf": 16.0}, n=5), SyntheticRun({"nmf": 16.0}, n=5)
    b.scores = b.scores.iloc[:0]
    with pytest.raises(SepbenchError, match="no scores in common"):
        compare_sides(side(a), side(b))


def test_sides_by_name(tmp_path: Path) -> None:
    name = SyntheticRun(n=4).save(tmp_path / "a:b")  # a colon in a folder's name is no method
    assert open_side(name).method is None
    assert open_side(f"{name}:nmf").label == f"{name}:nmf"
    with pytest.raises(SepbenchError, match="did you mean nmf"):
        open_side(f"{name}:nfm")
    with pytest.raises(SepbenchError, match="there is no"):
        open_side(str(tmp_path / "nothing:nmf"))
    write_leaderboard(SyntheticRun(n=4).frame(), tmp_path / "board.csv")
    with pytest.raises(SepbenchError, match="no per-example scores"):
        open_side(str(tmp_path / "board.csv"))


def test_a_leaderboard_may_have_a_colon_in_its_name(tmp_path: Path) -> None:
    board = publish_run(SyntheticRun(n=4).save(tmp_path / "run"), tmp_path).path.rename(tmp_path / "odd:nmf.csv")
    scores_path(tmp_path / "digits-pairs.csv").rename(scores_path(board))
    assert open_side(str(board)).method is None
    assert open_side(f"{board}:nmf").method == "nmf"
    assert open_side(f"{board}:").method is None


def test_what_the_first_side_knows_of_the_suite_holds(tmp_path: Path) -> None:
    """The other one may be of a suite that is not at hand: of a leaderboard whose suite's file is gone."""
    run = SyntheticRun(n=20, metrics=("ssim", "psnr"))
    known = side(run).results
    stranger = Side(replace(known, suite=None, frame=known.frame[::-1]), "average")
    (row,) = compare_sides(side(run, "nmf"), stranger).to_dict("records")
    assert (row["metric"], row["cluster"]) == ("psnr", "image")  # not the first metric of the rows, and no mixture for itself
    (row,) = compare_sides(replace(stranger, method="nmf"), side(run, "average")).to_dict("records")
    assert (row["metric"], row["cluster"]) == ("ssim", "mixture")


def test_rows_as_csv(tmp_path: Path) -> None:
    run = SyntheticRun(n=9)
    rows = compare_sides(side(run, "nmf"), side(run, "average"), METRICS)
    write_comparison(rows, tmp_path / "a" / "new" / "rows.csv")
    assert b"\r" not in (tmp_path / "a" / "new" / "rows.csv").read_bytes()
    again = pd.read_csv(tmp_path / "a" / "new" / "rows.csv")
    pd.testing.assert_frame_equal(again, rows, rtol=1e-5, check_dtype=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(SepbenchError, match="cannot write"):
        write_comparison(rows, tmp_path / "file" / "rows.csv")


def test_few_clusters_have_no_verdict() -> None:
    run = SyntheticRun({"average": 14.0, "nmf": 16.0}, n=MIN_CLUSTERS - 1)
    (row,) = compare_sides(side(run, "nmf"), side(run, "average")).to_dict("records")
    assert row["ci_low"] > 0
    assert row["verdict"] == TOO_FEW


@pytest.mark.parametrize("name", ["isr", "sir", "sar"])
def test_a_metric_that_must_not_rank_gives_no_verdict(name: str) -> None:
    run = SyntheticRun({"average": 14.0, "nmf": 16.0}, n=30)
    run.scores["metric"], run.record["metrics"] = run.scores["metric"].replace({"ssim": name}), ["psnr", name]
    run.scores = run.scores[run.scores["metric"] != "mixture_error"]
    rows = compare_sides(side(run, "nmf"), side(run, "average"), [name, "psnr"]).to_dict("records")
    assert [row["verdict"] for row in rows] == [NEVER, A_BETTER]
    assert rows[0]["ci_low"] < rows[0]["difference"] < rows[0]["ci_high"]
    lost = SyntheticRun({"average": 14.0}, n=2, metrics=("psnr",)).fail("average", 0).fail("average", 1)
    lost.scores["metric"], lost.record["metrics"] = name, [name]
    assert list(compare_sides(side(lost), side(lost), [name])["verdict"]) == ["nothing to compare"]


def test_mixtures_that_share_images_make_the_interval_wider_than_independent_ones() -> None:
    run = SyntheticRun({"average": 14.0, "nmf": 14.0}, n=1000)
    effect = np.random.Generator(np.random.Philox(8)).normal(size=2000)
    images = run.suite.tasks["class-split"].clusters().keys
    chosen = run.where("nmf", "psnr")
    run.scores.loc[chosen, "value"] += effect[images].sum(axis=1)[run.scores.loc[chosen, "example"]]
    (known,) = compare_sides(side(run, "nmf"), side(run, "average")).to_dict("records")
    assert (known["interval"], known["cluster"]) == ("cluster t", "image")
    pair = pair_up(run.values().of("class-split", "nmf", "psnr"), run.values().of("class-split", "average", "psnr"))
    unknown = difference(pair, Designs(None))
    assert known["ci_high"] - known["ci_low"] > 1.3 * (unknown.ci_high - unknown.ci_low)


def paired_of(low: float, high: float, n_clusters: int = MIN_CLUSTERS) -> PairedDifference:
    return PairedDifference(40, (low + high) / 2, low, high, 0.5, 0.5, 0.5, 0.5, n_clusters=n_clusters)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 30.0])
def test_a_verdict_needs_an_interval_beyond_rounding_of_values_of_that_size(scale: float) -> None:
    floor = FLOAT_NOISE * max(1.0, scale)
    for higher, better, worse in ((True, A_BETTER, B_BETTER), (False, B_BETTER, A_BETTER)):
        assert verdict(paired_of(1.01 * floor, 2.0), higher, scale) == better
        assert verdict(paired_of(0.99 * floor, 2.0), higher, scale) == NO_DIFFERENCE
        assert verdict(paired_of(-2.0, -1.01 * floor), higher, scale) == worse
        assert verdict(paired_of(-2.0, -0.99 * floor), higher, scale) == NO_DIFFERENCE
    assert verdict(paired_of(1.0, 2.0, MIN_CLUSTERS - 1), True, scale) == TOO_FEW
    assert verdict(paired_of(np.nan, np.nan), True, scale) == NO_INTERVAL
    assert verdict(paired_of(np.nan, np.nan, MIN_CLUSTERS - 1), True, scale) == TOO_FEW


@pytest.mark.parametrize("larger", ["a", "b"])
def test_rounding_is_measured_by_the_larger_side(larger: str) -> None:
    """One side near zero, the other of values of thousands: a thousandth is rounding there."""
    big, tiny = {"mean_a": -5_000.0, "mean_b": 0.0}, {"mean_a": 0.0, "mean_b": -5_000.0}
    head = _Head("t", "m", "dB", True, "x", "y", failed_a=0, failed_b=0, **(big if larger == "a" else tiny))
    verdicts = [head.row(paired_of(low, 1.0))[COMPARE_COLUMNS.index("verdict")] for low in (0.004, 0.006)]
    assert verdicts == [NO_DIFFERENCE, A_BETTER]
