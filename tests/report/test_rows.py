"""Tables before they are drawn: every mark, word and order, of rows that are edited one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_run import SyntheticRun

from sepbench.report.rows import PageMarks, RowSelection, TaskLayout, TaskTable, _letters, task_tables
from sepbench.results.ranking import AgainstBest, Evidence
from sepbench.results.statistics import MIN_CLUSTERS, TaskDesigns
from sepbench.results.values import NO_VALUES, MetricValues, Values
from sepbench.suites.model import Suite
from sepbench.suites.published import PublishedRow

BOUNDS = {"average": "lower"}
MEANS = {"nmf": 16.0, "average": 14.0, "ica": 13.0, "rpca": 12.0}


@pytest.fixture(scope="module")
def made() -> tuple[pd.DataFrame, Suite]:
    """Four methods with round means of three metrics; their suite has 1,000 mixtures and no papers."""
    run = SyntheticRun(MEANS, n=12)
    frame = run.frame()
    for name, mean in MEANS.items():
        rows = (frame["method"] == name) & (frame["metric"] == "psnr")
        frame.loc[rows, ["mean", "ci_low", "ci_high"]] = (mean, mean - 0.5, mean + 0.25)
    return frame, replace(run.suite, published=[])


def edited(frame: pd.DataFrame, changes: Mapping[str, Mapping[str, Any]], metric: str = "") -> pd.DataFrame:
    """Columns of some methods' rows set to other values."""
    frame = frame.astype(object)
    for method, values in changes.items():
        rows = (frame["method"] == method) & ((frame["metric"] == metric) | (metric == ""))
        for column, value in values.items():
            frame.loc[rows, column] = value
    return frame


def one(frame: pd.DataFrame, suite: Suite | None, **options: Any) -> TaskTable:
    (table,) = task_tables(frame, suite, **({"bounds": BOUNDS} | options))
    return table


def ranks(table: TaskTable) -> dict[str, str]:
    return {line.method: line.rank for line in table.lines}


def test_the_best_method_too_may_be_ranked_on_fewer_mixtures(made: tuple[pd.DataFrame, Suite]) -> None:
    frame, suite = made
    counts = {"nmf": 800, "ica": 1000}
    changes = {method: dict.fromkeys(("n_expected", "n_scored", "n_clusters"), count) for method, count in counts.items()}
    table = one(edited(frame[frame["method"].isin(list(counts))], changes), suite)
    assert ranks(table) == {"nmf": "1+", "ica": "2"}
    assert "+: ranked on fewer mixtures than others" in table.footnotes
    assert "nmf: first 800 of 1,000 mixtures" in table.footnotes
    alone = one(edited(frame[frame["method"].isin(list(counts))], changes), None)
    assert alone.subtitle.startswith("up to 1,000 of 1,000 mixtures, ")


@pytest.mark.parametrize(
    ("counts", "size", "remarks"),
    [
        ((1000, 1000), "1,000 mixtures", []),
        ((1000, 800), "up to 1,000 of 1,000 mixtures", ["ica: first 800 of 1,000 mixtures"]),
        ((800, 800), "first 800 of 1,000 mixtures", []),
        ((900, 800), "up to 900 of 1,000 mixtures", ["nmf: first 900 of 1,000 mixtures", "ica: first 800 of 1,000 mixtures"]),
    ],
)
def test_how_many_mixtures_the_rows_are_of(made: tuple[pd.DataFrame, Suite], counts: tuple[int, int], size: str, remarks: list[str]) -> None:
    frame, suite = made
    frame = frame[frame["method"].isin(["nmf", "ica"])]
    changes = {method: dict.fromkeys(("n_expected", "n_scored", "n_clusters"), count) for method, count in zip(("nmf", "ica"), counts, strict=True)}
    table = one(edited(frame, changes), suite)
    assert table.subtitle == f"{size}, ranked by psnr (dB, higher is better), in brackets its 95 % interval"
    assert [note for note in table.footnotes if "first" in note] == remarks
    assert ranks(table) == {"nmf": "1", "ica": "2+" if counts[1] < counts[0] else "2"}
    assert ("+: ranked on fewer mixtures than others" in table.footnotes) == (counts[1] < counts[0])
    alone = one(edited(frame, changes), None)  # nobody says how many there are: the longest row has them all
    most = f"{counts[0]:,}"
    assert alone.subtitle.startswith(f"{most} mixtures, " if counts[0] == counts[1] else f"up to {most} of {most} mixtures, ")
    other = one(edited(frame, changes).assign(task="not-of-the-suite"), suite)
    assert other.subtitle == alone.subtitle


