"""Figures before they are files: where every image of a sheet lies, and the numbers, words and colours of histograms and gradient norms."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from synthetic_run import SyntheticRun

from sepbench.errors import DataError, MethodError, SepbenchError
from sepbench.report.panels import canvas, gradients, histogram, sheet
from sepbench.report.panels.canvas import COLOURS, new_figure, save_png, wrapped
from sepbench.report.panels.gradients import Curve, GradientNorms, draw_gradients
from sepbench.report.panels.histogram import Histogram, MethodCounts, bin_edges, binned, draw_histogram
from sepbench.report.panels.histogram import histogram as counted
from sepbench.report.panels.opened_run import OpenedRun
from sepbench.report.panels.sheet import Block, Head, Sheet, SheetRow, block_layout, draw_sheet, enlargement, pictures, value_texts
from sepbench.report.panels.shown import check_shown, shown, spectrograms
from sepbench.suites.loader import load_suite

SPEC = load_suite("digits-pairs").tasks["class-split"].spec

Drawn = Callable[[ModuleType, Callable[[], object]], Any]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The figure that a function would have saved."""

    def figure_of(module: ModuleType, draw: Callable[[], object]) -> Any:
        kept: list[Any] = []
        monkeypatch.setattr(module, "save_png", lambda figure, path: kept.append(figure))
        draw()
        (figure,) = kept
        return figure

    return figure_of


