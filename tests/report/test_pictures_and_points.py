"""What a report draws, by hand: which points are on the front, which mixtures are shown, what fits into the budget, what JSON holds."""

from __future__ import annotations

import io
import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sepbench.errors import SepbenchError
from sepbench.report.documents import _rank, comparison_document, json_text
from sepbench.report.html.curves import _lines, _Point
from sepbench.report.html.media import Media, flac, strip
from sepbench.report.html.pareto import _mark_front, _turn_names
from sepbench.report.panels.choice import named, spread, spread_ranks


def test_the_front_is_what_nothing_cheaper_beats() -> None:
    points = {"slow best": (9.0, 1.0), "cheap": (1.0, 5.0), "beaten": (2.0, 6.0), "middle": (3.0, 3.0), "as good, dearer": (4.0, 3.0), "cheap twin": (1.0, 7.0)}
    rows = [{"name": name, "cost": cost, "loss": loss} for name, (cost, loss) in points.items()]
    _mark_front(rows)
    assert {row["name"] for row in rows if row["front"]} == {"slow best", "cheap", "middle"}


def test_names_at_the_right_edge_are_turned() -> None:
    rows: list[dict[str, Any]] = [{"cost": cost} for cost in (1.0, 100.0, 1_000.0, 200.0, 10_000.0)]
    _turn_names(rows)  # the edge is at 10 ** 2.4 = 251
    assert [row["turned"] for row in rows] == [False, False, True, False, True]


def _point(name: str, mean: float, **settings: object) -> _Point:
    return _Point("t", "s", name, settings, {"mean": mean, "ci_low": mean - 1, "ci_high": mean + 1, "unit": "dB"})


def test_a_curve_holds_rows_that_differ_in_one_number() -> None:
    points = [_point("a-8", 8.0, n=8, mode="x"), _point("a", 2.0, n=2, mode="x"), _point("b", 3.0, n=4, mode="y"), _point("c", 4.0, n=True, mode="x")]
    (line,) = _lines(points, "n")
    assert [(row["x"], row["y"], row["low"], row["high"]) for row in line] == [(2.0, 2.0, 1.0, 3.0), (8.0, 8.0, 7.0, 9.0)]
    assert {row["method"] for row in line} == {"a / a-8"}
    assert line[1]["text"].startswith("n = 8: ")
    assert line[1]["text"].endswith("(a-8)")
    assert list(_lines(points, "mode")) == []


