"""What a worker does: it takes one shard after another, keeps the method of the last cell fitted, and reports."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sepbench.ambient import generators, put_back
from sepbench.errors import flat
from sepbench.metrics.sets.extraction import extractors_of
from sepbench.places import kept_traceback, told
from sepbench.protocols import Fitted
from sepbench.run.cell import claim
from sepbench.run.fit_cache import CacheError, FitFacts
from sepbench.run.image_range import estimates_warning
from sepbench.run.plan import Cell, Plan, Shard
from sepbench.run.provenance import timing_group
from sepbench.run.scoring import SetScoring, prepare_sets, score_shard
from sepbench.run.separate import MAX_LINE, measure_latency, separate_shard
from sepbench.run.session import Session, Tell, open_session
from sepbench.run.sink import ShardTotals, Sink
from sepbench.run.timing import PeakMemory

if TYPE_CHECKING:
    from sepbench.data.mixtures import MixtureSet

JobKind = Literal["separate", "score", "latency"]


@dataclass(frozen=True, slots=True)
class Job:
    """One shard to separate and score, to score alone, or to measure single mixtures of."""

    kind: JobKind
    shard: Shard


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a worker knows of a method once it is fitted.

    Attributes:
        facts: seconds, and where they were spent.
        cached: it was read and not made.
        kept: another worker can read it instead of making it.
        samples: draws behind one estimate, or the number of draws that the suite scores.
        weights_sha256: digest of trained weights, "" if there are none.
        prior: what the prior is, "" if there is none.
        training_sha256: digest of the training data that it was fitted on, "" if it needed none.
    """

    facts: FitFacts
    cached: bool
    kept: bool
    samples: int
    weights_sha256: str
    prior: str = ""
    training_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """How a job went.

    Attributes:
        job: what was asked for.
        seconds: wall clock of separating and scoring, fitting and warming up left out.
        fit: of the method that is open, None where the job needed none or the fit failed.
        fit_error: one line, if the method could not be fitted; nothing was written then.
        totals: counters of the shard, None if nothing was scored.
        warm_up_seconds: of the first call in this worker.
        latency_seconds: where it was asked for.
        peak_mb: of the worker, since it opened the method.
        traceback: of the first failure.
        timing_group: where all this was timed.
        warning: for the user.
    """

    job: Job
    seconds: float = 0.0
    fit: FitReport | None = None
    fit_error: str = ""
    totals: ShardTotals | None = None
    warm_up_seconds: float | None = None
    latency_seconds: float | None = None
    peak_mb: float | None = None
    traceback: str = ""
    timing_group: str = ""
    warning: str = ""