def test_the_head_says_what_all_rows_share_and_only_that(made: tuple[pd.DataFrame, Suite]) -> None:
    frame, suite = made
    usual = "first 12 of 1,000 mixtures, ranked by psnr (dB, higher is better), in brackets its 95 % interval"
    table = one(frame, suite)
    assert (table.task, table.title, table.subtitle) == ("class-split", "digits-pairs version 1: class-split", usual)
    assert (table.value_head, table.other_heads, table.extra_heads) == ("psnr", ("ssim", "mixture_error"), ("s/mixture",))
    some = one(edited(frame, {"ica": {"budget": "quick"}, "rpca": {"budget": "quick"}}), suite)
    assert some.subtitle == usual
    assert "ica, rpca: quick budget" in some.footnotes
    every = one(frame.assign(budget="quick"), suite)
    assert every.subtitle == f"{usual}, quick budget"
    assert not [note for note in every.footnotes if "quick" in note]
    assert one(frame.assign(task_digest="not-frozen-ab"), suite).subtitle == f"{usual}, list of mixtures not frozen"
    assert one(frame, suite, selection=RowSelection(("ica", "nmf"))).subtitle == f"{usual}; 2 of 4 methods shown"
    low = one(frame, suite, metrics=["mixture_error"])
    assert low.subtitle == "first 12 of 1,000 mixtures, ranked by mixture_error (lower is better), in brackets its 95 % interval"


def test_which_metric_ranks(made: tuple[pd.DataFrame, Suite]) -> None:
    frame, suite = made

    def heads(table: TaskTable) -> list[str]:
        return [table.value_head, *table.other_heads]

    assert heads(one(frame, replace(suite, ranking_metric="ssim"))) == ["ssim", "psnr", "mixture_error"]
    assert heads(one(frame, None)) == ["psnr", "ssim", "mixture_error"]
    assert heads(one(frame, suite, metrics=["mixture_error", "psnr"])) == ["mixture_error", "psnr"]
    assert heads(one(frame, suite, metrics=["nothing", "ssim"])) == ["ssim"]
    assert heads(one(frame, suite, metrics=["nothing"])) == ["psnr", "ssim", "mixture_error"]
    assert heads(one(frame[frame["metric"] != "psnr"], suite)) == ["ssim", "mixture_error"]
    assert "ranked by ssim (higher is better)" in one(frame[frame["metric"] != "psnr"], suite).subtitle


def test_who_is_a_bound(made: tuple[pd.DataFrame, Suite]) -> None:
    frame, suite = made
    (told,) = task_tables(frame, suite)  # the registry knows
    assert ranks(told) == {"nmf": "1", "average": "bound", "ica": "2", "rpca": "3"}
    assert ranks(one(frame, suite, bounds={})) == {"nmf": "1", "average": "2", "ica": "3", "rpca": "4"}  # somebody said that there are none
    assert ranks(one(frame, suite, bounds={"ica": "upper", "average": ""})) == {"nmf": "1", "average": "2", "ica": "bound", "rpca": "3"}
    assert ranks(one(edited(frame, {"rpca": {"supervision": "bound"}}), suite, bounds={}))["rpca"] == "bound"


@pytest.mark.parametrize(
    ("change", "mark"),
    [
        ({"n_clusters": MIN_CLUSTERS}, "1"),
        ({"n_clusters": MIN_CLUSTERS - 1}, "few"),
        ({"n_clusters": 1}, "few"),
        ({"n_clusters": 0}, "1"),  # of a file that does not say
        ({"n_scored": 11}, "part"),
        ({"n_scored": 0}, "failed"),
        ({"mean": math.nan}, "failed"),
        ({"mean": math.inf}, "failed"),
        ({"n_scored": 11, "supervision": "bound"}, "part"),
        ({"n_clusters": 3, "supervision": "bound"}, "bound"),
    ],
)
def test_why_a_row_has_no_rank(made: tuple[pd.DataFrame, Suite], change: dict[str, Any], mark: str) -> None:
    frame, suite = made
    table = one(edited(frame, {"nmf": change}), suite)
    assert ranks(table)["nmf"] == mark
    assert ranks(table)["ica"] == ("2" if mark == "1" else "1")
    last = mark in ("part", "failed")
    assert list(ranks(table)) == (["average", "ica", "rpca", "nmf"] if last else list(MEANS))
    assert [note for note in table.footnotes if note.startswith("few")] == ["few: not ranked below 10 images"] * (mark == "few")


