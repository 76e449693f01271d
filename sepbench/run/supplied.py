"""Scoring estimates that somebody else made: a cell of a run in which nothing is separated and nothing is timed.

Such a cell has the digest of what was supplied (``CellRecord.estimates_sha256``) where others have settings; its method's ``source`` is ``SUPPLIED``.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import numpy as np

import sepbench
from sepbench.data.estimates.names import slots_by_name
from sepbench.data.estimates.numbers import is_clipped
from sepbench.data.estimates.opening import Estimates, open_estimates
from sepbench.data.estimates.problems import CLIPPED, EXTRA, MISNAMED, MISSING, EstimatesError, Problems
from sepbench.data.estimates.supplied import Advance, Inspection, Supplied
from sepbench.protocols import MethodInfo, Supervision, Support, TaskSpec
from sepbench.registry import separator_names
from sepbench.run.cell import begun, finished, missing
from sepbench.run.image_range import range_warning
from sepbench.run.plan import Cell, Shard, planned_examples
from sepbench.run.provenance import FORMAT, commit, environment, timing_group
from sepbench.run.records import CellRecord, MethodRecord, RunRecord, SessionRecord, SuiteRecord, TaskRecord
from sepbench.run.request import RequestError
from sepbench.run.scoring import prepare_sets, score_shard
from sepbench.run.sink import ShardEstimates, Sink
from sepbench.torch_later import torch

if TYPE_CHECKING:
    from sepbench.data.mixtures import MixtureSet
    from sepbench.suites.model import Suite, Task

SUPPLIED = "estimates supplied"
"""Stands in ``MethodRecord.source`` in place of a class."""
UNSTATED = "unstated"
"""The supervision of estimates of which nobody says what their method learnt from."""
NOT_THERE = "no estimate was supplied"
"""Error of a mixture that a partial set lacks."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_SHARD_VALUES, _MAX_SHARD = 1 << 22, 1_000


@dataclass(frozen=True, slots=True)
class SuppliedCell:
    """Estimates of one task that were looked at and can be scored.

    Attributes:
        task: the task.
        name: what the method is called.
        n_planned: the first so many mixtures are asked for.
        estimates: reads them.
        inspection: what looking at them has shown.
        warnings: for the user, one line each.
    """

    task: Task
    name: str
    n_planned: int
    estimates: Supplied
    inspection: Inspection
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Said:
    """What a row of supplied estimates says of itself: what their method learnt from, and command and commit of the session that scored them."""

    supervision: str = ""
    command: str = ""
    git_sha: str = ""


def checked_name(name: str) -> str:
    """A name for estimates.

    Raises:
        RequestError: it cannot stand in a file name, or is that of a registered method, whose rows it would replace.
    """
    if not _NAME.fullmatch(name) or "--" in name:
        raise RequestError(f"--name {name!r} must be up to 64 letters, digits and single . _ + - and begin with a letter or a digit")
    if name in separator_names():
        raise RequestError(f"--name {name} is a registered method, whose rows these estimates would replace; choose another name, as in {name}-theirs")
    return name


def checked_supervision(supervision: str) -> str:
    """A level of supervision that the user states; empty stays empty.

    Raises:
        RequestError: there is no such level.
    """
    if supervision not in ("", UNSTATED, *get_args(Supervision)):
        raise RequestError(f"--supervision must be one of {', '.join(get_args(Supervision))}, got {supervision!r}; leave it out if you do not know")
    return supervision