class Worker:
    """Runs the jobs of a plan, one at a time.

    Args:
        plan: what is being run.
        sink: the run's folder.
        tell: told what happens.
        session: see ``open_session``.
    """

    def __init__(self, plan: Plan, sink: Sink, tell: Callable[[Tell], None], session: str = "") -> None:
        self._plan = plan
        self._sink = sink
        self._tell = tell
        self._name = session
        self._cells = {(cell.task.spec.name, cell.method): cell for cell in plan.cells}
        self._mixtures: tuple[str, MixtureSet] | None = None
        self._session: Session | None = None
        self._sets: dict[str, SetScoring] = {}
        self._memory = PeakMemory(plan.device)
        self._generators = generators()  # every method finds the global ones as the first one did
        self._group = timing_group(plan.device)

    def run(self, job: Job) -> Report:
        """Do a job. What a method raises is in the report.

        Raises:
            RequestError: weights or training data are not those of what is there already; nothing is written then.
            SepbenchError: data cannot be read, or results and fits cannot be written.
        """
        cell = self._cells[job.shard.task, job.shard.method]
        if job.kind == "score":
            return self._score(job, cell)
        opened = self._session
        mixture_set = self._mixture_set(cell)  # not in the try block: data that cannot be read are no fault of the method
        try:
            session = self._open(cell, mixture_set)
        except (CacheError, KeyboardInterrupt):  # no fault of the method either, and the same for all that keep their fits
            raise
        except BaseException as error:  # MemoryError included: the other methods go on
            self._session = None
            return Report(job, fit_error=self._told(cell, error), traceback=kept_traceback(error), timing_group=self._group)
        if session is not opened:
            claim(cell, self._sink, self._plan.metrics, _fit_report(session))
        if job.kind == "latency":
            return self._latency(job, session)
        started, warm = time.perf_counter(), session.warm_up_seconds
        data = separate_shard(session, job.shard)
        self._sink.write_estimates(job.shard, data)
        warm_up = (session.warm_up_seconds or 0.0) if warm is None else 0.0
        scored = self._score(job, cell)
        return Report(
            job,
            seconds=time.perf_counter() - started - warm_up,
            fit=_fit_report(session),
            totals=scored.totals,
            warm_up_seconds=session.warm_up_seconds,
            peak_mb=self._memory.read(),
            traceback=session.first_traceback,
            timing_group=self._group,
            warning=estimates_warning(f"{cell.method} on {cell.task.spec.name}", cell.task.spec.domain, data.estimates),
        )

    def close(self) -> None:
        """Let go of the method and its task."""
        self._session = None

    def _open(self, cell: Cell, mixture_set: MixtureSet) -> Session:
        if self._session is None or self._session.cell is not cell:
            self._session = None  # the last method's memory is free before the next one is fitted
            self._memory.reset()
            self._generators()
            with put_back():
                session = open_session(cell, self._plan, mixture_set, self._tell, self._name)
                _fit_report(session)  # fails here or not at all
            self._session = session
        return self._session

    def _told(self, cell: Cell, error: BaseException) -> str:
        return told(error, self._plan.methods[cell.method].cls.__module__, MAX_LINE)

    def _mixture_set(self, cell: Cell) -> MixtureSet:
        name = cell.task.spec.name
        if self._mixtures is None or self._mixtures[0] != name:
            self._mixtures = (name, cell.task.mixture_set())
        return self._mixtures[1]

    def _set_scoring(self, cell: Cell) -> SetScoring:
        name = cell.task.spec.name
        if name not in self._sets:
            if extractors_of(self._plan.metrics):
                self._tell(Tell(stage="features of the reference"))
            self._sets[name] = prepare_sets(cell.task, self._plan.metrics, self._plan.device, self._sink)
        return self._sets[name]

    def _score(self, job: Job, cell: Cell) -> Report:
        started = time.perf_counter()
        self._tell(Tell(stage="score"))
        estimates = self._sink.read_estimates(job.shard)
        scores = score_shard(job.shard, estimates, self._mixture_set(cell), cell.task, self._plan.metrics, self._set_scoring(cell))
        self._sink.write_scores(job.shard, scores)
        if not self._plan.request.keep_estimates:
            self._sink.remove_estimates(job.shard)
        return Report(job, time.perf_counter() - started, totals=self._sink.read_totals(job.shard), timing_group=self._group)

    def _latency(self, job: Job, session: Session) -> Report:
        session.teller.enter("latency")
        try:
            seconds: float | None = measure_latency(session, session.cell.n_planned)
            warning = ""
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            seconds, warning = None, f"{job.shard.method} on {job.shard.task}: no latency, {self._told(session.cell, error)}"
        return Report(
            job,
            fit=_fit_report(session),
            latency_seconds=seconds,
            warm_up_seconds=session.warm_up_seconds,
            peak_mb=self._memory.read(),
            timing_group=self._group,
            warning=warning,
        )


def _fit_report(session: Session) -> FitReport:
    separator, spec = session.separator, session.cell.task.spec
    samples = getattr(separator, "posterior_samples", 1)
    drawn = spec.posterior_draws or (samples if isinstance(samples, int) else 1)
    weights, prior = (flat(getattr(separator, name, "")) for name in ("weights_sha256", "prior_label"))
    return FitReport(session.fit, session.cached, isinstance(separator, Fitted), drawn, weights, prior, session.training)


def host() -> str:
    """Name of this machine, for messages."""
    return socket.gethostname()
