"""Execute a plan, or score again what an earlier run separated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sepbench.errors import DataError, SepbenchError
from sepbench.run.backends import Backend
from sepbench.run.backends.local import LocalBackend
from sepbench.run.cell import announce, finished
from sepbench.run.plan import Cell, Plan, Shard, checked_metrics
from sepbench.run.records import CellRecord, RunRecord
from sepbench.run.scoring import failed_scores, prepare_sets, score_shard
from sepbench.run.sink import FoundShard, Progress, Silent, Sink

if TYPE_CHECKING:
    from sepbench.suites.model import Suite


class RescoreError(SepbenchError):
    """A run cannot be scored again: the suite has changed, or estimates are missing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How every cell of a plan ended."""

    cells: tuple[tuple[Cell, CellRecord], ...]

    def in_state(self, state: str) -> list[Cell]:
        return [cell for cell, record in self.cells if record.state == state]

    @property
    def exit_code(self) -> int:
        """1 if any cell failed as a whole, 2 if all that could be tried did for want of data, else 0 (failed examples alone are rows with their error).

        Cells that are unsupported were not tried and do not count.
        """
        tried = [record for _, record in self.cells if record.state != "unsupported"]
        failed = [record for record in tried if record.state == "failed"]
        if failed and len(failed) == len(tried) and all(record.error.startswith(DataError.__name__) for record in failed):
            return 2
        return 1 if failed else 0


def check_data(plan: Plan) -> None:
    """Open every task's mixtures once, so that missing or corrupt data stop a run before its folder is made.

    Raises:
        DataError, SuiteError: as the readers raise them.
    """
    for task in plan.tasks.values():
        if len(task.mixture_set()) < plan.n_planned(task.spec.name):
            raise SepbenchError(f"task {task.spec.name!r} promises {task.n_examples} mixtures, its list holds {len(task.mixture_set())}")


def execute(plan: Plan, sink: Sink, progress: Progress | None = None, backend: Backend | None = None, command: str = "", git_sha: str = "") -> Outcome:
    """Run every cell of a plan; what the sink already holds is not done again.

    Args:
        plan: from ``make_plan``.
        sink: the run's folder.
        progress: told what happens.
        backend: who works; this process by default.
        command, git_sha: of this session, for the cells' records.

    Raises:
        SepbenchError: data cannot be read or results cannot be written. Whatever a method raises is recorded in its cell instead.
    """
    progress, backend = progress or Silent(), backend or LocalBackend()
    announce(plan, sink)
    progress.start(plan, backend.workers)
    return Outcome(tuple(backend.run(plan, sink, progress, command, git_sha)))


def rescore(
    run: RunRecord, suite: Suite, metrics: Sequence[str], sink: Sink, advance: Callable[[Shard], None] = lambda shard: None, device: str = "cpu"
) -> tuple[str, ...]:
    """Score all estimates of a run again, without separating; every shard of scores is replaced.

    Args:
        run: the run's record (``run.json``).
        suite: the suite it was made on.
        metrics: names; empty for the suite's.
        sink: the run's folder.
        advance: called after each shard.
        device: where features for metrics of sets are extracted; everything else is scored on the CPU.

    Returns:
        The metrics scored.

    Raises:
        RescoreError: another version of the suite or of its mixtures, or estimates that are no longer there. Nothing is changed then.
        UnknownNameError: no such metric.
    """
    _check_suite(run, suite)
    tasks = {name: suite.tasks[name] for name in run.tasks}
    chosen = checked_metrics(metrics or suite.metrics, [task.spec for task in tasks.values()])
    work = {(task, method): _scorable(task, method, run, sink) for task in tasks for method in run.methods_on(task)}
    for (task, method), (record, shards) in work.items():
        if not shards:
            continue
        mixture_set = tasks[task].mixture_set()
        sets = prepare_sets(tasks[task], chosen, device, sink)
        for item in shards:
            if item.estimates:
                scores = score_shard(item.shard, sink.read_estimates(item.shard), mixture_set, tasks[task], chosen, sets)
            else:
                scores = failed_scores(item.shard, record.error, chosen)
            sink.write_scores(item.shard, scores)
            advance(item.shard)
        fitted = all(item.estimates for item in shards)
        finished(record, (sink.read_totals(item.shard) for item in shards), "" if fitted else record.error)
        sink.write_cell(task, method, record)
    return chosen


def _check_suite(run: RunRecord, suite: Suite) -> None:
    name, version = run.suite.name, run.suite.version
    if suite.version != version:
        raise RescoreError(f"the run was made on version {version} of suite {name!r}, this sepbench has version {suite.version}; run the suite again")
    for task, facts in run.tasks.items():
        if task not in suite.tasks:
            raise RescoreError(f"the run's task {task!r} is not in suite {name!r} of this sepbench; run the suite again")
        for key in ("pairs_sha256", "mixtures_sha256"):
            if getattr(suite.tasks[task], key) != getattr(facts, key):
                raise RescoreError(f"the mixtures of task {task!r} have changed since the run ({key} differs); run the suite again")


def _scorable(task: str, method: str, run: RunRecord, sink: Sink) -> tuple[CellRecord, list[FoundShard]]:
    """A cell's record and what is there of it, all with estimates unless the method could not be fitted."""
    record = sink.read_cell(task, method)
    if record is not None and record.state == "unsupported":
        return record, []
    found = sink.find(task, method, run.metrics)
    kept = sum(len(item.shard) for item in found if item.estimates)
    planned = record.n_planned if record is not None else run.tasks[task].n_planned
    if record is None or (kept < planned and record.state != "failed"):
        raise RescoreError(
            f"{planned - kept:,} of {planned:,} mixtures of {method} on {task} have no estimates: finish the run with its own command first, "
            "or, if it was made with --no-keep-estimates, run it again without that option in another --out"
        )
    return record, found
