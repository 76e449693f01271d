"""``sepbench freeze SUITE``: pair lists and digests for a suite in a folder of its own that has none."""

from __future__ import annotations

from typing import Annotated

import typer


def freeze(suite: Annotated[str, typer.Argument(help="Name of the suite, or the path of its folder or TOML file.")]) -> None:
    """Make the lists of a suite's rules, mix everything once, and write lists and digests beside the suite's file."""
    from sepbench.suites.freeze import freeze_suite

    for name, task in freeze_suite(suite).tasks.items():
        typer.echo(f"{name}: {task.n_examples:,} mixture{'' if task.n_examples == 1 else 's'}, {task.mixtures_sha256}")
