"""Projected diffusion: sepbench's own sampler, made for the best PSNR per network evaluation.

Supervision: ``prior``; ``sources`` for the row of class-wise priors.
Related: DDNM (Wang, Yu and Zhang 2023), which projects the predicted clean image onto the measurement.

Every step of the reverse diffusion predicts all sources, ``D_k = E[x_k | noisy x_k]``, conditions the prediction on the mixture and goes
on from there. With independent errors of variance ``v_k`` the conditional mean is the weighted projection

    x_k <- D_k + w_k v_k / (sum_j w_j^2 v_j) (m - g(D))

which meets the mixture exactly. Plain DDNM takes equal v_k. Signals in [0, 1] allow better: by the inequality of Bhatia and Davis (2000) a
variable in [0, 1] with mean D has variance at most D (1 - D), so a pixel that the denoiser is sure of keeps its value and the other
source takes the residual. For a mean of channels, the channels of a pixel take the sources' places.

Failures of such samplers are wrong modes, not blur, so several draws are told apart by their denoising loss (``sepbench.selection``). The
registered rows finish N draws and take the mean of those in the best mode. The sampler can also prune: N candidates start, and after chosen steps
the loss of the consistent predictions keeps the best of them. ``benchmarks/sampler_study.py`` has rows of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.sampling.noise_levels import karras_levels
from baselines.sampling.problem import Problem
from baselines.sampling.projection import condition
from baselines.sampling.separator import LOSS_SIGMAS, ScoreSeparator
from sepbench.noise import STREAMS
from sepbench.protocols import MethodInfo, RunContext
from sepbench.selection import by_denoising_loss
from sepbench.settings import STRICT, Preset, presets

_PAPER = "sepbench's own; after Wang, Yu and Zhang (2023), DDNM"
QUICK_STEPS = 15
"""Most steps under the quick budget."""
CANDIDATE_SIGMAS = (0.1, 0.2, 0.4, 0.8)
"""Noise levels that tell candidates apart, as long as ``loss_sigmas`` is not set. The sampler study's rows were made with them."""


def projected(
    problem: Problem,
    sigmas: Sequence[float],
    *,
    candidates: int = 1,
    keep: Mapping[int, int] | None = None,
    stochasticity: float = 1.0,
    bounded: bool = True,
    loss_sigmas: Sequence[float] = CANDIDATE_SIGMAS,
) -> torch.Tensor:
    """One estimate per mixture, the best of ``candidates`` runs.

    Args:
        problem: mixtures and priors.
        sigmas: noise levels, highest first, without the final zero.
        candidates: runs that start.
        keep: after how many steps how many candidates are kept, by denoising loss; the survivors of the last step are ranked by it too.
        stochasticity: share of fresh noise in each step, 1 draws all anew (as DDPM at coarse steps), 0 keeps it (DDIM).
        bounded: sources lie in [0, 1], so the variance bound applies.
        loss_sigmas: noise levels of the denoising loss; each costs one evaluation per source and candidate.

    Returns:
        ``(B, K, ...)`` that mix to the mixture up to rounding. ``problem.evaluations`` counts evaluations per source, all candidates added up.
    """
    keep = keep or {}
    count = candidates
    rows = problem.repeat(count)
    x = sigmas[0] * rows.normals(0)
    clean = x
    for i, sigma in enumerate(sigmas):
        problem.evaluations += count
        predicted = rows.denoise(x, sigma)
        clean = condition(rows, predicted.clamp(0, 1) if bounded else predicted, bounded)
        kept_now = keep.get(i + 1, count)
        if kept_now < count:
            best = _best(problem, clean, kept_now, loss_sigmas)
            rows, x, clean, count = rows.rows(best.cpu()), x[best], clean[best], kept_now
        if i + 1 < len(sigmas):
            kept = (x - clean) / sigma
            x = clean + sigmas[i + 1] * (math.sqrt(1 - stochasticity**2) * kept + stochasticity * rows.normals(i + 1))
    return clean if count == 1 else clean[_best(problem, clean, 1, loss_sigmas)]


def _best(problem: Problem, clean: torch.Tensor, keep: int, sigmas: Sequence[float]) -> torch.Tensor:
    """Row numbers of the ``keep`` candidates per mixture with the least denoising loss, ``(B * keep,)`` of the rows of ``clean``."""
    batch = len(problem.mixtures)
    count = clean.shape[0] // batch
    problem.evaluations += count * len(sigmas)
    problem.told_apart(count * len(sigmas))
    criterion = by_denoising_loss(clean.unflatten(0, (batch, count)), problem.priors, problem.mixtures, problem.noise, sigmas)
    order = criterion.nan_to_num(nan=-math.inf).argsort(dim=1, descending=True, stable=True)[:, :keep]
    first: torch.Tensor = count * torch.arange(batch, device=order.device)[:, None]
    return (first + order).flatten()


