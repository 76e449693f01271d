"""Freezing: the digests of a suite's lists and mixtures, written to ``tasks.toml`` once and compared ever after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sepbench.data.datasets import open_dataset
from sepbench.errors import DataError
from sepbench.files import write_atomically
from sepbench.suites.assembly import FrozenList, Listing, Opener, TaskData
from sepbench.suites.loader import load_unfrozen
from sepbench.suites.model import Suite, Task
from sepbench.suites.tables import read_table

_HEAD = """\
# Digests of every frozen task, written by sepbench.suites.freeze. Read by load_suite; never edited by hand.
# pairs_sha256: the pair list's file. mixtures_sha256: float32 mixtures in order. train_*: the lists behind level mixtures+one.
"""


def task_digests(task: Task, previous: Mapping[str, Any]) -> dict[str, int | str]:
    """The digests of one task.

    Args:
        task: from ``load_unfrozen``.
        previous: what was frozen before; what needs data is kept where they are not on this machine and the list, or its rule, is unchanged.
    """
    data = task.data
    found: dict[str, int | str] = {"n": task.n_examples, **_list_digests(data, "pairs", data.pairs, task.split, previous)}
    try:
        found["mixtures_sha256"] = task.verify()
    except DataError:
        kept = found["pairs_sha256"] != "" and previous.get("pairs_sha256") == found["pairs_sha256"]
        found["mixtures_sha256"] = previous.get("mixtures_sha256", "") if kept else ""
    if task.split == "test":
        lists = {"train_mixtures": data.train_mixtures, "train_observed": data.train_observed, "train_sources": data.train_sources}
        for key, listing in lists.items():
            found |= {} if listing is None else _list_digests(data, key, listing, "training", previous)
    return found


def _list_digests(data: TaskData, key: str, listing: Listing, role: str, previous: Mapping[str, Any]) -> dict[str, int | str]:
    if isinstance(listing, FrozenList):
        return {f"{key}_sha256": listing.sha256}
    try:
        digest = data.derived_sha256(listing, role)
    except DataError:
        digest = previous.get(f"{key}_sha256", "") if previous.get(f"{key}_rule") == listing.rule.text else ""
    return {f"{key}_rule": listing.rule.text, f"{key}_sha256": digest}


def suite_digests(suite: Suite, previous: Mapping[str, Any]) -> dict[str, dict[str, int | str]]:
    """The digests of all tasks of one suite, by task."""
    return {name: task_digests(task, previous.get(name, {})) for name, task in suite.tasks.items()}


def render(digests: Mapping[str, Mapping[str, Mapping[str, int | str]]]) -> str:
    """``tasks.toml``: suite -> task -> key -> value."""
    lines = [_HEAD]
    for suite in sorted(digests):
        for task, values in digests[suite].items():
            lines.append(f"[{suite}.{task}]")
            for key, value in values.items():
                comment = "  # the data were not on the machine that froze this list" if value == "" else ""
                lines.append(f"{key} = {value}" if isinstance(value, int) else f'{key} = "{value}"{comment}')
            lines.append("")
    return "\n".join(lines)


def write_digests(suites: Sequence[Path], target: Path, opener: Opener = open_dataset) -> None:
    """Freeze suites (TOML files) into ``target``; other suites in it stay as they are.

    Raises:
        SuiteError: a suite or list is malformed.
        OSError: ``target`` cannot be written.
    """
    before = read_table(target).raw() if target.is_file() else {}
    after = dict(before)
    for path in suites:
        suite = load_unfrozen(path, opener)
        after[suite.name] = suite_digests(suite, before.get(suite.name, {}))
    write_atomically(target, lambda temporary: temporary.write_text(render(after), encoding="utf-8"))
