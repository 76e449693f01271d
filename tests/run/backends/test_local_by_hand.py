"""This machine's workers without processes of their own: the life of a worker, who is heard, and what is as before at the end of a run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sepbench.errors import SepbenchError
from sepbench.run.backends import local
from sepbench.run.backends.local import LocalBackend, Processes
from sepbench.run.plan import Shard
from sepbench.run.request import RequestError
from sepbench.run.session import Tell
from sepbench.run.worker import Job

JOBS = [Job("separate", Shard("t", "m", start, start + 4)) for start in (0, 4)]


class Pipe:
    """The worker's end: jobs come out of it, then the other end closes; what is sent stands in ``sent``."""

    def __init__(self, *jobs: Any, breaks: int | None = None) -> None:
        self.jobs, self.sent, self.breaks = list(jobs), list[Any](), breaks

    def recv(self) -> Any:
        if not self.jobs:
            raise EOFError
        job = self.jobs.pop(0)
        if isinstance(job, BaseException):
            raise job
        return job

    def send(self, message: Any) -> None:
        if len(self.sent) == self.breaks:
            raise BrokenPipeError
        self.sent.append(message)


@pytest.fixture
def did(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a worker does before its first job, in its order; each of its jobs tells of one mixture, twice."""
    heard: list[Any] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "before")

    def worker(plan: Any, sink: Any, tell: Any, session: str) -> Any:
        heard.append(("worker", plan, sink, session))

        def run(job: Job) -> str:
            if job.kind == "score":
                raise ValueError("odd\nvalue")
            tell(Tell(1.0))
            tell(Tell(1.0))
            return f"report of {job.shard.start}"

        return SimpleNamespace(run=run)

    monkeypatch.setattr(local, "_die_with", lambda parent: heard.append(("dies with", parent)))
    monkeypatch.setattr(local, "keep_freed_memory", lambda: heard.append(("memory", os.environ["CUDA_VISIBLE_DEVICES"])))
    monkeypatch.setattr(local, "make_plan", lambda request, suite: f"plan of {request.suite}, {suite}")
    monkeypatch.setattr("sepbench.suites.loader.load_suite", lambda name: f"suite {name}")
    monkeypatch.setattr(local, "Worker", worker)
    monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=lambda: 1_000.0))  # the first word goes at once, the second with the report
    return heard


def serve(pipe: Pipe, gpu: str | None = None) -> None:
    request: Any = SimpleNamespace(suite="s")
    local.serve(pipe, request, lambda: "sink", "session 7", gpu, 99)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(("gpu", "seen"), [(None, "before"), ("3", "3"), ("GPU-12ab", "GPU-12ab")])
def test_a_worker_takes_jobs_until_the_other_end_closes_and_tells_all_before_it_reports(did: list[Any], gpu: str | None, seen: str) -> None:
    pipe = Pipe(*JOBS)
    serve(pipe, gpu)
    assert did == [("dies with", 99), ("memory", seen), ("worker", "plan of s, suite s", "sink", "session 7")]
    assert pipe.sent == [Tell(1.0), Tell(1.0), "report of 0", Tell(2.0), "report of 4"]


def test_a_run_that_is_over_ends_its_worker_quietly(did: list[Any]) -> None:
    for breaks in (0, 2):
        serve(Pipe(*JOBS, breaks=breaks))


@pytest.mark.parametrize(
    ("job", "kind", "line"),
    [
        (Job("score", Shard("t", "m", 0, 4)), SepbenchError, "a worker failed: ValueError: odd value"),
        (RequestError("no such thing"), RequestError, "no such thing"),
        (MemoryError(), SepbenchError, "a worker failed: MemoryError"),
        (KeyboardInterrupt(), SepbenchError, "a worker failed: KeyboardInterrupt"),
    ],
    ids=str,
)
def test_what_a_worker_cannot_go_on_with_is_told_and_ends_it(did: list[Any], job: Any, kind: type[Exception], line: str) -> None:
    pipe = Pipe(job)
    with pytest.raises(SystemExit) as ended:
        serve(pipe)
    (told,) = pipe.sent
    assert (ended.value.code, type(told), str(told)) == (1, kind, line)
    with pytest.raises(SystemExit):  # nobody is there to hear it
        serve(Pipe(job, breaks=0))


@pytest.mark.parametrize("workers", [0, -3])
def test_a_number_of_workers_is_at_least_one(workers: int) -> None:
    with pytest.raises(RequestError, match=rf"^--workers must be at least 1, got {workers}$"):
        LocalBackend(workers)
    assert [LocalBackend(count).workers for count in (None, 1, 3)] == [1, 1, 3]


@pytest.mark.parametrize("fails", [False, True])
def test_one_worker_is_this_process_whose_random_numbers_are_afterwards_as_before(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    order: list[Any] = []

    def run(*given: Any) -> str:
        order.append(given)
        if fails:
            raise SepbenchError("no data")
        return "cells"

    def generators() -> Any:
        order.append("noted")
        return lambda: order.append("put back")

    monkeypatch.setattr(local, "generators", generators)
    monkeypatch.setattr(local, "Inline", lambda *given: ("inline", given))
    monkeypatch.setattr(local, "session_name", lambda plan, sink: f"session of {plan} in {sink}")
    monkeypatch.setattr(local, "run_plan", run)
    given: Any = ("plan", "sink", "progress")
    with pytest.raises(SepbenchError) if fails else contextlib.nullcontext():
        assert LocalBackend().run(*given, "a command", "abc") == "cells"  # type: ignore[comparison-overlap]
    assert order == ["noted", (*given, ("inline", (*given, "session of plan in sink")), "a command", "abc"), "put back"]


def test_several_workers_are_processes_that_end_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[Any] = []

    @contextlib.contextmanager
    def processes(size: int, plan: Any, sink: Any, session: str) -> Iterator[str]:
        order.append((size, plan, sink, session))
        yield "pool"
        order.append("ended")

    monkeypatch.setattr(local, "Processes", processes)
    monkeypatch.setattr(local, "session_name", lambda plan, sink: f"session of {plan} in {sink}")
    monkeypatch.setattr(local, "run_plan", lambda *given: order.append(given) or "cells")
    given: Any = ("plan", "sink", "progress")
    assert LocalBackend(3).run(*given, "a command", "abc") == "cells"  # type: ignore[comparison-overlap]
    assert order == [(3, "plan", "sink", "session of plan in sink"), (*given, "pool", "a command", "abc"), "ended"]


def test_those_who_have_something_to_say_are_heard_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Processes(3, SimpleNamespace(request="", device="cpu"), SimpleNamespace(opener=lambda: None), "")  # type: ignore[arg-type]
    pipes = [Pipe(Tell(float(number))) for number in range(3)]
    pool._children = [local._Child(None, pipe) for pipe in pipes]  # type: ignore[arg-type]
    asked: list[Any] = []
    monkeypatch.setattr(local, "wait", lambda given: asked.append(list(given)) or [pipes[2], pipes[0]])
    assert [(event.worker, event.tell) for event in pool.wait()] == [(0, Tell(0.0)), (2, Tell(2.0))]
    assert asked == [pipes]
    pool.start(1, JOBS[0])
    assert pipes[1].sent == JOBS[:1]
    pipes[2].breaks = 0
    pool.start(2, JOBS[1])  # it has died: the next word of it says so
    assert all(pool.ready(number) for number in range(3))
