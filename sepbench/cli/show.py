"""``sepbench show``: the table of a run, a leaderboard CSV or a suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sepbench.cli import completion

if TYPE_CHECKING:
    import pandas as pd

    from sepbench.results.target import Results


class Format(StrEnum):
    """How to show."""

    table = "table"
    csv = "csv"
    markdown = "markdown"


def show(
    target: Annotated[
        str,
        typer.Argument(help="A run's folder, a leaderboard CSV, or a suite (its committed leaderboard).", metavar="TARGET", autocompletion=completion.suites),
    ],
    task: Annotated[str, typer.Option("--task", "--tasks", help="Only these tasks, separated by commas.", autocompletion=completion.tasks)] = "",
    method: Annotated[
        str,
        typer.Option("--method", "--methods", help="Only these methods, separated by commas; ranks stay those among all.", autocompletion=completion.methods),
    ] = "",
    metric: Annotated[
        str, typer.Option("--metric", "--metrics", help="Only these metrics, separated by commas; the first one ranks.", autocompletion=completion.metrics)
    ] = "",
    top: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N methods of each task; bounds do not count.")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Medians, interquartile means and probabilities of improvement, with intervals.")] = False,
    form: Annotated[Format, typer.Option("--format", help="table for people, csv for programs, markdown for pages.")] = Format.table,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, see docs/json.md.")] = False,
    pager: Annotated[bool, typer.Option(help="Show what is longer than the terminal through PAGER (less).")] = True,
) -> None:
    """Show results from best to worst, with the papers' numbers beside them. Reads only."""
    from sepbench.cli.pages import print_in_pages
    from sepbench.cli.run import names
    from sepbench.errors import SepbenchError
    from sepbench.report.documents import board_document, json_text
    from sepbench.report.rows import RowSelection, task_tables
    from sepbench.report.table import markdown_leaderboard, render_leaderboard
    from sepbench.results.leaderboard_file import format_leaderboard
    from sepbench.results.target import open_results

    if as_json and form is not Format.table:
        raise SepbenchError("--json and --format exclude each other; give one of them")
    if stats and (top is not None or form is not Format.table):
        raise SepbenchError("--stats goes with --json, and with neither --top nor --format")
    results = open_results(target, suites=True)
    frame = _chosen(results.frame, target, {"task": names(task), "metric": names(metric)})
    _chosen(frame, target, {"method": names(method)})
    metrics, selection = names(metric), RowSelection(names(method), top)
    if stats:
        _show_stats(results, frame, metrics or (results.ranking_metric,), names(method), as_json)
        return

    def laid_out() -> dict[str, Any]:
        return {"metrics": metrics, "cells": results.cells, "bounds": results.bounds, "evidence": results.evidence, "selection": selection}

    if as_json:
        typer.echo(json_text(board_document(results, frame, target, metrics=metrics, selection=selection)))
    elif form is Format.csv:
        if names(method) or top is not None:
            tables = task_tables(frame, results.suite, **laid_out())
            shown = {(table.task, line.method) for table in tables for line in table.lines if not line.from_paper}
            frame = frame[[key in shown for key in zip(frame["task"], frame["method"], strict=True)]]
        typer.echo(format_leaderboard(frame), nl=False)
    elif form is Format.markdown:
        typer.echo(markdown_leaderboard(frame, results.suite, **laid_out()), nl=False)
    else:
        print_in_pages(lambda console: render_leaderboard(frame, results.suite, console, **laid_out()), pager)


def _chosen(frame: pd.DataFrame, target: str, wanted: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The rows with these values in these columns.

    Raises:
        UnknownNameError: a value that no row has.
        SepbenchError: no row is left.
    """
    from sepbench.errors import SepbenchError
    from sepbench.registry import nearest

    for column, values in wanted.items():
        known = list(dict.fromkeys(frame[column]))
        for name in values:
            if name not in known:
                raise nearest(name, known, f"{column} of {target}")
        if values:
            frame = frame[frame[column].isin(values)]
    if not len(frame):
        raise SepbenchError(f"{target} has no rows to show")
    return frame


def _show_stats(results: Results, frame: pd.DataFrame, metrics: Sequence[str], methods: Sequence[str], as_json: bool) -> None:
    from rich.console import Console

    from sepbench.errors import SepbenchError
    from sepbench.metrics.catalogue import get_metric
    from sepbench.report.documents import json_text, robust_document
    from sepbench.report.robust_table import render_robust
    from sepbench.results.robust import RobustRow, robust_rows

    for name in metrics:
        if get_metric(name).info.per in ("group", "set"):
            raise SepbenchError(f"{name} is a value of the whole set: it has no median or interquartile mean over mixtures; leave it out of --metric")
    evidence, console = results.evidence, Console()
    if evidence is None:
        raise SepbenchError(f"{results.label} has no per-example scores, which --stats needs; name the folder of a run, or a leaderboard with scores beside it")
    documents: list[tuple[dict[str, Any], RobustRow]] = []
    for task in dict.fromkeys(frame["task"]):
        for metric in metrics:
            rows = frame[(frame["task"] == task) & (frame["metric"] == metric)]
            if not len(rows):
                continue
            bounds = [*rows.loc[rows["supervision"] == "bound", "method"], *(name for name, bound in (results.bounds or {}).items() if bound)]
            every = robust_rows(evidence, task, metric, list(rows["method"]), bool(rows["higher_is_better"].iloc[0]), bounds)
            found = [row for row in every if not methods or row.method in methods]  # the best is the best of all
            documents += [({name: rows[name].iloc[0] for name in ("suite", "task", "metric", "unit", "higher_is_better")}, row) for row in found]
            if found and not as_json:
                render_robust(f"{rows['suite'].iloc[0]}: {task}", metric, str(rows["unit"].iloc[0]), found, console)
                console.print()
    if as_json:
        typer.echo(json_text(robust_document(results.label, documents)))
