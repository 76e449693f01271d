"""The one table of columns: files of any earlier version are read, and a new column is one entry of the table and nothing else."""

from __future__ import annotations

import csv
import io
import math
import runpy
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.report.table import render_leaderboard
from sepbench.results import columns
from sepbench.results.columns import COLUMNS, Column, Shown, column_names, key_names
from sepbench.results.gate import check_results
from sepbench.results.leaderboard_file import format_leaderboard, merge_leaderboards, read_leaderboard, write_leaderboard
from sepbench.results.publication import publish_run
from sepbench.results.target import Results, open_csv, open_run

COMMITTED = sorted(path for path in (Path(__file__).parents[2] / "leaderboards").glob("*.csv") if path.name != "published.csv")

# As sepbench 0.1.0 wrote it before the table of columns was made; kept for ever.
FIRST_HEAD = (
    "suite,suite_version,task,task_digest,method,method_version,weights_sha256,supervision,metric,unit,"
    "higher_is_better,mean,std,median,ci_low,ci_high,n_expected,n_scored,n_failed,samples,seconds_per_mixture,"
    "timing_group,peak_mb,device,budget,seed,published,published_source,sepbench_version,git_sha,command"
)
FIRST_ROW = (
    "mnist-pairs,1,class-split,d7daa8e867d1ed493e7eb4acfb702f505fd2cc9c40f0c27ff8603ee57b941fe6,average,1,,blind,"
    "psnr,dB,true,14.7603,1.13323,14.6602,14.7311,14.789,6000,6000,0,1,6.67646e-07,cpu:AMD EPYC:2threads:float32,"
    "410.579,cpu,paper,0,14.8,BASIS Table 2,0.1.0,919c8c55a87b405c1e8573b8ad4cf269193c01d6,"
    "sepbench run --suite mnist-pairs --device cpu --out runs/mnist-pairs"
)


def only_row(run: SyntheticRun, method: str = "nmf") -> dict[str, object]:
    frame = run.frame()
    return frame[(frame["method"] == method) & (frame["metric"] == "psnr")].to_dict("records")[0]  # type: ignore[return-value]


def test_names_are_unique_and_the_key_tells_rows_apart() -> None:
    assert len(set(column_names())) == len(COLUMNS)
    assert key_names() == ("suite", "task", "method", "metric")
    assert not set(columns.RETIRED) & set(column_names())
    assert all(column.word for column in COLUMNS if column.gate)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_a_default_is_of_its_columns_kind(column: Column) -> None:
    kinds = {"text": str, "integer": int, "number": float, "flag": bool}
    assert column.default is None or type(column.default) is kinds[column.kind]


def _differ_in_a_cell(frame: pd.DataFrame) -> set[str]:
    counts = frame.groupby(["suite", "task", "method"]).nunique(dropna=False)
    return set(counts.columns[(counts > 1).any()])


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_each_committed_cell_comes_from_one_run(path: Path) -> None:
    assert _differ_in_a_cell(read_leaderboard(path)) <= {column.name for column in COLUMNS if column.of_metric}


def test_what_belongs_to_a_metric() -> None:
    of_metric = {column.name for column in COLUMNS if column.of_metric}
    assert _differ_in_a_cell(SyntheticRun({"nmf": 16.0}, n=5).fail("nmf", 2).frame()) <= of_metric
    assert of_metric == {
        *("metric", "unit", "higher_is_better", "mean", "std", "median", "ci_low", "ci_high", "interval", "cluster", "n_clusters"),
        *("seeds", "std_seeds", "fits", "std_fits", "n_scored", "n_failed"),
    }


AGREE = {
    "suite_version": "suite version 1 in OLD, 8 in NEW",
    "task_digest": "task digest none in OLD, x in NEW",
    "supervision": "supervision blind in OLD, x in NEW",
    "unit": "unit dB in OLD, x in NEW",
    "higher_is_better": "direction True in OLD, False in NEW",
    "n_expected": "planned examples 5 in OLD, 12 in NEW; run NEW again with as many mixtures",
    "budget": "budget paper in OLD, x in NEW",
}
"""What makes rows that differ in one column not comparable."""
NOTED = {
    "method_version": "nmf: version 1 in OLD, x in NEW",
    "weights_sha256": "nmf: weights a in OLD, x in NEW",
    "estimates_sha256": "nmf: supplied estimates a in OLD, x in NEW",
    "samples": "nmf: samples 1 in OLD, 8 in NEW",
    "device": "nmf: device cpu in OLD, x in NEW",
}
"""What is told of rows that differ in one column."""


