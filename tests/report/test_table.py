"""What the tables say: ranks, marks, papers beside and below, footnotes; readable at 80 columns."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from synthetic_run import SyntheticRun

from sepbench.report.footnotes import machine_words
from sepbench.report.numbers import number_format, size_text
from sepbench.report.rows import TaskTable, task_tables
from sepbench.report.table import markdown_leaderboard, render_gate, render_leaderboard
from sepbench.results.gate import check_results
from sepbench.results.leaderboard_file import write_leaderboard
from sepbench.results.ranking import Evidence
from sepbench.results.statistics import MIN_CLUSTERS, TaskDesigns
from sepbench.results.target import Results, open_csv
from sepbench.results.values import MetricValues
from sepbench.suites.model import Suite

METHODS = {"average": 14.0, "nmf": 16.0, "ica": 13.0, "ideal-mask": 25.0}


def bounds(run: SyntheticRun) -> dict[str, str]:
    return {name: entry["bound"] for name, entry in run.record["methods"].items()}


def table(run: SyntheticRun, **options: object) -> TaskTable:
    (only,) = task_tables(run.frame(), run.suite, cells=run.cell_records(), bounds=bounds(run), **options)  # type: ignore[arg-type]
    return only


def drawn(frame: pd.DataFrame, suite: Suite | None, width: int, **options: object) -> str:
    out = io.StringIO()
    render_leaderboard(frame, suite, Console(file=out, width=width), **options)  # type: ignore[arg-type]
    return out.getvalue()


def ranks(shown: TaskTable) -> list[tuple[str, str]]:
    return [(line.method, line.rank) for line in shown.lines if not line.from_paper]


def test_best_first_and_bounds_without_a_rank() -> None:
    assert ranks(table(SyntheticRun(METHODS, n=10))) == [("ideal-mask", "bound"), ("nmf", "1"), ("average", "bound"), ("ica", "2")]


def test_the_registry_knows_the_bounds_of_a_bare_csv() -> None:
    run = SyntheticRun({"nmf": 14.0, "nobody-has-this": 12.0}, n=12)
    frame = run.frame()
    frame.loc[frame["method"] == "nobody-has-this", "supervision"] = "bound"
    (shown,) = task_tables(frame, None)
    assert ranks(shown) == [("nmf", "1"), ("nobody-has-this", "bound")]


def test_incomplete_rows_are_last_marked_and_explained() -> None:
    run = SyntheticRun({"nmf": 16.0, "ica": 20.0, "rpca": 30.0}, n=12).fail("ica", 2, "ValueError: singular")
    for example in range(12):
        run.fail("rpca", example, "MemoryError: too much")
    run.cells["class-split", "rpca"]["state"] = "failed"
    shown = table(run)
    assert ranks(shown) == [("nmf", "1"), ("ica", "part"), ("rpca", "failed")]
    assert [line.n for line in shown.lines] == ["12", "11/12", "0/12"]
    assert "ica: 11 of 12 mixtures scored, 1 failed (ValueError: singular)" in shown.footnotes
    assert "rpca: 0 of 12 mixtures scored, 12 failed (MemoryError: too much)" in shown.footnotes


def test_unfinished_rows_say_what_was_not_reached() -> None:
    run = SyntheticRun({"nmf": 16.0}, n=6)
    run.scores = run.scores[run.scores["example"] < 4]
    assert "nmf: 4 of 6 mixtures scored, 2 not reached" in table(run).footnotes


def test_equal_values_share_a_rank() -> None:
    run = SyntheticRun({"nmf": 16.0, "ica": 0.0, "rpca": 0.0}, n=12)
    run.scores.loc[run.where("ica"), "value"] = 9.0
    run.scores.loc[run.where("rpca"), "value"] = 9.0
    run.shift("nmf", "psnr", -10.0)
    assert ranks(table(run)) == [("ica", "1"), ("rpca", "1"), ("nmf", "3")]


def test_where_lower_is_better_the_lowest_is_first() -> None:
    run = SyntheticRun({"nmf": 16.0, "ica": 13.0}, n=20)
    shown = table(run, metrics=["mixture_error"])
    assert shown.value_head == "mixture_error"
    assert "lower is better" in shown.subtitle
    assert ranks(shown) == [("nmf", "1"), ("ica", "2")]
    assert not shown.other_heads


def test_unsupported_methods_and_caveats_are_notes() -> None:
    run = SyntheticRun({"nmf": 16.0, "ica": 13.0}, n=12)
    run.scores = run.scores[~run.where("ica")]
    run.cells["class-split", "ica"] = {"state": "unsupported", "note": "needs two channels"}
    run.cells["class-split", "nmf"]["note"] = "atoms are clustered"
    shown = table(run)
    assert ranks(shown) == [("nmf", "1")]
    assert "not on class-split: ica (needs two channels)" in shown.footnotes
    assert "nmf: atoms are clustered" in shown.footnotes


def test_too_few_clusters_are_not_ranked() -> None:
    shown = table(SyntheticRun({"nmf": 16.0, "ica": 13.0}, n=MIN_CLUSTERS - 1))
    assert ranks(shown) == [("nmf", "few"), ("ica", "few")]
    assert f"few: not ranked below {MIN_CLUSTERS} images" in shown.footnotes


@pytest.mark.parametrize("name", ["isr", "sir", "sar"])
def test_by_a_metric_that_must_not_rank_nobody_is_ranked_and_a_note_says_why(name: str) -> None:
    run = SyntheticRun({"nmf": 16.0, "ica": 13.0, "ideal-mask": 25.0}, n=20, metrics=("psnr",))
    run.scores["metric"], run.record["metrics"] = name, [name]
    (shown,) = task_tables(run.frame(), run.suite, evidence=Evidence(run.values(), TaskDesigns(lambda task: None)))
    assert ranks(shown) == [("ideal-mask", "bound"), ("nmf", "never"), ("ica", "never")]
    assert shown.subtitle.startswith(f"first 20 of 1,000 mixtures, not ranked, sorted by {name} (dB, higher is better)")
    why = f"never: {name} does not rank, its windows move by tens of dB with the samples' last bit; rank by 'sdr'"
    assert [note for note in shown.footnotes if note.startswith(("never", "="))] == [why]


def test_methods_that_the_best_does_not_beat_are_marked_where_scores_say_it() -> None:
    run = SyntheticRun({"nmf": 16.0, "ica": 15.99, "rpca": 13.0}, n=60)
    designs = TaskDesigns(lambda task: run.suite.tasks[task].clusters())
    (shown,) = task_tables(run.frame(), run.suite, evidence=Evidence(run.values(), designs))
    assert sorted(ranks(shown)[:2]) in ([("ica", "1"), ("nmf", "2=")], [("ica", "2="), ("nmf", "1")])
    assert ranks(shown)[2] == ("rpca", "3")
    assert any(note.startswith("=: the best method does not beat it") for note in shown.footnotes)
    assert any(note.startswith("intervals: cluster t over ") and note.endswith(" images") for note in shown.footnotes)
    assert "=" not in "".join(rank for _, rank in ranks(table(run)))


def test_of_methods_without_values_no_equality_is_claimed() -> None:
    run = SyntheticRun({"nmf": 16.0, "ica": 15.99, "rpca": 15.98}, n=60)
    frame, designs = run.frame(), TaskDesigns(lambda task: None)
    best, *_ = ranks(next(iter(task_tables(frame, run.suite))))
    run.scores = run.scores[~run.where(best[0])]
    (shown,) = task_tables(frame, run.suite, evidence=Evidence(run.values(), designs))
    assert "=" not in "".join(rank for _, rank in ranks(shown))


def test_rows_of_fewer_mixtures_carry_a_mark() -> None:
    long, short = SyntheticRun({"nmf": 16.0}, n=80).frame(), SyntheticRun({"ica": 13.0}, n=50).frame()
    (shown,) = task_tables(pd.concat([long, short]), SyntheticRun(n=1).suite)
    assert ranks(shown) == [("nmf", "1"), ("ica", "2+")]
    assert "+: ranked on fewer mixtures than others" in shown.footnotes


def test_first_n_of_m() -> None:
    assert table(SyntheticRun({"nmf": 16.0}, n=7)).subtitle.startswith("first 7 of 1,000 mixtures, ranked by psnr (dB, higher is better)")
    long, short = SyntheticRun({"nmf": 16.0}, n=8).frame(), SyntheticRun({"ica": 13.0}, n=5).frame()
    (shown,) = task_tables(pd.concat([long, short]), SyntheticRun(n=1).suite)
    assert shown.subtitle.startswith("up to 8 of 1,000 mixtures")
    assert "ica: first 5 of 1,000 mixtures" in shown.footnotes


def test_papers_beside_and_below() -> None:
    run = SyntheticRun({"average": 14.8, "nmf": 16.0}, n=5, suite="mnist-pairs")
    shown = table(run)
    lines = {line.method: line for line in shown.lines}
    assert lines["average"].published == "14.8 BASIS Table 2"
    assert lines["nmf"].published == ""
    papers = [line for line in shown.lines if line.from_paper]
    assert shown.lines[-len(papers) :] == tuple(papers)
    assert (papers[0].method, papers[0].published) == ("BASIS (NCSN)", "29.5 BASIS Table 2")
    assert "Average" not in [line.method for line in papers]


def test_papers_of_other_metrics_name_them_and_share_footnotes() -> None:
    run = SyntheticRun({"nmf": 16.0}, n=5, suite="mnist-pairs", tasks=("class-agnostic",), metrics=("psnr", "ssim"))
    assert not [line for line in table(run).lines if "psnr_sum_mse" in line.published]  # no such column, no such number
    wide = SyntheticRun({"nmf": 16.0}, n=5, suite="mnist-pairs", tasks=("class-agnostic",), metrics=("psnr",))
    wide.scores = pd.concat([wide.scores, wide.scores.assign(metric="psnr_sum_mse")])
    shown = table(wide)
    texts = [line.published for line in shown.lines if "psnr_sum_mse" in line.published]
    assert any(re.fullmatch(r"psnr_sum_mse 18\.5 S-D Table 2 \([\d,]+\)", text) for text in texts), texts
    numbered = [note for note in shown.footnotes if note.startswith("(")]
    assert len(numbered) == len(set(numbered))
    used = {number for line in shown.lines for mark in re.findall(r"\(([\d,]+)\)", line.published) for number in mark.split(",")}
    assert used == {note[1 : note.index(")")] for note in numbered}


def test_published_fids_stand_below_under_the_name_of_their_extractor() -> None:
    run = SyntheticRun({"average": 15.0}, n=5, suite="cifar10-pairs", tasks=("class-split",), metrics=("psnr",))
    run.scores = pd.concat([run.scores, run.scores.assign(metric="fid_cifarnet")])
    shown = table(run)
    texts = [line.published for line in shown.lines if line.from_paper]
    assert any("fid_inception" in text and "BASIS Table 3" in text for text in texts), texts
    (own,) = [line for line in shown.lines if not line.from_paper]
    assert own.published == ""  # a FID of another extractor has no published number beside it
    assert not [line for line in table(run, metrics=["psnr"]).lines if line.from_paper]


def test_seconds_of_other_machines_carry_a_letter() -> None:
    frame = SyntheticRun({"nmf": 16.0, "ica": 13.0}, n=5).frame()
    (alike,) = task_tables(frame, None)
    assert [line.extras[-1] for line in alike.lines] == ["0.25", "0.25"]
    assert "seconds on cpu, Test CPU, 2 threads, float32" in alike.footnotes
    frame.loc[frame["method"] == "ica", "timing_group"] = "cuda:H200:float32"
    (mixed,) = task_tables(frame, None)
    assert {line.method: line.extras[-1] for line in mixed.lines} == {"nmf": "0.25 a", "ica": "0.25 b"}
    assert "b: seconds on cuda, H200, float32; compare only with the same letter" in mixed.footnotes


def test_seconds_of_the_fit_are_those_of_the_machine_that_fitted() -> None:
    run = SyntheticRun({"nmf": 16.0, "ica": 13.0, "rpca": 12.0}, n=5)
    for cell in run.cells.values():
        cell["supervision"] = "sources"
    run.cells["class-split", "nmf"] |= {"fit_seconds": 3600.0, "fit_cached": True, "fit_timing_group": "cuda:H100:float32"}
    run.cells["class-split", "rpca"] |= {"fit_seconds": None}
    shown = table(run)
    assert shown.extra_heads == ("s/fit", "s/mixture")
    here, there = ("a", "b") if "a: seconds on cpu, Test CPU, 2 threads, float32; compare only with the same letter" in shown.footnotes else ("b", "a")
    assert f"{there}: seconds on cuda, H100, float32; compare only with the same letter" in shown.footnotes
    extras = {line.method: line.extras for line in shown.lines}
    assert extras == {"nmf": (f"3,600* {there}", f"0.25 {here}"), "ica": (f"0.5 {here}", f"0.25 {here}"), "rpca": ("", f"0.25 {here}")}
    explained = "* s/fit: not fitted again but loaded from the cache; the seconds are those of the fit"
    assert [note for note in shown.footnotes if note.startswith("*")] == [explained]
    assert not [note for note in table(SyntheticRun(n=2)).footnotes if note.startswith("*")]


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ("cpu:AMD EPYC:1threads:float32", "cpu, AMD EPYC, 1 thread, float32"),
        ("cpu:AMD EPYC:12threads shared:float32:2workers", "cpu, AMD EPYC, 12 threads shared, float32, 2 workers"),
        ("cuda:H100:bf16", "cuda, H100, bf16"),
        ("mixed", "several machines"),
    ],
)
def test_timing_groups_in_words(group: str, words: str) -> None:
    assert machine_words(group) == words


def test_where_nobody_says_how_long_fitting_took_there_is_no_column() -> None:
    run = SyntheticRun({"nmf": 16.0}, n=5)
    run.cells["class-split", "nmf"]["fit_seconds"] = None
    assert table(run).extra_heads == ("s/mixture",)


def test_papers_stand_beside_rows_of_any_file(tmp_path: Path) -> None:
    """Their numbers come from the suite; a file of an earlier version may say something else and is not asked."""
    frame = SyntheticRun({"average": 14.8}, n=3, suite="mnist-pairs").frame()
    write_leaderboard(frame, tmp_path / "board.csv")
    head, *rows = (tmp_path / "board.csv").read_text().splitlines()
    (tmp_path / "older.csv").write_text("\n".join([f"{head},published,published_source", *(f"{row},99,Hearsay" for row in rows)]) + "\n")
    for name in ("board.csv", "older.csv"):
        results = open_csv(tmp_path / name, name)
        (shown,) = task_tables(results.frame, results.suite)
        assert shown.lines[0].published == "14.8 BASIS Table 2"
        assert not [line for line in shown.lines[1:] if "14.8 BASIS" in line.published]


def test_priors_stand_below_the_table_with_the_rows_that_share_them() -> None:
    run = SyntheticRun({"nmf": 16.0, "ica": 14.0, "rpca": 13.0}, n=5)
    assert not [note for note in table(run).footnotes if note.startswith("prior")]
    for method in ("nmf", "ica"):
        run.cells["class-split", method]["prior"] = "EDM U-Net, 2.1 M, 770f3f6b"
    assert [note for note in table(run).footnotes if note.startswith("prior")] == ["prior EDM U-Net, 2.1 M, 770f3f6b: nmf, ica"]


def test_quick_budgets_are_stated() -> None:
    frame = SyntheticRun({"nmf": 16.0, "ica": 13.0}, n=5).frame()
    (shown,) = task_tables(frame.assign(budget="quick"), None)
    assert "quick budget" in shown.subtitle
    frame.loc[frame["method"] == "ica", "budget"] = "quick"
    (shown,) = task_tables(frame, None)
    assert "ica: quick budget" in shown.footnotes


@pytest.mark.parametrize("width", [80, 88, 96, 100, 104, 108, 112, 120, 136, 150, 200])
def test_readable_at_any_width(width: int) -> None:
    run = SyntheticRun(METHODS, n=10, suite="mnist-pairs").fail("ica", 1)
    run.scores = pd.concat([run.scores, *(run.scores[run.scores["metric"] == "psnr"].assign(metric=name) for name in ("psnr_unclamped", "psnr_pad32"))])
    text = drawn(run.frame(), run.suite, width, cells=run.cell_records(), bounds=bounds(run))
    assert max(map(len, text.splitlines())) <= width
    frame = run.frame()
    for record in frame.to_dict("records"):
        write = number_format(record["unit"], abs(record["mean"]))
        shown = f"{write(record['mean'])} [{write(record['ci_low'])}, {write(record['ci_high'])}]" if record["metric"] == "psnr" else write(record["mean"])
        assert shown in text  # whole, not cut and not folded
    for method in METHODS:
        assert re.search(rf"^.*\b{method}\b", text, re.M)
    assert "29.5 BASIS Table 2" in text
    assert "…" not in text


@pytest.mark.parametrize("width", range(80, 125, 4))
def test_no_column_is_cut_between_one_table_and_two(width: int) -> None:
    """Intervals hold spaces, so their longest word says too little of the width a table needs."""
    run = SyntheticRun(METHODS, n=1000, suite="digits-pairs")
    run.scores = pd.concat([run.scores, *(run.scores[run.scores["metric"] == "psnr"].assign(metric=name) for name in ("psnr_unclamped", "psnr_sum_mse"))])
    text = drawn(run.frame(), run.suite, width, cells=run.cell_records(), bounds=bounds(run))
    heads = [line for line in text.splitlines() if "s/mixture" in line]
    assert len(heads) == 1
    assert heads[0].split()[-2:] == ["s/mixture", "n"]
    assert len([line for line in text.splitlines() if line.rstrip().endswith(" 1,000")]) == len(METHODS)


def test_ascii_terminals_get_ascii_rules() -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), width=80)
    run = SyntheticRun(METHODS, n=5, suite="mnist-pairs")
    render_leaderboard(run.frame(), run.suite, console)
    console.file.flush()
    assert b"BASIS (NCSN)" in raw.getvalue()


def test_markdown_is_a_table_with_equal_cells() -> None:
    run = SyntheticRun(METHODS, n=5, suite="mnist-pairs", tasks=("class-split", "class-agnostic"))
    text = markdown_leaderboard(run.frame(), run.suite, bounds=bounds(run))
    assert text.count("### mnist-pairs version 1: ") == 2
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {rows[0].count("|")}
    assert any("BASIS (NCSN)" in line for line in rows)


def test_sizes_of_what_is_there_are_never_zero() -> None:
    sizes = (0, 1, 1_499, 23_000, 999_499, 999_500, 18_600_000)
    assert [size_text(size) for size in sizes] == ["0 kB", "1 kB", "1 kB", "23 kB", "999 kB", "1.0 MB", "18.6 MB"]


def test_number_formats() -> None:
    assert number_format("dB", 16.0)(16.024) == "16.02"
    assert number_format("dB", 0.004)(0.004) == "0.0040"
    assert number_format("1", 0.65)(0.6543) == "0.654"
    assert number_format("1", 0.0021)(0.0021) == "0.00210"
    assert number_format("1", 3e-8)(3.14e-8) == "3.1e-08"
    assert number_format("1", 0.0)(0.0) == "0"
    assert number_format("dB", 16.0)(0.0) == "0"
    assert number_format("dB", 16.0)(0.001) == "0.00"


def test_rows_without_an_interval() -> None:
    frame = SyntheticRun({"nmf": 16.0}, n=1).frame()
    assert np.isnan(frame["ci_low"]).all()
    (shown,) = task_tables(frame, None)
    assert re.fullmatch(r"\d+\.\d\d", shown.lines[0].value)


@pytest.mark.parametrize("width", [80, 120])
def test_a_gate_report_is_whole_at_any_width(width: int) -> None:
    old, new = SyntheticRun(METHODS, n=10), SyntheticRun(METHODS, n=10).shift("nmf", "psnr", -1.0).drop_method("ica")
    report = check_results(*(Results(name, run.frame(), run.suite, run.values()) for name, run in (("new", new), ("old", old))))
    out = io.StringIO()
    render_gate(report, "new", "old", Console(file=out, width=width))
    *table, verdict = out.getvalue().splitlines()
    assert max(map(len, table)) <= width
    words = " ".join(" ".join(table).split())
    assert "regression class-split, nmf, psnr" in words
    assert "-1.00 [-1.00," in words
    assert "class-split, ica, psnr, ssim, mixture_error" in words.replace("missing in NEW ", "")
    assert verdict == "not comparable: new against old: 8 figures hold, 1 regressed, 3 not comparable (by paired test)"


def test_the_head_breaks_between_phrases() -> None:
    run = SyntheticRun({"nmf": 16.0}, n=20)
    head = drawn(run.frame(), run.suite, 80).splitlines()[1:3]
    assert head[1] == "in brackets its 95 % interval"
    assert head[0].endswith("(dB, higher is better),")
    assert "in brackets its 95 % interval" in drawn(run.frame(), run.suite, 120).splitlines()[1]


def test_values_at_the_cap_are_counted() -> None:
    run = SyntheticRun({"nmf": 16.0, "ica": 13.0, "ideal-mask": 25.0}, n=20)
    evidence = Evidence(_Capped({"nmf": 3, "ideal-mask": 20}), TaskDesigns(lambda task: None))  # type: ignore[arg-type]
    notes = [line for line in drawn(run.frame(), run.suite, 120, bounds=bounds(run), evidence=evidence).splitlines() if "cap" in line]
    assert notes == ["nmf: 3 of 20 values are at the cap of 100 dB"]


class _Capped:
    """Values of which some stand at PSNR's cap; the others decide nothing."""

    def __init__(self, counts: dict[str, int]) -> None:
        self.counts = counts

    def of(self, task: str, method: str, metric: str) -> MetricValues:
        rest = np.random.default_rng(0).normal(15.0, 1.0, 20)
        rest[: self.counts.get(method, 0)] = 100.0
        return MetricValues(np.arange(20), rest)
