"""What is left to do of one cell, handed out job by job: shards sized by what earlier ones cost."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from math import prod

from sepbench.run.cell import begun, close, missing, note_fit
from sepbench.run.plan import Cell, Plan, Shard
from sepbench.run.records import CellRecord
from sepbench.run.scoring import failed_scores
from sepbench.run.sink import Progress, Sink
from sepbench.run.worker import FitReport, Job, Report

SHARD_SECONDS = 30.0
"""Shards are cut to take about so long, scoring included: what a kill loses, and what workers wait for each other at the end."""
MAX_SHARD, MAX_SHARD_BYTES = 1_000, 1 << 25
"""The most mixtures, and bytes of float32 estimates, of one shard. A worker's memory grows by about eight times its shard while it scores."""
_DEATHS = 2
"""So many workers may die at one job before its mixtures count as failed."""


@dataclass(frozen=True, slots=True)
class Team:
    """Who works: what stands in the cells' records of it.

    Attributes:
        workers: the most processes that separate side by side.
        command, git_sha: of this session.
        timing_group: of the process that plans.
    """

    workers: int
    command: str
    git_sha: str
    timing_group: str


@dataclass(eq=False)
class Agenda:
    """One cell's way from what is there to its end."""

    cell: Cell
    plan: Plan
    sink: Sink
    progress: Progress
    team: Team
    record: CellRecord = field(init=False)
    fit_error: str = field(default="", init=False)
    ended: bool = field(default=False, init=False)
    _old: CellRecord | None = field(init=False)
    _pieces: deque[Shard] = field(default_factory=deque, init=False)
    _gaps: deque[Shard] = field(default_factory=deque, init=False)
    _unscored: deque[Shard] = field(default_factory=deque, init=False)
    _void: tuple[Shard, ...] = field(default=(), init=False)
    _safe: frozenset[Shard] = field(default=frozenset(), init=False)
    _kept_any: bool = field(default=False, init=False)
    _latency: bool = field(default=False, init=False)
    _begun: bool = field(default=False, init=False)
    _running: int = field(default=0, init=False)
    _cost: float | None = field(default=None, init=False)
    _fit_seconds: float = field(default=0.0, init=False)
    _warned: set[str] = field(default_factory=set, init=False)
    _deaths: Counter[Shard] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        task, method = self.cell.task.spec.name, self.cell.method
        self._old = self.sink.read_cell(task, method)
        self.record = begun(self.cell, self._old)
        if not self.cell.support.ok:
            self.progress.begin(self.cell, self.cell.n_planned)
            return
        found = self.sink.find(task, method, self.plan.metrics)
        lacking = missing(self.cell, found, self.plan.request.retry_failed)
        self._gaps, self._pieces, self._unscored = deque(lacking.gaps), deque(lacking.again), deque(lacking.unscored)
        self._void = lacking.void
        self._safe = frozenset(item.shard for item in found if item.scored)
        self._kept_any = lacking.done > 0
        self._latency = self.plan.request.latency and self.record.latency_seconds is None
        self.progress.begin(self.cell, lacking.done)

    # -- handing out

    @property
    def exhausted(self) -> bool:
        """Everything is done or handed out, a measurement of latency left aside."""
        return not (self._pieces or self._gaps or self._unscored)

    @property
    def over(self) -> bool:
        """Nothing is left to do or in work."""
        return self.exhausted and not self._running and not self._latency

    @property
    def wants_latency(self) -> bool:
        """A measurement of single mixtures is due: it needs the machine for itself."""
        return self.exhausted and not self._running and self._latency

    def latency_job(self) -> Job:
        return self._start(Job("latency", Shard(self.cell.task.spec.name, self.cell.method, 0, self.cell.n_planned)))

    def take(self, resident: bool) -> Job | None:
        """The next job for a worker, None if it had better look elsewhere.

        Args:
            resident: the worker has the method fitted.
        """
        if self._unscored:
            return self._start(Job("score", self._unscored.popleft()))
        if not (self._pieces or self._gaps):
            return None
        if self._cost is None:
            # The first shard, one batch, measures. The others wait for it: they would fit the method for nothing.
            return None if self._running else self._start(Job("separate", self._next(1)))
        left = sum(len(shard) for shard in (*self._pieces, *self._gaps))
        if not resident and self._running and left * self._cost / (self._running + 1) < self._fit_seconds:
            return None
        share = -(-left // (2 * self.team.workers)) if self.team.workers > 1 else left
        return self._start(Job("separate", self._next(max(1, min(int(SHARD_SECONDS / max(self._cost, 1e-9)), share)))))

    def _start(self, job: Job) -> Job:
        self._running += 1
        if job.kind != "latency" and not self._begun:
            self._begun = True
            if self.record != self._old:  # before there is anything that it speaks of
                self.sink.write_cell(self.cell.task.spec.name, self.cell.method, self.record)
        if job.kind == "separate" and self._void:  # rows of a fit that failed make room for real ones, or for the same again
            for shard in self._void:
                self.sink.remove_scores(shard)
            self._void = ()
        return job

    def _next(self, mixtures: int) -> Shard:
        if self._pieces:
            return self._pieces.popleft()
        gap, spec = self._gaps.popleft(), self.cell.task.spec
        largest = MAX_SHARD_BYTES // (4 * prod(spec.source_shape) * spec.n_sources * max(1, spec.posterior_draws))
        piece = next(self.cell.pieces(gap, min(mixtures, MAX_SHARD, largest)))
        if piece.stop < gap.stop:
            self._gaps.appendleft(Shard(gap.task, gap.method, piece.stop, gap.stop))
        return piece

    # -- what comes back

    def take_in(self, report: Report) -> None:
        """A job has ended."""
        self._running -= 1
        if report.warning and report.job.kind not in self._warned:  # every shard has the same to say
            self._warned.add(report.job.kind)
            self.progress.warn(report.warning)
        if report.traceback:
            self.record.traceback = report.traceback
        if report.fit_error and report.job.kind == "latency":  # the mixtures themselves are done
            self.progress.warn(f"{self.cell.method} on {self.cell.task.spec.name}: no latency, {report.fit_error}")
        elif report.fit_error:
            self._give_up(report.fit_error, report.job)
            return
        if report.fit is not None:
            self._note_fit(report, report.fit)
        if report.peak_mb is not None:
            self.record.peak_mb = max(report.peak_mb, self.record.peak_mb or 0.0)
        if report.job.kind == "latency":
            self._latency, self.record.latency_seconds = False, report.latency_seconds
        elif report.job.kind == "separate":
            cost = report.seconds / len(report.job.shard)
            self._cost = cost if self._cost is None else 0.5 * (self._cost + cost)
            self._kept_any = True

    def _note_fit(self, report: Report, fit: FitReport) -> None:
        record, first = self.record, self._cost is None
        record.samples, record.weights_sha256, record.prior = fit.samples, fit.weights_sha256, fit.prior
        record.command, record.git_sha = self.team.command, self.team.git_sha
        record.workers = max(record.workers, self.team.workers)
        if report.timing_group != self.team.timing_group:
            record.timing_group = report.timing_group if first else "mixed"
        if not first:
            return
        self._fit_seconds = 0.0 if fit.kept else fit.facts.seconds + fit.facts.load_seconds
        note_fit(record, fit)
        record.warm_up_seconds = report.warm_up_seconds
        # Written at once: a resumed run may find every estimate there and never fit again.
        self.sink.write_cell(self.cell.task.spec.name, self.cell.method, record)

    def _give_up(self, error: str, job: Job) -> None:
        """The method cannot be fitted: what is missing gets rows with the error; what an earlier session scored is not lost."""
        self.fit_error = error
        own = [job.shard] if job.kind == "separate" else []
        left = [piece for gap in self._gaps for piece in self.cell.pieces(gap, MAX_SHARD)]
        self._gaps.clear()
        self._latency = False
        for shard in (*own, *self._pieces, *left):
            self._fail(shard, error, fit_failed=True)
            self.progress.advance(self.cell, len(shard))
        self._pieces.clear()

    def _fail(self, shard: Shard, error: str, *, fit_failed: bool) -> None:
        if shard not in self._safe:
            self.sink.write_scores(shard, failed_scores(shard, error, self.plan.metrics, fit_failed=fit_failed))

    def died(self, job: Job, how: str) -> None:
        """The worker died at a job: it is done again, batch by batch, and given up if another worker dies at it.

        What the worker had told of its mixtures is taken back already.
        """
        self._running -= 1
        shard, uncounted = job.shard, len(job.shard) if job.kind == "separate" else 0
        self._deaths[shard] += 1
        if self._cost is None:  # nobody has reported yet: what the worker noted of its fit stands in the file alone
            self.record = begun(self.cell, self.sink.read_cell(shard.task, shard.method))
        again = self._deaths[shard] < _DEATHS
        self.progress.warn(f"a worker died ({how}) at {shard}; {'it is done again' if again else 'its mixtures count as failed'}")
        if job.kind == "latency":
            self._latency = self._latency and again
        elif not again and job.kind == "separate" and self._cost is None and not self._kept_any:
            self._give_up(f"the worker process died {_DEATHS} times ({how})", job)
        elif not again:
            self._fail(shard, f"the worker process died {_DEATHS} times ({how})", fit_failed=False)
            self.progress.advance(self.cell, uncounted)
        else:
            self._again(shard, uncounted)

    def _again(self, shard: Shard, uncounted: int) -> None:
        found = next((item for item in self.sink.find(shard.task, shard.method, self.plan.metrics) if item.shard == shard), None)
        if found is not None and found.estimates and shard not in self._safe:
            self._unscored.append(shard)  # it died between separating and scoring
            self.progress.advance(self.cell, uncounted)
        elif found is not None or self.cell.fixed:  # smaller shards would overlap with what is there
            self._pieces.append(shard)
        else:
            self._pieces.extend(self.cell.pieces(shard, 1))

    def end(self) -> CellRecord:
        """Write the cell's record; returns it."""
        self.ended = True
        self.record = close(self.cell, self.plan, self.sink, self.record, self._old, self.fit_error)
        self.progress.end(self.cell, self.record)
        return self.record
