"""The gate fails when it must: a worse metric (1), a missing row, another digest, NaN (2); and holds when nothing happened (0)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError, UnknownNameError
from sepbench.results.gate import ALARM, GateReport, Scope, check_results, parse_tolerances
from sepbench.results.leaderboard import read_leaderboard, write_leaderboard
from sepbench.results.statistics import MIN_CLUSTERS
from sepbench.results.target import Results, open_results

Change = Callable[[SyntheticRun], object]
N = 60


def opened(run: SyntheticRun, place: Path, as_csv: bool) -> Results:
    if not as_csv:
        return open_results(run.save(place))
    write_leaderboard(run.frame(), place.with_suffix(".csv"))
    return open_results(str(place.with_suffix(".csv")))


@pytest.fixture(params=["runs", "csv", "run against csv"])
def gate(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Change], GateReport]:
    """The gate on a run that was changed, against the same run unchanged: as two runs, two CSV files, or one of each."""

    def check(change: Change, **tolerances: float) -> GateReport:
        new = SyntheticRun(n=N)
        change(new)
        old = opened(SyntheticRun(n=N), tmp_path / "old", request.param != "runs")
        return check_results(opened(new, tmp_path / "new", request.param == "csv"), old, tolerances)

    return check


def statuses(report: GateReport) -> dict[str, int]:
    return {status: report.count(status) for status in ("holds", "improvement", "new", "regression", "not comparable") if report.count(status)}  # type: ignore[arg-type]


def test_the_same_holds(gate: Callable[..., GateReport]) -> None:
    report = gate(lambda run: None)
    assert report.exit_code == 0
    assert statuses(report) == {"holds": 6}
    assert not report.notes


def test_last_digits_hold(gate: Callable[..., GateReport]) -> None:
    def jitter(run: SyntheticRun) -> None:
        noise = np.random.Generator(np.random.Philox(8)).normal(size=len(run.scores))
        run.scores["value"] *= 1 - 1e-6 * np.abs(noise)  # always worse, as another processor may have it

    report = gate(jitter)
    assert report.exit_code == 0
    assert statuses(report) == {"holds": 6}


@pytest.mark.parametrize(("metric", "by"), [("psnr", -0.05), ("ssim", -0.005), ("mixture_error", 0.005)])
def test_a_worse_metric_is_a_regression(gate: Callable[..., GateReport], metric: str, by: float) -> None:
    report = gate(lambda run: run.shift("nmf", metric, by))
    assert report.exit_code == 1
    assert statuses(report) == {"holds": 5, "regression": 1}
    (row,) = [row for row in report.rows if row.status == "regression"]
    assert (row.method, row.metric) == ("nmf", metric)
    assert row.difference == pytest.approx(by, abs=1e-5)


@pytest.mark.parametrize(("metric", "by"), [("psnr", 0.05), ("ssim", 0.005), ("mixture_error", -0.005)])
def test_a_better_metric_is_reported_and_holds(gate: Callable[..., GateReport], metric: str, by: float) -> None:
    report = gate(lambda run: run.shift("nmf", metric, by))
    assert report.exit_code == 0
    assert statuses(report) == {"holds": 5, "improvement": 1}


def test_tolerances_can_be_stated(gate: Callable[..., GateReport]) -> None:
    assert gate(lambda run: run.shift("nmf", "psnr", -0.05), psnr=0.1).exit_code == 0
    assert gate(lambda run: run.shift("nmf", "psnr", -0.005)).exit_code == 0
    assert gate(lambda run: run.shift("nmf", "psnr", -0.005), psnr=0.001).exit_code == 1


def set_record(key: str, value: object) -> Change:
    def change(run: SyntheticRun) -> None:
        run.record[key] = value

    return change


def set_digest(run: SyntheticRun) -> None:
    run.record["tasks"]["class-split"]["digest"] = "feed"


def fewer_planned(run: SyntheticRun) -> None:
    run.record["tasks"]["class-split"]["n_planned"] = N - 1
    run.scores = run.scores[run.scores["example"] < N - 1]


def fewer_planned_to(run: SyntheticRun, n: int) -> None:
    run.record["tasks"]["class-split"]["n_planned"] = n
    run.cells = {key: cell | {"n_planned": n} for key, cell in run.cells.items()}
    run.scores = run.scores[run.scores["example"] < n]


def spoil(run: SyntheticRun) -> None:
    run.scores.loc[run.where("nmf", "psnr"), "value"] = np.nan


def other_supervision(run: SyntheticRun) -> None:
    run.cells["class-split", "nmf"]["supervision"] = "sources"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda run: run.drop_method("nmf"), "missing in NEW"),
        (set_digest, "task digest"),
        (spoil, "no value (NaN) in NEW"),
        (lambda run: run.fail("nmf", 3), f"{N} examples scored in OLD, {N - 1} in NEW"),
        (fewer_planned, f"planned examples {N} in OLD, {N - 1} in NEW"),
        (set_record("budget", "quick"), "budget paper in OLD, quick in NEW"),
        (other_supervision, "supervision blind in OLD, sources in NEW"),
    ],
    ids=["row missing", "digest", "NaN", "fewer scored", "fewer planned", "budget", "supervision"],
)
def test_not_comparable(gate: Callable[..., GateReport], change: Change, reason: str) -> None:
    report = gate(change)
    assert report.exit_code == 2
    assert report.verdict == "not comparable"
    assert any(reason in row.reason for row in report.rows), [row.reason for row in report.rows]


@pytest.mark.parametrize("column", ["mean", "n_scored", "suite_version", "unit", "higher_is_better"])
def test_a_csv_that_was_edited(tmp_path: Path, column: str) -> None:
    results = opened(SyntheticRun(n=N), tmp_path / "old", True)
    values = {"mean": np.nan, "n_scored": N - 1, "suite_version": 99, "unit": "1", "higher_is_better": False}
    edited = results.frame.copy()
    edited.loc[0, column] = values[column]
    report = check_results(Results("new", edited, None), results)
    assert report.exit_code == 2
    assert report.count("not comparable") == 1


def test_not_comparable_goes_before_regression(gate: Callable[..., GateReport]) -> None:
    def both(run: SyntheticRun) -> None:
        run.shift("average", "psnr", -1.0)
        run.fail("nmf", 0)

    report = gate(both)
    assert report.count("regression") == 1
    assert report.exit_code == 2


def test_a_new_method_is_reported_and_holds(tmp_path: Path) -> None:
    old = opened(SyntheticRun({"nmf": 16.0}, n=N), tmp_path / "old", False)
    new = opened(SyntheticRun({"nmf": 16.0, "rpca": 13.0}, n=N, metrics=("psnr", "ssim", "mixture_error")), tmp_path / "new", True)
    # Other noise is drawn with another number of methods; only the kinds of rows matter here.
    report = check_results(Results("new", new.frame, new.suite), old, dict.fromkeys(("psnr", "ssim", "mixture_error"), 100.0))
    assert statuses(report) == {"holds": 3, "new": 3}
    assert report.exit_code == 0


def test_without_a_value_in_old_there_is_nothing_to_lose(tmp_path: Path) -> None:
    failed = SyntheticRun(n=N)
    failed.scores = failed.scores[~failed.where("nmf")]
    failed.cells["class-split", "nmf"] |= {"state": "failed"}
    old = opened(failed, tmp_path / "old", True)
    assert statuses(check_results(opened(SyntheticRun(n=N), tmp_path / "new", True), old)) == {"holds": 3, "new": 3}
    assert check_results(opened(failed, tmp_path / "again", True), old).exit_code == 2  # still no value: it must not pass unseen


def test_other_examples_scored_are_found_where_scores_are(tmp_path: Path) -> None:
    old = opened(SyntheticRun(n=N).fail("nmf", 1), tmp_path / "old", False)
    new = opened(SyntheticRun(n=N).fail("nmf", 2), tmp_path / "new", False)
    report = check_results(new, old)
    assert report.exit_code == 2
    assert {row.reason for row in report.rows if row.reason} == {"1 examples scored in OLD have no value in NEW"}


def test_noise_without_a_shift_is_no_regression_where_scores_pair(tmp_path: Path) -> None:
    def noisy(scale: float, shift: float) -> Results:
        run = SyntheticRun(n=200, metrics=("psnr",))
        chosen = run.where("nmf")
        run.scores.loc[chosen, "value"] += shift + scale * np.random.Generator(np.random.Philox(2)).normal(size=int(chosen.sum()))
        return opened(run, tmp_path / f"{scale}{shift}", False)

    old = opened(SyntheticRun(n=200, metrics=("psnr",)), tmp_path / "old", False)
    (row,) = [row for row in check_results(noisy(1.0, 0.0), old).rows if row.method == "nmf"]
    assert row.basis == "paired test"
    assert row.status == "holds"
    assert row.ci_low < 0 < row.ci_high
    (row,) = [row for row in check_results(noisy(1.0, -0.5), old).rows if row.method == "nmf"]
    assert row.status == "regression"
    assert row.ci_high < -0.01


def runs(tmp_path: Path, change: Change, csv: bool = False, **more: object) -> tuple[Results, Results]:
    """NEW, changed, and OLD."""
    new = SyntheticRun(**more)  # type: ignore[arg-type]
    change(new)
    return opened(new, tmp_path / "new", csv), opened(SyntheticRun(**more), tmp_path / "old", csv)  # type: ignore[arg-type]


def noise(scale: float, shift: float = 0.0, key: int = 2, method: str = "nmf") -> Change:
    """Other draws of a random method."""

    def change(run: SyntheticRun) -> None:
        chosen = run.where(method)
        run.scores.loc[chosen, "value"] += shift + scale * np.random.Generator(np.random.Philox(key)).normal(size=int(chosen.sum()))

    return change


def test_another_seed_is_a_note_where_scores_pair_and_not_comparable_where_only_means_are_there(tmp_path: Path) -> None:
    paired = check_results(*runs(tmp_path / "runs", set_record("seed", 5), n=12))
    assert paired.exit_code == 0
    assert any("seed 0 in OLD, 5 in NEW" in note for note in paired.notes)
    means = check_results(*runs(tmp_path / "csv", set_record("seed", 5), csv=True, n=12))
    assert means.exit_code == 2
    assert all("seed 0 in OLD, 5 in NEW" in row.reason for row in means.rows)


def test_a_check_is_one_decision_over_all_its_rows(tmp_path: Path) -> None:
    """A change that one row alone would call a regression is none among many."""
    many = {f"m{number}": 16.0 for number in range(40)}
    change = noise(1.0, -0.12, method="m7")
    alone = check_results(*runs(tmp_path / "alone", change, methods={"m7": 16.0}, n=200, metrics=("psnr",)))
    family = check_results(*runs(tmp_path / "family", change, methods=many, n=200, metrics=("psnr",)))
    (one,) = [row for row in alone.rows if row.method == "m7"]
    (among,) = [row for row in family.rows if row.method == "m7"]
    assert (one.status, among.status) == ("regression", "holds")
    assert one.p_worse < ALARM <= among.p_worse
    assert among.p_worse == pytest.approx(40 * one.p_worse, rel=0.1)


def test_few_songs_tell_no_change_from_chance(tmp_path: Path) -> None:
    report = check_results(*runs(tmp_path, noise(0.1, -1.0), n=MIN_CLUSTERS - 1, metrics=("psnr",)))
    (row,) = [row for row in report.rows if row.method == "nmf"]
    assert row.status == "not comparable"
    assert f"are too few to tell a change from chance, {MIN_CLUSTERS} are needed" in row.reason
    assert check_results(*runs(tmp_path / "same", lambda run: None, n=MIN_CLUSTERS - 1)).exit_code == 0


def test_a_scope_is_all_that_counts(tmp_path: Path) -> None:
    new, old = runs(tmp_path, lambda run: run.shift("nmf", "psnr", -1.0), n=20)
    assert check_results(new, old).exit_code == 1
    report = check_results(new, old, scope=Scope(methods=("average",)))
    assert report.exit_code == 0
    assert {row.method for row in report.rows} == {"average"}
    with pytest.raises(UnknownNameError, match="--methods"):
        check_results(new, old, scope=Scope(methods=("avrage",)))
    with pytest.raises(UnknownNameError, match="--tasks"):
        check_results(new, old, scope=Scope(tasks=("class-splt",)))


def test_a_subset_is_compared_on_what_both_have(tmp_path: Path) -> None:
    old = opened(SyntheticRun(n=60), tmp_path / "old", False)
    fewer = SyntheticRun(n=60).drop_method("average")
    fewer_planned_to(fewer, 30)
    new = opened(fewer, tmp_path / "new", False)
    assert check_results(new, old).exit_code == 2
    report = check_results(new, old, scope=Scope(subset=True))
    assert report.exit_code == 0
    assert {row.method for row in report.rows} == {"nmf"}
    assert all(row.difference == pytest.approx(0) for row in report.rows)
    worse = SyntheticRun(n=60).shift("nmf", "psnr", -1.0)
    fewer_planned_to(worse, 30)
    assert check_results(opened(worse, tmp_path / "worse", False), old, scope=Scope(subset=True)).exit_code == 1


def test_other_weights_are_noted_where_both_tables_name_theirs(tmp_path: Path) -> None:
    runs = {name: SyntheticRun({"nmf": 16.0}, n=4) for name in ("a", "b", "unnamed")}
    for name, run in runs.items():
        run.cells["class-split", "nmf"]["weights_sha256"] = name * 20 if name != "unnamed" else ""
    a, b, unnamed = (opened(run, tmp_path / name, False) for name, run in runs.items())
    assert list(check_results(b, a).notes) == ["nmf: weights aaaaaaaaaaaa... in OLD, bbbbbbbbbbbb... in NEW"]
    assert not check_results(a, a).notes
    assert not check_results(a, unnamed).notes


def test_one_example_is_judged_by_its_mean(tmp_path: Path) -> None:
    old = opened(SyntheticRun(n=1), tmp_path / "old", False)
    new = opened(SyntheticRun(n=1).shift("nmf", "psnr", -1.0), tmp_path / "new", False)
    report = check_results(new, old)
    assert report.exit_code == 1
    assert {row.basis for row in report.rows} == {"means"}


def test_what_changed_without_harm_is_noted(gate: Callable[..., GateReport]) -> None:
    def change(run: SyntheticRun) -> None:
        run.record["methods"]["nmf"]["version"] = "2"
        run.cells["class-split", "nmf"]["samples"] = 10

    report = gate(change)
    assert report.exit_code == 0
    assert list(report.notes) == ["nmf: version 1 in OLD, 2 in NEW", "nmf: samples 1 in OLD, 10 in NEW"]


def test_another_suite_and_an_empty_old(tmp_path: Path) -> None:
    digits = opened(SyntheticRun(n=5), tmp_path / "digits", True)
    mnist = opened(SyntheticRun(n=5, suite="mnist-pairs"), tmp_path / "mnist", True)
    with pytest.raises(SepbenchError, match="is of suite mnist-pairs"):
        check_results(mnist, digits)
    with pytest.raises(SepbenchError, match="nothing to check against"):
        check_results(digits, Results("empty", digits.frame.iloc[:0], None))


@functools.cache
def two_frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    return SyntheticRun(n=5).shift("nmf", "psnr", -1.0).shift("average", "ssim", 0.5).frame(), SyntheticRun(n=5).frame()


@given(st.permutations(range(6)), st.permutations(range(6)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_rows_does_not_matter(order_new: list[int], order_old: list[int]) -> None:
    new, old = two_frames()
    straight = check_results(Results("new", new, None), Results("old", old, None))
    shuffled = check_results(Results("new", new.iloc[order_new], None), Results("old", old.iloc[order_old], None))
    assert sorted(map(str, straight.rows)) == sorted(map(str, shuffled.rows))
    assert shuffled.exit_code == 1


def test_a_run_holds_against_the_csv_written_from_it_even_at_tolerance_zero(tmp_path: Path) -> None:
    run = SyntheticRun(n=N)
    write_leaderboard(run.frame(), tmp_path / "board.csv")
    zero = dict.fromkeys(("psnr", "ssim", "mixture_error"), 0.0)
    report = check_results(opened(run, tmp_path / "run", False), Results("old", read_leaderboard(tmp_path / "board.csv"), None), zero)
    assert statuses(report) == {"holds": 6}


def test_tolerances_as_words(tmp_path: Path) -> None:
    assert parse_tolerances(["psnr=0.05", " ssim = 1e-3"]) == {"psnr": 0.05, "ssim": 0.001}
    for bad in ("psnr", "psnr=", "psnr=much", "psnr=-1", "psnr=nan", "psnr=inf", "=1"):
        with pytest.raises(SepbenchError, match="METRIC=VALUE"):
            parse_tolerances([bad])
    with pytest.raises(SepbenchError, match="twice"):
        parse_tolerances(["psnr=1", "psnr=2"])
    results = opened(SyntheticRun(n=3), tmp_path / "run", True)
    with pytest.raises(SepbenchError, match="did you mean psnr"):
        check_results(results, results, {"psnrr": 1.0})


def test_other_numbers_of_mixtures_come_with_a_next_step(tmp_path: Path) -> None:
    new, old = (SyntheticRun(n=n).save(tmp_path / str(n)) for n in (10, 20))
    write_leaderboard(SyntheticRun(n=20).frame(), tmp_path / "old.csv")
    for against, step in ((old, "--subset compares those that both have"), (str(tmp_path / "old.csv"), "run NEW again with as many mixtures")):
        report = check_results(open_results(new), open_results(against), {}, Scope())
        assert {row.reason.partition("; ")[2] for row in report.rows} == {step}
