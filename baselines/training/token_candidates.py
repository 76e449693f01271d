"""Candidates of LASS: sets of token sequences that may explain a mixture, and how near their decoded mean is to it.

The methods on tokens share this. Two sources follow Postolache et al. 2023, sec. 3.3
(``baselines/sampling/token_samplers.py``). The paper leaves more sources open. Here they are drawn through a tree of
partial sums (``baselines/sampling/token_trees.py``). The counts of the tree come from images that the prior draws
(``baselines/training/partial_sums.py``). They are made before the first mixture is separated, and take a minute or two
on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.networks.vqvae import STRIDE, VQVAE
from baselines.priors.token_sums import SumCounts, SumLikelihood
from baselines.sampling.token_particles import Evidence, Particles, particles
from baselines.sampling.token_samplers import Drawn, Greedy, Rule, SequencePosterior, TokenPosterior, draw, search
from baselines.sampling.token_trees import MOST_CODES, Split, TreePosterior, balanced
from baselines.training.codec import network_digest
from baselines.training.partial_sums import count_partial_sums, own_images
from baselines.training.token_models import LearntTokens, TokenModels
from sepbench.memory import scaled
from sepbench.protocols import RunContext, Support, TaskSpec
from sepbench.settings import STRICT

_QUICK = 4
_CPU_ROWS, _GPU_ROWS = 4096, 65536
"""How many token sequences are made at once. A sequence of 49 tokens has 150 kB of keys and values."""
_CPU_IMAGES, _GPU_IMAGES = 512, 16384
"""How many images are decoded at once."""
_ROUND = 32
"""Larger batches of images have multiples of this size."""
_OWN_IMAGES = 4096
"""How many images the prior draws to count partial sums. There are at least as many as a mixture has sources."""
_OWN_SEED = 0
"""Seed of these images and their mixtures. Counts belong to the codec, not to the run."""


@dataclass(config=STRICT)
class TokenCandidates(LearntTokens):
    """How candidates are made. Budget ``quick`` makes a quarter of them, rounded up."""

    sampler: Literal["draw", "greedy", "beam", "particles"] = Field(
        "draw", description="at random, the likeliest pair of each step, beam search, or at random with resampling (ours)"
    )
    candidates: int = Field(512, ge=1, le=65536, description="N, how many are drawn for a mixture; the width of the beam; greedy has one")
    top_k: int = Field(32, ge=0, description="how many pairs of a step's list may be drawn; 0: all, ancestral sampling")
    nucleus: float = Field(1.0, gt=0, le=1, description="share of a step's probability that may be drawn; 1: all")
    temperature: float = Field(1.0, gt=0, description="temperature of a step's draw")
    likelihood_weight: float = Field(1.0, ge=0, description="w, the paper's lambda")
    evidence: float = Field(0.0, ge=0, description="nats that a particle loses per unit of squared error of the rows decoded so far; 0: tokens alone")
    smoothing: float = Field(0.0, ge=0, description="added to the count of every triple; 0: pairs never seen are never drawn")
    partial_mixtures: int = Field(32768, ge=1, description="mixtures that are counted for each partial sum, if there are more than two sources")
    misaligned: bool = Field(False, description="beams get the scores of other beams, as in the released code (flag 46)")

    _partial: dict[tuple[str, int, int], SumCounts] = field(default_factory=dict, init=False, repr=False)

    @property
    def posterior_samples(self) -> int:
        """Draws behind one estimate, with the paper's budget."""
        return self.candidates if self.sampler in ("draw", "particles") else 1

    def token_support(self, task: TaskSpec, name: str) -> Support:
        """Whether tokens can separate a task of images. ``name`` is the method's, for messages."""
        if task.assignment == "ordered":
            return Support(False, f"{name} has one model for all sources and cannot tell which source is which; choose a task under the best assignment")
        if task.operator == "gain":
            return Support(False, f"{name} counts tokens of means; operator 'gain' weighs sources differently")
        if any(side % STRIDE for side in task.source_shape[-2:]):
            return Support(False, f"{name} takes images whose height and width are multiples of {STRIDE}")
        if task.n_sources > 2 and self.sampler == "beam":
            return Support(False, f"{name} has its beam for two sources, the task has {task.n_sources}; use --set {name}.sampler=draw")
        if task.n_sources > 2 and self.codes > MOST_CODES:
            return Support(False, f"{name} sums over all triples of codes where there are more than two sources, for at most {MOST_CODES} codes")
        return Support(task.n_sources > 1, "" if task.n_sources > 1 else f"{name} separates two sources or more, the task has one")

    def likelihood(self, models: TokenModels, device: str | torch.device) -> SumLikelihood:
        """The likelihood of a token of the mean of two clean images, given the tokens of both."""
        return SumLikelihood(models.sums, models.codec.codebook, self.smoothing, device)

    def found(
        self,
        means: torch.Tensor,
        sources: int,
        ids: torch.Tensor,
        ctx: RunContext,
        told: Callable[[float], None] = lambda fraction: None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Candidates of mixtures.

        Args:
            means: ``(B, C, H, W)``, the means of the mixtures' sources.
            sources: K.
            ids: ``(B,)``, of the examples.
            ctx: of the run.
            told: called with the share that is done, in [0, 1].

        Returns:
            Tokens ``(B, N, K, S)`` int64 and log posteriors ``(B, N)``. A log posterior of -inf marks an empty beam.

        Raises:
            ValueError: ``fit`` or ``load`` was not called.
        """
        models = self.fitted()
        tokens = models.codec.tokens_of(means).cpu()
        count = 1 if self.sampler == "greedy" else fewer(self.candidates, ctx)
        posterior = self._posterior(models, sources, ctx)
        sequences = _CPU_ROWS if torch.device(ctx.device).type == "cpu" else scaled(_GPU_ROWS, ctx.device)
        at_once = max(1, sequences // sources)
        if self.sampler == "particles":
            return self._particles(posterior, tokens, means, ids, max(1, at_once // count), ctx, told)
        every, number = torch.arange(len(tokens)).repeat_interleave(count), torch.arange(count).repeat(len(tokens))
        # the rows of one beam search stay together
        rows = torch.arange(len(every)).split(max(1, at_once // count) * count if self.sampler == "beam" else at_once)
        rule = Greedy() if self.sampler == "greedy" else Rule(self.temperature, self.top_k or None, self.nucleus)
        made: list[Drawn] = []
        for part in rows:
            mixture, which = tokens[every[part]], (ctx.noise, ids[every[part]], number[part], ctx.device)
            if isinstance(posterior, TokenPosterior) and self.sampler == "beam":
                made.append(search(posterior, mixture[::count], count, ctx.device, misaligned=self.misaligned))
            else:
                made.append(draw(posterior, mixture, rule, *which))
            told(len(made) / len(rows))
        found = torch.cat([one.tokens for one in made]).unflatten(0, (-1, count))
        return found, torch.cat([one.log_posterior for one in made]).unflatten(0, (-1, count))

    def _particles(
        self,
        posterior: SequencePosterior,
        tokens: torch.Tensor,
        means: torch.Tensor,
        ids: torch.Tensor,
        at_once: int,
        ctx: RunContext,
        told: Callable[[float], None],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Like ``found``, with ``at_once`` mixtures at a time."""
        models, made = self.fitted(), list[Particles]()
        count, rule = fewer(self.candidates, ctx), Rule(self.temperature, self.top_k or None, self.nucleus)
        parts = torch.arange(len(tokens)).split(at_once)
        for part in parts:
            evidence = rows_evidence(models, tokens[part], means[part], self.evidence, images_at_once(ctx)) if self.evidence else None
            width = models.codec.grid[1]
            made.append(particles(posterior, tokens[part], count, rule, ctx.noise, ids[part], ctx.device, evidence=evidence, every=width))
            told(len(made) / len(parts))
        return torch.cat([one.tokens for one in made]), torch.cat([one.log_posterior for one in made])

    def _posterior(self, models: TokenModels, sources: int, ctx: RunContext) -> TokenPosterior | TreePosterior:
        of_two = self.likelihood(models, ctx.device)
        tree = balanced(sources, lambda left, right: self._of_parts(left, right, models, of_two, ctx)) if sources > 2 else 0
        if isinstance(tree, Split):
            return TreePosterior((models.prior,) * sources, tree, self.likelihood_weight)
        return TokenPosterior((models.prior, models.prior), of_two, self.likelihood_weight)

    def _of_parts(self, left: int, right: int, models: TokenModels, of_two: SumLikelihood, ctx: RunContext) -> SumLikelihood:
        """The likelihood of a mean of ``left`` images and one of ``right``. It is counted on the first call."""
        if left == right == 1:
            return of_two
        key = (network_digest(models.codec), left, right)
        if key not in self._partial:
            images = own_images(models.codec, models.prior, max(_OWN_IMAGES, left + right), _OWN_SEED)
            self._partial[key] = count_partial_sums(models.codec, images, (left, right), self.partial_mixtures, _OWN_SEED)
        return SumLikelihood(self._partial[key], models.codec.codebook, self.smoothing, ctx.device)


@torch.no_grad()
def decoded(codec: VQVAE, tokens: torch.Tensor, at_once: int) -> torch.Tensor:
    """Images ``(n, C, H, W)`` in [0, 1] of token sequences ``(n, S)``, ``at_once`` at a time. Equal ones are decoded once.

    Parts of more than ``_ROUND`` sequences are filled up to a multiple of it. The number of different sequences has
    hundreds of values, and blocks of hundreds of sizes leave the heap in pieces that are free and not given back:
    memory grew to 4 GB in 150 mixtures.
    """
    different, which = tokens.unique(dim=0, return_inverse=True)
    images = []
    for part in different.split(max(1, at_once)):
        filled = torch.cat([part, part[:1].expand(-len(part) % _ROUND, -1)]) if len(part) > _ROUND else part
        images.append(codec.decode(codec.embed(filled))[: len(part)])
    return torch.cat(images)[which]


@torch.no_grad()
def errors_of(models: TokenModels, found: torch.Tensor, logs: torch.Tensor, means: torch.Tensor, at_once: int) -> torch.Tensor:
    """Squared L2 distances ``(B, N)`` of the candidates' decoded means to the mixtures' means.

    A candidate whose log posterior is not finite is no candidate, and its distance is inf. With one candidate per
    mixture all distances are 0, because there is nothing to choose.

    Args:
        models: their codec decodes.
        found: tokens ``(B, N, K, S)``.
        logs: log posteriors ``(B, N)``.
        means: ``(B, C, H, W)``.
        at_once: how many images are decoded at once.
    """
    count, sources = found.shape[1:3]
    if count == 1:
        return torch.zeros_like(logs)
    errors = []
    for rows in torch.arange(len(found) * count, device=found.device).split(max(1, at_once // sources)):
        images = decoded(models.codec, found.flatten(0, 1)[rows].flatten(0, 1), at_once).unflatten(0, (-1, sources))
        errors.append((images.mean(1) - means[rows // count]).flatten(1).square().sum(1))
    distances = torch.cat(errors).unflatten(0, (-1, count))
    return torch.where(logs.isfinite(), distances, torch.inf)


def rows_evidence(models: TokenModels, tokens: torch.Tensor, means: torch.Tensor, weight: float, at_once: int) -> Evidence:
    """How well the finished rows of tokens explain the mixture's pixels that they cover: ``-weight * squared error``.

    Both sources take the mixture's tokens at positions that have no token yet. A decoder looks a little further than
    its own token. So the last row of pixels gets its final value only with the next tokens.

    Args:
        models: their codec decodes.
        tokens: of the mixtures, ``(B, S)``.
        means: ``(B, C, H, W)``.
        weight: nats per unit of squared error.
        at_once: how many images are decoded at once.
    """

    def evidence(found: torch.Tensor, made: int) -> torch.Tensor:
        count, sources = found.shape[1:3]
        whole = torch.where(torch.arange(found.shape[-1], device=found.device) < made, found, tokens.to(found.device)[:, None, None])
        pixels = STRIDE * (made // models.codec.grid[1])
        errors = []
        for rows in torch.arange(len(found) * count, device=found.device).split(max(1, at_once // sources)):
            images = decoded(models.codec, whole.flatten(0, 1)[rows].flatten(0, 1), at_once).unflatten(0, (-1, sources))
            errors.append((images.mean(1) - means[rows // count])[..., :pixels, :].flatten(1).square().sum(1))
        told: torch.Tensor = -weight * torch.cat(errors).unflatten(0, (-1, count)).double()
        return told

    return evidence


def fewer(count: int, ctx: RunContext) -> int:
    """``count`` with budget ``paper``; a quarter of it, rounded up, with ``quick``."""
    return -(-count // _QUICK) if ctx.budget == "quick" else count


def images_at_once(ctx: RunContext) -> int:
    """How many images are decoded at once on the run's device."""
    return _CPU_IMAGES if torch.device(ctx.device).type == "cpu" else scaled(_GPU_IMAGES, ctx.device)
