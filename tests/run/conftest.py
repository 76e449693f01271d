"""Fake methods registered beside the real ones, and plans of the embedded suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_harness import Runner

from sepbench.run.plan import Plan, make_plan
from sepbench.run.request import RunRequest
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite


@pytest.fixture(autouse=True)
def _with_fakes(fake_methods: None) -> None:
    """Every test of this folder may name a fake method."""


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
