"""What ``report`` and ``validate`` choose by themselves: which targets, which folder, which task; and what they say."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from sepbench.cli import report as command
from sepbench.cli import validate
from sepbench.errors import SepbenchError
from sepbench.protocols import Support
from sepbench.run.plan import SupportError

OPTIONS: dict[str, Any] = {"tasks": (), "asked": (), "budget_mb": 50.0, "samples": 0, "device": "auto", "history": 0, "live": False}
GIVEN: dict[tuple[str, ...], dict[str, Any]] = {
    (): {},
    ("--task", "a, b"): {"tasks": ("a", "b")},
    ("--examples", "0,5"): {"asked": (0, 5)},
    ("--samples", "64"): {"samples": 64},
    ("--device", "cuda:1"): {"device": "cuda:1"},
    ("--budget-mb", "2.5"): {"budget_mb": 2.5},
    ("--history", "200"): {"history": 200},
}


class Written:
    """What was to be written, of what, where."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.asked: list[Any] = []
        self.done = SimpleNamespace(index=Path("r/index.html"), files=1_234, size=5_000_000, media=0, seconds=2.6)
        patch.chdir(folder)
        page = SimpleNamespace(Options=lambda *given, live: dict(zip(OPTIONS, given, strict=False)) | {"live": live}, write_report=self._write)
        patch.setitem(sys.modules, "sepbench.report.html.page", page)  # type: ignore[arg-type] - the true one takes seconds to import
        patch.setitem(sys.modules, "sepbench.report.html.serve", SimpleNamespace(serve_report=self._serve))  # type: ignore[arg-type]
        patch.setattr("sepbench.resources.resource_root", lambda name: folder / name)

    def _write(self, targets: Any, folder: Path, options: Any, warn: Any) -> Any:
        self.asked.append((list(targets), str(folder), options))
        warn("left out [x]")
        return self.done

    def _serve(self, targets: Any, folder: Path, options: Any, port: int, warn: Any, told: Any) -> None:
        self.asked.append((list(targets), str(folder), options, port))
        warn("odd [x]")
        told("http://here")

    def __call__(self, *words: str) -> Any:
        app = typer.Typer()
        app.command()(command.report)
        self.asked.clear()
        return CliRunner(env={"COLUMNS": "40"}).invoke(app, list(words))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Written:
    for name in ("run", "other", "empty"):
        (tmp_path / name).mkdir()
    for name in ("run", "other"):
        (tmp_path / name / "run.json").touch()
    (tmp_path / "leaderboards").mkdir()
    for name in ("z.csv", "a.csv", "published.csv", "notes.txt"):
        (tmp_path / "leaderboards" / name).touch()
    return Written(monkeypatch, tmp_path)


@pytest.mark.parametrize("words", GIVEN, ids=" ".join)
def test_an_option_of_report_changes_what_it_is_called_after_and_nothing_else(written: Written, words: tuple[str, ...]) -> None:
    done = written("run", *words)
    assert done.exit_code == 0, done.exception
    assert written.asked == [(["run"], "run/report", OPTIONS | GIVEN[words])]
    assert done.stderr == "note: left out [x]\n"


@pytest.mark.parametrize(
    ("words", "targets", "folder"),
    [
        (("run",), ["run"], "run/report"),
        (("run", "--out", "there"), ["run"], "there"),
        (("run", "other"), ["run", "other"], "report"),
        (("empty",), ["empty"], "report"),
        (("a.csv",), ["a.csv"], "report"),
        (("--leaderboards",), ["a", "z"], "report"),
    ],
)
def test_a_run_s_report_lies_in_it_and_every_other_one_here(written: Written, words: tuple[str, ...], targets: list[str], folder: str) -> None:
    written(*words)
    assert written.asked == [(targets, folder, OPTIONS)]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "name runs, leaderboards or suites, or give --leaderboards for all that are committed"),
        (("run", "other", "--leaderboards"), "--leaderboards takes all that are committed; leave it out to show run, other alone"),
    ],
)
def test_what_is_to_be_reported_has_to_be_said_and_once(written: Written, words: tuple[str, ...], line: str) -> None:
    assert (str(written(*words).exception), written.asked) == (line, [])


def test_what_was_written_is_told_in_one_line(written: Written) -> None:
    assert written("run").stdout == "r/index.html: 1,234 files, 5.0 MB, 3 s\n"
    written.done.media = 2_000
    assert written("run").stdout == "r/index.html: 1,234 files, 5.0 MB, 2 kB of them pictures and sounds, 3 s\n"


@pytest.mark.parametrize(("words", "port"), [((), 8765), (("--port", "0"), 0), (("--port", "65535"), 65_535)])
def test_a_report_that_is_served_is_live_and_tells_its_address(written: Written, words: tuple[str, ...], port: int) -> None:
    done = written("run", "--serve", *words)
    assert written.asked == [(["run"], "run/report", OPTIONS | {"live": True}, port)]
    assert (done.stdout, done.stderr) == ("http://here\n", "note: odd [x]\n")


@pytest.mark.parametrize("words", [("--samples", "65"), ("--samples", "-1"), ("--history", "201"), ("--budget-mb", "-1"), ("--port", "65536")])
def test_numbers_of_a_report_have_bounds(written: Written, words: tuple[str, ...]) -> None:
    assert written("run", *words).exit_code == 2
    assert written.asked == []


# ---- validate --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "chosen"),
    [
        ((Support(True), Support(True)), "t0"),
        ((Support(False, "no"), Support(True), SupportError("odd")), "t1"),
        ((Support(False, "no"), SupportError("odd"), Support(True)), "t1"),  # the table will show it as a broken rule
        ((Support(False, "two\nonly"), Support(False, "never")), "m takes no task of s: two only; choose another with --suite"),
        ((), "m takes no task of s: it has none; choose another with --suite"),
    ],
)
def test_the_first_task_that_a_method_takes_is_the_one(monkeypatch: pytest.MonkeyPatch, answers: tuple[Any, ...], chosen: str) -> None:
    def ask(method: str, separator: Any, spec: Any) -> Support:
        assert (method, separator) == ("m", "separator")
        if isinstance(answers[spec], Exception):
            raise answers[spec]
        return answers[spec]  # type: ignore[no-any-return]

    monkeypatch.setattr("sepbench.run.plan.ask_support", ask)
    suite: Any = SimpleNamespace(name="s", tasks={f"t{number}": SimpleNamespace(spec=number) for number in range(len(answers))})
    if chosen.startswith("t"):
        assert validate._first_task("m", "separator", suite) == chosen  # type: ignore[arg-type]
        return
    with pytest.raises(SepbenchError) as refused:
        validate._first_task("m", "separator", suite)  # type: ignore[arg-type]
    assert str(refused.value) == chosen


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_the_rule_that_is_being_checked(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    shown: list[str] = []

    class Console:
        is_terminal = terminal

        def __init__(self, stderr: bool) -> None:
            assert stderr

        def status(self, text: str) -> Any:
            return self

        def __enter__(self) -> Any:
            return SimpleNamespace(update=lambda text: shown.append(text.plain))

        def __exit__(self, *ended: object) -> None:
            shown.append("ended")

    def rules(method: str, task: Any, **options: Any) -> Any:
        if "begin" in options:
            options.pop("begin")("a [rule]")
        return (method, task, options)

    monkeypatch.setattr("rich.console.Console", Console)
    monkeypatch.setattr("sepbench.conformance.validate_method", rules)
    assert validate._checks("m", "task", examples=3) == ("m", "task", {"examples": 3})  # type: ignore[arg-type,comparison-overlap]
    assert shown == ["a [rule]", "ended"] * terminal
