"""The leaderboard of a page: numbers for sorting, parts and their order, points of the chart and the papers' among them, from made-up rows."""

from __future__ import annotations

import hashlib
import math
from types import SimpleNamespace
from typing import Any

import pytest

from sepbench.report.html import board
from sepbench.report.html.board import MetricWords, kind_of, open_board, slug
from sepbench.report.html.leaderboard import TableCell, leaderboard, method_address
from sepbench.report.html.pareto import pareto
from sepbench.report.rows import Line
from sepbench.results.columns import COLUMNS
from sepbench.suites.published import PublishedRow

pytest.importorskip("altair")
NAN = math.nan
PSNR, SSIM, ERROR = MetricWords("psnr", "dB", True, ""), MetricWords("ssim", "1", True, ""), MetricWords("mixture_error", "", False, "")


def record(mean: float, low: float = 1.0, high: float = 2.0, **more: Any) -> dict[str, Any]:
    usual = {"mean": mean, "ci_low": low, "ci_high": high, "unit": "", "n_scored": 12, "seconds_per_mixture": 0.5, "fit_seconds": NAN, "timing_group": "cpu:x"}
    return usual | {"evaluations_per_mixture": NAN} | more


def line(rank: str, method: str, value: str = "", others: tuple[str, ...] = ("", ""), extras: tuple[str, ...] = ("", ""), **more: Any) -> Line:
    return Line(rank, method, more.pop("supervision", "blind"), value, others, more.pop("published", ""), extras, more.pop("n", "12"), **more)


def made(lines: list[Line], records: dict[tuple[str, str], dict[str, Any]], papers: tuple[PublishedRow, ...] | None = (), **more: Any) -> Any:
    """A view of a task of three metrics, ranked by psnr."""
    suite = None if papers is None else SimpleNamespace(published=papers)
    methods = [one.method for one in lines if not one.from_paper]
    table = SimpleNamespace(value_head="psnr", other_heads=("ssim", "mixture_error"), extra_heads=("s/mixture", "s/fit"))
    return SimpleNamespace(
        **{"task": "t", "lines": lines, "records": records, "metrics": (PSNR, SSIM, ERROR), "metric": PSNR, "methods": methods, "table": table},
        **{"values": more.get("values", {}), "board": SimpleNamespace(slug="b", results=SimpleNamespace(suite=suite))},
        kind=lambda method: next(kind_of(one) for one in lines if one.method == method and not one.from_paper),
        first=lambda method: next(found for (name, _), found in records.items() if name == method),
    )


LINES = [
    line("1", "Nmf", "16.00 [1.00, 2.00]", ("0.500", "0.100"), ("0.5 a", "3*"), n="1,000/1,200", published="15 A"),
    line("2=", "ica", "15.00", ("", "0.200"), ("0.25 b", ""), supervision="mixtures"),
    line("bound", "average", "14.00 [1.00, 2.00]", ("0.400", "0.300"), supervision="bound"),
    line("few", "rpca", "20.00 [1.00, 2.00]", ("0.900", "0.010"), supervision=""),
    line("failed", "broken"),
    line("", "Paper", published="30 B", from_paper=True, supervision=""),
]
RECORDS = {
    **{("Nmf", "psnr"): record(16.0, unit="dB", n_scored=1000, seconds_per_mixture=0.512, fit_seconds=3.25), ("Nmf", "ssim"): record(0.5)},
    **{
        ("Nmf", "mixture_error"): record(0.1),
        ("ica", "psnr"): record(15.0, NAN, NAN, unit="dB", seconds_per_mixture=0.25),
        ("ica", "mixture_error"): record(0.2),
    },
    **{("average", "psnr"): record(14.0, unit="dB"), ("average", "ssim"): record(0.4), ("average", "mixture_error"): record(0.3)},
    **{("rpca", "psnr"): record(20.0, unit="dB"), ("rpca", "ssim"): record(0.9), ("rpca", "mixture_error"): record(0.01)},
    **{("broken", "psnr"): record(NAN, NAN, NAN, unit="dB")},
}


