"""``sepbench list``: suites, tasks, methods and metrics by name; ``method_page`` shows one method."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sepbench.cli import completion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import Console
    from rich.table import Table

    from sepbench.errors import SepbenchError
    from sepbench.suites.model import Suite
    from sepbench.suites.readiness import Readiness


LISTS = ("all", "suites", "methods", "metrics")


def list_names(
    what: Annotated[str, typer.Argument(help="all, suites, methods, metrics, or the name of a method.", autocompletion=completion.lists)] = "all",
    name: Annotated[str, typer.Argument(help="After suites, methods or metrics: only this one.", autocompletion=completion.listed)] = "",
    long: Annotated[bool, typer.Option("--long", help="Methods with their papers.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, see docs/json.md.")] = False,
) -> None:
    """List suites with their tasks, methods with what they may learn from, and metrics; or show one method with its settings."""
    from rich.console import Console

    from sepbench.report.fitting import print_table

    console, only = Console(), (name,) if name else None
    what, lists = _wanted(what, name)
    if as_json:
        _print_json(what, lists, only)
        return
    if what not in lists:
        from sepbench.cli.method_page import show_method

        show_method(what, lists, console)
        return
    if what in ("all", "suites"):
        loaded = _loaded_suites(only)
        needs = _needs(loaded)
        print_table(_suites(loaded, needs), console, spare=("operator",))
        _print_readiness(loaded, needs, console)
    if what in ("all", "methods"):
        print_table(_methods(long), console, spare=("signals",))
    if what in ("all", "metrics"):
        print_table(_metrics(only), console)


def _wanted(what: str, name: str) -> tuple[str, Sequence[str]]:
    """What is to be shown, and the words that name lists: none if the name after ``methods`` is to be a method's.

    Raises:
        SepbenchError: a name after something that is no list of names; no suite or metric of this name.
    """
    from sepbench.errors import SepbenchError
    from sepbench.metrics.catalogue import get_metric
    from sepbench.registry import suite_path

    if not name:
        return what, LISTS
    if what not in LISTS or what == "all":
        raise SepbenchError(
            f"sepbench list: {name!r} is one word too many after {what!r}; a name may follow suites, methods or metrics, as in 'sepbench list methods nmf'"
        )
    if what == "methods":
        return name, ()
    if what == "suites":
        suite_path(name)
    else:
        get_metric(name)
    return what, LISTS


def _print_json(what: str, lists: Sequence[str], only: Sequence[str] | None) -> None:
    from sepbench.cli import listed
    from sepbench.cli.method_page import check_name
    from sepbench.report.documents import json_text

    if what not in lists:
        check_name(what, lists)
        typer.echo(json_text({"method": listed.listed_method(what)}))
        return
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "suites": partial(listed.listed_suites, only),
        "methods": listed.listed_methods,
        "metrics": partial(listed.listed_metrics, only),
    }
    typer.echo(json_text({part: found() for part, found in parts.items() if what in ("all", part)}))


def _loaded_suites(only: Sequence[str] | None) -> dict[str, Suite | SepbenchError]:
    """All suites by name, or only some; instead of one that cannot be loaded, why."""
    from sepbench.errors import SepbenchError
    from sepbench.registry import suite_names
    from sepbench.suites.loader import load_suite

    loaded: dict[str, Suite | SepbenchError] = {}
    for name in only or suite_names():
        try:
            loaded[name] = load_suite(name)
        except SepbenchError as error:
            loaded[name] = error
    return loaded


def _needs(loaded: Mapping[str, Suite | SepbenchError]) -> dict[str, Readiness | SepbenchError]:
    """What each suite lacks on this machine; instead of one that cannot be used, why."""
    from sepbench.errors import SepbenchError
    from sepbench.suites.readiness import readiness

    found: dict[str, Readiness | SepbenchError] = {}
    for name, suite in loaded.items():
        try:
            found[name] = suite if isinstance(suite, SepbenchError) else readiness(name, suite)
        except SepbenchError as error:
            found[name] = error
    return found


def _suites(loaded: Mapping[str, Suite | SepbenchError], needs: Mapping[str, Readiness | SepbenchError]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from sepbench.errors import SepbenchError

    table = Table(title="Suites (tasks ending in -val are for choosing settings)", title_justify="left")
    for column in ("suite", "state", "task", "K", "operator", "mixtures"):
        table.add_column(column, justify="right" if column in ("K", "mixtures") else "left", no_wrap=True)
    for name, suite in loaded.items():
        if isinstance(suite, SepbenchError):
            table.add_row(name, Text("unusable", style="red"), "", "", "", "")  # why is told below: a cell would break it into scraps
            continue
        states = _state(needs[name])
        for row, task in enumerate(suite.tasks.values()):
            head = f"{name} v{suite.version}" if row == 0 else ""
            state = "\n".join(states) if len(suite.tasks) == 1 else "".join(states[row : row + 1])
            label = f"[dim]{task.spec.name}[/dim]" if task.split == "validation" else task.spec.name
            table.add_row(head, state, label, str(task.spec.n_sources), task.spec.operator, f"{task.n_examples:,}{'' if task.frozen else ' *'}")
        table.add_section()
    return table


def _state(found: Readiness | SepbenchError) -> list[str]:
    """The state, and below it how much is to be downloaded."""
    from rich.filesize import decimal

    from sepbench.errors import SepbenchError

    if isinstance(found, SepbenchError):
        return ["[red]unusable[/red]"]
    colour = {"ready": "green", "download": "yellow", "own copy": "yellow"}[found.state]
    return [f"[{colour}]{found.state}[/{colour}]", *([decimal(found.download)] if found.state == "download" else [])]


def _print_readiness(loaded: Mapping[str, Suite | SepbenchError], needs: Mapping[str, Readiness | SepbenchError], console: Console) -> None:
    """What the table has no room for, in lines that the terminal may break: what its marks mean, what is lacking, where own suites are."""
    from rich.text import Text

    from sepbench.data.files.fetch import offline
    from sepbench.errors import SepbenchError
    from sepbench.registry import own_suite, suite_folders

    usable = {name: found for name, found in needs.items() if not isinstance(found, SepbenchError)}
    lines = [f"{name} is unusable: {found}" for name, found in needs.items() if isinstance(found, SepbenchError)]
    if any(not task.frozen for suite in loaded.values() if not isinstance(suite, SepbenchError) for task in suite.tasks.values()):
        lines.append("*: the list of mixtures is not frozen; a rule makes it from your copy of the data")
    if any(found.state == "download" for found in usable.values()):
        lines.append("download: 'sepbench run' gets the data when it needs them, 'sepbench data fetch NAME' gets them now")
    for data in dict.fromkeys(found.lacking for found in usable.values() if found.state == "own copy"):
        suites = [name for name, found in usable.items() if found.lacking == data and found.state == "own copy"]
        lines.append(f"own copy: {', '.join(suites)} {'needs' if len(suites) == 1 else 'need'} {_lacking(data)}")
    lines += [f"{name} is a suite of your own, in {path.absolute().parent}" for name in loaded if (path := own_suite(name)) is not None]
    folders = ", then ".join(map(str, suite_folders()))
    lines.append(f"Suites of your own are looked up in {folders} (SEPBENCH_SUITES names more; 'sepbench new-suite' makes one).")
    if offline():
        lines.append("SEPBENCH_OFFLINE is set: nothing is downloaded.")
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _lacking(data: Sequence[str]) -> str:
    from sepbench.data.own.stored import BESIDE

    if any(name.startswith(BESIDE) for name in data):
        return f"files that are missing in its own folder ({', '.join(data)}); copy the whole folder again"
    return f"{' and '.join(data)}; 'sepbench data verify {data[0]}' says where that comes from"


def _methods(long: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    from sepbench.cli.method_page import paper_of
    from sepbench.errors import SepbenchError
    from sepbench.registry import separator_names
    from sepbench.run.method_infos import method_infos

    table = Table(title="Methods ('sepbench list NAME' shows one with its settings" + ("" if long else ", --long the papers") + ")", title_justify="left")
    for column in ("method", "learns from", "signals", "what it is", *(["paper"] if long else [])):
        table.add_column(column, overflow="fold", no_wrap=column == "method")
    for name, infos in method_infos(separator_names()).items():
        if isinstance(infos, SepbenchError):
            table.add_row(name, "", "", Text(str(infos), style="red"))
            continue
        info, signals = infos[0], sorted({signal for info in infos for signal in info.domains})
        level = ", ".join(dict.fromkeys(info.supervision for info in infos)) + (f", {info.bound} bound" if info.bound and info.supervision != "bound" else "")
        papers = "; ".join(dict.fromkeys(paper_of(info) for info in infos))
        table.add_row(name, level, ", ".join(signals), Text(info.title), *([Text(papers)] if long else []))
    return table


def _metrics(only: Sequence[str] | None) -> Table:
    from rich.table import Table
    from rich.text import Text

    from sepbench.errors import SepbenchError
    from sepbench.metrics.catalogue import get_metric, metric_names

    table = Table(title="Metrics", title_justify="left")
    for column in ("metric", "unit", "better", "per", "source"):
        table.add_column(column, overflow="fold")
    for name in only or metric_names():
        try:
            info = get_metric(name).info
        except SepbenchError as error:
            table.add_row(name, "", "", "", Text(str(error), style="red"))
            continue
        table.add_row(name, info.unit, "higher" if info.higher_is_better else "lower", info.per, info.source)
    return table
