"""The documents: their commands run or at least parse, every suite and method has its page, and the site builds in strict mode."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from sepbench.registry import separator_names, suite_names

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
OWN = re.compile(r"my-|mine|NAME|METHOD|SUITE|RUN|PATH|FOLDER|\.\.\.")
"""What stands for a name of the reader's own."""


def fences(text: str) -> Iterator[tuple[str, str, str]]:
    """Language, title and content of every fenced block."""
    for head, body in re.findall(r"^ *```([^\n]*)\n(.*?)^ *```", text, flags=re.S | re.M):
        title = re.search(r'title="([^"]*)"', head)
        yield head.split(" ")[0], title[1] if title else "", body


def commands(body: str) -> list[str]:
    """Lines that call sepbench, without prompt and comment, continued lines joined."""
    lines = re.sub(r"\\\n\s*", "", body).splitlines()
    calls = [re.sub(r"^\w*\$ ", "", line).split("  #")[0].strip() for line in lines]
    return [call for call in calls if call.startswith("sepbench ")]


def _all_commands() -> list[tuple[str, str]]:
    pages = [*PAGES, ROOT / "README.md"]
    return [(page.name, call) for page in pages for _, _, body in fences(page.read_text(encoding="utf-8")) for call in commands(body)]


@cache
def _sepbench() -> Any:
    from sepbench.cli.main import app

    return typer.main.get_command(app)


def _parse(arguments: list[str]) -> dict[str, Any]:
    """The options of a command as ``sepbench`` would read them; nothing is run, and files of ``--config`` need not be there."""
    command = _sepbench()
    context = command.make_context("sepbench", list(arguments))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context, resilient_parsing="--config" in rest)
    return dict(context.params)


def test_wrong_commands_do_not_parse() -> None:
    for wrong in ("run --suit digits-pairs", "runn --suite digits-pairs", "show", "run --suite digits-pairs --limit ten", "data fetsch mnist"):
        with pytest.raises(Exception, match=r"[Nn]o such|[Mm]issing|valid integer"):
            _parse(wrong.split())


def test_every_command_parses_and_names_what_exists() -> None:
    found = _all_commands()
    assert len(found) > 40
    wrong = []
    made = {name for _, call in found for name in re.findall(r"new-suite ([\w-]+)", call)} | {"by-hand"}  # suites that docs/own-data.md makes
    known_suites, known_methods = {*suite_names(), *made}, set(separator_names())
    for page, call in found:
        if "..." in call:
            continue
        try:
            given = _parse(shlex.split(call)[1:])
        except Exception as error:  # which classes these are depends on typer's version
            wrong.append(f"{page}: {call}: {error!r}")
            continue
        suites = [given["suite"]] if given.get("suite") else []
        methods = [name.strip() for name in str(given.get("methods") or "").split(",") if name.strip()]
        wrong += [f"{page}: {call}: no suite {name}" for name in suites if name not in known_suites and not OWN.search(name)]
        wrong += [f"{page}: {call}: no method {name}" for name in methods if name not in known_methods and not OWN.search(name)]
    assert wrong == []


def test_a_command_that_is_not_run_says_why() -> None:
    """``console`` blocks without a title are run; any other block with a command has a title, as in ``bash title="needs data"``."""
    silent = [
        f"{page.relative_to(ROOT)}: {commands(body)[0]}"
        for page in PAGES
        for language, title, body in fences(page.read_text(encoding="utf-8"))
        if commands(body) and not title and language != "console"
    ]
    assert silent == []


def _run_here(page: Path) -> list[str]:
    blocks = [body for language, title, body in fences(page.read_text(encoding="utf-8")) if language == "console" and not title]
    return [line[2:] for body in blocks for line in body.splitlines() if line.startswith("$ ")]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if _run_here(page)], ids=lambda page: page.stem)
def test_every_console_block_runs_as_written(page: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "SEPBENCH_OFFLINE": "1"}
    environment.pop("SEPBENCH_DATA", None)
    for command in _run_here(page):
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"


def test_every_suite_has_a_page() -> None:
    assert {page.stem for page in (DOCS / "suites").glob("*.md")} == {*suite_names(), "index"}


def test_the_tree_cites_only_files_that_are_in_it() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    missing = []
    for name in tracked:
        if name.endswith((".py", ".toml", ".md")) and (ROOT / name).exists() and name != "CHANGELOG.md":
            for cited in re.findall(r"\bdocs/[\w/-]+\.md\b", (ROOT / name).read_text(encoding="utf-8")):
                if not (ROOT / cited).exists():
                    missing.append(f"{name}: {cited}")
    assert missing == []


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 130
    links = re.findall(r"\]\(([^)#]+)", text)
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


@pytest.mark.slow
def test_the_site_builds_in_strict_mode(tmp_path: Path) -> None:
    """Links, anchors, pages that no menu names, the cards of suites and the pages of methods."""
    arguments = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    boards = "digits-pairs,stems-vocals"  # two of all, for the sake of time
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "SEPBENCH_OFFLINE": "1", "SEPBENCH_DOCS_LEADERBOARDS": boards}
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.parent.name for path in (tmp_path / "site" / "methods").glob("*/index.html")}
    assert {"basis", "nes", "nmf_audio", "projected_auto"} <= pages
    card = (tmp_path / "site" / "suites" / "mnist-pairs" / "index.html").read_text(encoding="utf-8")
    assert "33.67 [33.24, 34.10]" in card
    assert not re.search(r"""(?:src|href)=["']https?://fonts""", card)
    assert "leaderboards: 2 boards, " in done.stderr
    folder = tmp_path / "site" / "leaderboards"
    assert 'href="digits-pairs.html"' in (folder / "index.html").read_text(encoding="utf-8")
    assert "class-split" in (folder / "digits-pairs.html").read_text(encoding="utf-8")
    assert 'href="leaderboards/"' in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")


def test_the_site_is_whole_where_the_leaderboards_cannot_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = runpy.run_path(str(ROOT / "scripts" / "leaderboard_pages.py"))
    (tmp_path / "leaderboards").mkdir()
    (tmp_path / "leaderboards" / "index.html").write_text(pages["PLACEHOLDER"])
    monkeypatch.setitem(sys.modules, "altair", None)
    said = pages["write_leaderboards"](tmp_path)
    assert said.startswith("leaderboards: left out, reports need Altair")
    assert "\n" not in said
    assert (tmp_path / "leaderboards" / "index.html").read_text() == pages["PLACEHOLDER"]
    monkeypatch.setenv("SEPBENCH_DOCS_LEADERBOARDS", "")
    assert pages["write_leaderboards"](tmp_path) == "leaderboards: left out"


def test_the_site_takes_every_committed_leaderboard(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = runpy.run_path(str(ROOT / "scripts" / "leaderboard_pages.py"))
    monkeypatch.delenv("SEPBENCH_DOCS_LEADERBOARDS", raising=False)
    assert {"mnist-pairs", "gaussian-exact", "drums-bass-synth"} <= set(pages["wanted"]())
    assert "published" not in pages["wanted"]()
