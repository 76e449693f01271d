"""Figures in words: every text, line and picture of a matplotlib figure with its place, size and colour, for golden files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


def described(figure: Any) -> str:
    """One line per part of a figure that was drawn and not yet saved."""
    return "\n".join(_parts(figure)) + "\n"


def _parts(figure: Any) -> Iterator[str]:
    yield f"figure of {_numbers(figure.get_size_inches())} inches at {figure.dpi:g}, {_colour(figure.get_facecolor())}"
    yield from (f" {_text(text)}" for text in figure.texts)
    yield from (f" {_legend(legend)}" for legend in figure.legends)
    for axes in figure.axes:
        yield from (f" {line}" for line in _axes(axes))


def _axes(axes: Any) -> Iterator[str]:
    shared = len(axes.get_shared_x_axes().get_siblings(axes))
    yield f"axes at {_numbers(axes.get_position().bounds)}{'' if axes.axison else ', off'}, x shared by {shared}"
    sides = ",".join(name for name, spine in axes.spines.items() if spine.get_visible())
    for name, axis, scale in (("x", axes.xaxis, axes.get_xscale()), ("y", axes.yaxis, axes.get_yscale())):
        label, ticks = axis.get_label(), axis.get_tick_params().get("labelsize", "as usual")
        yield f" {name}: {scale}{', inverted' if axis.get_inverted() else ''}, {label.get_text()!r} of {label.get_fontsize():g}, ticks {ticks}"
    ticks = (_numbers(axes.yaxis.get_major_locator().tick_values(0.01, most)) for most in (1.0, 100.0))
    yield f" sides {sides}; ticks of 0.01 to 1 and to 100 {' '.join(ticks)}"
    for image in axes.images:
        yield f" picture {image.get_array().shape}, {_numbers(image.get_extent())}, {image.get_interpolation()}"
    for patch in axes.patches:
        yield f" area {_colour(patch.get_facecolor())}{'' if patch.get_fill() else ', empty'}, alpha {patch.get_alpha()}"
    for band in axes.collections:
        yield f" band {_colour(band.get_facecolor()[0])}, alpha {band.get_alpha()}, edge {_numbers(band.get_linewidth())}"
    for line in axes.lines:
        dashes = _numbers(line._unscaled_dash_pattern[1] or ())
        look = f"{line.get_marker()} {line.get_markersize():g}, {line.get_linestyle()} {dashes} {line.get_linewidth():g}"
        yield f" line {_colour(line.get_color())}, {look}: {_numbers(line.get_xdata())} -> {_numbers(line.get_ydata())}"
    yield from (f" {_text(text, axes)}" for text in axes.texts)
    if axes.get_legend() is not None:
        yield f" {_legend(axes.get_legend())}"


def _text(text: Any, axes: Any = None) -> str:
    place = " of the axes" if axes is not None and text.get_transform() == axes.transAxes else ""
    look = f"{text.get_fontsize():g} {text.get_weight()} {_colour(text.get_color())}, {text.get_ha()} {text.get_va()}, {text._linespacing}"
    return f"{text.get_text()!r} at {_numbers(text.get_position())}{place}, {look}"


def _legend(legend: Any) -> str:
    words = [f"{text.get_text()} {text.get_fontsize():g}" for text in legend.get_texts()]
    place = f"place {legend._loc} of {_numbers(legend.get_bbox_to_anchor().bounds)}"
    return f"legend {words}, {place}, {legend._ncols} columns{', framed' if legend.get_frame_on() else ''}"


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{float(value):.4g}" for value in values) + ")"


def _colour(colour: Any) -> str:
    from matplotlib.colors import to_hex

    return str(to_hex(colour))
