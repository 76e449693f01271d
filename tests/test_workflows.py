"""The workflows of GitHub Actions: the project's own says what ``.ci/run`` and the Makefile do; the example for users runs as far as no service is needed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / ".github" / "workflows" / "ci.yml"
EXAMPLE = ROOT / "docs" / "examples" / "sepbench-check.yml"


def _workflow(path: Path) -> dict[Any, Any]:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert True in found  # "on", which YAML 1.1 reads as true
    return found  # type: ignore[no-any-return]


def _steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in _workflow(path)["jobs"].values() for step in job["steps"]]


def _commands(path: Path) -> list[str]:
    return [line.strip() for step in _steps(path) for line in step.get("run", "").splitlines()]


@pytest.mark.parametrize("path", [PROJECT, EXAMPLE], ids=lambda path: path.name)
def test_steps_either_use_an_action_of_a_version_or_run_something(path: Path) -> None:
    for step in _steps(path):
        assert ("uses" in step) != ("run" in step)
        assert "uses" not in step or re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])


def test_the_project_s_workflow_does_what_the_gate_does() -> None:
    gate, makefile = ((ROOT / name).read_text(encoding="utf-8") for name in (".ci/run", "Makefile"))
    commands = _commands(PROJECT)
    targets = {command.removeprefix("make ") for command in commands if command.startswith("make ")} - {".venv/.installed"}
    assert targets == {"test", "test-slow", "lint", "docs"}
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
    for target in targets - {"lint", "docs"}:  # a slow test builds the documents
        assert f"make {target}" in gate
    for command in ("ruff check .", "ruff format --check .", "mypy"):
        assert f".venv/bin/{command}" in gate
        assert f"$(BIN)/{command}" in makefile.split("\nlint:")[1]
    ours = [command.replace("runs/digits", "FOLDER") for command in commands if "sepbench" in command]
    assert ours
    assert all(
        command in gate.replace('"$reports/digits"', "FOLDER").replace('"$reports/digits/leaderboard.csv"', "FOLDER/leaderboard.csv") for command in ours
    )


def test_the_pinned_torch_is_the_one_that_the_workflow_names() -> None:
    (pinned,) = re.findall(r"install.* (torch==[\d.]+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert pinned in PROJECT.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_for_users_runs(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    first, then = re.findall(r"^#   \$ (.*)$", text, re.M), [command for command in _commands(EXAMPLE) if command.startswith("sepbench")]
    assert [command.split()[1] for command in (*first, *then)] == ["run", "publish", "validate", "run", "check", "check"]
    shutil.copy(EXAMPLE.parent / "sepbench.yaml", tmp_path)
    script = "from sepbench.cli.main import main; main()"
    shell = f'sepbench() {{ "{sys.executable}" -c "{script}" "$@"; }}\nset -e\n'
    environment = {**os.environ, **_workflow(EXAMPLE)["env"], "SEPBENCH_OFFLINE": "1", "SEPBENCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(["bash", "-c", shell + "\n".join([*first, *then])], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "check.json").read_text())
    assert (report["verdict"], report["exit_code"]) == ("holds", 0)
    assert {row["method"] for row in report["rows"]} == {"nmf"}
    assert "holds: runs/check against reference/digits-pairs.csv" in done.stdout
