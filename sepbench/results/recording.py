"""From a plan to a run's folder with its leaderboard. The command line and the Python API share this. It prints nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from sepbench.data.datasets import manifests_of
from sepbench.data.files.manifests import Manifest, load_manifest
from sepbench.results.anew import begin_anew
from sepbench.results.leaderboard import build_leaderboard, clusters_of, write_leaderboard
from sepbench.results.repeats import mean_values, with_repetitions
from sepbench.results.statistics import TaskDesigns
from sepbench.results.store import RunStore
from sepbench.results.target import Results
from sepbench.results.values import Values
from sepbench.run.backends import Backend
from sepbench.run.execute import Outcome, check_data, execute
from sepbench.run.plan import Plan, check_runnable
from sepbench.run.provenance import commit
from sepbench.run.records import RunRecord
from sepbench.run.sink import Progress
from sepbench.run.timing import keep_freed_memory
from sepbench.suites.model import Suite


def prepare(plan: Plan, fetch: Callable[[Manifest], object]) -> None:
    """Check that a plan can run before anything is written: some method takes some task, and the data are there or are fetched.

    Args:
        fetch: called with the manifest of every data set of the plan; makes it be there.

    Raises:
        RequestError: no method takes any of the tasks.
        DataError, SuiteError: data are missing or not those of the suite.
    """
    check_runnable(plan)
    for name in manifests_of(dataset for task in plan.tasks.values() for dataset in task.spec.datasets):
        fetch(load_manifest(name))
    check_data(plan)


def record_run(
    plan: Plan, record: RunRecord, folder: Path, progress: Progress, backend: Backend, then: Callable[[RunStore], object] = lambda store: None
) -> Outcome:
    """Run a plan in its folder. Results that exist there are not made again.

    Args:
        record: contents of ``run.json``.
        progress: told what happens; entered as a context manager while the methods work, if it is one.
        backend: who works.
        then: called at the end, while the folder is still held against other processes.

    Raises:
        SepbenchError: the folder holds another run, data cannot be read, or results cannot be written.
    """
    keep_freed_memory()
    begin_anew(folder, record, plan.request.retry_failed, progress.warn)
    store = RunStore.create(folder, record, progress.warn)
    with store.session(record):
        with progress if isinstance(progress, AbstractContextManager) else nullcontext():
            outcome = execute(plan, store, progress, backend, record.command, commit(record.environment))
        store.end_session(plan.metrics)
        then(store)
    return outcome


def finish(store: RunStore, suite: Suite) -> Results:
    """Build a run's leaderboard from the scores on disk and write it to ``leaderboard.csv``, its repetitions included.

    Raises:
        SepbenchError: scores cannot be read, or the file cannot be written.
    """
    run, cells, values = store.read_run(), store.read_cells(), Values.of_run(store)
    designs = TaskDesigns(lambda task: clusters_of(suite, task))
    frame, noted = with_repetitions(build_leaderboard(values, run, cells, suite), cells, store, designs)
    write_leaderboard(frame, leaderboard_path(store))
    return Results(str(store.path), frame, suite, mean_values(store), noted, {name: method.bound for name, method in run.methods.items()})


def leaderboard_path(store: RunStore) -> Path:
    """Where ``finish`` writes."""
    return store.path / "leaderboard.csv"
