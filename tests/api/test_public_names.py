"""``import sepbench``: cheap, lazy, complete, and known to type checkers."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import sepbench
from sepbench.api import running
from sepbench.errors import UnknownNameError

ROOT = Path(__file__).resolve().parent.parent.parent


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_names_are_there_before_anything_heavy_is() -> None:
    code = """
import sys, sepbench
assert callable(sepbench.run) and set(sepbench.__all__) <= set(dir(sepbench))
assert "sepbench.errors" not in sys.modules
assert issubclass(sepbench.SepbenchError, Exception)
print({"torch", "pandas", "numpy", "sepbench.api"} & set(sys.modules))
"""
    assert _python(code) == "set()"


def test_the_package_run_stays_a_package_and_is_called_like_the_function() -> None:
    plan = import_module("sepbench.run.plan")
    from sepbench import run
    from sepbench.run import plan as by_package

    assert by_package is plan is sys.modules["sepbench.run"].plan
    assert run is sepbench.run is sys.modules["sepbench.run"]
    with pytest.raises(UnknownNameError):
        run("no-such-suite")
    assert inspect.signature(sepbench.run) == inspect.signature(running.run)


def test_all_names_are_there_and_no_other() -> None:
    for name in sepbench.__all__:
        assert getattr(sepbench, name) is not None
        assert name in dir(sepbench)
    with pytest.raises(AttributeError, match="'sepbench' has no attribute 'runn'"):
        sepbench.runn  # type: ignore[attr-defined]  # noqa: B018


def test_arguments_behind_the_first_are_keywords() -> None:
    free = {"compare": 2, "separate": 2}
    for name in ("run", "evaluate", "open_run", "compare", "leaderboard", "methods", "load_suite", "separate"):
        kinds = [parameter.kind for parameter in inspect.signature(getattr(sepbench, name)).parameters.values()]
        assert set(kinds[free.get(name, 1) :]) <= {inspect.Parameter.KEYWORD_ONLY}, name


USER = """
import pandas as pd
import torch
import sepbench
from baselines.average import Average
from sepbench import Run

run: Run = sepbench.run("digits-pairs", methods=["average", Average, Average()], limit=10, progress=False)
scores: pd.DataFrame = run.scores
estimates: torch.Tensor = run.estimates("class-split", "average", [0, 1])
difference: float = sepbench.compare(run, run, metric="psnr").rows[0].difference
mixtures: torch.Tensor = sepbench.load_suite("digits-pairs").task("class-split").mixtures(range(3))
separated: torch.Tensor = sepbench.separate("average", mixtures, operator="sum", n_sources=2)
board: pd.DataFrame = sepbench.leaderboard("digits-pairs")
"""
WRONG = """
sepbench.run("digits-pairs", limit="ten")
sepbench.run("digits-pairs", ["average"])
sepbench.open_run(3)
run.estimates("class-split")
"""


@pytest.mark.slow
def test_type_checkers_know_it_all(tmp_path: Path) -> None:
    script = tmp_path / "user.py"

    def mypy(text: str) -> str:
        script.write_text(text)
        options = ["--strict", "--no-incremental", "--follow-imports=silent", "--config-file", str(ROOT / "pyproject.toml")]
        return subprocess.run([sys.executable, "-m", "mypy", *options, str(script)], capture_output=True, text=True, cwd=tmp_path, check=False).stdout

    assert "Success" in mypy(USER)
    lines = [line for line in mypy(USER + WRONG).splitlines() if ": error:" in line]
    first = USER.count("\n") + 2
    assert {int(line.split(":")[1]) for line in lines} == set(range(first, first + 4)), lines


def test_a_call_of_the_package_run_is_the_function_s_with_all_that_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "run", lambda *given, **named: (given, named))
    assert sepbench.run("suite", limit=3, seed=0) == (("suite",), {"limit": 3, "seed": 0})  # type: ignore[comparison-overlap]


def test_what_is_listed_and_what_is_said_of_a_name_that_is_not_there() -> None:
    import_module("sepbench.errors")
    listed = dir(sepbench)
    assert listed == sorted(listed)
    assert "errors" in listed
    for name in listed:
        if not name.startswith("__"):
            assert name in sepbench.__all__ or import_module(f"sepbench.{name}"), name
    with pytest.raises(AttributeError) as caught:
        sepbench._PUBLICS  # type: ignore[attr-defined]  # noqa: B018
    assert str(caught.value) == "module 'sepbench' has no attribute '_PUBLICS'"
    assert (caught.value.name, caught.value.obj) == ("_PUBLICS", sepbench)


def test_a_name_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = sepbench.compare
    monkeypatch.setattr(sepbench, "import_module", lambda name: pytest.fail("it was looked for before"))
    assert sepbench.compare is found
    assert vars(sepbench)["compare"] is found
    monkeypatch.delattr(sepbench, "compare")
    asked: list[str] = []
    monkeypatch.setattr(sepbench, "import_module", lambda name: asked.append(name) or import_module(name))
    assert sepbench.compare is sepbench.compare is found
    assert asked == ["sepbench.api.comparing"]