@pytest.mark.parametrize(
    "column", [column for column in COLUMNS if not column.key and column.name not in ("mean", "n_scored", "seed")], ids=lambda column: column.name
)
def test_what_another_value_of_a_column_means_for_a_check(column: Column) -> None:
    old = pd.DataFrame([only_row(SyntheticRun(n=5)) | {"weights_sha256": "a", "estimates_sha256": "a", "task_digest": ""}])
    there = old[column.name].iloc[0]
    other = {"text": "x", "integer": 7 + int(there) if column.kind == "integer" else 0, "number": 77.0, "flag": not there}[column.kind]
    report = check_results(Results("new", old.assign(**{column.name: other}), None), Results("old", old, None))
    assert ([row.reason for row in report.rows], list(report.notes)) == ([AGREE.get(column.name, "")], [NOTED[column.name]] if column.name in NOTED else [])
    assert report.exit_code == (2 if column.name in AGREE else 0)


MAY_BE_EMPTY = {
    *("task_digest", "method_version", "weights_sha256", "prior", "estimates_sha256", "supervision", "unit", "mean", "std", "median", "ci_low", "ci_high"),
    *("interval", "cluster", "std_seeds", "std_fits", "fit_seconds", "fit_timing_group", "seconds_per_mixture", "timing_group", "evaluations_per_mixture"),
    *("peak_mb", "device", "budget", "sepbench_version", "git_sha", "command"),
}


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
def test_what_a_field_of_a_file_may_hold(column: Column, tmp_path: Path) -> None:
    (row,) = csv.DictReader(io.StringIO(format_leaderboard(pd.DataFrame([only_row(SyntheticRun(n=3))]))))

    def read(text: str) -> object:
        with (tmp_path / "board.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, column_names())
            writer.writeheader()
            writer.writerow(row | {column.name: text})
        return read_leaderboard(tmp_path / "board.csv")[column.name].iloc[0]

    kind = {"text": "", "integer": "a whole number", "number": "a number", "flag": "true or false"}[column.kind]
    if kind:
        with pytest.raises(SepbenchError, match=rf"board\.csv, line 2: {column.name} must be {kind}, got 'much'$"):
            read("much")
    if column.name in MAY_BE_EMPTY:
        assert read("") == "" if column.kind == "text" else math.isnan(float(str(read(""))))
    else:
        with pytest.raises(SepbenchError, match=f"line 2: {column.name} (is empty|must be {kind}, got '')$"):
            read("")


HEADS = {
    "std_seeds": ("sd of seeds", False, "", ""),
    "std_fits": ("sd of fits", False, "", ""),
    "fit_seconds": ("s/fit", False, "fit_timing_group", "fit_cached"),
    "seconds_per_mixture": ("s/mixture", True, "timing_group", ""),
    "evaluations_per_mixture": ("evaluations", False, "", ""),
}


def test_tables_show_by_themselves_what_they_have_room_for() -> None:
    assert {c.name: (c.shown.head, c.shown.always, c.shown.timing_group, c.shown.flag) for c in COLUMNS if c.shown} == HEADS
    assert {c.name: c.one_per for c in COLUMNS if c.one_per} == {"suite": "file", "suite_version": "file", "task_digest": "task"}


# -- files of other versions


def test_the_first_header_with_a_real_row(tmp_path: Path) -> None:
    (tmp_path / "board.csv").write_text(f"{FIRST_HEAD}\n{FIRST_ROW}\n")
    (row,) = read_leaderboard(tmp_path / "board.csv").to_dict("records")
    assert tuple(row) == column_names()
    before = dict(zip(FIRST_HEAD.split(","), FIRST_ROW.split(","), strict=True))
    (after,) = csv.DictReader(io.StringIO(format_leaderboard(pd.DataFrame([row]))))
    assert {name: after[name] for name in before if name in after} == {name: text for name, text in before.items() if name not in columns.RETIRED}
    assert (after["fit_seconds"], after["fit_cached"], after["fit_timing_group"]) == ("", "false", "")


def test_the_order_of_the_columns_in_a_file_does_not_matter(tmp_path: Path) -> None:
    frame = SyntheticRun(n=3).frame()
    rows = list(csv.DictReader(io.StringIO(format_leaderboard(frame))))
    with (tmp_path / "board.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, sorted(column_names(), reverse=True))
        writer.writeheader()
        writer.writerows(rows)
    assert format_leaderboard(read_leaderboard(tmp_path / "board.csv")) == format_leaderboard(frame)


def test_a_file_of_a_later_version_says_upgrade(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as later:
        later.setattr(columns, "COLUMNS", (*COLUMNS, *ADDED))
        write_leaderboard(SyntheticRun(n=3).frame(), tmp_path / "later.csv")
    with pytest.raises(SepbenchError, match=r"later\.csv has columns that sepbench .* does not know \(energy_joules, colour\); upgrade sepbench"):
        read_leaderboard(tmp_path / "later.csv")


def test_the_script_that_rewrites_committed_files(tmp_path: Path) -> None:
    rewrite = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "rewrite_leaderboards.py"))["rewrite"]
    path = tmp_path / "board.csv"
    path.write_text(f"{FIRST_HEAD}\n{FIRST_ROW}\n")
    assert rewrite(path).endswith("dropped published, published_source")
    assert path.read_text().splitlines()[0] == ",".join(column_names())
    path.write_text(f"{FIRST_HEAD}\n{FIRST_ROW.replace(',14.7603,', ',14.76030,')}\n")  # not as sepbench writes it
    with pytest.raises(ValueError, match="values would change"):
        rewrite(path)


# -- a new column


ADDED = (
    Column("energy_joules", "number", "cell.energy_joules", default=math.nan, empty=True, gate="note", word="energy", shown=Shown("J")),
    Column("colour", "text", ("cell.colour", "run.device"), default="grey", gate="agree", word="colour"),
)


@pytest.fixture
def with_two_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is changed: this is the whole difference that a new column makes."""
    monkeypatch.setattr(columns, "COLUMNS", (*COLUMNS, *ADDED))


@pytest.mark.usefixtures("with_two_more")
@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=[pytest.mark.slow] * (path.stem == "cifar10-pairs")) for path in COMMITTED], ids=lambda path: path.stem
)
def test_committed_files_are_read_and_held_against_with_two_more_columns(path: Path) -> None:
    results = open_csv(path, path.stem)
    assert set(results.frame["colour"]) == {"grey"}
    assert results.frame["energy_joules"].isna().all()
    report = check_results(results, results)
    assert report.exit_code == 0
    assert report.count("holds") == len(results.frame)
    assert not report.notes


@pytest.mark.usefixtures("with_two_more")
def test_a_new_column_reaches_file_merge_gate_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = SyntheticRun(n=5)
    run.cells["class-split", "nmf"] |= {"colour": "red", "energy_joules": 42.0}
    assert (only_row(run)["colour"], only_row(run)["energy_joules"]) == ("red", 42.0)
    assert only_row(run, "average")["colour"] == "cpu"
    publish_run(run.save(tmp_path / "run"), tmp_path)
    again = read_leaderboard(tmp_path / "digits-pairs.csv")
    assert set(again.loc[again["method"] == "nmf", "colour"]) == {"red"}
    assert list(merge_leaderboards(again, again)["colour"]) == list(again["colour"])
    render_leaderboard(again, None, Console(width=150))
    head, *lines = (line for line in capsys.readouterr().out.splitlines() if "s/mixture" in line or " nmf " in line)
    assert head.split()[-2:] == ["J", "n"]
    assert lines[0].split()[-2:] == ["42", "5"]
    other = SyntheticRun(n=5)
    other.cells["class-split", "nmf"] |= {"colour": "red", "energy_joules": 50.0}
    report = check_results(Results("new", other.frame(), None), Results("old", again, None))
    assert (report.exit_code, list(report.notes)) == (0, ["nmf: energy 42.0 in OLD, 50.0 in NEW"])
    other.cells["class-split", "nmf"]["colour"] = "blue"
    report = check_results(Results("new", other.frame(), None), Results("old", again, None))
    assert {row.reason for row in report.rows if row.reason} == {"colour red in OLD, blue in NEW"}


# -- where values come from


def test_the_fit_is_told_as_the_cell_tells_it() -> None:
    run = SyntheticRun(n=4)
    run.cells["class-split", "nmf"] |= {"fit_seconds": 3600.0, "fit_cached": True, "fit_timing_group": "cuda:H100:float32", "supervision": "sources"}
    row = only_row(run)
    assert (row["fit_seconds"], row["fit_cached"], row["fit_timing_group"]) == (3600.0, True, "cuda:H100:float32")
    run.cells["class-split", "nmf"]["fit_seconds"] = None
    del run.cells["class-split", "nmf"]["fit_cached"], run.cells["class-split", "nmf"]["fit_timing_group"]
    row = only_row(run)
    assert math.isnan(row["fit_seconds"])  # type: ignore[arg-type]
    assert (row["fit_cached"], row["fit_timing_group"]) == (False, "")


@pytest.mark.parametrize("supervision", ["blind", "bound"])
def test_methods_that_learn_nothing_have_no_seconds_of_a_fit(supervision: str) -> None:
    run = SyntheticRun(n=4)
    run.cells["class-split", "nmf"] |= {"fit_seconds": 2e-6, "supervision": supervision}
    assert math.isnan(only_row(run)["fit_seconds"])  # type: ignore[arg-type]


def test_workers_have_timing_groups_of_their_own() -> None:
    run = SyntheticRun(n=4)
    run.record["methods"]["nmf"]["settings"] = {"precision": "bfloat16"}
    for workers, group in ((1, "cpu:Test CPU:2threads:bfloat16"), (4, "cpu:Test CPU:2threads:bfloat16:4workers")):
        run.cells["class-split", "nmf"]["workers"] = workers
        assert only_row(run)["timing_group"] == group
    assert only_row(run, "average")["timing_group"] == "cpu:Test CPU:2threads:float32"


def test_what_the_cell_says_goes_before_what_the_run_says() -> None:
    run = SyntheticRun(n=4)
    run.record["environment"]["git_dirty"] = True
    assert (only_row(run)["command"], only_row(run)["git_sha"]) == (run.record["command"], "0123abc-dirty")
    run.record["tasks"]["class-split"]["n_planned"] = 9  # the run has grown since
    run.cells["class-split", "nmf"] |= {"command": "sepbench run --out 'a b'", "git_sha": "feed", "n_planned": 4}
    row = only_row(run)
    assert (row["command"], row["git_sha"], row["n_expected"], row["n_scored"]) == ("sepbench run --out 'a b'", "feed", 4, 4)
    assert only_row(run, "average")["n_expected"] == 9


def test_a_method_with_fewer_sources_than_the_others_has_no_values() -> None:
    run = SyntheticRun(n=6)
    run.scores = run.scores[~(run.where("nmf", "psnr") & (run.scores["source"] == 1))]
    row = only_row(run)
    assert math.isnan(row["mean"])  # type: ignore[arg-type]
    assert (row["n_scored"], row["n_failed"]) == (0, 6)
    assert only_row(run, "average")["n_scored"] == 6


def test_rows_without_statistics_need_no_scores(tmp_path: Path) -> None:
    run = SyntheticRun(n=4)
    name = run.save(tmp_path / "run")
    damaged = list((tmp_path / "run" / "scores").rglob("*.parquet"))
    assert len(damaged) == 2
    for path in damaged:
        path.write_bytes(b"damaged")
    outlined, whole = open_run(Path(name), name, statistics=False).frame, run.frame()
    shared = ["task", "task_digest", "method", "metric", "unit", "higher_is_better", "n_expected", "command"]
    pd.testing.assert_frame_equal(outlined[shared], whole[shared])
    assert outlined["mean"].isna().all()
