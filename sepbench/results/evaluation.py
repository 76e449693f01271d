"""``evaluate_estimates``: from estimates that exist already to a run's folder with a row like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from sepbench.data.estimates.opening import Estimates
from sepbench.data.estimates.supplied import Advance
from sepbench.registry import nearest
from sepbench.results.leaderboard import build_leaderboard, clusters_of, write_leaderboard
from sepbench.results.repeats import with_repetitions
from sepbench.results.statistics import TaskDesigns
from sepbench.results.store import RunStore
from sepbench.results.values import Values
from sepbench.run.plan import checked_metrics, resolve_device
from sepbench.run.provenance import commit
from sepbench.run.records import RunRecord
from sepbench.run.supplied import Said, SuppliedCell, check_same, checked_name, checked_supervision, inspect_estimates, score_supplied, supplied_record
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite, Task

DEFAULT_FOLDER = Path("runs")


def evaluate_estimates(
    suite: str | Suite,
    task: str,
    estimates: Estimates,
    name: str,
    out: Path | str | None = None,
    *,
    supervision: str = "",
    limit: int | None = None,
    partial: bool = False,
    allow_clipped: bool = False,
    keep_estimates: bool = True,
    device: str = "cpu",
    command: str = "",
    warn: Callable[[str], None] = lambda text: None,
    inspected: Advance = lambda done, total: None,
    scored: Advance = lambda done, total: None,
) -> RunStore:
    """Score estimates without a method, into a folder that ``show``, ``compare``, ``check``, ``publish`` and ``panel`` take.

    Everything is read and checked before anything is written. The same call goes on where it was stopped; another name, another task or more
    mixtures of the same files grow the folder.

    Args:
        suite: its name, the path of its TOML file, or the suite.
        task: one of its tasks.
        estimates: path of a ``.npy``, ``.npz`` or ``.safetensors`` file, of a folder of images or sounds or of a Parquet index, or an array
            ``(M, K, ...)``; see ``docs/evaluate.md``.
        name: what the row is called; not that of a registered method.
        out: the run's folder. Default: ``runs/SUITE-HASH``, the same for the same files under the same name.
        supervision: what the method learnt from, if that is known: a level of ``protocols.SUPERVISION_LEVELS``.
        limit: only the first so many mixtures.
        partial: mixtures may be missing; the row is marked, and never ranked.
        allow_clipped: take sounds that stay at full scale as they are.
        keep_estimates: keep a copy in the folder, which ``panel``, ``score`` and ``compare`` of sounds need.
        device: where features for FID, KID and inception score are extracted.
        command: the command line, for the records.
        warn: told one line about what is odd.
        inspected, scored: told how many mixtures are read and scored.

    Returns:
        The run's folder, its ``leaderboard.csv`` written.

    Raises:
        EstimatesError: the estimates do not fit; the message counts what is wrong and names the first three cases. Nothing is written then.
        RequestError: a name, supervision, limit or device that makes no sense.
        UnknownNameError: no such suite or task.
        StoreError: the folder holds something else, other estimates of this name, or cannot be written.
    """
    name, supervision, device = checked_name(name), checked_supervision(supervision), resolve_device(device)
    loaded = load_suite(suite) if isinstance(suite, str) else suite
    chosen = _task(loaded, task)
    metrics = checked_metrics(loaded.metrics, [chosen.spec])
    there = RunStore.open(Path(out), warn) if out is not None and (Path(out) / "run.json").is_file() else None
    old = there.read_cell(task, name) if there is not None else None
    if limit is not None and limit > 0 and old is not None:
        limit = max(limit, old.n_planned)  # what is there already is never cut
    cell = inspect_estimates(chosen, name, estimates, limit=limit, partial=partial, allow_clipped=allow_clipped, advance=inspected)
    for warning in cell.warnings:
        warn(warning)
    before = there.read_run() if there is not None else None
    _check(cell, there, before)
    path = str(Path(suite).resolve()) if isinstance(suite, str) and suite.endswith(".toml") else ""
    record = supplied_record(cell, loaded, path, limit, command, before)
    folder = Path(out) if out is not None else DEFAULT_FOLDER / f"{loaded.name}-{_short_hash(cell, loaded)}"
    store = RunStore.create(folder, record, warn)
    said = Said(supervision, command, commit(record.environment))
    with store.session(record):
        _check(cell, store, store.read_run())  # once more: another process may have come between
        score_supplied(cell, store, metrics, said, keep_estimates=keep_estimates, device=device, advance=scored)
        store.end_session(metrics)
        _write_leaderboard(store, loaded)
    return store


def _task(suite: Suite, name: str) -> Task:
    if name not in suite.tasks:
        raise nearest(name, list(suite.tasks), f"task of suite {suite.name}")
    return suite.tasks[name]


def _check(cell: SuppliedCell, store: RunStore | None, run: RunRecord | None) -> None:
    if store is not None and run is not None:
        check_same(cell, run.methods, store.read_cell(cell.task.spec.name, cell.name))


def _short_hash(cell: SuppliedCell, suite: Suite) -> str:
    """Of what was supplied and under which name."""
    whole = "\n".join((suite.name, str(suite.version), cell.task.spec.name, cell.task.digest, cell.name, cell.inspection.sha256))
    return hashlib.sha256(whole.encode()).hexdigest()[:8]


def _write_leaderboard(store: RunStore, suite: Suite) -> None:
    designs = TaskDesigns(lambda task: clusters_of(suite, task))
    cells = store.read_cells()
    frame, _ = with_repetitions(build_leaderboard(Values.of_run(store), store.read_run(), cells, suite), cells, store, designs)
    write_leaderboard(frame, store.path / "leaderboard.csv")
