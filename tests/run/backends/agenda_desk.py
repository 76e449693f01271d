"""An agenda of one cell at work: what it hands out, and what is told it of the jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fake_pool import GROUP, Counting, MemorySink, report

from sepbench.run.backends.agenda import Agenda, Team
from sepbench.run.plan import Plan, Shard
from sepbench.run.worker import Job, JobKind

Planned = Callable[..., Plan]


class Desk:
    """An agenda of ``halves`` (batches of 4) with its folder and its progress."""

    def __init__(self, planned: Planned, sink: MemorySink | None = None, workers: int = 1, **options: Any) -> None:
        plan = planned("halves", **({"limit": 100, "shard_size": None} | options))
        self.sink, self.progress = sink or MemorySink(), Counting()
        self.agenda = Agenda(plan.cells[0], plan, self.sink, self.progress, Team(workers, "command", "sha", GROUP))

    def take(self, resident: bool = False) -> tuple[JobKind, int, int] | None:
        job = self.agenda.take(resident)
        self.last = job
        return None if job is None else (job.kind, job.shard.start, job.shard.stop)

    def do(self, **facts: Any) -> None:
        """The job that was taken last is done."""
        assert self.last is not None
        self.done(self.last, **facts)

    def done(self, job: Job, **facts: Any) -> None:
        if job.kind == "separate":
            self.sink.separated(job.shard)
        self.sink.scored(job.shard)
        self.agenda.take_in(report(job, **facts))

    def die(self, unscored: bool = False) -> None:
        assert self.last is not None
        if unscored:
            self.sink.separated(self.last.shard)
        self.agenda.died(self.last, "signal SIGKILL")


def cell_shard(start: int, stop: int) -> Shard:
    return Shard("class-split", "halves", start, stop)
