"""What surrounds every command: folders of the environment, errors in one line, threads that fail, readers that go away."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import sepbench
from sepbench.cli import main as module
from sepbench.errors import SepbenchError

# ---- folders ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given", "fixed"),
    [
        ("SEPBENCH_DATA", "data", "{here}/data"),
        ("SEPBENCH_DATA", " ../data ", "{up}/data"),
        ("SEPBENCH_DATA", "/data", "/data"),
        ("SEPBENCH_DATA", "~/data", "~/data"),
        ("SEPBENCH_DATA", "a:b", "{here}/a:b"),
        ("SEPBENCH_CACHE", "c/./d", "{here}/c/d"),
        ("SEPBENCH_SUITES", "a::/b:~/c", "{here}/a:/b:~/c"),
        ("SEPBENCH_SUITES", ":", ":"),
        ("SEPBENCH_CACHE", "  ", "  "),
        ("SEPBENCH_OTHER", "a", "a"),
    ],
)
def test_relative_folders_are_those_of_the_place_where_the_command_began(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, given: str, fixed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {name: given})
    module._fix_folders()
    assert os.environ == {name: fixed.format(here=tmp_path, up=tmp_path.parent)}


@pytest.mark.parametrize(
    ("words", "variables", "what"),
    [
        (["a", "caf\udce9"], {}, r"argument 2, caf\udce9,"),
        (["\udce9", "\udcea"], {}, r"argument 1, \udce9,"),
        ([], {"SEPBENCH_SUITES": "\udce9"}, r"SEPBENCH_SUITES, \udce9,"),
        (["a"], {"SEPBENCH_DATA": "d\udce9", "SEPBENCH_CACHE": "\udce9"}, r"SEPBENCH_DATA, d\udce9,"),
        (["ä"], {"SEPBENCH_DATA": "ö", "HOME": "\udce9"}, ""),
    ],
)
def test_texts_that_no_file_could_hold_are_told_before_anything_begins(
    monkeypatch: pytest.MonkeyPatch, words: list[str], variables: dict[str, str], what: str
) -> None:
    monkeypatch.setattr(os, "environ", variables)
    monkeypatch.setattr(sys, "argv", ["caf\udce9", *words])
    if not what:
        module._check_texts()
        return
    with pytest.raises(SepbenchError) as refused:
        module._check_texts()
    assert str(refused.value) == f"{what} is not UTF-8 text; rename the file or folder, or name another one"


# ---- errors ----------------------------------------------------------------------------------------------------------------------------


def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException) -> tuple[Any, str]:
    def app(**options: Any) -> None:
        assert options == {"standalone_mode": True, "prog_name": "sepbench"}
        raise error

    monkeypatch.setattr(module, "app", app)
    monkeypatch.setattr(sys, "argv", ["sepbench"])
    monkeypatch.setattr(module, "_fix_folders", lambda: None)
    with pytest.raises(SystemExit) as stopped:
        module.main()
    return stopped.value.code, capsys.readouterr().err


REPORT = "this is a fault of sepbench or of a plug-in: please report it with what SEPBENCH_TRACEBACK=1 shows"
ENDS: list[tuple[BaseException, Any, str]] = [
    (SepbenchError("no such thing"), 2, "error: no such thing\n"),
    (SystemExit(7), 7, ""),
    (PermissionError(13, "Permission denied", "a\nb"), 2, "error: a b: permission denied; check files, permissions and the room on the disk\n"),
    (OSError(28, "No space left on device"), 2, "error: no space left on device; check files, permissions and the room on the disk\n"),
    (OSError("Odd"), 2, "error: oserror: odd; check files, permissions and the room on the disk\n"),
    (ValueError("two\nlines"), 2, f"error: unexpected ValueError: two lines; {REPORT}\n"),
    (MemoryError(), 2, f"error: unexpected MemoryError; {REPORT}\n"),
]


@pytest.mark.parametrize(("error", "code", "said"), ENDS, ids=[repr(error) for error, *_ in ENDS])
def test_a_command_ends_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str) -> None:
    monkeypatch.delenv("SEPBENCH_TRACEBACK", raising=False)
    assert ended(monkeypatch, capsys, error) == (code, said)


@pytest.mark.parametrize(("error", "shown"), [(ValueError("no"), True), (OSError("no"), True), (SepbenchError("no"), False)], ids=repr)
def test_who_asks_for_it_sees_where_what_nobody_foresaw_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, shown: bool
) -> None:
    monkeypatch.setenv("SEPBENCH_TRACEBACK", "1")
    if not shown:
        assert ended(monkeypatch, capsys, error) == (2, "error: no\n")
        return
    with pytest.raises(type(error), match=r"^no$"):
        ended(monkeypatch, capsys, error)


def test_ctrl_c_is_not_explained(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        ended(monkeypatch, capsys, KeyboardInterrupt())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("wanted", [False, True])
def test_a_thread_that_ends_alone_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wanted: bool) -> None:
    monkeypatch.setenv("SEPBENCH_TRACEBACK", "1" if wanted else "")
    before, shown = threading.excepthook, list[Any]()
    monkeypatch.setattr(threading, "__excepthook__", shown.append)
    failed: Any = SimpleNamespace(exc_value=ValueError("two\nlines"))
    with module._threads_end_in_one_line():
        threading.excepthook(failed)
        threading.excepthook(SimpleNamespace(exc_value=None))  # type: ignore[arg-type]
    assert threading.excepthook is before
    line = "warning: a thread of a method ended with ValueError: two lines; SEPBENCH_TRACEBACK=1 shows where\n"
    assert capsys.readouterr().err == ("" if wanted else line)
    assert len(shown) == 2 * wanted

    def fails() -> None:
        with module._threads_end_in_one_line():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert threading.excepthook is before


def test_a_table_whose_reader_went_away_is_no_failed_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Console, "on_broken_pipe", lambda self: None)  # put back at the end
    closed: list[Any] = []
    monkeypatch.setattr(os, "open", lambda path, flags: closed.append((path, flags)) or 9)
    monkeypatch.setattr(os, "dup2", lambda *given: closed.append(given))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(fileno=lambda: 1))
    module._tell_broken_pipes()
    with pytest.raises(SystemExit) as stopped:
        Console(file=sys.stderr).on_broken_pipe()
    monkeypatch.undo()
    assert stopped.value.code == 141
    assert closed == [(os.devnull, os.O_WRONLY), (9, 1)]


# ---- what typer says -------------------------------------------------------------------------------------------------------------------


def context(path: str, sub: str | None = None, options: tuple[tuple[list[str], list[str]], ...] = ()) -> Any:
    params = [SimpleNamespace(opts=opts, secondary_opts=secondary) for opts, secondary in options]
    command = SimpleNamespace(params=params, list_commands=lambda given: ["show", "run"])
    return SimpleNamespace(command_path=path, invoked_subcommand=sub, command=command)


OPTIONS = ((["--keep-estimates"], ["--no-keep-estimates"]), (["-x", "--suite"], []))
SAID: list[tuple[str, Any, str]] = [
    ("No such command 'runn'.", context("sepbench"), "unknown command 'runn'; did you mean run?"),
    ("No such command 'xyzzy'.", context("sepbench data"), "unknown command 'xyzzy'; 'sepbench data --help' lists them"),
    ("No such command 'runn'. Did you mean 'run'?", context("sepbench"), "unknown command 'runn'; did you mean run?"),
    ("No such option: --sute", context("sepbench run", options=OPTIONS), "sepbench run: unknown option '--sute'; did you mean --suite?"),
    ("No such option '--no-keep-estimate'", context("r", options=OPTIONS), "r: unknown option '--no-keep-estimate'; did you mean --no-keep-estimates"),
    ("No such option: -q", context("r", options=OPTIONS), "r: unknown option '-q'; 'r --help' lists them"),
    ("Missing argument 'B'.", context("sepbench", "compare"), "sepbench compare: missing argument 'B'; 'sepbench compare --help' shows what it takes"),
    ("Odd Words", context("sepbench run"), "sepbench run: odd Words; 'sepbench run --help' shows what it takes"),
]


@pytest.mark.parametrize(("message", "where", "said"), SAID, ids=[message for message, *_ in SAID])
def test_messages_of_typer_in_our_words(message: str, where: Any, said: str) -> None:
    assert module.usage_error(message, where).startswith(said)


def test_the_version_and_nothing_else() -> None:
    done = CliRunner().invoke(module.app, ["--version", "run"])
    assert (done.exit_code, done.stdout) == (0, f"sepbench {sepbench.__version__}\n")
