"""Tables on terminals of any width: where the columns do not fit, those that matter least go, or each row becomes a paragraph.

Words and paths are never broken.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table


def print_table(table: Table, console: Console, spare: Sequence[str] = ()) -> None:
    """Print a table, or its rows as paragraphs where its longest words do not fit side by side.

    Args:
        table: with a head for every column that has a name in ``spare``.
        console: where.
        spare: heads of columns that may be left out, the first one first, where the table fits without them. Paragraphs have them all.
    """
    for count in range(len(spare) + 1):
        fewer = _without(table, spare[:count])
        if _fits(fewer, console):
            console.print(fewer)
            return
    if table.title:
        print_words(_plain(table.title), console, style="bold")
    for indent, paragraph in _paragraphs(table):
        print_words(paragraph, console, indent=indent, style="" if indent else "bold")


def _fits(table: Table, console: Console) -> bool:
    unbounded = console.options.update(width=10_000)
    return console.measure(table, options=unbounded).minimum <= console.width


def _without(table: Table, heads: Sequence[str]) -> Table:
    """The table without the columns of these heads; a column that may not wrap is as wide as its longest line, which rich does not count on."""
    from copy import copy

    from rich.cells import cell_len

    fewer = copy(table)
    fewer.columns = [copy(column) for column in table.columns if _plain(column.header) not in heads]
    for index, column in enumerate(fewer.columns):
        column._index = index  # rich pads cells by their column's place
        if column.no_wrap:
            lines = [line for cell in (column.header, *column.cells) for line in _lines(cell)]
            column.min_width = max(column.min_width or 0, *map(cell_len, lines), 0)
    return fewer


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
    return ", ".join(" ".join(line.split()) for line in _lines(cell))


def _lines(cell: RenderableType) -> list[str]:
    from rich.text import Text

    text = cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain
    return text.splitlines()
