"""A method whose code was mended after all of its mixtures failed: it begins anew in the folder of its run, for there is nothing of it to lose."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from sepbench.results.another_run import another_run
from sepbench.results.layout import Layout
from sepbench.results.score_files import StoreError
from sepbench.results.store import RunStore
from sepbench.run.cell import holds_results
from sepbench.run.provenance import FORMAT, conflict, identity
from sepbench.run.records import RunRecord


def begin_anew(folder: Path, record: RunRecord, retry_failed: bool, warn: Callable[[str], None] = lambda text: None) -> None:
    """Remove from a run's folder what is there of methods that have changed since and of which nothing was scored; only if nothing else differs.

    Args:
        folder: of the run; there need be none.
        record: of the session that begins now.
        retry_failed: failures are to be tried again; without it nothing is removed.
        warn: told one line about every such method.

    Raises:
        StoreError: a method could begin anew, and nobody asked for it; or another process works in the folder.
    """
    if not (folder / "run.json").is_file():
        return
    store = RunStore.open(folder)
    there = store.read_run()
    void = [name for name in _changed(there, record) if not _has_results(store, there, name)] if there.format == FORMAT else []
    left = _without(there, void)
    if not void or conflict(left, record) is not None:  # what else differs is told by who opens the folder
        return
    if not retry_failed:
        key, old, new = conflict(there, record) or ("", "", "")
        raise StoreError(another_run(folder, key, old, new, f"give --retry-failed to begin {void[0]} anew, of which nothing was scored"))
    with store.session():
        for name in void:
            _remove(store, there, name)
            warn(f"{name} has changed since, and nothing of it was scored: it begins anew")
        store.write_run(left)


def _changed(there: RunRecord, here: RunRecord) -> list[str]:
    """Methods of both records that are not the same."""
    old, new = identity(there), identity(here)
    keys = [key.partition(" of method ")[2] for key in new if key in old and old[key] != new[key]]
    return list(dict.fromkeys(name for name in keys if name in here.methods))


def _without(record: RunRecord, methods: Collection[str]) -> RunRecord:
    grid = {task: [name for name in names if name not in methods] for task, names in record.grid.items()}
    return record.model_copy(update={"methods": {name: entry for name, entry in record.methods.items() if name not in methods}, "grid": grid})


def _has_results(store: RunStore, run: RunRecord, method: str) -> bool:
    return any(holds_results(store.find(task, method, run.metrics)) for task in run.tasks if method in run.methods_on(task))


def _remove(store: RunStore, run: RunRecord, method: str) -> None:
    """Its results before its records: what is there without a record counts as damage, a record alone does not."""
    for task in run.tasks:
        for item in store.find(task, method, run.metrics):
            store.remove_estimates(item.shard)
            store.remove_scores(item.shard)
        Layout(store.path).cell(task, method).unlink(missing_ok=True)
