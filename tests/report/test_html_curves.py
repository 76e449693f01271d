"""Curves of a setting: which rows make one, of which runs, on which scale, and under which name."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from sepbench.report.html.curves import curves

pytest.importorskip("altair")


def board(*rows: dict[str, Any], metric: str = "psnr", record: bool = True) -> Any:
    """A run with one row per method: ``method``, ``settings``, and what else differs from a row of mean 10."""
    usual = {"task": "t", "metric": metric, "mean": 10.0, "ci_low": 9.0, "ci_high": 11.0, "unit": "dB"}
    frame = pd.DataFrame([usual | {key: value for key, value in row.items() if key not in ("settings", "source")} for row in rows])
    methods = {row["method"]: SimpleNamespace(settings=row.get("settings", {}), source=row.get("source", "nes:Nes")) for row in rows if "settings" in row}
    return SimpleNamespace(results=SimpleNamespace(frame=frame, ranking_metric=metric), record=SimpleNamespace(methods=methods) if record else None)


def row(method: str, mean: float = 10.0, **settings: Any) -> dict[str, Any]:
    return {"method": method, "mean": mean, "settings": settings}


def drawn(*boards: Any) -> dict[tuple[str, str], list[tuple[str, float, float]]]:
    """(task, setting) -> points of name, value of the setting, and mean."""
    found = {}
    for made in curves(boards):
        (rows,) = made.chart.spec["datasets"].values()
        found[made.task, made.setting] = [(point["method"], point["x"], point["y"]) for point in rows]
    return found


def test_methods_of_one_code_make_a_curve_in_the_order_of_the_setting() -> None:
    boards = board(row("nes-8x", 3.0, k=8), row("nes", 1.0, k=1), row("nes-4x", 2.0, k=4))
    assert drawn(boards) == {("t", "k"): [("nes / nes-8x / nes-4x", 1.0, 1.0), ("nes / nes-8x / nes-4x", 4.0, 2.0), ("nes / nes-8x / nes-4x", 8.0, 3.0)]}
    (made,) = curves([boards])
    assert made.chart.words == "psnr on t against the setting k"
    (points,) = made.chart.spec["datasets"].values()
    assert points[0] == {"method": "nes / nes-8x / nes-4x", "x": 1.0, "y": 1.0, "low": 9.0, "high": 11.0, "text": "k = 1: 1.00 [9.00, 11.00] (nes)"}


def test_runs_of_one_name_make_a_curve_and_the_last_of_equal_settings_counts() -> None:
    assert drawn(board(row("nes", 1.0, k=1)), board(row("nes", 2.0, k=2)), board(row("nes", 3.0, k=1))) == {("t", "k"): [("nes", 1.0, 3.0), ("nes", 2.0, 2.0)]}


@pytest.mark.parametrize(
    "boards",
    [
        (),
        (board(row("a", k=1)),),
        (board(row("a", k=1), row("b", k=1)),),  # one value
        (board(row("a", k=True), row("b", k=False)),),
        (board(row("a", k="1"), row("b", k="2")),),
        (board(row("a", k=None), row("b", k=2)),),
        (board(row("a", k=1, m="x"), row("b", k=2, m="y")),),  # something else differs too
        (board(row("a", k=1), row("b", k=2, m="y")),),
        (board(row("a", k=1), row("b", k=2) | {"source": "other:Code"}),),
        (board(row("a", k=1) | {"source": ""}, row("b", k=2) | {"source": ""}),),  # nobody knows of which code
        (board(row("a", k=1), row("b", k=2) | {"task": "u"}),),
        (board(row("a", k=1), row("b", k=2) | {"metric": "ssim"}),),
        (board(row("a", k=1), row("b", math.nan, k=2)),),
        (board(row("a", k=1), {"method": "b"}),),
        (board(row("a", k=1), row("b", k=2), record=False),),
    ],
)
def test_what_makes_no_curve(boards: tuple[Any, ...]) -> None:
    assert drawn(*boards) == {}


def test_tasks_settings_and_lines_stand_apart() -> None:
    rows = [row("a", 1.0, k=1, m=0.5), row("b", 2.0, k=2, m=0.5), row("c", 3.0, k=2, m=0.25), row("d", 4.0, k=1, m=0.25)]
    found = drawn(board(*rows, *(one | {"task": "u"} for one in rows[:2])))
    assert found == {
        ("t", "k"): [("a / b", 1.0, 1.0), ("a / b", 2.0, 2.0), ("c / d", 1.0, 4.0), ("c / d", 2.0, 3.0)],
        ("t", "m"): [("a / d", 0.25, 4.0), ("a / d", 0.5, 1.0), ("b / c", 0.25, 3.0), ("b / c", 0.5, 2.0)],
        ("u", "k"): [("a / b", 1.0, 1.0), ("a / b", 2.0, 2.0)],
    }


def test_settings_that_json_does_not_know_are_compared_all_the_same() -> None:
    path = SimpleNamespace()
    assert list(drawn(board(row("a", k=1, p=path), row("b", k=2, p=path)))) == [("t", "k")]


@pytest.mark.parametrize(
    ("values", "scale"),
    [((1, 10), "linear"), ((1, 11), "log"), ((0, 100), "linear"), ((-1, 100), "linear"), ((0.001, 0.02), "log"), ((20, 100), "linear")],
)
def test_wide_settings_have_a_logarithmic_axis(values: tuple[float, float], scale: str) -> None:
    (made,) = curves([board(*(row(f"m{k}", k=value) for k, value in enumerate(values)), metric="ssim")])
    x, y = (made.chart.spec["layer"][0]["encoding"][axis] for axis in "xy")
    assert (x["scale"]["type"], x["title"], y["title"]) == (scale, "k", "ssim")
    assert x["axis"]["values"] == [float(value) for value in values]  # points: a tick at each


def test_settings_may_stand_in_any_order() -> None:
    """Records of other versions may name them in another."""
    assert drawn(board(row("nes", 1.0, k=1, a=0.5, b="x")), board(row("nes", 2.0, b="x", a=0.5, k=2))) == {("t", "k"): [("nes", 1.0, 1.0), ("nes", 2.0, 2.0)]}
