"""Shell completion: asked as the shells ask, by the variables of typer's scripts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest
from typer.testing import CliRunner

from sepbench.cli import completion
from sepbench.cli.main import app
from sepbench.registry import METRIC_GROUP, points, separator_names, suite_names
from sepbench.suites.loader import load_suite


def completed(*words: str) -> list[str]:
    """What bash is offered for the last word."""
    line = ["sepbench", *words]
    environment = {"_SEPBENCH_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(words))}
    result = CliRunner().invoke(app, [], env=environment, prog_name="sepbench")
    return result.stdout.split()


def test_names_of_suites_methods_and_metrics() -> None:
    assert completed("run", "--suite", "mnist-p") == ["mnist-pairs"]
    assert set(completed("show", "cifar")) == {name for name in suite_names() if name.startswith("cifar")}
    assert set(completed("run", "--methods", "basis")) == {name for name in separator_names() if name.startswith("basis")}
    assert set(completed("show", "x", "--metric", "psnr_p")) == {name for name in points(METRIC_GROUP) if name.startswith("psnr_p")}
    assert completed("list", "su")[0] == "suites"
    assert completed("list", "suites")[0] == "suites"
    assert completed("list", "methods", "nmf-b") == ["nmf-blind"]
    assert completed("list", "suites", "mnist-p") == ["mnist-pairs"]
    assert completed("list", "nmf", "n") == []
    assert "--save-config" in completed("run", "--save")


def test_lists_with_commas_go_on() -> None:
    assert completed("run", "--methods", "nmf,averag") == ["nmf,average"]
    assert "average,average" not in completed("run", "--methods", "average,a")
    assert "average,am" in completed("run", "--methods", "average,a")


@pytest.mark.parametrize("words", [("run", "--suite", "gmm-exact", "--tasks"), ("show", "gmm-exact", "--task")], ids=["run", "show"])
def test_tasks_are_those_of_the_suite_that_is_named(words: tuple[str, ...]) -> None:
    tasks = list(load_suite("gmm-exact").tasks)
    assert sorted(completed(*words, tasks[0][:2])) == sorted(name for name in tasks if name.startswith(tasks[0][:2]))


def test_a_file_that_is_not_there_does_not_disturb() -> None:
    assert completed("run", "--config", "nothing.yaml", "--suite", "mnist-p") == ["mnist-pairs"]


def test_the_script_completes_in_bash() -> None:
    """What ``sepbench --show-completion`` prints, in a shell that has read it."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    words = "sepbench run --suite digits-pairs --tasks class-s"
    script = f'eval "$(sepbench --show-completion)"; COMP_WORDS=({words}); COMP_CWORD=5; _sepbench_completion sepbench; echo "${{COMPREPLY[@]}}"'
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split() == ["class-split", "class-split-val"], done.stderr


def test_completion_imports_nothing_heavy() -> None:
    environment = {**os.environ, "_SEPBENCH_COMPLETE": "complete_bash", "COMP_WORDS": "sepbench run --suite digits-pairs --tasks class", "COMP_CWORD": "5"}
    code = (
        "import sys, json, atexit; atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\nfrom sepbench.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    modules = set(json.loads(done.stderr.splitlines()[-1]))
    assert not modules & {"torch", "numpy", "pandas", "scipy", "sklearn"}


# ---- with names made up ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites ``one`` and ``two`` with a task in common, methods and metrics whose names hold each other's."""
    tasks = {"one": ["b", "ab", "a"], "two": ["a", "c"]}
    monkeypatch.setattr("sepbench.registry.suite_names", lambda: list(tasks))
    monkeypatch.setattr("sepbench.registry.separator_names", lambda: ["am", "m", "suites-of-mine"])
    monkeypatch.setattr("sepbench.registry.points", lambda group: {"ssim": None, "psnr": None, "im": None} if group == METRIC_GROUP else {})
    monkeypatch.setattr(completion, "_tasks", lambda suite: tasks[suite])


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("complete", "text", "found"),
    [
        (completion.suites, "", ["one", "two"]),
        (completion.suites, "o", ["one"]),  # and not the other, which has one inside
        (completion.methods, "m", ["m"]),
        (completion.methods, "am, ", ["am,m", "am,suites-of-mine"]),
        (completion.metrics, "", ["im", "psnr", "ssim"]),
        (completion.metrics, "psnr,i", ["psnr,im"]),
        (completion.lists, "", ["all", "suites", "methods", "metrics", "am", "m", "suites-of-mine"]),
        (completion.lists, "a", ["all", "am"]),
        (completion.lists, "m", ["methods", "metrics", "m"]),
        (completion.lists, "s", ["suites", "suites-of-mine"]),
    ],
)
def test_what_is_offered_begins_with_what_is_there(complete: Callable[[str], list[str]], text: str, found: list[str]) -> None:
    assert complete(text) == found


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("given", "text", "found"),
    [
        ({}, "", ["b", "ab", "a", "c"]),  # of all suites, each once
        ({"suite": None, "limit": 3, "seeds": "two words"}, "", ["b", "ab", "a", "c"]),
        ({"suite": "two"}, "", ["a", "c"]),
        ({"target": "one"}, "b,a", ["b,ab", "b,a"]),
        ({"suite": "two", "against": "one"}, "", ["b", "ab", "a", "c"]),
    ],
)
def test_tasks_are_those_of_suites_that_the_line_has_named(given: dict[str, object], text: str, found: list[str]) -> None:
    ctx: Any = SimpleNamespace(params=given)
    assert completion.tasks(ctx, text) == found


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("what", "found"), [("suites", ["one", "two"]), ("methods", ["am", "m", "suites-of-mine"]), ("metrics", ["im", "psnr", "ssim"]), ("all", []), (None, [])]
)
def test_after_a_list_come_names_of_its_kind(what: str | None, found: list[str]) -> None:
    ctx: Any = SimpleNamespace(params={"what": what})
    assert completion.listed(ctx, "") == found


OFFERED = {
    "check": {"against": completion.suites, "methods": completion.methods, "tasks": completion.tasks},
    "compare": {"metric": completion.metrics},
    "list": {"what": completion.lists, "name": completion.listed},
    "run": {"suite": completion.suites, "methods": completion.methods, "tasks": completion.tasks},
    "show": {"target": completion.suites, "task": completion.tasks, "method": completion.methods, "metric": completion.metrics},
}


def test_what_a_shell_offers_for_each_word_of_each_command() -> None:
    found: dict[str, dict[str, Any]] = {}
    for command in app.registered_commands:
        assert command.callback is not None
        for name, hint in get_type_hints(command.callback, include_extras=True).items():
            for word in getattr(hint, "__metadata__", ()):
                if getattr(word, "autocompletion", None) is not None:
                    found.setdefault(str(command.name), {})[name] = word.autocompletion
    assert found == OFFERED
