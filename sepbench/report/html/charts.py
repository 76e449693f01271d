"""Every chart of the report, as Vega-Lite specifications made with Altair. Numbers come from elsewhere: here they are only given places and colours.

Colours are those of Okabe and Ito (2008). Text and axes take theirs from the page's theme, see ``assets/charts.js``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sepbench.report.panels.canvas import COLOURS

BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, _ = COLOURS
GREY = "#8a8f98"
STYLES = {"equal to the best": GREEN, "ranked": BLUE, "bounds": GREY, "not ranked": PINK, "published": ORANGE}
SHAPES = {"equal to the best": "circle", "ranked": "circle", "bounds": "square", "not ranked": "triangle", "published": "diamond"}
NOT_TESTED = "worse, not tested"
FLAGS = {"holds": GREY, "improvement": GREEN, "regression": VERMILION, NOT_TESTED: ORANGE, "not comparable": PINK, "new": BLUE}
"""Findings of the gate on a row of a history, with their colours."""
MARKS = {"improvement": "triangle-up", "regression": "triangle-down", NOT_TESTED: "triangle-down"}
"""Their shapes, where they are no circles."""
PIT_TOP = 4.0
"""Highest density that PIT histograms show; 1 is uniform."""
_STEP = 19

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Chart:
    """A specification as JSON would have it, and what it shows in words."""

    spec: Mapping[str, Any]
    words: str


def _finished(chart: Any, words: str) -> Chart:
    return Chart(chart.to_dict(), words)


def _data(rows: Rows) -> Any:
    cleaned = [{key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()} for row in rows]
    return {"values": cleaned}


def _style_colour(rows: Rows) -> Any:
    """Colours by part of the table; the legend names those that are there."""
    import altair as alt

    there = [style for style in STYLES if any(row["style"] == style for row in rows)]
    scale = alt.Scale(domain=there, range=[STYLES[style] for style in there])
    return alt.Color("style:N", scale=scale, legend=alt.Legend(title=None, orient="top"))


def _method_colour(rows: Rows) -> Any:
    """A colour per method, from a palette that has as many as that can be had."""
    import altair as alt

    many = len({row["method"] for row in rows}) > 10
    return alt.Color("method:N", scale=alt.Scale(scheme="tableau20" if many else "tableau10"), legend=alt.Legend(title=None, orient="bottom", symbolLimit=60))


def forest(rows: Rows, metric: str, heads: Mapping[str, str], longest: int, words: str) -> Chart:
    """Means with intervals, a line per method.

    Args:
        rows: ``method``, ``metric``, ``mean``, ``low``, ``high``, ``style`` (of ``STYLES``), ``order`` within the metric, ``text``, ``supervision``, ``n``.
        metric: shown first; the page sets the parameter ``metric``, and ``hidden``, the methods that the table's filters hide.
        heads: metric -> title of the axis.
    """
    import altair as alt

    chosen = alt.param(name="metric", value=metric)
    hidden = alt.param(name="hidden", value=[])
    titles = alt.param(name="heads", value=dict(heads))
    base = (
        alt.Chart(_data(rows))
        .transform_filter("datum.metric == metric && indexof(hidden, datum.method) < 0")
        .encode(
            y=alt.Y("method:N", sort=alt.EncodingSortField("order", op="min", order="ascending"), title=None, axis=alt.Axis(labelLimit=min(260, 9 * longest))),
            color=_style_colour(rows),
            tooltip=[alt.Tooltip("method:N"), alt.Tooltip("text:N", title="value"), alt.Tooltip("supervision:N"), alt.Tooltip("n:N"), alt.Tooltip("style:N")],
        )
    )
    value = alt.X("mean:Q", scale=alt.Scale(zero=False), title=None)
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", scale=alt.Scale(zero=False), title=None), x2="high:Q")
    there = [style for style in STYLES if any(row["style"] == style for row in rows)]
    shapes = alt.Shape("style:N", scale=alt.Scale(domain=there, range=[SHAPES[style] for style in there]), legend=alt.Legend(title=None, orient="top"))
    points = base.mark_point(filled=True, size=60, opacity=1).encode(x=value, shape=shapes)
    chart = (bars + points).add_params(chosen, hidden, titles)
    title = alt.TitleParams(text=alt.ExprRef("heads[metric]"), anchor="start", fontSize=12)
    return _finished(
        chart.properties(width="container", height=alt.Step(_STEP), autosize=alt.AutoSizeParams(type="fit-x", contains="padding"), title=title), words
    )


def pareto(rows: Rows, quantity: str, axis: str, words: str) -> Chart:
    """Quality against cost, both with names; ``group`` is the parameter that tells timing groups apart.

    Args:
        rows: ``method``, ``cost``, ``mean``, ``low``, ``high``, ``text``, ``group``, ``style``, ``told`` (the cost as text),
            ``front`` (whether nothing is better and cheaper), ``turned`` (whether its name stands to the left).
    """
    import altair as alt

    groups = list(dict.fromkeys(str(row["group"]) for row in rows))
    counts = {group: sum(row["group"] == group for row in rows) for group in groups}
    chosen = alt.param(name="group", value=max(groups, key=lambda group: counts[group]))
    base = alt.Chart(_data(rows)).transform_filter("datum.group == group")
    log = alt.Scale(type="log", padding=14, nice=False)
    x = alt.X("cost:Q", scale=log, title=axis, axis=alt.Axis(tickCount=6, format="~g", labelOverlap="greedy", labelSeparation=8))
    tooltip = [alt.Tooltip("method:N"), alt.Tooltip("text:N", title=quantity), alt.Tooltip("told:N", title=axis), alt.Tooltip("style:N", title="part")]
    colour = _style_colour(rows)
    bars = base.mark_rule(strokeWidth=1.5).encode(
        x=x, y=alt.Y("low:Q", scale=alt.Scale(zero=False), title=quantity), y2="high:Q", color=colour, tooltip=tooltip
    )
    y = alt.Y("mean:Q", scale=alt.Scale(zero=False), title=quantity)
    points = base.mark_point(filled=True, size=75, opacity=1).encode(x=x, y=y, color=colour, tooltip=tooltip)
    front = base.transform_filter("datum.front").mark_line(interpolate="step-after", strokeDash=[4, 3], color=GREY, aria=False).encode(x=x, y=y, order="cost:Q")
    right = base.transform_filter("!datum.turned").mark_text(align="left", dx=8, dy=-5, fontSize=11).encode(x=x, y=y, text="method:N")
    left = base.transform_filter("datum.turned").mark_text(align="right", dx=-8, dy=-5, fontSize=11).encode(x=x, y=y, text="method:N")
    return _finished((front + bars + points + right + left).add_params(chosen).properties(width="container", height=380), words)


def strips(rows: Rows, marks: Rows, axis: str, order: Sequence[str], words: str) -> Chart:
    """Histograms of all methods as strips: the darker, the more mixtures; a line at the mean, a dot at the median.

    Args:
        rows: ``method``, ``low``, ``high``, ``count``, ``share``.
        marks: ``method``, ``mean``, ``median``, ``text``.
    """
    import altair as alt

    hidden = alt.param(name="hidden", value=[])
    y = alt.Y("method:N", sort=list(order), title=None, axis=alt.Axis(labelLimit=220))
    x = alt.X("low:Q", title=axis, scale=alt.Scale(zero=False, nice=False))
    tooltip = [alt.Tooltip("method:N"), alt.Tooltip("low:Q", format=".4~g", title="from"), alt.Tooltip("high:Q", format=".4~g", title="to"), "count:Q"]
    cells = (
        alt.Chart(_data(rows))
        .transform_filter("indexof(hidden, datum.method) < 0")
        .mark_rect()
        .encode(x=x, x2="high:Q", y=y, opacity=alt.Opacity("share:Q", legend=None, scale=alt.Scale(range=[0, 1])), color=alt.value(BLUE), tooltip=tooltip)
    )
    shown = alt.Chart(_data(marks)).transform_filter("indexof(hidden, datum.method) < 0")
    told = [alt.Tooltip("method:N"), alt.Tooltip("text:N", title="mean, median")]
    means = shown.mark_tick(thickness=3, color=VERMILION).encode(x="mean:Q", y=y, tooltip=told)
    medians = shown.mark_point(filled=True, size=26, color=ORANGE, opacity=1).encode(x="median:Q", y=y, tooltip=told)
    return _finished(
        (cells + means + medians)
        .add_params(hidden)
        .properties(width="container", height=alt.Step(_STEP), autosize=alt.AutoSizeParams(type="fit-x", contains="padding")),
        words,
    )


def pair_histograms(axis: str, words: str) -> Chart:
    """Two methods' histograms over each other; the page fills the data set ``pair`` (``low``, ``high``, ``count``, ``method``)."""
    import altair as alt

    bars = (
        alt.Chart(alt.NamedData(name="pair"))
        .mark_bar(opacity=0.55)
        .encode(
            x=alt.X("low:Q", bin="binned", title=axis, scale=alt.Scale(zero=False, nice=False)),
            x2="high:Q",
            y=alt.Y("count:Q", stack=None, title="mixtures"),
            color=alt.Color("method:N", scale=alt.Scale(range=[BLUE, ORANGE]), sort=None, legend=alt.Legend(title=None, orient="top")),
            tooltip=["method:N", alt.Tooltip("low:Q", format=".4~g"), alt.Tooltip("high:Q", format=".4~g"), "count:Q"],
        )
    )
    return _finished(bars.properties(width="container", height=200, datasets={"pair": []}), words)