def test_failed_rows_are_below_partial_ones_and_both_below_all_others(made: tuple[pd.DataFrame, Suite]) -> None:
    frame, suite = made
    table = one(edited(frame, {"nmf": {"n_scored": 0}, "ica": {"n_scored": 3}, "average": {"n_scored": 5}}), suite)
    assert list(ranks(table).items()) == [("rpca", "1"), ("average", "part"), ("ica", "part"), ("nmf", "failed")]
    assert [line.n for line in table.lines] == ["12", "5/12", "3/12", "0/12"]


def test_a_method_without_the_ranking_metric_has_failed_and_shows_what_it_has(made: tuple[pd.DataFrame, Suite]) -> None:
    frame, suite = made
    frame = frame[~((frame["method"] == "ica") & (frame["metric"] == "psnr"))]
    line = one(frame, suite).lines[-1]
    assert (line.method, line.rank, line.value, line.n) == ("ica", "failed", "", "12")
    assert [bool(text) for text in line.others] == [True, True]


def test_six_digits_decide_ties(made: tuple[pd.DataFrame, Suite]) -> None:
    """A run and the file that was made of it rank alike."""
    frame, suite = made
    tied = edited(frame, {"ica": {"mean": 16.00001}, "nmf": {"mean": 16.00002}, "rpca": {"mean": 16.0002}}, "psnr")
    assert ranks(one(tied, suite)) == {"rpca": "1", "nmf": "2", "ica": "2", "average": "bound"}
    upside_down = edited(tied.assign(higher_is_better=False), {})
    assert ranks(one(upside_down, suite)) == {"average": "bound", "nmf": "1", "ica": "1", "rpca": "3"}


def test_metrics_of_sets_rank_rows_of_the_most_mixtures_only(made: tuple[pd.DataFrame, Suite]) -> None:
    frame, suite = made
    frame = frame[frame["metric"] == "psnr"].assign(metric="fid_cifarnet", unit="1", higher_is_better=False)
    small = {"ica": {"n_scored": 1500, "n_expected": 1500, "n_clusters": 30}, "rpca": {"n_scored": 900, "n_expected": 900, "n_clusters": 5}}
    frame = edited(frame, {"nmf": {"n_scored": 1500, "n_expected": 1500, "n_clusters": 1500}, **small})
    table = one(frame, suite)
    assert list(ranks(table).items()) == [("rpca", "size"), ("ica", "1"), ("average", "bound"), ("nmf", "2")]
    assert "size: fid_cifarnet depends on the number of mixtures, and others have 1,500: not ranked" in table.footnotes
    assert not [note for note in table.footnotes if note.startswith(("few", "+"))]
    shown = one(frame, suite, selection=RowSelection(("ica", "nmf")))
    assert not [note for note in shown.footnotes if note.startswith("size")]
    unknown = one(edited(frame, {}).assign(metric="nobody_has_it"), suite)
    assert ranks(unknown) == {"rpca": "few", "ica": "1", "average": "bound", "nmf": "2"}


@pytest.mark.parametrize(
    ("top", "shown"),
    [
        (1, ["ideal-mask", "nmf"]),
        (2, ["ideal-mask", "nmf", "average", "ica"]),
        (3, ["ideal-mask", "nmf", "average", "ica", "rpca"]),
        (4, ["ideal-mask", "nmf", "average", "ica", "rpca", "mixture"]),
    ],
)
def test_the_first_rows_do_not_count_bounds(made: tuple[pd.DataFrame, Suite], top: int, shown: list[str]) -> None:
    frame, suite = made
    bounds = BOUNDS | {"ideal-mask": "upper", "mixture": "lower"}
    more = [
        edited(frame[frame["method"] == "nmf"].assign(method=name), {name: {"mean": mean}}, "psnr") for name, mean in (("ideal-mask", 25.0), ("mixture", 1.0))
    ]
    frame = pd.concat([frame, *more])
    table = one(frame, suite, bounds=bounds, selection=RowSelection(top=top))
    expected = shown if top != 3 else [*shown, "mixture"]  # all that are counted: nothing is cut
    assert [line.method for line in table.lines] == expected
    cut = f"; {len(expected)} of 6 methods shown"
    assert table.subtitle.endswith(cut if len(expected) < 6 else "interval")