def inspect_estimates(
    task: Task,
    name: str,
    estimates: Estimates,
    *,
    limit: int | None = None,
    partial: bool = False,
    allow_clipped: bool = False,
    advance: Advance = lambda done, total: None,
) -> SuppliedCell:
    """Read all estimates once and refuse them if anything is wrong; nothing is written.

    Args:
        limit: only the first so many mixtures.
        partial: mixtures may be missing.
        allow_clipped: sounds that stay at full scale are taken as they are.

    Raises:
        EstimatesError: one line that counts and names what is wrong.
        RequestError: a limit below 1.
        DataError: estimates or the task's data cannot be read.
    """
    if limit is not None and limit < 1:
        raise RequestError(f"--limit must be at least 1, got {limit}; leave it out to score every mixture")
    n_planned, spec = planned_examples(task.n_examples, limit), task.spec
    problems, where = Problems(), estimates if isinstance(estimates, str) else getattr(estimates, "as_posix", lambda: "the array")()
    supplied = open_estimates(estimates, spec, task.n_examples, problems)
    inspection = supplied.inspect(n_planned, problems, advance)
    if inspection.clipped and not allow_clipped:
        for clipped in _more_than_the_truth(inspection, task.mixture_set()):
            problems.add(CLIPPED, clipped)
    if partial:
        problems.forgive(MISSING)
    _advise(problems, spec, inspection, n_planned, named=isinstance(estimates, str | os.PathLike) and Path(estimates).is_dir())
    problems.check(where)
    if not len(inspection.examples):
        raise EstimatesError(f"{where} has a complete estimate of none of the {n_planned:,} mixtures of task {spec.name} that were asked for")
    warning = range_warning(str(where), spec.domain, inspection.largest, "holds")
    return SuppliedCell(task, name, n_planned, supplied, inspection, (warning,) if warning else ())


def _advise(problems: Problems, spec: TaskSpec, inspection: Inspection, n_planned: int, *, named: bool) -> None:
    """How files of a folder (``named``) are to be named in this task, and that the first mixtures can be scored where just those are there."""
    ending = {"image": "png", "audio": "wav"}.get(spec.domain)
    if ending is not None and named:
        *others, last = slots_by_name(spec)
        how = f"name files MIXTURE_SOURCE.{ending} or MIXTURE/SOURCE.{ending}, where SOURCE is {', '.join(others)} or {last}, as in 000012_1.{ending}"
        for kind in (EXTRA, MISNAMED):
            problems.advise(kind, how)
    there = len(inspection.examples)
    if 0 < there < n_planned and int(inspection.examples[-1]) == there - 1:
        problems.advise(MISSING, f"add them, or score the first {there:,} mixtures with --limit {there}, or what is there with --partial")


def _more_than_the_truth(inspection: Inspection, mixture_set: MixtureSet) -> Iterator[str]:
    """Names of clipped sounds of mixtures none of whose true sources is clipped itself: those of loud recordings are."""
    true: dict[int, bool] = {}
    for example, _, name in inspection.clipped:
        if example not in true:
            true[example] = any(is_clipped(source.numpy(), edge) for source in mixture_set.sources([example])[0] for edge in (1.0, 32_767 / 32_768))
        if not true[example]:
            yield name


def supplied_record(cell: SuppliedCell, suite: Suite, path: str, limit: int | None, command: str, there: RunRecord | None) -> RunRecord:
    """The contents of ``run.json`` for these estimates.

    Args:
        path: of the suite's file, if it was asked for by that.
        there: what the folder's ``run.json`` holds already: its seed, budget and device decide nothing here and are left as they are.
    """
    facts, created = environment("cpu"), datetime.now(UTC).isoformat(timespec="seconds")
    task = cell.task
    record = RunRecord(
        format=FORMAT,
        sepbench_version=sepbench.__version__,
        command=command,
        created=created,
        suite=SuiteRecord(name=suite.name, version=suite.version, path=path),
        tasks={
            task.spec.name: TaskRecord(
                digest=task.digest,
                pairs_sha256=task.pairs_sha256,
                mixtures_sha256=task.mixtures_sha256,
                n_examples=task.n_examples,
                n_planned=cell.n_planned,
            )
        },
        methods={cell.name: MethodRecord(version="", title=cell.name, supervision=UNSTATED, source=SUPPLIED)},
        grid={task.spec.name: [cell.name]},
        metrics=list(suite.metrics),
        seed=0,
        budget="paper",
        device="cpu",
        limit=limit,
        shard_size=None,
        timing_group=timing_group("cpu"),
        environment=facts,
        sessions=[SessionRecord(command=command, created=created, git_sha=commit(facts))],
    )
    if there is None:
        return record
    return record.model_copy(update={key: getattr(there, key) for key in ("seed", "fit_seed", "budget", "device", "shard_size", "timing_group")})


