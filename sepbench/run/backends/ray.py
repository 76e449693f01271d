"""A cluster of machines: Ray actors share the cells' shards (extra ``ray``; recipes in ``docs/clusters.md``).

``RAY_ADDRESS`` names the cluster, as everywhere in Ray (``auto`` for the one that ``ray start`` began on this machine). Without it Ray is started
on this machine for the run alone. Results are files in the run's folder, which all machines must see under the same path.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sepbench.errors import SepbenchError
from sepbench.run.backends.dispatch import Event, run_plan, session_name
from sepbench.run.plan import Cell, Plan, make_plan
from sepbench.run.records import CellRecord
from sepbench.run.request import RequestError, RunRequest
from sepbench.run.separate import one_line
from sepbench.run.session import Tell
from sepbench.run.sink import Progress, Sink
from sepbench.run.timing import keep_freed_memory
from sepbench.run.worker import Job, Report, Worker, host

_CARRIED = ("SEPBENCH_DATA", "SEPBENCH_CACHE", "SEPBENCH_OFFLINE", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "PYTHONPATH")
"""Variables of this process that workers get too: data are found, and threads counted, in the same way everywhere."""
_QUESTIONS = "questions"
_PEEK_EVERY = 0.5
"""Seconds between two questions after a worker's progress."""
_KNOCK_SECONDS = 10.0
_PATIENCE = 60.0
"""Seconds without any worker after which the user is told."""


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise SepbenchError("--backend ray needs Ray: pip install 'sepbench[ray]'") from error
    return ray


def _knock(address: str) -> None:
    """Ray tries for minutes to reach a cluster that is not there.

    Raises:
        SepbenchError: nobody listens at ``host:port``; other forms of address are left to Ray.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise SepbenchError(f"no Ray cluster answers at RAY_ADDRESS={address} ({one_line(error)}); is the head started? ('ray start --head')") from error


class RayBackend:
    """Actors that keep the fitted method; each has one GPU for itself where the plan computes on GPUs, and torch's number of threads as CPUs."""

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise RequestError(f"--workers must be at least 1, got {workers}")
        self._ray = _ray()
        self._threads = torch.get_num_threads()
        address = os.environ.get("RAY_ADDRESS", "")
        options: dict[str, Any] = {"address": address} if address else {"address": "local", "include_dashboard": False}
        if not address:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a Ray of our own reports to nobody
        if not address and workers is not None:
            options["num_cpus"] = workers * self._threads
        logging.getLogger("ray").setLevel(logging.ERROR)  # of what it prints on every start the user needs nothing
        _knock(address)
        try:
            self._ray.init(logging_level="ERROR", log_to_driver=False, configure_logging=False, **options)
        except Exception as error:  # of Ray's many kinds
            raise SepbenchError(f"Ray cannot be reached or started (RAY_ADDRESS={address or 'not set'}): {one_line(error)}") from error
        self._resources: dict[str, float] = self._ray.cluster_resources()
        self._workers = workers or self._all()

    def _all(self) -> int:
        gpus = int(self._resources.get("GPU", 0))
        return gpus or max(1, int(self._resources.get("CPU", 1)) // self._threads)

    @property
    def workers(self) -> int:
        return self._workers

    def run(self, plan: Plan, sink: Sink, progress: Progress, command: str = "", git_sha: str = "") -> list[tuple[Cell, CellRecord]]:
        """See ``Backend``. Ray is shut down, or the cluster left, at the end."""
        try:
            self._check_room(plan)
            pool = Actors(self._ray, self._workers, self._threads, plan, sink)
            return run_plan(plan, sink, progress, pool, command, git_sha)
        finally:
            self._ray.shutdown()

    def _check_room(self, plan: Plan) -> None:
        if ":" in plan.device:
            raise RequestError(f"Ray gives each worker a GPU of its own: use --device cuda instead of {plan.device}")
        wanted = {"CPU": self._workers * self._threads} | ({"GPU": self._workers} if plan.device == "cuda" else {})
        for kind, number in wanted.items():
            if number > self._resources.get(kind, 0):
                have = int(self._resources.get(kind, 0))
                raise RequestError(f"{self._workers} workers need {number} {kind}s, the cluster has {have}; ask for fewer with --workers")


@dataclass(slots=True)
class _Handle:
    """An actor, whether it has ever answered, the job it is at, and the question after its progress that is on its way."""

    actor: Any
    peek: Any
    alive: bool = False
    job: Any = None
    asked: float = field(default_factory=time.monotonic)


class Actors:
    """A pool of Ray actors. One that dies, with its machine or alone, is made again wherever there is room, now or later."""

    def __init__(self, ray: Any, size: int, threads: int, plan: Plan, sink: Sink) -> None:
        self.size = size
        self._ray = ray
        variables = {name: os.environ[name] for name in _CARRIED if name in os.environ} | {"OMP_NUM_THREADS": str(threads)}
        self._options = {
            "num_cpus": threads,
            "num_gpus": 1 if plan.device == "cuda" else 0,
            "concurrency_groups": {_QUESTIONS: 1},  # beside the one job; jobs keep to one thread, for each thread's freed memory is kept for itself
            "runtime_env": {"env_vars": variables},
        }
        self._arguments = (plan.request, sink.opener(), session_name(plan, sink), str(Path.cwd()), [entry for entry in sys.path if entry])
        self._handles = [self._make() for _ in range(size)]
        self._alone_since: float | None = time.monotonic()

    def _make(self) -> _Handle:
        actor = self._ray.remote(**self._options)(RayWorker).remote(*self._arguments)
        return _Handle(actor, self._question(actor))

    @staticmethod
    def _question(actor: Any) -> Any:
        return actor.peek.options(concurrency_group=_QUESTIONS).remote()

    def ready(self, worker: int) -> bool:
        return self._handles[worker].alive

    def start(self, worker: int, job: Job) -> None:
        handle = self._handles[worker]
        handle.job = handle.actor.run.remote(job)

    def wait(self) -> Sequence[Event]:
        while True:
            self._ask()
            waiting = {ref: number for number, handle in enumerate(self._handles) for ref in (handle.job, handle.peek) if ref is not None}
            ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=_PEEK_EVERY)
            events = [event for ref in ready for event in self._take(waiting[ref], ref)] or self._alone()
            if events:
                return events

    def _alone(self) -> Sequence[Event]:
        """A word to the user, once, if no actor has come to life for a minute."""
        now = time.monotonic()
        if any(handle.alive for handle in self._handles):
            self._alone_since = now
        elif self._alone_since is not None and now - self._alone_since > _PATIENCE:
            self._alone_since = None
            return [Event(0, tell=Tell(warning="the cluster has no room for any worker yet ('ray status' shows who holds it); the run waits"))]
        return ()

    def _ask(self) -> None:
        now = time.monotonic()
        for handle in self._handles:
            if handle.job is not None and handle.peek is None and now - handle.asked >= _PEEK_EVERY:
                handle.peek, handle.asked = self._question(handle.actor), now

    def _take(self, worker: int, ref: Any) -> Sequence[Event]:
        handle, kinds = self._handles[worker], self._ray.exceptions
        try:
            value = self._ray.get(ref)
        except kinds.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, SepbenchError) else SepbenchError(f"a worker failed: {one_line(error.cause)}")
            raise cause from error
        except (kinds.RuntimeEnvSetupError, kinds.ActorUnschedulableError) as error:
            raise SepbenchError(f"Ray cannot start a worker: {one_line(error)}") from error
        except kinds.RayError as error:  # it died, its machine died, or what it answered is lost
            self._handles[worker] = self._make()
            return [Event(worker, death=_how(error))]
        if ref == handle.peek:
            handle.peek, handle.alive = None, True
            return [Event(worker, tell=tell) for tell in value] or [Event(worker)]
        handle.job = None
        report, tells = value
        return [*(Event(worker, tell=tell) for tell in tells), Event(worker, report=report)]


