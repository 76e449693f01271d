"""A report as a folder: what each section is handed, which pages there are, what JSON holds, and what becomes of files that lie there."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from synthetic_run import SyntheticRun

from sepbench import __version__
from sepbench.errors import SepbenchError, UnknownNameError
from sepbench.report.html import extra, page
from sepbench.report.html.history import State
from sepbench.report.html.page import MANIFEST, Options, _check_tasks, _curves, _git_history, _histories, _write, as_json, write_report

pytest.importorskip("altair")


# -- what JSON holds


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "null"),
        (math.inf, "null"),
        (-math.inf, "null"),
        (0.1234567891, "0.123457"),
        (1e-12, "1e-12"),
        (123456789.0, "123457000.0"),
        (np.float64(math.nan), "null"),
        (np.int64(3), "3"),
        (np.bool_(True), "true"),
        (True, "true"),
        (None, "null"),
        (12345678, "12345678"),
        ({1: (1.0, [math.nan])}, '{"1":[1.0,[null]]}'),
        ({np.int64(1): 2.0}, '{"1":2.0}'),
        ("</script>&'", r'"\u003c/script\u003e\u0026\u0027"'),
    ],
)
def test_values_in_a_page(value: Any, text: str) -> None:
    assert str(as_json(value)) == text


# -- what the sections are handed


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[Any, ...]]]:
    """Sections that only write down what they were asked."""
    calls: dict[str, list[tuple[Any, ...]]] = {}

    def noted(name: str, real: Callable[..., Any] | None = None) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            calls.setdefault(name, []).append(given)
            return real(*given) if real is not None else None

        return call

    for name in ("distributions", "examples", "samples", "posterior"):
        monkeypatch.setattr(page, name, noted(name))
    monkeypatch.setattr(page, "curves", noted("curves", lambda boards: []))
    monkeypatch.setattr(page, "history", noted("history"))
    monkeypatch.setattr(page, "task_views", noted("task_views", page.task_views))
    monkeypatch.setattr(page, "vega_script", lambda: "/* not here */")
    return calls


def test_every_option_reaches_its_section(asked: dict[str, list[tuple[Any, ...]]], tmp_path: Path) -> None:
    run = SyntheticRun({"nmf": 16.0}, ("class-split", "class-agnostic"), n=2).save(tmp_path / "run")
    told: list[str] = []
    written = write_report([run], tmp_path / "report", Options(("class-agnostic",), (1, 0), 2.5, 6, "cuda", 0, False), told.append)
    ((view, media, chosen),) = asked["examples"]
    assert (view.task, chosen, media.budget) == ("class-agnostic", (1, 0), 2_500_000)
    ((again, same, count, device, mixtures, warn),) = asked["samples"]
    assert (again, same, count, device, mixtures) == (view, media, 6, "cuda", (1, 0))
    warn("a word")
    assert told == ["a word"]
    assert [asked[name] for name in ("distributions", "posterior")] == [[(view,)], [(view,)]]
    assert [len(boards) for (boards,) in asked["curves"]] == [1]
    assert "history" not in asked  # nobody asked for it
    text = written.index.read_text(encoding="utf-8")
    assert "live.js" not in text
    assert "class-split" not in text


@pytest.mark.parametrize("live", [False, True])
def test_a_page_that_is_served_asks_for_a_newer_one(asked: dict[str, list[tuple[Any, ...]]], tmp_path: Path, live: bool) -> None:
    run = SyntheticRun({"nmf": 16.0}, n=2).save(tmp_path / "run")
    pages = list(write_report([run], tmp_path / "report", Options(live=live)).index.parent.glob("*.html"))
    assert len(pages) == 2
    assert {"assets/live.js" in path.read_text(encoding="utf-8") for path in pages} == {live}


def test_defaults_of_a_report() -> None:
    assert Options() == Options((), (), 50.0, 0, "cpu", 0, False)


def test_pages_of_several_boards(asked: dict[str, list[tuple[Any, ...]]], tmp_path: Path) -> None:
    runs = [SyntheticRun({"nmf": 16.0}, n=2).save(tmp_path / name) for name in ("a", "index")]
    folder = write_report(runs, tmp_path / "report").index.parent
    names = {path.name for path in folder.glob("*.html")}
    (other,) = names - {"index.html", "a.html", "method-a--nmf.html"} - {name for name in names if name.startswith("method-index")}
    assert other.startswith("index-")  # the first page has the name
    assert len(names) == 5
    assert [len(boards) for (boards,) in asked["curves"]] == [1, 1, 2]
    ((states,),) = asked["history"]
    assert [(state.when, state.what) for state in states] == [(run, "sepbench run --suite digits-pairs --limit 2") for run in runs]


# -- which tasks, which history


def board(suite: str = "s", label: str = "L", *, folder: Path | None = None, tasks: tuple[str, ...] = ("t",), command: str | None = None) -> Any:
    frame = {"task": tasks}
    record = SimpleNamespace(command=command) if command is not None else None
    return SimpleNamespace(suite_name=suite, folder=folder, record=record, results=SimpleNamespace(label=label, frame=frame))


def test_a_task_is_one_of_any_board() -> None:
    boards = [board(tasks=("first", "both")), board(tasks=("both", "second"))]
    _check_tasks(boards, ["second", "first"])
    _check_tasks(boards, [])
    with pytest.raises(UnknownNameError) as caught:
        _check_tasks(boards, ["first", "secnd"])
    assert str(caught.value) == "unknown task 'secnd'; did you mean second?"


def test_a_history_is_of_a_leaderboard_s_own_file_or_of_the_committed_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    states: list[Any] = []

    def git_states(csv: Path, most: int, warn: Any) -> list[Any]:
        states.append((csv, most, warn))
        return ["states"]

    monkeypatch.setattr(page, "git_states", git_states)
    monkeypatch.setattr(page, "history", lambda found: ("history", found))
    own = tmp_path / "mine.csv"
    own.write_text("x")
    warn: Any = object()
    assert _git_history(board(label=str(own)), 3, warn) == ("history", ["states"])
    assert _git_history(board("digits-pairs", "digits-pairs"), 2, warn) == ("history", ["states"])
    from sepbench.resources import resource_root

    assert states == [(own, 3, warn), (resource_root("leaderboards") / "digits-pairs.csv", 2, warn)]
    assert _git_history(board(label=str(own)), 0, warn) is None
    assert _git_history(board(label=str(own), folder=tmp_path), 3, warn) is None  # a run has no history
    assert len(states) == 2


def test_histories_and_curves_are_of_boards_of_one_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    boards = [board("s", "a", command="run a"), board("u", "b"), board("s", "c"), board("v", "d"), board("v", "e")]
    monkeypatch.setattr(page, "history", lambda states: states if len(states) > 1 and states[0].results.label != "d" else None)
    assert _histories(boards) == [("s", [State("a", "run a", boards[0].results), State("c", "", boards[2].results)])]  # type: ignore[comparison-overlap]
    monkeypatch.setattr(page, "curves", lambda members: [one.results.label for one in members] if members[0].suite_name != "v" else [])
    assert _curves(boards) == [("s", ["a", "c"])]  # type: ignore[comparison-overlap]


# -- files


def listed(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))


def test_files_are_written_with_the_first_page_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order: list[str] = []
    real = page.write_atomically

    def noted(path: Path, write: Any) -> None:
        order.append(path.relative_to(tmp_path / "r").as_posix())
        real(path, write)

    monkeypatch.setattr(page, "write_atomically", noted)
    monkeypatch.setattr(page.time, "time_ns", lambda: 77)
    _write(tmp_path / "r", {"index.html": b"1", "z/deep/file.js": b"2", "method.html": b"3"})
    assert order == ["z/deep/file.js", "method.html", "index.html", MANIFEST]
    assert {name: (tmp_path / "r" / name).read_bytes() for name in order[:3]} == {"z/deep/file.js": b"2", "method.html": b"3", "index.html": b"1"}
    assert listed(tmp_path / "r") == {"sepbench": __version__, "stamp": 77, "files": ["index.html", "method.html", "z/deep/file.js"]}


@pytest.mark.parametrize("before", ["", "{", "[]", "3", "null", '{"files": 3}', '{"file": []}', '{"files": ["gone.html"]}', '{"files": [7, "old.html"]}'])
def test_a_list_of_files_that_cannot_be_read_removes_none(tmp_path: Path, before: str) -> None:
    (tmp_path / MANIFEST).write_text(before)
    (tmp_path / "old.html").write_text("old")
    (tmp_path / "kept.txt").write_text("mine")
    _write(tmp_path, {"index.html": b"new"})
    assert (tmp_path / "old.html").exists() == ("old.html" not in before)
    assert (tmp_path / "kept.txt").exists()
    assert listed(tmp_path)["files"] == ["index.html"]


def test_files_of_an_earlier_report_that_are_still_there_stay(tmp_path: Path) -> None:
    _write(tmp_path, {"index.html": b"1", "a.html": b"1", "b/c.html": b"1"})
    (tmp_path.parent / "outside.html").write_text("mine")
    (tmp_path / "link.html").symlink_to(tmp_path.parent / "outside.html")
    manifest = listed(tmp_path) | {"files": ["index.html", "a.html", "b/c.html", "link.html", str(tmp_path.parent / "outside.html")]}
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    _write(tmp_path, {"index.html": b"2", "a.html": b"2"})
    assert [(tmp_path / name).read_bytes() for name in ("index.html", "a.html")] == [b"2", b"2"]
    assert not (tmp_path / "b" / "c.html").exists()
    assert (tmp_path.parent / "outside.html").read_text() == "mine"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError("odd")])
def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: OSError) -> None:
    def refuse(path: Path, write: Any) -> None:
        raise error

    monkeypatch.setattr(page, "write_atomically", refuse)
    with pytest.raises(SepbenchError) as caught:
        _write(tmp_path, {"index.html": b""})
    assert str(caught.value) == f"cannot write {tmp_path}: {error.strerror or 'odd'}; choose a writable folder with --out"


def test_what_lies_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("")
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(SepbenchError) as caught:  # a folder of that name is no list of files
        page._check_folder(tmp_path)
    assert str(caught.value) == f"{tmp_path} is not empty and holds no report; choose another folder with --out"
    (tmp_path / MANIFEST).rmdir()
    (tmp_path / MANIFEST).write_text("")
    page._check_folder(tmp_path)


# -- the extra


@pytest.mark.parametrize(("module", "package"), [("jinja2", "Jinja2"), ("altair", "Altair"), ("vl_convert", "vl-convert-python"), ("PIL", "Pillow")])
def test_each_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, module: str, package: str) -> None:
    extra.check_html()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SepbenchError) as caught:
        extra.check_html()
    assert str(caught.value) == f"reports need {package}, which comes with the extra 'html': pip install 'sepbench[html]'"


def test_what_draws_is_told_where_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import altair

    assert extra.versions() == f"Altair {altair.__version__}, Vega-Lite {altair.SCHEMA_VERSION}"
    monkeypatch.delitem(sys.modules, "altair")
    assert extra.versions() == ""


@pytest.mark.parametrize(("known", "taken"), [(["5.8", "6.1", "7.0"], "6.1"), (["5.8", "5.20"], "5.20"), (["4.17", "5.8"], "5.8")])
def test_the_drawing_library_is_bundled_in_the_version_of_the_charts(monkeypatch: pytest.MonkeyPatch, known: list[str], taken: str) -> None:
    import altair
    import vl_convert

    def bundle(snippet: str, vl_version: str) -> str:
        return f"{snippet} {vl_version}"

    monkeypatch.setattr(altair, "SCHEMA_VERSION", "v6.1.0")
    monkeypatch.setattr(vl_convert, "get_vegalite_versions", lambda: known)
    monkeypatch.setattr(vl_convert, "javascript_bundle", bundle)
    head, body = extra.vega_script.__wrapped__().split("\n", 1)
    assert head == "/* Vega, Vega-Lite and Vega-Embed as vl-convert-python bundles them; BSD-3-Clause, https://github.com/vega */"
    assert body == f"(function () {{\nwindow.vegaEmbed = vegaEmbed; {taken}\n}})();\n"


def test_assets_are_scripts_and_styles_by_name() -> None:
    folder = Path(extra.__file__).parent / "assets"
    wanted = sorted(path.name for path in folder.iterdir() if path.name.endswith((".js", ".css")))
    assert list(extra.asset_files()) == wanted
    assert extra.asset_files()["theme.js"] == (folder / "theme.js").read_bytes()


def test_every_page_is_told_when_it_was_made_by_which_versions_and_whether_it_is_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is no text, such as half a character, is written with a question mark."""
    told: list[Any] = []
    template = SimpleNamespace(render=lambda **values: told.append(values) or "\ud800\u00e4")
    environment = SimpleNamespace(get_template=lambda name: told.append(name) or template)
    monkeypatch.setattr(page, "versions", lambda: "drawing 1.0")
    report = page._Report(Options(live=True), SimpleNamespace(), environment, made="noon")  # type: ignore[arg-type]
    report.render("a.html", "board.html.j2", title="T", board=None)
    assert told == ["board.html.j2", {"made": "noon", "version": __version__, "drawn_by": "drawing 1.0", "live": True, "title": "T", "board": None}]
    assert report.files == {"a.html": b"?\xc3\xa4"}


