"""``sepbench publish``: put a run's rows into the committed leaderboard of its suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def publish(
    run: Annotated[str, typer.Argument(help="Folder of a run.", metavar="RUN")],
    to: Annotated[Path, typer.Option(help="Folder of the leaderboards.")] = Path("leaderboards"),
    methods: Annotated[str, typer.Option(help="Only these methods, separated by commas.")] = "",
    tasks: Annotated[str, typer.Option(help="Only these tasks, separated by commas.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Also replace better-founded rows, and those of a run with more metrics.")] = False,
) -> None:
    """Merge a run into TO/SUITE.csv, and its values per mixture into TO/scores: rows of the same task and method are replaced, others kept.

    Only finished rows go in; examples that failed stay counted in them. Weaker rows than those that are there stay out. Exit code 2 if
    the file is of another suite version or other mixtures.
    """
    from rich.console import Console
    from rich.text import Text

    from sepbench.cli.run import names
    from sepbench.results.publication import publish_run

    def waiting() -> None:
        Console(stderr=True).print(Text(f"waiting for another process that works in {to}"), soft_wrap=True)

    done = publish_run(run, to, force=force, tasks=names(tasks), methods=names(methods), waiting=waiting)
    console, removed = Console(), f", {done.removed} removed" if done.removed else ""
    console.print(Text(f"{done.path}: {done.replaced} rows replaced, {done.added} added{removed}"), soft_wrap=True)
    for reason in done.left_out:
        console.print(Text(f"left out: {reason}"), soft_wrap=True)
