"""One cell after the other in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sepbench.run.cell import run_cell
from sepbench.run.plan import Cell, Plan
from sepbench.run.sink import CellRecord, Progress, Sink

if TYPE_CHECKING:
    from sepbench.data.mixtures import MixtureSet


class LocalBackend:
    """The default: cells in the plan's order, task by task, so that only one task's mixtures are open at a time."""

    def run(self, plan: Plan, sink: Sink, progress: Progress) -> list[tuple[Cell, CellRecord]]:
        results = []
        opened: tuple[str, MixtureSet] | None = None
        for cell in plan.cells:
            name = cell.task.spec.name
            if opened is None or opened[0] != name:
                opened = (name, cell.task.mixture_set())
            results.append((cell, run_cell(cell, plan, opened[1], sink, progress)))
        return results