def _how(error: Exception) -> str:
    return one_line(error).partition(". ")[0][:200]


class RayWorker:
    """The actor: a ``Worker`` that can be asked how far it is. It is opened by its first job, so that what is wrong with it is an answer and no death."""

    def __init__(self, request: RunRequest, opener: Callable[[], Sink], session: str, folder: str, path: list[str]) -> None:
        with contextlib.suppress(OSError):
            os.chdir(folder)  # settings may name files by relative paths
        sys.path += [entry for entry in path if entry not in sys.path]
        self._request, self._opener, self._session = request, opener, session
        self._worker: Worker | None = None
        self._lock = threading.Lock()
        self._told: list[Tell] = []

    def _open(self) -> Worker:
        from sepbench.suites.loader import load_suite

        keep_freed_memory()
        sink = self._opener()
        try:
            sink.check()
        except SepbenchError as error:
            raise SepbenchError(f"the worker on {host()} does not see the run's folder ({error}); use an --out that all machines share") from error
        return Worker(make_plan(self._request, load_suite(self._request.suite)), sink, self._tell, self._session)

    def _tell(self, tell: Tell) -> None:
        with self._lock:
            if self._told and tell.mixtures and not tell.stage and not tell.warning and not self._told[-1].stage and not self._told[-1].warning:
                self._told[-1] = Tell(self._told[-1].mixtures + tell.mixtures)
            elif self._told and tell.fraction is not None and self._told[-1].fraction is not None:
                self._told[-1] = tell
            else:
                self._told.append(tell)

    def peek(self) -> list[Tell]:
        """What was told since the last question."""
        with self._lock:
            told, self._told = self._told, []
        return told

    def run(self, job: Job) -> tuple[Report, list[Tell]]:
        """Do a job; returns its report and what was told meanwhile and not asked for."""
        if self._worker is None:
            self._worker = self._open()
        return self._worker.run(job), self.peek()
