"""The table of ``env``, and which way long output takes, in this process."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import sepbench.run.provenance
from sepbench.cli import pages
from sepbench.cli.main import main


def test_env_shows_every_fact_in_a_row_of_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"processor": "A Test [1]", "packages": {"torch": "2.0", "numpy": "1.9"}, "threads": 3, "data_folders": []}
    monkeypatch.setattr(sepbench.run.provenance, "environment", lambda device: SimpleNamespace(mapping=lambda: dict(facts)))
    monkeypatch.setenv("SEPBENCH_DATA", "/first")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["sepbench", "env"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    lines = [line.split(None, 1) for line in capsys.readouterr().out.splitlines() if line.strip()]
    shown = {one[0]: one[1].strip() for one in lines}
    assert list(shown) == list(facts)
    assert (shown["processor"], shown["threads"]) == ("A Test [1]", "3")
    assert shown["packages"] == "torch 2.0, numpy 1.9"
    assert shown["data_folders"].startswith("/first")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("lines", "wanted", "paged"), [(23, True, False), (24, True, True), (60, True, True), (60, False, False)])
def test_only_what_is_longer_than_the_screen_is_paged(monkeypatch: pytest.MonkeyPatch, lines: int, wanted: bool, paged: bool) -> None:
    out, told = _Terminal(), []
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(pages, "_through", lambda pager, text: not told.append((pager, text)))
    for name, value in (("TERM", "xterm"), ("LINES", "24"), ("COLUMNS", "80"), ("PAGER", " mine -x ")):
        monkeypatch.setenv(name, value)
    pages.print_in_pages(lambda console: console.print("\n".join(["line"] * lines)), wanted)
    if paged:
        ((pager, text),) = told
        assert pager == "mine -x"
        assert text.count("line") == lines
        assert out.getvalue() == ""
    else:
        assert not told
        assert out.getvalue().count("line") == lines


@pytest.mark.parametrize(("code", "used"), [(0, True), (1, True), (pages.NOT_FOUND, False)])
def test_a_pager_that_is_not_there(monkeypatch: pytest.MonkeyPatch, code: int, used: bool) -> None:
    asked: list[Any] = []

    class Pager:
        returncode = code

        def __init__(self, command: str, **options: Any) -> None:
            asked.append((command, options["env"]))

        def communicate(self, text: bytes) -> None:
            asked.append(text)

        def wait(self) -> None:
            pass

    monkeypatch.setattr(subprocess, "Popen", Pager)
    monkeypatch.delenv("LESS", raising=False)
    assert pages._through("less", "ä\n") is used
    assert asked[0][0] == "less"
    assert "R" in asked[0][1]["LESS"]
    assert asked[1].decode() == "ä\n"
    monkeypatch.setenv("LESS", "S")
    pages._through("less", "")
    assert asked[2][1]["LESS"] == "S"  # the user's own counts


@pytest.mark.parametrize(("pager", "is_terminal"), [("  ", True), ("less", False)])
def test_without_a_pager_or_a_terminal_all_is_printed(monkeypatch: pytest.MonkeyPatch, pager: str, is_terminal: bool) -> None:
    out = _Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(pages, "_through", lambda pager, text: pytest.fail("there is no pager"))
    for name, value in (("TERM", "xterm"), ("LINES", "24"), ("COLUMNS", "80"), ("PAGER", pager), ("FORCE_COLOR", "1")):
        monkeypatch.setenv(name, value)
    pages.print_in_pages(lambda console: console.print("\n".join(["line"] * 60)))
    assert out.getvalue().count("line") == 60


def test_what_a_pager_that_is_not_there_did_not_show_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    out = _Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(pages, "_through", lambda pager, text: pager != "less")
    for name, value in (("TERM", "xterm"), ("LINES", "24"), ("COLUMNS", "80")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PAGER", raising=False)  # less is what is taken then
    pages.print_in_pages(lambda console: console.print("\n".join(["line"] * 60)))
    assert out.getvalue().count("line") == 60


def test_a_pager_gets_the_terminal_s_characters_and_ctrl_c_is_its_own_business(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[Any] = []

    class Pager:
        returncode = 0

        def __init__(self, command: str, **options: Any) -> None:
            did.append((command, options["shell"], options["stdin"]))

        def communicate(self, text: bytes) -> None:
            did.append(text)
            raise KeyboardInterrupt

        def wait(self) -> None:
            did.append("waited")

    monkeypatch.setattr(subprocess, "Popen", Pager)
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(encoding="ascii"))
    try:
        assert pages._through("less -x | cat", "ä")
    except KeyboardInterrupt:  # which would end the tests
        pytest.fail("Ctrl-C came through")
    assert did == [("less -x | cat", True, subprocess.PIPE), b"\\xe4", "waited"]
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(encoding=None))
    pages._through("less", "ä")
    assert did[4] == "ä".encode()
