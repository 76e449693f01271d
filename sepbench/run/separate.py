"""Separation stage: one shard through a fitted method, what it returns held against the contract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sepbench.ambient import put_back
from sepbench.errors import MethodError, reason
from sepbench.memory import out_of_memory, release
from sepbench.places import kept_traceback, told
from sepbench.precision import as_the_session_says
from sepbench.protocols import CountsEvaluations, Mixtures, PosteriorSampler, RunContext, Separator, TaskSpec
from sepbench.run.plan import Shard
from sepbench.run.session import Session
from sepbench.run.sink import ShardEstimates
from sepbench.run.timing import LATENCY_CALLS, Timer, latency
from sepbench.torch_later import torch

MAX_LINE = 300
"""Letters of an error that a row holds; its place comes behind them."""


def separate_shard(session: Session, shard: Shard) -> ShardEstimates:
    """Estimates of one shard, or its posterior draws where the task asks for them, in batches of at most ``cell.batch``.

    A batch whose separation raises is taken apart and tried example by example, so that only the bad ones fail. Estimates that break the
    contract (shape, dtype, device, inputs changed) fail with their whole batch, and non-finite ones alone.
    """
    spec = session.cell.task.spec
    ids = torch.arange(shard.start, shard.stop, dtype=torch.int64)
    estimates = torch.full((len(shard), *_result_shape(spec)), torch.nan)
    seconds = torch.full((len(shard),), torch.nan, dtype=torch.float64)
    evaluations = torch.full((len(shard),), torch.nan, dtype=torch.float64)
    errors: dict[int, str] = {}
    if session.warm_up_seconds is None:
        session.teller.enter("warm up")
        _warm_up(session, ids[:1])
    session.teller.enter("separate")
    for batch in _batches(ids, session):
        session.teller.begin(len(batch))
        for part, outcome in _attempts(session, batch):
            rows = part - shard.start
            if isinstance(outcome, str):
                errors |= dict.fromkeys(part.tolist(), outcome)
                continue
            values = outcome.estimates
            finite = values.flatten(1).isfinite().all(1)
            estimates[rows[finite]] = values[finite]
            seconds[rows] = outcome.seconds / len(part)
            if outcome.evaluations is not None:
                evaluations[rows] = outcome.evaluations
            errors |= dict.fromkeys(part[~finite].tolist(), "the estimate holds values that are not finite")
        session.teller.end()
    return ShardEstimates(estimates, seconds, errors, None if bool(evaluations.isnan().all()) else evaluations)


def _batches(ids: torch.Tensor, session: Session) -> Iterator[torch.Tensor]:
    """Batches are cut from the multiples of the cell's unit on, wherever the shard begins; smaller from where memory turned out too short."""
    cell, start, last = session.cell, 0, len(ids)
    while start < last:
        offset = int(ids[start]) % cell.unit
        size = min(cell.batch, session.most or cell.batch)
        room = min(size - offset % size, cell.unit - offset)
        yield ids[start : start + room]
        start += room


def measure_latency(session: Session, n_examples: int) -> float:
    """Median seconds of separating one mixture alone, over the first examples of the task."""

    def one(number: int) -> float:
        return separate_batch(session, _mixtures(session, torch.tensor([number % n_examples]))).seconds

    if session.warm_up_seconds is None:
        _warm_up(session, torch.tensor([0]))
    return latency(one, LATENCY_CALLS)


class Separated(NamedTuple):
    """A call: checked estimates ``(B, K, ...)``, or draws ``(B, N, K, ...)``, on the CPU; its seconds; evaluations of each mixture ``(B,)``, if counted."""

    estimates: torch.Tensor
    seconds: float
    evaluations: torch.Tensor | None


def separate_batch(session: Session, mixtures: Mixtures) -> Separated:
    """Separate a batch; the seconds are those of the call without reading references.

    Raises:
        ContractError: the estimates are not what the contract asks for.
        Exception: whatever ``separate`` or ``sample`` raises.
    """
    read = session.references.seconds if session.references else 0.0
    estimates, seconds = checked_call(session.separator, mixtures, session.ctx)
    seconds -= (session.references.seconds if session.references else 0.0) - read
    return Separated(estimates, seconds, _evaluations(session.separator, len(mixtures)))


def checked_call(separator: Separator, mixtures: Mixtures, ctx: RunContext) -> tuple[torch.Tensor, float]:
    """What ``separate``, or ``sample`` where the task has draws, returns, held against the contract: on the CPU, with the seconds of the call.

    Raises:
        ContractError, Exception: see ``separate_batch``.
    """
    before = _fingerprint(mixtures)
    with put_back(), Timer(ctx.device) as timer:
        returned = _call(separator, mixtures, ctx)
    estimates = _checked(returned, ctx, len(mixtures))
    if _fingerprint(mixtures) != before:
        raise ContractError(f"{_called(ctx)} changed its input mixtures in place")
    return estimates, timer.seconds


def _call(separator: Separator, mixtures: Mixtures, ctx: RunContext) -> object:
    with as_the_session_says(ctx.device):
        if not ctx.task.posterior_draws:
            return separator.separate(mixtures, ctx)
        if not isinstance(separator, PosteriorSampler):
            raise ContractError("draws no posterior samples")
        return separator.sample(mixtures, ctx.task.posterior_draws, ctx)


