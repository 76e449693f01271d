"""``sepbench cache``: fits that are kept, so that a method trains once."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
_CLASSES = 12
"""Characters that the names of classes have at least in a line."""
_COLUMNS = ("method", "sources", "budget", "seed", "trained in", "size", "folder")


@app.command("list")
def list_fits(method: Annotated[str, typer.Argument(help="Only the fits of this method.")] = "") -> None:
    """Show the kept fits: method, what they were trained for, how long that took, size and folder (in a wide terminal)."""
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    from sepbench.report.fitting import print_table
    from sepbench.report.progress import in_words
    from sepbench.run.fit_cache import entries, fits_root

    console = Console()
    table = Table(title=Text(f"Fits in {fits_root()}", style="table.title"), title_justify="left")
    for column in _COLUMNS:
        justify: Literal["left", "right"] = "right" if column in ("size", "seed") else "left"
        wraps = column == "sources"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=not wraps, min_width=_CLASSES if wraps else None)
    found = entries(_kept_under(method))
    for entry in found:
        task = entry.key.get("task", {})
        shape = " x ".join(map(str, task.get("source_shape", ())))  # of a fit that does not depend on classes
        classes = ", ".join(dict.fromkeys(map(str, task.get("source_classes", ())))) or shape
        trained = "not finished" if entry.facts is None else in_words(entry.facts.seconds)
        size = decimal(round(entry.megabytes * 1e6))
        cells = (entry.method, classes, entry.key.get("budget", ""), entry.key.get("seed", ""), trained, size, entry.folder.name)
        table.add_row(*(Text(str(cell)) for cell in cells))
    if not found:
        console.print(Text(f"no fits are kept in {fits_root()}"), soft_wrap=True)
        return
    print_table(table, console, spare=("folder", "seed", "budget"))
    total = decimal(round(sum(entry.megabytes for entry in found) * 1e6))
    console.print(Text(f"{_fits(len(found))}, {total}; 'sepbench cache clear METHOD' removes those of a method"), soft_wrap=True)


@app.command("clear")
def clear_fits(method: Annotated[str, typer.Argument(help="Only the fits of this method.")] = "") -> None:
    """Remove kept fits; the next run trains again."""
    from sepbench.run.fit_cache import clear

    typer.echo(f"{_fits(clear(_kept_under(method)))} removed")


def _fits(count: int) -> str:
    return f"{count:,} fit{'' if count == 1 else 's'}"


def _kept_under(method: str) -> str:
    """The name that a method's fits are kept under: its own, unless it shares them (``FitScope``)."""
    from sepbench.errors import SepbenchError
    from sepbench.registry import separator_class
    from sepbench.settings import FitScope

    if not method:
        return ""
    try:
        scope: FitScope | None = getattr(separator_class(method), "fit_scope", None)
    except SepbenchError:  # fits of a method that is not installed any more
        return method
    return (scope.name if scope is not None else "") or method
