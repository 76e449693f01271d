"""What a run of all methods of a suite may cost, said before it begins."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sepbench.report.progress import in_seconds
from sepbench.results.target import committed_leaderboard

if TYPE_CHECKING:
    from sepbench.run.plan import Plan

NAMED = 3
"""How many costly methods are named."""
COSTLY = 1.0
"""Seconds per mixture from which on a method is called costly."""


def cost_line(plan: Plan) -> str:
    """How many methods a plan has, which are the costly ones by the suite's committed leaderboard, if it has one, and how to choose.

    Raises:
        SepbenchError: the leaderboard cannot be read.
    """
    methods = list(dict.fromkeys(cell.method for cell in plan.cells if cell.support.ok))
    choose = "choose with --methods a,b or take fewer mixtures with --limit N"
    head = f"{len(methods):,} methods, because --methods names none"
    seconds = _seconds(plan, methods)
    costly = sorted((name for name in seconds if seconds[name] >= COSTLY), key=lambda name: -seconds[name])
    if not seconds:
        return f"{head}; {choose}"
    if not costly:
        return f"{head}; in the committed leaderboard none takes {COSTLY:g} s per mixture; {choose}"
    named = ", ".join(f"{name} {in_seconds(seconds[name])}" for name in costly[:NAMED])
    more = f" and {len(costly) - NAMED:,} more of {COSTLY:g} s or above" if len(costly) > NAMED else ""
    return f"{head}; costly by the committed leaderboard, per mixture: {named}{more}; {choose}"


def _seconds(plan: Plan, methods: list[str]) -> dict[str, float]:
    """Method -> seconds per mixture on its slowest task, as measured on the leaderboard's machine."""
    frame = committed_leaderboard(plan.suite.name)
    if frame is None:
        return {}
    rows = frame[frame["method"].isin(methods) & frame["task"].isin(list(plan.tasks))]
    found = rows.groupby("method")["seconds_per_mixture"].max().to_dict()
    return {str(name): float(value) for name, value in found.items() if math.isfinite(value)}