def test_rows_stand_in_their_parts_with_numbers_to_sort_by() -> None:
    found = leaderboard(made(LINES, RECORDS))
    assert [(part.name, part.title, [row.line.method for row in part.rows]) for part in found.parts] == [
        ("ranked", "Ranked", ["Nmf", "ica"]),
        ("bound", "Bounds, for comparison", ["average"]),
        ("unranked", "Not ranked", ["rpca", "broken"]),
        ("paper", "Published, without a row of ours", ["Paper"]),
    ]
    assert (found.supervisions, found.has_published, found.tested) == (("blind", "mixtures", "bound"), True, True)
    best, second = found.parts[0].rows
    assert best.cells == (TableCell("16.00", 16.0, "[1.00, 2.00]"), TableCell("0.500", 0.5, "[1.000, 2.000]"), TableCell("0.100", 0.1, "[1.000, 2.000]"))
    assert second.cells == (TableCell("15.00", 15.0, ""), TableCell("", None, ""), TableCell("0.200", 0.2, "[1.000, 2.000]"))
    assert best.extras == (TableCell("0.5 a", 0.512), TableCell("3*", 3.25))
    assert second.extras == (TableCell("0.25 b", 0.25), TableCell("", None))
    assert (best.n, best.equal, second.equal) == (TableCell("1,000/1,200", 1000.0), True, True)
    assert best.address.startswith("method-b--nmf-")
    assert second.address == method_address(made(LINES, RECORDS), "ica") == "method-b--ica.html"
    (paper,) = found.parts[3].rows
    assert (paper.address, paper.equal, paper.cells, paper.extras, paper.n) == ("", False, (TableCell(""),) * 3, (TableCell(""),) * 2, TableCell(""))
    assert found.parts[2].rows[1].cells[0] == TableCell("", None, "")


@pytest.mark.parametrize(
    ("ranks", "values", "tested"),
    [(("1", "2"), {}, False), (("1", "2="), {}, True), (("1", "2"), {"Nmf": 1}, True)],
)
def test_whether_equality_was_tested(ranks: tuple[str, str], values: dict[str, Any], tested: bool) -> None:
    found = leaderboard(made([line(rank, name) for rank, name in zip(ranks, ("Nmf", "ica"), strict=True)], RECORDS, values=values))
    assert (found.tested, found.has_published) == (tested, False)
    assert [part.name for part in found.parts] == ["ranked"]


def test_every_extra_column_can_be_sorted() -> None:
    view = made(LINES[:1], {key: found | dict.fromkeys(("std_seeds", "std_fits"), 7.0) for key, found in RECORDS.items()})
    heads = tuple(column.shown.head for column in COLUMNS if column.shown is not None)
    view.table.extra_heads = heads
    view.lines[0:1] = [line("1", "Nmf", extras=("x",) * len(heads))]
    (row,) = leaderboard(view).parts[0].rows
    assert dict(zip(heads, [cell.sort for cell in row.extras], strict=True)) == {
        **{"sd of seeds": 7.0, "sd of fits": 7.0, "s/fit": 3.25, "s/mixture": 0.512, "evaluations": None},
    }


PAPERS = (
    PublishedRow("t", "Nmf", "psnr", 15.0, 0.25, 100, "A", "NMF", ""),
    PublishedRow("t", "ghost", "psnr", 18.0, None, None, "B", "Ghost", ""),
    PublishedRow("t", "average", "ssim", 0.45, None, 6000, "C", "Average", ""),
    PublishedRow("u", "Nmf", "psnr", 99.0, None, None, "A", "NMF", ""),
    PublishedRow("t", "Nmf", "fid", 98.0, None, None, "A", "NMF", ""),
)


def points(view: Any) -> dict[str, list[dict[str, Any]]]:
    (rows,) = leaderboard(view).chart.spec["datasets"].values()
    return {metric: sorted((row for row in rows if row["metric"] == metric), key=lambda row: row["order"]) for metric in ("psnr", "ssim", "mixture_error")}


