"""Freezing: the digests of a suite's lists and mixtures, written to ``tasks.toml`` once and compared ever after.

Built-in suites are frozen together by ``scripts/build_pairs.py``; a suite in a folder of its own by ``freeze_suite``, the command ``sepbench freeze``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sepbench.data.datasets import open_dataset
from sepbench.data.lists.pairs import PairList, pairs_csv
from sepbench.errors import DataError, SepbenchError, SuiteError
from sepbench.files import write_atomically
from sepbench.registry import own_suite, suite_path
from sepbench.suites.assembly import DerivedList, FrozenList, Listing, Opener, TaskData
from sepbench.suites.loader import load_suite, load_unfrozen
from sepbench.suites.model import Suite, Task
from sepbench.suites.tables import read_table

DIGESTS = "tasks.toml"
SUMS = "SHA256SUMS"
"""Digests of the files of a suite's folder, as ``sha256sum -c`` reads them; ``new-suite`` writes it."""
_HEAD = """\
# Digests of every frozen task, written by sepbench.suites.freeze. Read by load_suite; never edited by hand.
# pairs_sha256: the pair list's file. mixtures_sha256: float32 mixtures in order. train_*: the lists behind level mixtures+one.
"""


def task_digests(task: Task, previous: Mapping[str, Any]) -> dict[str, int | str]:
    """The digests of one task.

    Args:
        task: from ``load_unfrozen``.
        previous: what was frozen before. Digests that need data are kept from it if the data are not on this machine
            and the list, or its rule, is unchanged.
    """
    data = task.data
    found: dict[str, int | str] = {"n": task.n_examples, **_list_digests(data, "pairs", data.pairs, task.split, previous)}
    try:
        found["mixtures_sha256"] = task.verify()
    except DataError:
        kept = found["pairs_sha256"] != "" and previous.get("pairs_sha256") == found["pairs_sha256"]
        found["mixtures_sha256"] = previous.get("mixtures_sha256", "") if kept else ""
    for key, listing in _training_lists(task):
        found |= _list_digests(data, key, listing, "training", previous)
    return found


def _training_lists(task: Task) -> list[tuple[str, Listing]]:
    """Those of a test task, by their keys; a validation task has the same."""
    data = task.data
    lists = (("train_mixtures", data.train_mixtures), ("train_observed", data.train_observed), ("train_sources", data.train_sources))
    return [(key, listing) for key, listing in lists if listing is not None] if task.split == "test" else []


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


def freeze_suite(name: str) -> Suite:
    """Freeze a suite in a folder of its own that is not frozen yet; the frozen suite.

    Lists that rules make are written as CSV files into ``pairs/`` beside the suite's file, and read from there
    afterwards.

    Args:
        name: a suite's name, or the path of its file or folder.

    Raises:
        UnknownNameError: no such suite.
        SuiteError: it comes with a package, it is frozen already, or it is malformed.
        DataError: its data are not here.
        SepbenchError: the folder cannot be written.
    """
    path = own_suite(name)
    if path is None:
        raise SuiteError(f"suite {name!r} ({suite_path(name)}) comes with a package, which freezes it; 'sepbench verify {name}' compares it with its data")
    suite, target = load_unfrozen(path), path.parent / DIGESTS
    whole = read_table(target).raw() if target.is_file() else {}
    before = whole.get(suite.name, {})
    again = "to freeze it anew, raise its version and remove that file"
    if suite.tasks.keys() <= before.keys():
        raise SuiteError(f"suite {suite.name!r} is frozen ({target}); 'sepbench verify {name}' compares, and {again}")
    found = suite_digests(suite, {})
    if changed := [task for task, digests in before.items() if task in found and not found[task].items() <= digests.items()]:
        raise SuiteError(f"task {changed[0]!r} of suite {suite.name!r} is frozen with other digests ({target}); restore its lists and data, or, {again}")
    for task_name, task in suite.tasks.items():
        task.verify()  # raises what task_digests leaves out: freezing half a suite helps nobody
        for key, listing, pairs in _made_by_rules(task):
            file = f"pairs/{task_name}{'' if key == 'pairs' else f'.{key}'}.csv"
            found[task_name][f"{key}_file"] = file
            _write(path.parent / file, pairs_csv(pairs.indices.numpy(), None if pairs.gains is None else pairs.gains.numpy()), listing)
    _write(target, render({**whole, suite.name: found}).encode("utf-8"))
    return load_suite(str(path))


def _made_by_rules(task: Task) -> Iterator[tuple[str, DerivedList, PairList]]:
    """Keys of the lists of a task that a rule makes, and the lists as a whole."""
    for key, listing in [("pairs", task.data.pairs), *_training_lists(task)]:
        if isinstance(listing, DerivedList):
            yield key, listing, task.data.whole_list(listing, task.split if key == "pairs" else "training")


def _write(path: Path, content: bytes, listing: DerivedList | None = None) -> None:
    try:
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        what = f"the list {listing}" if listing is not None else "the digests"
        raise SepbenchError(f"{what} cannot be written to {path}: {error.strerror or error}; choose a writable folder, or free some space") from error
