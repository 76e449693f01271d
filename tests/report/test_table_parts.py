"""Tables part by part: which rows and columns each has on a narrow terminal, where papers' rows stand, and the same tables as Markdown."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from rich.table import Table

from sepbench.report import table as tables
from sepbench.report.footnotes import Footnote
from sepbench.report.robust_table import render_robust
from sepbench.report.rows import Line, TaskTable
from sepbench.report.table import _draw, _parts, _print_phrases, gate_line, markdown_leaderboard
from sepbench.results.gate import GateReport, GateRow
from sepbench.results.robust import RobustRow
from sepbench.results.statistics import Summary

LINES = (
    Line("1", "nmf", "blind", "16.00 [15.00, 17.00]", ("0.500", "0.010"), "15.0 A Table 1", ("0.25", "3"), "1,000"),
    Line("2=", "ica", "blind", "15.90 [15.80, 16.00]", ("0.450", "0.011"), "", ("1e+02", ""), "1,000"),
    Line("bound", "average", "bound", "14.00 [13.00, 15.00]", ("0.400", "0.020"), "14.8 B [2]", ("0.5", ""), "1,000"),
    Line("", "High [x]", "", "", ("", ""), "30.0 B Table 2", ("", ""), "", True),
    Line("", "Low", "", "", ("", ""), "20.0 A Table 1", ("", ""), "", True),
)
TABLE = TaskTable("t", "Title", "Subtitle", "psnr", ("ssim", "mixture_error"), ("s/mixture", "evaluations"), LINES, (Footnote("sign", "=: equal"),))
ALONE = replace(TABLE, lines=tuple(replace(line, published="") for line in LINES[:3]))
"""Without papers."""


def column(drawn: Table, head: str) -> list[str]:
    (found,) = (column for column in drawn.columns if column.header == head)
    return [str(cell) for cell in found.cells]


def heads(drawn: Table) -> list[str]:
    return [str(column.header) for column in drawn.columns]


# -- which rows


@pytest.mark.parametrize(
    ("keys", "methods"),
    [
        (("rank", "method", "value", "published"), ["nmf", "ica", "average", r"High \[x]", "Low"]),
        (("rank", "method", "value"), ["nmf", "ica", "average"]),
        (("method", "other 0"), ["nmf", "ica", "average"]),
        (("method", "published"), ["nmf", "average", r"High \[x]", "Low"]),  # below the others: only those that have something there
    ],
)
def test_papers_stand_below_where_their_numbers_are_shown(keys: tuple[str, ...], methods: list[str]) -> None:
    drawn = _draw(TABLE, keys)
    assert column(drawn, "method") == methods
    papers = [row for row in drawn.rows if row.style == "dim"]
    assert len(papers) == sum(name.startswith(("High", "Low")) for name in methods)
    ours = len(drawn.rows) - len(papers)
    assert [row.end_section for row in drawn.rows[:-1]] == [bool(papers) and place == ours - 1 for place in range(len(drawn.rows) - 1)]
    assert [row.style for row in drawn.rows[:ours]] == (["", "", "italic"] if "rank" in keys else [""] * ours)


def test_every_cell_stands_under_its_head() -> None:
    drawn = _draw(TABLE, ["rank", "method", "supervision", "value", "published", "other 0", "other 1", "extra 0", "extra 1", "n"])
    assert heads(drawn) == ["rank", "method", "supervision", "psnr", "published", "ssim", "mixture_\nerror", "s/mixture", "evaluations", "n"]
    assert column(drawn, "rank") == ["1", "2=", "bound", "", ""]
    assert column(drawn, "supervision") == ["blind", "blind", "bound", "", ""]
    assert column(drawn, "psnr") == ["16.00 [15.00, 17.00]", "15.90 [15.80, 16.00]", "14.00 [13.00, 15.00]", "", ""]
    assert column(drawn, "published") == ["15.0 A Table 1", "", "14.8 B [2]", "30.0 B Table 2", "20.0 A Table 1"]
    assert column(drawn, "ssim") == ["0.500", "0.450", "0.400", "", ""]
    assert column(drawn, "mixture_\nerror") == ["0.010", "0.011", "0.020", "", ""]
    assert column(drawn, "s/mixture") == ["0.25", "1e+02", "0.5", "", ""]
    assert column(drawn, "evaluations") == ["3", "", "", "", ""]
    assert column(drawn, "n") == ["1,000", "1,000", "1,000", "", ""]
    left = {"method", "supervision", "psnr", "published"}
    assert {str(one.header): one.justify for one in drawn.columns} == {head: "left" if head in left else "right" for head in heads(drawn)}
    folding = {str(one.header) for one in drawn.columns if not one.no_wrap}
    assert folding == {"method", "published"}
    assert {one.overflow for one in drawn.columns} == {"fold"}
    least = {str(one.header): one.min_width for one in drawn.columns}
    assert least == {"rank": 5, "method": 10, "supervision": 11, "psnr": 20, "published": 18, "ssim": 5, "mixture_\nerror": 8} | {
        **{"s/mixture": 9, "evaluations": 11, "n": 5},
    }


def test_a_head_breaks_behind_its_first_stroke_only() -> None:
    drawn = _draw(replace(TABLE, other_heads=("psnr_sum_mse", "ssim")), ["method", "other 0", "other 1"])
    assert heads(drawn) == ["method", "psnr_\nsum_mse", "ssim"]
    assert drawn.columns[1].min_width == len("sum_mse")


def test_an_interval_may_stand_below_its_mean() -> None:
    drawn = _draw(TABLE, ["rank", "method", "value"], fold=True)
    assert column(drawn, "psnr") == ["16.00\n[15.00, 17.00]", "15.90\n[15.80, 16.00]", "14.00\n[13.00, 15.00]"]
    value = drawn.columns[-1]
    assert (value.no_wrap, value.min_width) == (False, len("15.00, 17.00]") + 1)
    assert [one.no_wrap for one in drawn.columns] == [True, False, False]


# -- which columns


def parts(table: TaskTable, width: int) -> list[list[str]]:
    return [heads(part) for part in _parts(table, Console(file=io.StringIO(), width=width))]


MAIN = ["rank", "method", "supervision", "psnr"]
BELOW = ["method", "published"]
METRICS = ["ssim", "mixture_\nerror"]
COSTS = ["s/mixture", "evaluations", "n"]


@pytest.mark.parametrize(
    ("width", "wanted"),
    [
        (125, [[*MAIN, "published", *METRICS, *COSTS]]),
        (112, [[*MAIN, "published"], ["method", *METRICS, *COSTS]]),
        (75, [[*MAIN, "published"], ["method", *METRICS, *COSTS]]),
        (69, [MAIN, BELOW, ["method", *METRICS, *COSTS]]),
        (55, [MAIN, BELOW, ["method", *METRICS], ["method", *COSTS]]),
        (46, [["rank", "method", "psnr"], BELOW, ["method", "supervision", *METRICS], ["method", *COSTS]]),
        (34, [["rank", "method", "psnr"], BELOW, ["method", "supervision", "ssim"], ["method", METRICS[1], "s/mixture"], ["method", "evaluations", "n"]]),
    ],
)
def test_what_does_not_fit_follows_in_further_tables(width: int, wanted: list[list[str]]) -> None:
    assert parts(TABLE, width) == wanted
    assert parts(ALONE, width) == [
        [head for head in part if head != "published"] for part in (wanted if width != 112 else [[*MAIN, *METRICS, *COSTS]]) if part != BELOW
    ]


def test_only_a_table_that_is_too_wide_for_a_mean_and_its_interval_is_folded() -> None:
    wide, narrow = (_parts(TABLE, Console(file=io.StringIO(), width=width))[0] for width in (46, 34))
    assert "16.00 [15.00, 17.00]" in column(wide, "psnr")
    assert "16.00\n[15.00, 17.00]" in column(narrow, "psnr")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Two tables of a page, and what was asked for."""
    asked: list[dict[str, Any]] = []

    def task_tables(*given: Any, **options: Any) -> list[TaskTable]:
        asked.append({"frame": given[0], "suite": given[1]} | options)
        return [TABLE, replace(ALONE, task="u", title="Second")]

    monkeypatch.setattr(tables, "task_tables", task_tables)
    return asked


