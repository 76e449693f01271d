"""BASIS: Bayesian annealed signal source separation. Jayaram and Thickstun, ICML 2020, Algorithm 1.

Supervision: ``prior`` (one unconditional model of clean sources, also for class-split tasks); ``sources`` for the row of class-wise priors.

Annealed Langevin dynamics on ``p(x | m) ~ prod_k p_sigma(x_k) N(m; g(x), gamma^2 = sigma^2 / c)``, over L noise levels with T steps each:

    eta_i = delta sigma_i^2 / sigma_L^2
    x <- x + eta_i score(x, sigma_i) + sqrt(2 eta_i) eps + c eta_i / sigma_i^2 A^T (m - g(x))

The residual is taken at the old x, as Algorithm 1 does (Jacobi). Two errors of the printed algorithm are corrected: the
correction is ADDED (the print subtracts it), and the noise uses the level's own eta_i. ``delta`` and ``c`` are 2e-5 and
1 in the paper. The authors' MNIST runner uses 3e-5 and 2.

The registered names end in ``ncsn`` for the paper's noise levels and steps. The weights decide which network the prior
is. Those in the package are a 2.1 M EDM U-Net, and not the paper's ten-level NCSN. The leaderboards' column ``prior``
names the prior of each row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.sampling.noise_levels import ncsn_levels
from baselines.sampling.problem import Problem
from baselines.sampling.separator import ScoreSeparator, source_gram
from sepbench.protocols import MethodInfo, RunContext, Support, TaskSpec
from sepbench.settings import STRICT, Preset, presets

Start = Literal["uniform", "normal"]


def contraction(gram: float, delta: float, factor: float, sigma_last: float) -> tuple[float, float]:
    """Range of the factor by which one step multiplies the residual of the mixture, ``1 - (p + gram c q)`` with q = delta / sigma_L^2.

    ``p`` lies in [0, q], depending on how strongly the prior pulls back. The loop diverges where the absolute value reaches 1.
    """
    q = delta / sigma_last**2
    return 1 - q - gram * factor * q, 1 - gram * factor * q


def is_stable(gram: float, delta: float, factor: float, sigma_last: float) -> bool:
    """Whether every residual shrinks at every step (four sources at 3e-5 and factor 2 do not: -1.4)."""
    low, high = contraction(gram, delta, factor, sigma_last)
    return max(abs(low), abs(high)) < 1.0


def start_sources(problem: Problem, start: Start) -> torch.Tensor:
    """Algorithm 1's start, uniform on the sources' range [0, 1]; the Glow runner's is normal. Uses step 0 of the noise."""
    return problem.uniforms(0) if start == "uniform" else problem.normals(0)


def basis(
    problem: Problem,
    sigmas: Sequence[float],
    *,
    delta: float = 2e-5,
    steps_per_level: int | Sequence[int] = 100,
    factor: float = 1.0,
    start: Start = "uniform",
    noise: bool = True,
    final_denoise: bool = False,
) -> torch.Tensor:
    """One posterior sample per mixture.

    Args:
        problem: mixtures, operator and priors.
        sigmas: noise levels, highest first.
        delta: step size at the last level.
        steps_per_level: T, the same at all levels (as in the paper) or one for each.
        factor: c, weight of the likelihood; gamma^2 = sigma^2 / c.
        start: distribution of the first state.
        noise: False is the ablation of Fig. 3 without Langevin noise.
        final_denoise: replace the last state by its posterior mean at the lowest level, one evaluation more.

    Returns:
        ``(B, K, ...)``, not clamped.
    """
    x = start_sources(problem, start)
    step = 0
    steps = [steps_per_level] * len(sigmas) if isinstance(steps_per_level, int) else steps_per_level
    for sigma, count in zip(sigmas, steps, strict=True):
        eta = delta * (sigma / sigmas[-1]) ** 2
        for _ in range(count):
            step += 1
            correction = problem.operator.adjoint(problem.residual(x))
            drift = eta * problem.score(x, sigma) + (factor * eta / sigma**2) * correction
            x = x + drift
            if noise:
                x = x + math.sqrt(2 * eta) * problem.normals(step)
    return problem.denoise(x, sigmas[-1]) if final_denoise else x


_PAPER = "Jayaram and Thickstun (2020)"
QUICK_STEPS = 10
"""Most steps per level under the quick budget, instead of the paper's 100."""


