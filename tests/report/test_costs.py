"""What is said before a run of all methods: how many, which are costly, how to choose."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from sepbench.report import costs
from sepbench.report.costs import cost_line
from sepbench.run.plan import Plan, make_plan
from sepbench.run.request import RunRequest
from sepbench.suites.loader import load_suite

METHODS = ("average", "mixture", "nmf", "ica", "projected")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(RunRequest("digits-pairs", METHODS, ("class-split",), limit=4, device="cpu"), load_suite("digits-pairs"))


def _board(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    rows = [{"task": "class-split", "method": name, "seconds_per_mixture": value} for name, value in seconds.items()]
    rows.append({"task": "another-task", "method": "ica", "seconds_per_mixture": 1e6})
    monkeypatch.setattr(costs, "committed_leaderboard", lambda suite: pd.DataFrame(rows))


def test_the_costliest_come_first_and_the_others_are_counted(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    _board(monkeypatch, average=0.001, nmf=120.0, ica=3.0, projected=40.0, mixture=2.0, nobody=1e9)
    line = cost_line(plan)
    count = len({cell.method for cell in plan.cells if cell.support.ok})
    assert line.startswith(f"{count} methods, ")
    supported = [name for name in ("nmf", "projected", "ica", "mixture") if any(cell.method == name and cell.support.ok for cell in plan.cells)]
    places = [line.index(f"{name} ") for name in supported[:3]]
    assert places == sorted(places)
    assert "nmf 120 s" in line
    assert "1e+09" not in line
    assert "1,000,000" not in line
    assert ("1 more" in line) == (len(supported) == 4)
    assert "--methods a,b" in line
    assert "\n" not in line


def test_cheap_methods_and_suites_without_a_leaderboard(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    _board(monkeypatch, average=0.001, nmf=0.5)
    assert "none takes 1 s per mixture" in cost_line(plan)
    monkeypatch.setattr(costs, "committed_leaderboard", lambda suite: None)
    assert "leaderboard" not in cost_line(plan)
    assert "--methods a,b" in cost_line(plan)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A line of a plan of methods by name, unsupported where the name ends with ``-``, on tasks ``t`` and ``u``, and a leaderboard's rows."""

    def line(methods: str, *rows: tuple[str, str, float]) -> str:
        names = methods.split()
        cells = [SimpleNamespace(method=name.rstrip("-"), support=SimpleNamespace(ok=not name.endswith("-"))) for name in names * 2]
        plan: Any = SimpleNamespace(cells=cells, tasks={"t": None, "u": None}, suite=SimpleNamespace(name="s"))
        frame = pd.DataFrame([{"task": task, "method": method, "seconds_per_mixture": value} for task, method, value in rows])
        monkeypatch.setattr(costs, "committed_leaderboard", lambda suite: {"s": frame}[suite])
        return cost_line(plan)

    return line


CHOOSE = "choose with --methods a,b or take fewer mixtures with --limit N"
BECAUSE = "because --methods names none"


@pytest.mark.parametrize(
    ("methods", "rows", "told"),
    [
        ("a b", [("t", "a", 1.0)], f"2 methods, {BECAUSE}; costly by the committed leaderboard, per mixture: a 1 s; {CHOOSE}"),
        ("a b c-", [("t", "a", 0.99), ("t", "c", 9.0)], f"2 methods, {BECAUSE}; in the committed leaderboard none takes 1 s per mixture; {CHOOSE}"),
        (
            "a z",
            [("t", "a", 2.0), ("u", "a", 31.4), ("v", "a", 99.0)],
            f"2 methods, {BECAUSE}; costly by the committed leaderboard, per mixture: a 31 s; {CHOOSE}",
        ),
        ("a z", [("v", "a", 99.0)], f"2 methods, {BECAUSE}; {CHOOSE}"),
        ("a b", [("t", "a", math.nan), ("t", "b", math.inf)], f"2 methods, {BECAUSE}; {CHOOSE}"),
        ("a b", [("t", "a", math.nan), ("u", "a", 5.0)], f"2 methods, {BECAUSE}; costly by the committed leaderboard, per mixture: a 5 s; {CHOOSE}"),
        (
            "a b c",
            [("t", "a", 2.0), ("t", "b", 3.0), ("t", "c", 1234.0)],
            f"3 methods, {BECAUSE}; costly by the committed leaderboard, per mixture: c 1,234 s, b 3 s, a 2 s; {CHOOSE}",
        ),
        (
            "a b c d e",
            [("t", name, 10.0 + place) for place, name in enumerate("abcde")],
            f"5 methods, {BECAUSE}; costly by the committed leaderboard, per mixture: e 14 s, d 13 s, c 12 s and 2 more of 1 s or above; {CHOOSE}",
        ),
    ],
)
def test_the_line_word_for_word(made_up: Any, methods: str, rows: list[tuple[str, str, float]], told: str) -> None:
    assert made_up(methods, *rows) == told