def check_same(cell: SuppliedCell, methods: Mapping[str, MethodRecord], old: CellRecord | None) -> None:
    """Refuse a name that means something else in this run.

    Args:
        methods: of the run.
        old: the record of this task under this name, if there is one.

    Raises:
        EstimatesError: a method that separated, or other estimates.
    """
    if cell.name in methods and methods[cell.name].source != SUPPLIED:
        raise EstimatesError(f"{cell.name} is a method of this run, which separated by itself; choose another --name or another --out")
    mine = cell.inspection.sha256
    if old is not None and old.estimates_sha256 not in ("", mine):
        both = f"sha256 {old.estimates_sha256[:12]}... there, {mine[:12]}... here"
        raise EstimatesError(f"the run holds other estimates of {cell.name} on {cell.task.spec.name} ({both}); choose another --name or another --out")


def score_supplied(
    cell: SuppliedCell,
    sink: Sink,
    metrics: Sequence[str],
    said: Said,
    *,
    keep_estimates: bool = True,
    device: str = "cpu",
    advance: Advance = lambda done, total: None,
) -> CellRecord:
    """Score estimates shard by shard; what the sink holds already is not done again.

    Mixtures without an estimate get rows with the error ``NOT_THERE``, so that the cell is never whole and never ranked.

    Args:
        said: what the cell's record says besides; an empty supervision is what was said before, or ``UNSTATED``.
        device: where features for metrics of sets are extracted.

    Raises:
        SepbenchError: data cannot be read, results cannot be written, or the files have changed since they were inspected.
    """
    spec, name = cell.task.spec, cell.name
    old = sink.read_cell(spec.name, name)
    whole = _cell(cell, said.supervision or (old.supervision if old is not None else "") or UNSTATED)
    record = begun(whole, old)
    record.estimates_sha256, record.command, record.git_sha = cell.inspection.sha256, said.command, said.git_sha
    record.samples = spec.posterior_draws or 1
    sink.write_cell(spec.name, name, record)
    lacking = missing(whole, sink.find(spec.name, name, metrics), retry_failed=False)
    size = max(1, min(_MAX_SHARD, _SHARD_VALUES // (math.prod(spec.source_shape) * spec.n_sources * max(1, spec.posterior_draws))))
    shards = [*lacking.again, *lacking.unscored, *(piece for gap in lacking.gaps for piece in whole.pieces(gap, size))]
    mixture_set = cell.task.mixture_set()
    sets = prepare_sets(cell.task, metrics, device, sink) if shards else None
    done = cell.n_planned - sum(len(shard) for shard in shards)
    for shard in sorted(shards, key=lambda shard: shard.start):
        data = _estimates(cell, shard)
        sink.write_estimates(shard, data)
        assert sets is not None
        sink.write_scores(shard, score_shard(shard, data, mixture_set, cell.task, metrics, sets))
        done += len(shard)
        advance(done, cell.n_planned)
    found = sink.find(spec.name, name, metrics)
    finished(record, (item.totals for item in found if item.totals is not None))
    for item in found:
        if not keep_estimates and item.estimates and item.scored:
            sink.remove_estimates(item.shard)
    sink.write_cell(spec.name, name, record)
    return record


def _cell(cell: SuppliedCell, supervision: str) -> Cell:
    level = cast(Supervision, supervision)
    info = MethodInfo(cell.name, cell.name, "", frozenset({cell.task.spec.domain}), level, "", deterministic=True)
    return Cell(cell.task, cell.name, info, {}, level, Support(True), cell.n_planned, batch=1, unit=1)


def _estimates(cell: SuppliedCell, shard: Shard) -> ShardEstimates:
    """A shard as separating would have left it: NaN and an error where there is no estimate, and no seconds."""
    spec = cell.task.spec
    first, last = np.searchsorted(cell.inspection.examples, [shard.start, shard.stop])
    there = cell.inspection.examples[first:last].tolist()
    draws = (spec.posterior_draws,) if spec.posterior_draws else ()
    values = torch.full((len(shard), *draws, spec.n_sources, *spec.source_shape), math.nan)
    if there:
        values[torch.tensor(there) - shard.start] = cell.estimates.load(there)
    absent = set(range(shard.start, shard.stop)).difference(there)
    return ShardEstimates(values, torch.full((len(shard),), math.nan, dtype=torch.float64), dict.fromkeys(sorted(absent), NOT_THERE))
