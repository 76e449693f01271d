"""``sepbench list``: suites, tasks, methods and metrics by name; ``method_page`` shows one method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sepbench.cli import completion

if TYPE_CHECKING:
    from rich.table import Table


LISTS = ("all", "suites", "methods", "metrics")


def list_names(
    what: Annotated[str, typer.Argument(help="all, suites, methods, metrics, or the name of a method.", autocompletion=completion.lists)] = "all",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, see docs/json.md.")] = False,
) -> None:
    """List suites with their tasks, methods with what they may learn from, and metrics; or show one method with its settings."""
    from rich.console import Console

    from sepbench.report.fitting import print_table

    console = Console()
    if as_json:
        _print_json(what)
        return
    if what not in LISTS:
        from sepbench.cli.method_page import show_method

        show_method(what, LISTS, console)
        return
    if what in ("all", "suites"):
        print_table(_suites(), console)
    if what in ("all", "methods"):
        print_table(_methods(), console)
    if what in ("all", "metrics"):
        print_table(_metrics(), console)


def _print_json(what: str) -> None:
    from sepbench.cli import listed
    from sepbench.cli.method_page import check_name
    from sepbench.report.documents import json_text

    parts = {"suites": listed.listed_suites, "methods": listed.listed_methods, "metrics": listed.listed_metrics}
    if what not in LISTS:
        check_name(what, LISTS)
        typer.echo(json_text({"method": listed.listed_method(what)}))
        return
    typer.echo(json_text({name: found() for name, found in parts.items() if what in ("all", name)}))


def _suites() -> Table:
    from rich.table import Table
    from rich.text import Text

    from sepbench.errors import SepbenchError
    from sepbench.registry import suite_names
    from sepbench.suites.loader import load_suite

    table = Table(title="Suites (tasks ending in -val are for choosing settings)", title_justify="left")
    for column in ("suite", "task", "K", "operator", "mixtures"):
        table.add_column(column, justify="right" if column in ("K", "mixtures") else "left", no_wrap=column in ("suite", "task"))
    for name in suite_names():
        try:
            suite = load_suite(name)
        except SepbenchError as error:
            table.add_row(name, Text(str(error), style="red"), "", "", "")
            continue
        for row, task in enumerate(suite.tasks.values()):
            head = f"{name} v{suite.version}" if row == 0 else ""
            label = f"[dim]{task.spec.name}[/dim]" if task.split == "validation" else task.spec.name
            table.add_row(head, label, str(task.spec.n_sources), task.spec.operator, f"{task.n_examples:,}{'' if task.frozen else ' (not frozen)'}")
        table.add_section()
    return table


def _methods() -> Table:
    from rich.table import Table
    from rich.text import Text

    from sepbench.errors import SepbenchError
    from sepbench.registry import create_separator, separator_domains, separator_names

    table = Table(title="Methods", title_justify="left")
    for column in ("method", "learns from", "signals", "paper"):
        table.add_column(column, overflow="fold", no_wrap=column in ("method", "learns from"))
    for name in separator_names():
        try:
            infos = [create_separator(name, domain=domain).info for domain in separator_domains(name)]
        except SepbenchError as error:
            table.add_row(name, "", "", Text(str(error), style="red"))
            continue
        info, signals = infos[0], sorted({signal for info in infos for signal in info.domains})
        level = info.supervision + (f", {info.bound} bound" if info.bound and info.supervision != "bound" else "")
        table.add_row(name, level, ", ".join(signals), Text(f"{info.title}. {'; '.join(dict.fromkeys(info.paper for info in infos))}"))
    return table


def _metrics() -> Table:
    from rich.table import Table
    from rich.text import Text

    from sepbench.errors import SepbenchError
    from sepbench.metrics.catalogue import get_metric, metric_names

    table = Table(title="Metrics", title_justify="left")
    for column in ("metric", "unit", "better", "per", "source"):
        table.add_column(column, overflow="fold")
    for name in metric_names():
        try:
            info = get_metric(name).info
        except SepbenchError as error:
            table.add_row(name, "", "", "", Text(str(error), style="red"))
            continue
        table.add_row(name, info.unit, "higher" if info.higher_is_better else "lower", info.per, info.source)
    return table
