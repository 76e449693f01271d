"""Runs plans with a backend, watches what it says, and calls the command as a terminal does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sepbench.results.store import RunStore
from sepbench.run.backends import Backend
from sepbench.run.execute import Outcome, execute
from sepbench.run.plan import Cell, make_plan
from sepbench.run.provenance import run_record
from sepbench.run.request import RunRequest
from sepbench.run.sink import Silent
from sepbench.suites.loader import load_suite


class Watched(Silent):
    """Progress that keeps what it is told; ``on_advance`` is called whenever mixtures are done."""

    def __init__(self, on_advance: Callable[[], None] = lambda: None) -> None:
        self.warnings: list[str] = []
        self.mixtures = 0.0
        self._on_advance = on_advance

    def begin(self, cell: Cell, done: int) -> None:
        self.mixtures += done

    def advance(self, cell: Cell, mixtures: float) -> None:
        self.mixtures += mixtures
        self._on_advance()

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def separate(folder: Path, backend: Backend, *methods: str, progress: Watched | None = None, **options: object) -> tuple[Outcome, RunStore, Watched]:
    """Run methods on digits-pairs, on the CPU, into a folder."""
    request = RunRequest("digits-pairs", methods, device="cpu", **options)  # type: ignore[arg-type]
    plan = make_plan(request, load_suite("digits-pairs"))
    record, watched = run_record(plan, "test"), progress or Watched()
    store = RunStore.create(folder, record)
    with store.session(record):
        return execute(plan, store, watched, backend), store, watched


def sepbench(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """The command, in a process group of its own, as a terminal starts it."""
    environment = {**os.environ, "COLUMNS": "200"}
    command = [sys.executable, "-m", "sepbench.cli.main", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment, start_new_session=True)
