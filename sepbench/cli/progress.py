"""Draws a run's progress on stderr: one bar over the mixtures of all cells, one line for every cell that has ended."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from sepbench.run.plan import Cell, Plan
    from sepbench.run.sink import CellRecord

_MARKS = {"done": "[green]done[/green]", "partial": "[yellow]partial[/yellow]", "failed": "[red]failed[/red]", "unsupported": "[dim]unsupported[/dim]"}


class RunProgress:
    """A ``sepbench.run.sink.Progress`` for a terminal; a context manager. Without a terminal only the lines are printed."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self._row = self._bar.add_task("", total=None)
        self._name = ""
        self.finished = 0

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def start(self, plan: Plan) -> None:
        self._bar.update(self._row, total=sum(cell.n_planned for cell in plan.cells))

    def begin(self, cell: Cell) -> None:
        self._name = f"{cell.task.spec.name} / {cell.method}"
        self._bar.update(self._row, description=self._name)

    def stage(self, text: str) -> None:
        self._bar.update(self._row, description=f"{self._name}: {escape(text)}")

    def advance(self, mixtures: int) -> None:
        self.finished += mixtures
        self._bar.advance(self._row, mixtures)

    def warn(self, text: str) -> None:
        self.console.print(f"[yellow]warning:[/yellow] {escape(text)}", soft_wrap=True)

    def end(self, cell: Cell, record: CellRecord) -> None:
        state = record["state"]
        if state == "unsupported":
            self._bar.advance(self._row, cell.n_planned)
        self.console.print(f"{_MARKS[state]} {escape(self._name + _remark(record))}", soft_wrap=True, highlight=False)


def _remark(record: CellRecord) -> str:
    if record["state"] == "unsupported":
        return f": {record['note']}"
    if record["state"] == "failed":
        return f": {record['error']}"
    seconds = record["separate_seconds"] / max(1, record["n_separated"])
    text = f": {record['n_separated']:,} mixtures, {seconds:.2g} s each"
    return text + (f"; {record['n_failed']:,} failed, the first with {record['error']}" if record["n_failed"] else "")
