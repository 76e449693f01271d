"""``sepbench.run``: what ``sepbench run`` does, from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sepbench.ambient import threads as using_threads
from sepbench.api.arguments import choice, flag, names, path_of, public, shown, suite_name, whole
from sepbench.api.opened import Run
from sepbench.api.own_methods import Method, methods_of
from sepbench.api.telling import tell
from sepbench.data.files.fetch import fetch
from sepbench.errors import ArgumentError, flat, nearest
from sepbench.handed_over import HandedOver, handed_over
from sepbench.protocols import Budget
from sepbench.report.fetching import fetch_with_progress
from sepbench.report.progress import RunProgress
from sepbench.results.recording import finish, prepare, record_run
from sepbench.run.backends.chosen import make_backend
from sepbench.run.plan import make_plan
from sepbench.run.provenance import default_folder, run_record
from sepbench.run.request import BUDGETS, RunRequest
from sepbench.run.sink import Silent
from sepbench.suites.loader import load_suite


class _Warns(Silent):
    """Progress that nobody watches; warnings are Python's."""

    def warn(self, text: str) -> None:
        tell(text)


@public
def run(
    suite: str | os.PathLike[str],
    *,
    methods: Method | Sequence[Method] = (),
    tasks: str | Sequence[str] = (),
    limit: int | None = None,
    seed: int = 0,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    out: str | os.PathLike[str] | None = None,
    device: str = "auto",
    budget: Budget = "paper",
    workers: int | Literal["auto"] = 1,
    threads: int | None = None,
    refit: bool = False,
    retry_failed: bool = False,
    keep_estimates: bool = True,
    progress: bool = False,
) -> Run:
    """Separate a suite's mixtures with each method, score them, and open the run; the numbers are those of ``sepbench run``.

    What exists in the run's folder is not done again: the same call opens it, or goes on where it was interrupted. With the same ``out`` a larger
    ``limit``, more methods or more tasks extend it. Prints nothing without ``progress``; what failed is a ``RunWarning`` and stands in ``Run.cells``.

    Args:
        suite: its name (``sepbench list suites``), or the path of its TOML file.
        methods: registered names, classes or objects that offer ``sepbench.protocols.Separator``, one or several. Default: the suite's own list.
        tasks: their names. Default: every task of the test split.
        limit: only the first so many mixtures of each task.
        seed: key of all noise.
        settings: method -> setting -> value. An object that was handed over has its own.
        out: the run's folder. Default: ``runs/SUITE-HASH``, the same for the same call, and for the same command.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        budget: the methods' settings: the paper's, or ``quick`` ones.
        workers: processes that share the work, or ``auto``. The numbers do not depend on it. With several, methods must be registered: other
            processes cannot import a class of a notebook.
        threads: of each process. Default: ``OMP_NUM_THREADS``, or 1, whatever torch is set to. The last bits depend on it.
        refit: train methods again whose fit is in the cache.
        retry_failed: try mixtures again that failed in an earlier session of this run.
        keep_estimates: keep estimates after they are scored; ``Run.estimates`` needs them.
        progress: show bars and lines on stderr, as the command does.

    Raises:
        SepbenchError: an argument that cannot be used, data that are missing, or a folder that holds another run; one line that says what to do.
    """
    chosen, own = methods_of(methods)
    team = _workers(workers, own)
    request = RunRequest(
        suite=suite_name(suite),
        methods=chosen,
        tasks=names("tasks", tasks, "a task's name"),
        limit=None if limit is None else whole("limit", limit, 1),
        device=_device(device),
        seed=whole("seed", seed, 0),
        budget=choice("budget", budget, BUDGETS),  # type: ignore[arg-type]
        settings=_settings(settings),
        keep_estimates=flag("keep_estimates", keep_estimates),
        retry_failed=flag("retry_failed", retry_failed),
        refit=flag("refit", refit),
    )
    watching = flag("progress", progress)
    folder = None if out is None else path_of("out", out)
    with using_threads(thread_count(threads)), handed_over(own):
        return _carried_out(request, folder, str(team), RunProgress() if watching else _Warns())


def _carried_out(request: RunRequest, out: Path | None, workers: str, progress: RunProgress | _Warns) -> Run:
    suite = load_suite(request.suite)
    for name in request.settings:
        known = list(request.methods or suite.methods)
        if name not in known:
            raise nearest(name, known, "method of settings")
    plan = make_plan(request, suite)
    prepare(plan, fetch_with_progress if isinstance(progress, RunProgress) else fetch)
    team = make_backend("local", workers, plan.device)
    record = run_record(plan, _call(request, out), "local", team.workers)
    folder = out or default_folder(record)
    outcome = record_run(plan, record, folder, progress, team, lambda store: finish(store, suite))
    for cell, done in outcome.cells:
        what = f"{cell.method} on {cell.task.spec.name}"
        if done.state == "failed":
            progress.warn(f"{what} failed: {done.error}; Run.cells has the traceback")
        elif done.n_failed:
            first = f"the first with {done.error}; retry_failed=True tries them again"
            progress.warn(f"{what}: {done.n_failed:,} of {done.n_planned:,} mixtures failed, {first}")
    return Run(folder)


def thread_count(threads: object) -> int:
    """Threads of a run: as told, else ``OMP_NUM_THREADS``, else 1, as on the command line.

    Raises:
        ArgumentError: no whole number of at least 1.
    """
    if threads is not None:
        return whole("threads", threads, 1)
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(told) if told.isdecimal() and int(told) else 1


def _workers(workers: object, own: Sequence[HandedOver]) -> int | str:
    count: int | str = "auto" if workers == "auto" else whole("workers", workers, 1)
    if own and count != 1:
        which = ", ".join(f"{one.name!r} ({one.value})" for one in own)
        raise ArgumentError(
            f"workers={count!r} needs methods that other processes can import, and {which} was handed over as a class or an object: register it by an "
            "entry point of the group 'sepbench.separators' (`sepbench new-method` writes one), or leave workers at 1"
        )
    return count


def _device(device: object) -> str:
    if not isinstance(device, str):
        raise ArgumentError(f"device must be 'cpu', 'cuda', 'cuda:N' or 'auto', got {shown(device)}")
    return device


def _settings(settings: object) -> dict[str, dict[str, Any]]:
    if settings is None:
        return {}
    how = "settings must be a dict, method -> setting -> value, such as {'nmf': {'atoms': 8}}"
    if not isinstance(settings, Mapping):
        raise ArgumentError(f"{how}; got {shown(settings)}")
    for method, values in settings.items():
        if not isinstance(method, str) or not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
            raise ArgumentError(f"{how}; got {shown(method)}: {shown(values)}")
    return {method: dict(values) for method, values in settings.items()}


def _call(request: RunRequest, out: Path | None) -> str:
    """The call as text, for the record: what differs from the defaults."""
    default = RunRequest(request.suite)
    told = {
        name: getattr(request, name)
        for name in ("methods", "tasks", "limit", "device", "seed", "budget", "settings", "refit", "retry_failed", "keep_estimates")
    }
    shown_out = {} if out is None else {"out": str(out)}
    keywords = {name: list(value) if isinstance(value, tuple) else value for name, value in told.items() if value != getattr(default, name)} | shown_out
    return flat(f"sepbench.run({', '.join([repr(request.suite), *(f'{name}={value!r}' for name, value in keywords.items())])})")
