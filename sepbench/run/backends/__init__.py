"""Who does a run's shards: a backend takes a plan and a folder and returns when every cell has ended.

A backend is an entry point of the group ``sepbench.backends``: a class that is made with the number of workers. Whoever does the work, the numbers
are the same to the last bit, for a batch is cut the same way and every worker computes with the same number of threads.
"""

from __future__ import annotations

from typing import Protocol

from sepbench.run.plan import Cell, Plan
from sepbench.run.records import CellRecord
from sepbench.run.sink import Progress, Sink


class Backend(Protocol):
    """Runs the cells of a plan."""

    def __init__(self, workers: int | None = None) -> None:
        """``workers`` processes; None for as many as the backend thinks right.

        Raises:
            SepbenchError: so many cannot be had, or a package is missing.
        """
        ...

    @property
    def workers(self) -> int:
        """Processes that separate side by side."""
        ...

    def run(self, plan: Plan, sink: Sink, progress: Progress, command: str = "", git_sha: str = "") -> list[tuple[Cell, CellRecord]]:
        """Every cell with its final record, in the plan's order. ``command`` and ``git_sha`` of this session stand in the records.

        Raises:
            SepbenchError: data cannot be read, results cannot be written, or no worker can be started.
        """
        ...
