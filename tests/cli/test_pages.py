"""Long output goes through the pager on a terminal, and only there."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

DRAW = "from sepbench.cli.pages import print_in_pages; print_in_pages(lambda console: console.print('[bold red]first[/]' + chr(10) * {lines}), {wanted})"


def on_a_terminal(lines: int, pager: str | None, wanted: bool = True, **variables: str) -> str:
    """What a terminal of 24 lines shows."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("PAGER", "LESS", "NO_COLOR", "COLUMNS")}
    environment |= {"TERM": "xterm", "LINES": "24", **({} if pager is None else {"PAGER": pager}), **variables}
    done = subprocess.run([sys.executable, "-c", DRAW.format(lines=lines, wanted=wanted)], stdout=theirs, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 4096):
            seen += part
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert done.returncode == 0, done.stderr
    return seen.decode()


@pytest.mark.parametrize(
    ("lines", "wanted", "paged"), [(60, True, True), (5, True, False), (60, False, False)], ids=["longer than the screen", "short", "--no-pager"]
)
def test_what_is_longer_than_the_screen_goes_through_the_pager(tmp_path: Path, lines: int, wanted: bool, paged: bool) -> None:
    seen = on_a_terminal(lines, f"cat > {tmp_path / 'paged'}", wanted)
    assert ("first" in seen) is not paged
    assert (tmp_path / "paged").exists() is paged
    if paged:
        assert "\x1b[1;31mfirst" in (tmp_path / "paged").read_text()


@pytest.mark.parametrize("pager", ["", "no-such-pager-anywhere", "true"], ids=["empty", "not installed", "leaves early"])
def test_without_a_pager_that_works_nothing_is_lost(pager: str) -> None:
    assert ("first" in on_a_terminal(60, pager)) is (pager != "true")


def test_no_color() -> None:
    assert "\x1b[1;31m" in on_a_terminal(1, "")
    assert "31m" not in on_a_terminal(1, "", NO_COLOR="1")


def test_pipes_have_no_pages(tmp_path: Path) -> None:
    environment = {**os.environ, "PAGER": f"cat > {tmp_path / 'paged'}", "LINES": "24"}
    done = subprocess.run([sys.executable, "-c", DRAW.format(lines=60, wanted=True)], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.startswith("first\n")
    assert not (tmp_path / "paged").exists()
