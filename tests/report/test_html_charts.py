"""The charts of the HTML report as specifications: which number each mark stands at, and what every axis and tooltip is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from sepbench.report.html import charts
from sepbench.report.html.charts import Chart

pytest.importorskip("altair")

Marks = list[tuple[str, dict[str, str]]]

ROW: Mapping[str, Any] = {
    **{"method": "nmf", "metric": "psnr", "text": "1 dB", "style": "ranked", "group": "g", "told": "1 s", "supervision": "blind", "n": "3", "kind": "exact"},
    **{"mean": 1.0, "low": 0.0, "high": 2.0, "median": 1.5, "cost": 3.0, "share": 0.5, "density": 1.0, "x": 1.0, "y": 2.0, "count": 2, "order": 0, "step": 0},
    **{"front": True, "turned": False, "when": "May", "flag": "holds"},
}


def layers(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The single marks that a chart is put together from."""
    if "layer" in spec:
        for part in spec["layer"]:
            yield from layers(part)
    elif "spec" in spec:
        yield from layers(spec["spec"])
    else:
        yield spec


def places(chart: Chart) -> Marks:
    """Of every mark: channel of place -> field, with ``: title`` where a title is given."""
    found = []
    for layer in layers(chart.spec):
        told = {}
        for channel in ("x", "x2", "y", "y2"):
            if channel in layer["encoding"]:
                one = layer["encoding"][channel]
                told[channel] = f"{one.get('field', one.get('datum'))}" + (f": {one['title']}" if one.get("title") else "")
        found.append((layer["mark"]["type"], told))
    return found


def tips(chart: Chart) -> list[list[str]]:
    """What is shown on hovering, of every mark that shows something."""
    shown = (layer["encoding"].get("tooltip", []) for layer in layers(chart.spec))
    return [[f"{one['field']}" + (f": {one['title']}" if "title" in one else "") for one in tip] for tip in shown if tip]


STRIP_TIPS = [["method", "low: from", "high: to", "count"], ["method", "text: mean, median"], ["method", "text: mean, median"]]
PARETO_TIP = ["method", "text: PSNR", "told: seconds", "style: part"]
FOREST_TIP = ["method", "text: value", "supervision", "n", "style"]
LINE_TIP = ["method", "text: value"]
PARETO_POINT = {"x": "cost: seconds", "y": "mean: PSNR"}
LINE_POINT = {"x": "x: noise", "y": "y: error"}

CASES: dict[str, tuple[Chart | Any, Marks, list[list[str]]]] = {
    "forest": (
        lambda: charts.forest([ROW], "psnr", {"psnr": "PSNR"}, 3, "words"),
        [("rule", {"x": "low", "x2": "high", "y": "method"}), ("point", {"x": "mean", "y": "method"})],
        [FOREST_TIP, FOREST_TIP],
    ),
    "pareto": (
        lambda: charts.pareto([ROW], "PSNR", "seconds", "words"),
        [
            ("line", PARETO_POINT),
            ("rule", {"x": "cost: seconds", "y": "low: PSNR", "y2": "high"}),
            ("point", PARETO_POINT),
            ("text", PARETO_POINT),
            ("text", PARETO_POINT),
        ],
        [PARETO_TIP, PARETO_TIP],
    ),
    "strips": (
        lambda: charts.strips([ROW], [ROW], "PSNR", ["nmf"], "words"),
        [("rect", {"x": "low: PSNR", "x2": "high", "y": "method"}), ("tick", {"x": "mean", "y": "method"}), ("point", {"x": "median", "y": "method"})],
        STRIP_TIPS,
    ),
    "pair": (
        lambda: charts.pair_histograms("PSNR", "words"),
        [("bar", {"x": "low: PSNR", "x2": "high", "y": "count: mixtures"})],
        [["method", "low", "high", "count"]],
    ),
    "difference": (
        lambda: charts.difference_histogram("PSNR", "words"),
        [
            ("bar", {"x": "low: PSNR", "x2": "high", "y": "count: mixtures"}),
            ("rule", {"x": "low"}),
            ("rect", {"x": "low", "x2": "high"}),
            ("rule", {"x": "mean"}),
        ],
        [["low", "high", "count"]],
    ),
    "lines": (lambda: charts.lines([ROW], "noise", "error", "words"), [("line", LINE_POINT), ("point", LINE_POINT)], [LINE_TIP, LINE_TIP]),
    "lines with points": (
        lambda: charts.lines([ROW], "noise", "error", "words", points=True),
        [("line", LINE_POINT), ("point", LINE_POINT), ("rule", {"x": "x: noise", "y": "low", "y2": "high"})],
        [LINE_TIP, LINE_TIP, LINE_TIP],
    ),
    "pit": (
        lambda: charts.pit([ROW], ["nmf"], "words"),
        [("bar", {"x": "low: PIT", "x2": "high", "y": "density: density"}), ("rule", {"y": "1.0"})],
        [["method", "density"]],
    ),
    "scatter": (lambda: charts.scatter([ROW], ["nmf"], "pixel 1", "pixel 2", "words"), [("circle", {"x": "x: pixel 1", "y": "y: pixel 2"})], []),
    "history": (
        lambda: charts.history([ROW], "dB", "words"),
        [("line", {"x": "when", "y": "mean: dB"}), ("point", {"x": "when", "y": "mean: dB"})],
        [["method", "when", "text: value", "flag: against the row before"]],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_mark_stands_at_its_number_and_every_axis_has_its_own_title(name: str) -> None:
    make, marks, told = CASES[name]
    chart = make()
    assert places(chart) == marks
    assert tips(chart) == told
    assert chart.words == "words"


def test_all_charts_are_here() -> None:
    made = {name for name, value in vars(charts).items() if getattr(value, "__annotations__", {}).get("return") == "Chart" and not name.startswith("_")}
    assert made == {"forest", "pareto", "strips", "pair_histograms", "difference_histogram", "lines", "pit", "scatter", "history"}
    assert len(CASES) == len(made) + 1  # lines in both forms


@pytest.mark.parametrize(("log", "kind"), [(False, "linear"), (True, "log")])
@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize("percent", [False, True])
def test_lines_take_the_scale_and_the_form_of_numbers_that_are_asked_for(log: bool, kind: str, points: bool, percent: bool) -> None:
    for layer in list(layers(charts.lines([ROW], "noise", "error", "", log=log, points=points, percent=percent).spec))[:2]:
        encoding = layer["encoding"]
        assert encoding["x"]["scale"]["type"] == kind
        assert encoding["y"]["axis"].get("format") == ("%" if percent else None)
        assert encoding["x"].get("axis", {}).get("values") == ([1.0] if points else None)


def test_the_parts_of_the_difference_chart_show_their_own_data() -> None:
    spec = charts.difference_histogram("PSNR", "").spec
    bars, zero, band, mean = layers(spec)
    assert [part["data"]["name"] for part in (bars, band, mean)] == ["pair", "interval", "interval"]
    assert spec["datasets"][zero["data"]["name"]] == [{"low": 0}]
