"""From scores to rows, to a file, and back; nothing lost, nothing silent."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_run import METRICS, SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.results.columns import column_names
from sepbench.results.leaderboard import build_leaderboard, merge_leaderboards, read_leaderboard, write_leaderboard
from sepbench.results.leaderboard_file import format_leaderboard
from sepbench.results.target import open_results
from sepbench.results.values import Values


def row(frame: pd.DataFrame, method: str, metric: str = "psnr", task: str = "class-split") -> pd.Series:
    chosen = frame[(frame["task"] == task) & (frame["method"] == method) & (frame["metric"] == metric)]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_columns_and_order() -> None:
    run = SyntheticRun({"nmf": 16.0, "average": 14.0}, tasks=("class-agnostic", "class-split"), n=5)
    frame = run.frame()
    assert tuple(frame.columns) == column_names()
    suite_order = [task for task in run.suite.tasks if task in ("class-split", "class-agnostic")]
    metrics = [metric for metric in run.suite.metrics if metric in METRICS]
    wanted = [(task, method, metric) for task in suite_order for method in ("nmf", "average") for metric in metrics]
    assert list(zip(frame["task"], frame["method"], frame["metric"], strict=True)) == wanted


def test_an_example_counts_once_whatever_its_sources() -> None:
    run = SyntheticRun({"nmf": 16.0}, n=30)
    psnr = run.scores[run.scores["metric"] == "psnr"]
    per_example = psnr.groupby("example")["value"].mean()
    got = row(run.frame(), "nmf")
    assert got["mean"] == pytest.approx(per_example.mean(), abs=1e-12)
    assert got["std"] == pytest.approx(per_example.std(ddof=1), abs=1e-12)
    assert got["median"] == pytest.approx(per_example.median(), abs=1e-12)
    assert got["ci_low"] < got["mean"] < got["ci_high"]
    assert (got["n_expected"], got["n_scored"], got["n_failed"]) == (30, 30, 0)


def test_where_the_other_columns_come_from() -> None:
    run = SyntheticRun({"nmf": 16.0}, n=4)
    run.cells["class-split", "nmf"] |= {"supervision": "sources", "samples": 3, "separate_seconds": 2.0, "n_separated": 4}
    run.cells["class-split", "nmf"] |= {"weights_sha256": "f00d", "prior": "EDM U-Net, 2.1 M, f00d"}
    run.record["environment"]["git_dirty"] = True
    got = row(run.frame(), "nmf")
    assert (got["weights_sha256"], got["prior"]) == ("f00d", "EDM U-Net, 2.1 M, f00d")
    task = run.suite.tasks["class-split"]
    assert (got["suite"], got["suite_version"], got["task_digest"]) == ("digits-pairs", run.suite.version, task.digest)
    assert (got["supervision"], got["samples"], got["seconds_per_mixture"], got["peak_mb"]) == ("sources", 3, 0.5, 300.5)
    assert (got["unit"], got["higher_is_better"], got["device"], got["budget"], got["seed"]) == ("dB", True, "cpu", "paper", 0)
    assert (got["sepbench_version"], got["git_sha"], got["command"]) == ("0.1.0", "0123abc-dirty", run.record["command"])
    assert not row(run.frame(), "nmf", "mixture_error")["higher_is_better"]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_scores_does_not_matter(key: int) -> None:
    run = SyntheticRun(n=20).fail("nmf", 3)
    before = format_leaderboard(run.frame())
    order = np.random.Generator(np.random.Philox(key)).permutation(len(run.scores))
    run.scores = run.scores.iloc[order]
    assert format_leaderboard(run.frame()) == before


def test_scores_from_disk_give_the_same_rows(tmp_path: Path) -> None:
    from sepbench.results.store import RunStore

    run = SyntheticRun(n=6).fail("nmf", 2)
    store = RunStore.open(Path(run.save(tmp_path / "run")))
    frame = build_leaderboard(Values.of_run(store), store.read_run(), store.read_cells(), run.suite)
    assert format_leaderboard(frame) == format_leaderboard(run.frame())


def test_a_failed_example_is_counted_and_the_others_stay() -> None:
    whole, holed = SyntheticRun(n=20), SyntheticRun(n=20).fail("nmf", 7)
    got = row(holed.frame(), "nmf")
    assert (got["n_expected"], got["n_scored"], got["n_failed"]) == (20, 19, 1)
    values = whole.values().of("class-split", "nmf", "psnr")
    rest = values.values[values.examples != 7]
    assert got["mean"] == pytest.approx(rest.mean(), abs=1e-12)
    pd.testing.assert_series_equal(row(holed.frame(), "average"), row(whole.frame(), "average"), check_names=False)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_bad_source_spoils_the_example(bad: float) -> None:
    run = SyntheticRun(n=20)
    run.scores.loc[run.where("nmf", "psnr", 4) & (run.scores["source"] == 1), "value"] = bad
    got = row(run.frame(), "nmf")
    assert (got["n_scored"], got["n_failed"]) == (19, 1)
    assert np.isfinite(got["mean"])
    assert row(run.frame(), "nmf", "ssim")["n_scored"] == 20


def test_a_missing_source_spoils_the_example() -> None:
    run = SyntheticRun(n=20)
    run.scores = run.scores[~(run.where("nmf", "psnr", 4) & (run.scores["source"] == 1))]
    got = row(run.frame(), "nmf")
    assert (got["n_scored"], got["n_failed"]) == (19, 1)


def test_examples_that_were_not_reached_are_no_failures() -> None:
    run = SyntheticRun(n=20)
    run.scores = run.scores[~(run.where("nmf") & (run.scores["example"] >= 15))]
    got = row(run.frame(), "nmf")
    assert (got["n_expected"], got["n_scored"], got["n_failed"]) == (20, 15, 0)


@pytest.mark.parametrize("with_rows", [True, False])
def test_a_method_that_failed_as_a_whole_keeps_its_rows(with_rows: bool) -> None:
    run = SyntheticRun(n=4)
    for example in range(4):
        run.fail("nmf", example)
    run.cells["class-split", "nmf"] |= {"state": "failed", "n_separated": 0, "separate_seconds": 0.0}
    if not with_rows:
        run.scores = run.scores[~run.where("nmf")]
    got = run.frame()[run.frame()["method"] == "nmf"]
    assert list(got["metric"]) == [metric for metric in run.suite.metrics if metric in METRICS]
    assert got["mean"].isna().all()
    assert got["seconds_per_mixture"].isna().all()
    assert list(got["n_scored"]) == [0] * len(got)
    assert list(got["n_failed"]) == [4] * len(got)


def test_a_method_that_was_not_reached_has_empty_rows() -> None:
    run = SyntheticRun(n=4)
    run.scores = run.scores[~run.where("nmf")]
    del run.cells["class-split", "nmf"]
    got = row(run.frame(), "nmf")
    assert np.isnan(got["mean"])
    assert (got["n_expected"], got["n_scored"], got["n_failed"]) == (4, 0, 0)


def test_an_unsupported_method_has_no_row() -> None:
    run = SyntheticRun(n=4)
    run.scores = run.scores[~run.where("nmf")]
    run.cells["class-split", "nmf"] = {"state": "unsupported", "note": "needs classes"}
    assert list(run.frame()["method"].unique()) == ["average"]


def test_a_run_without_any_scores() -> None:
    run = SyntheticRun(n=4)
    run.scores = run.scores.iloc[:0]
    frame = run.frame()
    assert len(frame) == 2 * len(METRICS)
    assert frame["mean"].isna().all()


def test_a_score_that_stands_there_twice_is_an_error() -> None:
    run = SyntheticRun(n=4)
    run.scores = pd.concat([run.scores, run.scores.iloc[[0]]], ignore_index=True)
    with pytest.raises(SepbenchError, match="twice"):
        run.frame()


def test_scores_beyond_the_plan_are_an_error() -> None:
    run = SyntheticRun(n=4)
    run.record["tasks"]["class-split"]["n_planned"] = 3
    with pytest.raises(SepbenchError, match="do not fit the plan"):
        run.frame()


def test_a_method_that_sets_its_own_precision_has_a_timing_group_of_its_own() -> None:
    run = SyntheticRun(n=4)
    run.record["methods"]["nmf"]["settings"] = {"precision": "bfloat16"}
    frame = run.frame()
    assert set(frame.loc[frame["method"] == "nmf", "timing_group"]) == {"cpu:Test CPU:2threads:bfloat16"}
    assert set(frame.loc[frame["method"] != "nmf", "timing_group"]) == {"cpu:Test CPU:2threads:float32"}


@pytest.mark.parametrize("session", ["float32", "tf32"])
@pytest.mark.parametrize("own", ["float32", "tf32", "bfloat16"])
def test_a_methods_own_precision_is_its_whatever_the_session_computes_in(session: str, own: str) -> None:
    run = SyntheticRun(n=4)
    run.record["timing_group"] = f"cuda:NVIDIA H200:{session}"
    run.record["methods"]["nmf"]["settings"] = {"precision": own}
    frame = run.frame()
    assert set(frame.loc[frame["method"] == "nmf", "timing_group"]) == {f"cuda:NVIDIA H200:{own}"}
    assert set(frame.loc[frame["method"] != "nmf", "timing_group"]) == {f"cuda:NVIDIA H200:{session}"}


@pytest.mark.parametrize("lost", ["timing_group", "seed", "suite.version", "tasks.class-split.n_planned", "methods.nmf.version"])
def test_what_a_record_lacks_is_named(tmp_path: Path, lost: str) -> None:
    """A leaderboard is never built from a record that lacks what every row must have."""
    name = SyntheticRun(n=4).save(tmp_path / "run")
    content = json.loads((tmp_path / "run" / "run.json").read_text())
    *where, entry = lost.split(".")
    record = content
    for key in where:
        record = record[key]
    del record[entry]
    (tmp_path / "run" / "run.json").write_text(json.dumps(content))
    with pytest.raises(SepbenchError, match=rf"run\.json is damaged \({re.escape(lost)}: .*; the run must be made again") as refused:
        open_results(name)
    assert "\n" not in str(refused.value)


# -- the file


def test_written_and_read_again(tmp_path: Path) -> None:
    run = SyntheticRun(n=10, suite="mnist-pairs").fail("nmf", 1)
    run.record["command"] = 'sepbench run --set nmf.name="a, b"'
    frame, path = run.frame(), tmp_path / "new" / "board.csv"
    write_leaderboard(frame, path)
    again = read_leaderboard(path)
    assert list(again.dtypes) == list(frame.dtypes)
    pd.testing.assert_frame_equal(again, frame, check_exact=False, rtol=1e-5)
    assert list(again["command"]) == list(frame["command"])
    text = path.read_bytes()
    assert b"\r" not in text
    write_leaderboard(again, path)
    assert path.read_bytes() == text
    assert [p.name for p in path.parent.iterdir()] == ["board.csv"]


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(deadline=None)
def test_floats_keep_six_digits(value: float) -> None:
    text = f"{value:.6g}"
    assert f"{float(text):.6g}" == text
    assert float(text) == pytest.approx(value, rel=1e-5, abs=1e-320)


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("taken")
    with pytest.raises(SepbenchError, match="cannot write"):
        write_leaderboard(SyntheticRun(n=2).frame(), tmp_path / "file" / "board.csv")


def damage(old: str, new: str) -> Callable[[str], str]:
    def apply(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage("n_scored,", ""), "lacks n_scored"),
        (damage("n_scored,", "n_score,"), "lacks n_scored and has unknown columns n_score"),
        (damage("suite,suite_version", "suite,suite"), "it lacks suite_version"),
        (damage("fit_cached,", "seed,"), "two columns seed"),
        (damage("command\n", "command,colour,shape\n"), "has columns that sepbench 0.1.0 does not know (colour, shape); upgrade sepbench to read it"),
        (damage(",dB,true,", ",dB,yes,"), "line 2: higher_is_better must be true or false, got 'yes'"),
        (damage(",dB,true,", ",dB,true,fine"), "line 2: mean must be a number, got 'fine"),
        (damage("digits-pairs,1,", "digits-pairs,1.5,"), "line 2: suite_version must be a whole number, got '1.5'"),
        (damage(",psnr,", ",,"), "line 2: metric is empty"),
        (lambda text: text + "one,two\n", "line 8: 2 fields instead of 42"),
        (lambda text: text + text.splitlines()[1] + "\n", "two rows for digits-pairs, class-split, average, psnr"),
        (lambda text: "", "not a leaderboard"),
        (lambda text: text + '"', "not a CSV file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    path = tmp_path / "board.csv"
    path.write_text(change(format_leaderboard(SyntheticRun(n=3).frame())))
    with pytest.raises(SepbenchError) as caught:
        read_leaderboard(path)
    assert message in str(caught.value)
    assert "board.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_leaderboard_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """It had no column for the weights; written again, it has one, empty."""
    frame = SyntheticRun({"nmf": 16.0}, n=3).frame()
    older = frame.drop(columns="weights_sha256")
    older.to_csv(tmp_path / "older.csv", index=False, lineterminator="\n", float_format="%.6g")
    text = (tmp_path / "older.csv").read_text().replace(",True,", ",true,").replace(",False,", ",false,")
    (tmp_path / "older.csv").write_text(text)
    assert format_leaderboard(read_leaderboard(tmp_path / "older.csv")) == format_leaderboard(frame)


def test_what_is_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("bytes.csv", "nothing.csv"):
        with pytest.raises(SepbenchError, match=name):
            read_leaderboard(tmp_path / name)


# -- merging


def test_merging_replaces_keeps_order_and_appends() -> None:
    old = SyntheticRun({"average": 14.0, "nmf": 16.0}, tasks=("class-split", "class-agnostic"), n=5).frame()
    new = SyntheticRun({"nmf": 20.0, "rpca": 12.0}, tasks=("class-split", "class-agnostic"), n=5, key=9).frame()
    merged = merge_leaderboards(old, new)
    methods = [(task, method) for task in old["task"].unique() for method in ("average", "nmf", "rpca")]
    assert list(dict.fromkeys(zip(merged["task"], merged["method"], strict=True))) == methods
    assert row(merged, "nmf")["mean"] == row(new, "nmf")["mean"]
    assert row(merged, "average")["mean"] == row(old, "average")["mean"]
    assert len(merged) == len(methods) * len(METRICS)


def test_merging_laws() -> None:
    a = SyntheticRun({"average": 14.0, "nmf": 16.0}, n=5).frame()
    b = SyntheticRun({"nmf": 20.0, "rpca": 12.0}, n=5, key=9).frame()
    pd.testing.assert_frame_equal(merge_leaderboards(a, a), a)
    pd.testing.assert_frame_equal(merge_leaderboards(a.iloc[:0], a), a)
    pd.testing.assert_frame_equal(merge_leaderboards(a, a.iloc[:0]), a)
    once = merge_leaderboards(a, b)
    pd.testing.assert_frame_equal(merge_leaderboards(once, b), once)


def test_a_new_metric_follows_its_method() -> None:
    old = SyntheticRun(n=5, metrics=("psnr",)).frame()
    merged = merge_leaderboards(old, SyntheticRun({"average": 14.0}, n=5, metrics=("ssim",)).frame())
    assert list(zip(merged["method"], merged["metric"], strict=True)) == [("average", "psnr"), ("average", "ssim"), ("nmf", "psnr")]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("suite_version", 2, "different suite_version: 1 and 2"), ("suite", "other", "different suite"), ("task_digest", "feed", "class-split has digest feed")],
)
def test_what_must_not_share_a_table(column: str, value: object, message: str) -> None:
    old = SyntheticRun(n=5).frame()
    with pytest.raises(SepbenchError, match=message):
        merge_leaderboards(old, old.assign(**{column: value}))


def test_a_method_that_lacks_a_source_everywhere_has_no_value() -> None:
    run = SyntheticRun()
    run.scores = run.scores[~(run.where("nmf", "psnr") & (run.scores["source"] == 1))]
    found = {row["method"]: row for row in run.frame().to_dict("records") if row["metric"] == "psnr"}
    assert (found["nmf"]["n_scored"], found["nmf"]["n_failed"], np.isnan(found["nmf"]["mean"])) == (0, 40, True)
    assert (found["average"]["n_scored"], found["average"]["n_failed"]) == (40, 0)
