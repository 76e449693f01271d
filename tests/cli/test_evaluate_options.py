"""Every option of ``sepbench evaluate`` reaches the scoring, under its own name and with the value that was given."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import sepbench.results.evaluation as evaluation
from sepbench.cli.evaluate import evaluate
from sepbench.cli.main import app

REQUIRED = ("--suite", "digits-pairs", "--task", "class-split", "--estimates", "theirs.npy", "--name", "theirs")
DEFAULTS: dict[str, Any] = {
    **{"suite": "digits-pairs", "task": "class-split", "estimates": Path("theirs.npy"), "name": "theirs", "out": None, "supervision": "", "limit": None},
    **{"partial": False, "allow_clipped": False, "keep_estimates": True, "device": "cpu"},
}
GIVEN: dict[str, tuple[tuple[str, ...], Any]] = {
    "suite": (("--suite", "fsdd-noise"), "fsdd-noise"),
    "task": (("--task", "class-agnostic"), "class-agnostic"),
    "estimates": (("--estimates", "folder/x.npz"), Path("folder/x.npz")),
    "name": (("--name", "other"), "other"),
    "out": (("--out", "a run"), Path("a run")),
    "supervision": (("--supervision", "sources"), "sources"),
    "limit": (("--limit", "7"), 7),
    "partial": (("--partial",), True),
    "allow_clipped": (("--allow-clipped",), True),
    "keep_estimates": (("--no-keep-estimates",), False),
    "device": (("--device", "cuda:1"), "cuda:1"),
}


class Asked(Exception):
    """Ends the command where what it passes on is known."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the scoring was asked for, by the names of its own parameters."""
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    signature = inspect.signature(evaluation.evaluate_estimates)

    def stop(*given: Any, **named: Any) -> None:
        found.update(signature.bind(*given, **named).arguments)
        raise Asked

    monkeypatch.setattr(evaluation, "evaluate_estimates", stop)
    monkeypatch.setattr("sepbench.cli.evaluate.fetch_data_of", lambda task: None)
    return found


@pytest.mark.parametrize("name", ["", *GIVEN])
def test_an_option_changes_what_it_is_called_after_and_nothing_else(told: dict[str, Any], name: str) -> None:
    words, value = GIVEN[name] if name else ((), None)
    result = CliRunner().invoke(app, ["evaluate", *REQUIRED, *words])
    assert isinstance(result.exception, Asked), result.output
    assert {key: told[key] for key in DEFAULTS} == DEFAULTS | ({name: value} if name else {})


@pytest.mark.parametrize("limit", ["0", "-1"])
def test_a_limit_of_no_mixture_is_refused_where_it_is_checked(told: dict[str, Any], limit: str) -> None:
    """It must not be taken for another number on its way."""
    result = CliRunner().invoke(app, ["evaluate", *REQUIRED, "--limit", limit])
    assert isinstance(result.exception, Asked), result.output
    assert told["limit"] == int(limit)


def test_every_option_is_here() -> None:
    command = typer.main.get_command(app).commands["evaluate"]  # type: ignore[attr-defined]
    assert {option.name for option in command.params} - {"help"} == set(GIVEN) == set(DEFAULTS)
    assert set(inspect.signature(evaluate).parameters) == set(GIVEN)