def test_the_chart_holds_every_mean_in_the_order_of_the_table() -> None:
    found = points(made(list(LINES), RECORDS, PAPERS))
    told = {metric: [(row["method"], row["part"], row["style"], row["mean"], row["order"]) for row in rows] for metric, rows in found.items()}
    assert told == {
        "psnr": [
            ("Ghost", "paper", "published", 18.0, 0),  # among the ranked ones, by its value
            ("Nmf", "ranked", "equal to the best", 16.0, 1),
            ("ica", "ranked", "equal to the best", 15.0, 2),
            ("Nmf", "ranked", "published", 15.0, 3),
            ("average", "bound", "bounds", 14.0, 4),
            ("rpca", "unranked", "not ranked", 20.0, 5),
        ],
        "ssim": [
            ("Nmf", "ranked", "ranked", 0.5, 0),  # equality was tested of the metric that ranks
            ("average", "bound", "published", 0.45, 1),
            ("average", "bound", "bounds", 0.4, 2),
            ("rpca", "unranked", "not ranked", 0.9, 3),
        ],
        "mixture_error": [
            ("Nmf", "ranked", "ranked", 0.1, 0),
            ("ica", "ranked", "ranked", 0.2, 1),
            ("average", "bound", "bounds", 0.3, 2),
            ("rpca", "unranked", "not ranked", 0.01, 3),
        ],
    }
    ghost, ours, alone, theirs, *_ = found["psnr"]
    assert (ours["low"], ours["high"], ours["text"], ours["supervision"], ours["n"]) == (1.0, 2.0, "16.00 [1.00, 2.00]", "blind", "1,000/1,200")
    assert (alone["low"], alone["high"], alone["text"], alone["supervision"]) == (None, None, "15.00", "mixtures")
    assert (theirs["text"], theirs["n"], theirs["supervision"]) == ("15.0 +-0.25, A", 100, "")
    assert (ghost["text"], ghost["n"]) == ("18.0, B", "")
    assert "low" not in ghost
    assert [len(rows) for rows in points(made(list(LINES), RECORDS, None)).values()] == [4, 3, 4]


def test_a_paper_s_row_of_our_name_is_one_point_and_a_spread_of_nothing_is_told() -> None:
    lines = [line("1", "ica", "15.00"), line("", "ica", published="15 A", from_paper=True)]
    found = points(made(lines, RECORDS, (PublishedRow("t", "ica", "psnr", 15.0, 0.0, None, "A", "ICA", ""),)))
    assert [(row["method"], row["part"], row["text"]) for row in found["psnr"]] == [("ica", "ranked", "15.00"), ("ica", "ranked", "15.0 +-0, A")]


def test_axes_of_the_chart_have_unit_and_direction() -> None:
    chart = leaderboard(made(list(LINES), RECORDS)).chart
    params = {param["name"]: param["value"] for param in chart.spec["params"]}
    assert params["metric"] == "psnr"
    assert params["heads"] == {"psnr": "psnr [dB], higher is better", "ssim": "ssim, higher is better", "mixture_error": "mixture_error, lower is better"}
    assert chart.words == "Means and 95 % intervals of all methods on t; the table holds the same numbers"
    room = [layer["encoding"]["y"]["axis"]["labelLimit"] for layer in chart.spec["layer"]]
    assert room == [9 * len("average")] * 2


# -- quality against cost


def cost(method: str, seconds: float, evaluations: float = NAN, group: str = "cpu:x:2threads", mean: float = 10.0) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method, "psnr"): record(mean, unit="dB", seconds_per_mixture=seconds, evaluations_per_mixture=evaluations, timing_group=group)}


def test_quality_against_seconds_and_evaluations() -> None:
    records = cost("a", 2.0, 10.0, mean=10.0) | cost("b", 1.0, 30.0, "cuda:H100", 12.0) | cost("c", 4.0, mean=9.0) | cost("d", 8.0, 20.0, mean=11.0)
    view = made([line("1", "b"), line("2", "d"), line("3", "a"), line("4", "c")], records)
    seconds, evaluations = pareto(view)
    assert (seconds.title, evaluations.title) == ("Quality against seconds", "Quality against network evaluations")
    assert seconds.groups == (("cpu, x, 2 threads", 3), ("cuda, H100", 1))  # the largest first
    assert evaluations.groups == (("evaluations", 3),)
    assert seconds.chart.words == "psnr of every method on t against its seconds per mixture; both stand in the table"
    assert evaluations.chart.words == "psnr of every method on t that counted them against evaluations of its prior; both stand in the table"
    drawn = {one.title: {row["method"]: row for row in next(iter(one.chart.spec["datasets"].values()))} for one in (seconds, evaluations)}
    fronts = {title: {name for name, row in rows.items() if row.get("front")} for title, rows in drawn.items()}
    assert fronts == {"Quality against seconds": {"a", "b", "d"}, "Quality against network evaluations": {"a", "b", "d"}}  # b is alone on its machine
    turned = {title: {name for name, row in rows.items() if row["turned"]} for title, rows in drawn.items()}
    assert turned == {"Quality against seconds": {"d"}, "Quality against network evaluations": {"b", "d"}}
    bars = seconds.chart.spec["layer"][1]["encoding"]
    assert (bars["x"]["title"], bars["y"]["title"]) == ("seconds per mixture", "psnr [dB]")
    assert evaluations.chart.spec["layer"][1]["encoding"]["x"]["title"] == "evaluations per mixture and source"


