"""What the separators on a score prior share: finding the prior, drawing samples, settings by budget. The samplers are files of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from baselines.posterior import Problem
from sepbench.errors import MethodError, UnsupportedTaskError
from sepbench.protocols import MethodInfo, Mixtures, RunContext, ScorePrior, Support, TaskSpec, TrainingView

if TYPE_CHECKING:
    from baselines.priors.score_prior import Precision


@dataclass
class ScoreSeparator:
    """A separator that samples the posterior under a score prior.

    Attributes:
        weights: path of a ``.safetensors`` prior with its card; empty for the one that ships for the task's data set.
        precision: arithmetic of the network, ``float32`` or ``bfloat16``.
        per_class: one prior per source class (needs class-wise weights; the row then knows more than the paper's).
    """

    weights: str = ""
    precision: Precision = "float32"
    per_class: bool = False

    info: ClassVar[MethodInfo]
    weights_sha256: str = field(default="", init=False)
    _priors: list[ScorePrior] = field(default_factory=list, init=False, repr=False)

    def supports(self, task: TaskSpec) -> Support:
        """A prior must exist for the data set, at the task's own shape."""
        if self.weights:
            return self.supports_operator(task)
        from baselines.priors.shipped import find_weights

        missing = [k for k in range(task.n_sources) if find_weights(task, k, self.per_class) is None]
        if missing:
            where = task.datasets[missing[0]] if task.datasets else task.suite
            shape = "x".join(str(n) for n in task.source_shape)
            return Support(False, f"no prior ships for {where} at {shape}; train one and give it with --set {self.info.name}.weights=FILE")
        return self.supports_operator(task)

    def supports_operator(self, task: TaskSpec) -> Support:
        """Overridden by samplers that need more than any linear operator."""
        return Support(True)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Load the prior; no training data are touched."""
        from baselines.priors.shipped import find_weights
        from baselines.priors.weights_io import load_prior

        if self.weights:
            self._priors = [load_prior(Path(self.weights), precision=self.precision, device=ctx.device)]
            return
        slots = range(ctx.task.n_sources) if self.per_class else range(1)
        entries = [find_weights(ctx.task, k, self.per_class) for k in slots]
        if None in entries:
            raise UnsupportedTaskError(self.supports(ctx.task).note)
        found = [entry for entry in entries if entry is not None]
        self._priors = [load_prior(entry.path, entry.sha256, self.precision, ctx.device) for entry in found]
        self.weights_sha256 = ",".join(entry.sha256 for entry in found)

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """``(B, K, ...)``: one posterior sample (or whatever the method makes of several), not clamped."""
        return self.estimate(self.problem(mixtures, ctx, draw=0), ctx)

    def sample(self, mixtures: Mixtures, n: int, ctx: RunContext) -> torch.Tensor:
        """``(B, n, K, ...)`` independent draws; the first is what ``separate`` returns."""
        return torch.stack([self.estimate(self.problem(mixtures, ctx, draw), ctx) for draw in range(n)], dim=1)

    def problem(self, mixtures: Mixtures, ctx: RunContext, draw: int) -> Problem:
        """The batch as samplers see it, on the noise stream of one draw."""
        if not self._priors:
            raise MethodError(f"{self.info.name}: separate() was called before fit()")
        return Problem(mixtures, self._priors, ctx.noise.fork(draw), ctx.task.source_shape)

    def estimate(self, problem: Problem, ctx: RunContext) -> torch.Tensor:
        """The method itself."""
        raise MethodError(f"{type(self).__name__} does not say how to estimate")
