"""Pooled metrics from scores to tables: shards, failures, growth, intervals that know the clusters, comparison and gate."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import typer
from synthetic_run import SyntheticRun
from typer.testing import CliRunner

from sepbench.cli import check, compare, run, score, show
from sepbench.errors import SepbenchError
from sepbench.metrics.psnr_pooled import PSNR_POOLED32
from sepbench.results.compare import compare_sides, open_side, pair_up
from sepbench.results.gate import Scope, check_results
from sepbench.results.intervals import Design
from sepbench.results.publication import publish_run
from sepbench.results.repeats import folder_of
from sepbench.results.score_files import Rows
from sepbench.results.store import RunStore
from sepbench.results.target import Results, open_results
from sepbench.results.values import CellValues, Values, reduce_cell
from sepbench.suites.loader import load_suite

METRICS = ("psnr_pooled32", "psnr_pooled32/mse", "psnr")
Mse = npt.NDArray[np.float64]


def errors(n: int, key: int = 1) -> Mse:
    """``(n, 2)`` squared errors of two sources."""
    return np.asarray(10.0 ** (-2 + 0.4 * np.random.Generator(np.random.Philox(key)).standard_normal((n, 2))))


def cell(mse: Mse, cuts: tuple[int, ...] = (), failed: tuple[int, ...] = (), order: tuple[int, ...] = ()) -> CellValues:
    """The values of a cell whose examples lie in files that end at ``cuts``, some of them failed, the files read in an order."""

    def part(start: int, stop: int) -> Rows:
        good = [example for example in range(start, stop) if example not in failed]
        bad = [example for example in range(start, stop) if example in failed]
        return Rows(
            example=np.array([*np.repeat(good, 2), *bad, *np.repeat(good, 2), *bad], np.int64),
            source=np.array([*([0, 1] * len(good)), *([-1] * len(bad)), *([0, 1] * len(good)), *([-1] * len(bad))], np.int64),
            metric=np.repeat([1, 0, 2], [2 * len(good), len(bad), 2 * len(good) + len(bad)]).astype(np.int32),
            value=np.concatenate([mse[good].ravel(), np.full(len(bad), np.nan), -10 * np.log10(mse[good].ravel()), np.full(len(bad), np.nan)]),
            failed=np.array([*([False] * 2 * len(good)), *([True] * len(bad))] * 2, np.bool_),
            metrics=METRICS,
        )

    spans = list(itertools.pairwise([0, *cuts, len(mse)]))
    return reduce_cell(lambda: [part(*spans[place]) for place in order or range(len(spans))], "task, method")


def test_the_value_is_that_of_the_whole_set_whatever_the_files() -> None:
    mse = errors(100)
    whole = cell(mse)["psnr_pooled32"]
    expected = np.mean([-10 * np.log10(mse[start : start + 32, source].mean()) for start in (0, 32, 64) for source in (0, 1)])
    assert whole.values.mean() == pytest.approx(expected, rel=1e-12)
    assert whole.n_sources == 2
    assert len(whole) == 100
    for cuts, order in (((1, 50), (2, 0, 1)), (tuple(range(1, 100)), tuple(reversed(range(100))))):
        assert (cell(mse, cuts, order=order)["psnr_pooled32"].values == whole.values).all()
    assert (cell(mse, (7,))["psnr"].values == cell(mse)["psnr"].values).all()


def test_failed_examples_have_no_value_and_leave_their_batch() -> None:
    mse = errors(64)
    for cuts in ((), (3,), (3, 5)):  # in the last case a whole file failed
        found = cell(mse, cuts, failed=(3, 4, 40))["psnr_pooled32"]
        assert np.flatnonzero(~found.scored).tolist() == [3, 4, 40]
        rest = [np.delete(mse, (3, 4, 40), axis=0)[start:stop, source].mean() for start, stop in ((0, 30), (30, 61)) for source in (0, 1)]
        assert np.nanmean(found.values) == pytest.approx(float(np.mean(-10 * np.log10(rest))), rel=1e-12)
    assert not cell(mse, failed=tuple(range(64)))["psnr_pooled32"].scored.any()


def test_an_example_twice_is_refused() -> None:
    mse = errors(4)
    rows = Rows(np.array([0, 1, 0]), np.zeros(3, np.int64), np.ones(3, np.int32), mse[:3, 0], np.zeros(3, np.bool_), METRICS)
    with pytest.raises(SepbenchError, match="contain psnr_pooled32 of an example twice; run `sepbench score` again"):
        reduce_cell(lambda: [rows], "task, method")
    once = Rows(*(column[:2] for column in (rows.example, rows.source, rows.metric, rows.value, rows.failed)), METRICS)
    with pytest.raises(SepbenchError, match="of an example twice"):
        reduce_cell(lambda: [once, once], "task, method")


def test_sides_with_other_examples_are_pooled_anew_on_those_they_share() -> None:
    long, short = cell(errors(128))["psnr_pooled32"], cell(errors(64, 2), failed=(5,))["psnr_pooled32"]
    pair = pair_up(long, short)
    assert pair.pooled
    assert pair.examples.tolist() == [example for example in range(64) if example != 5]
    alone = cell(errors(128)[:64], failed=(5,))["psnr_pooled32"]
    assert pair.a.mean() == pytest.approx(float(np.nanmean(alone.values)), rel=1e-12)
    assert pair.b.mean() == pytest.approx(float(np.nanmean(short.values)), rel=1e-12)


def made(better: float = 0.0, n: int = 200) -> SyntheticRun:
    """Digits with squared errors as the parts of psnr_pooled32; ``better`` dB better than without."""
    made = SyntheticRun(methods={"average": 14.0}, n=n, metrics=("psnr",))
    parts = made.scores.copy()
    parts["metric"] = "psnr_pooled32/mse"
    parts["value"] = 10 ** (-(parts["value"] + better) / 10)
    made.scores = pd.concat([made.scores, parts], ignore_index=True)
    made.record["metrics"] = ["psnr", "psnr_pooled32"]
    return made


def test_the_leaderboard_row_says_how_its_interval_was_made() -> None:
    frame = made().frame().set_index("metric")
    row, mse = frame.loc["psnr_pooled32"], made().scores.query("metric == 'psnr_pooled32/mse'")["value"].to_numpy().reshape(-1, 2)
    values = np.mean([PSNR_POOLED32.pool({"mse": column}, np.arange(200)) for column in mse.T], axis=0)
    design = Design(load_suite("digits-pairs").tasks["class-split"].clusters().of(np.arange(200)))
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], design.intervals(values[:, None])[:, 0], rtol=1e-12)
    assert row["mean"] == pytest.approx(np.mean([-10 * np.log10(mse[s : s + 32, k].mean()) for s in range(0, 192, 32) for k in (0, 1)]), rel=1e-12)
    assert row["interval"] == "cluster t, jackknife"
    assert frame.loc["psnr", "interval"] == "cluster t"
    assert np.isnan(row["std"])
    assert np.isnan(row["median"])
    assert (row["n_scored"], row["n_failed"], row["n_clusters"]) == (200, 0, frame.loc["psnr", "n_clusters"])


def sepbench(*arguments: str, code: int = 0) -> str:
    app = typer.Typer()
    for command in (run.run, score.score, show.show, compare.compare, check.check):
        app.command(command.__name__)(command)
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    assert done.exit_code == code, f"{done.output} {done.exception}"
    return done.stdout


def test_compare_and_check_know_a_better_pooled_value(tmp_path: Path) -> None:
    old, same, worse = made().save(tmp_path / "old"), made().save(tmp_path / "same"), made(better=-0.5).save(tmp_path / "worse")
    shown = sepbench("compare", worse, old, "--metric", "psnr_pooled32", "--csv", str(tmp_path / "out.csv"))
    assert "B better" in shown
    row = pd.read_csv(tmp_path / "out.csv").iloc[0]
    assert row["difference"] == pytest.approx(-0.5, abs=1e-6)
    assert np.isnan(row["share_a_better"])
    sepbench("check", same, "--against", old)
    assert "psnr_pooled32" in sepbench("check", worse, "--against", old, code=1)


def test_a_part_of_a_run_is_held_against_a_leaderboard_but_for_figures_that_cannot_be_made_anew(tmp_path: Path) -> None:
    board, few = str(publish_run(made().save(tmp_path / "old"), tmp_path).path), made(n=40).save(tmp_path / "few")
    reason = "the committed scores of OLD hold no parts of psnr_pooled32; compare with a run of OLD"
    shown = sepbench("check", few, "--against", board, code=2)
    assert "--subset compares those that both have" in shown
    assert f"planned examples 200 in OLD, 40 in NEW; {reason}" in shown
    shown = sepbench("check", few, "--against", board, "--subset")
    assert f"note: psnr_pooled32 is passed over for class-split average: {reason}" in shown
    assert "1 figure holds" in shown
    assert "passed over" not in sepbench("check", few, "--against", str(tmp_path / "old"), "--subset")
    shown = sepbench("compare", board, few, "--metric", "psnr_pooled32")
    assert ("no value of these" in shown, "no parts in A" in shown) == (True, True)
    assert "the committed scores of A hold no parts of psnr_pooled32; compare with a run of A" in shown


def test_a_subset_of_which_nothing_can_be_made_anew_has_nothing_to_check() -> None:
    old, new = made(), made(n=40)
    sides = [Results(label, run.frame(), run.suite, run.values()) for label, run in (("OLD", old), ("NEW", new))]
    kept = {name: replace(values, parts=None, whole_only=True) for name, values in old.values().cell("class-split", "average").items()}
    board = replace(sides[0], frame=sides[0].frame.query("metric == 'psnr_pooled32'"), values=Values(lambda task, method: kept))
    with pytest.raises(SepbenchError, match="nothing is left to check: the committed scores of OLD hold no parts of psnr_pooled32"):
        check_results(sides[1], board, scope=Scope(subset=True))
    assert check_results(sides[0], board).exit_code == 0


def test_pooled_values_of_a_leaderboard_have_no_shares_whichever_side_they_are(tmp_path: Path) -> None:
    board, mine = str(publish_run(made().save(tmp_path / "old"), tmp_path).path), made(better=0.5).save(tmp_path / "new")
    for a, b in ((mine, board), (board, mine), (board, board)):
        (row,) = compare_sides(open_side(a), open_side(b), ["psnr_pooled32"]).to_dict("records")
        assert np.isnan([row["share_a_better"], row["share_b_better"]]).all()
        assert row["interval"] == "cluster t, jackknife"
        (plain,) = compare_sides(open_side(a), open_side(b), ["psnr"]).to_dict("records")
        assert (plain["share_a_better"], plain["share_b_better"], plain["interval"]) == (0.0, 0.0, "cluster t")


# --- sets of a single window


def windowed(samples: int, worse_by: float = 0.0, n: int = 12) -> SyntheticRun:
    """Parts of sdr_corpus_median: windows of 100 samples."""
    made = SyntheticRun(methods={"average": 14.0}, n=n, metrics=("psnr",))
    errors = 10 ** (-(made.scores["value"] - worse_by) / 10) * samples / 2
    halves = {"samples": float(samples), "rate": 100.0, **dict.fromkeys(("signal_0", "signal_1"), samples / 2), **dict.fromkeys(("error_0", "error_1"), errors)}
    parts = [made.scores.assign(metric=f"sdr_corpus_median/{name}", value=value) for name, value in halves.items()]
    made.scores = pd.concat([made.scores, *parts], ignore_index=True)
    made.record["metrics"] = ["psnr", "sdr_corpus_median"]
    return made


@pytest.mark.parametrize(("samples", "known"), [(16, False), (17, True)])  # one and two windows of 12 mixtures
def test_a_set_of_one_window_has_a_value_and_no_interval(tmp_path: Path, samples: int, known: bool) -> None:
    folders = [windowed(samples, worse).save(tmp_path / str(worse)) for worse in (0.0, 3.0)]
    row = open_results(folders[0]).frame.set_index("metric").loc["sdr_corpus_median"]
    assert np.isfinite(row["mean"])
    assert (row["n_scored"], np.isfinite(row["ci_low"]), np.isfinite(row["ci_high"])) == (12, known, known)
    board = sepbench("show", folders[0], "--metric", "sdr_corpus_median")
    assert (" [" in board) == known
    publish_run(folders[1], tmp_path / "boards")
    for other in (folders[1], str(tmp_path / "boards" / "digits-pairs.csv")):
        shown = sepbench("compare", folders[0], other, "--metric", "sdr_corpus_median")
        assert ("no verdict without an interval" in shown) == (not known)
        assert ("A better" in shown.partition("verdict")[2]) == known
        assert "%" not in shown.partition("verdict")[2]  # no single mixture is better
    told = sepbench("check", folders[1], "--against", folders[0], "--methods", "average", code=1 if known else 2)
    assert ("no interval tells a change from chance" in " ".join(told.split())) == (not known)


def test_seeds_give_a_set_of_one_window_no_interval_either(tmp_path: Path) -> None:
    windowed(16).save(tmp_path / "run")
    other = windowed(16, worse_by=0.5)
    other.record["seed"] = 1
    other.save(folder_of(tmp_path / "run", "seeds", 1))
    row = open_results(str(tmp_path / "run")).frame.set_index("metric").loc["sdr_corpus_median"]
    assert (row["seeds"], np.isnan(row["ci_low"]), np.isnan(row["ci_high"])) == (2, True, True)
    assert row["std_seeds"] == pytest.approx(0.5 / np.sqrt(2))


RUN = ("run", "--suite", "digits-pairs", "--device", "cpu", "--tasks", "class-split", "--methods", "halves,noisy")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake_methods: None) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("here")
def test_a_run_that_is_scored_again_or_grows_has_the_value_of_one_that_was_made_at_once() -> None:
    for folder, shards, limits in (("once", "70", ("70",)), ("grown", "9", ("20", "33", "70"))):
        for limit in limits:
            sepbench(*RUN, "--limit", limit, "--shard-size", shards, "--out", folder)
        sepbench("score", folder, "--metrics", "psnr_unclamped,psnr_pooled32")
    once, grown = (pd.read_csv(f"{folder}/leaderboard.csv").set_index(["method", "metric"])["mean"] for folder in ("once", "grown"))
    stores = [RunStore.open(Path(folder)) for folder in ("once", "grown")]
    cells = [reduced(store, "noisy") for store in stores]
    assert (cells[0]["psnr_pooled32"].values == cells[1]["psnr_pooled32"].values).all()
    assert once["noisy", "psnr_pooled32"] == grown["noisy", "psnr_pooled32"]
    assert once["noisy", "psnr_pooled32"] < once["noisy", "psnr_unclamped"]
    frame = stores[0].read_scores(["method", "metric", "example", "source", "value"]).astype({"method": str, "metric": str})
    mse = frame[(frame["method"] == "noisy") & (frame["metric"] == "psnr_pooled32/mse")].sort_values(["example", "source"])["value"].to_numpy().reshape(-1, 2)
    expected = np.mean([-10 * np.log10(mse[start : start + 32, source].mean()) for start in (0, 32) for source in (0, 1)])
    assert cells[0]["psnr_pooled32"].values.mean() == pytest.approx(expected, rel=1e-12)


def reduced(store: RunStore, method: str) -> CellValues:
    from sepbench.results.values import read_cell

    return read_cell(store.score_files("class-split", method), "class-split")


@pytest.mark.usefixtures("here")
def test_a_run_without_the_metric_is_still_shown_and_gets_it_by_scoring() -> None:
    sepbench(*RUN, "--limit", "40", "--out", "old")
    assert "pooled" not in sepbench("show", "old")
    sepbench("score", "old", "--metrics", "psnr,psnr_pooled32")
    assert "pooled32" in sepbench("show", "old")
