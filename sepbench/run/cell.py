"""One method on one task: separate what is missing, score what is missing, and say how it went. What exists is done."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sepbench.run.plan import Cell, Plan, Shard
from sepbench.run.request import RequestError
from sepbench.run.scoring import failed_scores, score_shard
from sepbench.run.separate import Session, measure_latency, one_line, open_session, separate_shard
from sepbench.run.sink import CellRecord, Progress, ShardTotals, Sink
from sepbench.run.timing import PeakMemory

if TYPE_CHECKING:
    from sepbench.data.mixtures import MixtureSet


def run_cell(cell: Cell, plan: Plan, mixture_set: MixtureSet, sink: Sink, progress: Progress) -> CellRecord:
    """Bring one cell to its end and return its record (``cells/*.json``).

    A method that cannot be fitted fails the cell: all its missing examples get rows with the error, which the next attempt replaces.
    ``state`` is ``done``; ``partial`` if some examples failed; ``failed`` if the fit or every example failed; ``unsupported``.
    """
    progress.begin(cell)
    old = sink.read_cell(cell.task.spec.name, cell.method) or {}
    record = new_record(cell, old)
    if not cell.support.ok:
        record["state"] = "unsupported"
    else:
        again = [s for s in cell.shards if plan.request.retry_failed and sink.has_scores(s, plan.metrics) and sink.read_totals(s).n_failed]
        missing = [s for s in cell.shards if s in again or sink.has_damaged_estimates(s) or not (sink.has_scores(s, plan.metrics) or sink.has_estimates(s))]
        progress.advance(cell.n_planned - sum(len(s) for s in missing))
        fit_error = ""
        if missing or (plan.request.latency and record["latency_seconds"] is None):
            fit_error = _separate(cell, missing, plan, mixture_set, sink, progress, record)
        _score(cell, plan, mixture_set, sink, progress, again if not fit_error else ())
        finish_record(record, (sink.read_totals(shard) for shard in cell.shards), fit_error)
    if record != old:
        sink.write_cell(cell.task.spec.name, cell.method, record)
    progress.end(cell, record)
    return record


def new_record(cell: Cell, old: CellRecord) -> CellRecord:
    """The record a cell starts with; what an earlier session measured and this one will not is kept.

    ``samples`` is the method's attribute ``posterior_samples``, the number of draws it chooses from (best-of-N), or the number of draws that
    the suite scores; ``weights_sha256`` is its attribute of that name, the digest of trained weights; methods that have neither count as 1 and "".
    """
    return {
        "state": "partial",
        "supervision": cell.supervision,
        "note": cell.support.note,
        "error": "",
        "fit_seconds": old.get("fit_seconds"),
        "load_seconds": old.get("load_seconds"),
        "warm_up_seconds": old.get("warm_up_seconds"),
        "separate_seconds": 0.0,
        "n_planned": cell.n_planned,
        "n_separated": 0,
        "n_failed": 0,
        "latency_seconds": old.get("latency_seconds"),
        "peak_mb": old.get("peak_mb"),
        "samples": old.get("samples", 1),
        "weights_sha256": old.get("weights_sha256", ""),
        "traceback": old.get("traceback", ""),
    }


def finish_record(record: CellRecord, totals: Iterable[ShardTotals], fit_error: str = "") -> None:
    """Add up the shards' counters and decide the state."""
    shards = list(totals)
    record["n_separated"] = sum(t.n_separated for t in shards)
    record["n_failed"] = sum(t.n_failed for t in shards)
    record["separate_seconds"] = sum(t.separate_seconds for t in shards)
    record["error"] = fit_error or next((t.error for t in shards if t.error), "")
    if fit_error or record["n_separated"] == 0:
        record["state"] = "failed"
    else:
        record["state"] = "done" if record["n_separated"] == record["n_planned"] else "partial"
    if record["state"] == "done":
        record["traceback"] = ""


def _separate(cell: Cell, missing: Sequence[Shard], plan: Plan, mixture_set: MixtureSet, sink: Sink, progress: Progress, record: CellRecord) -> str:
    """Fit, then write the missing estimates; the error of the fit if it failed."""
    memory = PeakMemory(plan.device)
    memory.reset()
    progress.stage("fit")
    try:
        session = open_session(cell, plan.request, mixture_set, progress)
    except (Exception, SystemExit) as error:  # MemoryError included: the other methods go on
        fit_error = one_line(error)
        record |= {"state": "failed", "error": fit_error, "traceback": traceback.format_exc(limit=-6)}
        for shard in missing:
            if not sink.has_scores(shard, plan.metrics):  # what an earlier session scored is not lost
                sink.write_scores(shard, failed_scores(shard, fit_error, plan.metrics))
            progress.advance(len(shard))
        return fit_error
    weights = str(getattr(session.separator, "weights_sha256", ""))
    if record["weights_sha256"] not in ("", weights) and len(missing) < len(cell.shards):
        raise RequestError(f"the weights of {cell.method} have changed since this run began; restore them, or choose another --out")
    samples = getattr(session.separator, "posterior_samples", 1)
    record |= {
        "fit_seconds": session.fit_seconds,
        "load_seconds": session.load_seconds,
        "samples": cell.task.spec.posterior_draws or (samples if isinstance(samples, int) else 1),
        "weights_sha256": weights,
    }
    sink.write_cell(cell.task.spec.name, cell.method, record)  # a resumed run may find every estimate there and never fit again
    for number, shard in enumerate(missing, 1):
        progress.stage(f"separate {number}/{len(missing)}")
        sink.write_estimates(shard, separate_shard(session, shard, progress.advance))
    _measure(session, plan, record, progress)
    record["warm_up_seconds"] = session.warm_up_seconds
    record["peak_mb"] = max(memory.read(), record["peak_mb"] or 0.0)
    if session.first_traceback:
        record["traceback"] = session.first_traceback
    return ""


def _measure(session: Session, plan: Plan, record: CellRecord, progress: Progress) -> None:
    if not plan.request.latency:
        return
    progress.stage("latency")
    try:
        record["latency_seconds"] = measure_latency(session, session.cell.n_planned)
    except Exception as error:
        progress.warn(f"{session.cell.method} on {session.cell.task.spec.name}: no latency, {one_line(error)}")


def _score(cell: Cell, plan: Plan, mixture_set: MixtureSet, sink: Sink, progress: Progress, again: Sequence[Shard]) -> None:
    """Score every shard that has estimates and no scores, or is in ``again``; a shard without estimates has the rows of the fit that failed."""
    for number, shard in enumerate(cell.shards, 1):
        if sink.has_estimates(shard) and (shard in again or not sink.has_scores(shard, plan.metrics)):
            progress.stage(f"score {number}/{len(cell.shards)}")
            sink.write_scores(shard, score_shard(shard, sink.read_estimates(shard), mixture_set, cell.task, plan.metrics))
        if not plan.request.keep_estimates:
            sink.remove_estimates(shard)
