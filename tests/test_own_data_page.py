"""The page about own data: its script, its suite and its commands run as written, in order."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from sepbench.cli.main import main

pytest.importorskip("PIL.Image", reason="pillow is not installed")
pytest.importorskip("soundfile", reason="soundfile is not installed")

PAGE = Path(__file__).resolve().parent.parent / "docs" / "own-data.md"


@pytest.mark.slow  # three runs and their fits
def test_everything_on_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = dict.fromkeys(re.findall(r"```(\w+)[^\n]*\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEPBENCH_SUITES", raising=False)
    ran = []
    for language, block in blocks:
        if language == "python":
            exec(compile(block, str(PAGE), "exec"), {})
        elif language == "toml":
            (tmp_path / "suites" / "by-hand").mkdir()
            (tmp_path / "suites" / "by-hand" / "suite.toml").write_text(block, encoding="utf-8")
        for command in re.findall(r"^\$ (.*)$", block, flags=re.M):
            monkeypatch.setattr(sys, "argv", command.split())
            with pytest.raises(SystemExit) as stopped:
                main()
            assert not stopped.value.code, f"$ {command}\n{capsys.readouterr()}"
            ran.append(command.split()[1])
            assert command.split()[1] != "run" or " few " not in capsys.readouterr().out, f"$ {command} ranks nothing"
    assert ran == ["new-suite", "run", "new-suite", "run", "list", "verify", "freeze", "verify", "run"]


def test_the_page_names_every_option_and_every_key() -> None:
    page = PAGE.read_text(encoding="utf-8")
    command = (PAGE.parent.parent / "sepbench" / "cli" / "new_suite.py").read_text(encoding="utf-8")
    arguments = re.findall(r"^    (\w+): Annotated\[(?!str, typer\.Argument)", command, flags=re.M)
    assert len(arguments) == 13
    assert not [name for name in arguments if f"--{name.replace('_', '-')}" not in page]
    loader = (PAGE.parent.parent / "sepbench" / "suites" / "loader.py").read_text(encoding="utf-8")
    reads = "text|texts|integer|integers|optional_integer|choice|rows|tables?|array"
    keys = set(re.findall(rf'\b(?:table|rules|root|data|own|entry)\.(?:{reads})\("(\w+)"', loader))
    keys |= set(re.findall(r'self\._list\(\w+, "(\w+)"', loader))
    assert len(keys) > 30
    assert not [key for key in keys if not re.search(rf"\b{key}\b", page)]
