"""Runs plans in a folder, and compares what they wrote."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from sepbench.results.store import RunStore
from sepbench.run.execute import Outcome, execute
from sepbench.run.plan import Plan
from sepbench.run.provenance import run_record

KEYS = ["task", "method", "metric", "example", "source"]


def sorted_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows in one order, texts as plain texts."""
    return frame.astype(dict.fromkeys(("suite", "task", "method", "metric", "error"), str)).sort_values(KEYS, ignore_index=True)


def bits(frame: pd.DataFrame) -> bytes:
    """Everything but the seconds, bit for bit."""
    ordered = sorted_scores(frame)
    return ordered["value"].to_numpy().tobytes() + ordered.drop(columns=["value", "seconds"]).to_csv().encode()


class Runner:
    """Runs plans in one folder; ``warnings`` collects what the store says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []

    def __call__(self, plan: Plan) -> tuple[Outcome, RunStore]:
        record = run_record(plan, "test")
        store = RunStore.create(self.folder, record, self.warnings.append)
        with store.session(record):
            return execute(plan, store), store