@pytest.mark.parametrize(
    ("records", "titles"),
    [
        (cost("a", 1.0), []),
        (cost("a", 1.0) | cost("b", NAN), []),
        (cost("a", 1.0) | cost("b", 2.0, 5.0), ["Quality against seconds"]),
        (cost("a", NAN, 4.0) | cost("b", 2.0, 5.0), ["Quality against network evaluations"]),
    ],
)
def test_one_method_makes_no_chart(records: dict[tuple[str, str], dict[str, Any]], titles: list[str]) -> None:
    assert [one.title for one in pareto(made([line("1", "a"), line("2", "b")], records))] == titles


def test_only_ranked_methods_are_on_the_front() -> None:
    records = cost("a", 2.0, mean=10.0) | cost("bound", 1.0, mean=30.0) | cost("few", 0.5, mean=20.0)
    (seconds,) = pareto(made([line("1", "a"), line("bound", "bound"), line("few", "few")], records))
    (rows,) = seconds.chart.spec["datasets"].values()
    assert {row["method"]: row.get("front") for row in rows} == {"a": True, "bound": None, "few": None}


def test_a_machine_that_nobody_named_and_a_cost_of_nothing() -> None:
    records = cost("a", 2.0, group="") | cost("b", 1.0, group="") | cost("free", 0.0, group="")
    (seconds,) = pareto(made([line("1", "a"), line("2", "b"), line("3", "free")], records))
    assert seconds.groups == (("unknown machine", 2),)  # nothing can stand at 0 on a logarithmic axis


def test_a_board_without_rows_has_an_empty_chart_with_room_for_names() -> None:
    found = leaderboard(made([], {}))
    assert (found.parts, found.supervisions, found.has_published, found.tested) == ((), (), False, False)
    assert {layer["encoding"]["y"]["axis"]["labelLimit"] for layer in found.chart.spec["layer"]} == {9 * 10}


@pytest.mark.parametrize("others", [("a 3",), ("a 3", "a 4"), ("a 4", "a 3"), ()], ids=str)
def test_pages_of_boards_of_one_name_have_their_own_addresses(monkeypatch: pytest.MonkeyPatch, others: tuple[str, ...]) -> None:
    """Also where somebody has named a board as the next one of that name would be."""
    results = SimpleNamespace(frame=[1])
    monkeypatch.setattr(board, "open_results", lambda target, suites: results)
    monkeypatch.setattr(board, "slug", lambda name: bounded(name))
    calls: list[str] = []

    def bounded(name: str) -> str:
        calls.append(name)
        assert len(calls) < 100, "no address is found"
        return slug(name)

    taken = {"index", *(slug(name) for name in others)}
    targets = ("x/a", "y/a", "z/a", "a")
    addresses = [open_board(target, taken, lambda text: None).slug for target in targets]
    assert addresses[0] == "a"
    assert len({*addresses, "index", *(slug(name) for name in others)}) == len(targets) + 1 + len(others)
    assert taken == {*addresses, "index", *(slug(name) for name in others)}


@pytest.mark.parametrize(
    ("name", "plain"),
    [("a-b", "a-b"), ("A b", "a-b"), ("-a-", "a"), ("\u00e4", "x"), ("", "x"), ("a" * 59 + "-b", "a" * 59), ("a" * 61, "a" * 60), ("a" * 60, "a" * 60)],
)
def test_addresses_are_short_and_end_with_a_letter_or_a_digit(name: str, plain: str) -> None:
    """A digest tells names apart that look alike without what was left out."""
    found = slug(name)
    assert found == (name if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}")
