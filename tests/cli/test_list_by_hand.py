"""The lists of ``sepbench list`` and the page of a method with stand-ins: every state, mark, footnote and caveat."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from sepbench.cli import list as listing
from sepbench.cli import method_page
from sepbench.data.own.stored import BESIDE
from sepbench.errors import SepbenchError
from sepbench.protocols import MethodInfo, Support
from sepbench.settings import REQUIRED


def rows_of(table: Any, width: int = 200) -> list[list[str]]:
    """The cells of a table, its head first."""
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    lines = console.export_text().splitlines()
    return [[cell.strip() for cell in line.strip("│┃").split(line[0])] for line in lines if line[:1] in ("│", "┃")]


# ---- suites ----------------------------------------------------------------------------------------------------------------------------


def task(name: str, split: str = "test", n: int = 1_000, frozen: bool = True, domain: str = "image") -> Any:
    spec = SimpleNamespace(name=name, n_sources=2, operator="sum", domain=domain)
    return SimpleNamespace(spec=spec, split=split, n_examples=n, frozen=frozen)


def suite(*tasks: Any, version: int = 3) -> Any:
    return SimpleNamespace(version=version, tasks={one.spec.name: one for one in tasks})


def need(state: str, lacking: tuple[str, ...] = (), download: int = 0) -> Any:
    return SimpleNamespace(state=state, lacking=lacking, download=download)


LOADED: dict[str, Any] = {
    "several": suite(task("a"), task("b", n=12), task("a-val", "validation", 7, False)),
    "single": suite(task("t"), version=1),
    "own": suite(task("o")),
    "broken": SepbenchError("no TOML"),
    "unready": suite(task("u", frozen=False)),
}
NEEDS: dict[str, Any] = {
    "several": need("download", download=2_500_000),
    "single": need("download", download=1_000),
    "own": need("own copy", ("x",)),
    "broken": LOADED["broken"],
    "unready": SepbenchError("no such data"),
}


def test_every_suite_and_task_is_a_row() -> None:
    assert rows_of(listing._suites(LOADED, NEEDS)) == [
        ["suite", "state", "task", "K", "operator", "mixtures"],
        ["several v3", "download", "a", "2", "sum", "1,000"],
        ["", "2.5 MB", "b", "2", "sum", "12"],
        ["", "", "a-val", "2", "sum", "7 *"],
        ["single v1", "download", "t", "2", "sum", "1,000"],
        ["", "1.0 kB", "", "", "", ""],
        ["own v3", "own copy", "o", "2", "sum", "1,000"],
        ["broken", "unusable", "", "", "", ""],
        ["unready v3", "unusable", "u", "2", "sum", "1,000 *"],
    ]


@pytest.mark.parametrize(
    ("state", "words"),
    [("ready", ["[green]ready[/green]"]), ("download", ["[yellow]download[/yellow]", "1.5 kB"]), ("own copy", ["[yellow]own copy[/yellow]"])],
)
def test_states_have_their_colours_and_downloads_their_size(state: str, words: list[str]) -> None:
    assert listing._state(need(state, download=1_500)) == words
    assert listing._state(SepbenchError("no")) == ["[red]unusable[/red]"]


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], loaded: Any, needs: Any, offline: bool = False, mine: Any = ()) -> list[str]:
    monkeypatch.setattr("sepbench.data.files.fetch.offline", lambda: offline)
    monkeypatch.setattr("sepbench.registry.own_suite", lambda name: Path(f"/home/[me]/{name}/suite.toml") if name in mine else None)
    monkeypatch.setattr("sepbench.registry.suite_folders", lambda: [Path("one"), Path("/two")])
    listing._print_readiness(loaded, needs, Console(width=20))
    return capsys.readouterr().out.splitlines()


FOLDERS = "Suites of your own are looked up in one, then /two (SEPBENCH_SUITES names more; 'sepbench new-suite' makes one)."


def test_what_lists_have_no_room_for_is_told_below_them(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(monkeypatch, capsys, LOADED, NEEDS, offline=True, mine=("own",)) == [
        "broken is unusable: no TOML",
        "unready is unusable: no such data",
        "*: the list of mixtures is not frozen; a rule makes it from your copy of the data",
        "download: 'sepbench run' gets the data when it needs them, 'sepbench data fetch NAME' gets them now",
        "own copy: own needs x; 'sepbench data verify x' says where that comes from",
        "own is a suite of your own, in /home/[me]/own",
        FOLDERS,
        "SEPBENCH_OFFLINE is set: nothing is downloaded.",
    ]
    ready = {"single": LOADED["single"]}
    assert told(monkeypatch, capsys, ready, {"single": need("ready")}) == [FOLDERS]


def test_suites_that_lack_the_same_data_share_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lacking = {"a": ("x", "y"), "b": ("z",), "c": ("x", "y")}
    needs = {name: need("own copy", data) for name, data in lacking.items()} | {"d": need("download", ("z",), 5)}
    lines = told(monkeypatch, capsys, dict.fromkeys(needs, LOADED["single"]), needs)
    assert lines[1:-1] == [
        "own copy: a, c need x and y; 'sepbench data verify x' says where that comes from",
        "own copy: b needs z; 'sepbench data verify z' says where that comes from",
    ]
    beside = (f"{BESIDE}a", f"{BESIDE}b")
    assert listing._lacking(beside) == f"files that are missing in its own folder ({', '.join(beside)}); copy the whole folder again"


def test_suites_that_cannot_be_loaded_or_used_keep_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> Any:
        if isinstance(LOADED[name], SepbenchError):
            raise LOADED[name]
        return LOADED[name]

    def ready(name: str, given: Any) -> Any:
        assert given is LOADED[name]
        if isinstance(NEEDS[name], SepbenchError):
            raise NEEDS[name]
        return NEEDS[name]

    monkeypatch.setattr("sepbench.registry.suite_names", lambda: list(LOADED))
    monkeypatch.setattr("sepbench.suites.loader.load_suite", load)
    monkeypatch.setattr("sepbench.suites.readiness.readiness", ready)
    assert listing._loaded_suites(None) == LOADED
    assert listing._loaded_suites(("own",)) == {"own": LOADED["own"]}
    assert listing._needs(LOADED) == NEEDS


# ---- methods and metrics ---------------------------------------------------------------------------------------------------------------


def info(name: str, paper: str, *domains: Any, bound: Any = "", level: Any = "prior", deterministic: bool = True) -> MethodInfo:
    return MethodInfo(name, f"Title [of] {paper}", "3", frozenset(domains), level, paper, bound=bound, deterministic=deterministic)


def test_every_method_is_a_row_and_long_ones_have_each_paper_once(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, Any] = {
        "two": [info("two", "P", "image", "vector"), info("two", "Q", "audio"), info("two", "P", "audio")],
        "bad": SepbenchError("no [licence]"),
        "low": [info("low", "yours", "audio", bound="lower", level="blind")],
        "up": [info("up", "R", "audio", bound="upper", level="bound")],
    }
    monkeypatch.setattr("sepbench.registry.separator_names", lambda: list(known))
    monkeypatch.setattr("sepbench.run.method_infos.method_infos", lambda names: {name: known[name] for name in names})
    short = [
        ["method", "learns from", "signals", "what it is"],
        ["two", "prior", "audio, image, vector", "Title [of] P"],
        ["bad", "", "", "no [licence]"],
        ["low", "blind, lower bound", "audio", "Title [of] yours"],
        ["up", "bound", "audio", "Title [of] R"],
    ]
    assert rows_of(listing._methods(False)) == short
    papers = ["paper", "P; Q", "", "none, a method of your own", "R"]
    assert rows_of(listing._methods(True)) == [[*row, paper] for row, paper in zip(short, papers, strict=True)]
    assert listing._methods(False).title == "Methods ('sepbench list NAME' shows one with its settings, --long the papers)"
    assert listing._methods(True).title == "Methods ('sepbench list NAME' shows one with its settings)"


@pytest.mark.parametrize(("only", "rows"), [(None, [0, 1, 2]), (("down",), [2]), (("odd", "up"), [1, 0])])
def test_every_metric_is_a_row(monkeypatch: pytest.MonkeyPatch, only: Any, rows: list[int]) -> None:
    def metric(name: str) -> Any:
        if name == "odd":
            raise SepbenchError("needs [museval]")
        return SimpleNamespace(info=SimpleNamespace(unit="dB", higher_is_better=name == "up", per="source", source="a formula"))

    monkeypatch.setattr("sepbench.metrics.catalogue.metric_names", lambda: ["up", "odd", "down"])
    monkeypatch.setattr("sepbench.metrics.catalogue.get_metric", metric)
    every = [["up", "dB", "higher", "source", "a formula"], ["odd", "", "", "", "needs [museval]"], ["down", "dB", "lower", "source", "a formula"]]
    assert rows_of(listing._metrics(only)) == [["metric", "unit", "better", "per", "source"], *(every[row] for row in rows)]


# ---- the page of a method --------------------------------------------------------------------------------------------------------------

TAKEN: dict[str, tuple[dict[str, list[str]], dict[str, list[str]], str]] = {
    "all": ({"s": ["a", "b"]}, {}, ""),
    "none": ({}, {"s": ["a"], "r": ["b"]}, "0 of the 2 with these signals"),
    "fewer": ({"s": ["a"]}, {"s": ["b"], "r": ["c"]}, "1 of the 3 with these signals: s/a"),
    "as many": ({"s": ["a"]}, {"r": ["c"]}, "1 of the 2 with these signals: s"),
    "more": ({"s": ["a", "b"], "r": ["c"]}, {"s": ["d"], "q": ["e"]}, "3 of the 5 with these signals; not s/d, q"),
}


@pytest.mark.parametrize("case", TAKEN)
def test_tasks_are_named_by_suite_where_all_of_it_is_meant(case: str) -> None:
    taken, refused, words = TAKEN[case]
    assert method_page._Taken(taken, refused).words == words


def test_a_method_is_asked_about_test_tasks_of_its_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite that cannot be loaded, or a task that cannot be asked about, is no caveat of the method and hides no other suite."""
    suites: dict[str, Any] = {
        "gone": SepbenchError("no TOML"),
        "one": suite(task("a"), task("b"), task("v", "validation"), task("sound", domain="audio")),
        "odd": suite(task("c"), task("raises")),
        "two": suite(task("a"), task("refused")),
    }
    answers = {"a": Support(True, "by\nname"), "b": Support(True), "c": Support(True, "by\nname"), "refused": Support(False, "no")}
    asked: list[str] = []

    def load(name: str) -> Any:
        if isinstance(suites[name], SepbenchError):
            raise suites[name]
        return suites[name]

    def ask(name: str, separator: Any, one: Any) -> Support:
        asked.append(one.spec.name)
        if one.spec.name == "raises":
            raise SepbenchError("no answer")
        return answers[one.spec.name]

    monkeypatch.setattr("sepbench.registry.suite_names", lambda: list(suites))
    monkeypatch.setattr("sepbench.suites.loader.load_suite", load)
    monkeypatch.setattr("sepbench.run.plan.task_support", ask)
    found = method_page._asked("m", SimpleNamespace(info=info("m", "P", "image", "vector")))  # type: ignore[arg-type]
    assert (found.taken, found.refused) == ({"one": ["a", "b"], "two": ["a"]}, {"two": ["refused"]})
    assert found.notes == {"by name": ["one", "two"]}
    assert asked == ["a", "b", "c", "raises", "a", "refused"]


