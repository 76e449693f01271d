"""``sepbench show``: the table of a run, a leaderboard CSV or a suite."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd

    from sepbench.results.target import Results


class Format(StrEnum):
    """How to show."""

    table = "table"
    csv = "csv"
    markdown = "markdown"


def show(
    target: Annotated[str, typer.Argument(help="A run's folder, a leaderboard CSV, or a suite (its committed leaderboard).", metavar="TARGET")],
    task: Annotated[str, typer.Option(help="Only these tasks, separated by commas.")] = "",
    metric: Annotated[str, typer.Option(help="Only these metrics, separated by commas; the first one ranks.")] = "",
    stats: Annotated[bool, typer.Option("--stats", help="Medians, interquartile means and probabilities of improvement, with intervals.")] = False,
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
    if stats:
        _show_stats(results, frame, metrics or (results.ranking_metric,))
        return
    if form is Format.csv:
        typer.echo(format_leaderboard(frame), nl=False)
    elif form is Format.markdown:
        typer.echo(markdown_leaderboard(frame, results.suite, metrics=metrics, cells=results.cells, bounds=results.bounds, evidence=results.evidence), nl=False)
    else:
        render_leaderboard(frame, results.suite, Console(), metrics=metrics, cells=results.cells, bounds=results.bounds, evidence=results.evidence)


def _show_stats(results: Results, frame: pd.DataFrame, metrics: Sequence[str]) -> None:
    from rich.console import Console

    from sepbench.errors import SepbenchError
    from sepbench.metrics.catalogue import get_metric
    from sepbench.report.robust_table import render_robust
    from sepbench.results.robust import robust_rows

    for name in metrics:
        if get_metric(name).info.per == "group":
            raise SepbenchError(f"{name} is a value of the whole set: it has no median or interquartile mean over mixtures; leave it out of --metric")
    evidence, console = results.evidence, Console()
    if evidence is None:
        raise SepbenchError(f"{results.label} has no per-example scores, which --stats needs; name the folder of a run, or a leaderboard with scores beside it")
    for task in dict.fromkeys(frame["task"]):
        for metric in metrics:
            rows = frame[(frame["task"] == task) & (frame["metric"] == metric)]
            if not len(rows):
                continue
            bounds = [*rows.loc[rows["supervision"] == "bound", "method"], *(name for name, bound in (results.bounds or {}).items() if bound)]
            found = robust_rows(evidence, task, metric, list(rows["method"]), bool(rows["higher_is_better"].iloc[0]), bounds)
            if found:
                render_robust(f"{rows['suite'].iloc[0]}: {task}", metric, str(rows["unit"].iloc[0]), found, console)
                console.print()
