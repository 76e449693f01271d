"""``sepbench validate METHOD``: hold a method against the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sepbench.cli.run import BudgetChoice

if TYPE_CHECKING:
    from sepbench.protocols import Separator
    from sepbench.suites.model import Suite


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
    from rich.text import Text

    from sepbench.conformance import validate_method
    from sepbench.registry import create_separator, nearest
    from sepbench.run.plan import resolve_device
    from sepbench.suites.loader import load_suite

    loaded = load_suite(suite)
    separator = create_separator(method, domain=loaded.domain)
    if task and task not in loaded.tasks:
        raise nearest(task, list(loaded.tasks), f"task of {suite}")
    chosen = task or _first_task(method, separator, loaded)
    checks = validate_method(method, loaded.tasks[chosen], device=resolve_device(device), budget=budget.value, examples=examples)
    # Text and not str wherever a method or a path has a say: rich would take its square brackets for styles.
    table = Table(title=Text(f"{method} on {suite}/{chosen}, {budget.value} budget, {device}", style="table.title"), title_justify="left")
    for column in ("", "rule", "seen"):
        table.add_column(column, overflow="fold")
    marks = {True: "[green]ok[/green]", False: "[red]BROKEN[/red]", None: "[dim]-[/dim]"}
    for check in checks:
        table.add_row(marks[check.passed], check.rule, Text(str(check.detail)))
    console = Console()
    console.print(table)
    broken = sum(check.passed is False for check in checks)
    console.print(Text(f"{method}: {sum(check.passed is True for check in checks)} rules hold, {broken} broken"))
    if broken:
        raise typer.Exit(1)


def _first_task(method: str, separator: Separator, suite: Suite) -> str:
    """The first task that the method takes, or one where its answer breaks the contract: the table will show that as a broken rule."""
    from sepbench.errors import SepbenchError
    from sepbench.registry import flat
    from sepbench.run.plan import SupportError, ask_support

    reasons = []
    for name, candidate in suite.tasks.items():
        try:
            support = ask_support(method, separator, candidate.spec)
        except SupportError:
            return name
        if support.ok:
            return name
        reasons.append(flat(support.note))
    raise SepbenchError(f"{method} takes no task of {suite.name}: {next(iter(reasons), 'it has none')}; choose another with --suite")