ASKED: dict[str, Any] = {"metrics": ["ssim"], "cells": {"c": 1}, "bounds": {"b": ""}, "evidence": "e", "selection": "s"}


def test_markdown_word_for_word(made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(tables), "page_notes", lambda shown: ("one", f"two of {len(shown)}"))
    text = markdown_leaderboard("frame", "suite", **ASKED)  # type: ignore[arg-type]
    assert made == [{"frame": "frame", "suite": "suite"} | ASKED]
    first, rest = text.split("\n\n### Second\n\nSubtitle\n\n")
    head, subtitle, body = first.split("\n\n")
    assert (head, subtitle) == ("### Title", "Subtitle")
    assert body.splitlines() == [
        "| rank | method | supervision | psnr | ssim | mixture_error | published | s/mixture | evaluations | n |",
        "| ---: | --- | --- | --- | ---: | ---: | --- | ---: | ---: | ---: |",
        "| 1 | nmf | blind | 16.00 [15.00, 17.00] | 0.500 | 0.010 | 15.0 A Table 1 | 0.25 | 3 | 1,000 |",
        "| 2= | ica | blind | 15.90 [15.80, 16.00] | 0.450 | 0.011 |  | 1e+02 |  | 1,000 |",
        "| bound | average | bound | 14.00 [13.00, 15.00] | 0.400 | 0.020 | 14.8 B [2] | 0.5 |  | 1,000 |",
        "|  | High [x] |  |  |  |  | 30.0 B Table 2 |  |  |  |",
        "|  | Low |  |  |  |  | 20.0 A Table 1 |  |  |  |",
    ]
    assert rest.splitlines()[5:] == ["", "- one", "- two of 2"]
    assert text.endswith("two of 2\n")
    monkeypatch.setitem(vars(tables), "page_notes", lambda shown: ())
    assert markdown_leaderboard("frame", "suite").endswith("1,000 |\n")  # type: ignore[arg-type]


