"""``sepbench env``: what decides a run's numbers and speed on this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def env(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a bug report.")] = False) -> None:
    """Show versions, processor, instruction set, threads, devices and data folders."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from sepbench.data.files.fetch import data_folders
    from sepbench.report.fitting import print_table
    from sepbench.run.plan import resolve_device
    from sepbench.run.provenance import environment

    facts = {**environment(resolve_device("auto")).mapping(), "data_folders": [str(folder) for folder in data_folders()]}
    console = Console()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for key, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {version}" for name, version in value.items())
        elif isinstance(value, list):
            value = ", ".join(value)
        table.add_row(f"[bold]{key}[/bold]", Text(str(value)))
    print_table(table, console)
