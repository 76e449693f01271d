"""A run's folder as pictures need it: finished cells, values of the ranking metric, estimates of single mixtures. Reads only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from sepbench.errors import SepbenchError
from sepbench.metrics.catalogue import get_metric
from sepbench.metrics.kinds import Metric
from sepbench.registry import nearest
from sepbench.results.score_files import read_values
from sepbench.results.store import RunStore
from sepbench.results.values import Values
from sepbench.run.plan import Shard
from sepbench.run.records import CellRecord, RunRecord
from sepbench.run.supplied import SUPPLIED
from sepbench.suites.loader import recorded_suite
from sepbench.suites.model import Suite, Task


@dataclass
class OpenedRun:
    """One run, open for reading.

    Attributes:
        store: its folder.
        record: ``run.json``.
        suite: the suite in the version that the run was made on.
        warn: told in one line about methods that are left out.
    """

    store: RunStore
    record: RunRecord
    suite: Suite
    warn: Callable[[str], None]

    @classmethod
    def open(cls, path: Path, warn: Callable[[str], None] = lambda text: None) -> OpenedRun:
        """Open a run's folder.

        Raises:
            SepbenchError: it is not one, or its suite is not installed in that version.
        """
        if not path.exists():
            raise SepbenchError(f"there is no {path}; name the folder of a run, as `sepbench run --out` made it")
        store = RunStore.open(path, warn)
        record = store.read_run()
        suite = recorded_suite(record.suite.name, record.suite.path)
        if suite.version != record.suite.version:
            made = record.suite.version
            raise SepbenchError(f"{path} is a run of {suite.name} version {made}, version {suite.version} is installed; run the suite again")
        return cls(store, record, suite, warn)

    @property
    def metric(self) -> Metric:
        """The metric that ranks, or the first that the run was scored by if that one is not among them."""
        names = self.record.metrics
        return get_metric(self.suite.ranking_metric if self.suite.ranking_metric in names else names[0])

    @cached_property
    def _values(self) -> Values:
        return Values.of_run(self.store)

    def values(self, task: str, method: str) -> dict[int, float]:
        """Example -> mean of the ranking metric over its scored sources, NaN where the example failed."""
        found = self._values.of(task, method, self.metric.info.name)
        return dict(zip(found.examples.tolist(), found.values.tolist(), strict=True))

    def source_values(self, task: str, method: str, examples: Sequence[int]) -> dict[tuple[int, int], float]:
        """(example, source) -> value as it was scored; no entry for sources that are not."""
        return read_values(self.store.score_files(task, method), self.metric.info.name, examples)

    def n_planned(self, task: str) -> int:
        return self.record.tasks[task].n_planned

    def tasks(self, wanted: Sequence[str] = ()) -> list[Task]:
        """The run's tasks, or those that are named.

        Raises:
            SepbenchError: not a task of this run, or its mixtures have changed since.
        """
        known = list(self.record.tasks)
        for name in wanted:
            if name not in known:
                raise nearest(name, known, f"task of {self.store.path}")
        return [self._task(name) for name in (wanted or known)]

    def separates(self, method: str) -> bool:
        """Whether a method of the run can compute again; False for estimates that were supplied."""
        return self.record.methods[method].source != SUPPLIED

    def _task(self, name: str) -> Task:
        facts, task = self.record.tasks[name], self.suite.tasks.get(name)
        if task is None or (task.pairs_sha256, task.mixtures_sha256) != (facts.pairs_sha256, facts.mixtures_sha256):
            raise SepbenchError(f"the mixtures of task {name!r} are not those that {self.store.path} was made on; run the suite again")
        return task

    def methods(self, task: str, wanted: Sequence[str] = ()) -> list[str]:
        """The methods that finished a task, best mean first. Without ``wanted`` the others are left out, with a warning.

        Raises:
            SepbenchError: a named method is not in the run or did not finish, or none did.
        """
        known = self.record.methods_on(task)
        for name in wanted:
            if name not in known:
                raise nearest(name, known, f"method of {self.store.path}")
        reasons = {name: self._unusable(task, name) for name in dict.fromkeys(wanted or known)}
        troubles = [reason for reason in reasons.values() if reason]
        if troubles and (wanted or len(troubles) == len(reasons)):
            raise SepbenchError(troubles[0])
        for trouble in troubles:
            self.warn(f"left out: {trouble}")
        return sorted((name for name, reason in reasons.items() if not reason), key=lambda name: self._loss(task, name))

    def _loss(self, task: str, method: str) -> float:
        finite = [value for value in self.values(task, method).values() if math.isfinite(value)]
        mean = sum(finite) / len(finite)
        return -mean if self.metric.info.higher_is_better else mean

    def _unusable(self, task: str, method: str) -> str:
        """Why a cell cannot be shown and what to do, in one line; empty if it can."""
        cell, values = self.store.read_cell(task, method) or CellRecord(), self.values(task, method)
        if cell.state == "unsupported":
            return f"{method} does not take task {task} ({cell.note}); choose other methods with --method"
        planned = cell.n_planned or self.n_planned(task)
        if len(values) < planned:
            done = f"{len(values):,} of {planned:,} mixtures"
            return f"{method} on {task} is not finished ({done}); finish the run with its own command: {cell.command or self.record.command}"
        if not any(math.isfinite(value) for value in values.values()):
            return f"{method} failed on {task} ({cell.error or 'no finite value'}); mend it and run again"
        return ""

    def estimates(self, task: Task, method: str, examples: Sequence[int]) -> torch.Tensor:
        """Kept estimates ``(n, K, ...)`` float32 of these examples, in the method's own order of sources; NaN where an example failed.

        Raises:
            SepbenchError: they were not kept, or an earlier version kept them.
        """
        self.store.refuse_older(self.record)
        shards = self.store.estimates_of(task.spec.name, method)
        read: dict[Shard, torch.Tensor] = {}
        rows = []
        for example in examples:
            shard = next((shard for shard in shards if shard.start <= example < shard.stop), None)
            if shard is None:
                raise _not_kept(task.spec.name, method)
            if shard not in read:
                read[shard] = self._kept(shard)
            rows.append(read[shard][example - shard.start])
        return torch.stack(rows)

    def _kept(self, shard: Shard) -> torch.Tensor:
        if self.store.is_damaged(shard):
            raise SepbenchError(f"the estimates of {shard.method} on {shard.task} are damaged; run the run's own command again, which makes them anew")
        return self.store.read_estimates(shard).estimates


def _not_kept(task: str, method: str) -> SepbenchError:
    return SepbenchError(
        f"the estimates of {method} on {task} were not kept, and pictures of them need them: run again without "
        "--no-keep-estimates in another --out, or draw the histogram alone with --figures histogram"
    )
