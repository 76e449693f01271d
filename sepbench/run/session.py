"""A method fitted on one task: made, trained or read from the cache, and what it says of its progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import sepbench
from sepbench.errors import flat, reason
from sepbench.handed_over import HELD
from sepbench.noise import NoiseSource
from sepbench.precision import as_the_session_says
from sepbench.protocols import Fitted, RunContext, Separator, TrainingView
from sepbench.registry import create_separator
from sepbench.run.fit_cache import CacheError, FitFacts, KeptFit, Stopwatch
from sepbench.run.handouts import References, TimedView
from sepbench.run.plan import Cell, Plan
from sepbench.run.provenance import arithmetic, timing_group
from sepbench.run.source import source_sha256
from sepbench.run.timing import Timer
from sepbench.settings import FitScope, setting_names
from sepbench.torch_later import torch

if TYPE_CHECKING:
    from sepbench.data.mixtures import MixtureSet


@dataclass(frozen=True, slots=True)
class Tell:
    """What a worker says while it works: so many more mixtures (parts count), or where a stage stands.

    Attributes:
        mixtures: separated or given up since the last word.
        stage: ``fit``, ``warm up``, ``separate``, ``score`` with details; empty if only mixtures are told.
        fraction: of the stage that is done, where it is known.
        warning: one line for the user.
    """

    mixtures: float = 0.0
    stage: str = ""
    fraction: float | None = None
    warning: str = ""


class Teller:
    """``ctx.progress``: what a method says of its own progress becomes a stage while it fits, and mixtures of the bar while it separates."""

    def __init__(self, tell: Callable[[Tell], None]) -> None:
        self._tell = tell
        self._stage = ""
        self._batch = 0
        self._told = 0.0
        self.ticks: list[Callable[[], None]] = []

    def enter(self, stage: str) -> None:
        """A stage begins."""
        self._stage, self._batch = stage, 0
        self._tell(Tell(stage=stage))

    def begin(self, batch: int) -> None:
        """A batch of so many mixtures is separated."""
        self._batch, self._told = batch, 0.0

    def end(self) -> None:
        """The batch is over; what was not told yet is told now."""
        self._tell(Tell(mixtures=self._batch - self._told))
        self._batch = 0

    def warn(self, text: str) -> None:
        self._tell(Tell(warning=text))

    def __call__(self, fraction: float, text: str) -> None:
        for tick in self.ticks:
            tick()
        share = min(max(float(fraction), 0.0), 1.0) if fraction == fraction else 0.0  # not a number
        if self._batch:
            done = share * self._batch
            if done > self._told:
                self._tell(Tell(mixtures=done - self._told))
                self._told = done
        elif self._stage:
            self._tell(Tell(stage=f"{self._stage} {share:.0%} {flat(text)}".rstrip(), fraction=share))


@dataclass(slots=True)
class Session:
    """A method fitted on one task, ready to separate.

    Attributes:
        cell: what is being run.
        separator: the fitted method.
        mixture_set: the task's mixtures.
        ctx: what the method is told.
        teller: its ``ctx.progress``.
        references: the handed-out references, None unless the method is a bound.
        fit: seconds of the fit, and where they were spent.
        cached: the fit was read and not made.
        training: digest of the training data that the method was fitted on, "" if it needed none.
        warm_up_seconds: of the first, untimed call; None before it.
        first_traceback: of the first call of ``separate`` that raised.
        most: mixtures per call, where the plan's batch was too large for the memory.
    """

    cell: Cell
    separator: Separator
    mixture_set: MixtureSet
    ctx: RunContext
    teller: Teller
    references: References | None
    fit: FitFacts
    cached: bool = False
    training: str = ""
    warm_up_seconds: float | None = None
    first_traceback: str = ""
    most: int | None = None


def open_session(cell: Cell, plan: Plan, mixture_set: MixtureSet, tell: Callable[[Tell], None], session: str = "") -> Session:
    """Create the method and fit it, or read its fit from the cache. Whatever its constructor or ``fit`` raises comes through, and ``CacheError``.

    Args:
        session: name of the ``--refit`` that is under way, the same for all workers and after a kill; see ``FitFacts``.
    """
    request, teller = plan.request, Teller(tell)
    references = References(mixture_set, request.device) if cell.supervision == "bound" else None
    context: dict[str, Any] = {"references": references} if references is not None else {}
    ctx = RunContext(
        task=cell.task.spec,
        device=request.device,
        noise=NoiseSource(request.seed),
        seed=request.seed,
        budget=request.budget,
        progress=teller,
        **context,
    )
    make = partial(create_separator, cell.method, cell.settings, cell.task.spec.domain)
    separator = make()
    fit_seed = request.seed if request.fit_seed is None else request.fit_seed
    fit_ctx = replace(ctx, seed=fit_seed, noise=NoiseSource(fit_seed))
    teller.enter("fit")
    view = cell.task.view(cell.info.supervision)
    if isinstance(separator, Fitted):
        key = fit_key(cell, plan, view.digest)
        kept = KeptFit(key["method"], key)
        separator, fit, cached = keep_fit(make, view, fit_ctx, kept, teller, session if request.refit else None)
        training = view.digest
    else:
        fit, cached = _fit(separator, view, fit_ctx), False
        training = view.digest if view.opened else ""  # nobody opens data for the digest alone, which may be gigabytes
    return Session(cell, separator, mixture_set, ctx, teller, references, fit, cached, training)


def _fit(separator: Separator, view: TrainingView, ctx: RunContext, before: float = 0.0, session: str = "") -> FitFacts:
    timed = TimedView(view)
    with Timer(ctx.device) as timer, as_the_session_says(ctx.device):
        separator.fit(timed, ctx)
    return FitFacts(before + timer.seconds - timed.seconds, timed.seconds, timing_group(ctx.device), session)


def fit_key(cell: Cell, plan: Plan, training: str) -> dict[str, Any]:
    """Everything that decides a fit: training data, task, method, version, code, settings, files they name, seed, budget, arithmetic, packages.

    Of task, method, code and settings only what its ``FitScope`` says, if the method states one.
    """
    entry = plan.methods[cell.method]
    task, settings = asdict(cell.task.spec), dict(entry.settings)
    scope: FitScope = getattr(entry.cls, "fit_scope", None) or FitScope(frozenset(task) - {"suite", "name"})
    code = scope.code or entry.cls
    deciding = set(settings) if scope.code is None else set(settings) & {*setting_names(code), HELD}
    return {
        "training": training,
        "task": {key: value for key, value in task.items() if key in scope.task},
        "method": scope.name or cell.method,
        "version": scope.version or cell.info.version,
        "source": source_sha256(code),
        "settings": {key: value for key, value in settings.items() if key in deciding},
        "files": {key: sorted(paths.values()) for key, paths in entry.files.items() if key in deciding},
        "weights": entry.weights_sha256,
        "supervision": cell.supervision,
        "seed": plan.request.seed if plan.request.fit_seed is None else plan.request.fit_seed,
        "budget": plan.request.budget,
        "arithmetic": arithmetic(plan.device),
        "sepbench": sepbench.__version__,
        "torch": torch.__version__,
    }


def keep_fit(
    make: Callable[[], Separator], view: TrainingView, ctx: RunContext, kept: KeptFit, teller: Teller, refit: str | None = None
) -> tuple[Separator, FitFacts, bool]:
    """Load a fit from the cache, or make it and put it there.

    Args:
        make: creates the method, which is ``Fitted``.
        refit: name of the ``--refit`` that asked for a new fit, which goes on from its own checkpoints; None takes any fit.

    Returns:
        The fitted method, facts of the fit, and whether it was loaded.

    Raises:
        CacheError: the cache folder cannot be written.
        Exception: whatever ``fit`` or ``save`` raises.
    """
    with kept.locked(lambda: teller.enter("wait for another process that fits the same")):
        facts = kept.facts()
        if facts is not None and (refit is None or facts.session == refit):
            teller.enter("load the fit")
            loaded = make()
            try:
                _as_fitted(loaded).load(kept.fitted, ctx)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # written by a version that kept other things, say: training again is always right
                teller.warn(f"the kept fit in {kept.folder} cannot be loaded ({reason(error)}) and is made again")
            else:
                return loaded, facts, True
        elif kept.damaged and refit is None:
            teller.warn(f"the kept fit in {kept.folder} is damaged and is made again")
        if refit is not None:
            kept.begin_again(refit)
        return *_fit_and_keep(make(), view, ctx, kept, teller, refit or ""), False


def _fit_and_keep(separator: Separator, view: TrainingView, ctx: RunContext, kept: KeptFit, teller: Teller, session: str) -> tuple[Separator, FitFacts]:
    teller.enter("fit")
    watch = Stopwatch(kept)
    teller.ticks.append(watch.tick)
    try:
        facts = _fit(separator, view, replace(ctx, cache=kept.work()), watch.before, session)
    except BaseException:
        watch.note()
        raise
    finally:
        teller.ticks.clear()
    try:
        kept.keep(_as_fitted(separator).save, facts)
    except CacheError as error:  # the disk is full, say: what was learnt is at hand, and the next run goes on from the last checkpoint
        teller.warn(f"the fit of {kept.folder.parent.name} is not kept: {error}")
    return separator, facts


def _as_fitted(separator: Separator) -> Fitted:
    assert isinstance(separator, Fitted)
    return separator
