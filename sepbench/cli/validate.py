"""``sepbench validate METHOD``: hold a method against the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sepbench.cli.run import BudgetChoice

if TYPE_CHECKING:
    from rich.console import Console

    from sepbench.conformance import Check
    from sepbench.protocols import Domain, Separator
    from sepbench.suites.model import Suite, Task


SMALL: Mapping[Domain, str] = {"image": "digits-pairs", "audio": "drums-bass-synth", "vector": "gaussian-exact"}
"""A suite of each kind of signal that runs everywhere: nothing is downloaded."""


def validate(
    method: Annotated[str, typer.Argument(help="Registered name of the method.")],
    suite: Annotated[str, typer.Option(help=f"Suite whose data are used. Default: of the method's own kind of signal, {', '.join(SMALL.values())}.")] = "",
    task: Annotated[str, typer.Option(help="Task; default: the first one that the method supports.")] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "cpu",
    budget: Annotated[BudgetChoice, typer.Option(help="Budget of the method.")] = BudgetChoice.quick,
    examples: Annotated[int, typer.Option(min=2, help="Mixtures used.")] = 6,
    settings: Annotated[list[str] | None, typer.Option("--set", help="METHOD.SETTING=VALUE; may be repeated.")] = None,
) -> None:
    """Check shapes, finiteness, seeds, batch and shard invariance, inputs, references and device placement. Exit code 1 if a rule is broken."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from sepbench.cli.evaluate import fetch_data_of
    from sepbench.registry import create_separator, nearest
    from sepbench.report.fitting import print_table
    from sepbench.run.plan import resolve_device
    from sepbench.suites.loader import load_suite

    given = _given(method, settings or [])
    suite = suite or _small_suite(method, given)
    loaded = load_suite(suite)
    separator = create_separator(method, given, loaded.domain)
    if task and task not in loaded.tasks:
        raise nearest(task, list(loaded.tasks), f"task of {suite}")
    chosen = task or _first_task(method, separator, loaded)
    fetch_data_of(loaded.tasks[chosen])  # here, because data that are missing are no fault of the method
    odd: list[str] = []
    checks = _checks(method, loaded.tasks[chosen], warn=odd.append, device=resolve_device(device), budget=budget.value, settings=given, examples=examples)
    # Text and not str wherever a method or a path has a say: rich would take its square brackets for styles.
    table = Table(title=Text(f"{method} on {suite}/{chosen}, {budget.value} budget, {device}", style="table.title"), title_justify="left")
    for column in ("", "rule", "seen"):
        table.add_column(column, overflow="fold")
    marks = {True: "[green]ok[/green]", False: "[red]BROKEN[/red]", None: "[dim]-[/dim]"}
    for check in checks:
        table.add_row(marks[check.passed], check.rule, Text(str(check.detail)))
    console = Console()
    print_table(table, console)
    broken = sum(check.passed is False for check in checks)
    console.print(Text(f"{method}: {sum(check.passed is True for check in checks)} rules hold, {broken} broken"))
    for text in odd:
        Console(stderr=True).print(Text.assemble(("warning:", "yellow"), f" {text}"), soft_wrap=True)
    _tell_traceback(checks, console)
    if broken:
        raise typer.Exit(1)


def _small_suite(method: str, given: Mapping[str, Any]) -> str:
    """The suite of ``SMALL`` whose kind of signal the method takes first; of images where it names none that there is, which will be a broken rule."""
    from sepbench.registry import create_separator, separator_domains

    first = separator_domains(method)[0]  # None: the implementation that serves whatever has none of its own
    declared: object = {first} if first else create_separator(method, given).info.domains
    domains = declared if isinstance(declared, (set, frozenset)) else set()
    return next((suite for domain, suite in SMALL.items() if domain in domains), SMALL["image"])


def _tell_traceback(checks: list[Check], console: Console) -> None:
    """Where the method raised, or how one sees it."""
    from rich.text import Text

    from sepbench.places import TRACEBACK, wants_traceback

    raised = [check.traceback.rstrip() for check in checks if check.traceback]
    for text in raised if wants_traceback() else [f"{TRACEBACK}=1 shows the whole traceback"] * bool(raised):
        console.print(Text(text), soft_wrap=True)


def _given(method: str, assignments: list[str]) -> dict[str, Any]:
    """The settings of ``--set``, all of the one method."""
    from sepbench.errors import SettingError
    from sepbench.settings import parse_settings

    parsed = parse_settings(assignments)
    for name in parsed:
        if name != method:
            raise SettingError(f"--set names method {name!r}, but {method} is validated; write --set {method}.SETTING=VALUE")
    return parsed.get(method, {})


def _checks(method: str, task: Task, **options: Any) -> list[Check]:
    """Every check; a terminal shows the rule that is being checked."""
    from rich.console import Console
    from rich.text import Text

    from sepbench.conformance import validate_method

    console = Console(stderr=True)
    if not console.is_terminal:
        return validate_method(method, task, **options)
    with console.status("") as line:
        return validate_method(method, task, begin=lambda rule: line.update(Text(rule)), **options)


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
