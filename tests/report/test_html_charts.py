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


def rows_of(chart: Chart) -> list[dict[str, Any]]:
    (rows,) = chart.spec["datasets"].values()
    return list(rows)


def coloured(chart: Chart, channel: str) -> list[tuple[str, str]]:
    """The legend of the first mark that has such a channel."""
    scale = next(layer["encoding"][channel]["scale"] for layer in layers(chart.spec) if "scale" in layer["encoding"].get(channel, {}))
    return list(zip(scale["domain"], scale["range"], strict=True))


def test_numbers_that_do_not_exist_are_null_and_all_others_stay() -> None:
    chart = charts.forest([ROW | {"low": float("nan"), "high": float("inf"), "median": -float("inf"), "n": 0}], "psnr", {}, 3, "")
    (row,) = rows_of(chart)
    assert row == dict(ROW) | {"low": None, "high": None, "median": None, "n": 0}


@pytest.mark.parametrize("make", [lambda rows: charts.forest(rows, "psnr", {}, 3, ""), lambda rows: charts.pareto(rows, "PSNR", "s", "")])
def test_legends_name_the_parts_that_are_there_in_their_order(make: Any) -> None:
    styles = ["published", "bounds", "ranked", "ranked"]
    chart = make([ROW | {"style": style} for style in styles])
    assert coloured(chart, "color") == [("ranked", "#0072B2"), ("bounds", "#8a8f98"), ("published", "#E69F00")]
    every = make([ROW | {"style": style} for style in charts.STYLES])
    assert coloured(every, "color")[0] == ("equal to the best", "#009E73")
    assert coloured(every, "color")[3] == ("not ranked", "#CC79A7")


def test_shapes_of_the_parts() -> None:
    chart = charts.forest([ROW | {"style": style} for style in charts.STYLES], "psnr", {}, 3, "")
    shapes = {"equal to the best": "circle", "ranked": "circle", "bounds": "square", "not ranked": "triangle", "published": "diamond"}
    assert dict(coloured(chart, "shape")) == shapes


@pytest.mark.parametrize(("longest", "room"), [(3, 27), (28, 252), (29, 260), (100, 260)])
def test_names_of_methods_have_the_room_that_they_need(longest: int, room: int) -> None:
    spec = charts.forest([ROW], "ssim", {"ssim": "SSIM, higher is better"}, longest, "").spec
    assert {layer["encoding"]["y"]["axis"]["labelLimit"] for layer in layers(spec)} == {room}
    assert {param["name"]: param["value"] for param in spec["params"]} == {"metric": "ssim", "hidden": [], "heads": {"ssim": "SSIM, higher is better"}}


@pytest.mark.parametrize(("groups", "first"), [("aab", "a"), ("abb", "b"), ("ab", "a"), ("bacca", "a")])
def test_the_largest_group_of_machines_is_shown_first(groups: str, first: str) -> None:
    spec = charts.pareto([ROW | {"group": group} for group in groups], "PSNR", "s", "").spec
    assert [(param["name"], param["value"]) for param in spec["params"]] == [("group", first)]


@pytest.mark.parametrize(("count", "scheme"), [(10, "tableau10"), (11, "tableau20")])
def test_more_than_ten_methods_have_more_colours(count: int, scheme: str) -> None:
    rows = [ROW | {"method": f"m{number}"} for number in range(count)] * 2
    for chart in (charts.lines(rows, "x", "y", ""), charts.history(rows, "dB", "")):
        colour = next(layer["encoding"]["color"] for layer in layers(chart.spec))
        assert colour["scale"] == {"scheme": scheme}


