"""LASS candidates that the projected diffusion finishes: sepbench's own hybrid.

Supervision: ``prior``.
Related: Postolache et al. 2023 (LASS) for the candidates, and Wang, Yu and Zhang 2023 (DDNM) for the projected
diffusion. SDEdit (Meng et al. 2022) also starts a reverse diffusion from a given image at a middle noise level.

Each of the two has what the other lacks. Tokens find the objects in a mixture in one pass, but the decoded images
explain the mixture only roughly. The projected diffusion (``baselines/projected.py``) explains a mixture exactly and
draws sharp images. But it spends most of its evaluations at high noise levels, on a mode that is often wrong. So, for
every mixture:

1. Draw N candidates of LASS. Keep the ``starts`` whose decoded mean is nearest to the mixture
   (``baselines/training/token_candidates.py``).
2. Project each start onto the mixture, add noise of level ``highest``, and go down ``search_steps`` levels to
   ``middle``. The steps give the denoising loss at no cost. Keep the start with the least loss over them.
3. Continue with that start alone, in ``finish_steps`` steps to ``lowest``. The estimate is the mean of its clean
   sources in these steps (2 and 3 are in ``baselines/sampling/draw_until.py``).

Start r of a mixture takes the noise of draw r, and so does candidate r for its tokens. At step s they share one random
word for each source but the last: it chooses token s, and is the length of the noise of the first two pixels, in a
corner of the image. (The last source of start 0 shares one with the resampling of the candidates.) Streams apart would
give other numbers than the committed rows have.

This costs ``starts * search_steps + finish_steps`` evaluations of the score prior per source.
``benchmarks/lass_projected.py`` chose the settings on validation mixtures.
"""

from __future__ import annotations

import hashlib
from dataclasses import field as plain_field
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.parts import part_support
from baselines.priors.for_task import load_shipped, prior_support
from baselines.priors.shipped import find_weights
from baselines.priors.user_prior import load as load_user_prior
from baselines.sampling.draw_until import Chain, finish, search
from baselines.sampling.noise_levels import karras_levels
from baselines.sampling.problem import Meter, Problem, RowLimit
from baselines.sampling.projection import condition
from baselines.sampling.separator import needs_weighted_sum
from baselines.training.token_candidates import TokenCandidates, decoded, errors_of, images_at_once
from baselines.training.token_models import LearntTokens
from sepbench.errors import MethodError
from sepbench.protocols import MethodInfo, Mixtures, RunContext, ScorePrior, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT, FitScope

_CHOSEN = 0.7
"""Share of a separation that is done when the starts are chosen."""