def difference_histogram(axis: str, words: str) -> Chart:
    """Paired differences; the page fills ``pair`` (``low``, ``high``, ``count``) and ``interval`` (``mean``, ``low``, ``high``)."""
    import altair as alt

    x = alt.X("low:Q", bin="binned", title=axis, scale=alt.Scale(zero=True, nice=False))
    bars = (
        alt.Chart(alt.NamedData(name="pair"))
        .mark_bar(color=SKY)
        .encode(
            x=x,
            x2="high:Q",
            y=alt.Y("count:Q", title="mixtures"),
            tooltip=[alt.Tooltip("low:Q", format=".4~g"), alt.Tooltip("high:Q", format=".4~g"), "count:Q"],
        )
    )
    zero = alt.Chart(_data([{"low": 0}])).mark_rule(strokeDash=[4, 3], color=GREY).encode(x="low:Q")
    named = alt.Chart(alt.NamedData(name="interval"))
    band = named.mark_rect(opacity=0.35, color=VERMILION).encode(x="low:Q", x2="high:Q")
    mean = named.mark_rule(strokeWidth=2, color=VERMILION).encode(x="mean:Q")
    return _finished((bars + zero + band + mean).properties(width="container", height=200, datasets={"pair": [], "interval": []}), words)


def lines(rows: Rows, x_title: str, y_title: str, words: str, *, log: bool = False, points: bool = False, percent: bool = False) -> Chart:
    """A line per method through ``x``, ``y``; the one under the pointer is brought out. ``text`` is shown on hovering."""
    import altair as alt

    hidden = alt.param(name="hidden", value=[])
    x = alt.X("x:Q", title=x_title, scale=alt.Scale(zero=False, nice=False, type="log" if log else "linear"))
    if points:  # few values of a setting: each has its tick, and none lies on the edge
        ticks = alt.Axis(values=sorted({row["x"] for row in rows}), format="~g", labelOverlap="greedy")
        x = alt.X("x:Q", title=x_title, axis=ticks, scale=alt.Scale(zero=False, nice=False, padding=12, type="log" if log else "linear"))
    near = alt.selection_point(name="near", fields=["method"], on="pointerover", nearest=True, empty=False, clear="pointerout")
    base = (
        alt.Chart(_data(rows))
        .transform_filter("indexof(hidden, datum.method) < 0")
        .encode(
            x=x,
            y=alt.Y("y:Q", title=y_title, scale=alt.Scale(zero=False), axis=alt.Axis(format="%") if percent else alt.Axis()),
            color=_method_colour(rows),
            tooltip=[alt.Tooltip("method:N"), alt.Tooltip("text:N", title="value")],
        )
    )
    drawn = base.mark_line().encode(strokeWidth=alt.condition(near, alt.value(4), alt.value(1.6)))
    dots = base.mark_point(filled=True, size=45 if points else 20, opacity=1).encode(opacity=alt.value(1.0 if points else 0.0)).add_params(near)
    layers = drawn + dots
    if points and any(row.get("low") is not None for row in rows):
        layers = layers + base.mark_rule(opacity=0.6).encode(y="low:Q", y2="high:Q")
    return _finished(layers.add_params(hidden).properties(width="container", height=300), words)