@dataclass(config=STRICT)
class Basis(ScoreSeparator):
    """BASIS at the paper's settings, on the prior that ships for the data set."""

    delta: float = Field(2e-5, gt=0, description="step size at the last level")
    factor: float = Field(1.0, gt=0, description="weight of the likelihood, c; gamma^2 = sigma^2 / c")
    steps_per_level: int = Field(100, ge=1, description="steps at each level, T")
    levels: int = Field(10, ge=1, description="geometric noise levels")
    highest: float = Field(1.0, gt=0, description="first noise level")
    lowest: float = Field(0.01, gt=0, description="last noise level")
    level_shares: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (), description="steps at each level as a multiple of steps_per_level, one number per level; empty: the same at all levels"
    )
    start: Start = Field("uniform", description="law of the first state: uniform on [0, 1], or normal as in the Glow runner")
    noise: bool = Field(True, description="false: the ablation of Fig. 3 without Langevin noise; with annealing=false, its first column")
    annealing: bool = Field(True, description="false: the ablation of Fig. 3 with all steps at the lowest level")
    final_denoise: bool = Field(False, description="replace the last state by its posterior mean at the lowest level, one evaluation more")

    info: ClassVar[MethodInfo] = MethodInfo(
        "basis-ncsn", "BASIS", "1", frozenset({"image", "vector"}), "prior", f"{_PAPER}, Algorithm 1", deterministic=False, max_batch=1024, max_batch_cpu=8
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level_shares and len(self.level_shares) != self.levels:
            raise ValueError(f"level_shares takes {self.levels} numbers, one per noise level, got {len(self.level_shares)}")

    def supports_operator(self, task: TaskSpec) -> Support:
        """Refuses settings at which the residual grows."""
        gram = source_gram(task)
        if gram is None:
            return Support(True, "step sizes are not checked for operators with gains of their own")
        if not is_stable(gram, self.delta, self.factor, self.lowest):
            low, high = contraction(gram, self.delta, self.factor, self.lowest)
            worst = low if abs(low) > abs(high) else high
            return Support(False, f"diverges: each step multiplies the residual by {worst:.2f}; use a smaller delta or factor")
        return Support(True)

    def needs_any_level(self) -> bool:
        """Algorithm 1 at the published levels asks for no other; a choice among draws by their likelihood does."""
        likelihood = self.best_of > 1 and self.criterion != "mixture-error"
        return likelihood or (self.levels, self.highest, self.lowest) != (10, 1.0, 0.01)

    def steps(self, per_level: int) -> list[int]:
        """Steps at each level, highest noise first."""
        return [round(per_level * share) for share in self.level_shares] or [per_level] * self.levels

    def draw(self, problem: Problem, ctx: RunContext) -> torch.Tensor:
        """Algorithm 1 on one batch."""
        sigmas = ncsn_levels(self.levels, self.highest, self.lowest)
        return basis(
            problem,
            sigmas if self.annealing else [self.lowest] * self.levels,
            delta=self.delta,
            steps_per_level=self.steps(min(QUICK_STEPS, self.steps_per_level) if ctx.budget == "quick" else self.steps_per_level),
            factor=self.factor,
            start=self.start,
            noise=self.noise,
            final_denoise=self.final_denoise,
        )


RELEASED = {"delta": 3e-5, "factor": 2.0}
TUNED = {
    **RELEASED,
    "delta": 7.5e-6,
    "steps_per_level": 160,
    "levels": 12,
    "lowest": 0.005,
    "level_shares": (0.7, 1.7, 2.1, 1.7, 1.0, 0.9, 0.9, 0.9, 0.8, 0.7, 0.3, 0.3),
}

PRESETS: Mapping[str, type[Basis]] = presets(
    Basis,
    {
        "basis-ncsn-denoised": Preset(
            "BASIS, final denoising",
            f"{_PAPER}, Algorithm 1 and one denoising step",
            "One denoising step at the end, which the paper does not have: the last state still carries Langevin noise.",
            {"final_denoise": True},
        ),
        "basis-ncsn-code": Preset(
            "BASIS, released settings",
            f"{_PAPER}, released code",
            "The settings of the authors' MNIST runner: delta 3e-5, twice the likelihood's gradient.",
            RELEASED,
        ),
        "basis-ncsn-tuned": Preset(
            "BASIS, tuned",
            f"{_PAPER}, Algorithm 1; steps by level and levels are ours",
            "Steps and levels of ours, chosen on validation mixtures (benchmarks/basis_settings.py): 1,920 evaluations. "
            "The step size relative to sigma and the likelihood's weight are the released ones. Which mode an estimate "
            "ends in is decided at noise levels of about 0.6 to 0.2, so nearly half the steps are taken there; two levels "
            "below 0.01 take off the noise that Algorithm 1 leaves in its last state.",
            TUNED,
            max_batch_cpu=4,
        ),
        "basis-ncsn-tuned-denoised": Preset(
            "BASIS, tuned, final denoising",
            f"{_PAPER}, Algorithm 1, tuned, and one denoising step",
            "The tuned settings with one denoising step at the end, so that what the step hides or gives is seen in a row of its own.",
            {**TUNED, "final_denoise": True},
            max_batch_cpu=4,
        ),
        "basis-ncsn-no-noise": Preset(
            "BASIS without noise",
            f"{_PAPER}, Fig. 3",
            "Ablation: gradient ascent, no Langevin noise.",
            {"noise": False},
        ),
        "basis-ncsn-no-annealing": Preset(
            "BASIS without annealing",
            f"{_PAPER}, Fig. 3",
            "Ablation: the same number of steps, all at the lowest noise level.",
            {"annealing": False},
        ),
        "basis-ncsn-no-noise-no-annealing": Preset(
            "BASIS without noise and annealing",
            f"{_PAPER}, Fig. 3, first column",
            "Ablation: gradient ascent at the lowest noise level, neither Langevin noise nor annealing; the same number of steps.",
            {"noise": False, "annealing": False},
        ),
        "basis-ncsn-10x": Preset(
            "BASIS (10x)",
            f"{_PAPER}, Algorithm 1, best of ten by denoising loss",
            'Best of ten draws by the denoising loss: the selection that the paper has for Glow only (its row "10x").',
            {"best_of": 10},
            max_batch_cpu=1,
        ),
        "basis-ncsn-per-class": Preset(
            "BASIS, class-wise priors",
            f"{_PAPER}, released code, one prior per class",
            "The released settings with one prior per source class: an improvement that the paper leaves open.",
            RELEASED,
            supervision="sources",
        ),
    },
)
"""The registered names of BASIS: one algorithm, other defaults."""