@dataclass(config=STRICT)
class LassProjected(TokenCandidates):
    """Starts from LASS, one of which the projected diffusion finishes.

    The fit is that of ``lass``. The score prior is the shipped one, or ``score_weights``.
    """

    candidates: int = Field(128, ge=1, le=65536, description="N, how many are drawn for a mixture; the width of the beam; greedy has one")
    starts: int = Field(5, ge=1, description="how many candidates the diffusion starts from: those of least error to the mixture")
    search_steps: int = Field(7, ge=1, description="noise levels from highest to middle, one evaluation per source and start each")
    finish_steps: int = Field(14, ge=1, description="noise levels after middle, for the chosen start; the estimate is the mean over them")
    highest: float = Field(0.6, gt=0, description="noise level of the starts")
    middle: float = Field(0.2, gt=0, description="the last noise level before one start is chosen")
    lowest: float = Field(0.03, gt=0, description="the last noise level")
    mirrored: float = Field(0.9, ge=0, description="from this noise level down, noise comes in pairs n, -n; 0 draws all of it anew")
    score_weights: str = Field("", description="score prior: a .safetensors file with its card, or package.module:NAME; empty: the shipped one")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="lass-projected",
        title="LASS, projected diffusion",
        version="1",
        domains=frozenset({"image"}),
        supervision="prior",
        paper="sepbench's own; after Postolache et al. 2023 and Wang, Yu and Zhang 2023, DDNM",
        deterministic=False,
        max_batch_cpu=32,
    )
    fit_scope: ClassVar[FitScope] = FitScope(frozenset({"source_shape"}), "lass", "1", LearntTokens)
    _score: tuple[ScorePrior, str] | None = plain_field(default=None, init=False, repr=False)
    _last: torch.Tensor | None = plain_field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.lowest < self.middle < self.highest:
            raise ValueError(f"noise levels fall: give lowest below middle below highest, got {self.lowest}, {self.middle} and {self.highest}")

    @property
    def evaluations(self) -> int:
        """How often one separation evaluates the score prior, per source."""
        return self.starts * self.search_steps + self.finish_steps

    def network_evaluations(self) -> torch.Tensor | None:
        """Evaluations of the score prior per source in the last call, ``(B,)``.

        Passes of the token models do not count. None before the first call.
        """
        return self._last

    def supports(self, task: TaskSpec) -> Support:
        support = part_support(task, self.info.name)
        if support.ok:
            support = self.token_support(task, self.info.name)
        if support.ok:
            support = needs_weighted_sum(task)
        if not support.ok:
            return support
        if task.analytic_prior:
            return Support(False, f"{self.info.name} learns tokens of images and brings its own score prior; here the true prior is known")
        found = prior_support(task, self.score_weights, method=self.info.name, per_class=False, ten_levels_do=False)
        return found if found.ok else Support(False, found.note.replace(f"{self.info.name}.weights", f"{self.info.name}.score_weights"))

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Learn the tokens as ``lass`` does, and load the score prior.

        Raises:
            MethodError: no score prior ships for the task, and ``score_weights`` is empty.
            DataError: token weights that are missing, damaged or of other settings.
        """
        super().fit(view, ctx)
        self._score = self._load_score(ctx)

    def load(self, folder: Path, ctx: RunContext) -> None:
        """Read a fit of ``lass``, and load the score prior. The errors are those of ``fit``."""
        super().load(folder, ctx)
        self._score = self._load_score(ctx)

    @property
    def weights_sha256(self) -> str:
        """Digest of the fit and of the score prior.

        Before ``fit`` it is the digest of ``lass``, whose fits this method shares.
        """
        learnt = super().weights_sha256
        return hashlib.sha256(f"{learnt} {self._score[1]}".encode()).hexdigest() if learnt and self._score else learnt

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to sources ``(B, K, C, H, W)``.

        The sources mix to the mixtures up to rounding. They are not clamped. A mixture that is not finite gets NaN.

        Raises:
            ValueError: ``fit`` or ``load`` was not called.
        """
        finite = mixtures.values.isfinite().flatten(1).all(1)
        known = Mixtures(torch.where(finite[:, None, None, None], mixtures.values, 0.0), mixtures.example_ids, mixtures.operator)
        estimates = self.finished(known, self.begun(known, ctx), ctx)
        return torch.where(finite[:, None, None, None, None], estimates, torch.nan)

    def begun(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """The starts: decoded sources ``(B, starts, K, C, H, W)`` of least error to the mixtures, the best first.

        If there are fewer candidates than ``starts``, all of them are returned.

        Raises:
            ValueError: ``fit`` or ``load`` was not called.
        """
        models = self.fitted()
        means = mixtures.values / float(mixtures.operator.matrix().sum())
        found, logs = self.found(means, mixtures.n_sources, mixtures.example_ids, ctx, lambda done: ctx.progress(_CHOSEN * done, "candidates"))
        order = errors_of(models, found, logs, means, images_at_once(ctx)).argsort(dim=1, stable=True)[:, : self.starts]
        best = found[torch.arange(len(found), device=found.device)[:, None], order]
        images: torch.Tensor = decoded(models.codec, best.flatten(0, 2), images_at_once(ctx)).unflatten(0, best.shape[:3])
        return images

    def finished(self, mixtures: Mixtures, starts: torch.Tensor, ctx: RunContext) -> torch.Tensor:
        """Estimates ``(B, K, C, H, W)`` from starts ``(B, n, K, C, H, W)``.

        Raises:
            MethodError: ``fit`` or ``load`` was not called.
        """
        if self._score is None:
            raise MethodError(f"{self.info.name}: separate() was called before fit()")
        batch, count = starts.shape[:2]
        meter = Meter(lambda done, text: ctx.progress(_CHOSEN + (1 - _CHOSEN) * done, text))
        meter.expected = batch * mixtures.n_sources * (count * self.search_steps + self.finish_steps)
        problem = Problem(mixtures, [self._score[0]], ctx.noise, ctx.task.source_shape, RowLimit.of(ctx.device), meter=meter)
        chain = self.chain()
        rows = problem.repeat(count)
        clean, losses = search(rows, chain, condition(rows, starts.flatten(0, 1), bounded=True))
        taken = losses.mean(1).unflatten(0, (batch, count)).nan_to_num(nan=torch.inf).argmin(1)
        chosen = clean.unflatten(0, (batch, count))[torch.arange(batch, device=clean.device), taken]
        estimates = finish(replace(problem, draws=taken), chain, chosen)
        self._last = meter.by_mixture(mixtures.example_ids) / mixtures.n_sources
        return estimates

    def chain(self) -> Chain:
        """The noise levels of search and finish."""
        levels = karras_levels(self.search_steps, self.highest, self.middle, 1.5)
        return Chain(levels, karras_levels(self.finish_steps + 1, self.middle, self.lowest, 1.0)[1:], self.highest, self.mirrored, bounded=True)

    def _load_score(self, ctx: RunContext) -> tuple[ScorePrior, str]:
        """The score prior and its digest."""
        if self.score_weights:
            from baselines.priors.user_prior import digests

            return load_user_prior(self.score_weights, ctx.task, "float32", ctx.device)[0], digests(self.score_weights)
        entry = find_weights(ctx.task, 0, per_class=False)
        if entry is None:
            raise MethodError(f"no score prior ships for task {ctx.task.suite}/{ctx.task.name}; give one with --set {self.info.name}.score_weights=FILE")
        return load_shipped(entry, ctx.task, "float32", ctx.device), entry.sha256
