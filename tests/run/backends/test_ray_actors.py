"""Actors of a Ray that is not there: how they are made, asked and made again, what they answer, and how a run with them ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sepbench.errors import SepbenchError
from sepbench.run.backends import ray as backend
from sepbench.run.backends.dispatch import Event
from sepbench.run.backends.ray import Actors, RayBackend
from sepbench.run.session import Tell


class Kinds:
    """Ray's kinds of errors, one below the other as they are there."""

    class RayError(Exception):
        cause: object = None

    class RayTaskError(RayError):
        pass

    class RuntimeEnvSetupError(RayError):
        pass

    class ActorUnschedulableError(RayError):
        pass


class FakeRay:
    """Makes actors that write down what they are asked; an answer is there when the test says so, and raised if it is an error."""

    exceptions = Kinds

    def __init__(self) -> None:
        self.made: list[tuple[dict[str, Any], type, tuple[Any, ...]]] = []
        self.asked: list[str] = []
        self.waits: list[tuple[Any, ...]] = []
        self.answers: dict[str, Any] = {}

    def remote(self, **options: Any) -> Any:
        def of(cls: type) -> Any:
            def make(*arguments: Any) -> Any:
                self.made.append((options, cls, arguments))
                name = f"actor {len(self.made)}"
                peek = SimpleNamespace(options=lambda concurrency_group: SimpleNamespace(remote=lambda: self._ask(f"{name} peek in {concurrency_group}")))
                return SimpleNamespace(peek=peek, run=SimpleNamespace(remote=lambda job: self._ask(f"{name} {job}")))

            return SimpleNamespace(remote=make)

        return of

    def _ask(self, what: str) -> str:
        self.asked.append(what)
        return f"{len(self.asked)}: {what}"

    def wait(self, refs: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        self.waits.append((num_returns, timeout))
        ready = [ref for ref in refs if ref in self.answers][:num_returns]
        assert ready, "nobody would ever answer"
        return ready, []

    def get(self, ref: str) -> Any:
        answer = self.answers.pop(ref)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[FakeRay, Actors, list[float]]]:
    """Two actors of five threads each, in a Ray whose clock stands still."""

    def make(device: str = "cpu", refit: bool = False) -> tuple[FakeRay, Actors, list[float]]:
        ray, clock = FakeRay(), [100.0]
        monkeypatch.setattr(backend, "time", SimpleNamespace(monotonic=lambda: clock[0]))
        for number, name in enumerate(("SEPBENCH_DATA", "SEPBENCH_CACHE", "SEPBENCH_OFFLINE", "GOMP_SPINCOUNT", "PYTHONPATH", "OMP_NUM_THREADS", "ODD")):
            monkeypatch.setenv(name, str(number))
        plan: Any = SimpleNamespace(device=device, request=SimpleNamespace(refit=refit))
        pool = Actors(ray, 2, 5, plan, SimpleNamespace(opener=lambda: "opener", refit_name=lambda: "refit 7"))
        for handle in pool._handles:
            handle.asked = clock[0]
        return ray, pool, clock

    return make


def test_actors_are_made_with_what_they_need(actors: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "/there"])
    variables = {"SEPBENCH_DATA": "0", "SEPBENCH_CACHE": "1", "SEPBENCH_OFFLINE": "2", "GOMP_SPINCOUNT": "3", "PYTHONPATH": "4", "OMP_NUM_THREADS": "5"}
    for device, gpus in (("cpu", 0), ("cuda", 1)):
        ray, pool, _ = actors(device, refit=gpus == 1)
        options = {"num_cpus": 5, "num_gpus": gpus, "concurrency_groups": {"questions": 1}, "runtime_env": {"env_vars": variables}}
        assert [(one, cls) for one, cls, _ in ray.made] == [(options, backend.RayWorker)] * 2
        (request, opener, session, *rest), second = (arguments for _, _, arguments in ray.made)
        assert (request, opener, rest) == (SimpleNamespace(refit=gpus == 1), "opener", [str(tmp_path), ["/there"]])
        assert session == second[2] == ("refit 7" if gpus else "")
        assert (pool.size, pool.ready(0), pool.ready(1)) == (2, False, False)


def test_an_actor_is_ready_once_it_answers_and_is_asked_twice_a_second_while_it_works(actors: Any) -> None:
    ray, pool, clock = actors()
    assert ray.asked == ["actor 1 peek in questions", "actor 2 peek in questions"]
    ray.answers["2: actor 2 peek in questions"] = []
    assert pool.wait() == [Event(1)]
    assert ray.waits == [(1, 0.5)]
    assert (pool.ready(0), pool.ready(1)) == (False, True)
    pool.start(1, "job")
    assert ray.asked[2:] == ["actor 2 job"]
    ray.answers["1: actor 1 peek in questions"] = []
    clock[0] += 0.49
    assert pool.wait() == [Event(0)]
    assert len(ray.asked) == 3  # it is too soon
    clock[0] += 0.02
    ray.answers["4: actor 2 peek in questions"] = [Tell(2.0), Tell(stage="score")]
    assert pool.wait() == [Event(1, tell=Tell(2.0)), Event(1, tell=Tell(stage="score"))]
    assert ray.asked[3:] == ["actor 2 peek in questions"]  # of the one that works alone
    ray.answers["3: actor 2 job"] = ("a report", [Tell(3.0), Tell(1.0)])
    assert pool.wait() == [Event(1, tell=Tell(3.0)), Event(1, tell=Tell(1.0)), Event(1, report="a report")]  # type: ignore[arg-type]
    pool.start(1, "another")
    assert ray.asked[-1] == "actor 2 another"


