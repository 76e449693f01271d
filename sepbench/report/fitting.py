"""Tables on terminals of any width: where the columns do not fit, each row becomes a paragraph. Words and paths are never broken."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table


def print_table(table: Table, console: Console) -> None:
    """Print a table, or its rows as paragraphs where its longest words do not fit side by side."""
    unbounded = console.options.update(width=10_000)
    if console.measure(table, options=unbounded).minimum <= console.width:
        console.print(table)
        return
    if table.title:
        print_words(_plain(table.title), console, style="bold")
    for indent, paragraph in _paragraphs(table):
        print_words(paragraph, console, indent=indent, style="" if indent else "bold")


def print_words(text: str, console: Console, *, indent: int = 0, style: str = "") -> None:
    """Print text with line ends between words only; a word that is longer than a line, such as a path, goes on over its end."""
    from rich.text import Text

    first, next_lines = " " * indent, " " * (indent and indent + 2)
    lines = textwrap.wrap(text, console.width, initial_indent=first, subsequent_indent=next_lines, break_long_words=False, break_on_hyphens=False)
    for line in lines or [""]:
        console.print(Text(line, style=style), soft_wrap=True)


def _paragraphs(table: Table) -> Iterator[tuple[int, str]]:
    """Indent and text: ``name`` once for rows that share it, below it ``head: cell, head: cell``. Without heads ``name: cell``."""
    heads, before = [_plain(column.header) for column in table.columns], ""
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        name, *others = map(_plain, cells)
        if not any(heads):
            yield 0, f"{name}: {' '.join(others)}"
            continue
        if name not in ("", before):
            yield 0, name
            before = name
        parts = [f"{head}: {cell}" for head, cell in zip(heads[1:], others, strict=True) if cell]
        if parts:
            yield 2, ", ".join(parts)


def _plain(cell: RenderableType) -> str:
    from rich.text import Text

    text = cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain
    return ", ".join(" ".join(line.split()) for line in text.splitlines())