def words(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


# -- sheets


def test_images_lie_in_their_frames_and_words_beside_them(drawn: Drawn) -> None:
    """Two rows of a mixture and two estimates below each other, 8 x 4 pixels enlarged 15 times; the second mixture has no picture, one estimate failed."""
    shade = np.full((1, 8, 4, 3), 0.25)
    pair = np.stack([np.full((8, 4, 3), 0.0), np.full((8, 4, 3), 0.5)])
    broken = pair.copy()
    broken[0, 2, 2, 1] = np.nan
    heads = Head("mixture", 1, 1), Head("method", 2, 1)
    rows = SheetRow(("best", "mixture 1"), (Block(shade, ("",)), Block(pair, ("1.00", "2.00")))), SheetRow((), (None, Block(broken, ("failed", "3.00"))))
    figure = drawn(sheet, lambda: draw_sheet(Sheet("Title", "Subtitle", heads, rows), Path("x.png")))
    (axes,) = figure.axes
    (page,) = (np.asarray(image.get_array()) for image in axes.images)
    height, width = page.shape[:2]
    assert figure.get_size_inches() * 150 == pytest.approx([width, height])
    assert width == 900  # the least
    assert set(np.unique(page)) == {0.0, 0.25, 0.5, 0.65, 0.88, 1.0}
    left, top = 24 + 150, int(np.argwhere(page[:, 24 + 150 + 1, 0] == 0.25)[0, 0])
    step = 8 * 15 + 22  # a caption of 7 points below each image: 14.6 pixels, by half as much again

    def block(shade: float, x: int) -> list[list[int]]:
        """Rows and columns that a shade fills, from column x on."""
        found = np.argwhere(page[:, x : x + 4 * 15, 0] == shade)
        return [found.min(0).tolist(), found.max(0).tolist()]

    method = left + 4 * 15 + 30
    upper = top - step // 2  # of the taller block; the mixture is centred beside it
    assert block(0.25, left) == [[top, 0], [top + 119, 59]]
    assert block(0.0, method) == [[upper, 0], [upper + 119, 59]]
    second = upper + 2 * step + 15
    assert block(0.88, method) == [[second, 0], [second + 119, 59]]
    assert block(0.5, method) == [[upper + step, 0], [second + step + 119, 59]]
    frame = page[upper - 1 : upper + 121, method - 1 : method + 61, 0]
    assert (frame[0] == 0.65).all()
    assert (frame[-1] == 0.65).all()
    assert (frame[:, 0] == 0.65).all()
    assert (frame[:, -1] == 0.65).all()
    assert (page[upper - 2, method - 1 : method + 61] == 1.0).all()
    assert words(axes) == ["Title", "Subtitle", "mixture", "method", "best\nmixture 1", "", "1.00", "2.00", "", "failed", "3.00"]
    placed = {text.get_text(): text for text in axes.texts}
    assert placed["1.00"].get_position() == (method + 30, upper + 120 + 3)
    assert placed["3.00"].get_position() == (method + 30, second + step + 120 + 3)
    assert placed["method"].get_position()[0] == method + 30
    assert placed["best\nmixture 1"].get_position()[0] == 24
    assert (placed["Title"].get_weight(), placed["Title"].get_color(), placed["Title"].get_fontsize()) == ("bold", "black", 10.0)
    assert (placed["Subtitle"].get_weight(), placed["Subtitle"].get_color(), placed["Subtitle"].get_fontsize()) == ("normal", "#555555", 8.0)


def test_long_heads_are_broken_into_lines_that_end_at_one_height(drawn: Drawn) -> None:
    block = Block(np.zeros((1, 8, 8, 3)), ("",))
    made = Sheet("t", "s", (Head("short", 1, 1), Head("a-method-with-a-long-name", 1, 1)), (SheetRow(("r",), (block, block)),))
    (axes,) = drawn(sheet, lambda: draw_sheet(made, Path("x.png"))).axes
    placed = {text.get_text(): text.get_position()[1] for text in axes.texts}
    lines = [word for word in placed if word.startswith(("a-", "long", "name"))]
    assert "".join(lines[::-1]) == "a-method-with-a-long-name"
    assert placed["short"] == placed[lines[0]]  # the last line of the long head
    assert placed[lines[0]] - placed[lines[1]] == round(8 * 150 / 72 * 1.35)


@pytest.mark.parametrize(
    ("n", "blocks", "layout"),
    [(2, 6, (1, 2)), (3, 4, (1, 3)), (12, 1, (1, 12)), (2, 7, (2, 1)), (13, 1, (7, 2)), (3, 5, (3, 1)), (4, 4, (2, 2)), (5, 3, (3, 2)), (1, 13, (1, 1))],
)
def test_twelve_images_stand_side_by_side(n: int, blocks: int, layout: tuple[int, int]) -> None:
    assert block_layout(n, blocks) == layout


@pytest.mark.parametrize(("size", "scale"), [((1, 116), 1), ((58, 1), 2), ((115, 115), 2), ((117, 3), 1), ((29, 57), 3)])
def test_the_longer_side_decides_how_much_images_are_enlarged(size: tuple[int, int], scale: int) -> None:
    assert enlargement(*size) == scale


def test_values_as_captions() -> None:
    assert value_texts([1.0, math.nan, math.inf, -2.0], "{:.1f}".format) == ("1.0", "failed", "failed", "-2.0")


def test_files_of_figures(tmp_path: Path) -> None:
    figure = new_figure(2.0, 1.0)
    path = tmp_path / "a" / "b" / "x.png"
    for _ in range(2):  # a file that is there is replaced
        assert save_png(figure, path) == path
    (tmp_path / "file").write_text("")
    with pytest.raises(SepbenchError, match=r"cannot write .*file/x.png: .*; choose a writable folder with --out"):
        save_png(figure, tmp_path / "file" / "x.png")
    assert wrapped("one two\n\nthree", 0.0, 10.0) == ["one", "two", "", "three"]  # never less than six letters
    letter = 0.58 * 10.0 * canvas.DPI / 72
    assert wrapped("123456789 12345", 15 * letter + 1, 10.0) == ["123456789 12345"]
    assert wrapped("123456789 12345", 14 * letter + 1, 10.0) == ["123456789", "12345"]


# -- histograms


def test_values_are_counted_in_bins_and_those_outside_are_told() -> None:
    inner = np.linspace(10.0, 20.0, 400)
    edges, rows, outside = binned({"a": np.append(inner, [100.0, -50.0]), "b": inner[200:300]}, {"b": "lower"})
    assert outside == int((inner < edges[0]).sum()) + int((inner > edges[-1]).sum()) + 2
    assert outside > 2  # both ends were cut
    assert len(edges) == 21  # the square root of the longest, 402
    assert [(row.method, row.bound, row.n, int(row.counts.sum())) for row in rows] == [("a", "", 402, 402), ("b", "lower", 100, 100)]
    assert rows[0].mean == pytest.approx((400 * 15.0 + 50.0) / 402)
    assert rows[0].median == pytest.approx(15.0)
    assert (rows[0].counts[0], rows[0].counts[-1]) == tuple(
        np.histogram(inner, edges)[0][[0, -1]] + [(inner < edges[0]).sum() + 1, (inner > edges[-1]).sum() + 1]
    )
    low = bin_edges(np.append(inner, -50.0), 10**5)
    assert low[-1] == 20.0
    assert 9.9 < low[0] < 10.5
    assert len(low) == 61
    assert len(bin_edges(inner, 4)) == 11


@pytest.mark.parametrize(
    ("metric", "axis"),
    [
        ("psnr", "psnr of a mixture, mean over its sources [dB]; higher is better"),
        ("ssim", "ssim of a mixture, mean over its sources; higher is better"),
        ("mixture_error", "mixture_error of a mixture; lower is better"),
    ],
)
def test_the_axis_of_a_histogram(tmp_path: Path, metric: str, axis: str) -> None:
    made = SyntheticRun({"nmf": 16.0, "average": 14.0}, n=12, metrics=(metric,)).fail("nmf", 3)
    made.save(tmp_path / "run")
    data = counted(OpenedRun.open(tmp_path / "run"), "class-split", ["nmf", "average"])
    assert (data.title, data.axis) == (f"How {metric} is spread over the mixtures of digits-pairs, class-split", axis)
    assert [(row.method, row.bound, row.n) for row in data.rows] == [("nmf", "", 11), ("average", "lower", 12)]


@pytest.mark.parametrize(("outside", "more"), [(0, ""), (1234, "; 1,234 values beyond the axis are in the outermost bins")])
def test_a_drawn_histogram(drawn: Drawn, outside: int, more: str) -> None:
    edges = np.array([0.0, 1.0, 2.0])
    rows = MethodCounts("nmf", "", np.array([3, 4]), 1.25, 0.5, 1007), MethodCounts("average", "lower", np.array([1, 0]), -0.0625, 0.25, 1)
    figure = drawn(histogram, lambda: draw_histogram(Histogram("Title", "psnr [dB]", "dB", edges, rows, outside), Path("x.png")))
    assert [text.get_text() for text in figure.texts] == ["Title", f"number of mixtures per bin{more}"]
    upper, lower = figure.axes
    assert words(upper) == ["nmf", "mean 1.25, median 0.50\n1,007 mixtures"]
    assert words(lower) == ["average", "mean -0.0625, median 0.2500\n1 mixtures, lower bound"]
    assert (upper.get_xlabel(), lower.get_xlabel()) == ("", "psnr [dB]")
    for axis, row, colour in ((upper, rows[0], COLOURS[0]), (lower, rows[1], COLOURS[5])):
        (stairs,) = axis.patches
        assert stairs.get_data().values.tolist() == row.counts.tolist()
        assert stairs.get_data().edges.tolist() == edges.tolist()
        assert _hex(stairs.get_facecolor()) == colour
        mean, median = axis.lines
        assert (mean.get_xdata()[0], _hex(mean.get_color())) == (row.mean, "#000000")
        assert (median.get_xdata()[0], _hex(median.get_color())) == (row.median, COLOURS[1])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["mean", "median"]
    assert [_hex(line.get_color()) for line in legend.get_lines()] == ["#000000", COLOURS[1]]


def _hex(colour: Any) -> str:
    from matplotlib.colors import to_hex

    return str(to_hex(colour)).upper()


def test_a_figure_makes_its_folders_and_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "x.png"
    sizes = []
    for width in (1.0, 2.0):
        assert save_png(new_figure(width, 1.0), path) == path
        sizes.append(path.read_bytes()[16:20])
    assert sizes == [(150).to_bytes(4, "big"), (300).to_bytes(4, "big")]
    assert [one.name for one in path.parent.iterdir()] == ["x.png"]


# -- gradient norms


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DataError("the song is damaged; fetch it again"), "the song is damaged; fetch it again"),
        (MethodError("its own words"), "its own words"),
        (ValueError("no\nscore"), "the prior of toy cannot be evaluated: ValueError: no score"),
        (MemoryError(), "the prior of toy cannot be evaluated: MemoryError"),
    ],
    ids=["data", "method", "value", "memory"],
)
@pytest.mark.parametrize("where", ["prior", "score"])
def test_an_error_that_is_told_already_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch, where: str, error: Exception, told: str) -> None:
    """Data may be damaged, and weights missing, where a prior reads them late: these are no faults of the prior."""

    def fails(*given: object) -> Any:
        raise error

    class Prior:
        def score_prior(self, k: int) -> Any:
            return fails() if where == "prior" else k

    monkeypatch.setattr(gradients, "fitted_again", lambda *given: SimpleNamespace(separator=Prior()))
    monkeypatch.setattr(gradients, "score_norms", fails)
    mixtures = SimpleNamespace(sources=lambda examples: torch.zeros(len(examples), 2, 1, 4, 4))
    task: Any = SimpleNamespace(spec=SPEC, mixture_set=lambda: mixtures)
    run: Any = SimpleNamespace(n_planned=lambda name: 3, record=SimpleNamespace(methods={"toy": SimpleNamespace(settings={})}))
    with pytest.raises(SepbenchError) as caught:
        gradients.gradient_norms(run, task, "toy", "cpu")
    assert str(caught.value) == told
    assert type(caught.value) is (type(error) if isinstance(error, SepbenchError) else MethodError)


