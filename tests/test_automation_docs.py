"""``docs/automation.md`` and ``docs/json.md``: the commands run in order, the file and the record are as shown, and every field of a document is named."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sepbench.cli.main import app

pytestmark = pytest.mark.slow

DOCS = Path(__file__).resolve().parent.parent / "docs"
AUTOMATION, JSON = ((DOCS / name).read_text(encoding="utf-8") for name in ("automation.md", "json.md"))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Every command of the page with what it printed, run in one folder."""
    folder = tmp_path_factory.mktemp("automation")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SEPBENCH_OFFLINE", "1")
        found = {}
        for block in re.findall(r"```console\n(.*?)```", AUTOMATION, re.S):
            for command in (line[2:] for line in block.splitlines() if line.startswith("$ ")):
                program, *arguments = shlex.split(command)
                assert program == "sepbench"
                patch.setattr("sys.argv", ["sepbench", *arguments])
                done = CliRunner().invoke(app, arguments)
                assert done.exit_code == 0, f"{command}\n{done.output}\n{done.exception}"
                found[command] = done.stdout
        yield found


def test_the_file_and_the_record_are_those_of_the_page(outputs: dict[str, str]) -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", AUTOMATION, re.S)
    saved = Path("run.yaml").read_text()
    assert shown == saved.partition("\n")[2]
    assert yaml.safe_load(shown)["set"] == {"nmf": {"atoms": 8}}
    (kept,) = re.findall(r"is kept as\n`(.*?)`", AUTOMATION)
    assert json.loads(Path("runs/short/run.json").read_text())["command"] == kept


def _fields(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from _fields(one)
    elif isinstance(value, list):
        for one in value:
            yield from _fields(one)


def test_every_field_is_named(outputs: dict[str, str]) -> None:
    documents = {command: output for command, output in outputs.items() if command.endswith("--json")}
    assert {command.split()[1] for command in documents} == {"show", "compare", "check", "list"}
    named = set(re.findall(r"`(\w+)`", JSON))
    for command, output in documents.items():
        assert set(_fields(json.loads(output))) - named == set(), command