def test_a_selection_keeps_ranks_and_leaves_out_what_is_not_shown(made: tuple[pd.DataFrame, Suite]) -> None:
    frame, suite = made
    frame = edited(frame, {"ica": {"n_scored": 11, "n_expected": 11}, "nmf": {"prior": "P"}})
    values = {name: MetricValues(examples := pd.RangeIndex(12).to_numpy(), examples + 0.0) for name in ("nmf", "rpca")}
    evidence = Evidence(Values(lambda task, method: {"psnr": values.get(method, NO_VALUES)}), TaskDesigns(lambda task: None))
    whole = one(frame, suite, evidence=evidence)
    assert ranks(whole) == {"nmf": "1", "average": "bound", "ica": "2+", "rpca": "3="}
    signs = [note.partition(":")[0] for note in whole.footnotes]
    assert signs[1:3] == ["=", "+"]
    assert "ica: ranked by its mean alone: it has no psnr of the same mixtures to test against the best method" in whole.footnotes
    few = one(frame, suite, evidence=evidence, selection=RowSelection(("average",)))
    assert ranks(few) == {"average": "bound"}
    assert not [note for note in few.footnotes if note.startswith(("=", "+", "prior", "ica"))]
    assert list(task_tables(frame, suite, bounds=BOUNDS, selection=RowSelection(("nobody",)))) == []
    both = pd.concat([frame, frame[frame["method"] == "nmf"].assign(task="class-agnostic")])
    assert [table.task for table in task_tables(both, suite, bounds=BOUNDS, selection=RowSelection(("ica",)))] == ["class-split"]
    assert [table.task for table in task_tables(both, suite, bounds=BOUNDS, selection=RowSelection(("nmf",)))] == ["class-split", "class-agnostic"]


def test_machines_have_their_letters_over_all_tables_of_a_page(made: tuple[pd.DataFrame, Suite]) -> None:
    frame, suite = made
    frame = frame[frame["method"].isin(["nmf", "ica"])].assign(seconds_per_mixture=0.25)
    other = edited(frame.assign(task="class-agnostic"), {"ica": {"timing_group": "cuda:H100:float32"}, "nmf": {"seconds_per_mixture": math.nan}})
    first, second = task_tables(pd.concat([frame, other]), suite, bounds=BOUNDS)
    assert [line.extras for line in first.lines] == [("0.25 a",), ("0.25 a",)]
    assert {line.method: line.extras for line in second.lines} == {"nmf": ("",), "ica": ("0.25 b",)}
    assert [note for note in first.footnotes if "seconds" in note] == ["a: seconds on cpu, Test CPU, 2 threads, float32; compare only with the same letter"]
    assert [note for note in second.footnotes if "seconds" in note] == ["b: seconds on cuda, H100, float32; compare only with the same letter"]


def test_letters_go_on_after_z() -> None:
    assert [_letters(number) for number in (0, 25, 26, 27, 51, 52, 701, 702)] == ["a", "z", "aa", "ab", "az", "ba", "zz", "aaa"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0"), (0.0123, "0.012"), (99.0, "99"), (99.96, "1e+02"), (100.0, "100"), (1234.5, "1,234"), (math.nan, "")]
)
def test_how_seconds_are_written(made: tuple[pd.DataFrame, Suite], seconds: float, text: str) -> None:
    frame, suite = made
    table = one(edited(frame, {"nmf": {"seconds_per_mixture": seconds}}), suite)
    assert table.lines[0].extras == (text,)


