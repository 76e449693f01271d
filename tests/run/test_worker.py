"""What a worker's report counts as the time of a job: separating and scoring, and neither the fit nor the first, untimed call."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from sepbench.run import separate, worker
from sepbench.run.fit_cache import CacheError
from sepbench.run.plan import Plan, Shard
from sepbench.run.worker import FitReport, Job, Worker


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


def test_a_fit_that_fails_is_reported_and_tried_anew_by_the_next_job(made: tuple[Worker, Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    one, plan = made
    shard = Shard(plan.cells[0].task.spec.name, "average", 0, 4)
    asked: list[int] = []

    def fails(*about: Any) -> Any:
        asked.append(len(asked))
        raise error

    monkeypatch.setattr(worker, "open_session", fails)
    error: BaseException
    for error in (ValueError("singular\nmatrix"), SystemExit(3), MemoryError()):
        report = one.run(Job("separate", shard))
        assert report.fit_error == separate.one_line(error)
        assert type(error).__name__ in report.traceback
        assert (report.job.shard, report.fit, report.totals, report.timing_group) == (shard, None, None, one._group)
    assert asked == [0, 1, 2]
    error = CacheError("full")
    with pytest.raises(CacheError, match="full"):
        one.run(Job("separate", shard))
    monkeypatch.setattr(worker, "open_session", lambda *about: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell has started in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            one.run(Job("separate", shard))
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_latency_that_cannot_be_measured_is_a_warning(made: tuple[Worker, Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    one, plan = made
    stages: list[str] = []
    session = SimpleNamespace(
        cell=plan.cells[0], separator=SimpleNamespace(posterior_samples=8, weights_sha256="a\nb", prior_label="c"), fit="facts", cached=True,
        warm_up_seconds=3.0, first_traceback="", teller=SimpleNamespace(enter=stages.append),
    )  # fmt: skip
    monkeypatch.setattr(worker, "open_session", lambda *about: session)
    monkeypatch.setattr(worker, "measure_latency", lambda session, n: float(n))
    job = Job("latency", Shard(plan.cells[0].task.spec.name, "average", 0, 4))
    report = one.run(job)
    assert (report.latency_seconds, report.warning, report.warm_up_seconds, report.timing_group) == (10.0, "", 3.0, one._group)
    assert report.fit == FitReport("facts", True, False, 8, "a b", "c")  # type: ignore[arg-type]
    assert stages == ["latency"]
    assert report.peak_mb is not None

    def fails(*about: Any) -> Any:
        raise error

    error: BaseException = RuntimeError("no\nluck")
    monkeypatch.setattr(worker, "measure_latency", fails)
    lost = one.run(job)
    assert (lost.latency_seconds, lost.warning) == (None, "average on class-split: no latency, RuntimeError: no luck")
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        one.run(job)


@pytest.mark.parametrize(("draws", "samples", "said"), [(0, None, 1), (0, 8, 8), (0, "many", 1), (256, 8, 256), (256, None, 256)], ids=str)
def test_the_draws_behind_an_estimate(made: tuple[Worker, Plan], draws: int, samples: Any, said: int) -> None:
    cell = made[1].cells[0]
    spec = replace(cell.task.spec, posterior_draws=draws)
    separator = SimpleNamespace() if samples is None else SimpleNamespace(posterior_samples=samples)
    session: Any = SimpleNamespace(separator=separator, cell=replace(cell, task=replace(cell.task, spec=spec)), fit="facts", cached=False)
    report = worker._fit_report(session)
    assert (report.samples, report.weights_sha256, report.prior, report.kept) == (said, "", "", False)


@pytest.mark.parametrize("keep", [True, False])
def test_estimates_are_let_go_once_they_are_scored(clock: SimpleNamespace, planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, keep: bool) -> None:
    did: list[str] = []
    monkeypatch.setattr(worker, "score_shard", lambda *about: did.append("score") or "scores")
    monkeypatch.setattr(worker, "prepare_sets", lambda task, metrics, device, sink: did.append(f"sets on {device}"))
    sink: Any = SimpleNamespace(
        read_estimates=lambda shard: did.append("read"),
        write_scores=lambda shard, scores: did.append(f"write {scores}"),
        remove_estimates=lambda shard: did.append("remove"),
        read_totals=lambda shard: "totals",
    )
    plan = planned("average", keep_estimates=keep)
    told: list[Any] = []
    one = Worker(plan, sink, told.append)
    for _ in range(2):
        assert one.run(Job("score", Shard("class-split", "average", 0, 4))).totals == "totals"
    again = ["read", "score", "write scores", *([] if keep else ["remove"])]
    assert did == ["read", "sets on cpu", *again[1:], *again]
    assert [tell.stage for tell in told] == ["score", "score"]
