"""``sepbench list``: suites, tasks, methods and metrics by name; ``method_page`` shows one method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sepbench.cli import completion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from rich.table import Table

    from sepbench.errors import SepbenchError
    from sepbench.suites.model import Suite


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
        loaded = _loaded_suites()
        print_table(_suites(loaded), console)
        _print_readiness(loaded, console)
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


def _loaded_suites() -> dict[str, Suite | SepbenchError]:
    """All suites by name; instead of one that cannot be loaded, why."""
    from sepbench.errors import SepbenchError
    from sepbench.registry import suite_names
    from sepbench.suites.loader import load_suite

    loaded: dict[str, Suite | SepbenchError] = {}
    for name in suite_names():
        try:
            loaded[name] = load_suite(name)
        except SepbenchError as error:
            loaded[name] = error
    return loaded


def _suites(loaded: Mapping[str, Suite | SepbenchError]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from sepbench.errors import SepbenchError

    table = Table(title="Suites (tasks ending in -val are for choosing settings)", title_justify="left")
    for column in ("suite", "task", "K", "operator", "mixtures"):
        table.add_column(column, justify="right" if column in ("K", "mixtures") else "left", no_wrap=column in ("suite", "task"))
    for name, suite in loaded.items():
        if isinstance(suite, SepbenchError):
            table.add_row(name, Text(str(suite), style="red"), "", "", "")
            continue
        for row, task in enumerate(suite.tasks.values()):
            head = f"{name} v{suite.version}" if row == 0 else ""
            label = f"[dim]{task.spec.name}[/dim]" if task.split == "validation" else task.spec.name
            table.add_row(head, label, str(task.spec.n_sources), task.spec.operator, f"{task.n_examples:,}{'' if task.frozen else ' (not frozen)'}")
        table.add_section()
    return table


def _print_readiness(loaded: Mapping[str, Suite | SepbenchError], console: Console) -> None:
    """Per suite one line, which the terminal may break and the table of a narrow one would break into scraps: what it needs, and where it and its data lie."""
    from rich.text import Text

    from sepbench.data.files.fetch import offline
    from sepbench.errors import SepbenchError
    from sepbench.registry import suite_folders
    from sepbench.suites.readiness import readiness

    lines = []
    for name, suite in loaded.items():
        try:
            if isinstance(suite, SepbenchError):
                raise suite
            found = readiness(name, suite)
        except SepbenchError as error:
            lines.append((name, "unusable", str(error)))
            continue
        needs = f"download {found.download / 1e6:,.1f} MB" if found.state == "download" else found.state
        lacking = f"{', '.join(found.lacking)} lacking" if found.lacking else ""
        lines.append((name, needs, ", ".join(filter(None, [lacking, *map(str, found.where)]))))
    widths = [max(len(line[column]) for line in lines) + 2 for column in (0, 1)]
    title = "What each suite needs, and where it lies (own copy: 'sepbench data verify NAME' says how to get the data)"
    console.print(Text(title, style="table.title"), soft_wrap=True)
    for name, needs, where in lines:
        console.print(Text(f"{name:{widths[0]}}{needs:{widths[1]}}{where}".rstrip()), soft_wrap=True)
    folders = ", then ".join(map(str, suite_folders()))
    console.print(Text(f"Own suites are looked up in {folders} (SEPBENCH_SUITES names more; 'sepbench new-suite' makes one)."), soft_wrap=True)
    if offline():
        console.print("SEPBENCH_OFFLINE is set: nothing is downloaded.")


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
