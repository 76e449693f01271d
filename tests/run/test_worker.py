"""What a worker's report counts as the time of a job: separating and scoring, and neither the fit nor the first, untimed call."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from sepbench.run import worker
from sepbench.run.plan import Plan, Shard
from sepbench.run.worker import Job, Worker


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that moves only when told, for the worker alone."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


@pytest.fixture
def made(clock: SimpleNamespace, planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> tuple[Worker, Plan]:
    """A worker whose fit takes 500 s, its first separation 3 s more of warming up, every separation 4 s and every scoring 2 s."""
    plan = planned("average")

    def opened(cell: Any, *rest: Any) -> Any:
        clock.now += 500.0
        return SimpleNamespace(cell=cell, separator=SimpleNamespace(), fit="facts", cached=False, warm_up_seconds=None, first_traceback="the first")

    def separated(session: Any, shard: Any) -> str:
        if session.warm_up_seconds is None:
            session.warm_up_seconds = 3.0
            clock.now += 3.0
        clock.now += 4.0
        return "estimates"

    def scored(*about: Any) -> str:
        clock.now += 2.0
        return "scores"

    for name, value in (("open_session", opened), ("separate_shard", separated), ("score_shard", scored), ("prepare_sets", lambda *about: None)):
        monkeypatch.setattr(worker, name, value)
    sink: Any = SimpleNamespace(
        write_estimates=lambda shard, estimates: None,
        read_estimates=lambda shard: "estimates",
        write_scores=lambda shard, scores: None,
        remove_estimates=lambda shard: None,
        read_totals=lambda shard: f"totals of {shard.start}",
    )
    return Worker(plan, sink, lambda tell: None), plan


def test_neither_fit_nor_warm_up_counts_and_only_the_first_job_warms_up(made: tuple[Worker, Plan]) -> None:
    one, plan = made
    first, second = (Shard(plan.cells[0].task.spec.name, "average", start, start + 4) for start in (0, 4))
    reports = [one.run(Job(kind, shard)) for kind, shard in (("separate", first), ("separate", second), ("score", second))]  # type: ignore[arg-type]
    assert [report.seconds for report in reports] == [6.0, 6.0, 2.0]
    assert [report.warm_up_seconds for report in reports] == [3.0, 3.0, None]
    assert [report.totals for report in reports] == [f"totals of {first.start}", f"totals of {second.start}", f"totals of {second.start}"]
    assert [report.traceback for report in reports] == ["the first", "the first", ""]
    assert [report.fit is None for report in reports] == [False, False, True]