def pit(rows: Rows, methods: Sequence[str], words: str) -> Chart:
    """PIT histograms, one panel per method; the line is the uniform density of an exact sampler.

    Args:
        rows: ``method``, ``low``, ``high``, ``density``. Bars above ``PIT_TOP`` are cut, so that one bad sampler does not flatten all others.
    """
    import altair as alt

    top = min(PIT_TOP, max((row["density"] for row in rows), default=PIT_TOP))
    density = alt.Y("density:Q", title="density", scale=alt.Scale(domain=[0, top], nice=False), axis=alt.Axis(tickCount=4))
    base = alt.Chart().encode(x=alt.X("low:Q", bin="binned", title="PIT", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(values=[0, 0.5, 1])))
    bars = base.mark_bar(color=BLUE, clip=True).encode(x2="high:Q", y=density, tooltip=["method:N", alt.Tooltip("density:Q", format=".3f")])
    level = alt.Chart().mark_rule(color=VERMILION, strokeDash=[4, 3], aria=False).encode(y=alt.datum(1.0))
    panel = alt.layer(bars, level).properties(width=150, height=90)
    chart = panel.facet(facet=alt.Facet("method:N", sort=list(methods), title=None), columns=4, data=_data(rows))
    return _finished(chart, words)


def scatter(rows: Rows, methods: Sequence[str], x_title: str, y_title: str, words: str) -> Chart:
    """Draws of one mixture (``x``, ``y``) over exact ones (``kind``), one panel per method."""
    import altair as alt

    points = (
        alt.Chart(_data(rows))
        .mark_circle(size=14, opacity=0.6)
        .encode(
            x=alt.X("x:Q", title=x_title, scale=alt.Scale(zero=False)),
            y=alt.Y("y:Q", title=y_title, scale=alt.Scale(zero=False)),
            color=alt.Color("kind:N", scale=alt.Scale(domain=["exact", "sampler"], range=[GREY, VERMILION]), legend=alt.Legend(title=None, orient="top")),
        )
        .properties(width=170, height=170)
    )
    return _finished(points.facet(facet=alt.Facet("method:N", sort=list(methods), title=None), columns=4), words)


