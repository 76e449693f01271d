"""``sepbench.run``: what ``sepbench run`` does, from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sepbench.ambient import threads as using_threads
from sepbench.api.arguments import choice, flag, names, one_name, path_of, public, shown, suite_name, whole
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
from sepbench.results.repeats import folder_of
from sepbench.results.store import RunStore
from sepbench.run.backends import Backend
from sepbench.run.backends.chosen import make_backend
from sepbench.run.plan import Plan, make_plan, repeated_plans
from sepbench.run.provenance import default_folder, run_record
from sepbench.run.records import RunRecord
from sepbench.run.request import BUDGETS, RunRequest
from sepbench.run.sink import Silent
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite


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
    seeds: int = 1,
    fits: int = 1,
    workers: int | Literal["auto"] | None = None,
    backend: str = "local",
    threads: int | None = None,
    refit: bool = False,
    retry_failed: bool = False,
    keep_estimates: bool = True,
    latency: bool = False,
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
        seeds: run random methods with so many seeds on the same fit: ``seed`` and those after it. Their spread is in ``Run.summary``.
        fits: fit random methods that learn so many times, with ``seed`` and those after it.
        workers: processes that share the work, or ``auto``. Default: one, or all that a cluster has. The numbers do not depend on it. With several,
            methods must be registered: other processes cannot import a class of a notebook.
        backend: who works: ``local`` (this machine) or ``ray`` (a cluster), or one that a package registers.
        threads: of each process. Default: ``OMP_NUM_THREADS``, or 1, whatever torch is set to. The last bits depend on it.
        refit: train methods again whose fit is in the cache.
        retry_failed: try mixtures again that failed in an earlier session of this run.
        keep_estimates: keep estimates after they are scored; ``Run.estimates`` needs them.
        latency: also measure the seconds of single-mixture calls.
        progress: show bars and lines on stderr, as the command does.

    Raises:
        SepbenchError: an argument that cannot be used, data that are missing, or a folder that holds another run; one line that says what to do.
    """
    chosen, own = methods_of(methods)
    team, by = _workers(workers, own), _backend(backend, own)
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
        latency=flag("latency", latency),
        retry_failed=flag("retry_failed", retry_failed),
        refit=flag("refit", refit),
    )
    folder = None if out is None else path_of("out", out)
    place = _Place(folder, by, team, whole("seeds", seeds, 1), whole("fits", fits, 1), flag("progress", progress))
    with using_threads(thread_count(threads)), handed_over(own):
        return _carried_out(request, place)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where and by whom a request is carried out, and how often; the arguments, checked."""

    out: Path | None
    backend: str
    workers: str
    seeds: int
    fits: int
    watched: bool

    def progress(self) -> RunProgress | _Warns:
        """Of one plan."""
        return RunProgress() if self.watched else _Warns()


def _carried_out(request: RunRequest, place: _Place) -> Run:
    suite = load_suite(request.suite)
    for name in request.settings:
        known = list(request.methods or suite.methods)
        if name not in known:
            raise nearest(name, known, "method of settings")
    plan = make_plan(request, suite)
    prepare(plan, fetch_with_progress if place.watched else fetch)
    team = make_backend(place.backend, place.workers, plan.device)
    command = _call(request, place)
    record = run_record(plan, command, place.backend, team.workers)
    folder = place.out or default_folder(record)
    repeats = list(repeated_plans(plan, suite, place.seeds, place.fits))
    _record(plan, record, folder, team, place, suite, last=not repeats)
    for kind, repeated in repeats:
        seed = repeated.request.seed if kind == "seeds" else repeated.request.fit_seed or 0
        _record(repeated, run_record(repeated, command, place.backend, team.workers), folder_of(folder, kind, seed), team, place, suite, last=False)
    if repeats:
        store = RunStore.open(folder)
        with store.session():
            finish(store, suite)
    return Run(folder)


def _record(plan: Plan, record: RunRecord, folder: Path, team: Backend, place: _Place, suite: Suite, *, last: bool) -> None:
    """One plan in its folder; ``last``: nothing follows that changes its leaderboard."""
    progress = place.progress()
    outcome = record_run(plan, record, folder, progress, team, lambda store: finish(store, suite) if last else None)
    for cell, done in outcome.cells:
        what = f"{cell.method} on {cell.task.spec.name}"
        if done.state == "failed":
            progress.warn(f"{what} failed: {done.error}; Run.cells has the traceback")
        elif done.n_failed:
            first = f"the first with {done.error}; retry_failed=True tries them again"
            progress.warn(f"{what}: {done.n_failed:,} of {done.n_planned:,} mixtures failed, {first}")


def thread_count(threads: object) -> int:
    """Threads of a run: as told, else ``OMP_NUM_THREADS``, else 1, as on the command line.

    Raises:
        ArgumentError: no whole number of at least 1.
    """
    if threads is not None:
        return whole("threads", threads, 1)
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(told) if told.isdecimal() and int(told) else 1


def _workers(workers: object, own: Sequence[HandedOver]) -> str:
    """As the command takes it; empty for the backend's own number."""
    if workers is None:
        return ""
    count: int | str = "auto" if workers == "auto" else whole("workers", workers, 1)
    if own and count != 1:
        raise _not_importable(f"workers={count!r}", own, "leave workers at 1")
    return str(count)


def _backend(backend: object, own: Sequence[HandedOver]) -> str:
    name = one_name("backend", backend, "local, ray or the name of a registered one")
    if own and name != "local":
        raise _not_importable(f"backend={name!r}", own, "leave backend at 'local'")
    return name


def _not_importable(what: str, own: Sequence[HandedOver], otherwise: str) -> ArgumentError:
    which = ", ".join(f"{one.name!r} ({one.value})" for one in own)
    return ArgumentError(
        f"{what} needs methods that other processes can import, and {which} was handed over as a class or an object: register it by an "
        f"entry point of the group 'sepbench.separators' (`sepbench new-method` writes one), or {otherwise}"
    )


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


def _call(request: RunRequest, place: _Place) -> str:
    """The call as text, for the record: what differs from the defaults."""
    default = RunRequest(request.suite)
    told = {
        name: getattr(request, name)
        for name in ("methods", "tasks", "limit", "device", "seed", "budget", "settings", "refit", "retry_failed", "keep_estimates", "latency")
    }
    shown_out: dict[str, object] = {} if place.out is None else {"out": str(place.out)}
    shown_out |= {name: getattr(place, name) for name, usual in (("seeds", 1), ("fits", 1), ("backend", "local")) if getattr(place, name) != usual}
    keywords = {name: list(value) if isinstance(value, tuple) else value for name, value in told.items() if value != getattr(default, name)} | shown_out
    return flat(f"sepbench.run({', '.join([repr(request.suite), *(f'{name}={value!r}' for name, value in keywords.items())])})")
