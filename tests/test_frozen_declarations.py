"""What suites, metrics, methods, data sets and commands declare, as tables in ``tests/golden/outputs/``; nothing is computed.

After a change that is meant, ``python tests/test_frozen_outputs.py`` writes the files anew.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer.main
from frozen_texts import as_text, facts, hold

from sepbench.cli.main import app
from sepbench.data.datasets import registered_dataset
from sepbench.data.files.manifests import load_manifest, manifest_names
from sepbench.metrics.catalogue import cap_of, get_metric
from sepbench.protocols import SUPERVISION_LEVELS
from sepbench.registry import create_separator, separator_domains
from sepbench.resources import suites_root
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def no_folders(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEPBENCH_SUITES", raising=False)


def own(group: str) -> list[str]:
    """Names that sepbench itself registers: a test environment may hold a stranger's."""
    return sorted({point.name for point in entry_points(group=group) if point.dist is not None and point.dist.name == "sepbench"})


def plainly(value: Any) -> Any:
    """As JSON takes it: sets sorted, paths within the repository, other objects by their words."""
    if isinstance(value, dict):
        return {str(key): plainly(one) for key, one in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [plainly(one) for one in value]
    if isinstance(value, Path):
        return value.relative_to(REPOSITORY).as_posix() if value.is_relative_to(REPOSITORY) else value.name
    return value if isinstance(value, str | int | float | bool | None) else str(value).replace(f"{REPOSITORY}/", "")


def suite_facts(suite: Suite) -> dict[str, Any]:
    told = {name: plainly(getattr(suite, name)) for name in ("name", "version", "title", "description", "domain", "metrics", "ranking_metric", "methods")}
    tasks = {}
    for name, task in suite.tasks.items():
        data = {key: plainly(getattr(task.data, key)) for key in task.data.__dataclass_fields__ if key not in {"opener", "slots", "usable", "derived"}}
        support = {level: task.support(level) for level in SUPERVISION_LEVELS}  # type: ignore[arg-type]
        told_of = [task.split, task.validates, task.n_examples, task.digest[:8] if task.frozen else "", task.spec.class_agnostic]
        spec = plainly(asdict(task.spec))
        del spec["suite"], spec["name"], data["operator"]
        tasks[name] = [
            " ".join(map(str, told_of)),
            *(" ".join(f"{key}={one}" for key, one in each.items() if one not in (None, "", False)) for each in (spec, data)),
            *(f"slot {' '.join(map(str, plainly(list(asdict(slot).values()))))}" for slot in task.data.slots),
            " ".join(level for level, one in support.items() if one.ok),
            *dict.fromkeys(one.note for one in support.values() if one.note),
        ]
    published = ["|".join(map(str, plainly(list(asdict(row).values())))) for row in suite.published]
    return told | {"tasks": tasks, "published": published}


def test_suites_and_their_tasks() -> None:
    found = {path.stem: suite_facts(load_suite(path.stem)) for path in sorted(suites_root().glob("*.toml"))}
    assert found
    hold("declared-suites.txt", as_text(found))


def test_metrics() -> None:
    names = own("sepbench.metrics")
    hold("declared-metrics.txt", as_text({name: plainly(asdict(get_metric(name).info)) | {"cap": str(cap_of(name))} for name in names}))


def test_methods() -> None:
    found = {}
    for name in sorted({name.removesuffix(".audio").removesuffix(".image").removesuffix(".vector") for name in own("sepbench.separators")}):
        for domain in separator_domains(name):
            info = create_separator(name, domain=domain).info
            found[f"{name} {domain or ''}".strip()] = plainly(asdict(info))
    hold("declared-methods.txt", as_text(found))


def test_data_sets_and_manifests() -> None:
    sets = {name: {"manifest": registered_dataset(name).manifest, "splits": list(registered_dataset(name).splits)} for name in own("sepbench.datasets")}
    told = {}
    for name in manifest_names():
        whole = plainly(asdict(load_manifest(name)))
        files = [f"{one['name']} {one['size']} {(one['sha256'] or one['md5'])[:8]} {one['optional']} {one['form']} {one['urls']}" for one in whole.pop("files")]
        told[name] = whole | {"files": files[:8], "count": len(files)}
    hold("declared-data.txt", as_text({"sets": sets, "manifests": told}))


def test_commands_and_options() -> None:
    """Facts of the options and their help; how it is laid out is typer's, and differs between its versions."""
    hold("declared-commands.txt", as_text(facts(command_facts(typer.main.get_command(app)))))


def command_facts(command: Any) -> dict[str, Any]:
    options = []
    for one in command.params:
        bounds = [getattr(getattr(one, "type", None), name, None) for name in ("min", "max")]
        default = one.default if isinstance(one.default, str | int | float | bool | list | tuple) else None
        told = [" ".join([*one.opts, *one.secondary_opts]), getattr(one, "help", None), default, bounds, one.required, one.nargs, getattr(one, "hidden", False)]
        options.append(told)
    inner = {name: command_facts(each) for name, each in sorted(getattr(command, "commands", {}).items())}
    return {"help": command.help, "options": options, **({"commands": inner} if inner else {})}
