"""Holds a method against the contract of ``protocols.py``; ``sepbench validate`` shows the result.

The checks run on the first mixtures of a real task (by default the embedded digits), so they need no download and take seconds for
a method whose ``fit`` takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import torch

from sepbench import ambient
from sepbench.errors import SepbenchError, SupervisionError
from sepbench.noise import NoiseSource
from sepbench.places import kept_traceback, told
from sepbench.protocols import Budget, Domain, Fitted, HasLogProb, MethodInfo, Mixtures, PosteriorSampler, RunContext, Separator, Supervision
from sepbench.registry import create_separator, flat
from sepbench.run.image_range import estimates_warning
from sepbench.run.plan import SupportError, ask_support
from sepbench.run.separate import MAX_LINE, ContractError
from sepbench.suites.model import Task

TOLERANCE = 1e-3
"""Largest difference that counts as the same estimate: float32 sums in another order move the last bits, iterations multiply them."""

FITS, RUNS = "fit() works on what the declared supervision hands out", "separate() runs"
REPEATS = "the same call again gives the same bits"
REPRODUCES = "fit() and separate() are reproducible from the seed"
IGNORES_SEED, USES_SEED = "declared deterministic: another seed changes nothing", "declared random: another seed changes the estimates"
BATCHES = "batch-invariant: one by one as all at once"
ORDERS = "order-invariant: reversed batch"
SHARDS = "shard-invariant: a fresh process that starts in the middle"
SAMPLES_FINITE = "draws of sample() are finite float32"
SAMPLES, LOG_PROBS = "sample() gives (B, N, K, ...) with different draws", "log_prob() gives finite (B, K)"
KEEPS = "save() into an empty folder and load() into a fresh instance give the same bits"


@dataclass(frozen=True, slots=True)
class Check:
    """One checked rule. ``passed`` is None where the rule does not apply; ``detail`` says what was seen, ``traceback`` where a method raised."""

    rule: str
    passed: bool | None
    detail: str
    traceback: str = field(default="", compare=False)


@dataclass(slots=True)
class _Subject:
    """A method on trial: makes fresh, fitted instances and contexts."""

    name: str
    task: Task
    device: str
    budget: Budget
    settings: Mapping[str, Any]
    examples: int
    begin: Callable[[str], None]
    warn: Callable[[str], None]

    def context(self, info: MethodInfo, seed: int) -> RunContext:
        ctx = RunContext(task=self.task.spec, device=self.device, noise=NoiseSource(seed), seed=seed, budget=self.budget)
        if info.supervision != "bound":
            return ctx
        sources = self.task.mixture_set().sources
        return replace(ctx, references=lambda ids: sources(ids).to(self.device))

    def fitted(self, seed: int) -> tuple[Separator, RunContext]:
        separator = create_separator(self.name, self.settings, self.task.spec.domain)
        ctx = self.context(separator.info, seed)
        separator.fit(self.task.view(separator.info.supervision), ctx)
        return separator, ctx

    def mixtures(self, ids: torch.Tensor) -> Mixtures:
        return self.task.mixture_set().mixtures(ids.clone(), self.device)  # a method that changes ids in place changes none of the next call's

    def separate(self, separator: Separator, ctx: RunContext, ids: torch.Tensor) -> torch.Tensor:
        return _tensor("separate", separator.separate(self.mixtures(ids), ctx))


def validate_method(
    name: str,
    task: Task,
    *,
    device: str = "cpu",
    budget: Budget = "quick",
    settings: Mapping[str, Any] | None = None,
    examples: int = 6,
    begin: Callable[[str], None] = lambda rule: None,
    warn: Callable[[str], None] = lambda text: None,
) -> list[Check]:
    """Run every check of the contract on the first ``examples`` mixtures of ``task``.

    Args:
        name: the method.
        task: whose data are used.
        device, budget: as in a run.
        settings: of the method.
        examples: how many mixtures.
        begin: told each rule that takes its time before it is checked.
        warn: told one line about estimates that break no rule and are odd.

    Raises:
        UnknownNameError: no such method.
        SettingError: a setting that it does not take.
        MethodError: it cannot be created.
        SepbenchError: the method does not support the task (the message carries its reason), or separates other kinds of signals.
    """
    with ambient.put_back():
        return _checks(_Subject(name, task, device, budget, settings or {}, min(examples, task.n_examples), begin, warn))


def _checks(subject: _Subject) -> list[Check]:
    """See ``validate_method``."""
    name, task, device, begin = subject.name, subject.task, subject.device, subject.begin
    separator = create_separator(name, subject.settings, task.spec.domain)
    checks = [_check_info(name, separator.info)]
    _refuse_other_signals(name, separator.info, task)
    try:
        support = ask_support(name, separator, task.spec, device)
    except SupportError as error:
        said = kept_traceback(error.__cause__) if error.__cause__ is not None else ""
        return [*checks, Check("supports() answers with a Support", False, str(error), said)]
    checks.append(Check("supports() answers with a Support", True, support.note or "no caveat"))
    if not support.ok:
        raise SepbenchError(f"{name} does not take {task.spec.suite}/{task.spec.name}: {flat(support.note)}; choose another with --suite and --task")
    checks.extend(_check_supervision(subject, separator))
    before = _GlobalState.read()
    begin(FITS)
    try:
        fitted, ctx = subject.fitted(seed=0)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a failed fit is a finding, not a crash of the checker
        return [*checks, _raised(FITS, separator, error)]
    checks.append(Check(FITS, True, fitted.info.supervision))
    begin(RUNS)
    try:
        checks.extend(_check_estimates(subject, fitted, ctx))
    except ContractError as error:
        return [*checks, Check(RUNS, False, str(error))]
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return [*checks, _raised(RUNS, separator, error)]
    checks.append(before.compare(_GlobalState.read()))
    return checks


def _raised(rule: str, separator: object, error: BaseException) -> Check:
    """A rule that broke because the method raised."""
    return Check(rule, False, told(error, type(separator).__module__, MAX_LINE), kept_traceback(error))


def _tensor(called: str, returned: object) -> torch.Tensor:
    """What a method returned; without this check a numpy array passes for a tensor until it breaks somewhere else."""
    if not isinstance(returned, torch.Tensor):
        raise ContractError(f"{called} returned {type(returned).__name__} instead of a tensor")
    return returned


def _check_info(name: str, info: MethodInfo) -> Check:
    problems = []
    if info.name != name:
        problems.append(f"info.name is {info.name!r}, registered as {name!r}")
    if info.supervision not in get_args(Supervision):
        problems.append(f"supervision {info.supervision!r} is none of {', '.join(get_args(Supervision))}")
    if not isinstance(info.domains, frozenset) or not info.domains or not info.domains <= set(get_args(Domain)):
        shown = sorted(map(str, info.domains)) if isinstance(info.domains, frozenset) else info.domains
        problems.append(f"domains {shown} must be a frozenset of some of {', '.join(get_args(Domain))}")
    for part in ("title", "version", "paper"):
        if not getattr(info, part):
            problems.append(f"{part} is empty")
    if not isinstance(info.max_batch, int) or info.max_batch < 1 or "--" in str(info.name) or info.name != str(info.name).lower():
        problems.append("max_batch must be positive; the name lower-case and without '--'")
    return Check("info is complete", not problems, "; ".join(problems) or f"{info.title}, version {info.version}")


def _refuse_other_signals(name: str, info: MethodInfo, task: Task) -> None:
    """A run does not give a method signals of a kind that it does not declare, so nothing it does with them breaks a rule.

    Raises:
        SepbenchError: the task has such signals.
    """
    spec, domains = task.spec, info.domains
    if isinstance(domains, frozenset) and domains and domains <= set(get_args(Domain)) and spec.domain not in domains:
        only = ", ".join(sorted(domains))
        raise SepbenchError(f"{name} separates {only} signals only, and {spec.suite}/{spec.name} has {spec.domain} signals; choose another with --suite")


def _check_supervision(subject: _Subject, separator: Separator) -> Iterator[Check]:
    if separator.info.supervision == "bound":
        yield Check("works without seeing references", None, "declares 'bound': an oracle row, never ranked")
        return
    try:
        subject.context(separator.info, 0).references(torch.tensor([0]))
        yield Check("works without seeing references", False, "references were handed out")
    except SupervisionError:
        yield Check("works without seeing references", True, "references raise SupervisionError during all checks")


def _check_estimates(subject: _Subject, separator: Separator, ctx: RunContext) -> Iterator[Check]:
    ids = torch.arange(subject.examples)
    mixtures = subject.mixtures(ids)
    values, kept_ids = mixtures.values.clone(), mixtures.example_ids.clone()
    estimates = _tensor("separate", separator.separate(mixtures, ctx))
    spec = subject.task.spec
    odd = estimates_warning(f"{subject.name} on {spec.suite}/{spec.name}", spec.domain, estimates)
    if odd:
        subject.warn(odd)
    wanted = (subject.examples, spec.n_sources, *spec.source_shape)
    yield Check("estimates have shape (B, K, ...)", tuple(estimates.shape) == wanted, f"{tuple(estimates.shape)}, wanted {wanted}")
    yield Check("estimates are float32", estimates.dtype == torch.float32, str(estimates.dtype))
    placed = estimates.device.type == torch.device(ctx.device).type
    yield Check("estimates lie on the context's device", placed, f"{estimates.device}, wanted {ctx.device}")
    yield Check("estimates are finite", bool(torch.isfinite(estimates).all()), "")
    same = torch.equal(values, mixtures.values) and torch.equal(kept_ids, mixtures.example_ids)
    yield Check("mixtures are not changed in place", same, "")
    if tuple(estimates.shape) != wanted:
        return
    subject.begin(REPEATS)
    yield _same(REPEATS, estimates, subject.separate(separator, ctx, ids), tolerance=0.0)
    yield from _check_seeds(subject, separator, estimates, ids)
    yield from _check_batches(subject, separator, ctx, estimates, ids)
    yield from _check_options(subject, separator, ctx, ids, estimates)


def _same(rule: str, a: torch.Tensor, b: torch.Tensor, tolerance: float = TOLERANCE) -> Check:
    if a.shape != b.shape:
        return Check(rule, False, f"shapes {tuple(a.shape)} and {tuple(b.shape)}")
    # What is not finite has a rule of its own; here it is the same if it is not finite in the same way.
    alike = (a == b) | (a.isnan() & b.isnan())
    difference = float((a.double() - b.double()).abs().masked_fill(alike, 0.0).max()) if a.numel() else 0.0
    return Check(rule, difference <= tolerance, f"largest difference {difference:.2g}")


def _check_seeds(subject: _Subject, separator: Separator, estimates: torch.Tensor, ids: torch.Tensor) -> Iterator[Check]:
    subject.begin(REPRODUCES)
    again, ctx = subject.fitted(seed=0)
    yield _same(REPRODUCES, estimates, subject.separate(again, ctx, ids), tolerance=0.0)
    subject.begin(IGNORES_SEED if separator.info.deterministic else USES_SEED)
    other, ctx = subject.fitted(seed=1)
    moved = not torch.equal(subject.separate(other, ctx, ids), estimates)
    if separator.info.deterministic:
        yield Check(IGNORES_SEED, not moved, "")
    else:
        yield Check(USES_SEED, moved, "" if moved else "declare deterministic=True")


def _check_batches(subject: _Subject, separator: Separator, ctx: RunContext, estimates: torch.Tensor, ids: torch.Tensor) -> Iterator[Check]:
    subject.begin(BATCHES)
    singly = torch.cat([subject.separate(separator, ctx, ids[i : i + 1]) for i in range(len(ids))])
    yield _same(BATCHES, estimates, singly)
    subject.begin(ORDERS)
    backwards = subject.separate(separator, ctx, ids.flip(0)).flip(0)
    yield _same(ORDERS, estimates, backwards)
    subject.begin(SHARDS)
    fresh, fresh_ctx = subject.fitted(seed=0)
    half = len(ids) // 2
    yield _same(SHARDS, estimates[half:], subject.separate(fresh, fresh_ctx, ids[half:]))


def _check_options(subject: _Subject, separator: Separator, ctx: RunContext, ids: torch.Tensor, estimates: torch.Tensor) -> Iterator[Check]:
    batch, sources = estimates.shape[:2]
    if isinstance(separator, PosteriorSampler):
        subject.begin(SAMPLES)
        draws = _tensor("sample", separator.sample(subject.mixtures(ids), 2, ctx))
        wanted = (batch, 2, *estimates.shape[1:])
        good = tuple(draws.shape) == wanted and not torch.equal(draws[:, 0], draws[:, 1])
        yield Check(SAMPLES, good, f"{tuple(draws.shape)}, wanted {wanted}")
        if tuple(draws.shape) == wanted:
            finite = draws.dtype == torch.float32 and bool(draws.isfinite().all())
            yield Check(SAMPLES_FINITE, finite, str(draws.dtype))
    else:
        yield Check(SAMPLES, None, "not offered")
    if isinstance(separator, HasLogProb):
        subject.begin(LOG_PROBS)
        log_prob = _tensor("log_prob", separator.log_prob(estimates))
        good = tuple(log_prob.shape) == (batch, sources) and bool(torch.isfinite(log_prob).all())
        yield Check(LOG_PROBS, good, f"{tuple(log_prob.shape)}")
    else:
        yield Check(LOG_PROBS, None, "not offered")
    if isinstance(separator, Fitted):
        subject.begin(KEEPS)
        yield _check_kept(subject, separator, ctx, ids, estimates)
    else:
        yield Check(KEEPS, None, "not offered")


def _check_kept(subject: _Subject, separator: Fitted, ctx: RunContext, ids: torch.Tensor, estimates: torch.Tensor) -> Check:
    """What a method needs of the folder it has read when ``load`` returns: the cache may be cleared at any time."""
    fresh = create_separator(subject.name, subject.settings, subject.task.spec.domain)
    if not isinstance(fresh, Fitted):
        return Check(KEEPS, False, "another instance does not offer them")
    try:
        with TemporaryDirectory() as folder:
            separator.save(Path(folder))
            fresh.load(Path(folder), ctx)
        return _same(KEEPS, estimates, subject.separate(fresh, ctx, ids), tolerance=0.0)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return _raised(KEEPS, separator, error)


@dataclass(frozen=True, slots=True)
class _GlobalState:
    """What a method must leave alone: it would change the numbers of every method after it."""

    torch_rng: bytes
    numpy_rng: bytes
    process: tuple[Any, ...]

    @classmethod
    def read(cls) -> _GlobalState:
        numpy_state: Any = np.random.get_state()  # noqa: NPY002  read only, to see that nobody touched it
        return cls(
            torch_rng=torch.get_rng_state().numpy().tobytes(),
            numpy_rng=numpy_state[1].tobytes() + bytes(str(numpy_state[2:]), "ascii"),  # the position moves at every draw, the words at every 624th
            process=ambient.state(),
        )

    def compare(self, after: _GlobalState) -> Check:
        changed = ["torch's global random state"] * (self.torch_rng != after.torch_rng) + ["numpy's global random state"] * (self.numpy_rng != after.numpy_rng)
        changed += ambient.changed(self.process)
        return Check("global state is left alone", not changed, "changed: " + ", ".join(changed) if changed else "")
