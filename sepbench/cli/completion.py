"""Names that the shell completes: suites, tasks, methods and metrics. Reads entry points and TOML files, and imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable

import typer


def _in_list(incomplete: str, known: Iterable[str]) -> list[str]:
    """Names for the last place of a list with commas, those that it has already left out."""
    before, comma, last = incomplete.rpartition(",")
    taken = {name.strip() for name in before.split(",")}
    return [f"{before}{comma}{name}" for name in known if name.startswith(last.strip()) and name not in taken]


def suites(incomplete: str) -> list[str]:
    """One suite."""
    from sepbench.registry import suite_names

    return [name for name in suite_names() if name.startswith(incomplete)]


def methods(incomplete: str) -> list[str]:
    """Methods with commas between, or one."""
    from sepbench.registry import separator_names

    return _in_list(incomplete, separator_names())


def metrics(incomplete: str) -> list[str]:
    """Metrics with commas between, or one."""
    from sepbench.registry import METRIC_GROUP, points

    return _in_list(incomplete, sorted(points(METRIC_GROUP)))


def tasks(ctx: typer.Context, incomplete: str) -> list[str]:
    """Tasks of the suite that the command line has named already, with commas between; before that of all suites."""
    from sepbench.registry import suite_names

    named = {str(value) for value in ctx.params.values() if isinstance(value, str)}
    known = [suite for suite in suite_names() if suite in named] or suite_names()
    return _in_list(incomplete, dict.fromkeys(task for suite in known for task in _tasks(suite)))


def lists(incomplete: str) -> list[str]:
    """What ``sepbench list`` takes."""
    return [name for name in ("all", "suites", "methods", "metrics") if name.startswith(incomplete)] + methods(incomplete)


def listed(ctx: typer.Context, incomplete: str) -> list[str]:
    """A name of the kind that ``sepbench list`` was told of."""
    kinds = {"suites": suites, "methods": methods, "metrics": metrics}
    what = ctx.params.get("what")
    return kinds[what](incomplete) if what in kinds else []


def _tasks(suite: str) -> list[str]:
    """Names of a suite's tasks as its file has them, unchecked; none of a suite that cannot be read."""
    import tomllib

    from sepbench.errors import SepbenchError
    from sepbench.registry import suite_path

    try:
        found = tomllib.loads(suite_path(suite).read_text(encoding="utf-8")).get("tasks", {})
    except (SepbenchError, OSError, ValueError):
        return []
    return list(found) if isinstance(found, dict) else []