def test_an_actor_that_dies_is_made_again_and_has_no_job(actors: Any) -> None:
    ray, pool, _ = actors()
    ray.answers["2: actor 2 peek in questions"] = []
    pool.wait()
    pool.start(1, "job")
    ray.answers["3: actor 2 job"] = Kinds.RayError("The actor died. Its node was lost")
    assert pool.wait() == [Event(1, death="RayError: The actor died")]
    assert ray.asked[3:] == ["actor 3 peek in questions"]
    assert ray.made[2] == ray.made[1]
    assert not pool.ready(1)
    ray.answers["4: actor 3 peek in questions"] = []
    assert pool.wait() == [Event(1)]
    assert pool.ready(1)


def caused(cause: Exception) -> Exception:
    error = Kinds.RayTaskError("a long story")
    error.cause = cause
    return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (caused(SepbenchError("no data")), "no data"),
        (caused(ValueError("odd\nvalue")), "a worker failed: ValueError: odd value"),
        (Kinds.RuntimeEnvSetupError("no pip"), "Ray cannot start a worker: RuntimeEnvSetupError: no pip"),
        (Kinds.ActorUnschedulableError("no GPU"), "Ray cannot start a worker: ActorUnschedulableError: no GPU"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_other_actor_would_do_better_ends_the_run_with_one_line(actors: Any, error: Exception, line: str) -> None:
    ray, pool, _ = actors()
    ray.answers["1: actor 1 peek in questions"] = error
    with pytest.raises(SepbenchError) as ended:
        pool.wait()
    assert str(ended.value) == line
    assert len(ray.made) == 2


def test_a_minute_without_any_actor_is_told_once_and_counts_anew_after_one_was_there(actors: Any) -> None:
    _, pool, clock = actors()
    clock[0] += 60.0
    assert pool._alone() == ()
    clock[0] += 0.1
    (event,) = pool._alone()
    assert event == Event(0, tell=Tell(warning="the cluster has no room for any worker yet ('ray status' shows who holds it); the run waits"))
    assert pool._alone() == ()
    pool._handles[1].alive = True
    assert pool._alone() == ()
    pool._handles[1].alive = False
    clock[0] += 60.1
    assert [one.tell for one in pool._alone()] == [event.tell]


@pytest.mark.parametrize("fails", [False, True])
def test_ray_is_left_at_the_end_of_a_run_however_it_ends(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    did: list[Any] = []
    fake = SimpleNamespace(init=lambda **options: None, cluster_resources=lambda: {"CPU": 6.0}, shutdown=lambda: did.append("shut down"))
    monkeypatch.setattr(backend, "_ray", lambda: fake)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    made = RayBackend(3)

    def run(*given: Any) -> Any:
        did.append(given)
        if fails:
            raise SepbenchError("no data")
        return "cells"

    plan: Any = SimpleNamespace(device="cpu")
    monkeypatch.setattr(backend, "Actors", lambda *given: given)
    monkeypatch.setattr(backend, "run_plan", run)
    sink: Any = "sink"
    progress: Any = "progress"
    wanted = (plan, sink, progress, (fake, 3, 2, plan, "sink"), "a command", "abc")
    if fails:
        with pytest.raises(SepbenchError, match=r"^no data$"):
            made.run(plan, sink, progress, "a command", "abc")
    else:
        assert made.run(plan, sink, progress, "a command", "abc") == "cells"  # type: ignore[comparison-overlap]
    assert did == [wanted, "shut down"]


def test_an_actor_opens_its_worker_with_the_first_job_and_keeps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # put back at the end: an actor goes where the command was given
    did: list[Any] = []
    plain = SimpleNamespace(check=lambda: did.append("check"))
    told: list[Any] = []

    def worker(plan: Any, sink: Any, tell: Any, session: str) -> Any:
        did.append((plan, sink is plain, session))
        told.append(tell)

        def run(job: str) -> str:
            tell(Tell(1.0))
            return f"report of {job}"

        return SimpleNamespace(run=run)

    monkeypatch.setattr(backend, "Worker", worker)
    monkeypatch.setattr(backend, "keep_freed_memory", lambda: did.append("memory"))
    monkeypatch.setattr(backend, "make_plan", lambda request, suite: (request.suite, suite))
    monkeypatch.setattr("sepbench.suites.loader.load_suite", lambda name: f"suite {name}")
    request: Any = SimpleNamespace(suite="s")
    one = backend.RayWorker(request, lambda: plain, "session 7", str(tmp_path), [])
    assert did == []  # a worker that cannot be opened is an answer and no death
    assert one.run("a job") == ("report of a job", [Tell(1.0)])  # type: ignore[arg-type,comparison-overlap]
    assert one.run("another") == ("report of another", [Tell(1.0)])  # type: ignore[arg-type,comparison-overlap]
    assert did == ["memory", "check", (("s", "suite s"), True, "session 7")]

    def gone() -> None:
        raise SepbenchError("no run.json")

    monkeypatch.setattr(backend, "host", lambda: "node 4")
    lost = backend.RayWorker(request, lambda: SimpleNamespace(check=gone), "", str(tmp_path), [])
    with pytest.raises(SepbenchError) as refused:
        lost.run("a job")  # type: ignore[arg-type]
    assert str(refused.value) == "the worker on node 4 does not see the run's folder (no run.json); use an --out that all machines share"


def test_a_ray_that_cannot_be_started_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**options: Any) -> None:
        raise ConnectionError("no\nhead")

    monkeypatch.setattr(backend, "_ray", lambda: SimpleNamespace(init=fails))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # put back at the end
    for address, told in (("", "not set"), ("auto", "auto")):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(SepbenchError) as refused:
            RayBackend(2)
        assert str(refused.value) == f"Ray cannot be reached or started (RAY_ADDRESS={told}): ConnectionError: no head"