def history(rows: Rows, unit: str, words: str) -> Chart:
    """Means over time: ``method``, ``when`` (text, in order ``step``), ``mean``, ``low``, ``high``, ``text``, ``flag`` of the gate."""
    import altair as alt

    flags = {flag: colour for flag, colour in FLAGS.items() if any(row["flag"] == flag for row in rows)}
    shapes = alt.Scale(domain=list(flags), range=[MARKS.get(flag, "circle") for flag in flags])
    hidden = alt.param(name="hidden", value=[])
    base = alt.Chart(_data(rows)).transform_filter("indexof(hidden, datum.method) < 0")
    x = alt.X("when:O", sort=alt.EncodingSortField("step", op="min"), title=None, axis=alt.Axis(labelAngle=-40))
    y = alt.Y("mean:Q", scale=alt.Scale(zero=False), title=unit)
    drawn = base.mark_line(opacity=0.7).encode(x=x, y=y, color=_method_colour(rows))
    told = [alt.Tooltip("method:N"), alt.Tooltip("when:N"), alt.Tooltip("text:N", title="value"), alt.Tooltip("flag:N", title="against the row before")]
    dots = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=x,
        y=y,
        fill=alt.Fill("flag:N", scale=alt.Scale(domain=list(flags), range=list(flags.values())), legend=alt.Legend(title="gate", orient="top")),
        shape=alt.Shape("flag:N", scale=shapes, legend=alt.Legend(title="gate", orient="top")),
        tooltip=told,
    )
    return _finished((drawn + dots).resolve_scale(color="independent").add_params(hidden).properties(width="container", height=320), words)
