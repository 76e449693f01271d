"""This machine: one process, or several that share the cells' shards."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from sepbench.ambient import generators
from sepbench.errors import SepbenchError
from sepbench.run.backends.dispatch import Event, run_plan, session_name
from sepbench.run.plan import Cell, Plan, make_plan
from sepbench.run.records import CellRecord
from sepbench.run.request import RequestError, RunRequest
from sepbench.run.separate import one_line
from sepbench.run.session import Tell
from sepbench.run.sink import Progress, Sink
from sepbench.run.timing import keep_freed_memory
from sepbench.run.worker import Job, Report, Worker

_SPAWN = multiprocessing.get_context("spawn")  # a forked child would inherit threads of torch that are not there
_TELL_EVERY = 0.1
"""Seconds between two words of a worker about its progress, so that a pipe never fills."""
_PR_SET_PDEATHSIG = 1


class LocalBackend:
    """The default. One worker is this very process; more are processes of their own, each with torch's number of threads of this one."""

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise RequestError(f"--workers must be at least 1, got {workers}")
        self._workers = workers or 1

    @property
    def workers(self) -> int:
        return self._workers

    def run(self, plan: Plan, sink: Sink, progress: Progress, command: str = "", git_sha: str = "") -> list[tuple[Cell, CellRecord]]:
        """See ``Backend``."""
        session = session_name(plan, sink)
        if self._workers == 1:
            restore = generators()
            try:
                return run_plan(plan, sink, progress, Inline(plan, sink, progress, session), command, git_sha)
            finally:
                restore()
        with Processes(self._workers, plan, sink, session) as pool:
            return run_plan(plan, sink, progress, pool, command, git_sha)


class Inline:
    """A pool of one worker, in this process: a job is done when it is started."""

    size = 1

    def __init__(self, plan: Plan, sink: Sink, progress: Progress, session: str) -> None:
        self._cells = {(cell.task.spec.name, cell.method): cell for cell in plan.cells}
        self._progress = progress
        self._worker = Worker(plan, sink, self._tell, session)
        self._cell: Cell | None = None
        self._report: Report | None = None

    def _tell(self, tell: Tell) -> None:
        if self._cell is None:
            return
        if tell.warning:
            self._progress.warn(tell.warning)
        if tell.stage:
            self._progress.stage(self._cell, tell.stage, tell.fraction)
        if tell.mixtures:
            self._progress.advance(self._cell, tell.mixtures)

    def ready(self, worker: int) -> bool:
        return True

    def start(self, worker: int, job: Job) -> None:
        self._cell = self._cells[job.shard.task, job.shard.method]
        self._report = self._worker.run(job)

    def wait(self) -> Sequence[Event]:
        report, self._report = self._report, None
        return [Event(0, report=report)]


@dataclass(slots=True)
class _Child:
    process: BaseProcess
    connection: Connection


class Processes:
    """A pool of worker processes; a context manager. A process that dies is replaced.

    On a machine with GPUs each process sees one of them, in turn, unless the plan names one for all.
    """

    def __init__(self, size: int, plan: Plan, sink: Sink, session: str) -> None:
        self.size = size
        self._setting_up = (plan.request, sink.opener(), session)
        self._gpus = visible_gpus() if plan.device == "cuda" else ()
        self._children: list[_Child] = []

    def __enter__(self) -> Processes:
        try:
            for number in range(self.size):
                self._children.append(self._spawn(number))
        except SepbenchError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *ended: object) -> None:
        for child in self._children:
            child.connection.close()
            child.process.kill()
        for child in self._children:
            child.process.join()

    def _spawn(self, number: int) -> _Child:
        gpu = self._gpus[number % len(self._gpus)] if self._gpus else None
        try:
            here, there = _SPAWN.Pipe()
            process = _SPAWN.Process(target=serve, args=(there, *self._setting_up, gpu, os.getpid()), daemon=True, name=f"sepbench-worker-{number}")
            with _threads(torch.get_num_threads()), _deaf_to_interrupts():
                process.start()
        except OSError as error:
            raise SepbenchError(f"cannot start {self.size} workers: {error.strerror or error}; ask for fewer with --workers") from error
        there.close()
        return _Child(process, here)

    def ready(self, worker: int) -> bool:
        return True

    def start(self, worker: int, job: Job) -> None:
        with contextlib.suppress(OSError):  # it has died: ``wait`` says so
            self._children[worker].connection.send(job)

    def wait(self) -> Sequence[Event]:
        ready = wait([child.connection for child in self._children])
        return [event for number, child in enumerate(self._children) if child.connection in ready for event in self._read(number, child)]

    def _read(self, number: int, child: _Child) -> Sequence[Event]:
        try:
            message = child.connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            child.process.join()
            child.connection.close()
            self._children[number] = self._spawn(number)
            return [Event(number, death=_how(child.process.exitcode))]
        if isinstance(message, BaseException):
            raise message
        if isinstance(message, Tell):
            return [Event(number, tell=message)]
        return [Event(number, report=message)]


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Processes that are started meanwhile compute with so many threads, which is read once, when torch is imported."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that are started meanwhile never see Ctrl-C, which reaches the whole group: their parent ends them. Its own waits until after this."""
    resource_tracker.ensure_running()  # it opens the mask again when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def visible_gpus() -> tuple[str, ...]:
    """Names of the GPUs that this process sees, as CUDA_VISIBLE_DEVICES takes them."""
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named[number] if number < len(named) else str(number) for number in range(torch.cuda.device_count()))


def _how(exitcode: int | None) -> str:
    """How a process ended, in words."""
    if exitcode is not None and exitcode < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"


class _Pipe:
    """Sends what a worker tells, not too often."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._mixtures = 0.0
        self._last = 0.0

    def __call__(self, tell: Tell) -> None:
        self._mixtures += tell.mixtures
        now = time.monotonic()
        # A stage that is entered, and a warning, are always told; fractions and mixtures at intervals.
        if tell.warning or (tell.stage and tell.fraction is None) or now - self._last >= _TELL_EVERY:
            self._connection.send(Tell(self._mixtures, tell.stage, tell.fraction, tell.warning))
            self._mixtures, self._last = 0.0, now

    def flush(self) -> None:
        if self._mixtures:
            self._connection.send(Tell(self._mixtures))
            self._mixtures = 0.0


def serve(connection: Connection, request: RunRequest, opener: Callable[[], Sink], session: str, gpu: str | None, parent: int) -> None:
    """The life of a worker process: jobs in, reports out, until the other end closes."""
    _die_with(parent)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    keep_freed_memory()
    told = _Pipe(connection)
    try:
        from sepbench.suites.loader import load_suite

        worker = Worker(make_plan(request, load_suite(request.suite)), opener(), told, session)
        while True:
            try:
                job = connection.recv()
            except EOFError:
                return
            report = worker.run(job)
            told.flush()
            connection.send(report)
    except BrokenPipeError:
        return
    except BaseException as error:
        with contextlib.suppress(OSError):
            connection.send(error if isinstance(error, SepbenchError) else SepbenchError(f"a worker failed: {one_line(error)}"))
        raise SystemExit(1) from error


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process with its parent: a run that was killed must not leave workers behind."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was asked
        raise SystemExit(1)
