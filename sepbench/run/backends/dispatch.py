"""Hands the jobs of all cells to whatever workers there are, and takes in what they report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sepbench.errors import SepbenchError
from sepbench.run.backends.agenda import Agenda, Team
from sepbench.run.plan import Cell, Plan
from sepbench.run.provenance import timing_group
from sepbench.run.records import CellRecord
from sepbench.run.session import Tell
from sepbench.run.sink import Progress, Sink
from sepbench.run.worker import Job, Report

_IDLE_DEATHS = 5
"""So many workers may die without work before the run is given up."""


@dataclass(frozen=True, slots=True)
class Event:
    """What a pool tells: a worker's word, its report, or its death."""

    worker: int
    tell: Tell | None = None
    report: Report | None = None
    death: str = ""


class WorkerPool(Protocol):
    """Workers that take one job each. A worker that dies is replaced by the pool."""

    @property
    def size(self) -> int: ...

    def ready(self, worker: int) -> bool:
        """Whether a worker that has no job could begin one now; on a cluster it may have to wait for room."""
        ...

    def start(self, worker: int, job: Job) -> None:
        """Give an idle worker its next job."""
        ...

    def wait(self) -> Sequence[Event]:
        """Wait until some worker has something to say.

        Raises:
            SepbenchError: data cannot be read, or results cannot be written.
        """
        ...


def session_name(plan: Plan, sink: Sink) -> str:
    """What the workers of a run call its session, for ``open_session``: a kill does not change it. Nobody asks unless fits are to be made again."""
    return sink.refit_name() if plan.request.refit else ""


def run_plan(plan: Plan, sink: Sink, progress: Progress, pool: WorkerPool, command: str, git_sha: str) -> list[tuple[Cell, CellRecord]]:
    """Bring every cell of a plan to its end.

    Args:
        plan: what is to be run.
        sink: the run's folder.
        progress: told what happens.
        pool: who works.
        command, git_sha: of this session, for the records of the cells.

    Returns:
        Every cell with its final record, in the plan's order.
    """
    return Dispatch(plan, sink, progress, pool, Team(pool.size, command, git_sha, timing_group(plan.device))).run()


class Dispatch:
    """The state of ``run_plan``: open cells, and who is at which job. Cells are opened in the plan's order, when a worker is free for them."""

    def __init__(self, plan: Plan, sink: Sink, progress: Progress, pool: WorkerPool, team: Team) -> None:
        self._plan, self._sink, self._progress, self._pool, self._team = plan, sink, progress, pool, team
        self._unopened = list(plan.cells)
        self._open: list[Agenda] = []
        self._records: dict[tuple[str, str], CellRecord] = {}
        self._busy: dict[int, tuple[Agenda, Job]] = {}
        self._resident: dict[int, Agenda] = {}
        self._told: dict[int, float] = {}  # mixtures of the present job that the progress was told of
        self._idle_deaths = 0

    def run(self) -> list[tuple[Cell, CellRecord]]:
        while True:
            self._hand_out()
            self._close_what_is_over()
            if not (self._busy or self._unopened or self._open):
                break
            if self._busy or not any(map(self._pool.ready, range(self._pool.size))):
                for event in self._pool.wait():
                    self._take_in(event)
        return [(cell, self._records[cell.task.spec.name, cell.method]) for cell in self._plan.cells]

    def _hand_out(self) -> None:
        for worker in range(self._pool.size):
            if worker not in self._busy and self._pool.ready(worker):
                job = self._next_job(worker)
                if job is None:
                    continue
                agenda, work = job
                self._busy[worker] = job
                if work.kind != "score":  # scoring leaves the worker the method that it has
                    self._resident[worker] = agenda
                self._pool.start(worker, work)

    def _next_job(self, worker: int) -> tuple[Agenda, Job] | None:
        if any(job.kind == "latency" for _, job in self._busy.values()):
            return None  # single mixtures are being timed, for which the machine is kept quiet
        resident = self._resident.get(worker)
        for agenda in sorted(self._open, key=lambda agenda: agenda is not resident):
            job = agenda.take(agenda is resident)
            if job is not None:
                return agenda, job
        if not self._busy and resident is not None and resident.wants_latency:  # before the worker lets go of the method
            return resident, resident.latency_job()
        while self._unopened:
            agenda = Agenda(self._unopened.pop(0), self._plan, self._sink, self._progress, self._team)
            self._open.append(agenda)
            job = agenda.take(False)
            if job is not None:
                return agenda, job
            if agenda.over:
                self._close_what_is_over()
        if not self._busy:  # the machine is quiet: single mixtures can be timed
            for agenda in self._open:
                if agenda.wants_latency:
                    return agenda, agenda.latency_job()
        return None

    def _close_what_is_over(self) -> None:
        for agenda in [agenda for agenda in self._open if agenda.over]:
            self._open.remove(agenda)
            self._records[agenda.cell.task.spec.name, agenda.cell.method] = agenda.end()

    def _take_in(self, event: Event) -> None:
        if event.worker not in self._busy:
            self._from_idle(event)
            return
        agenda, job = self._busy[event.worker]
        if event.tell is not None:
            self._told[event.worker] = self._told.get(event.worker, 0.0) + event.tell.mixtures
            self._pass_on(agenda.cell, event.tell)
        if event.report is not None:
            del self._busy[event.worker]
            self._told.pop(event.worker, None)
            agenda.take_in(event.report)
        elif event.death:
            del self._busy[event.worker]
            self._resident.pop(event.worker, None)
            self._progress.advance(agenda.cell, -self._told.pop(event.worker, 0.0))  # all of it is done again, or given up and told then
            agenda.died(job, event.death)

    def _from_idle(self, event: Event) -> None:
        if event.tell is not None and event.tell.warning:
            self._progress.warn(event.tell.warning)
        if event.death:
            self._resident.pop(event.worker, None)
            self._idle_deaths += 1
            if self._idle_deaths > _IDLE_DEATHS:
                raise SepbenchError(f"workers die before they get any work ({event.death}); ask for fewer with --workers")

    def _pass_on(self, cell: Cell, tell: Tell) -> None:
        if tell.warning:
            self._progress.warn(tell.warning)
        if tell.stage:
            self._progress.stage(cell, tell.stage, tell.fraction)
        if tell.mixtures:
            self._progress.advance(cell, tell.mixtures)