class Plain:
    """What it does,
    in short.

    And at length.
    """


def test_what_a_method_says_of_itself_in_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = method_page._Taken({"s": ["a"]}, {"s": ["b"]}, {"slow": ["s", "r"], "odd": ["r"]})
    monkeypatch.setattr(method_page, "_asked", lambda name, separator: asked)
    said: Any = Plain()
    said.info = info("m", "Wiener (1949)", "vector", "audio", bound="upper", level="prior", deterministic=False)
    assert method_page.facts_of("m", said) == [
        ("about", "What it does, in short."),
        ("paper", "Wiener (1949)"),
        ("version", "3"),
        ("learns from", "prior, clean samples without classes, one unconditional model (BASIS, S-D, LASS)"),
        ("signals", "audio, vector"),
        ("tasks", "1 of the 2 with these signals: s/a"),
        ("caveat", "a row for comparison (upper bound), never ranked"),
        ("caveat", "the estimates depend on the seed"),
        ("caveat", "slow (s, r)"),
        ("caveat", "odd (r)"),
    ]
    monkeypatch.setattr(method_page, "_asked", lambda name, separator: method_page._Taken())
    bare: Any = type("Bare", (), {"__doc__": "Bare(x: int = 3)"})()
    bare.info = info("m", " Yours ", "audio", level="magic")
    assert method_page.facts_of("m", bare) == [
        ("paper", "none, a method of your own"),
        ("version", "3"),
        ("learns from", "magic, which is no level that sepbench knows"),
        ("signals", "audio"),
    ]


