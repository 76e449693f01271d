"""Jobs of several cells among several workers: every mixture once, whoever reports when and whoever dies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from fake_pool import DIES, DIES_UNSCORED, DONE, NO_FIT, Counting, FakePool, MemorySink, shards
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbench.errors import SepbenchError
from sepbench.run.backends.dispatch import Event, run_plan, session_name
from sepbench.run.plan import Cell, Plan, Shard, make_plan
from sepbench.run.records import CellRecord
from sepbench.run.request import RunRequest
from sepbench.run.session import Tell
from sepbench.run.worker import Job
from sepbench.suites.model import Suite


def _run(plan: Plan, pool: FakePool, progress: Counting | None = None) -> list[tuple[Cell, CellRecord]]:
    return run_plan(plan, pool.sink, progress or Counting(), pool, "command", "sha")


CELLS = [(task, method) for task in ("class-split", "class-agnostic") for method in ("average", "mixture")]


def _plan(digits: Suite, limit: int, shard_size: int | None, **options: Any) -> Plan:
    tasks, methods = tuple(dict.fromkeys(task for task, _ in CELLS)), tuple(dict.fromkeys(method for _, method in CELLS))
    return make_plan(RunRequest("digits-pairs", methods, tasks, limit=limit, shard_size=shard_size, device="cpu", **options), digits)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_mixture_is_covered_once_in_whatever_order_reports_come_and_whichever_workers_die_once(digits: Suite, data: st.DataObject) -> None:
    """The law of the whole: what is there before, who is quick, what a mixture costs and who dies change the shards and nothing else."""
    limit = data.draw(st.integers(1, 60), "limit")
    plan = _plan(digits, limit, data.draw(st.sampled_from([None, None, 1, 3, 7]), "shard size"))
    plan = _with_batch(plan, data.draw(st.integers(1, 6), "batch"))
    sink = MemorySink()
    for task, method in CELLS:
        _put_there(sink, task, method, limit, data.draw(st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["", "all", "estimates", "void"])), max_size=5)))
    died: set[tuple[str, str, int]] = set()

    def fate(worker: int, job: Job) -> str:
        mixtures = {(job.shard.task, job.shard.method, mixture) for mixture in range(job.shard.start, job.shard.stop)}
        if job.kind == "latency" or mixtures & died or not data.draw(st.booleans(), "dies"):
            return DONE
        died.update(mixtures)
        return data.draw(st.sampled_from([DIES, DIES_UNSCORED]), "when") if job.kind == "separate" else DIES

    pool = FakePool(
        data.draw(st.integers(1, 4), "workers"),
        sink,
        choose=lambda busy: data.draw(st.sampled_from(busy), "next"),
        fate=fate,
        cost=data.draw(st.sampled_from([1e-6, 0.5, 3.0, 100.0]), "cost"),
        fit_seconds=data.draw(st.sampled_from([0.0, 10.0, 1e4]), "fit"),
        kept=data.draw(st.booleans(), "kept"),
    )
    progress = Counting()
    ended = _run(plan, pool, progress)
    assert [(cell.task.spec.name, cell.method) for cell, _ in ended] == CELLS
    for task, method in CELLS:
        assert sink.covered(task, method) == list(range(limit))
        assert progress.mixtures[task, method] == pytest.approx(limit)
    assert {record.state for _, record in ended} == {"done"}
    assert not sink.void
    assert not pool.busy


def _with_batch(plan: Plan, batch: int) -> Plan:
    cells = tuple(replace(cell, batch=batch, unit=cell.unit if cell.fixed else batch) for cell in plan.cells)
    return replace(plan, cells=cells)


def _put_there(sink: MemorySink, task: str, method: str, limit: int, parts: Sequence[tuple[int, str]]) -> None:
    """What an earlier session left: stretches of the first mixtures, without anything, whole, without scores, or with the rows of a failed fit."""
    start = 0
    for wanted, what in parts:
        length = min(wanted, limit - start)
        if not length:
            return
        shard = Shard(task, method, start, start + length)
        if what in ("all", "estimates"):
            sink.separated(shard)
        if what in ("all", "void"):
            sink.scored(shard)
        if what == "void":
            sink.void.add(shard)
        start += length


def _order(pool: FakePool) -> list[tuple[str, str, str]]:
    return list(dict.fromkeys((job.kind, job.shard.task, job.shard.method) for _, job, _ in pool.jobs))


def test_one_worker_goes_cell_by_cell_and_times_single_mixtures_before_it_lets_go_of_the_method(digits: Suite) -> None:
    pool = FakePool(1, MemorySink())
    ended = _run(_plan(digits, 20, 4, latency=True), pool)
    assert _order(pool) == [(kind, *cell) for cell in CELLS for kind in ("separate", "latency")]
    assert [record.latency_seconds for _, record in ended] == [0.5] * 4
    assert len(shards(pool, "latency")) == 4


@pytest.mark.parametrize("workers", [2, 3, 5])
@pytest.mark.parametrize("choose", [min, max])
def test_single_mixtures_are_timed_when_nobody_else_works(digits: Suite, workers: int, choose: Any) -> None:
    pool = FakePool(workers, MemorySink(), choose=choose)
    ended = _run(_plan(digits, 20, 4, latency=True), pool)
    assert [record.latency_seconds for _, record in ended] == [0.5] * 4
    _timed_alone(pool)


def test_a_worker_that_comes_to_life_waits_for_the_timing_of_single_mixtures(digits: Suite) -> None:
    class Late(FakePool):
        def ready(self, worker: int) -> bool:
            return worker == 0 or any(job.kind == "latency" for _, job, _ in self.jobs)

    pool = Late(2, MemorySink(), choose=max)
    assert {record.latency_seconds for _, record in _run(_plan(digits, 20, 4, latency=True), pool)} == {0.5}
    assert {worker for worker, _, _ in pool.jobs} == {0, 1}
    _timed_alone(pool)


def _timed_alone(pool: FakePool) -> None:
    timing: set[int] = set()
    for worker, job, busy in pool.jobs:
        assert not busy or job.kind != "latency", "the machine is not quiet"
        assert not busy & timing, "a job began while single mixtures were timed"
        timing = {worker} if job.kind == "latency" else timing - {worker}


def test_other_workers_begin_the_next_cells_while_the_first_batch_measures(digits: Suite) -> None:
    pool = FakePool(3, MemorySink())
    _run(_plan(digits, 40, None), pool)
    assert [(worker, (job.shard.task, job.shard.method)) for worker, job, _ in pool.jobs[:3]] == list(enumerate(CELLS[:3]))


def test_a_dear_fit_is_made_by_one_worker_alone_and_a_kept_one_is_shared(digits: Suite) -> None:
    def workers_of(**facts: Any) -> list[int]:
        plan = _plan(digits, 100, 4)
        pool = FakePool(2, MemorySink(), choose=_taking_turns(), cost=1.0, **facts)
        _run(replace(plan, cells=plan.cells[:1]), pool)
        return sorted({worker for worker, _, _ in pool.jobs})

    assert workers_of(fit_seconds=1e6) == [0]
    assert workers_of(fit_seconds=1e6, kept=True) == [0, 1]
    assert workers_of(fit_seconds=0.0) == [0, 1]


def _taking_turns() -> Any:
    turn = iter(range(10**6))
    return lambda busy: busy[next(turn) % len(busy)]


def test_a_worker_stays_with_the_method_that_it_has_fitted(digits: Suite) -> None:
    pool = FakePool(2, MemorySink(), choose=_taking_turns(), cost=1.0)
    _run(_plan(digits, 40, 4), pool)
    changes = 0
    for worker in range(2):
        cells = [(job.shard.task, job.shard.method) for one, job, _ in pool.jobs if one == worker]
        changes += sum(before != after for before, after in pairwise(cells))
    assert changes <= 2 * len(CELLS)  # of forty shards


def test_a_fit_that_fails_on_one_cell_leaves_the_others(digits: Suite) -> None:
    pool = FakePool(2, MemorySink(), fate=lambda worker, job: NO_FIT if job.shard.method == "mixture" else DONE)
    ended = _run(_plan(digits, 20, 4), pool)
    assert [record.state for _, record in ended] == ["done", "failed", "done", "failed"]
    assert [record.error for _, record in ended] == ["", "ValueError: singular"] * 2
    for task, method in CELLS:
        assert pool.sink.covered(task, method) == list(range(20))


def test_an_unsupported_cell_ends_without_work(digits: Suite) -> None:
    plan = _plan(digits, 20, 4)
    cells = tuple(replace(cell, support=replace(cell.support, ok=False, note="no")) if cell.method == "mixture" else cell for cell in plan.cells)
    pool = FakePool(2, MemorySink())
    ended = _run(replace(plan, cells=cells), pool)
    assert [record.state for _, record in ended] == ["done", "unsupported"] * 2
    assert {job.shard.method for _, job, _ in pool.jobs} == {"average"}


@pytest.mark.parametrize(("refit", "name"), [(True, "refit 7"), (False, "")])
def test_a_session_has_a_name_where_fits_are_made_again(digits: Suite, refit: bool, name: str) -> None:
    sink: Any = SimpleNamespace(refit_name=lambda: "refit 7")
    assert session_name(_plan(digits, 4, 4, refit=refit), sink) == name


# -- workers that are not there


@dataclass
class Failing(FakePool):
    """Some workers are not ready at first, and some die while they have nothing to do."""

    late: set[int] = field(default_factory=set)
    idle_deaths: int = 0

    def ready(self, worker: int) -> bool:
        return worker not in self.late

    def wait(self) -> Sequence[Event]:
        if self.idle_deaths:
            self.idle_deaths -= 1
            idle = next(worker for worker in range(self.size) if worker not in self.busy)
            return [Event(idle, tell=Tell(warning="it is odd here")), Event(idle, death="exit code 1")]
        if not self.busy:
            self.late.clear()
            return [Event(0)]
        return super().wait()


def test_a_worker_that_is_not_ready_gets_no_job(digits: Suite) -> None:
    pool = Failing(3, MemorySink(), late={0, 2})
    _run(_plan(digits, 20, 4), pool)
    assert {worker for worker, _, _ in pool.jobs} == {1}
    nobody = Failing(3, MemorySink(), late={0, 1, 2})
    assert {record.state for _, record in _run(_plan(digits, 20, 4), nobody)} == {"done"}


def test_idle_workers_may_die_a_few_times(digits: Suite) -> None:
    progress = Counting()
    pool = Failing(6, MemorySink(), idle_deaths=5)
    assert {record.state for _, record in _run(_plan(digits, 20, 4), pool, progress)} == {"done"}
    assert progress.warnings == ["it is odd here"] * 5


def test_workers_that_all_die_before_they_get_work_end_the_run_with_one_line(digits: Suite) -> None:
    pool = Failing(6, MemorySink(), idle_deaths=10**6)
    with pytest.raises(SepbenchError, match=r"workers die before they get any work \(exit code 1\); ask for fewer with --workers"):
        _run(_plan(digits, 20, 4), pool)


def test_a_run_takes_as_many_rounds_of_messages_as_it_needs(digits: Suite) -> None:
    @dataclass
    class Chatty(FakePool):
        rounds: int = 0

        def wait(self) -> Sequence[Event]:
            self.rounds += 1
            return super().wait() if self.rounds > 10_500 else [Event(next(iter(self.busy)), tell=Tell(stage="fit", fraction=0.5))]

    plan = _plan(digits, 4, 4)
    pool = Chatty(1, MemorySink())
    assert [record.state for _, record in _run(replace(plan, cells=plan.cells[:1]), pool)] == ["done"]


def test_what_a_dead_worker_left_unscored_is_scored_though_the_method_cannot_be_fitted_again(digits: Suite) -> None:
    """One worker cannot fit the method, and then the other, which could, dies between separating and scoring: its mixtures count, and the run ends."""
    fates = iter([DONE, NO_FIT, DIES_UNSCORED, DONE])
    died: list[tuple[int, int, int, str]] = []

    def fate(worker: int, job: Job) -> str:
        died.append((worker, job.shard.start, job.shard.stop, job.kind))
        return next(fates)

    @dataclass
    class Bounded(FakePool):
        rounds: int = 0

        def ready(self, worker: int) -> bool:
            self.rounds += 1
            assert self.rounds < 1_000, "the run does not end"
            return True

    plan = _plan(digits, 16, 4)
    pool = Bounded(2, MemorySink(), fate=fate, choose=max)
    ((_, record),) = _run(replace(plan, cells=plan.cells[:1]), pool)
    assert died == [(0, 0, 4, "separate"), (1, 8, 12, "separate"), (0, 4, 8, "separate"), (0, 4, 8, "score")]
    assert pool.sink.covered(*CELLS[0]) == list(range(16))
    assert (record.n_separated, record.n_failed, record.state, record.error) == (8, 8, "failed", "ValueError: singular")


def test_all_that_a_worker_tells_is_passed_on(digits: Suite) -> None:
    """Warning, stage with its fraction, and mixtures, each to its own place."""

    class Talking(FakePool):
        told = False

        def wait(self) -> Sequence[Event]:
            if self.told:
                return super().wait()
            self.told = True
            (worker,) = self.busy
            tells = (Tell(stage="fit", fraction=0.25), Tell(stage="separate"), Tell(warning="beware"), Tell(stage="score", fraction=1.0, mixtures=3.0))
            return [Event(worker, tell=tell) for tell in tells]

    class Listening(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[object] = []

        def stage(self, cell: Cell, text: str, fraction: float | None = None) -> None:
            self.heard.append((cell.method, text, fraction))
            super().stage(cell, text, fraction)

        def warn(self, text: str) -> None:
            self.heard.append(text)

    progress = Listening()
    _run(_plan(digits, 8, 4), Talking(1, MemorySink()), progress)
    assert progress.heard[:4] == [("average", "fit", 0.25), ("average", "separate", None), "beware", ("average", "score", 1.0)]
