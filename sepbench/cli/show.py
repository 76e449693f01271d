"""``sepbench show``: the table of a run, a leaderboard CSV or a suite."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Format(StrEnum):
    """How to show."""

    table = "table"
    csv = "csv"
    markdown = "markdown"


def show(
    target: Annotated[str, typer.Argument(help="A run's folder, a leaderboard CSV, or a suite (its committed leaderboard).", metavar="TARGET")],
    task: Annotated[str, typer.Option(help="Only these tasks, separated by commas.")] = "",
    metric: Annotated[str, typer.Option(help="Only these metrics, separated by commas; the first one ranks.")] = "",
    form: Annotated[Format, typer.Option("--format", help="table for people, csv for programs, markdown for pages.")] = Format.table,
) -> None:
    """Show results from best to worst, with the papers' numbers beside them. Reads only."""
    from rich.console import Console

    from sepbench.cli.run import names
    from sepbench.errors import SepbenchError
    from sepbench.registry import nearest
    from sepbench.report.table import markdown_leaderboard, render_leaderboard
    from sepbench.results.leaderboard_file import format_leaderboard
    from sepbench.results.target import open_results

    results = open_results(target, suites=True)
    frame = results.frame
    for column, wanted in (("task", names(task)), ("metric", names(metric))):
        known = list(dict.fromkeys(frame[column]))
        for name in wanted:
            if name not in known:
                raise nearest(name, known, f"{column} of {target}")
        if wanted:
            frame = frame[frame[column].isin(wanted)]
    if not len(frame):
        raise SepbenchError(f"{target} has no rows to show")
    metrics = names(metric)
    if form is Format.csv:
        typer.echo(format_leaderboard(frame), nl=False)
    elif form is Format.markdown:
        typer.echo(markdown_leaderboard(frame, results.suite, metrics=metrics, cells=results.cells, bounds=results.bounds, evidence=results.evidence), nl=False)
    else:
        render_leaderboard(frame, results.suite, Console(), metrics=metrics, cells=results.cells, bounds=results.bounds, evidence=results.evidence)
