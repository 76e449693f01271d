"""A run's folder in memory, and workers without processes: what they report, when, and whether they die is the test's choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sepbench.run.backends.dispatch import Event
from sepbench.run.fit_cache import FitFacts
from sepbench.run.plan import Cell, Shard
from sepbench.run.provenance import timing_group
from sepbench.run.records import CellRecord
from sepbench.run.session import Tell
from sepbench.run.sink import FoundShard, ShardEstimates, ShardScores, ShardTotals, Silent, Sink
from sepbench.run.worker import FitReport, Job, Report

DONE, DIES, DIES_UNSCORED, NO_FIT = "done", "dies", "dies after separating", "cannot fit"
GROUP = timing_group("cpu")


class MemorySink:
    """A ``Sink`` of counters: which shards have estimates, and how many mixtures of each are scored or failed."""

    def __init__(self) -> None:
        self.estimates: set[Shard] = set()
        self.damaged: set[Shard] = set()
        self.scores: dict[Shard, ShardTotals] = {}
        self.void: set[Shard] = set()
        self.cells: dict[tuple[str, str], CellRecord] = {}

    def find(self, task: str, method: str, metrics: Sequence[str]) -> list[FoundShard]:
        shards = {shard for shard in {*self.estimates, *self.damaged, *self.scores} if (shard.task, shard.method) == (task, method)}
        return [
            FoundShard(shard, shard in self.estimates, shard in self.damaged, self.scores.get(shard), shard in self.void)
            for shard in sorted(shards, key=lambda shard: shard.start)
        ]

    def separated(self, shard: Shard) -> None:
        self.damaged.discard(shard)
        self.estimates.add(shard)

    def scored(self, shard: Shard) -> None:
        self.void.discard(shard)
        self.scores[shard] = ShardTotals(len(shard), 0, 0.1 * len(shard), "")

    def write_estimates(self, shard: Shard, data: ShardEstimates) -> None:
        raise NotImplementedError

    def read_estimates(self, shard: Shard) -> ShardEstimates:
        raise NotImplementedError

    def remove_estimates(self, shard: Shard) -> None:
        self.estimates.discard(shard)

    def write_scores(self, shard: Shard, scores: ShardScores) -> None:
        self.scores[shard] = ShardTotals(scores.n_separated, scores.n_failed, scores.separate_seconds, next(filter(None, scores.errors), ""))
        (self.void.add if scores.fit_failed else self.void.discard)(shard)

    def remove_scores(self, shard: Shard) -> None:
        self.scores.pop(shard, None)
        self.void.discard(shard)

    def read_totals(self, shard: Shard) -> ShardTotals:
        return self.scores[shard]

    def read_cell(self, task: str, method: str) -> CellRecord | None:
        found = self.cells.get((task, method))
        return None if found is None else found.model_copy()

    def write_cell(self, task: str, method: str, record: CellRecord) -> None:
        self.cells[task, method] = record.model_copy()

    def check(self) -> None:
        pass

    def opener(self) -> Callable[[], Sink]:
        raise NotImplementedError

    def covered(self, task: str = "class-split", method: str = "halves") -> list[int]:
        """Every mixture as often as it stands in a scored shard."""
        return sorted(mixture for shard in self.scores if (shard.task, shard.method) == (task, method) for mixture in range(shard.start, shard.stop))


class Counting(Silent):
    """Progress by cell, and what was warned of."""

    def __init__(self) -> None:
        self.mixtures: dict[tuple[str, str], float] = {}
        self.warnings: list[str] = []

    def begin(self, cell: Cell, done: int) -> None:
        self.mixtures[cell.task.spec.name, cell.method] = done

    def advance(self, cell: Cell, mixtures: float) -> None:
        self.mixtures[cell.task.spec.name, cell.method] += mixtures

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def report(job: Job, *, cost: float = 1.0, fit_seconds: float = 0.0, kept: bool = False, latency: float | None = None) -> Report:
    """A job that went well: so many seconds per mixture, and of the fit."""
    if job.kind == "score":
        return Report(job, 0.1, totals=ShardTotals(len(job.shard), 0, 0.1, ""), timing_group=GROUP)
    fit = FitReport(FitFacts(fit_seconds, 0.0, GROUP), cached=False, kept=kept, samples=1, weights_sha256="")
    return Report(job, cost * len(job.shard), fit=fit, warm_up_seconds=0.0, latency_seconds=latency, timing_group=GROUP)


@dataclass
class FakePool:
    """A ``WorkerPool`` whose workers do nothing but write counters into the sink.

    Attributes:
        size: workers.
        sink: the folder.
        choose: of the busy workers, the one that is done next.
        fate: how a worker's job ends.
        cost, fit_seconds, kept: see ``report``.
        jobs: every job that was started, with its worker and those that were busy then.
    """

    size: int
    sink: MemorySink
    choose: Callable[[list[int]], int] = min
    fate: Callable[[int, Job], str] = lambda worker, job: DONE
    cost: float = 1.0
    fit_seconds: float = 0.0
    kept: bool = False
    jobs: list[tuple[int, Job, frozenset[int]]] = field(default_factory=list)
    busy: dict[int, Job] = field(default_factory=dict)

    def ready(self, worker: int) -> bool:
        return True

    def start(self, worker: int, job: Job) -> None:
        assert worker not in self.busy
        self.jobs.append((worker, job, frozenset(self.busy)))
        self.busy[worker] = job

    def wait(self) -> Sequence[Event]:
        worker = self.choose(sorted(self.busy))
        job = self.busy.pop(worker)
        return self._end(worker, job, self.fate(worker, job))

    def _end(self, worker: int, job: Job, fate: str) -> Sequence[Event]:
        told = Event(worker, tell=Tell(mixtures=len(job.shard) if job.kind == "separate" else 0.0))
        if fate == NO_FIT:
            return [Event(worker, report=Report(job, fit_error="ValueError: singular", timing_group=GROUP))]
        if fate == DIES:
            halfway = [Event(worker, tell=Tell(mixtures=0.5))] if job.kind == "separate" else []
            return [*halfway, Event(worker, death="signal SIGKILL")]
        if job.kind == "separate":
            self.sink.separated(job.shard)
        if fate == DIES_UNSCORED:
            return [told, Event(worker, death="signal SIGKILL")]
        if job.kind != "latency":
            self.sink.scored(job.shard)
        return [told, Event(worker, report=report(job, cost=self.cost, fit_seconds=self.fit_seconds, kept=self.kept, latency=0.5))]


def shards(pool: FakePool, kind: str = "separate") -> list[tuple[int, int]]:
    """(start, stop) of the jobs of one kind, in the order in which they were started."""
    return [(job.shard.start, job.shard.stop) for _, job, _ in pool.jobs if job.kind == kind]
