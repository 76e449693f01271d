"""Comparison, check, ranks and publication of runs with several seeds or fits: all are about each mixture's mean over the repetitions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from synthetic_run import SyntheticRun

from sepbench.results.compare import A_BETTER, compare_sides, open_side
from sepbench.results.gate import Scope, check_results
from sepbench.results.intervals import Design
from sepbench.results.leaderboard import read_leaderboard
from sepbench.results.publication import publish_run
from sepbench.results.repeated import Moved, moved_apart, moved_by, uncertainty
from sepbench.results.repeats import folder_of
from sepbench.results.target import open_results

N = 60


def saved(place: Path, first: float, shifts: Mapping[int, float], kind: str = "seeds", seed: int = 0, key: int = 1) -> str:
    """A run of nmf and average and repetitions of nmf: its PSNR moves as a whole by ``first`` in the run itself, by ``shifts`` in its repetitions."""
    for number, shift in {seed: first, **shifts}.items():
        run = SyntheticRun(n=N, key=key).shift("nmf", "psnr", shift)
        run.record["seed"] = seed
        if number != seed:
            run.drop_method("average").record["seed" if kind == "seeds" else "fit_seed"] = number
        run.save(place if number == seed else folder_of(place, kind, number))
    return str(place)


def mean_of(run: str) -> float:
    frame = open_results(run).frame
    return float(frame.loc[(frame["method"] == "nmf") & (frame["metric"] == "psnr"), "mean"].item())


@pytest.mark.parametrize(("kind", "seed"), [("seeds", 0), ("fits", 0), ("seeds", 7)])
def test_a_difference_is_that_of_the_means_over_all_repetitions(tmp_path: Path, kind: str, seed: int) -> None:
    """The first seeds alone say the opposite."""
    a = saved(tmp_path / "a", 1.0, {seed + 1: -1.0, seed + 2: -0.9}, kind, seed)
    b = saved(tmp_path / "b", 0.0, {1: 0.1})
    (row,) = compare_sides(open_side(f"{a}:nmf"), open_side(f"{b}:nmf")).to_dict("records")
    assert row["difference"] == pytest.approx(mean_of(a) - mean_of(b), abs=1e-9) == pytest.approx(-0.35)
    assert (row["mean_a"], row["mean_b"]) == (pytest.approx(mean_of(a)), pytest.approx(mean_of(b)))
    assert row["interval"] == " and ".join(dict.fromkeys(["cluster t", kind, "seeds"]))
    (found,) = [row for row in check_results(open_results(a), open_results(b), scope=Scope(methods=("nmf",))).rows if row.metric == "psnr"]
    assert found.difference == pytest.approx(found.new - found.old, abs=1e-9)
    assert found.status == "holds"  # the seeds lie further apart than that
    assert (found.ci_low, found.ci_high) == pytest.approx((row["ci_low"], row["ci_high"]))


def test_the_interval_of_a_difference_has_the_variances_of_both_sides_repetitions(tmp_path: Path) -> None:
    a = saved(tmp_path / "a", 0.0, {1: 1.0, 2: 2.0})
    b = saved(tmp_path / "b", 0.0, {8: 0.5}, seed=7, key=2)
    (row,) = compare_sides(open_side(f"{a}:nmf"), open_side(f"{b}:nmf")).to_dict("records")
    gaps = (SyntheticRun(n=N).values().of("class-split", "nmf", "psnr").values + 1.0) - (
        SyntheticRun(n=N, key=2).values().of("class-split", "nmf", "psnr").values + 0.25
    )
    design = Design(SyntheticRun(n=N).suite.tasks["class-split"].clusters().of(np.arange(N)))
    parts = [(float(design.standard_errors(gaps[:, None])[0]) ** 2, design.degrees), (1.0**2 / 3, 2), (0.125 / 2, 1)]
    total = sum(variance for variance, _ in parts)
    degrees = total**2 / sum(variance**2 / of for variance, of in parts)
    half = stats.t.ppf(0.975, degrees) * math.sqrt(total)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((gaps.mean() - half, gaps.mean() + half), rel=1e-6)


def test_repetitions_of_the_same_seeds_are_paired(tmp_path: Path) -> None:
    """However far the seeds lie apart, a change that all of them show is no chance."""
    shifts = {1: 3.0, 2: -4.0}
    old = saved(tmp_path / "old", 0.0, shifts)
    new = saved(tmp_path / "new", -0.2, {seed: shift - 0.2 for seed, shift in shifts.items()})
    report = check_results(open_results(new), open_results(old), scope=Scope(methods=("nmf",)))
    assert report.exit_code == 1
    (row,) = compare_sides(open_side(f"{old}:nmf"), open_side(f"{new}:nmf")).to_dict("records")
    assert (row["ci_low"], row["ci_high"], row["verdict"]) == (pytest.approx(0.2), pytest.approx(0.2), A_BETTER)
    assert check_results(open_results(old), open_results(old)).exit_code == 0


def test_ranks_are_those_of_the_means_over_repetitions(tmp_path: Path) -> None:
    """The first seed alone is far below the other method; the mean of all is above it, and too unsure to beat it."""
    run = saved(tmp_path / "run", -8.0, {1: 12.0, 2: 8.0})
    results = open_results(run)
    assert results.evidence is not None
    assert results.evidence.against_best("class-split", "psnr", ["nmf", "average"], True).equal == {"average"}
    sure = open_results(saved(tmp_path / "sure", -8.0, dict.fromkeys(range(1, 30), 8.0)))
    assert sure.evidence is not None
    assert sure.evidence.against_best("class-split", "psnr", ["nmf", "average"], True).equal == frozenset()


def test_a_repetition_that_lacks_mixtures_is_left_out_of_values_too(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 0.0, {1: 4.0})
    other = SyntheticRun(n=N).drop_method("average").fail("nmf", 3)
    other.record["seed"] = 2
    other.save(folder_of(tmp_path / "run", "seeds", 2))
    values = open_results(run).values
    assert values is not None
    found = values.of("class-split", "nmf", "psnr")
    assert found.values.mean() == pytest.approx(mean_of(run), abs=1e-9)
    assert values.of("class-split", "average", "psnr").repetitions is None


def test_a_published_row_follows_from_its_scores_and_what_it_tells_of_repetitions(tmp_path: Path) -> None:
    run = saved(tmp_path / "run", 0.5, {1: -2.0, 2: 0.7})
    board = publish_run(run, tmp_path / "boards").path
    row = read_leaderboard(board).set_index(["method", "metric"]).loc[("nmf", "psnr")]
    results = open_results(str(board))
    assert results.values is not None
    found = results.values.of("class-split", "nmf", "psnr")
    assert [found.values.mean(), found.values.std(ddof=1), np.median(found.values)] == pytest.approx([row["mean"], row["std"], row["median"]], rel=1e-5)
    assert found.moved == Moved("seeds", 3, row["std_seeds"])
    design = Design(SyntheticRun(n=N).suite.tasks["class-split"].clusters().of(np.arange(N)))
    half = uncertainty(float(design.standard_errors(found.values[:, None])[0]), design.degrees, [found.moved]).half_width
    assert (row["mean"] - half, row["mean"] + half) == pytest.approx((row["ci_low"], row["ci_high"]), rel=1e-5)
    (alone,) = compare_sides(open_side(f"{board}:nmf"), open_side(f"{saved(tmp_path / 'single', 0.0, {})}:nmf")).to_dict("records")
    (same,) = compare_sides(open_side(f"{run}:nmf"), open_side(f"{tmp_path / 'single'}:nmf")).to_dict("records")
    for name in ("difference", "ci_low", "ci_high", "interval"):
        assert alone[name] == (same[name] if name == "interval" else pytest.approx(same[name], rel=1e-4))


def test_repetitions_of_a_pooled_metric_are_pooled_anew_each(tmp_path: Path) -> None:
    """The mean of the values of both seeds on 32 mixtures, which is not a part of the values on all."""

    def pooled(n: int, better: float) -> SyntheticRun:
        run = SyntheticRun({"nmf": 16.0}, n=n, metrics=("psnr",))
        run.scores = run.scores.assign(metric="psnr_pooled32/mse", value=10 ** (-(run.scores["value"] * (1 + better)) / 10))
        run.record["metrics"] = ["psnr_pooled32"]
        return run

    other = pooled(N, 0.5)
    other.record["seed"] = 1
    run = pooled(N, 0.0).save(tmp_path / "run")
    other.save(folder_of(tmp_path / "run", "seeds", 1))
    short = pooled(N, 0.0)
    short.scores = short.scores[short.scores["example"] < 32]
    (row,) = compare_sides(open_side(run), open_side(short.save(tmp_path / "short")), ["psnr_pooled32"]).to_dict("records")
    expected = [-10 * np.log10(of.scores.query("example < 32").groupby("source")["value"].mean()).mean() for of in (pooled(N, 0.0), other)]
    assert (row["n"], row["mean_a"], row["interval"]) == (32, pytest.approx(np.mean(expected)), "cluster t, jackknife and seeds")
    assert row["difference"] == pytest.approx(np.mean(expected) - expected[0])


def test_uncertainty_in_its_limits() -> None:
    moved = Moved("fits", 4, 2.0)
    assert (moved.variance, moved.degrees) == (1.0, 3)
    still = uncertainty(0.0, 9.0, [Moved("fits", 2, 0.0)])
    assert (still.half_width, still.tail(0.0), still.tail(-1.0), still.tail(1.0)) == (0.0, 1.0, 0.0, 1.0)
    unknown = uncertainty(math.nan, 0.0, [moved])
    assert math.isnan(unknown.half_width)
    assert unknown.tail(-1.0) == 1.0
    both = uncertainty(1.0, 3.0, [moved])
    assert (both.variance, both.degrees) == (2.0, 6.0)
    assert both.tail(-2.0) == pytest.approx(stats.t.cdf(-2.0 / math.sqrt(2.0), 6.0))
    a, b = moved_by("seeds", [0, 1], [1.0, 2.0]), moved_by("seeds", [0, 1], [4.0, 4.0])
    assert moved_apart(a, b) == (moved_by("seeds", [0, 1], [-3.0, -2.0]),)
    other = moved_by("seeds", [0, 2], [4.0, 4.0])
    assert (moved_apart(a, other), moved_apart(a, None), moved_apart(None, None)) == ((a, other), (a,), ())
    told = Moved("seeds", 2, 1.0)
    assert moved_apart(told, told) == (told, told)