def test_estimates_that_were_supplied_have_no_seconds(made: tuple[pd.DataFrame, Suite]) -> None:
    frame, suite = made
    supplied = {"estimates_sha256": "0123456789abcdef", "seconds_per_mixture": math.nan, "fit_seconds": math.nan}
    some = one(edited(frame, {"nmf": supplied}), suite)
    assert (some.extra_heads, some.lines[0].extras) == (("s/mixture",), ("",))
    assert [note for note in some.footnotes if "supplied" in note] == ["nmf: estimates supplied, sha256 0123456789ab"]
    untimed = one(edited(frame.assign(seconds_per_mixture=math.nan), {"nmf": supplied}), suite)
    assert untimed.extra_heads == ("s/mixture",)  # somebody could have measured the others
    every = one(edited(frame, {**dict.fromkeys(MEANS, supplied), "ica": supplied | {"supervision": "unstated"}}), suite)
    assert every.extra_heads == ()
    assert all(line.extras == () for line in every.lines)
    assert [note for note in every.footnotes if "supplied" in note] == [
        "nmf, average, rpca: estimates supplied, sha256 0123456789ab",
        "ica: estimates supplied, sha256 0123456789ab; what their method learns from is not stated",
    ]


# -- the papers' numbers


def paper(method: str, metric: str, value: float, title: str, source: str = "A Table 1", notes: str = "", std: float | None = None) -> PublishedRow:
    return PublishedRow("class-split", method, metric, value, std, None, source, title, notes)


PAPERS = [
    paper("nmf", "ssim", 0.5, "NMF"),
    paper("nmf", "psnr", 15.0, "NMF", notes="cut; clean", std=0.25),
    paper("nmf", "psnr", 15.5, "NMF", source="B Table 2", notes="clean"),
    paper("", "psnr", 20.0, "Low", notes="loud"),
    paper("", "ssim", 0.75, "High", source="B Table 2"),
    paper("", "psnr", 30.0, "High", source="B Table 2", std=0.0),
    paper("", "mixture_error", 0.125, "Wide"),
    paper("", "mixture_error", 0.0625, "Close"),
    paper("ghost", "psnr", 25.0, "Ghost", notes="clean"),
    PublishedRow("class-agnostic", "", "psnr", 99.0, None, None, "A Table 1", "Elsewhere", ""),
    paper("ica", "fid_inception", 40.0, "ICA"),
]


def published(table: TaskTable) -> list[tuple[str, str]]:
    return [(line.method, line.published) for line in table.lines if line.from_paper]


def test_numbers_of_papers_in_their_order_with_their_remarks(made: tuple[pd.DataFrame, Suite]) -> None:
    frame, suite = made
    suite = replace(suite, published=PAPERS)
    table = one(frame, suite)
    assert {line.method: line.published for line in table.lines if not line.from_paper} == {
        **{"nmf": "15.0 +-0.25, ssim 0.5 A Table 1 (1,2)", "average": "", "ica": "", "rpca": ""},
    }
    assert published(table) == [
        ("High", "30.0 +-0, ssim 0.75 B Table 2"),
        ("Ghost", "25.0 A Table 1 (2)"),
        ("Low", "20.0 A Table 1 (3)"),
        ("Close", "mixture_error 0.0625 A Table 1"),
        ("Wide", "mixture_error 0.125 A Table 1"),
        ("ICA", "fid_inception 40.0 A Table 1"),
    ]
    assert [note for note in table.footnotes if note.startswith("(")] == ["(1) cut", "(2) clean", "(3) loud"]
    last = table.lines[-1]
    assert (last.rank, last.supervision, last.value, last.n) == ("", "", "", "")
    assert (last.others, last.extras) == (("", ""), ("",))


def test_papers_follow_the_selection(made: tuple[pd.DataFrame, Suite]) -> None:
    frame, suite = made
    suite = replace(suite, published=PAPERS)
    assert [name for name, _ in published(one(frame, suite, selection=RowSelection(top=2)))] == ["High", "Ghost"]
    chosen = one(frame, suite, selection=RowSelection(("ghost", "nmf")))
    assert published(chosen) == [("Ghost", "25.0 A Table 1 (2)")]
    assert published(one(frame, suite, metrics=["mixture_error", "ssim"])) == [
        ("Close", "0.0625 A Table 1"),
        ("Wide", "0.125 A Table 1"),
        ("High", "ssim 0.75 B Table 2"),
    ]
    assert one(frame, suite, metrics=["ssim"]).lines[0].published == "0.5 A Table 1"
    assert [name for name, _ in published(one(frame, suite, metrics=["psnr"]))] == ["High", "Ghost", "Low"]
    assert published(one(frame, None)) == []


