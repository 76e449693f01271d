"""Cards of weights on a method's page: all that the JSON says, in readable form, and nothing of it gets out of its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from html_pages import Page
from synthetic_run import SyntheticRun

from sepbench.report.html import page
from sepbench.report.html.cards import LARGEST_CARD, card, cards_in
from sepbench.report.html.media import Media
from sepbench.report.html.page import Options, write_report

pytest.importorskip("altair")
DIGITS = "4258417f2057cf7721e859b97d68f7f37cfbc37e27089de2f4292c8b6e55ef37"
CARD: dict[str, Any] = {
    "name": "mine",
    "kind": "<script>alert(1)</script>",
    "weights_sha256": "f" * 64,
    "parameters": 2098529,
    "data": {"name": "songs <b>1</b>", "images": 55000},
    "training": {"steps": 9812, "config": {"lr": 0.002, "bf16": True}, "gpu": None},
    "held_out_loss": {"0.01": 0.5, "1.0": 0.25},
    "psnr": {"1.0": 17.25},
    "denoising": {"1.00": 17, "0.1": 30.5},
}


@pytest.fixture(autouse=True)
def no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "vega_script", lambda: "/* not here */")


def write(folder: Path, content: Any = CARD, name: str = "mine") -> Path:
    path = folder / f"{name}.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_card_as_facts_groups_and_a_table(tmp_path: Path) -> None:
    made = card(write(tmp_path), Media(0))
    assert made is not None
    assert made.facts[:2] == (("kind", "<script>alert(1)</script>"), ("parameters", "2,098,529"))
    assert dict(made.parts)["data"] == (("name", "songs <b>1</b>"), ("images", "55,000"))
    assert dict(made.parts)["training"] == (("steps", "9,812"),)  # what is nothing is not said
    assert made.folded == (("training: config", (("lr", "0.002"), ("bf16", "yes"))),)
    assert made.heads == ("noise level", "held out loss", "denoising")
    assert made.rows == (("1", "0.25", "17"), ("0.1", "", "30.5"), ("0.01", "0.5", ""))


@pytest.mark.parametrize("content", ["", "[1]", '{"weights_sha256": 3}', "{" * 50, "[" * 100_000, json.dumps({"weights_sha256": "f", "x": "y" * LARGEST_CARD})])
def test_what_is_no_card_is_read_over(tmp_path: Path, content: str) -> None:
    write(tmp_path, content)
    assert cards_in([tmp_path, tmp_path / "nothing"]) == {}


def test_a_picture_is_png_and_within_the_budget(tmp_path: Path) -> None:
    path, picture = write(tmp_path), tmp_path / "mine.png"
    picture.write_bytes(b"<svg onload=alert(1)>")
    assert card(path, Media(1000)).picture == ""  # type: ignore[union-attr]
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    media = Media(150)
    assert [card(path, media).picture for _ in range(2)] == ["media/weights/mine.png"] * 2  # type: ignore[union-attr]
    assert media.used == 108  # once, however many methods show it
    assert card(path, Media(50)).picture == ""  # type: ignore[union-attr]


def test_the_page_of_a_method_on_weights_that_ship(tmp_path: Path) -> None:
    made = SyntheticRun({"projected": 16.0, "nmf": 15.0}, n=12)
    made.cells["class-split", "projected"] |= {"weights_sha256": f"{'0' * 64},{DIGITS}", "prior": "EDM U-Net"}
    folder = write_report([made.save(tmp_path / "run")], tmp_path / "report").index.parent
    shown = Page(folder / "method-run--projected.html")
    for words in ("Card of digits-all", "digits train 0..799", "117,713", "training: config", "0.55691", "sepbench train score --dataset digits"):
        assert words.lower() in shown.words.lower()
    (image,) = [attributes for attributes in shown.all("img") if "weights" in str(attributes["src"])]
    assert (folder / str(image["src"])).read_bytes().startswith(b"\x89PNG")
    assert image["alt"]
    assert "Card of" not in Page(folder / "method-run--nmf.html").words
    poor = write_report([str(tmp_path / "run")], tmp_path / "poor", Options(budget_mb=0)).index.parent
    assert "Card of digits-all" in Page(poor / "method-run--projected.html").words
    assert not (poor / "media").exists()


def test_the_card_beside_a_file_that_a_setting_names(tmp_path: Path) -> None:
    write(tmp_path)
    made = SyntheticRun({"nmf": 15.0, "ica": 14.0}, n=12)
    made.record["methods"]["nmf"]["files"] = {"weights": {str(tmp_path / "mine.safetensors"): "f" * 64}}
    made.cells["class-split", "nmf"]["weights_sha256"] = "f" * 64
    made.cells["class-split", "nmf"]["prior"] = "mine"
    path = write_report([made.save(tmp_path / "run")], tmp_path / "report").index.parent / "method-run--nmf.html"
    shown = Page(path)
    assert "songs <b>1</b>" in shown.words
    assert "<b>1</b>" not in path.read_text()


def made_of(folder: Path, **content: Any) -> Any:
    found = card(write(folder, {"weights_sha256": "f", **content}), Media(0))
    assert found is not None
    return found


def test_the_first_folder_and_the_first_name_have_a_card(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    wanted = write(first, {"weights_sha256": "x"}, "b"), write(first, {"weights_sha256": "y"}, "c"), write(second, {"weights_sha256": "z"}, "d")
    write(second, {"weights_sha256": "x"}, "a")
    write(first, {"weights_sha256": "y"}, "z")
    write(first, {"weights_sha256": ["x"]}, "0")
    write(first, {"other": "x"}, "1")
    (first / "2.json").mkdir()  # what cannot be read is no card, and those after it are
    (first / "card.txt").write_text('{"weights_sha256": "w"}')
    assert cards_in([first, tmp_path / "nothing", second]) == dict(zip("xyz", wanted, strict=True))
    assert cards_in([wanted[0]]) == {}  # a file is no folder


def test_a_card_may_be_as_large_as_the_limit(tmp_path: Path) -> None:
    for more, seen in ((0, True), (1, False)):
        text = json.dumps({"weights_sha256": "f", "x": ""})
        path = write(tmp_path, text.replace('""', '"' + "y" * (LARGEST_CARD - len(text) + more) + '"'))
        assert path.stat().st_size == LARGEST_CARD + more
        assert (card(path, Media(0)) is not None) == seen


@pytest.mark.parametrize("content", ["", "[]", "{}", "3", '"x"', "null"])
def test_what_says_nothing_is_no_card(tmp_path: Path, content: str) -> None:
    assert card(write(tmp_path, content), Media(0)) is None


def test_facts_come_in_their_order_and_in_words(tmp_path: Path) -> None:
    shown = made_of(
        tmp_path,
        **{"format": 1, "name": "N", "zeta": 0.123456789, "notes": "n", "shape": [1, 28, 1000], "parameters": 1234567, "kind": "edm"},
        **{"ok": False, "none": None, "empty": "", "nothing": [], "two_words": [True, 0.5, "x"]},
    )
    assert shown.name == "N"
    assert shown.facts == (
        *(("kind", "edm"), ("parameters", "1,234,567"), ("shape", "1, 28, 1,000"), ("notes", "n"), ("weights sha256", "f"), ("zeta", "0.123457")),
        *(("ok", "no"), ("two words", "yes, 0.5, x")),
    )
    assert made_of(tmp_path, kind="x").name == made_of(tmp_path, name="").name == "mine"
    assert (shown.parts, shown.folded, shown.heads, shown.rows) == ((), (), (), ())


def test_groups_within_groups_have_headings_of_their_own(tmp_path: Path) -> None:
    inner = {"a_b": {"c_d": {"x": 1}}, "only_groups": {"e": {"y": 2}}, "empty": {}}
    shown = made_of(tmp_path, **inner, config={"lr": 1, "network": {"width": 2}}, data={"recipe": {"z": 3}, "w": 4}, recipes={"v": 5})
    assert shown.parts == (
        ("a b: c d", (("x", "1"),)),
        ("only groups: e", (("y", "2"),)),
        ("data", (("w", "4"),)),
        ("recipes", (("v", "5"),)),
    )
    assert shown.folded == (("config", (("lr", "1"),)), ("config: network", (("width", "2"),)), ("data: recipe", (("z", "3"),)))


@pytest.mark.parametrize("name", ["config", "recipe", "network", "hardware", "packages"])
def test_few_will_ask_for_these(tmp_path: Path, name: str) -> None:
    assert made_of(tmp_path, **{name: {"x": 1}}).folded == ((name, (("x", "1"),)),)


@pytest.mark.parametrize(
    ("group", "rows"),
    [
        ({"1.0": 2, "10": 3.5}, (("10", "3.5"), ("1", "2"))),
        ({"1e-3": 0.123456789, "0": 1}, (("0.001", "0.123457"), ("0", "1"))),
        ({"1.0": 2}, ()),  # one number may be anything
        ({"1.0": 2, "x": 3}, ()),
        ({"1.0": 2, "2.0": "3"}, ()),
        ({"1.0": 2, "nan": 3}, ()),
        ({"1.0": 2, "inf": 3}, ()),
        ({}, ()),
    ],
)
def test_what_is_a_number_by_noise_level(tmp_path: Path, group: dict[str, Any], rows: tuple[tuple[str, ...], ...]) -> None:
    shown = made_of(tmp_path, loss_x=group)
    assert shown.rows == rows
    assert shown.heads == (("noise level", "loss x") if rows else ())
    assert bool(shown.parts) == (not rows and bool(group))


def test_pictures_that_are_not_taken(tmp_path: Path) -> None:
    path, picture, png = write(tmp_path), tmp_path / "mine.png", b"\x89PNG\r\n\x1a\n"
    picture.mkdir()
    assert card(path, Media(1 << 30)).picture == ""  # type: ignore[union-attr]
    picture.rmdir()
    for more, seen in ((0, True), (1, False)):
        picture.write_bytes(png + bytes((1 << 21) - len(png) + more))
        assert (card(path, Media(1 << 30)).picture != "") == seen  # type: ignore[union-attr]
    picture.write_bytes(png + b"1")
    media = Media(1000)
    assert card(path, media).picture == "media/weights/mine.png"  # type: ignore[union-attr]
    picture.write_bytes(png + b"2")
    assert card(path, media).picture == ""  # type: ignore[union-attr]  # other weights of that name have the address
    assert media.files == {"media/weights/mine.png": png + b"1"}
    (tmp_path / "mine.png").rename(tmp_path / "Big Name.png")
    assert card(write(tmp_path, name="Big Name"), media).picture.startswith("media/weights/big-name-")  # type: ignore[union-attr]


@pytest.mark.parametrize("error", [PermissionError(13, "no"), FileNotFoundError(2, "gone meanwhile"), OSError(5, "disk")])
def test_a_picture_that_cannot_be_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    (tmp_path / "w.json").write_text('{"name": "w", "weights_sha256": "ab"}')
    (tmp_path / "w.png").write_bytes(b"x")

    def refuse(path: Path) -> bytes:
        raise error

    monkeypatch.setattr(Path, "read_bytes", refuse)
    found = card(tmp_path / "w.json", Media(1 << 20))
    assert found is not None
    assert (found.name, found.picture) == ("w", "")
