"""Lines below tables: which methods and tasks share one, in which order, and the numbers they tell."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sepbench.report.footnotes import Footnote, machine_words, note_texts, task_notes
from sepbench.report.numbers import clusters_text, mean_text, number_format, said, with_interval
from sepbench.results.columns import OLD_INTERVAL
from sepbench.results.values import MetricValues
from sepbench.run.records import CellRecord


def test_counts_of_samples_stand_in_one_line_in_their_order() -> None:
    notes = {"a": [Footnote("samples", "16", ("m", "n"))], "b": [Footnote("samples", "4", ("k",)), Footnote("samples", "16", ("m", "l"))]}
    (line,) = note_texts(notes)
    assert line.endswith("k 4; m, n, l 16")


def test_one_count_of_samples_names_its_methods() -> None:
    (line,) = note_texts({"a": [Footnote("samples", "16", ("m", "n"))]})
    assert "m, n" in line
    assert "16" in line


def test_a_local_note_names_its_task_unless_all_have_it() -> None:
    local, other = Footnote("row", "broke", ("m",), True), Footnote("row", "slow", ("m",))
    assert note_texts({"a": [local], "b": []}) == ("a: m: broke",)
    assert note_texts({"a": [local], "b": [local]}) == ("m: broke",)
    assert note_texts({"a": [other], "b": [Footnote("row", "slow", ("n",))]}) == ("m, n: slow",)
    assert note_texts({"a": [local], "b": [Footnote("row", "broke", ("n",), True)]}) == ("a: m: broke", "b: n: broke")


def test_kinds_come_in_their_order() -> None:
    kinds = ("paper", "unsupported", "row", "prior", "seconds", "sign")
    lines = note_texts({"a": [Footnote(kind, kind) for kind in kinds]})  # type: ignore[arg-type]
    assert [line.rsplit(" ", 1)[-1] for line in lines] == list(reversed(kinds))


def test_intervals_of_several_tasks_tell_fewest_and_most_clusters() -> None:
    notes = {task: [Footnote("interval", "intervals: t", clusters=(low, high, "song"))] for task, low, high in (("a", 7, 30), ("b", 5, 1200), ("c", 9, 9))}
    (line,) = note_texts(notes)
    assert "5 to 1,200 songs" in line
    assert "1 song" in clusters_text(1, 1, "song")
    assert "songs" not in clusters_text(1, 1, "song")
    assert clusters_text(0, 0, "song") == ""
    assert " 52 songs" in clusters_text(52, 52, "song")


def test_a_machine_in_words() -> None:
    assert machine_words("cpu:AMD EPYC:1threads:float32") == "cpu, AMD EPYC, 1 thread, float32"
    assert machine_words("cpu:x:12threads:4workers") == "cpu, x, 12 threads, 4 workers"


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("dB", 16.018, "16.02"),
        ("dB", 0.1, "0.10"),
        ("dB", 0.09, "0.0900"),
        ("dB", 0.001, "0.0010"),
        ("dB", 0.0009, "9.0e-04"),
        ("", 0.01, "0.010"),
        ("", 0.0099, "0.00990"),
        ("", 0.0001, "0.00010"),
        ("", 0.00009, "9.0e-05"),
        ("", 0.0, "0"),
        ("dB", 0.0, "0"),
        ("", 1.0, "1.000"),
    ],
)
def test_how_many_digits(unit: str, value: float, text: str) -> None:
    assert number_format(unit, abs(value))(value) == text
    assert number_format(unit, abs(value))(-value).lstrip("-") == text
    nan = float("nan")
    assert mean_text({"mean": -value, "unit": unit}).lstrip("-") == text
    assert with_interval({"mean": value, "unit": unit, "ci_low": nan, "ci_high": nan}) == text
    assert mean_text({"mean": nan, "unit": unit}) == with_interval({"mean": nan, "unit": unit, "ci_low": 0.0, "ci_high": 1.0}) == ""


def test_an_interval_has_its_ends_in_order_and_the_means_digits() -> None:
    assert with_interval({"mean": 16.0, "unit": "dB", "ci_low": 15.951, "ci_high": 16.094}) == "16.00 [15.95, 16.09]"
    assert mean_text(None) == ""


@pytest.mark.parametrize(("value", "is_said"), [(False, False), ("", False), (float("nan"), False), (0, True), (0.0, True), ("x", True), (True, True)])
def test_what_counts_as_said(value: object, is_said: bool) -> None:
    assert said(value) is is_said


# -- notes of a task, of made-up rows


def laid_out(records: dict[str, dict[str, Any]], **more: Any) -> Any:
    """A task's rows by method, all of the ranking metric."""
    usual = {"ci_low": 1.0, "interval": "cluster t", "cluster": "song", "n_clusters": 20, "unit": "dB", "n_scored": 30, "n_expected": 30, "n_failed": 0}
    usual |= {"prior": "", "samples": 1, "estimates_sha256": "", "supervision": "blind", "budget": "paper"}
    first = {method: usual | record for method, record in records.items()}
    given: dict[str, Any] = {"task": "t", "ranking": "psnr", "first": first, "records": {(method, "psnr"): record for method, record in first.items()}}
    given |= {"methods": list(first), "shown": list(first), "marks_shown": set(), "ranks": dict.fromkeys(first, "1")}
    given |= {name: set() for name in ("equal", "untested", "shorter")}
    given |= {"evidence": None, "cells": {}, "frozen": 30, "lengths_differ": False, "stars": {}, "remarks": {}, "most": 0}
    given |= {"marks": SimpleNamespace(timing={}), "groups": lambda: iter(()), "selection": SimpleNamespace(methods=()), "is_bound": lambda method: False}
    return SimpleNamespace(**given | more)


