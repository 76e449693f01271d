"""One method on one task: what of it is missing, and how it went."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sepbench.run.plan import Cell, Plan, Shard
from sepbench.run.records import CellRecord
from sepbench.run.request import RequestError
from sepbench.run.sink import FoundShard, ShardTotals, Sink

if TYPE_CHECKING:
    from sepbench.run.worker import FitReport


@dataclass(frozen=True, slots=True)
class Missing:
    """What a cell still lacks.

    Attributes:
        gaps: stretches of mixtures of which nothing is there, or only the rows of a fit that failed; to be cut into shards.
        again: shards that are separated again as they are: damaged estimates, other metrics without estimates, failed mixtures if asked for.
        unscored: shards whose estimates are there and whose scores are not.
        void: shards with rows of a fit that failed, within ``gaps``.
        done: mixtures that need no separation.
    """

    gaps: tuple[Shard, ...]
    again: tuple[Shard, ...]
    unscored: tuple[Shard, ...]
    void: tuple[Shard, ...]
    done: int

    @property
    def separates(self) -> int:
        """Mixtures to be separated."""
        return sum(len(shard) for shard in (*self.gaps, *self.again))


def missing(cell: Cell, found: Sequence[FoundShard], retry_failed: bool) -> Missing:
    """Hold what a run's folder has of a cell against what was asked for; what lies beyond the cell's mixtures is left alone."""
    again, unscored, void, kept = [], [], [], []
    for item in found:
        if item.shard.start >= cell.n_planned:
            continue
        failed = item.scored and item.totals is not None and item.totals.n_failed > 0
        if item.fit_failed and not item.estimates and not item.damaged:
            void.append(item.shard)
            continue
        kept.append(item.shard)
        if item.damaged or (retry_failed and failed) or not (item.scored or item.estimates):
            again.append(item.shard)
        elif not item.scored:
            unscored.append(item.shard)
    gaps = tuple(_between(cell, kept))
    done = cell.n_planned - sum(len(gap) for gap in gaps) - sum(min(shard.stop, cell.n_planned) - shard.start for shard in again)
    return Missing(gaps, tuple(again), tuple(unscored), tuple(void), done)


def _between(cell: Cell, kept: Iterable[Shard]) -> Iterator[Shard]:
    """The stretches that no kept shard covers; shards are in order."""
    start, task, method = 0, cell.task.spec.name, cell.method
    for shard in kept:
        if shard.start > start:
            yield Shard(task, method, start, min(shard.start, cell.n_planned))
        start = max(start, shard.stop)
        if start >= cell.n_planned:
            return
    if start < cell.n_planned:
        yield Shard(task, method, start, cell.n_planned)


def announce(plan: Plan, sink: Sink) -> None:
    """Note in the records of cells that grow how many mixtures they have now: before any of the new ones is there, and before the first cell runs."""
    for cell in plan.cells:
        old = sink.read_cell(cell.task.spec.name, cell.method)
        if old is not None and old.n_planned < cell.n_planned:
            state = "partial" if old.state == "done" else old.state
            sink.write_cell(cell.task.spec.name, cell.method, old.model_copy(update={"n_planned": cell.n_planned, "state": state}))


def begun(cell: Cell, old: CellRecord | None) -> CellRecord:
    """The record that a cell starts with; what an earlier session measured and this one will not is kept."""
    fresh = {"state": "partial", "supervision": cell.supervision, "note": cell.support.note, "error": ""}
    record = old.model_copy(update=fresh) if old is not None else CellRecord.model_validate(fresh)
    record.n_planned = max(record.n_planned, cell.n_planned)
    if not cell.support.ok:
        record.state = "unsupported"
    return record


def claim(cell: Cell, sink: Sink, metrics: Sequence[str], fit: FitReport) -> None:
    """Hold a fitted method against the cell's record, and note in the record how it was fitted; called before any of its mixtures is written.

    So nothing is ever there that the record does not speak of, wherever the run is killed or refused.

    Raises:
        RequestError: its weights or training data are not those of the results that are there.
    """
    task, method = cell.task.spec.name, cell.method
    old = sink.read_cell(task, method)
    changed = _changed(cell, old, fit) if old is not None else ""
    if changed and holds_results(sink.find(task, method, metrics)):
        raise RequestError(f"the {changed} have changed since this run began; restore them, or choose another --out")
    record = old.model_copy() if old is not None else begun(cell, None)
    note_fit(record, fit)
    digests = ("weights_sha256", "training_sha256")
    if old is None or old.fit_seconds is None or any(getattr(old, name) != getattr(record, name) for name in digests):
        sink.write_cell(task, method, record)


def _changed(cell: Cell, old: CellRecord, fit: FitReport) -> str:
    """What a method was fitted with that is not as the record has it, in words; an earlier version's record does not have everything."""
    if fit.training_sha256 and old.training_sha256 not in ("", fit.training_sha256):
        return f"training data of {cell.method} on {cell.task.spec.name}"
    return f"weights of {cell.method}" if old.weights_sha256 not in ("", fit.weights_sha256) else ""


def holds_results(found: Iterable[FoundShard]) -> bool:
    """Whether anything of what is there came out of a fitted method, and counts: mixtures that failed say nothing of it, and neither do damaged files."""

    def holds(item: FoundShard) -> bool:
        if item.totals is not None and item.scored:
            return item.totals.n_separated > 0
        return item.estimates or not (item.damaged or item.fit_failed)  # not scored yet, or by other metrics

    return any(holds(item) for item in found)


def note_fit(record: CellRecord, fit: FitReport) -> None:
    """Write into a cell's record what its method is and how it was fitted."""
    record.samples, record.weights_sha256, record.prior = fit.samples, fit.weights_sha256, fit.prior
    record.fit_seconds, record.load_seconds, record.fit_cached = fit.facts.seconds, fit.facts.load_seconds, fit.cached
    record.fit_timing_group, record.training_sha256 = fit.facts.timing_group, fit.training_sha256 or record.training_sha256


def finished(record: CellRecord, totals: Iterable[ShardTotals], fit_error: str = "") -> None:
    """Add up the shards' counters and decide the state."""
    shards = list(totals)
    record.n_separated = sum(t.n_separated for t in shards)
    record.n_failed = sum(t.n_failed for t in shards)
    record.separate_seconds = sum(t.separate_seconds for t in shards)
    counted = [t.evaluations for t in shards if t.n_separated]
    known = [evaluations for evaluations in counted if evaluations is not None]
    record.evaluations = sum(known) if known and len(known) == len(counted) else None  # a part of the cell may be an earlier version's
    record.error = fit_error or next((t.error for t in shards if t.error), "")
    if fit_error or record.n_separated == 0:
        record.state = "failed"
    else:
        record.state = "done" if record.n_separated == record.n_planned else "partial"
    if record.state == "done":
        record.traceback = ""


def close(cell: Cell, plan: Plan, sink: Sink, record: CellRecord, old: CellRecord | None, fit_error: str) -> CellRecord:
    """Count what is there, write the cell's record if anything about it has changed, and return it."""
    if record.state != "unsupported":
        found = sink.find(cell.task.spec.name, cell.method, plan.metrics)
        finished(record, (item.totals for item in found if item.totals is not None), fit_error)
        if not plan.request.keep_estimates:
            for item in found:
                if item.estimates and item.scored:
                    sink.remove_estimates(item.shard)
    if record != old:
        sink.write_cell(cell.task.spec.name, cell.method, record)
    return record
