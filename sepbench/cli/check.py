"""``sepbench check``: the regression gate."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from sepbench.cli import completion


class Format(StrEnum):
    """How to report."""

    table = "table"
    json = "json"


def check(
    new: Annotated[str, typer.Argument(help="A run's folder or a leaderboard CSV.", metavar="NEW")],
    against: Annotated[
        str,
        typer.Option(help="OLD: a run's folder, a leaderboard CSV or a suite (its committed leaderboard).", metavar="OLD", autocompletion=completion.suites),
    ],
    tolerance: Annotated[list[str] | None, typer.Option(help="METRIC=VALUE, in the metric's unit; may be repeated. Default: 0.01 dB, 0.001 otherwise.")] = None,
    methods: Annotated[str, typer.Option(help="Only these methods, separated by commas.", autocompletion=completion.methods)] = "",
    tasks: Annotated[str, typer.Option(help="Only these tasks, separated by commas.", autocompletion=completion.tasks)] = "",
    subset: Annotated[bool, typer.Option("--subset", help="Only what both have: rows that NEW lacks and mixtures that one lacks do not count.")] = False,
    form: Annotated[Format, typer.Option("--format", help="table for people, json for CI.")] = Format.table,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json, see docs/json.md.")] = False,
) -> None:
    """Exit code 0 if NEW holds against OLD, 1 on a regression, 2 if the two are not comparable (another digest, a missing row, NaN ...).

    With per-example scores on both sides a regression is a mean that is worse by more than the tolerance and by more than chance explains: a paired
    test that knows which mixtures share a song, an image or a recording, adjusted so that a check without any true change gives an alarm in at most 5 %,
    however many rows it has. With a CSV without scores on either side it is a mean that is worse by more than the tolerance. Other processors (AVX2,
    AVX-512), thread counts and devices change the last digits of the same method; the tolerance covers that. Rows that only NEW has are reported and do
    not fail.
    """
    from rich.console import Console

    from sepbench.cli.run import names
    from sepbench.report.table import gate_json, render_gate
    from sepbench.results.agreement import check_agreement
    from sepbench.results.gate import Scope, check_results, parse_tolerances
    from sepbench.results.target import open_results

    tolerances = parse_tolerances(tolerance or [])
    scope = Scope(names(tasks), names(methods), subset)
    opened = open_results(new), open_results(against, suites=True)
    for results in opened:
        check_agreement(results, scope.tasks, scope.methods)
    report = check_results(*opened, tolerances, scope)
    if as_json or form is Format.json:
        typer.echo(gate_json(report, new, against))
    else:
        render_gate(report, new, against, Console())
    raise typer.Exit(report.exit_code)