@pytest.mark.parametrize(
    ("n", "count", "ranks"),
    [
        (3, 7, [0, 1, 2]),
        (10, 1, [4]),
        (10, 2, [0, 9]),
        (9, 3, [0, 4, 8]),
        (9, 5, [0, 2, 4, 6, 8]),
        (10, 4, [0, 4, 7, 9]),
        (100, 5, [0, 25, 49, 74, 99]),
        (7, 7, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_ranks_are_spread_on_both_sides_of_the_median(n: int, count: int, ranks: list[int]) -> None:
    assert spread_ranks(n, count) == ranks


@pytest.mark.parametrize("higher", [True, False])
def test_mixtures_from_best_to_worst(higher: bool) -> None:
    sign = 1 if higher else -1
    values = {7: sign * 1.0, 3: sign * 5.0, 4: sign * 3.0, 5: math.nan, 9: sign * 3.0, 1: sign * 2.0}
    choice = spread(values, 3, higher, "psnr")
    assert choice.examples == (3, 9, 7)
    assert choice.words == ("best", "median", "worst")
    assert "3 of 5 mixtures" in choice.told
    assert "1 that failed" in choice.told
    assert "psnr" in choice.told
    every = spread(values, 9, higher, "psnr")
    assert every.examples == (3, 4, 9, 1, 7)
    assert every.words == ("best", "rank 2 of 5", "median", "rank 4 of 5", "worst")
    assert spread(values, 1, higher, "psnr").examples == (9,)
    with pytest.raises(SepbenchError, match="no mixture has a value of psnr"):
        spread({1: math.nan}, 3, higher, "psnr")


def test_mixtures_that_the_user_names() -> None:
    assert named([3, 0, 3], 4).examples == (3, 0)
    assert named([3, 0, 3], 4).words == ("", "")
    for bad in (4, -1):
        with pytest.raises(SepbenchError, match=f"mixture {bad} is not part of this run, which took mixtures 0 to 3"):
            named([0, bad], 4)


def test_files_that_belong_together_are_taken_together_or_not() -> None:
    media = Media(10)
    assert media.add({"a": b"1234", "b": b"56"})
    assert not media.add({"c": b"1234", "d": b"5"})
    assert media.add({"e": b"1234"})
    assert (sorted(media.files), media.used, media.left_out) == (["a", "b", "e"], 10, 2)


@pytest.mark.parametrize("grey", [True, False])
def test_a_strip_of_pictures(grey: bool) -> None:
    from PIL import Image

    pictures = np.zeros((3, 2, 4, 3))
    pictures[0], pictures[1] = 1.0, np.nan
    if not grey:
        pictures[2, :, :, 0] = 0.2
    image = Image.open(io.BytesIO(strip(pictures)))
    assert (image.mode, image.size) == ("LA" if grey else "RGBA", (3 * 4 + 2, 2))
    pixels = np.asarray(image.convert("RGBA"))
    assert pixels[0, 0].tolist() == [255, 255, 255, 255]
    assert [int(pixels[0, x, 3]) for x in (3, 4, 5, 8, 9, 10)] == [255, 0, 255, 255, 0, 255]
    assert pixels[0, 5, 0] in (127, 128)
    assert pixels[1, 10].tolist() == [0 if grey else 51, 0, 0, 255]


def test_sounds_of_a_report() -> None:
    import soundfile

    signal = torch.tensor([[0.25, -0.5, 4.0, -4.0, math.nan], [0.0, 0.125, 0.0, 0.0, 0.0]])
    values, rate = soundfile.read(io.BytesIO(flac(signal, 8_000, 2.0)), always_2d=True)
    assert rate == 8_000
    assert values.shape == (5, 2)
    assert values[:, 0] == pytest.approx([0.5, -1.0, 1.0, -1.0, 0.0], abs=1e-4)
    assert values[1, 1] == pytest.approx(0.25)


# ---- JSON ------------------------------------------------------------------------------------------------------------------------------


def test_json_holds_plain_values() -> None:
    document = json.loads(
        json_text({"a": np.float32(0.5), "b": math.nan, "c": frozenset("yxzwuv"), 3: (np.int64(2), math.inf), "d": True, "e": np.bool_(False)})
    )
    assert document | {"sepbench_version": ""} == {
        **{"format": 1, "sepbench_version": "", "a": 0.5, "b": None, "c": list("uvwxyz")},
        **{"3": [2, None], "d": True, "e": False},
    }
    rows = pd.DataFrame([{"task": "t", "difference": 1.5}])
    assert comparison_document(rows, "A", "B") == {"a": "A", "b": "B", "rows": [{"task": "t", "difference": 1.5}]}


@pytest.mark.parametrize(
    ("rank", "number", "mark", "equal", "fewer"),
    [
        ("1", 1, "", False, False),
        ("12=", 12, "", True, False),
        ("3+", 3, "", False, True),
        ("4=+", 4, "", True, True),
        ("few", None, "few", False, False),
        ("", None, "", False, False),
    ],
)
def test_ranks_in_json(rank: str, number: int | None, mark: str, equal: bool, fewer: bool) -> None:
    found = _rank(SimpleNamespace(rank=rank))  # type: ignore[arg-type]
    assert list(found.values()) == [number, mark, equal, fewer]


def test_every_file_that_was_left_out_is_counted() -> None:
    media = Media(3)
    assert [media.add(files) for files in ({"a": b"1234", "b": b""}, {"c": b"123"}, {"d": b"1"})] == [False, True, False]
    assert (media.left_out, media.used, list(media.files)) == (3, 3, ["c"])


def test_levels_are_rounded_and_a_picture_with_any_hole_is_grey() -> None:
    Image = pytest.importorskip("PIL.Image")
    pictures = np.full((2, 2, 3, 3), 0.999)
    pictures[1, 0, 0, 0] = np.nan
    drawn = np.asarray(Image.open(io.BytesIO(strip(pictures))).convert("LA"))
    assert drawn[:, :, 0].tolist() == [[255] * 3 + [0] + [128] * 3] * 2
    assert drawn[:, :, 1].tolist() == [[255] * 3 + [0] + [255] * 3] * 2