def test_a_stroke_in_a_name_is_no_end_of_a_cell(made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "task_tables", lambda *given, **options: [replace(ALONE, lines=(replace(LINES[1], method="a|b"),))])
    assert r"| 2= | a\|b | blind |" in markdown_leaderboard("frame", None)  # type: ignore[arg-type]


def test_a_page_for_a_terminal(made: list[dict[str, Any]]) -> None:
    out = io.StringIO()
    tables.render_leaderboard("frame", "suite", Console(file=out, width=69), **ASKED)  # type: ignore[arg-type]
    assert made == [{"frame": "frame", "suite": "suite"} | ASKED]
    blocks = [block.splitlines() for block in out.getvalue().split("\n\n")]
    assert [blocks[0][0], blocks[3][0]] == ["Title", "Second"]
    assert ["published" in " ".join(block) for block in blocks[:4]] == [False, True, False, False]
    assert [block[1].strip() for block in (blocks[0], blocks[3])] == ["Subtitle"] * 2
    assert blocks[4][-1] == "=: equal"  # the notes follow the last table without a gap, and one empty line ends the page
    assert out.getvalue().endswith("=: equal\n\n")
    assert len(blocks) == 6


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (60, ["one, two (a, b; c), three; four"]),
        (31, ["one, two (a, b; c), three; four"]),
        (30, ["one, two (a, b; c), three;", "four"]),
        (10, ["one,", "two (a, b; c),"[:10].rstrip(), "c),", "three;", "four"]),
    ],
)
def test_heads_break_between_phrases_and_not_in_brackets(width: int, lines: list[str]) -> None:
    out = io.StringIO()
    _print_phrases("one, two (a, b; c), three; four", Console(file=out, width=width))
    assert out.getvalue().splitlines() == lines


# -- findings


def figures(**counts: int) -> list[GateRow]:
    names = {"not_comparable": "not comparable"}
    return [GateRow("s", "t", "m", "psnr", names.get(status, status), basis=basis) for status, count in counts.items() for basis in ["means"] * count]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"holds": 1}, "1 figure holds"),
        ({"holds": 1200}, "1,200 figures hold"),
        ({"improvement": 1}, "1 figure improved"),
        ({"regression": 2, "improvement": 1, "holds": 1}, "1 figure holds, 1 improved, 2 regressed"),
        ({"not_comparable": 1, "new": 3}, "3 figures new, 1 not comparable"),
    ],
)
def test_a_verdict_in_one_line(counts: dict[str, int], words: str) -> None:
    report: Any = GateReport(figures(**counts), [])
    assert gate_line(report, "N", "O") == f"{report.verdict}: N against O: {words} (by means)"


def test_what_a_verdict_rests_on() -> None:
    rows = [GateRow("s", "t", "m", "psnr", "holds", basis=basis) for basis in ("paired test", "", "means", "paired test", *"fedcba")]
    assert gate_line(GateReport(rows, []), "N", "O").endswith(": 10 figures hold (by a and b and c and d and e and f and means and paired test)")
    assert gate_line(GateReport(rows[1:2], []), "N", "O").endswith(": 1 figure holds")