def test_more_than_a_thousand_methods(made: tuple[pd.DataFrame, Suite]) -> None:
    frame, _ = made
    records = {("nmf", "psnr"): frame[(frame["method"] == "nmf") & (frame["metric"] == "psnr")].to_dict("records")[0]}
    layout = TaskLayout("class-split", records, ["psnr"], "psnr", None, {}, {}, None)
    layout.rank(RowSelection())
    layout.shown, layout.n_methods = ["nmf"] * 1200, 1500
    assert layout.table(PageMarks(dict.fromkeys(layout.groups(), "a"), {})).subtitle.endswith("interval; 1,200 of 1,500 methods shown")


def test_the_machine_that_is_shown_first_has_the_first_letter(made: tuple[pd.DataFrame, Suite]) -> None:
    """A row without seconds has no machine on the page, and one machine alone needs no letter."""
    frame, suite = made
    groups = {"nmf": {"timing_group": "cuda:H100"}, "ica": {"timing_group": "cpu:x"}, "rpca": {"timing_group": "mps:y", "seconds_per_mixture": math.nan}}
    table = one(edited(frame.assign(seconds_per_mixture=0.25), groups | {"average": {"timing_group": "cpu:x"}}), suite)
    assert [line.extras for line in table.lines] == [("0.25 a",), ("0.25 b",), ("0.25 b",), ("",)]
    assert [note.partition(":")[0] for note in table.footnotes if "seconds" in note] == ["a", "b"]
    alone = one(edited(frame.assign(seconds_per_mixture=0.25, timing_group="cpu:x"), {"rpca": groups["rpca"]}), suite)
    assert [line.extras for line in alone.lines] == [("0.25",), ("0.25",), ("0.25",), ("",)]
    assert [note for note in alone.footnotes if "seconds" in note] == ["seconds on cpu, x"]


def test_a_row_without_the_ranking_metric_is_that_of_its_first(made: tuple[pd.DataFrame, Suite]) -> None:
    frame, suite = made
    frame = frame[~((frame["method"] == "ica") & (frame["metric"] == "psnr"))]
    table = one(edited(frame, {"ica": {"n_scored": 9, "n_failed": 1}}, "ssim"), suite)
    assert table.lines[-1].n == "9/12"
    assert "ica: 9 of 12 mixtures scored, 1 failed, 2 not reached" in table.footnotes


def test_where_lower_is_better_equality_is_tested_the_other_way(made: tuple[pd.DataFrame, Suite]) -> None:
    frame, suite = made
    asked: list[tuple[Any, ...]] = []
    evidence: Any = SimpleNamespace(
        against_best=lambda *given: asked.append(given) or AgainstBest(frozenset({"rpca"})),
        values=SimpleNamespace(of=lambda *given: MetricValues(np.arange(0), np.zeros(0))),
    )
    for name, higher in (("psnr", True), ("mixture_error", False)):
        table = one(frame, suite, metrics=[name], evidence=evidence, bounds={})
        assert ranks(table)["rpca"].endswith("=")
        assert asked[-1] == ("class-split", name, [line.method for line in table.lines], higher)
    every = edited(frame, {name: {"n_scored": 0} for name in MEANS})
    assert set(ranks(one(every, suite, evidence=evidence)).values()) == {"failed"}
    assert len(asked) == 2  # nothing is ranked: nobody is asked


def test_marks_of_equal_rows_of_fewer_mixtures(made: tuple[pd.DataFrame, Suite]) -> None:
    frame, suite = made
    evidence: Any = SimpleNamespace(
        against_best=lambda *given: AgainstBest(frozenset({"ica", "rpca"})), values=SimpleNamespace(of=lambda *given: MetricValues(np.arange(0), np.zeros(0)))
    )
    frame = edited(frame, {"ica": {"n_scored": 11, "n_expected": 11}})
    assert ranks(one(frame, suite, evidence=evidence)) == {"nmf": "1", "average": "bound", "ica": "2=+", "rpca": "3="}
    shown = one(frame, suite, evidence=evidence, selection=RowSelection(("nmf", "rpca")))
    assert [note[0] for note in shown.footnotes if note[1] == ":"] == ["="]  # the mark of a row that is not shown is not told
