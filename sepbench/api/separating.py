"""``sepbench.separate``: a method on mixtures of one's own, without a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from sepbench.ambient import generators
from sepbench.ambient import threads as using_threads
from sepbench.api.arguments import choice, one_name, public, shown, whole
from sepbench.api.own_methods import Method, methods_of
from sepbench.api.running import thread_count
from sepbench.api.telling import tell
from sepbench.data.views import TrainingMaterial, make_view
from sepbench.errors import ArgumentError, MethodError, UnsupportedTaskError
from sepbench.handed_over import handed_over
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import Budget, Domain, MixingOperator, Mixtures, RunContext, Separator, TaskSpec
from sepbench.registry import create_separator, method_code
from sepbench.run.image_range import estimates_warning
from sepbench.run.plan import ask_support, check_name, make_plan, resolve_device
from sepbench.run.request import BUDGETS, RunRequest
from sepbench.run.separate import ContractError, checked_call
from sepbench.run.session import Tell, open_session
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite, Task, example_numbers

if TYPE_CHECKING:
    from sepbench.suites.model import ExampleIds

_COLOURS = 3
STATED_OPERATORS = ("sum", "mean", "channel-mean")
"""What ``operator`` may say; gains belong to the examples of a task."""


@public
def separate(
    method: Method,
    mixtures: torch.Tensor | npt.NDArray[np.floating[Any]],
    *,
    task: str | Task | None = None,
    operator: str | None = None,
    n_sources: int | None = None,
    ids: ExampleIds | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    budget: Budget = "paper",
    sample_rate: int | None = None,
    threads: int | None = None,
) -> torch.Tensor:
    """Estimates ``(B, K, ...)`` float32 on the CPU of mixtures ``(B, ...)``; draws ``(B, N, K, ...)`` where the task is one that scores draws.

    Either ``task`` says what is mixed and how, and a method that learns is fitted on its training data, or read from the cache of fits as in a run;
    or ``operator`` and ``n_sources`` say it, for methods that learn nothing. Estimates are in the method's own order of sources. Estimates of images
    far outside [0, 1] are a ``RunWarning``.

    Args:
        method: a registered name, a class or an object that offers ``sepbench.protocols.Separator``.
        mixtures: tensor or array of floating-point numbers: images ``(B, C, H, W)``, sounds ``(B, channels, T)`` or vectors ``(B, D)``, in the range
            that the operator makes of sources in their own (images: [0, K] for ``sum``, [0, 1] for ``mean``).
        task: ``"SUITE/TASK"``, or ``sepbench.load_suite(...).task(...)``.
        operator: ``sum``, ``mean`` or ``channel-mean``.
        n_sources: K.
        ids: numbers of the task's examples that these mixtures are: the key of all noise, and of gains and references where a task or a method has
            such. Default: 0, 1, ... as the key of the noise alone.
        settings: setting -> value.
        seed: key of all noise.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        budget: see ``sepbench.run``.
        sample_rate: samples per second, where no task says it.
        threads: see ``sepbench.run``.

    Raises:
        ArgumentError: mixtures of another shape than the task's, or arguments that do not go together.
        UnsupportedTaskError: the method does not take this.
        MethodError: the method failed, or returned something that is no estimate.
    """
    names, own = methods_of([method])
    given = _Given(
        names[0],
        _values(mixtures),
        _settings(names[0], settings),
        ids,
        whole("seed", seed, 0),
        choice("budget", budget, BUDGETS),  # type: ignore[arg-type]
        resolve_device(one_name("device", device, "cpu, cuda, cuda:N or auto")),
    )
    with using_threads(thread_count(threads)), handed_over(own):
        if task is None:
            return _stated(given, operator, n_sources, sample_rate)
        for name, value in (("operator", operator), ("n_sources", n_sources), ("sample_rate", sample_rate)):
            if value is not None:
                raise ArgumentError(f"{name} is what the task says; leave out {name} or task")
        return _of_task(given, _task(task))


@dataclass(frozen=True, slots=True)
class _Given:
    """The arguments, checked."""

    method: str
    values: torch.Tensor
    settings: Mapping[str, Any]
    ids: ExampleIds | None
    seed: int
    budget: Budget
    device: str


def _of_task(given: _Given, task: Task) -> torch.Tensor:
    """With what a task says: operator, training data, and the examples' own gains and references where ``ids`` names them."""
    spec, where = task.spec, f"{task.spec.suite}/{task.spec.name}"
    settings = {given.method: given.settings} if given.settings else {}
    request = RunRequest(spec.suite, (given.method,), (spec.name,), device=given.device, seed=given.seed, budget=given.budget, settings=settings)
    plan = make_plan(request, _alone(task))
    (cell,) = plan.cells
    if not cell.support.ok:
        raise UnsupportedTaskError(f"{given.method} does not take {where}: {cell.support.note}")
    bound, named = cell.supervision == "bound", given.ids is not None
    if not named and (bound or spec.operator == "gain"):
        needs = f"{given.method} is handed the true sources" if bound else f"{where} mixes every example with gains of its own"
        raise ArgumentError(f"{needs}: say which of its examples these mixtures are, ids=...")
    mixture_set = task.mixture_set()
    ids = _ids(given, task if named else None)
    operator = mixture_set.operator_for(ids if named else torch.zeros(len(ids), dtype=torch.int64))
    _check_shape(given.values, spec, mixture_set.operator_for([0]), where)
    with _as_found(given.method):
        session = open_session(cell, plan, mixture_set, _told)
        return _estimates(given, session.separator, session.ctx, ids, operator, cell.batch)


