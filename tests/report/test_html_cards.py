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
