"""``sepbench list``: names by kind, and the page of one method."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import pytest
from broken_methods import register

from sepbench.cli.main import main
from sepbench.cli.method_page import paper_of
from sepbench.protocols import MethodInfo
from sepbench.registry import separator_class, separator_domains, separator_names
from sepbench.settings import parse_settings, setting_names


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


def test_the_list_of_methods_is_short_and_long_has_the_papers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _list(monkeypatch, "methods") == 0
    short = capsys.readouterr().out
    assert _cells(short, "nmf")[:3] == ["nmf", "sources", "audio, image"]
    assert len(_cells(short, "nmf")) == 4
    assert _list(monkeypatch, "methods", "--long", columns="600") == 0
    long = capsys.readouterr().out
    assert _cells(long, "nmf")[:3] == _cells(short, "nmf")[:3]
    assert "Lee and Seung 2000" in _cells(long, "nmf")[4]
    assert "Lee and Seung 2000" not in short


@pytest.mark.parametrize(("paper", "said"), [("yours", "none, a method of your own"), ("", "none, a method of your own"), ("Wiener (1949)", "Wiener (1949)")])
def test_the_template_s_paper_is_no_paper(paper: str, said: str) -> None:
    info = MethodInfo("my-net", "My net", "1", frozenset({"image"}), "blind", paper, deterministic=True)
    assert paper_of(info) == said


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
    assert _cells(out, "best_of") == ["best_of", "int", "4", "from 1 to 65536", "how many draws are made; the one with the best criterion is kept"]
    assert _cells(out, "combine")[1:4] == ["best | mean", "mean", ""]
    assert _cells(out, "stochasticity")[3] == "from 0 to 1"


@pytest.mark.parametrize(("what", "name"), [("methods", "nmf"), ("suites", "digits-pairs"), ("metrics", "psnr")])
@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["table", "json"])
def test_one_of_a_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str, name: str, as_json: tuple[str, ...]) -> None:
    """A name after a list shows this one: the page of a method, the row of a suite or a metric."""
    assert _list(monkeypatch, what, name, *as_json) == 0
    out = capsys.readouterr().out
    if what == "methods":
        assert _list(monkeypatch, name, *as_json) == 0
        assert out == capsys.readouterr().out
    elif as_json:
        assert [one["name"] for one in json.loads(out)[what]] == [name]
    else:
        assert [row[0].split()[0] for line in out.splitlines() if line.startswith("│") and (row := line.strip("│").split("│"))[0].strip()] == [name]


def test_caveats_name_their_suites(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _list(monkeypatch, "hpss") == 0
    assert re.search(r"caveat: percussive part is source 0 \(drums\), by the class's name \([^)]*drums-bass-synth", capsys.readouterr().out)


@pytest.mark.parametrize("name", ["nes-unet", "nes-am", "nes-glom", "supervised-unet"])
def test_presets_for_images_name_images_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Their classes take sounds too; these settings do not."""
    assert _list(monkeypatch, name) == 0
    out = capsys.readouterr().out
    assert "\nsignals: image\n" in out
    taken = re.search(r"^tasks: (\d+) of the \d+ with these signals: (.*)$", out, re.M)
    assert taken is not None
    named = taken[2].split(", ")
    assert {"mnist-nes", "mnist-pairs/class-split", "digits-pairs/class-split"} < set(named)
    assert not [task for task in named if task.endswith("class-agnostic")]
    assert not [suite for suite in named if suite.startswith(("drums-bass-synth", "fsdd"))]