@dataclass(config=STRICT)
class Projected(ScoreSeparator):
    """One run of the projected diffusion."""

    steps: int = Field(100, ge=1, description="noise levels of Karras et al., one evaluation per source each")
    highest: float = Field(1.0, gt=0, description="first noise level")
    lowest: float = Field(0.02, gt=0, description="last noise level")
    rho: float = Field(3.0, gt=0, description="exponent of the levels: the larger, the more of them are low")
    stochasticity: float = Field(1.0, ge=0, le=1, description="share of fresh noise in each step: 1 draws all anew, 0 keeps it")
    bounded: bool | None = Field(None, description="whether sources are in [0, 1]; none: the task decides (images are)")
    candidates: int = Field(
        1, ge=1, le=STREAMS, description="candidates that start for one draw; the denoising loss at loss_sigmas tells them apart, at 0.1 to 0.8 by default"
    )
    prune_after: tuple[Annotated[int, Field(ge=1)], ...] = Field((), description="numbers of steps after which candidates are dropped, ascending, below steps")
    survivors: tuple[Annotated[int, Field(ge=1)], ...] = Field((), description="how many are kept each time, one number for each of prune_after")

    info: ClassVar[MethodInfo] = MethodInfo(
        "projected", "Projected diffusion", "1", frozenset({"image", "vector"}), "prior", _PAPER, deterministic=False, max_batch=512, max_batch_cpu=64
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        counts, steps = (self.candidates, *self.survivors), (0, *self.prune_after)
        falls = list(counts) == sorted(counts, reverse=True)
        if len(counts) != len(steps) or not falls or list(steps) != sorted(set(steps)):
            raise ValueError("prune_after must rise from 1 and survivors fall from candidates, one for each")
        if steps[-1] >= self.steps:
            raise ValueError(f"prune_after must be below steps, or nothing is left to save; got {steps[-1]} of {self.steps} steps")
        if self.candidates > 1 and self.best_of == 1 and self.criterion != "denoising-loss":
            raise ValueError(f"criterion {self.criterion} ranks whole draws, candidates go by the denoising loss; set best_of instead of candidates")

    def draw(self, problem: Problem, ctx: RunContext) -> torch.Tensor:
        """One estimate per row. Where the quick budget takes fewer steps, it drops candidates at the same share of them."""
        steps = min(QUICK_STEPS, self.steps) if ctx.budget == "quick" else self.steps
        levels = karras_levels(steps, self.highest, self.lowest, self.rho)
        keep = {max(1, after * steps // self.steps): count for after, count in zip(self.prune_after, self.survivors, strict=True)}
        return projected(
            problem,
            levels,
            candidates=self.candidates,
            keep=keep,
            stochasticity=self.stochasticity,
            bounded=ctx.task.domain == "image" if self.bounded is None else self.bounded,
            loss_sigmas=CANDIDATE_SIGMAS if self.loss_sigmas == LOSS_SIGMAS else self.loss_sigmas,
        )


FOUR_TIMES = {"steps": 45, "best_of": 4, "combine": "mean"}
"""Four draws, the mean of the best one's mode."""

PRESETS: Mapping[str, type[Projected]] = presets(
    Projected,
    {
        "projected-4x": Preset(
            "Projected diffusion, mean of 4", _PAPER, "Four draws, the mean of the best one's mode: 200 evaluations per source.", FOUR_TIMES, max_batch_cpu=32
        ),
        "projected-8x": Preset(
            "Projected diffusion, mean of 8",
            _PAPER,
            "Eight draws, the mean of the best one's mode: 400 evaluations per source.",
            {**FOUR_TIMES, "best_of": 8},
            max_batch_cpu=16,
        ),
        "projected-16x": Preset(
            "Projected diffusion, mean of 16",
            _PAPER,
            "Sixteen draws, the mean of the best one's mode: 992 evaluations per source, BASIS' own number.",
            {**FOUR_TIMES, "steps": 57, "best_of": 16},
            max_batch_cpu=8,
        ),
        "projected-4x-per-class": Preset(
            "Projected diffusion, mean of 4, class-wise priors",
            _PAPER,
            "projected-4x with one prior per source class.",
            FOUR_TIMES,
            supervision="sources",
            max_batch_cpu=32,
        ),
    },
)
"""The registered names of the projected diffusion: one sampler, other defaults."""
