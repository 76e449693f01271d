"""Where cells are run. A backend takes a plan and a sink and returns when every cell has ended."""

from __future__ import annotations

from typing import Protocol

from sepbench.run.plan import Cell, Plan
from sepbench.run.sink import CellRecord, Progress, Sink


class Backend(Protocol):
    """Runs the cells of a plan; the results must not depend on which backend does it."""

    def run(self, plan: Plan, sink: Sink, progress: Progress) -> list[tuple[Cell, CellRecord]]:
        """Every cell with its final record, in the plan's order."""
        ...
