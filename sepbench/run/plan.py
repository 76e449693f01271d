"""Plan: from a request to cells (task, method), which are cut into shards as they run. Nothing is read, fitted or written here."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from sepbench.errors import MethodError, SuiteError, flat, some
from sepbench.errors import reason as why
from sepbench.handed_over import held_state
from sepbench.metrics.catalogue import defined_for, get_metric
from sepbench.precision import KnowsDevices
from sepbench.protocols import Domain, MethodInfo, PosteriorSampler, Separator, Supervision, Support, TaskSpec
from sepbench.registry import create_separator, method_code, nearest
from sepbench.run.request import RequestError, RunRequest
from sepbench.settings import setting_files, settings_of
from sepbench.torch_later import torch

if TYPE_CHECKING:
    from sepbench.suites.model import Suite, Task


@dataclass(frozen=True, slots=True)
class Shard:
    """Examples ``start`` to ``stop - 1`` of one task under one method: the unit of work, written at once."""

    task: str
    method: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        return f"{self.task}, {self.method}, mixtures {self.start} to {self.stop - 1}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One method on one task.

    Attributes:
        task: the task; its mixtures are opened when the cell runs.
        method: registry key.
        info: what the method says of itself.
        settings: what its constructor is given.
        supervision: the level it is granted: ``prior`` instead of ``sources`` where the task has one class only.
        support: whether it takes the task, and why not.
        n_planned: the first so many mixtures of the task.
        batch: the most mixtures that one call is given on the plan's device.
        unit: shards begin at multiples of it. Batches are cut from there, so the bits of a result do not depend on how the work was shared out.
        fixed: shards are just as long as ``unit`` (``--shard-size``) instead of as long as their cost allows.
    """

    task: Task
    method: str
    info: MethodInfo
    settings: Mapping[str, Any]
    supervision: Supervision
    support: Support
    n_planned: int
    batch: int
    unit: int
    fixed: bool = False

    def pieces(self, gap: Shard, mixtures: int) -> Iterator[Shard]:
        """A gap of what exists, cut into shards of about so many mixtures: whole units, at least one, shorter only at the gap's ends."""
        size = self.unit if self.fixed else max(1, mixtures // self.unit) * self.unit
        start = gap.start
        while start < gap.stop:
            stop = min(gap.stop, start // self.unit * self.unit + size)
            yield Shard(gap.task, gap.method, start, stop)
            start = stop


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """A method of the plan.

    Attributes:
        info, cls: what it says of itself, and its class.
        settings: every setting it will run with, defaults included.
        weights_sha256: digest of the weights that it names itself before it is fitted, or empty.
        files: setting -> path -> SHA-256 of the files and folders that settings name; see ``setting_files``.
    """

    info: MethodInfo
    cls: type
    settings: Mapping[str, Any]
    weights_sha256: str
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """A request with every name resolved: ``device`` is a device of this machine, ``cells`` is the grid in running order."""

    request: RunRequest
    suite: Suite
    metrics: tuple[str, ...]
    methods: Mapping[str, MethodEntry]
    tasks: Mapping[str, Task]
    cells: tuple[Cell, ...]

    @property
    def device(self) -> str:
        return self.request.device

    def n_planned(self, task: str) -> int:
        return planned_examples(self.tasks[task].n_examples, self.request.limit)


def planned_examples(n_examples: int, limit: int | None) -> int:
    """Mixtures of a task that a run takes: the first ``limit``, or all."""
    return n_examples if limit is None else min(limit, n_examples)


def make_plan(request: RunRequest, suite: Suite) -> Plan:
    """Resolve a request against a suite.

    Raises:
        UnknownNameError: no such task, method or setting.
        RequestError: the device is not there.
        SettingError: a setting is of the wrong kind or out of bounds.
        MethodError: a method cannot be loaded, refuses its settings or breaks the contract before it is fitted.
        SuiteError: a task's name cannot be a file name, it has no mixtures, or the suite ranks by a metric that is no mean over mixtures.
    """
    request = replace(request, device=resolve_device(request.device))
    tasks = _chosen_tasks(request, suite)
    names = _unique(request.methods or suite.methods)
    for name in request.settings:
        if name not in names:
            raise RequestError(f"--set names method {name!r}, which is not part of this run ({some(names)})")
    separators = {name: _create(name, request.settings.get(name, {}), suite.domain) for name in names}
    entries = {name: _entry(name, separator, request.settings.get(name, {})) for name, separator in separators.items()}
    cells = tuple(_cell(task, name, separators[name], request) for task in tasks.values() for name in names)
    if get_metric(suite.ranking_metric).info.per in ("group", "set"):
        raise SuiteError(f"suite {suite.name!r} ranks by {suite.ranking_metric!r}, one value of many mixtures together; rank by a metric of each mixture")
    return Plan(request, suite, checked_metrics(suite.metrics, [task.spec for task in tasks.values()]), entries, tasks, cells)


def repeated_plans(plan: Plan, suite: Suite, seeds: int, fits: int) -> Iterator[tuple[Literal["seeds", "fits"], Plan]]:
    """What ``--seeds`` and ``--fits`` add to a plan: the random methods with the seeds after its own, and those of them that learn with other fits.

    A repetition of ``seeds`` keeps the plan's fit, also where that was made again (``refit``), one of ``fits`` its seed of separation.
    """
    request, own = plan.request, plan.request.seed
    fit_seed = own if request.fit_seed is None else request.fit_seed
    random = tuple(name for name, entry in plan.methods.items() if not entry.info.deterministic)
    learning = tuple(name for name in random if plan.methods[name].info.supervision not in ("blind", "bound"))
    kinds: tuple[tuple[Literal["seeds", "fits"], tuple[str, ...], int], ...] = (("seeds", random, seeds), ("fits", learning, fits))
    for kind, names, count in kinds:
        settings = {name: values for name, values in request.settings.items() if name in names}
        for other in range(own + 1, own + count) if names else ():
            seed, fit = (other, fit_seed) if kind == "seeds" else (own, other)
            again = request.refit and kind == "fits"
            yield kind, make_plan(replace(request, methods=names, settings=settings, seed=seed, fit_seed=fit, refit=again), suite)


def check_runnable(plan: Plan) -> None:
    """Refuse a plan in which nothing runs, before anything is written.

    Raises:
        RequestError: no method takes any of the tasks; the message has the first reason.
    """
    if any(cell.support.ok for cell in plan.cells):
        return
    if not plan.cells:
        raise RequestError("nothing to run: the suite names no method, or has no test task; name some with --methods and --tasks")
    first, others = plan.cells[0], len(plan.cells) - 1
    more = f" (and {others:,} more)" if others else ""
    reason = flat(first.support.note) or "no reason given"
    raise RequestError(f"nothing to run: {first.method} on {first.task.spec.name}: {reason}{more}; choose others with --methods, --tasks or --suite")


def resolve_device(wanted: str) -> str:
    """``auto`` to a device that is there; the others checked.

    Raises:
        RequestError: not a device of this machine.
    """
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return "cuda" if visible else "cpu"
    kind, _, number = wanted.partition(":")
    if wanted == "cpu":
        return wanted
    if kind != "cuda" or (":" in wanted and not number.isdecimal()):
        raise RequestError(f"unknown device {wanted!r}; choose cpu, cuda, cuda:N or auto")
    if not visible:
        raise RequestError(f"device {wanted!r} was asked for, but this torch sees no CUDA GPU; use --device cpu")
    if number and int(number) >= visible:
        raise RequestError(f"device {wanted!r} was asked for, but there are only {visible} GPUs (cuda:0 to cuda:{visible - 1})")
    return wanted


def checked_metrics(names: Sequence[str], specs: Iterable[TaskSpec]) -> tuple[str, ...]:
    """The names without repetition, each known and defined for every task's kind of signal.

    Raises:
        UnknownNameError: no such metric.
        RequestError: a metric that is not defined for a task's signals, or scores estimates where the task has draws (and the reverse).
    """
    chosen, specs = _unique(names), list(specs)
    for name in chosen:
        metric = get_metric(name)
        domains, per = metric.info.domains, metric.info.per
        for spec in specs:
            if (per == "posterior") != bool(spec.posterior_draws):
                has = "posterior draws" if spec.posterior_draws else "estimates"
                raise RequestError(f"metric {name!r} cannot score task {spec.name!r}, whose results are {has}; leave it out")
            if spec.domain not in domains:
                raise RequestError(f"metric {name!r} is defined for {', '.join(sorted(domains))} signals, task {spec.name!r} has {spec.domain} signals")
            support = defined_for(metric, spec)
            if not support.ok:
                raise RequestError(f"metric {name!r} {support.note}; leave it out for task {spec.name!r}")
    return chosen


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _chosen_tasks(request: RunRequest, suite: Suite) -> dict[str, Task]:
    names = _unique(request.tasks) or tuple(name for name, task in suite.tasks.items() if task.split == "test")
    for name in names:
        if name not in suite.tasks:
            raise nearest(name, list(suite.tasks), f"task of suite {suite.name}")
        _check_file_name(name, "task", SuiteError)
        if suite.tasks[name].n_examples < 1:
            raise SuiteError(f"task {name!r} of suite {suite.name!r} has no mixtures")
    return {name: suite.tasks[name] for name in names}


def _check_file_name(name: str, what: str, error: type[SuiteError] | type[MethodError]) -> None:
    if "--" in name or "/" in name or name.startswith(".") or not name:
        raise error(f"{what} name {name!r} cannot stand in a file name: it must not be empty, start with a dot or contain '/' or '--'")


def _create(name: str, settings: Mapping[str, Any], domain: Domain) -> Separator:
    _check_file_name(name, "method", MethodError)
    separator = create_separator(name, settings, domain)
    check_name(name, separator.info)
    _check_info(name, separator.info)
    return separator


def check_name(name: str, info: MethodInfo) -> None:
    """Hold a method's name against the one that it was asked for by.

    Raises:
        MethodError: rows under one name would be of a method that says it is another.
    """
    if info.name != name:
        raise MethodError(f"method {name!r} calls itself {flat(info.name)!r}; its info.name must be that of its entry point, {name!r}")


def _check_info(name: str, info: MethodInfo) -> None:
    """What the plan itself builds on; ``sepbench validate`` holds the rest against the contract."""
    if not isinstance(info.max_batch, int) or info.max_batch < 1:
        raise MethodError(f"method {name!r} declares max_batch {info.max_batch!r}; it must be a whole number of at least 1")
    if info.max_batch_cpu is not None and (not isinstance(info.max_batch_cpu, int) or info.max_batch_cpu < 1):
        raise MethodError(f"method {name!r} declares max_batch_cpu {info.max_batch_cpu!r}; it must be a whole number of at least 1, or None")
    if info.supervision not in get_args(Supervision):
        raise MethodError(f"method {name!r} declares supervision {info.supervision!r}; it must be one of {', '.join(get_args(Supervision))}")
    domains: object = info.domains
    if isinstance(domains, str) or not isinstance(domains, Collection):
        raise MethodError(f"method {name!r} declares domains {domains!r}; it must be a frozenset of {', '.join(get_args(Domain))}")


def _entry(name: str, separator: Separator, given: Mapping[str, Any]) -> MethodEntry:
    with method_code(name, "cannot say its settings or weights_sha256"):
        settings = dict(given) | settings_of(separator) | held_state(name)  # a plain class need not say what it was given
        weights = flat(getattr(separator, "weights_sha256", ""))
    for key, value in settings.items():
        try:
            json.dumps({key: value}, default=str, ensure_ascii=False).encode()  # as provenance.run_record will
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # "default" calls what the value's own class has to say
            raise MethodError(
                f"method {name!r}: setting {key!r} cannot be written to run.json ({why(error)}); use numbers, words, lists, or dicts whose keys are words"
            ) from error
    return MethodEntry(separator.info, type(separator), settings, weights, setting_files(type(separator), settings))


def _cell(task: Task, method: str, separator: Separator, request: RunRequest) -> Cell:
    info, spec = separator.info, task.spec
    # One class only: clean samples "per class" carry no class knowledge, so the level granted and recorded is "prior".
    supervision: Supervision = "prior" if info.supervision == "sources" and spec.class_agnostic else info.supervision
    n_planned, fixed = planned_examples(task.n_examples, request.limit), request.shard_size is not None
    batch = (info.max_batch_cpu or info.max_batch) if request.device == "cpu" else info.max_batch
    unit = request.shard_size or batch
    support = task_support(method, separator, task, request.device)
    return Cell(task, method, info, request.settings.get(method, {}), supervision, support, n_planned, batch, unit, fixed)


def task_support(method: str, separator: Separator, task: Task, device: str = "") -> Support:
    """Whether a method takes a task: by its signals, by what the suite scores and can teach, and by what the method says itself.

    Raises:
        SupportError, SepbenchError: see ``ask_support``.
    """
    info, spec = separator.info, task.spec
    if spec.domain not in info.domains:
        return Support(False, f"separates {', '.join(sorted(info.domains))} signals only")
    if spec.posterior_draws and not isinstance(separator, PosteriorSampler):
        return Support(False, "draws no posterior samples, which is what this suite scores")
    trainable = task.support(info.supervision)
    if not trainable.ok:
        return trainable
    return ask_support(method, separator, spec, device)


class SupportError(MethodError):
    """``supports`` raised, or returned something that is no ``Support``."""


def ask_support(method: str, separator: Separator, spec: TaskSpec, device: str = "") -> Support:
    """What a method's ``supports`` answers, and its ``supports_device`` if it has one and a device is named.

    Raises:
        SupportError: it breaks the contract.
        SepbenchError: what the user gave cannot be used (weights that are not there, say): nothing is to be started with it.
    """
    with method_code(method, f"cannot say whether it supports task {spec.name!r}", SupportError):
        answer: object = separator.supports(spec)
        if device and isinstance(answer, Support) and answer.ok and isinstance(separator, KnowsDevices):
            here = separator.supports_device(device)
            answer = answer if isinstance(here, Support) and here.ok else here
    if not isinstance(answer, Support):
        raise SupportError(f"method {method!r}: supports() must return a sepbench.protocols.Support, got {type(answer).__name__}")
    return replace(answer, note=flat(answer.note))