def lines_of(layout: Any) -> list[str]:
    return list(note_texts({"t": list(task_notes(layout))}))


def test_intervals_of_several_kinds_say_whose_they_are() -> None:
    rows = {"a": {"n_clusters": 1200}, "b": {"n_clusters": 7}, "c": {"ci_low": math.nan}, "d": {"interval": "bootstrap"}, "e": {"cluster": "image"}}
    assert lines_of(laid_out(rows)) == [
        *("intervals of a, b: cluster t over 7 to 1,200 songs", "intervals of d: bootstrap over 20 songs", "intervals of e: cluster t over 20 images"),
    ]
    assert lines_of(laid_out({"a": {}, "c": {"ci_low": math.nan, "interval": "none"}})) == ["intervals: cluster t over 20 songs"]
    lost = laid_out({"a": {}, "b": {}})
    del lost.records["b", "psnr"]
    assert lines_of(lost) == ["intervals: cluster t over 20 songs"]
    assert lines_of(laid_out({"a": {"interval": OLD_INTERVAL}})) == [f"intervals: {OLD_INTERVAL} over 20 songs, as if no two shared a signal"]


def test_signs_are_told_where_they_stand() -> None:
    made = laid_out({"a": {}, "b": {"cluster": "image"}, "c": {}}, equal={"a"}, shorter={"b"}, marks_shown={"1", "size", "few"}, most=1500)
    made.ranks = {"a": "1", "b": "few", "c": "few"}
    assert lines_of(made)[2:] == [
        "=: the best method does not beat it (paired one-sided test, 5 % for all rows together)",
        "+: ranked on fewer mixtures than others",
        "size: psnr depends on the number of mixtures, and others have 1,500: not ranked",
        "few: not ranked below 10 images",
    ]
    made.shown = ["a", "c"]
    assert lines_of(made)[-1] == "few: not ranked below 10 songs"


