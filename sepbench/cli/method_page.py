"""``sepbench list METHOD``: what a method says of itself, and every setting with type, default, range and one line of explanation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sepbench.protocols import MethodInfo, Separator

_WIDE = 110
"""Columns of a terminal from which on the explanation has a column of its own."""


def show_method(name: str, lists: Sequence[str], console: Console) -> None:
    """Print the page of a method; one section for each kind of signal that it has another algorithm for.

    Raises:
        UnknownNameError: no such method, and none of ``lists``.
        MethodError: it cannot be loaded or created.
    """
    from rich.text import Text

    from sepbench.registry import create_separator, separator_class, separator_domains
    from sepbench.report.fitting import print_table, print_words

    check_name(name, lists)
    domains = separator_domains(name)
    for number, domain in enumerate(domains):
        separator = create_separator(name, domain=domain)
        signals = ", ".join(sorted(separator.info.domains))
        # Text and not str, here and below: rich would take square brackets in a method's words for styles.
        console.print(Text(f"{name}{f' on {signals} signals' if len(domains) > 1 else ''}: {separator.info.title}", style="bold"), soft_wrap=True)
        for label, text in facts_of(name, separator):
            print_words(f"{label}: {text}", console)
        settings = _settings(name, separator_class(name, domain), wide=console.width >= _WIDE)
        if isinstance(settings, str):
            console.print(settings)
        else:
            print_table(settings, console)
        if number + 1 < len(domains):
            console.print()


def check_name(name: str, lists: Sequence[str]) -> None:
    """Refuse a name that is no method's.

    Raises:
        UnknownNameError: it is none; the nearest of methods and ``lists`` are offered.
    """
    from sepbench.errors import UnknownNameError
    from sepbench.registry import separator_names, suite_names, unknown_method

    if name not in separator_names() and name in suite_names():
        raise UnknownNameError(f"{name} is a suite: 'sepbench list suites {name}' shows its tasks, 'sepbench show {name}' its results")
    if name not in separator_names():
        raise unknown_method(name, lists, "list or method")


def facts_of(name: str, separator: Separator) -> list[tuple[str, str]]:
    """What a method says of itself, and what is to be kept in mind of its rows: labels with texts."""
    from sepbench.protocols import SUPERVISION_LEVELS

    asked = _asked(name, separator)
    info, about = separator.info, (type(separator).__doc__ or "").partition("\n\n")[0]
    facts = [
        ("about", "" if about.startswith(f"{type(separator).__name__}(") else " ".join(about.split())),  # a dataclass without words gets its signature
        ("paper", paper_of(info)),
        ("version", info.version),
        ("learns from", f"{info.supervision}, {SUPERVISION_LEVELS.get(info.supervision, 'which is no level that sepbench knows')}"),
        ("signals", ", ".join(sorted(info.domains))),
        ("tasks", asked.words),
        ("caveat", f"a row for comparison ({info.bound} bound), never ranked" if info.bound else ""),
        ("caveat", "" if info.deterministic else "the estimates depend on the seed"),
        *(("caveat", f"{note} ({', '.join(suites)})") for note, suites in asked.notes.items()),
    ]
    return [(label, text) for label, text in facts if text]


def paper_of(info: MethodInfo) -> str:
    """The paper; of a user's own method, whose template says "yours" there, that it is one."""
    return "none, a method of your own" if info.paper.strip().lower() in ("yours", "") else info.paper


@dataclass(frozen=True, slots=True)
class _Taken:
    """Which tasks of all suites a method takes with its own defaults, and what it says of them.

    Attributes:
        taken, refused: suite -> test tasks with signals of the method's kinds.
        notes: remark on tasks that it takes -> suites.
    """

    taken: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """The tasks by name, or those that are left out where these are fewer; empty for a method that takes all."""
        n_taken, n_refused = (sum(map(len, found.values())) for found in (self.taken, self.refused))
        if not n_refused:
            return ""
        told = f"{n_taken} of the {n_taken + n_refused} with these signals"
        if n_taken > n_refused:
            return f"{told}; not {self._names(self.refused, self.taken)}"
        return f"{told}{': ' * bool(n_taken)}{self._names(self.taken, self.refused)}"

    @staticmethod
    def _names(found: dict[str, list[str]], others: dict[str, list[str]]) -> str:
        """``suite`` for all of its tasks, ``suite/task`` for one."""
        return ", ".join(name for suite, tasks in found.items() for name in ([f"{suite}/{task}" for task in tasks] if suite in others else [suite]))


def _asked(name: str, separator: Separator) -> _Taken:
    from sepbench.errors import SepbenchError, flat
    from sepbench.registry import suite_names
    from sepbench.run.plan import task_support
    from sepbench.suites.loader import load_suite

    found = _Taken()
    for suite in suite_names():
        try:
            tasks = [task for task in load_suite(suite).tasks.values() if task.split == "test" and task.spec.domain in separator.info.domains]
            answers = [task_support(name, separator, task) for task in tasks]
        except SepbenchError:  # a suite or a task that cannot be asked about is no caveat of the method
            continue
        for task, answer in zip(tasks, answers, strict=True):
            (found.taken if answer.ok else found.refused).setdefault(suite, []).append(task.spec.name)
        for note in dict.fromkeys(flat(answer.note) for answer in answers if answer.ok and answer.note):
            found.notes.setdefault(note, []).append(suite)
    return found


def _settings(name: str, cls: type, *, wide: bool) -> Table | str:
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
    for column in ("setting", "type", "default", "range", "what it does") if wide else ("setting", "what it does"):
        table.add_column(column, overflow="fold", no_wrap=column == "setting")
    for row in rows:
        setting, kind, default, bounds, description = row
        facts = ", ".join(part for part in (kind, bounds, f"default {default}" if default else "required") if part)
        table.add_row(*(Text(cell) for cell in (row if wide else (setting, f"{description}\n{facts}"))))
    return table