def test_tasks_are_named_or_those_that_are_not_taken_where_these_are_fewer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, line in (
        ("projected-4x-per-class", r"^tasks: 3 of the \d\d with these signals: mnist-nes, mnist-pairs/class-split$"),
        ("rpca", r"^tasks: 16 of the 19 with these signals; not cifar10-color, cifar10-mini-color, mnist-quads$"),
        ("average", r"^tasks: \d\d of the \d\d with these signals; not gaussian-exact, gmm-exact$"),  # which want draws of a posterior
    ):
        assert _list(monkeypatch, name) == 0
        assert re.search(line, capsys.readouterr().out, re.M), name
    assert _list(monkeypatch, "original") == 0
    assert "tasks: " not in capsys.readouterr().out  # takes all images


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
    "a suite": ("digits-pairs", None, "digits-pairs is a suite: 'sepbench list suites digits-pairs' shows its tasks"),
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
    assert _list(monkeypatch, "methods", "metrics") == 0  # which is how one gets at such a method
    assert capsys.readouterr().out.startswith("metrics: ")


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


# -- JSON


def _document(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert _list(monkeypatch, *words, "--json", columns="40") == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_json_of_everything(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    document = _document(monkeypatch, capsys)
    assert set(document) == {"format", "sepbench_version", "suites", "methods", "metrics"}
    assert [one["name"] for one in document["methods"]] == separator_names()
    (digits,) = [one for one in document["suites"] if one["name"] == "digits-pairs"]
    assert (digits["version"], digits["domain"], digits["ranking_metric"]) == (1, "image", "psnr")
    assert next((task["name"], task["n_sources"], task["mixtures"]) for task in digits["tasks"]) == ("class-split", 2, 1000)
    (psnr,) = [one for one in document["metrics"] if one["name"] == "psnr"]
    assert psnr["higher_is_better"] is True
    (bound,) = [one for one in document["methods"] if one["name"] == "ideal-mask"]
    assert bound["supervision"] == "bound"


def test_json_of_a_method(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    method = _document(monkeypatch, capsys, "nmf")["method"]
    images, sounds = method["implementations"]
    assert (images["domains"], sounds["domains"]) == (["image"], ["audio"])
    atoms = {one["name"]: one for one in images["settings"]}["atoms"]
    assert (atoms["type"], atoms["default"], atoms["range"], atoms["required"]) == ("int", 16, "from 1", False)
    assert set(_document(monkeypatch, capsys, "metrics")) == {"format", "sepbench_version", "metrics"}


def test_a_method_that_cannot_be_made_is_listed_with_its_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    register(monkeypatch, "toy", "RaisesWhenMade")
    (toy,) = [one for one in _document(monkeypatch, capsys, "methods")["methods"] if one["name"] == "toy"]
    assert "no licence" in toy["error"]


def test_a_name_that_is_none_leaves_stdout_empty(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _list(monkeypatch, "avrage", "--json") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "did you mean average" in printed.err


# -- narrow terminals


@pytest.mark.parametrize("what", ["suites", "methods", "metrics", "nmf"])
def test_narrow_terminals_get_every_word(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str) -> None:
    assert _list(monkeypatch, what, columns="200") == 0
    wide = capsys.readouterr().out
    assert _list(monkeypatch, what, columns="40") == 0
    narrow = capsys.readouterr().out
    long_words = {word for word in re.findall(r"[\w-]{4,}", wide) if len(word) <= 36}
    heads = {"suite", "method", "metric", "setting", "type", "range"}  # of columns that a paragraph does not need
    assert {word for word in long_words if word not in narrow} <= heads
    tables = narrow.partition("*: the list")[0]  # whose lines the terminal breaks
    assert all(len(line) <= 40 or " " not in line.strip() for line in tables.splitlines())


@pytest.mark.parametrize("method", ["projected-4x", "nmf", "nmf-blind"])
def test_the_option_that_the_page_tells_sets_what_the_page_lists(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], method: str) -> None:
    assert _list(monkeypatch, method) == 0
    out = capsys.readouterr().out
    titles = re.findall(r"\(sepbench run \.\.\. --set (\S+)\)", out)
    domains = separator_domains(method)
    assert len(titles) == len(domains)
    for title, domain in zip(titles, domains, strict=True):
        for setting in setting_names(separator_class(method, domain)):
            read = parse_settings([title.replace("SETTING", setting).replace("VALUE", "3")])
            assert read == {method: {setting: 3}}
