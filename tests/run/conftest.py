"""Fake methods registered beside the real ones, and plans of the embedded suite."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import run_fakes
from run_harness import Runner

from sepbench import registry
from sepbench.run.plan import Plan, make_plan
from sepbench.run.request import RunRequest
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite


@pytest.fixture(autouse=True)
def fake_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {name: EntryPoint(name, f"run_fakes:{cls}", registry.SEPARATOR_GROUP) for name, cls in run_fakes.FAKES.items()}
    found = registry._separators
    monkeypatch.setattr(registry, "_separators", lambda: found() | points)
    run_fakes.Fake.batches.clear()
    run_fakes.Fake.fits.clear()


@pytest.fixture(scope="session")
def digits() -> Suite:
    return load_suite("digits-pairs")


@pytest.fixture
def planned(digits: Suite) -> Callable[..., Plan]:
    """A plan of 10 mixtures of class-split in shards of 4, unless told otherwise."""

    def make(*methods: str, **options: Any) -> Plan:
        defaults: dict[str, Any] = {"tasks": ("class-split",), "limit": 10, "shard_size": 4, "device": "cpu"}
        return make_plan(RunRequest("digits-pairs", methods, **(defaults | options)), digits)

    return make


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "run")