def test_exact_estimates_are_counted_where_a_cap_makes_numbers_of_them() -> None:
    """Of methods that are no bounds; the unit is that of the rows, if they have one."""
    values = {"a": [100.0] * 1200 + [99.999], "b": [99.0, 100.5, math.nan], "bound": [100.0], "none": [1.0]}
    held = {name: MetricValues(np.arange(len(numbers)), np.array(numbers)) for name, numbers in values.items()}

    def of(task: str, method: str, metric: str) -> MetricValues:
        assert (task, metric) in (("t", "psnr"), ("t", "ssim"))
        return held[method]

    made = laid_out({name: {} for name in values}, evidence=SimpleNamespace(values=SimpleNamespace(of=of)), is_bound=lambda method: method == "bound")
    capped = [line for line in lines_of(made) if "cap" in line]
    assert capped == ["a: 1,200 of 1,201 values are at the cap of 100 dB", "b: 1 of 2 values are at the cap of 100 dB"]
    made.methods = ["gone", *made.methods]  # the first one lacks the metric that ranks, and with it the unit
    assert [line for line in lines_of(made) if "cap" in line][1] == "b: 1 of 2 values are at the cap of 100"
    made.ranking = "ssim"  # without a cap
    assert not [line for line in lines_of(made) if "cap" in line]


def test_methods_that_do_not_take_a_task_stand_in_one_line_by_their_reasons() -> None:
    cells = {("t", name): CellRecord(state="unsupported", note=note) for name, note in (("x", "two channels"), ("y", ""), ("z", "two channels"))}
    cells |= {("u", "w"): CellRecord(state="unsupported", note="of another task"), ("t", "a"): CellRecord(state="done", note="own")}
    made = laid_out({"a": {}}, cells=cells)
    assert lines_of(made)[1:] == ["a: own", "not on t: x, z (two channels); y"]
    made.selection = SimpleNamespace(methods=["a", "y"])
    assert lines_of(made)[1:] == ["a: own", "not on t: y"]
    made.cells = {("t", "a"): CellRecord(state="unsupported", note="was taken once")}
    assert lines_of(made)[1:] == ["not on t: a (was taken once)"]


def test_remarks_on_rows() -> None:
    rows: dict[str, dict[str, Any]] = {
        **{
            "part": {"n_scored": 1000, "n_failed": 1200, "n_expected": 4200},
            "lost": {"n_scored": 29, "n_failed": 1},
            "short": {"n_expected": 20, "n_scored": 20},
        },
        **{"quick": {"budget": "quick"}, "one": {"prior": "P"}, "two": {"prior": "P", "samples": 2}, "three": {"prior": "Q", "samples": 2}},
    }
    made = laid_out(rows, cells={("t", "part"): CellRecord(state="partial", error="E: x"), ("u", "lost"): CellRecord(error="elsewhere")}, lengths_differ=True)
    assert lines_of(made)[1:] == [
        *("prior P: one, two", "prior Q: three", "two, three: 2 samples per mixture"),
        "part: 1,000 of 4,200 mixtures scored, 1,200 failed, 2,000 not reached (E: x)",
        *("lost: 29 of 30 mixtures scored, 1 failed", "short: first 20 of 30 mixtures", "quick: quick budget"),
    ]
    alone = laid_out({"quick": {"budget": "quick", "n_expected": 20, "n_scored": 20}})
    assert lines_of(alone)[1:] == []  # the head says it of all rows


def test_papers_stars_and_machines_have_their_lines() -> None:
    timing = {"cuda:H100": "b", "cpu:x:1threads": "a"}
    made = laid_out({"m": {}}, marks=SimpleNamespace(timing=timing), groups=lambda: iter(["cpu:x:1threads", "cuda:H100", "cpu:x:1threads"]))
    made.stars, made.remarks = {"* s/fit: cached": None}, {"clean": 2, "cut": 1}
    assert lines_of(made)[1:] == [
        "a: seconds on cpu, x, 1 thread; compare only with the same letter",
        "b: seconds on cuda, H100; compare only with the same letter",
        *("* s/fit: cached", "(2) clean", "(1) cut"),
    ]
    made.marks = SimpleNamespace(timing={"cpu:x:1threads": "a"})
    made.groups = lambda: iter(["cpu:x:1threads"])
    assert lines_of(made)[1] == "seconds on cpu, x, 1 thread"
