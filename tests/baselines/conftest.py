"""Fixtures of the separators' tests: digits, and the contract as ``sepbench validate`` checks it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from method_toys import Digits

from sepbench import precision
from sepbench.conformance import validate_method
from sepbench.suites.loader import load_suite


@pytest.fixture(scope="session")
def digits() -> Digits:
    return Digits.read()


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings compute in bfloat16 also on processors without it, where it is slow, but rounds the same."""
    monkeypatch.setattr(precision, "computes_bfloat16", lambda device: True)


@pytest.fixture
def broken_rules() -> Callable[..., list[str]]:
    """Names of the contract's rules that a method breaks on a task of ``digits-pairs``."""

    def check(method: str, task: str, **settings: object) -> list[str]:
        checks = validate_method(method, load_suite("digits-pairs").tasks[task], settings=settings)
        return [f"{c.rule}: {c.detail}" for c in checks if c.passed is False]

    return check
