"""``sepbench validate METHOD``: hold a method against the contract."""

from __future__ import annotations

from typing import Annotated

import typer

from sepbench.cli.run import BudgetChoice


def validate(
    method: Annotated[str, typer.Argument(help="Registered name of the method.")],
    suite: Annotated[str, typer.Option(help="Suite whose data are used.")] = "digits-pairs",
    task: Annotated[str, typer.Option(help="Task; default: the first one that the method supports.")] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "cpu",
    budget: Annotated[BudgetChoice, typer.Option(help="Budget of the method.")] = BudgetChoice.quick,
    examples: Annotated[int, typer.Option(min=2, help="Mixtures used.")] = 6,
) -> None:
    """Check shapes, finiteness, seeds, batch and shard invariance, inputs, references and device placement. Exit code 1 if a rule is broken."""
    from rich.console import Console
    from rich.table import Table

    from sepbench.conformance import validate_method
    from sepbench.errors import SepbenchError
    from sepbench.registry import create_separator, nearest
    from sepbench.run.plan import resolve_device
    from sepbench.suites.loader import load_suite

    loaded = load_suite(suite)
    separator = create_separator(method)
    if task and task not in loaded.tasks:
        raise nearest(task, list(loaded.tasks), f"task of {suite}")
    supported = [name for name, candidate in loaded.tasks.items() if separator.supports(candidate.spec).ok]
    chosen = task or next(iter(supported), "")
    if not chosen:
        reason = separator.supports(next(iter(loaded.tasks.values())).spec).note
        raise SepbenchError(f"{method} takes no task of {suite}: {reason}; choose another with --suite")
    checks = validate_method(method, loaded.tasks[chosen], device=resolve_device(device), budget=budget.value, examples=examples)
    table = Table(title=f"{method} on {suite}/{chosen}, {budget.value} budget, {device}", title_justify="left")
    for column in ("", "rule", "seen"):
        table.add_column(column, overflow="fold")
    marks = {True: "[green]ok[/green]", False: "[red]BROKEN[/red]", None: "[dim]-[/dim]"}
    for check in checks:
        table.add_row(marks[check.passed], check.rule, check.detail)
    console = Console()
    console.print(table)
    broken = sum(check.passed is False for check in checks)
    console.print(f"{method}: {sum(check.passed is True for check in checks)} rules hold, {broken} broken")
    if broken:
        raise typer.Exit(1)
