"""``sepbench compare``: which of two runs, or of two methods, is better, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sepbench.cli import completion


def compare(
    a: Annotated[str, typer.Argument(help="RUN, or RUN:METHOD for one method of it.", metavar="A")],
    b: Annotated[str, typer.Argument(help="RUN or RUN:METHOD.", metavar="B")],
    metric: Annotated[str, typer.Option(help="Metrics, separated by commas. Default: the one that ranks.", autocompletion=completion.metrics)] = "",
    all_metrics: Annotated[bool, typer.Option("--all-metrics", help="Every metric that both have.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Also write the rows to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, see docs/json.md.")] = False,
) -> None:
    """Paired difference per task: both must have separated the same mixtures (same digest). Two plain runs: every method in common.

    The verdict is "no difference shown" unless the 95 % interval excludes zero. Exit code 2 if the two cannot be compared.
    """
    from rich.console import Console

    from sepbench.cli.run import names
    from sepbench.errors import SepbenchError
    from sepbench.report.documents import comparison_document, json_text
    from sepbench.report.table import render_comparison
    from sepbench.results.compare import compare_sides, open_side, write_comparison

    if metric and all_metrics:
        raise SepbenchError("--metric and --all-metrics exclude each other; give one of them")
    side_a, side_b = open_side(a), open_side(b)
    common = [name for name in dict.fromkeys(side_a.results.frame["metric"]) if name in set(side_b.results.frame["metric"])]
    rows = compare_sides(side_a, side_b, common if all_metrics else names(metric))
    if as_json:
        typer.echo(json_text(comparison_document(rows, side_a.label, side_b.label)))
    else:
        render_comparison(rows, side_a.label, side_b.label, Console())
    if csv is not None:
        write_comparison(rows, csv)
