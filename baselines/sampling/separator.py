"""What the separators on a score prior share: the prior, draws, and settings by budget.

The samplers have their own files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import field
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.sampling.problem import GPU_ELEMENTS, Meter, Problem, RowLimit
from sepbench.errors import MethodError
from sepbench.memory import scaled
from sepbench.noise import STREAMS
from sepbench.precision import Precision
from sepbench.protocols import HasDensity, MethodInfo, Mixtures, RunContext, ScorePrior, Support, TaskSpec, TrainingView
from sepbench.selection import EstimatesDensity, by_denoising_loss, by_log_prior, by_mixture_error, select, weighted_mean
from sepbench.settings import STRICT

Criterion = Literal["denoising-loss", "log-prior", "mixture-error"]
LOSS_SIGMAS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Noise levels that rank candidates. Below them all candidates look alike, and above them none is recognised."""
_ROWS_AT_ONCE = 4096
"""Rows (mixtures times draws) that ``sample`` handles at a time.

It bounds memory, and the network takes far fewer at once anyway. A GPU handles more rows of vectors of a few
dimensions, because a step there costs its launches.
"""


def needs_weighted_sum(task: TaskSpec) -> Support:
    """Whether a sampler that solves the mixture for one source takes a task.

    Every pixel of a mixture must be a weighted sum of that pixel of the sources.
    """
    if task.operator not in ("sum", "mean", "gain"):
        return Support(
            False, f"solves the mixture for one source, which operator {task.operator!r} does not allow; basis-ncsn, gaussian and projected take any operator"
        )
    return Support(True)


def source_gram(task: TaskSpec) -> float | None:
    """The eigenvalue of ``A A^T``; None if it depends on gains.

    A gradient step on the likelihood multiplies the residual by it.
    """
    return {"sum": float(task.n_sources), "mean": 1 / task.n_sources, "channel-mean": 1 / task.source_shape[0]}.get(task.operator)


def exchangeable(problem: Problem) -> bool | torch.Tensor:
    """Whether sources can change places: under one prior, and with equal weights in their mixture. Gains have an answer for each mixture, ``(B,)``."""
    if len(problem.priors) > 1:
        return False
    weights = problem.mixtures.operator.matrix()[..., 0, :]
    alike = (weights == weights[..., :1]).all(-1)
    return alike if alike.ndim else bool(alike)


