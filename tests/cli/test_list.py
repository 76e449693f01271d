"""``sepbench list``: names by kind, and the page of one method."""

from __future__ import annotations

import re
import sys

import pytest
from broken_methods import register

from sepbench.cli.main import main
from sepbench.registry import separator_names


def _list(monkeypatch: pytest.MonkeyPatch, *words: str, columns: str = "250") -> int:
    monkeypatch.setattr(sys, "argv", ["sepbench", "list", *words])
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def _cells(out: str, name: str) -> list[str]:
    """The row of a table that begins with a name."""
    (row,) = [line for line in out.splitlines() if re.match(rf"│ {re.escape(name)} +│", line)]
    return [cell.strip() for cell in row.strip("│").split("│")]


@pytest.mark.parametrize(
    ("words", "titles"), [((), ["Suites", "Methods", "Metrics"]), (("all",), ["Suites", "Methods", "Metrics"]), (("metrics",), ["Metrics"])]
)
def test_lists_by_kind(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], titles: list[str]) -> None:
    assert _list(monkeypatch, *words) == 0
    out = capsys.readouterr().out
    assert [title for title in ("Suites", "Methods", "Metrics") if re.search(rf"^{title}", out, re.M)] == titles


def test_the_page_of_a_method(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _list(monkeypatch, "projected-4x") == 0
    out = capsys.readouterr().out
    for line in (
        "projected-4x: Projected diffusion, mean of 4",
        "about: Four draws, the mean of the best one's mode: 200 evaluations per source.",
        "paper: sepbench's own; after Wang, Yu and Zhang (2023), DDNM",
        "learns from: prior, clean samples without classes",
        "signals: image, vector",
        "caveat: the estimates depend on the seed",
    ):
        assert line in out
    assert _cells(out, "best_of") == ["best_of", "int", "4", "from 1", "draws of which the one with the best criterion is kept"]
    assert _cells(out, "combine")[1:4] == ["best | mean", "mean", ""]
    assert _cells(out, "stochasticity")[3] == "from 0 to 1"


def test_caveats_name_their_suites(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _list(monkeypatch, "hpss") == 0
    assert re.search(r"caveat: percussive part is source 0 \(drums\), by the class's name \([^)]*drums-bass-synth", capsys.readouterr().out)


def test_a_method_without_settings_and_a_bound(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _list(monkeypatch, "average") == 0
    out = capsys.readouterr().out
    assert "settings: none" in out
    assert "caveat: a row for comparison (lower bound), never ranked" in out


def test_a_stranger_s_method_with_brackets_in_its_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    register(monkeypatch, "toy", "Brackets")
    assert _list(monkeypatch, "toy") == 0
    out = capsys.readouterr().out
    assert "caveat: levels [0, 1] in [bold] steps [/x] :x: (" in out
    register(monkeypatch, "toy", "OddKeys")
    assert _list(monkeypatch, "toy") == 0
    assert _cells(capsys.readouterr().out, "table") == ["table", "dict[typing.Any, typing.Any]", "{('a', 'b'): 1}", "", ""]


LINES = {
    "unknown": ("avrage", None, "unknown list or method 'avrage'; did you mean average"),
    "unknown list": ("metric", None, "did you mean metrics"),
    "broken": ("toy", "RaisesWhenMade", "method 'toy' cannot be created: RuntimeError: no licence"),
    "mute": ("toy", "MuteSetting", "method 'toy' has a setting that cannot be shown: RuntimeError: no words"),
}


@pytest.mark.parametrize(("word", "what", "line"), LINES.values(), ids=LINES.keys())
def test_what_cannot_be_listed_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str, what: str | None, line: str) -> None:
    if what:
        register(monkeypatch, "toy", what)
    assert _list(monkeypatch, word) == 2
    err = capsys.readouterr().err
    assert line in err
    assert len(err.splitlines()) == 1


def test_words_win_over_methods(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    register(monkeypatch, "metrics", "Toy")
    assert "metrics" in separator_names()
    assert _list(monkeypatch, "metrics") == 0
    assert "caveat" not in capsys.readouterr().out


def test_a_method_with_an_algorithm_of_its_own_for_sounds_shows_both(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _list(monkeypatch, "nmf") == 0
    images, sounds = capsys.readouterr().out.split("nmf on audio signals: NMF")
    assert images.startswith("nmf on image signals: NMF")
    assert "divergence" in sounds
    assert "divergence" not in images
    assert _cells(images, "atoms")[2] == "16"
    assert _cells(sounds, "atoms")[2] == "32"


def test_in_a_narrow_terminal_the_explanation_gets_the_room(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _list(monkeypatch, "nmf", columns="80") == 0
    out = capsys.readouterr().out
    assert re.search(r"atoms per class, at most one per training sample +│\n.*int, from 1, default 16", out)
    assert all(len(line) <= 80 for line in out.splitlines() if "│" in line)
