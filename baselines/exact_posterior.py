"""Exact posterior: independent draws from ``p(sources | mixture)`` in closed form.

Supervision: ``bound``. The row says what independent exact draws get at the suite's number of draws and mixtures. Draws
that are too narrow can beat it in the error of a single moment (their own scatter is smaller), but not in the distance
of the distributions.

For Gaussian-mixture sources under ``m = sum_k w_k x_k`` it chooses one component per source with its posterior
probability. Then it moves a Gaussian draw onto the mixture (Matheron's rule); see ``sepbench.gmm``.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass

from sepbench.errors import MethodError, UnsupportedTaskError
from sepbench.gmm import ExactPosterior, GaussianMixture
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT


@dataclass(config=STRICT)
class ExactPosteriorSampler:
    """Independent draws from the posterior itself, where the sources' distributions are known Gaussian mixtures."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="exact-posterior",
        title="Exact posterior",
        version="1",
        domains=frozenset({"vector"}),
        supervision="bound",
        paper="conditioning of Gaussian mixtures; Matheron's rule",
        deterministic=False,
        bound="upper",
    )
    _priors: list[GaussianMixture] = field(default_factory=list, init=False, repr=False)

    def supports(self, task: TaskSpec) -> Support:
        if not task.analytic_prior:
            return Support(False, "needs sources whose distribution is known in closed form, as in gaussian-exact and gmm-exact")
        return Support(task.operator != "gain", "needs one weighted sum for all mixtures" if task.operator == "gain" else "")

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Take the sources' distributions; nothing is learnt."""
        priors = [view.prior(slot) for slot in range(ctx.task.n_sources)]
        self._priors = [prior for prior in priors if isinstance(prior, GaussianMixture)]
        if len(self._priors) < len(priors):
            raise UnsupportedTaskError("exact-posterior knows Gaussian mixtures only; the task's analytic prior is something else")

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """One exact draw per mixture, ``(B, K, D)``."""
        return self.sample(mixtures, 1, ctx)[:, 0]

    def sample(self, mixtures: Mixtures, n: int, ctx: RunContext) -> torch.Tensor:
        """``(B, n, K, D)`` independent exact draws, made in float64 on the CPU; the first is what ``separate`` returns."""
        if not self._priors:
            raise MethodError("exact-posterior: asked to separate before fit()")
        posterior = ExactPosterior(self._priors, mixtures.operator.matrix()[0])
        draws = posterior.sample(mixtures.values.cpu(), ctx.noise, mixtures.example_ids, n)
        return draws.float().to(ctx.device)