def _alone(task: Task) -> Suite:
    """A suite of this task and nothing else; its ranking metric ranks nothing."""
    return Suite(task.spec.suite, 0, "", "", task.spec.domain, (), "mixture_error", (), {task.spec.name: task}, [])


def _told(word: Tell) -> None:
    if word.warning:
        tell(word.warning)


@contextmanager
def _as_found(method: str) -> Iterator[None]:
    """Around a method's code: what it raises becomes one line, and the global generators are afterwards as they were."""
    restore = generators()
    try:
        with method_code(method, "failed"):
            yield
    except ContractError as error:
        raise MethodError(f"method {method!r}: {error}") from error
    finally:
        restore()


def _stated(given: _Given, operator: str | None, n_sources: int | None, sample_rate: int | None) -> torch.Tensor:
    """Without a task: for methods that learn nothing."""
    if operator is None or n_sources is None:
        raise ArgumentError("say how the mixtures were made: task='SUITE/TASK', or operator= and n_sources=")
    if operator == "gain":
        raise ArgumentError("gains belong to the examples of a task: name task= and ids=")
    spec = _spec(given.values, choice("operator", operator, STATED_OPERATORS), whole("n_sources", n_sources, 1), sample_rate)
    separator = create_separator(given.method, given.settings, spec.domain)
    info = separator.info
    check_name(given.method, info)
    if info.supervision != "blind":
        what = "is handed the true sources" if info.supervision == "bound" else f"learns from training data (level {info.supervision!r})"
        raise UnsupportedTaskError(f"{given.method} {what}: name a task that has them, task='SUITE/TASK'")
    if spec.domain not in info.domains:
        raise UnsupportedTaskError(f"{given.method} separates {', '.join(sorted(info.domains))} signals only, and these are of kind {spec.domain}")
    support = ask_support(given.method, separator, spec, given.device)
    if not support.ok:
        raise UnsupportedTaskError(f"{given.method} does not take these mixtures: {support.note}")
    mixing = make_operator(operator, spec.n_sources, channels=spec.source_shape[0])
    _check_shape(given.values, spec, mixing, f"operator {operator!r}")
    ids = _ids(given, None)
    ctx = RunContext(task=spec, device=given.device, noise=NoiseSource(given.seed), seed=given.seed, budget=given.budget)
    with _as_found(given.method):
        separator.fit(make_view("blind", spec, _no_material), ctx)
        return _estimates(given, separator, ctx, ids, mixing, (info.max_batch_cpu or info.max_batch) if given.device == "cpu" else info.max_batch)


def _estimates(given: _Given, separator: Separator, ctx: RunContext, ids: torch.Tensor, operator: MixingOperator, batch: int) -> torch.Tensor:
    parts = []
    for rows in torch.arange(len(ids)).split(batch):
        mixed = Mixtures(given.values[rows].to(given.device), ids[rows], operator.select(rows))
        estimates, _ = checked_call(separator, mixed, ctx)
        bad = rows[~estimates.flatten(1).isfinite().all(1)]
        if len(bad):
            raise MethodError(f"method {given.method!r}: the estimate of mixture {int(bad[0])} holds values that are not finite")
        parts.append(estimates)
    whole_batch = torch.cat(parts)
    odd = estimates_warning(f"method {given.method!r}", ctx.task.domain, whole_batch)
    if odd:
        tell(odd)
    return whole_batch