# -- robust statistics


def summary(mean: float, low: float, high: float, clusters: int = 7, n: int = 1200) -> Summary:
    return Summary(n, mean, 1.0, mean, low, high, "cluster t", "song", clusters)


@pytest.mark.parametrize(("unit", "told"), [("dB", "psnr in dB: "), ("1", "psnr: "), ("", "psnr: ")])
def test_robust_statistics_word_for_word(unit: str, told: str) -> None:
    rows = [
        RobustRow("best", 20.004, summary(19.996, 19.0, 21.0), None),
        RobustRow("[x]", 0.5, summary(-0.005, float("nan"), float("nan"), 30), summary(0.756, 0.5, 0.9)),
    ]
    out = io.StringIO()
    render_robust("Title [b]", "psnr", unit, rows, Console(file=out, width=400))
    title, subtitle, head, _, first, second, below = out.getvalue().splitlines()
    assert title == "Title [b]"
    assert subtitle == (
        f"{told}median and interquartile mean (the middle half of the mixtures); probability that the best method is better on the same mixture; "
        "in brackets 95 % intervals"
    )
    assert head.split("  ")[0] == "method"
    digits = 2 if unit == "dB" else 3
    assert first.split() == ["best", f"{20.004:.{digits}f}", f"{19.996:.{digits}f}", f"[{19:.{digits}f},", f"{21:.{digits}f}]", "1,200"]
    assert second.split() == ["[x]", f"{0.5:.{digits + 2}f}", f"{-0.005:.{digits + 2}f}", "0.76", "[0.50,", "0.90]", "1,200"]
    assert below == "intervals: cluster t over 7 to 30 songs, of probabilities after Korn and Graubard"


def test_a_robust_table_is_blank_where_there_is_no_value() -> None:
    out, nan = io.StringIO(), float("nan")
    rows = [RobustRow("best", nan, summary(20.0, 19.0, 21.0), None), RobustRow("x", 1.0, summary(nan, nan, nan), summary(nan, nan, nan))]
    render_robust("t", "psnr", "dB", rows, Console(file=out, width=400))
    assert "nan" not in out.getvalue()
    assert [line.split() for line in out.getvalue().splitlines()[-3:-1]] == [["best", "20.00", "[19.00,", "21.00]", "1,200"], ["x", "1.00", "1,200"]]


