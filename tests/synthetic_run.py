"""A run with made-up scores on a real suite, for tests of what comes after scoring: leaderboard, tables, comparison, gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from sepbench.results.columns import SCORE_COLUMNS
from sepbench.results.leaderboard import build_leaderboard
from sepbench.results.score_files import Rows
from sepbench.results.store import RunStore
from sepbench.results.values import CellValues, Values, reduce_cell
from sepbench.run.plan import Shard
from sepbench.run.provenance import FORMAT
from sepbench.run.records import CellRecord, RunRecord
from sepbench.run.sink import ShardScores
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite

METRICS = ("psnr", "ssim", "mixture_error")
PER_MIXTURE = ("mixture_error",)
SPREAD = {"psnr": 2.0, "ssim": 0.1, "mixture_error": 0.01}
CENTRE = {"psnr": 0.0, "ssim": 0.5, "mixture_error": 0.05}


class SyntheticRun:
    """Scores of ``methods`` (name -> mean PSNR) on the first ``n`` mixtures of ``tasks``, two sources each.

    ``scores``, ``record`` and ``cells`` may be changed before ``frame`` or ``save`` is called. All methods share the examples' difficulty, so
    that paired intervals are narrower than those of the means.
    """

    def __init__(
        self,
        methods: Mapping[str, float] | None = None,
        tasks: Sequence[str] = ("class-split",),
        n: int = 40,
        suite: str = "digits-pairs",
        metrics: Sequence[str] = METRICS,
        key: int = 1,
    ) -> None:
        self.suite: Suite = load_suite(suite)
        methods = {"average": 14.0, "nmf": 16.0} if methods is None else methods
        self.record = self._record(list(methods), tasks, n, metrics)
        self.cells: dict[tuple[str, str], dict[str, Any]] = {(task, method): self._cell(n) for task in tasks for method in methods}
        noise = np.random.Generator(np.random.Philox(key))
        parts = []
        for task in tasks:
            difficulty = noise.normal(size=n)
            for metric in metrics:
                for method, level in methods.items():
                    parts.append(self._rows(task, method, metric, level, difficulty, noise))
        self.scores = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(SCORE_COLUMNS))

    def _record(self, methods: Sequence[str], tasks: Sequence[str], n: int, metrics: Sequence[str]) -> dict[str, Any]:
        frozen = {name: self.suite.tasks[name] for name in tasks}
        return {
            "format": 1,
            "sepbench_version": "0.1.0",
            "command": f"sepbench run --suite {self.suite.name} --limit {n}",
            "created": "2026-01-01T00:00:00+00:00",
            "suite": {"name": self.suite.name, "version": self.suite.version},
            "tasks": {
                name: {
                    "digest": task.digest,
                    "pairs_sha256": task.pairs_sha256,
                    "mixtures_sha256": task.mixtures_sha256,
                    "n_examples": task.n_examples,
                    "n_planned": n,
                }
                for name, task in frozen.items()
            },
            "methods": {name: self._method(name) for name in methods},
            "metrics": list(metrics),
            "seed": 0,
            "budget": "paper",
            "device": "cpu",
            "limit": n,
            "shard_size": 500,
            "timing_group": "cpu:Test CPU:2threads:float32",
            "environment": {"packages": {"torch": "2"}, "git_sha": "0123abc", "git_dirty": False},
        }

    @staticmethod
    def _method(name: str) -> dict[str, Any]:
        bound = {"average": "lower", "mixture": "lower", "ideal-mask": "upper"}.get(name, "")
        return {
            "version": "1",
            "title": name.title(),
            "supervision": "bound" if bound == "upper" else "blind",
            "bound": bound,
            "deterministic": True,
            "settings": {},
            "source": f"somewhere:{name}",
            "source_sha256": "",
        }

    @staticmethod
    def _cell(n: int) -> dict[str, Any]:
        return {
            "state": "done",
            "supervision": "blind",
            "note": "",
            "error": "",
            "fit_seconds": 0.5,
            "separate_seconds": 0.25 * n,
            "n_separated": n,
            "peak_mb": 300.5,
            "samples": 1,
        }

    def _rows(
        self, task: str, method: str, metric: str, level: float, difficulty: np.ndarray[Any, np.dtype[np.float64]], noise: np.random.Generator
    ) -> pd.DataFrame:
        sources = 1 if metric in PER_MIXTURE else 2
        sign = -1.0 if metric == "mixture_error" else 1.0
        centre = level if metric == "psnr" else CENTRE[metric] + sign * 0.01 * level
        values = centre + SPREAD[metric] * (difficulty[:, None] + 0.2 * noise.normal(size=(len(difficulty), sources)))
        return pd.DataFrame(
            {
                "suite": self.suite.name,
                "task": task,
                "method": method,
                "example": np.arange(len(difficulty)).repeat(sources),
                "source": np.tile(np.arange(sources), len(difficulty)) if sources > 1 else np.full(len(difficulty), -1),
                "metric": metric,
                "value": values.ravel(),
                "seconds": 0.25,
                "error": "",
            }
        )

    def where(self, method: str, metric: str = "", example: int = -1) -> pd.Series[bool]:
        """Rows of the scores, for changing them."""
        chosen = self.scores["method"] == method
        if metric:
            chosen &= self.scores["metric"] == metric
        if example >= 0:
            chosen &= self.scores["example"] == example
        return chosen

    def shift(self, method: str, metric: str, by: float) -> SyntheticRun:
        self.scores.loc[self.where(method, metric), "value"] += by
        return self

    def fail(self, method: str, example: int, error: str = "ValueError: broken") -> SyntheticRun:
        """As the runner records it: one row per metric with the error, no source."""
        gone = self.where(method, example=example)
        task = self.scores.loc[gone, "task"].iloc[0]
        rows = [(self.suite.name, task, method, example, -1, metric, np.nan, np.nan, error) for metric in dict.fromkeys(self.scores.loc[gone, "metric"])]
        self.scores = pd.concat([self.scores[~gone], pd.DataFrame(rows, columns=list(SCORE_COLUMNS))], ignore_index=True)
        self.cells[task, method] |= {"state": "partial", "error": error}
        return self

    def drop_method(self, method: str) -> SyntheticRun:
        self.scores = self.scores[~self.where(method)]
        del self.record["methods"][method]
        self.cells = {key: cell for key, cell in self.cells.items() if key[1] != method}
        return self

    def values(self) -> Values:
        """The values of the scores as they are now."""
        scores = self.scores

        def read(task: str, method: str) -> CellValues:
            rows = scores[(scores["task"] == task) & (scores["method"] == method)]
            return reduce_cell(lambda: [Rows.of(pa.Table.from_pandas(rows, preserve_index=False))] if len(rows) else [], f"{task}, {method}")

        return Values(read)

    def frame(self) -> pd.DataFrame:
        return build_leaderboard(self.values(), self.run_record(), self.cell_records(), self.suite)

    def run_record(self) -> RunRecord:
        return RunRecord.model_validate(self.record | {"format": FORMAT})

    def cell_records(self) -> dict[tuple[str, str], CellRecord]:
        return {key: CellRecord.model_validate(cell) for key, cell in self.cells.items()}

    def save(self, folder: Path) -> str:
        """Write it as a run's folder, and give its name as a user would."""
        record = self.run_record()
        store = RunStore.create(folder, record)
        with store.session(record):
            for (task, method), cell in self.cell_records().items():
                store.write_cell(task, method, cell)
                rows = self.scores[(self.scores["task"] == task) & (self.scores["method"] == method)]
                if len(rows):
                    store.write_scores(Shard(task, method, 0, self.record["tasks"][task]["n_planned"]), self.as_shard(rows))
        return str(folder)

    def as_shard(self, rows: pd.DataFrame) -> ShardScores:
        metrics, errors = list(dict.fromkeys(rows["metric"])), ["", *(text for text in dict.fromkeys(rows["error"]) if text)]
        return ShardScores(
            example=rows["example"].to_numpy(np.int64),
            source=rows["source"].to_numpy(np.int64),
            metric=rows["metric"].map(metrics.index).to_numpy(np.int32),
            value=rows["value"].to_numpy(np.float64),
            seconds=rows["seconds"].to_numpy(np.float64),
            error=rows["error"].map(errors.index).to_numpy(np.int32),
            metrics=metrics,
            errors=errors,
            fit_failed=False,
            n_separated=rows["example"].nunique(),
            n_failed=0,
            separate_seconds=1.0,
        )
