"""Draws a run's progress on stderr: one bar over the mixtures of all cells, one line for every cell that has ended."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Task as Row
from rich.text import Text

from sepbench.report.time_left import TimeLeft

if TYPE_CHECKING:
    from sepbench.run.plan import Cell, Plan
    from sepbench.run.records import CellRecord

_MARKS = {"done": "[green]done[/green]", "partial": "[yellow]partial[/yellow]", "failed": "[red]failed[/red]", "unsupported": "[dim]unsupported[/dim]"}


class _LeftColumn(ProgressColumn):
    """What ``TimeLeft`` says, as hours, minutes and seconds."""

    max_refresh = 0.5

    def __init__(self, time_left: TimeLeft) -> None:
        super().__init__()
        self._time_left = time_left

    def render(self, task: Row) -> Text:
        return Text(f"{spelled(self._time_left.seconds())} left", style="progress.remaining")


def spelled(seconds: float | None) -> str:
    """``1:02:03``, or ``-:--:--`` where it is not known."""
    if seconds is None:
        return "-:--:--"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


class RunProgress:
    """A ``sepbench.run.sink.Progress`` for a terminal; a context manager. Without a terminal only the lines are printed."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.time_left = TimeLeft()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), _LeftColumn(self.time_left))
        self._bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self._row = self._bar.add_task("", total=None)
        self._finished = 0.0
        self._kept: dict[tuple[str, str], int] = {}
        self._any_kept = self._worked = False

    @property
    def finished(self) -> int:
        """Mixtures that are separated, found done, or given up."""
        return round(self._finished)

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
        if kind is None and self._any_kept and not self._worked:
            self.console.print("nothing to do: all of it was there already", soft_wrap=True)

    def start(self, plan: Plan, workers: int) -> None:
        self.time_left.start({_key(cell): (cell.method, cell.n_planned if cell.support.ok else 0) for cell in plan.cells})
        self._bar.update(self._row, total=sum(cell.n_planned for cell in plan.cells))

    def begin(self, cell: Cell, done: int) -> None:
        self.time_left.begin(_key(cell), done)
        self._kept[_key(cell)] = done
        self._finished += done
        self._bar.update(self._row, description=_name(cell), advance=done)

    def stage(self, cell: Cell, text: str, fraction: float | None = None) -> None:
        self._kept.pop(_key(cell), None)  # something is done, if only scored
        self.time_left.stage(_key(cell), text, fraction)
        self._bar.update(self._row, description=f"{_name(cell)}: {escape(text)}")

    def advance(self, cell: Cell, mixtures: float) -> None:
        self._kept.pop(_key(cell), None)
        self.time_left.advance(_key(cell), mixtures)
        self._finished += mixtures
        self._bar.advance(self._row, mixtures)

    def warn(self, text: str) -> None:
        self.console.print(f"[yellow]warning:[/yellow] {escape(text)}", soft_wrap=True)

    def end(self, cell: Cell, record: CellRecord) -> None:
        self.time_left.end(_key(cell))
        kept = record.state in ("done", "partial") and self._kept.get(_key(cell), -1) >= cell.n_planned
        self._any_kept, self._worked = self._any_kept or kept, self._worked or not (kept or record.state == "unsupported")
        mark = "[dim]kept[/dim]" if kept else _MARKS[record.state]
        self.console.print(f"{mark} {escape(_name(cell) + _remark(record, kept))}", soft_wrap=True, highlight=False)


def _key(cell: Cell) -> tuple[str, str]:
    return cell.task.spec.name, cell.method


def _name(cell: Cell) -> str:
    return f"{cell.task.spec.name} / {cell.method}"


def _remark(record: CellRecord, kept: bool) -> str:
    """``kept``: an earlier session did it all; its seconds would read as if they were spent again."""
    if record.state == "unsupported":
        return f": {record.note}"
    if record.state == "failed":
        return f": {record.error}"
    text = f": {record.n_separated:,} mixtures" + ("" if kept else f", {in_seconds(record.separate_seconds / max(1, record.n_separated))} each")
    if not kept and record.fit_seconds is not None and record.fit_seconds >= 0.05:
        text += f", fitted in {in_words(record.fit_seconds)}" + (" (cached)" if record.fit_cached else "")
    return text + (f"; {record.n_failed:,} failed, the first with {record.error}" if record.n_failed else "")


def in_seconds(seconds: float) -> str:
    """Two digits, or all before the point."""
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:,.0f} s"


def in_words(seconds: float) -> str:
    """``41 s``, from two minutes on ``12 min``, from two hours on ``3 h 5 min``."""
    minutes = round(seconds / 60)
    if seconds < 120:
        return in_seconds(seconds)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60:,} h {minutes % 60} min"