def test_a_robust_table_has_its_numbers_at_the_right(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []
    monkeypatch.setattr("sepbench.report.robust_table.print_table", lambda table, console: kept.append(table))
    render_robust("t", "psnr", "dB", [RobustRow("m", 1.0, summary(1.0, 0.5, 1.5), None)], Console(file=io.StringIO()))
    (table,) = kept
    justified = [("method", "left"), ("median", "right"), ("interquartile mean", "left"), ("best is better", "left"), ("n", "right")]
    assert [(one.header, one.justify) for one in table.columns] == justified
    assert {one.overflow for one in table.columns} == {"fold"}
    assert SimpleNamespace(box=table.show_edge, pad=table.pad_edge) == SimpleNamespace(box=False, pad=False)


# -- comparisons and checks

RULE = "a rule"


def compared(**facts: Any) -> dict[str, Any]:
    usual = {"task": "t", "method_a": "nmf", "method_b": "nmf", "metric": "psnr", "n": 1200, "difference": 0.5, "ci_low": 0.25, "ci_high": 0.75, "unit": "dB"}
    usual |= {"interval": "cluster t", "cluster": "song", "n_clusters": 7, "share_a_better": 0.75, "verdict": "A better"}
    return usual | {"failed_a": 0, "failed_b": 0, "higher_is_better": True} | facts


def said(rows: list[dict[str, Any]], width: int = 130) -> list[str]:
    out = io.StringIO()
    tables.render_comparison(pd.DataFrame(rows), "runs/[a]", "runs/b", Console(file=out, width=width))
    return [" ".join(line.split()) if line.strip(" ─") or not line.strip() else RULE for line in out.getvalue().splitlines()]


def test_a_comparison_word_for_word() -> None:
    """Rows without a common mixture have no interval; each loss is told once, though it is that of every metric."""
    rows = [
        compared(failed_a=1234),
        compared(metric="ssim", unit="1", n_clusters=1200, failed_a=1234, verdict="not told apart"),
        compared(task="u", metric="mixture_error", n=0, interval="another", cluster="image", failed_b=2, higher_is_better=False, verdict=""),
        compared(task="u", method_a="ica", method_b="ica", interval="bootstrap", n_clusters=0, failed_b=3),
    ]
    assert said(rows) == [
        *("A = runs/[a]", "B = runs/b"),
        "difference A - B on the same mixtures, in brackets its 95 % interval; share of mixtures where A is better",
        *("intervals: cluster t over 7 to 1,200 songs", "intervals: bootstrap", "", "t", "method metric difference n A better verdict", RULE),
        *("nmf psnr 0.50 [0.25, 0.75] dB 1,200 75% A better", "nmf ssim 0.500 [0.250, 0.750] 1,200 75% not told apart"),
        *("", "u", "method metric difference n A better verdict", RULE, "nmf mixture_error no common example 0"),
        "ica psnr 0.50 [0.25, 0.75] dB 1,200 75% A better",
        "A: 1,234 mixtures of t that nmf failed on are not part of the comparison",
        "B: 2 mixtures of u that nmf failed on are not part of the comparison",
        "B: 3 mixtures of u that ica failed on are not part of the comparison",
        "mixture_error: lower is better",
    ]
    pair = said([compared(method_b="ica", failed_b=1)])
    assert "metric difference n A better verdict" in pair  # both are named above
    assert pair[-1] == "B: 1 mixtures of t that ica failed on are not part of the comparison"


def test_what_a_check_found_is_told_once_for_all_metrics_of_one_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Table] = []
    monkeypatch.setattr(tables, "print_table", lambda table, console: kept.append(table))
    missing: dict[str, Any] = {"status": "not comparable", "reason": "missing in [new]"}
    numbers: dict[str, Any] = {"unit": "dB", "old": 2.0, "new": 1.0, "difference": -1.0, "tolerance": 0.5}
    rows = [
        *(GateRow("s", "t", "m", metric, **missing) for metric in ("psnr", "ssim")),
        *(GateRow("s", "t", "m", metric, "regression", **numbers) for metric in ("psnr", "ssim")),
        *(GateRow("s", "t", method, "psnr", "holds") for method in "ab"),
        *(GateRow("s", task, "n", "psnr", **missing) for task in "tu"),
        *(GateRow("s", "t", "o", "psnr", status, reason="why") for status in ("improvement", "new")),
    ]
    out = io.StringIO()
    tables.render_gate(GateReport(rows, ["seed [1]", "device"]), "N", "O", Console(file=out, width=200))
    (table,) = kept
    assert heads(table) == ["finding", "task, method, metric", "why"]
    assert [one.no_wrap for one in table.columns] == [True, False, False]
    assert [row.style for row in table.rows] == ["yellow", "red", "red", "yellow", "yellow", "green", "cyan"]
    assert list(zip(*(column(table, head) for head in heads(table)), strict=True)) == [
        ("not comparable", "t, m, psnr, ssim", r"missing in \[new]"),
        *(("regression", f"t, m, {metric}", "2.00 -> 1.00: -1.00, tolerance 0.5") for metric in ("psnr", "ssim")),
        *(("not comparable", f"{task}, n, psnr", r"missing in \[new]") for task in "tu"),
        *((status, "t, o, psnr", "why") for status in ("improvement", "new")),
    ]
    assert out.getvalue().splitlines() == ["note: seed [1]", "note: device", gate_line(GateReport(rows, []), "N", "O")]
    kept.clear()
    tables.render_gate(GateReport(rows[4:6], []), "N", "O", Console(file=(quiet := io.StringIO()), width=20))
    assert (kept, quiet.getvalue()) == ([], "holds: N against O: 2 figures hold\n")


def test_a_check_as_json() -> None:
    rows = [GateRow("s", "t", "m", "psnr", "regression", "dB", old=2.0, new=math.nan, ci_low=math.inf, basis="means"), GateRow("s", "t", "m", "ssim", "new")]
    found = json.loads(tables.gate_json(GateReport(rows, ["seed"]), "N", "O"))
    head = {name: found[name] for name in ("verdict", "exit_code", "new", "old", "notes")}
    assert head == {"verdict": "regression", "exit_code": 1, "new": "N", "old": "O", "notes": ["seed"]}
    assert found["summary"] == "regression: N against O: 1 figure new, 1 regressed (by means)"
    first, second = found["rows"]
    assert [first[name] for name in ("old", "new", "ci_low", "unit", "basis")] == [2.0, None, None, "dB", "means"]
    assert list(first) == list(second) == list(GateRow.__dataclass_fields__)