@pytest.mark.parametrize("labels", [("",), ("0-4", "5-9")])
def test_drawn_gradient_norms(drawn: Drawn, labels: Sequence[str]) -> None:
    sigmas = np.array([1.0, 0.1])
    norms = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 60.0]])
    data = GradientNorms("Title", "Subtitle", sigmas, 1024, tuple(Curve(label, norms * (k + 1)) for k, label in enumerate(labels)))
    figure = drawn(gradients, lambda: draw_gradients(data, Path("x.png")))
    assert [text.get_text() for text in figure.texts] == ["Title", "Subtitle"]
    left, right = figure.axes
    for axis, factor in ((left, np.ones(2)), (right, sigmas)):
        *curves, level = axis.lines
        assert len(curves) == len(axis.collections) == len(labels)
        for k, (line, band) in enumerate(zip(curves, axis.collections, strict=True)):
            assert line.get_xdata().tolist() == sigmas.tolist()
            assert line.get_ydata() == pytest.approx(np.array([2.0, 30.0]) * (k + 1) * factor)
            assert _hex(line.get_color()) == COLOURS[k]
            reach = np.array([point[1] for point in band.get_paths()[0].vertices])
            assert reach.min() == pytest.approx((np.quantile(norms, 0.05, axis=1) * (k + 1) * factor).min())
            assert reach.max() == pytest.approx((np.quantile(norms, 0.95, axis=1) * (k + 1) * factor).max())
            assert line.get_label() == (labels[k] or "prior")
        assert level.get_ydata() == pytest.approx(32.0 / sigmas * factor)
        assert level.get_label() == r"$\sqrt{d}/\sigma$, d = 1,024"
        assert axis.get_xscale() == "log"
        assert axis.xaxis_inverted()
        assert axis.get_xlabel() == r"noise level $\sigma$ [units of the source]; annealing goes right"
    assert (left.get_yscale(), right.get_yscale()) == ("log", "linear")
    assert right.get_ylim()[0] == 0.0
    assert left.get_ylabel().endswith("[1 / units of the source]")
    assert right.get_ylabel().endswith("[1]")
    assert [text.get_text() for text in left.get_legend().get_texts()] == [*(label or "prior" for label in labels), r"$\sqrt{d}/\sigma$, d = 1,024"]
    assert right.get_legend() is None


