"""``sepbench list --json``: suites, methods, metrics and the page of a method as plain values; ``docs/json.md`` says what each field means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def listed_suites(only: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """All suites, or only some, with their tasks; one that cannot be read has its ``error`` instead."""
    from sepbench.errors import SepbenchError
    from sepbench.registry import suite_names
    from sepbench.suites.loader import load_suite
    from sepbench.suites.readiness import readiness

    found: list[dict[str, Any]] = []
    for name in only or suite_names():
        try:
            suite = load_suite(name)
            ready = readiness(name, suite)
        except SepbenchError as error:
            found.append({"name": name, "error": str(error)})
            continue
        tasks = [
            {
                "name": task.spec.name,
                "split": task.split,
                "n_sources": task.spec.n_sources,
                "operator": task.spec.operator,
                "mixtures": task.n_examples,
                "frozen": task.frozen,
                "digest": task.digest if task.frozen else None,  # else it would open the data
            }
            for task in suite.tasks.values()
        ]
        head = {"name": name, "version": suite.version, "title": suite.title, "domain": suite.domain}
        head |= {"state": ready.state, "download_bytes": ready.download, "lacking": ready.lacking, "where": ready.where}
        found.append(head | {"metrics": suite.metrics, "ranking_metric": suite.ranking_metric, "methods": suite.methods, "tasks": tasks})
    return found


def listed_methods() -> list[dict[str, Any]]:
    """All methods with what they say of themselves; one that cannot be made has its ``error`` instead."""
    from sepbench.errors import SepbenchError
    from sepbench.registry import separator_names
    from sepbench.run.method_infos import method_infos

    found: list[dict[str, Any]] = []
    for name, infos in method_infos(separator_names()).items():
        if isinstance(infos, SepbenchError):
            found.append({"name": name, "error": str(infos)})
            continue
        info, papers = infos[0], dict.fromkeys(info.paper for info in infos)
        levels = ", ".join(dict.fromkeys(info.supervision for info in infos))
        facts = {"title": info.title, "version": info.version, "supervision": levels, "bound": info.bound, "deterministic": info.deterministic}
        found.append({"name": name, **facts, "domains": sorted({domain for info in infos for domain in info.domains}), "papers": list(papers)})
    return found


def listed_metrics(only: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """All metrics, or only some; one that cannot be loaded has its ``error`` instead."""
    from sepbench.errors import SepbenchError
    from sepbench.metrics.catalogue import get_metric, metric_names

    found: list[dict[str, Any]] = []
    for name in only or metric_names():
        try:
            info = get_metric(name).info
        except SepbenchError as error:
            found.append({"name": name, "error": str(error)})
            continue
        found.append({"name": name, "unit": info.unit, "higher_is_better": info.higher_is_better, "per": info.per, "source": info.source})
    return found


def listed_method(name: str) -> dict[str, Any]:
    """The page of one method: an entry for each kind of signal that it has another algorithm for.

    Raises:
        MethodError: it cannot be loaded or created, or a setting cannot be shown.
    """
    from sepbench.cli.method_page import facts_of
    from sepbench.registry import create_separator, method_code, separator_class, separator_domains
    from sepbench.settings import REQUIRED, describe

    implementations = []
    for domain in separator_domains(name):
        separator = create_separator(name, domain=domain)
        with method_code(name, "has a setting that cannot be shown"):
            settings = [
                {
                    "name": one.name,
                    "type": one.kind,
                    "required": one.default is REQUIRED,
                    "default": None if one.default is REQUIRED else one.default,
                    "range": one.range,
                    "description": one.description,
                }
                for one in describe(separator_class(name, domain))
            ]
        info, facts = separator.info, facts_of(name, separator)
        implementations.append(
            {
                "title": info.title,
                "version": info.version,
                "domains": sorted(info.domains),
                "supervision": info.supervision,
                "bound": info.bound,
                "deterministic": info.deterministic,
                "paper": info.paper,
                "about": next((text for label, text in facts if label == "about"), ""),
                "caveats": [text for label, text in facts if label == "caveat"],
                "settings": settings,
            }
        )
    return {"name": name, "implementations": implementations}