@pytest.mark.parametrize("wide", [True, False])
def test_every_setting_is_a_row(monkeypatch: pytest.MonkeyPatch, wide: bool) -> None:
    def setting(name: str, default: Any, bounds: str) -> Any:
        return SimpleNamespace(name=name, kind="int", default=default, range=bounds, description=f"[what] {name} does")

    found = [setting("rank", 3, "from 1"), setting("path", REQUIRED, ""), setting("zero", 0, "")]
    monkeypatch.setattr("sepbench.settings.describe", lambda cls: found)
    table: Any = method_page._settings("m", int, wide=wide)
    assert str(table.title) == "Settings (sepbench run ... --set m.SETTING=VALUE)"
    if wide:
        assert rows_of(table) == [
            ["setting", "type", "default", "range", "what it does"],
            ["rank", "int", "3", "from 1", "[what] rank does"],
            ["path", "int", "", "", "[what] path does"],
            ["zero", "int", "0", "", "[what] zero does"],
        ]
    else:
        assert rows_of(table) == [
            ["setting", "what it does"],
            *(["rank", "[what] rank does"], ["", "int, from 1, default 3"], ["path", "[what] path does"], ["", "int, required"]),
            *(["zero", "[what] zero does"], ["", "int, default 0"]),
        ]
    found.clear()
    assert method_page._settings("m", int, wide=wide) == "settings: none"


@pytest.mark.parametrize(("width", "wide"), [(109, False), (110, True)])
def test_explanations_get_a_column_of_their_own_where_there_is_room(monkeypatch: pytest.MonkeyPatch, width: int, wide: bool) -> None:
    asked: list[bool] = []
    made = SimpleNamespace(info=info("average", "P", "audio", "image"))
    monkeypatch.setattr("sepbench.registry.separator_domains", lambda name: [None])
    monkeypatch.setattr("sepbench.registry.create_separator", lambda name, domain: made)
    monkeypatch.setattr(method_page, "facts_of", lambda name, separator: [("label", "text")])
    monkeypatch.setattr(method_page, "_settings", lambda name, cls, *, wide: asked.append(wide) or "settings: none")
    console = Console(width=width, record=True, file=io.StringIO())
    method_page.show_method("average", (), console)
    assert asked == [wide]
    assert console.export_text() == "average: Title [of] P\nlabel: text\nsettings: none\n"