# -- signals


def test_images_are_shown_between_the_ends_that_are_named() -> None:
    values = torch.tensor([[[[0.5, 2.0], [-1.0, 4.0]]]])
    assert shown(values, SPEC)[0, :, :, 0].tolist() == [[0.5, 1.0], [0.0, 1.0]]
    assert shown(values, SPEC, 0.0, 4.0)[0, :, :, 2].tolist() == [[0.125, 0.5], [0.0, 1.0]]
    assert shown(values, SPEC, -1.0, 3.0)[0, :, :, 1].tolist() == [[0.375, 0.75], [0.0, 1.0]]


def test_what_is_said_of_signals_that_cannot_be_shown() -> None:
    instead = "use --figures histogram, without --samples"
    where = f"task {SPEC.name} of suite {SPEC.suite}"
    for spec, told in (
        (replace(SPEC, domain="vector", source_shape=(3,)), f"{where} has vector signals, and grids and samples show images and sounds only; {instead}"),
        (replace(SPEC, source_shape=(4, 8, 8)), f"images of {where} have 4 channels, grids and samples show 1 or 3; {instead}"),
    ):
        with pytest.raises(SepbenchError) as raised:
            check_shown(spec)
        assert str(raised.value) == told


def test_a_spectrogram_cell_by_cell() -> None:
    """At 4,000 Hz a picture has a row for each of 65 frequencies and a column for each of 101 frames: a sine has one level where its frequency is."""
    time = torch.arange(3_200, dtype=torch.float64) / 4_000
    tone = 10 ** (-55 / 20) * torch.sin(2 * torch.pi * 625 * time)  # frequency 20 of 64, in the middle of what is shown, -90 to -20 dB
    silent, louder = torch.zeros_like(tone), tone * 10 ** (14 / 20)
    pairs = (tone, tone), (tone, silent), (louder, louder), (tone * 1e3, tone * 1e3)
    mono, half, loud, loudest = spectrograms(torch.stack([torch.stack(pair) for pair in pairs]), 4_000)
    assert mono.shape == (1, 65, 101)
    place = (0, 64 - 20, 50)
    assert float(mono[place]) == pytest.approx(0.5, abs=1e-3)
    assert float(loud[place]) == pytest.approx(0.5 - 14 / 70, abs=1e-3)
    assert float(half[place]) == pytest.approx(0.5 + 10 * math.log10(2) / 70, abs=1e-3)  # one channel of two is silent
    assert (float(loudest[place]), float(mono[0, 0, 50])) == (0.0, 1.0)


def test_vectors_are_no_pictures_however_many_there_are() -> None:
    with pytest.raises(SepbenchError) as caught:
        pictures(torch.zeros(5, 3))
    assert str(caught.value) == "only images of 1 or 3 channels can be shown, these signals have shape (3,)"


def test_figures_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SepbenchError) as caught:
        new_figure(1.0, 1.0)
    assert str(caught.value) == "pictures need matplotlib, which comes with the extra 'report': pip install 'sepbench[report]'"


def test_a_wide_sheet_ends_with_its_margin() -> None:
    """Beside the labels, blocks of one, two and three images of 300 pixels, with gaps of 8 within and 30 between them."""
    made = Sheet("t", "s", tuple(Head("h", 1, columns) for columns in (1, 2, 3)), ())
    geometry = sheet._Geometry(made, (100, 300))
    assert geometry.lefts == [174, 174 + 330, 174 + 330 + 638, 174 + 330 + 638 + 946]
    assert geometry.width == 174 + 330 + 638 + 916 + 24
