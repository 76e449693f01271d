"""``sepbench list``: suites, tasks, methods and metrics by name, and everything about one method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sepbench.protocols import Separator


LISTS = ("all", "suites", "methods", "metrics")


def list_names(what: Annotated[str, typer.Argument(help="all, suites, methods, metrics, or the name of a method.")] = "all") -> None:
    """List suites with their tasks, methods with what they may learn from, and metrics; or show one method with its settings."""
    from rich.console import Console

    console = Console()
    if what not in LISTS:
        _show_method(what, console)
        return
    if what in ("all", "suites"):
        console.print(_suites())
    if what in ("all", "methods"):
        console.print(_methods())
    if what in ("all", "metrics"):
        console.print(_metrics())


def _show_method(name: str, console: Console) -> None:
    from rich.text import Text

    from sepbench.errors import nearest
    from sepbench.registry import create_separator, separator_class, separator_names

    if name not in separator_names():
        raise nearest(name, [*LISTS, *separator_names()], "list or method")
    separator = create_separator(name)
    # Text and not str, here and below: rich would take square brackets in a method's words for styles.
    console.print(Text(f"{name}: {separator.info.title}", style="bold"), soft_wrap=True)
    for label, text in _facts(name, separator):
        console.print(Text(f"{label}: {text}"))
    console.print(_settings(name, separator_class(name)))


def _facts(name: str, separator: Separator) -> list[tuple[str, str]]:
    """What a method says of itself, and what is to be kept in mind of its rows: labels with texts."""
    from sepbench.protocols import SUPERVISION_LEVELS

    info, about = separator.info, (type(separator).__doc__ or "").partition("\n\n")[0]
    facts = [
        ("about", "" if about.startswith(f"{type(separator).__name__}(") else " ".join(about.split())),  # a dataclass without words gets its signature
        ("paper", info.paper),
        ("version", info.version),
        ("learns from", f"{info.supervision}, {SUPERVISION_LEVELS.get(info.supervision, 'which is no level that sepbench knows')}"),
        ("signals", ", ".join(sorted(info.domains))),
        ("caveat", f"a row for comparison ({info.bound} bound), never ranked" if info.bound else ""),
        ("caveat", "" if info.deterministic else "the estimates depend on the seed"),
        *(("caveat", f"{note} ({', '.join(suites)})") for note, suites in _notes(name, separator).items()),
    ]
    return [(label, text) for label, text in facts if text]


def _notes(name: str, separator: Separator) -> dict[str, list[str]]:
    """What a method says of tasks that it takes, with the suites where it says so."""
    from sepbench.errors import SepbenchError
    from sepbench.registry import flat, suite_names
    from sepbench.run.plan import ask_support
    from sepbench.suites.loader import load_suite

    found: dict[str, list[str]] = {}
    for suite in suite_names():
        try:
            specs = [task.spec for task in load_suite(suite).tasks.values() if task.split == "test" and task.spec.domain in separator.info.domains]
            answers = [ask_support(name, separator, spec) for spec in specs]
        except SepbenchError:  # a suite or a task that cannot be asked about is no caveat of the method
            continue
        for note in dict.fromkeys(flat(answer.note) for answer in answers if answer.ok and answer.note):
            found.setdefault(note, []).append(suite)
    return found


def _settings(name: str, cls: type) -> Table | str:
    from rich.table import Table
    from rich.text import Text

    from sepbench.kinds import shown
    from sepbench.registry import method_code
    from sepbench.settings import REQUIRED, describe

    with method_code(name, "has a setting that cannot be shown"):
        rows = [(one.name, one.kind, "" if one.default is REQUIRED else shown(one.default), one.range, one.description) for one in describe(cls)]
    if not rows:
        return "settings: none"
    table = Table(title=f"Settings (sepbench run ... --set {name}.SETTING=VALUE)", title_justify="left")
    for column in ("setting", "type", "default", "range", "what it does"):
        table.add_column(column, overflow="fold", no_wrap=column == "setting")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


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