def test_the_history_of_a_suite_is_not_looked_for_in_a_folder_of_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found: list[Path] = []
    monkeypatch.setattr(page, "git_states", lambda csv, most, warn: found.append(csv) or [])
    monkeypatch.setattr(page, "history", lambda states: None)
    (tmp_path / "digits-pairs").mkdir()
    assert _git_history(board("digits-pairs", str(tmp_path / "digits-pairs")), 1, pytest.fail) is None
    assert [path.name for path in found] == ["digits-pairs.csv"]


def test_nothing_is_opened_for_a_folder_that_holds_something_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    monkeypatch.setattr(page, "open_board", lambda *given: pytest.fail("opened"))
    with pytest.raises(SepbenchError, match="holds no report"):
        write_report(["x"], tmp_path)


def test_pages_stop_at_a_name_that_a_template_does_not_know() -> None:
    """Templates lose the line ends of their own tags, and write what strangers say as words."""
    import jinja2

    environment = page._environment()
    assert environment.from_string("a\n  {% if true %}\n{{ word }}\n  {% endif %}\nb").render(word="<i>") == "a\n&lt;i&gt;\nb"
    with pytest.raises(jinja2.UndefinedError):
        environment.from_string("{{ nobody }}").render()
    assert environment.from_string("{{ 'A b' | slug }} {{ 'a_b' | breakable }} {{ x | json }}").render(x=[1.0]).split(" ", 1)[1] == "a_<wbr>b [1.0]"


def test_pictures_and_sounds_are_files_of_the_report_and_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def pages(report: Any, own: Any, boards: Any, warn: Any) -> None:
        assert (own, boards) == ("the board", [])
        report.media.add({"media/a.png": b"12345"})
        report.files["index.html"] = b"1234567"

    monkeypatch.setattr(page, "vega_script", lambda: "123")
    monkeypatch.setattr(page, "asset_files", lambda: {"theme.js": b"12"})
    monkeypatch.setattr(page, "open_board", lambda target, taken, warn: "the board" if (target, taken) == ("x", {"index"}) else None)
    monkeypatch.setattr(page, "_check_tasks", lambda boards, tasks: None)
    monkeypatch.setattr(page, "_board_page", pages)
    written = write_report(["x"], tmp_path / "r", Options(budget_mb=0.000005))
    assert (written.media, written.size, written.files) == (5, 17, 4)
    assert listed(tmp_path / "r")["files"] == ["assets/theme.js", "assets/vega.js", "index.html", "media/a.png"]
    assert [(tmp_path / "r" / name).read_bytes() for name in ("media/a.png", "assets/vega.js")] == [b"12345", b"123"]
