"""What is said before a run of all methods: how many, which are costly, how to choose."""

from __future__ import annotations

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