def _values(mixtures: object) -> torch.Tensor:
    """Mixtures as float32 on the CPU.

    Raises:
        ArgumentError: no tensor or array, no floating-point numbers, no batch axis, nothing in it, or values that are not finite.
    """
    how = "mixtures must be a tensor or array of floating-point numbers, images (B, C, H, W), sounds (B, channels, T) or vectors (B, D)"
    if isinstance(mixtures, np.ndarray):
        if mixtures.dtype.kind != "f":
            raise ArgumentError(f"{how}; got an array of {mixtures.dtype}")
        mixtures = torch.from_numpy(np.array(mixtures, dtype=np.float32))
    if not isinstance(mixtures, torch.Tensor):
        raise ArgumentError(f"{how}; got {shown(mixtures)}")
    if not mixtures.is_floating_point():
        raise ArgumentError(f"{how}; got a tensor of {str(mixtures.dtype).removeprefix('torch.')}")
    if mixtures.ndim not in (2, 3, 4) or not mixtures.numel():
        raise ArgumentError(f"{how}; got shape {tuple(mixtures.shape)}")
    values = mixtures.detach().to("cpu", torch.float32).clone(memory_format=torch.contiguous_format)
    if not bool(values.isfinite().all()):
        raise ArgumentError(f"mixture {int((~values.flatten(1).isfinite().all(1)).nonzero()[0])} holds values that are not finite")
    return values


def _settings(method: str, settings: object) -> dict[str, Any]:
    if settings is None:
        return {}
    if not isinstance(settings, Mapping) or not all(isinstance(key, str) for key in settings):
        raise ArgumentError(f"settings must be a dict, setting -> value, such as {{'atoms': 8}}; got {shown(settings)}")
    return dict(settings)


def _task(task: object) -> Task:
    """A task from what ``separate`` takes.

    Raises:
        ArgumentError: neither a task nor ``SUITE/TASK``.
        UnknownNameError: no such suite, or no such task in it.
    """
    if isinstance(task, Task):
        return task
    suite, slash, name = one_name("task", task, "'SUITE/TASK'").rpartition("/")
    if not (suite and slash and name):
        raise ArgumentError(f"task must be 'SUITE/TASK', such as 'digits-pairs/class-split', got {shown(task)}")
    return load_suite(suite).task(name)


def _ids(given: _Given, task: Task | None) -> torch.Tensor:
    """Numbers of the mixtures ``(B,)`` int64: the task's examples if it is given, else any that are told apart."""
    count = len(given.values)
    limit, where = (task.n_examples, f"task {task.spec.name!r}") if task is not None else (1 << 62, "the noise")
    ids = torch.arange(count) if given.ids is None else example_numbers(given.ids, limit, where)
    if len(ids) != count:
        raise ArgumentError(f"ids names {len(ids):,} examples, and there are {count:,} mixtures; name one for each")
    return ids


def _spec(values: torch.Tensor, operator: str, n_sources: int, sample_rate: int | None) -> TaskSpec:
    """What a method is told of mixtures that belong to no task."""
    domain: Domain = {2: "vector", 3: "audio", 4: "image"}[values.ndim]  # type: ignore[assignment]
    shape = (_COLOURS, *values.shape[2:]) if operator == "channel-mean" else tuple(values.shape[1:])
    rate = None if sample_rate is None else whole("sample_rate", sample_rate, 1)
    classes, slots = ("any",) * n_sources, tuple(range(n_sources))
    return TaskSpec("own", "mixtures", domain, n_sources, shape, operator, classes, "permutation", slots, sample_rate=rate)


def _check_shape(values: torch.Tensor, spec: TaskSpec, operator: MixingOperator, where: str) -> None:
    shape = tuple(operator.forward(torch.zeros(1, spec.n_sources, *spec.source_shape)).shape[1:])
    if tuple(values.shape[1:]) != shape:
        batch = " (a single mixture needs a batch axis too: mixtures[None])" if tuple(values.shape) == shape else ""
        raise ArgumentError(f"{where} has mixtures of shape (B, {', '.join(map(str, shape))}), got {tuple(values.shape)}{batch}")


def _no_material() -> TrainingMaterial:
    raise MethodError("there are no training data without a task")