def _log_probs(sources: torch.Tensor, problem: Problem, steps: int, spacing: int) -> torch.Tensor:
    """Log densities ``(B * N, K)`` of sources ``(B * N, K, ...)``, under one prior, or one per source.

    There are N draws per mixture. If the density is an estimate, all draws and sources of one mixture share its
    probes. So the errors of their values partly cancel in the differences.

    Raises:
        MethodError: a prior has no ``log_prob``.
    """
    ids = problem.mixtures.example_ids.repeat_interleave(len(sources) // len(problem.mixtures))
    columns = []
    for k in range(sources.shape[1]):
        prior = problem.priors[k if len(problem.priors) > 1 else 0]
        if isinstance(prior, EstimatesDensity):
            columns.append(prior.estimated_log_prob(sources[:, k], ids, problem.noise, steps=steps, spacing=spacing))
        elif isinstance(prior, HasDensity):
            columns.append(prior.log_prob(sources[:, k]))
        else:
            raise MethodError(f"criterion log-prior needs a prior with log_prob(x), {type(prior).__name__} has none; use denoising-loss")
    return torch.stack(columns, 1)


@dataclass(config=STRICT)
class ScoreSeparator:
    """A separator that samples the posterior under a score prior.

    ``weights`` names one prior, or, for a method with one prior per class, one per source in their order. If the prior
    is a network, the criterion ``log-prior`` follows the probability flow: ``4 * flow_steps + 4`` forward passes and
    ``flow_steps * channels * flow_spacing^2`` backward passes per source and draw. No count of evaluations includes
    them. No criterion uses the truth.
    """

    weights: str = Field("", description="prior: a .safetensors file with its card, or package.module:NAME; several with commas; empty: the shipped one")
    precision: Precision = Field("float32", description="arithmetic of the network; tf32 is only for GPUs")
    engine: Literal["eager", "graph", "fused", "compile"] = Field(
        "eager", description="how a GPU runs the network: as written, as CUDA graphs, as graphs with norms in one kernel, or by torch.compile"
    )
    best_of: int = Field(1, ge=1, le=STREAMS, description="how many draws are made; the one with the best criterion is kept")
    criterion: Criterion = Field("denoising-loss", description="what ranks draws: the loss at loss_sigmas, the log density, or the error of the mixture")
    loss_sigmas: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        LOSS_SIGMAS, min_length=1, description="noise levels of the denoising loss, one evaluation per source and draw each"
    )
    flow_steps: int = Field(24, ge=2, le=256, description="log-prior of a network: nodes of the flow, four forward passes each per source and draw")
    flow_spacing: int = Field(
        3, ge=1, description="log-prior of a network: distance of the pixels that share a probe; its square is the backward passes per node and channel"
    )
    combine: Literal["best", "mean"] = Field("best", description="best keeps the best draw, mean averages its mode with weights exp(criterion / temperature)")
    temperature: float = Field(10.0, gt=0, description="temperature of those weights, in units of the criterion")

    info: ClassVar[MethodInfo]
    weights_sha256: str = field(default="", init=False)
    prior_label: str = field(default="", init=False)
    _priors: list[ScorePrior] = field(default_factory=list, init=False, repr=False)
    _evaluated: dict[int, float] = field(default_factory=dict, init=False, repr=False)
    _last: torch.Tensor | None = field(default=None, init=False, repr=False)
    _limit: RowLimit | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        highest, lowest = getattr(self, "highest", 1.0), getattr(self, "lowest", 0.01)
        if lowest >= highest:
            raise ValueError(f"noise levels fall: give lowest below highest, got {lowest} and {highest}")
        if self.weights:
            from baselines.priors.for_task import digests

            self.weights_sha256 = digests(self.weights)  # before the fit: other weights under the same path are another run

    @property
    def per_class(self) -> bool:
        """Whether the method has one prior per source class.

        Then it knows the classes, and its supervision is ``sources``.
        """
        return self.info.supervision == "sources"

    def supports(self, task: TaskSpec) -> Support:
        """Whether a prior exists for the data set, at the task's own shape. If the true prior is known, it is used.

        A prior that is the same for all sources cannot tell them apart, so it takes no ordered task of several sources.

        Raises:
            DataError: weights are missing, differ from their card, or do not fit the task or the settings.
        """
        from baselines.priors.for_task import prior_support

        ten_levels_do = not self.needs_any_level() and self.precision == "float32"
        support = prior_support(task, self.weights, method=self.info.name, per_class=self.per_class, ten_levels_do=ten_levels_do)
        if support.ok and task.assignment == "ordered" and task.n_sources > 1 and not (self.per_class or task.analytic_prior):
            advice = "choose a task under the best assignment, or a method with a prior per class, such as projected-4x-per-class"
            return Support(False, f"one prior for all sources cannot tell which source is which; {advice}")
        return self.supports_operator(task) if support.ok else support

    def supports_device(self, device: str) -> Support:
        """Whether the settings fit the device: TF32 and the engines other than ``eager`` are only for GPUs."""
        if torch.device(device).type == "cuda":
            return Support(True)
        if self.precision == "tf32":
            return Support(False, f"precision tf32 is an arithmetic of CUDA GPUs, not of {device}; use --set {self.info.name}.precision=float32")
        if self.engine != "eager":
            return Support(False, f"engine {self.engine} is for CUDA GPUs, not for {device}; use --set {self.info.name}.engine=eager")
        return Support(True)

    def needs_any_level(self) -> bool:
        """Whether the sampler needs other noise levels than the ten of NCSN. Samplers that do not must override it."""
        return True

    def supports_operator(self, task: TaskSpec) -> Support:
        """Whether the sampler takes the task's operator. Samplers that need more than a linear one override this."""
        return Support(True)

    @property
    def posterior_samples(self) -> int:
        """Draws behind one estimate, for the results."""
        return self.best_of

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Load the prior. This uses no training data.

        Raises:
            DataError: weights are missing, differ from their card, or do not fit.
        """
        from baselines.priors.for_task import prior_label, priors_for, run_by

        priors, self.weights_sha256 = priors_for(ctx.task, view, self.weights, per_class=self.per_class, precision=self.precision, device=ctx.device)
        self._priors, self.prior_label = run_by(priors, self.engine), prior_label(priors, self.weights_sha256)

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Estimates ``(B, K, ...)``, not clamped: one draw, or what ``best_of`` and ``combine`` make of several.

        Raises:
            MethodError: ``fit`` was not called, or the criterion does not fit the prior.
        """
        problem = self.problem(mixtures, ctx)
        estimates = self.estimate(problem, ctx)
        self._note(problem, 1)
        return estimates

    def sample(self, mixtures: Mixtures, n: int, ctx: RunContext) -> torch.Tensor:
        """Independent draws ``(B, n, K, ...)``. The first is the result of ``separate``."""
        problem = self.problem(mixtures, ctx, n)
        drawn = self.draws(problem, n, ctx, self.estimate)
        self._note(problem, n)
        return drawn

    def network_evaluations(self) -> torch.Tensor | None:
        """See ``CountsEvaluations``.

        None if the probability flow ranks draws, because no count includes its passes.
        """
        return self._last

    def _note(self, problem: Problem, draws: int) -> None:
        """Note the cost of the finished call."""
        meter, uncounted = problem.meter, self.best_of > 1 and self.criterion == "log-prior"
        self._evaluated[draws] = meter.seen / len(problem.mixtures)
        flows = uncounted and any(isinstance(prior, EstimatesDensity) for prior in problem.priors)
        self._last = None if flows else meter.by_mixture(problem.mixtures.example_ids) / problem.n_sources

    def estimate(self, problem: Problem, ctx: RunContext) -> torch.Tensor:
        """Estimates ``(B, K, ...)``: one draw per row, or one made of ``best_of`` draws."""
        if self.best_of == 1:
            return self.draw(problem, ctx)
        draws, criterion = self.ranked(problem, self.best_of, ctx)
        if self.combine == "best":
            return select(draws, criterion)
        return weighted_mean(draws, criterion, self.temperature, exchangeable=exchangeable(problem))

    def ranked(self, problem: Problem, n: int, ctx: RunContext) -> tuple[torch.Tensor, torch.Tensor]:
        """``n`` draws per row ``(B, n, K, ...)`` and their criterion ``(B, n)``."""
        draws = self.draws(problem, n, ctx, self.draw)
        if self.criterion == "mixture-error":
            return draws, by_mixture_error(draws, problem.mixtures)
        if self.criterion == "log-prior":
            return draws, by_log_prior(draws, lambda sources: _log_probs(sources, problem, self.flow_steps, self.flow_spacing))
        problem.evaluations += n * len(self.loss_sigmas)
        problem.told_apart(n * len(self.loss_sigmas))
        return draws, by_denoising_loss(draws, problem.priors, problem.mixtures, problem.noise, self.loss_sigmas)

    def draws(self, problem: Problem, n: int, ctx: RunContext, one: Callable[[Problem, RunContext], torch.Tensor]) -> torch.Tensor:
        """The results ``(B, n, K, ...)`` of ``one`` on ``n`` copies of every row."""
        at_once = _ROWS_AT_ONCE
        if problem.device.type == "cuda":
            at_once = max(at_once, scaled(GPU_ELEMENTS, problem.device) // (problem.n_sources * math.prod(problem.source_shape)))
        parts = []
        for rows in torch.arange(len(problem.mixtures)).split(max(1, at_once // n)):
            part = problem.rows(rows).repeat(n)
            parts.append(one(part, ctx))
        problem.evaluations += n * part.evaluations
        stacked: torch.Tensor = torch.cat(parts).unflatten(0, (-1, n))
        return stacked

    def draw(self, problem: Problem, ctx: RunContext) -> torch.Tensor:
        """The method itself: one draw ``(B, K, ...)`` per row of the problem. A subclass must override this."""
        raise MethodError(f"{type(self).__name__} does not say how to draw")

    def score_prior(self, slot: int) -> ScorePrior:
        """The prior of source ``slot``; see ``HasScorePrior``.

        Raises:
            MethodError: ``fit`` was not called.
        """
        if not self._priors:
            raise MethodError(f"{self.info.name}: score_prior() was called before fit()")
        return self._priors[slot if len(self._priors) > 1 else 0]

    def problem(self, mixtures: Mixtures, ctx: RunContext, draws: int = 1) -> Problem:
        """The batch as samplers see it.

        The batch before tells the cost of a mixture. The first batch is the warm-up.

        Raises:
            MethodError: ``fit`` was not called.
        """
        if not self._priors:
            raise MethodError(f"{self.info.name}: separate() was called before fit()")
        meter = Meter(ctx.progress, self._evaluated.get(draws, 0.0) * len(mixtures))
        if self._limit is None:
            self._limit = RowLimit.of(ctx.device)
        return Problem(mixtures, self._priors, ctx.noise, ctx.task.source_shape, self._limit, meter=meter)
