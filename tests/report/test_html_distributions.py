"""Histograms and paired differences of the page, by hand: units, one method alone, few values, and which pairs there are."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_run import SyntheticRun

from sepbench.report.html import distributions as module
from sepbench.report.html.board import MetricWords, TaskView, open_board, task_views
from sepbench.report.html.distributions import _short, _told, _writer, distributions
from sepbench.results.statistics import PairedDifference, TaskDesigns
from sepbench.results.values import MetricValues

NAN = math.nan


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, ...]]:
    """What the charts were asked to draw, by kind; nothing is drawn."""
    asked: dict[str, tuple[Any, ...]] = {}

    def note(name: str) -> Any:
        return lambda *given, **named: asked.update({name: (*given, *named.values())}) or name

    for name in ("strips", "pair_histograms", "difference_histogram", "lines"):
        monkeypatch.setattr(module.charts, name, note(name))
    return asked


def view_of(run: SyntheticRun, folder: Path) -> TaskView:
    (view,) = task_views(open_board(run.save(folder / "run"), set(), lambda text: None))
    return view


def paired(mean: float, low: float, high: float, a_higher: float, b_higher: float) -> Any:
    facts = {"n": 1200, "mean": mean, "ci_low": low, "ci_high": high, "share_a_higher": a_higher, "share_b_higher": b_higher}
    known = dict.fromkeys(PairedDifference.__dataclass_fields__) | facts  # type: ignore[attr-defined]
    return type("Paired", (), known)()


@pytest.mark.parametrize(
    ("unit", "higher", "ends", "told"),
    [
        ("dB", True, (1.0, 0.5, 1.5), ("1.00 [0.50, 1.50] dB", "1,200", "75%")),
        ("1", False, (-0.1, -0.2, -0.05), ("-0.100 [-0.200, -0.050]", "1,200", "20%")),
        ("", True, (-0.1, -0.2, -0.05), ("-0.100 [-0.200, -0.050]", "1,200", "75%")),
        ("dB", True, (1.0, NAN, NAN), ("1.00 dB", "1,200", "75%")),
    ],
)
def test_a_difference_has_its_unit_if_it_has_one(
    monkeypatch: pytest.MonkeyPatch, unit: str, higher: bool, ends: tuple[float, float, float], told: tuple[str, ...]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(module, "verdict", lambda *given: asked.append(given[1:]) or "B better")
    view: Any = type("View", (), {"metric": MetricWords("m", unit, higher, "")})()
    found = _told(view, "nmf", "ica", paired(*ends, 0.75, 0.2), 16.0)
    assert (found.value, found.n, found.share) == told
    assert (found.first, found.second, found.verdict) == ("nmf", "ica", "ica is better")
    assert asked == [(higher, 16.0)]
    assert _told(view, "nmf", "ica", paired(*ends, NAN, NAN), 1.0).share == ""


@pytest.mark.parametrize(("value", "short"), [(1.23456789, 1.23457), (0.000123456789, 0.000123457), (NAN, None), (math.inf, None), (0.0, 0.0)])
def test_numbers_of_the_page_have_six_digits_or_are_null(value: float, short: float | None) -> None:
    assert _short(value) == short


def test_one_method_alone_has_a_histogram_and_no_pair(tmp_path: Path) -> None:
    found = distributions(view_of(SyntheticRun({"nmf": 16.0}, n=12), tmp_path))
    assert found is not None
    assert (found.against_best, found.interval, found.pairs["pairs"]) == ((), "", [])
    assert (found.pairs["methods"], found.pairs["first"]) == (["nmf"], ["nmf"])
    assert sum(found.pairs["histograms"]["nmf"]) == 12
    assert [method for method, _ in found.failures] == ["nmf"]


@pytest.mark.parametrize(("n", "drawn"), [(1, False), (2, True)])
def test_a_single_mixture_has_no_histogram(tmp_path: Path, n: int, drawn: bool) -> None:
    assert (distributions(view_of(SyntheticRun(n=n), tmp_path)) is not None) == drawn


def test_a_method_without_any_value_is_left_out_of_histograms_and_fails_everywhere(tmp_path: Path) -> None:
    run = SyntheticRun({"nmf": 16.0, "ica": 12.0, "rpca": 10.0}, n=12)
    run.scores.loc[run.where("rpca", "psnr"), "value"] = np.nan
    found = distributions(view_of(run, tmp_path))
    assert found is not None
    assert found.pairs["methods"] == ["nmf", "ica"]
    assert [(pair["a"], pair["b"]) for pair in found.pairs["pairs"]] == [("nmf", "ica")]
    assert set(dict(found.failures)["rpca"]) == {"100.0%"}


def test_of_many_methods_each_is_compared_with_the_best_ranked_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = SyntheticRun({"ideal-mask": 20.0, "nmf": 16.0, "ica": 12.0, "rpca": 10.0}, n=12)
    view = view_of(run, tmp_path)
    every = distributions(view)
    assert every is not None
    order = ["ideal-mask", "nmf", "ica", "rpca"]
    assert [(pair["a"], pair["b"]) for pair in every.pairs["pairs"]] == [(a, b) for k, a in enumerate(order) for b in order[k + 1 :]]
    assert [(one.first, one.second) for one in every.against_best] == [("ideal-mask", "nmf"), ("nmf", "ica"), ("nmf", "rpca")]
    assert every.pairs["first"] == ["nmf", "ica"]  # a bound is not what one wants to see first
    monkeypatch.setattr(module, "_MOST_PAIRED", 4)
    assert len((distributions(view) or every).pairs["pairs"]) == 6
    monkeypatch.setattr(module, "_MOST_PAIRED", 3)
    few = distributions(view)
    assert few is not None
    assert [(pair["a"], pair["b"]) for pair in few.pairs["pairs"]] == [("nmf", "ideal-mask"), ("nmf", "ica"), ("nmf", "rpca")]


def test_axes_say_metric_unit_and_direction(drawn: dict[str, tuple[Any, ...]], tmp_path: Path) -> None:
    found = distributions(view_of(SyntheticRun(n=12), tmp_path))
    assert found is not None
    charts = (found.histogram, found.pair_chart, found.difference_chart, found.failure_chart)
    assert charts == ("strips", "pair_histograms", "difference_histogram", "lines")  # type: ignore[comparison-overlap]
    axis = "psnr of a mixture [dB]; higher is better"
    assert drawn["strips"][2:] == (axis, ["nmf", "average"], "Histograms of psnr over the mixtures of class-split, one strip per method")
    assert drawn["pair_histograms"] == (axis, "Histograms of the two chosen methods over each other")
    assert drawn["difference_histogram"] == ("difference of psnr [dB]", "Histogram of the paired differences, with their mean's interval")
    told = "Share of mixtures of class-split worse than a threshold, by method"
    assert drawn["lines"][1:] == ("threshold of psnr [dB]", "share of mixtures that are worse", told, True)
    cells, marks = drawn["strips"][:2]
    assert sum(cell["count"] for cell in cells) == 24
    assert max(cell["share"] for cell in cells) == 1.0
    assert all(cell["count"] for cell in cells)
    assert [mark["text"] for mark in marks] == [f"{mark['mean']:.2f}, {mark['median']:.2f}" for mark in marks]
    assert len(drawn["lines"][0]) == 2 * 41
    assert len(found.thresholds) == 5
    assert all(one.startswith("below ") and one.endswith(" dB") for one in found.thresholds)


def test_values_beyond_the_axis_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    view, real = view_of(SyntheticRun(n=12), tmp_path), module.binned
    said = "each strip is one method's histogram: the darker, the more mixtures; line: mean, dot: median"
    for outside, end in ((0, ""), (1234, "; 1,234 values beyond the axis are in the outermost bins")):
        monkeypatch.setattr(module, "binned", lambda *given, outside=outside: (*real(*given)[:2], outside))
        found = distributions(view)
        assert found is not None
        assert found.note == said + end


def test_values_of_whole_sets_have_no_section(tmp_path: Path) -> None:
    """What each mixture adds to a metric of sets is no value of the mixture."""
    view = view_of(SyntheticRun({"nmf": 16.0, "ica": 12.0}, n=12), tmp_path)
    assert distributions(view) is not None
    whole = {method: replace(values, whole_only=True) for method, values in view.values.items()}
    assert distributions(replace(view, values=whole)) is None
    some = distributions(replace(view, values={"nmf": view.values["nmf"], "ica": whole["ica"]}))
    assert some is not None
    assert some.pairs["methods"] == ["nmf"]


def test_two_methods_without_a_common_mixture_are_no_pair_and_the_others_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """How large values are, for the rounding of differences, is told by the larger mean of the two."""
    view = view_of(SyntheticRun({"nmf": 16.0, "ica": 12.0, "rpca": 10.0}, n=12), tmp_path)
    numbers = np.linspace(-1.0, 1.0, 12)
    apart = {
        "nmf": MetricValues(np.arange(12), 3.0 + numbers),
        "ica": MetricValues(np.arange(100, 112), -7.0 + numbers),
        "rpca": MetricValues(np.arange(12), -5.0 - numbers),
    }
    scales: list[float] = []
    monkeypatch.setattr(module, "verdict", lambda paired, higher, scale: scales.append(scale) or "A better")
    found = distributions(replace(view, values=apart))
    assert found is not None
    (pair,) = found.pairs["pairs"]
    assert (pair["a"], pair["b"], pair["mean"]) == ("nmf", "rpca", 8.0)
    assert scales == pytest.approx([5.0])
    assert pair["text"].endswith(", n = 12, nmf is better on 100%: nmf is better")
    assert (pair["edges"], sum(pair["counts"]), len(pair["counts"])) == ([6.0, 10.0], 12, 10)
    assert [(one.first, one.second) for one in found.against_best] == [("nmf", "rpca")]
    other = distributions(replace(view, values={"nmf": apart["rpca"], "ica": apart["nmf"]}))
    assert other is not None
    assert scales[1:] == pytest.approx([5.0])
    assert "ica is better on" not in other.pairs["pairs"][0]["text"]


def test_where_nothing_is_ranked_all_are_compared_with_the_first(tmp_path: Path) -> None:
    view = view_of(SyntheticRun({"average": 14.0, "ideal-mask": 20.0, "mixture": 10.0}, n=12), tmp_path)
    found = distributions(view)
    assert found is not None
    assert [(one.first, one.second) for one in found.against_best] == [("ideal-mask", "average"), ("ideal-mask", "mixture")]
    assert found.pairs["first"] == ["ideal-mask", "average"]


def test_a_method_with_a_single_value_hides_no_other(tmp_path: Path) -> None:
    view = view_of(SyntheticRun({"nmf": 16.0, "ica": 12.0}, n=12), tmp_path)
    single = MetricValues(np.array([3]), np.array([11.0]))
    found = distributions(replace(view, values={"nmf": view.values["nmf"], "ica": single}))
    assert found is not None
    assert found.pairs["methods"] == ["nmf", "ica"]
    assert [sum(counts) for counts in found.pairs["histograms"].values()] == [12, 1]


@pytest.mark.parametrize(
    ("unit", "means", "text", "told"),
    [("dB", (0.004, -20.0), "0.25", "dB"), ("dB", (0.004, -0.002), "0.2500", "dB"), ("1", (NAN, 0.5), "0.250", ""), ("", (NAN, math.inf), "0.250", "")],
)
def test_numbers_of_the_section_have_the_digits_of_the_largest_mean(unit: str, means: tuple[float, float], text: str, told: str) -> None:
    records = {"a": {"mean": means[0]}, "b": {"mean": means[1]}}
    view: Any = type("View", (), {"metric": MetricWords("m", unit, True, ""), "values": records, "first": staticmethod(records.__getitem__)})()
    write, shown = _writer(view)
    assert (write(0.25), shown) == (text, told)


def test_differences_far_out_are_counted_in_the_outermost_bins(drawn: dict[str, tuple[Any, ...]], tmp_path: Path) -> None:
    """There are as many bins as the square root of the number of pairs, and numbers of thousands have commas."""
    view = view_of(SyntheticRun({"nmf": 16.0, "ica": 12.0}, n=12), tmp_path)
    rising = np.linspace(0.0, 1.234567, 1200)
    far = rising.copy()
    far[7] = -1000.0
    held = {"nmf": MetricValues(np.arange(1200), np.zeros(1200)), "ica": MetricValues(np.arange(1200), far)}
    found = distributions(replace(view, values=held, designs=TaskDesigns(lambda task: None)))
    assert found is not None
    (pair,) = found.pairs["pairs"]
    assert (len(pair["counts"]), sum(pair["counts"])) == (34, 1200)
    assert pair["edges"][1] < 2.0
    assert " over 1,200 " in found.interval
    assert (drawn["strips"][0][-1]["low"], drawn["strips"][0][-1]["high"]) == (1.1983, 1.2346)  # of five digits


def test_what_is_seen_first(tmp_path: Path) -> None:
    """The two best that are ranked and have values, or else the first two."""
    view = view_of(SyntheticRun({"ideal-mask": 20.0, "nmf": 16.0, "ica": 12.0, "rpca": 10.0}, n=12), tmp_path)
    lost = MetricValues(np.arange(12), np.full(12, NAN))
    for without, first in (((), ["nmf", "ica"]), (("nmf",), ["ica", "rpca"]), (("nmf", "ica"), ["ideal-mask", "rpca"])):
        found = distributions(replace(view, values={name: lost if name in without else values for name, values in view.values.items()}))
        assert found is not None
        assert found.pairs["first"] == first