def _evaluations(separator: Separator, n: int) -> torch.Tensor | None:
    """What the method counted in its last call, ``(n,)`` float64.

    Raises:
        ContractError: it is not one number, 0 or more, per mixture.
    """
    counted = separator.network_evaluations() if isinstance(separator, CountsEvaluations) else None
    if counted is None:
        return None
    if not isinstance(counted, torch.Tensor) or counted.shape != (n,):
        had = f"shape {tuple(counted.shape)}" if isinstance(counted, torch.Tensor) else type(counted).__name__
        raise ContractError(f"network_evaluations returned {had} instead of a tensor of shape {(n,)}, one number per mixture")
    spent = counted.detach().to("cpu", torch.float64)
    if not bool((spent.isfinite() & (spent >= 0)).all()):
        raise ContractError("network_evaluations returned values below 0 or not finite")
    return spent


def _called(ctx: RunContext) -> str:
    """Name of the method's function that gave the result, for messages."""
    return "sample" if ctx.task.posterior_draws else "separate"


def _result_shape(spec: TaskSpec) -> tuple[int, ...]:
    """What a method returns per mixture: ``(K, ...)``, or ``(N, K, ...)`` where N draws are scored."""
    draws = (spec.posterior_draws,) if spec.posterior_draws else ()
    return (*draws, spec.n_sources, *spec.source_shape)


class ContractError(MethodError):
    """What ``separate`` returned is not what ``sepbench.protocols.Separator`` asks for."""


class _Failure(NamedTuple):
    """A call that raised: the error without its frames, and what is told of it, with its place."""

    error: BaseException
    line: str


def one_line(error: BaseException) -> str:
    """An exception as one line of bounded length."""
    return reason(error)[:MAX_LINE]


def _attempts(session: Session, batch: torch.Tensor) -> Iterator[tuple[torch.Tensor, Separated | str]]:
    """(example ids, what came of them, or an error), for the whole batch or, if that raised, one by one; by halves if it ran out of memory."""
    before = session.first_traceback
    outcome = _attempt(session, batch)
    if isinstance(outcome, _Failure) and not isinstance(outcome.error, ContractError) and len(batch) > 1:
        if out_of_memory(outcome.error):
            session.first_traceback = before  # no failure yet: fewer at a time may do
            yield from _halves(session, batch)
            return
        for single in torch.split(batch, 1):
            alone = _attempt(session, single)
            yield single, alone.line if isinstance(alone, _Failure) else alone
        return
    yield batch, outcome.line if isinstance(outcome, _Failure) else outcome


def _halves(session: Session, batch: torch.Tensor) -> Iterator[tuple[torch.Tensor, Separated | str]]:
    """A batch that was too large, in halves; the session's later batches are as large as the largest part that went through."""
    release(session.ctx.device)
    largest = 1
    for half in torch.split(batch, -(-len(batch) // 2)):
        for part, outcome in _attempts(session, half):
            if not isinstance(outcome, str):
                largest = max(largest, len(part))
            yield part, outcome
    session.most = largest
    name, task = session.cell.method, session.cell.task.spec.name
    session.teller.warn(f"{name} on {task}: out of memory with {len(batch):,} mixtures at once; {largest:,} from here on")


def _attempt(session: Session, example_ids: torch.Tensor) -> Separated | _Failure:
    mixtures = _mixtures(session, example_ids)  # not in the try block: data that cannot be read are no fault of the method
    try:
        return separate_batch(session, mixtures)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        session.first_traceback = session.first_traceback or kept_traceback(error)
        line = told(error, type(session.separator).__module__, MAX_LINE)
        # The frames of the failed call hold its tensors: without them a batch that ran out of memory would leave none for the singles.
        return _Failure(error.with_traceback(None), line)


def _mixtures(session: Session, example_ids: torch.Tensor) -> Mixtures:
    """A copy of the ids goes out: a method that changes them in place must not change whose estimates these are."""
    return session.mixture_set.mixtures(example_ids.clone(), session.ctx.device)


def _warm_up(session: Session, example_ids: torch.Tensor) -> None:
    """First calls compile, allocate and page in; one untimed mixture takes that out of the measured seconds."""
    with Timer(session.ctx.device) as timer:
        _attempt(session, example_ids)
    session.warm_up_seconds = timer.seconds
    session.first_traceback = ""


def _fingerprint(mixtures: Mixtures) -> tuple[int, ...]:
    """Changes when the batch is written to: torch's version counter sees every torch operation, the sum of bits also writes through numpy."""
    bits = mixtures.values.view(torch.int32).sum()
    return mixtures.values._version, int(bits), mixtures.example_ids._version, int(mixtures.example_ids.sum())


def _checked(returned: object, ctx: RunContext, n: int) -> torch.Tensor:
    spec, device = ctx.task, torch.device(ctx.device)
    called = _called(ctx)
    if not isinstance(returned, torch.Tensor):
        raise ContractError(f"{called} returned {type(returned).__name__} instead of a tensor")
    expected = (n, *_result_shape(spec))
    if tuple(returned.shape) != expected:
        raise ContractError(f"{called} returned shape {tuple(returned.shape)} instead of {expected}")
    if returned.dtype != torch.float32:
        raise ContractError(f"{called} returned {returned.dtype} instead of torch.float32")
    if returned.device.type != device.type or (device.index is not None and returned.device.index != device.index):
        raise ContractError(f"{called} returned estimates on {returned.device} instead of {ctx.device}")
    if returned.layout != torch.strided:
        raise ContractError(f"{called} returned a tensor of layout {returned.layout} instead of a dense one")
    # A copy: a method may write its next estimates into the same tensor. What a subclass of a tensor does by itself stays behind.
    plain: torch.Tensor = returned.detach().as_subclass(torch.Tensor)
    return plain.to("cpu", copy=True).contiguous()