@pytest.mark.parametrize(
    ("rows", "top"),
    [([], 4.0), ([{"density": 0.5}], 0.5), ([{"density": 1.25}, {"density": 3.0}], 3.0), ([{"density": 4.5}, {"density": 1.0}], 4.0)],
)
def test_the_highest_bar_of_pit_histograms(rows: list[dict[str, float]], top: float) -> None:
    spec = charts.pit([ROW | row for row in rows], ["b", "a"], "").spec
    bars, level = layers(spec)
    assert bars["encoding"]["y"]["scale"] == {"domain": [0, top], "nice": False}
    assert bars["mark"] == {"type": "bar", "color": "#0072B2", "clip": True}
    assert (bars["encoding"]["x"]["bin"], bars["encoding"]["x"]["scale"]) == ("binned", {"domain": [0, 1]})
    assert (level["mark"]["color"], level["encoding"]["y"]["datum"]) == ("#D55E00", 1.0)
    assert (spec["columns"], spec["facet"]) == (4, {"field": "method", "sort": ["b", "a"], "title": None, "type": "nominal"})
    assert (spec["spec"]["width"], spec["spec"]["height"]) == (150, 90)


def test_draws_of_samplers_stand_out_from_exact_ones() -> None:
    chart = charts.scatter([ROW, ROW | {"kind": "sampler"}], ["b", "a"], "x", "y", "")
    assert coloured(chart, "color") == [("exact", "#8a8f98"), ("sampler", "#D55E00")]
    assert (chart.spec["columns"], chart.spec["facet"]["sort"], len(rows_of(chart))) == (4, ["b", "a"], 2)
    encoding = chart.spec["spec"]["encoding"]
    assert (encoding["x"]["scale"], encoding["y"]["scale"]) == ({"zero": False}, {"zero": False})
    assert (chart.spec["spec"]["width"], chart.spec["spec"]["height"]) == (170, 170)


def test_findings_of_a_history_have_their_colours_and_shapes() -> None:
    flags = ["new", "regression", "holds", "worse, not tested"]
    chart = charts.history([ROW | {"flag": flag} for flag in flags], "dB", "")
    colours = [("holds", "#8a8f98"), ("regression", "#D55E00"), ("worse, not tested", "#E69F00"), ("new", "#0072B2")]
    assert coloured(chart, "fill") == colours
    shapes = ["circle", "triangle-down", "triangle-down", "circle"]
    assert coloured(chart, "shape") == list(zip([flag for flag, _ in colours], shapes, strict=True))
    every = charts.history([ROW | {"flag": flag} for flag in charts.FLAGS], "dB", "")
    assert dict(coloured(every, "fill"))["improvement"] == "#009E73"
    assert dict(coloured(every, "fill"))["not comparable"] == "#CC79A7"
    assert dict(coloured(every, "shape"))["improvement"] == "triangle-up"
    line, _ = layers(chart.spec)
    assert line["encoding"]["x"]["sort"] == {"field": "step", "op": "min"}
    assert chart.spec["resolve"] == {"scale": {"color": "independent"}}
    assert [(param["name"], param["value"]) for param in chart.spec["params"]] == [("hidden", [])]


@pytest.mark.parametrize(("points", "dots"), [(False, (20, 0.0)), (True, (45, 1.0))])
def test_points_of_lines_are_seen_where_they_are_values_of_a_setting(points: bool, dots: tuple[int, float]) -> None:
    rows = [ROW | {"x": 4.0, "low": None}, ROW | {"x": 2.0, "low": None}]
    line, point = layers(charts.lines(rows, "x", "y", "", points=points).spec)  # no rule: there is no interval
    assert (point["mark"]["size"], point["encoding"]["opacity"]["value"]) == dots
    assert line["encoding"]["x"]["scale"].get("padding") == (12 if points else None)
    assert line["encoding"]["x"].get("axis", {}).get("values") == ([2.0, 4.0] if points else None)
    some = charts.lines([rows[0], rows[1] | {"low": 1.0}], "x", "y", "", points=points)
    assert len(list(layers(some.spec))) == (3 if points else 2)
    assert line["transform"] == [{"filter": "indexof(hidden, datum.method) < 0"}]
