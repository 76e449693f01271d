"""Lines below tables: which methods and tasks share one, in which order, and the numbers they tell."""

from __future__ import annotations

import pytest

from sepbench.report.footnotes import Footnote, machine_words, note_texts
from sepbench.report.numbers import clusters_text, mean_text, number_format, said, with_interval


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
