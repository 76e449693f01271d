"""Candidates of LASS: sets of token sequences that may lie behind a mixture, and how near their decoded mean is to it; what the methods on tokens share.

Postolache et al. 2023, sec. 3.3, for two sources (``baselines/sampling/token_samplers.py``). More of them, which the paper leaves open, are drawn through a
tree of partial sums (``baselines/sampling/token_trees.py``); its counts are made from images that the prior draws (``baselines/training/partial_sums.py``),
when the first mixture is separated, and take a minute or two on one core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.networks.vqvae import STRIDE, VQVAE
from baselines.priors.token_sums import SumCounts, SumLikelihood
from baselines.sampling.token_guides import all_go_on, keep_nearest
from baselines.sampling.token_samplers import Drawn, Greedy, Rule, TokenPosterior, draw, search
from baselines.sampling.token_trees import MOST_CODES, Split, balanced, draw_tree
from baselines.training.partial_sums import count_partial_sums, own_images
from baselines.training.token_models import LearntTokens, TokenModels
from sepbench.memory import scaled
from sepbench.protocols import RunContext, Support, TaskSpec
from sepbench.settings import STRICT

_QUICK = 4
_CPU_ROWS, _GPU_ROWS = 4096, 65536
"""Token sequences that are made at once; one of 49 tokens has 150 kB of keys and values."""
_CPU_IMAGES, _GPU_IMAGES = 512, 16384
"""Images that are decoded at once."""
_OWN_IMAGES = 4096
"""Images that the prior draws to count partial sums; at least as many as a mixture has sources."""
_OWN_SEED = 0
"""Of these images and their mixtures: counts belong to the codec, not to the run."""


@dataclass(config=STRICT)
class TokenCandidates(LearntTokens):
    """How candidates are made. Budget ``quick`` makes a quarter of them, rounded up."""

    sampler: Literal["draw", "greedy", "beam"] = Field("draw", description="by chance, the likeliest pair of each step, or beam search")
    candidates: int = Field(512, ge=1, le=65536, description="N, drawn for a mixture; the width of the beam; greedy has one")
    top_k: int = Field(32, ge=0, description="pairs of a step's list that may be drawn; 0: all, ancestral sampling")
    nucleus: float = Field(1.0, gt=0, le=1, description="share of a step's probability that may be drawn; 1: all")
    temperature: float = Field(1.0, gt=0, description="of a step's draw")
    likelihood_weight: float = Field(1.0, ge=0, description="w, the paper's lambda")
    smoothing: float = Field(0.0, ge=0, description="added to the count of every triple; 0: pairs never seen are never drawn")
    partial_mixtures: int = Field(32768, ge=1, description="mixtures that a partial sum is counted from, where there are more than two sources")
    guided: float = Field(1.0, gt=0, le=1, description="share of the candidates, nearest to the mixture, that go on after each row of tokens; 1: all (paper)")
    misaligned: bool = Field(False, description="beams with the scores of other beams, as in the released code (flag 46)")

    _partial: dict[tuple[int, int], SumCounts] = field(default_factory=dict, init=False, repr=False)

    @property
    def posterior_samples(self) -> int:
        """Draws behind one estimate; a quarter of them with budget ``quick``."""
        return self.candidates if self.sampler == "draw" else 1

    def token_support(self, task: TaskSpec, name: str) -> Support:
        """Whether tokens can separate a task of images; ``name`` is the method's, for messages."""
        if task.operator == "gain":
            return Support(False, f"{name} counts tokens of means; operator 'gain' weighs sources differently")
        if any(side % STRIDE for side in task.source_shape[-2:]):
            return Support(False, f"{name} takes images whose height and width are multiples of {STRIDE}")
        if task.n_sources > 2 and self.sampler == "beam":
            return Support(False, f"{name} searches beams of two sources, the task has {task.n_sources}; use --set {name}.sampler=draw")
        if task.n_sources > 2 and self.codes > MOST_CODES:
            return Support(False, f"{name} sums over all triples of codes where there are more than two sources, for at most {MOST_CODES} codes")
        if self.guided < 1 and self.sampler == "beam":
            return Support(False, f"{name} guides draws, not beams; use --set {name}.sampler=draw or {name}.guided=1")
        return Support(task.n_sources > 1, "" if task.n_sources > 1 else f"{name} separates two sources or more, the task has one")

    def likelihood(self, models: TokenModels, device: str | torch.device) -> SumLikelihood:
        """Of two clean images."""
        return SumLikelihood(models.sums, models.codec.codebook, self.smoothing, device)

    def found(
        self, means: torch.Tensor, sources: int, ids: torch.Tensor, ctx: RunContext, told: Callable[[float], None] = lambda fraction: None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Candidates of mixtures.

        Args:
            means: of the mixtures' sources, ``(B, C, H, W)``.
            sources: K.
            ids: of the examples, ``(B,)``.
            ctx: the run's.
            told: the share that is done.

        Returns:
            Tokens ``(B, N, K, S)`` and log posteriors ``(B, N)``, -inf where a beam is none.
        """
        models = self.fitted()
        tokens = models.codec.tokens_of(means).cpu()
        count = 1 if self.sampler == "greedy" else fewer(self.candidates, ctx)
        of_two = self.likelihood(models, ctx.device)
        posterior = TokenPosterior((models.prior, models.prior), of_two, self.likelihood_weight)
        together, guided = self.sampler == "beam" or self.guided < 1, self.guided < 1 and count > 1
        tree = balanced(sources, lambda left, right: self._of_parts(left, right, models, of_two, ctx)) if sources > 2 or guided else None
        sequences = _CPU_ROWS if torch.device(ctx.device).type == "cpu" else scaled(_GPU_ROWS, ctx.device)
        at_once = max(1, sequences // sources)
        every, number = torch.arange(len(tokens)).repeat_interleave(count), torch.arange(count).repeat(len(tokens))
        # the rows of a search that compares candidates stay together
        rows = torch.arange(len(every)).split(max(1, at_once // count) * count if together else at_once)
        rule = Greedy() if self.sampler == "greedy" else Rule(self.temperature, self.top_k or None, self.nucleus)
        made: list[Drawn] = []
        for part in rows:
            mixture, which = tokens[every[part]], (ctx.noise, ids[every[part]], number[part], ctx.device)
            if isinstance(tree, Split):
                examples = every[part][::count].to(means.device)
                decode = partial(decoded, models.codec, at_once=images_at_once(ctx))
                guide = keep_nearest(decode, means[examples], mixture[::count], models.codec.grid[1], count, self.guided) if guided else all_go_on
                made.append(draw_tree([models.prior] * sources, tree, self.likelihood_weight, mixture, rule, *which, parents_after=guide))
            elif self.sampler == "beam":
                made.append(search(posterior, mixture[::count], count, ctx.device, misaligned=self.misaligned))
            else:
                made.append(draw(posterior, mixture, rule, *which))
            told(len(made) / len(rows))
        found, logs = torch.cat([one.tokens for one in made]), torch.cat([one.log_posterior for one in made])
        return found.unflatten(0, (-1, count)), logs.unflatten(0, (-1, count))

    def _of_parts(self, left: int, right: int, models: TokenModels, of_two: SumLikelihood, ctx: RunContext) -> SumLikelihood:
        """Of a mean of ``left`` images and one of ``right``; counted when it is first asked for."""
        if left == right == 1:
            return of_two
        if (left, right) not in self._partial:
            images = own_images(models.codec, models.prior, max(_OWN_IMAGES, left + right), _OWN_SEED)
            self._partial[left, right] = count_partial_sums(models.codec, images, (left, right), self.partial_mixtures, _OWN_SEED)
        return SumLikelihood(self._partial[left, right], models.codec.codebook, self.smoothing, ctx.device)


@torch.no_grad()
def errors_of(models: TokenModels, found: torch.Tensor, logs: torch.Tensor, means: torch.Tensor, at_once: int) -> torch.Tensor:
    """Squared L2 distances ``(B, N)`` of the candidates' decoded means to those of the mixtures; inf where the log posterior is -inf, which is no candidate.

    Args:
        models: whose codec decodes.
        found: tokens ``(B, N, K, S)``.
        logs: ``(B, N)``.
        means: ``(B, C, H, W)``.
        at_once: images that are decoded at once.
    """
    count, sources = found.shape[1:3]
    if count == 1:
        return torch.zeros_like(logs)
    errors = []
    for rows in torch.arange(len(found) * count, device=found.device).split(max(1, at_once // sources)):
        images = models.codec.decode(models.codec.embed(found.flatten(0, 1)[rows].flatten(0, 1))).unflatten(0, (-1, sources))
        errors.append((images.mean(1) - means[rows // count]).flatten(1).square().sum(1))
    distances = torch.cat(errors).unflatten(0, (-1, count))
    return torch.where(logs.isfinite(), distances, torch.inf)


@torch.no_grad()
def decoded(codec: VQVAE, tokens: torch.Tensor, at_once: int) -> torch.Tensor:
    """Images ``(n, C, H, W)`` of tokens ``(n, S)``, so many at once."""
    return torch.cat([codec.decode(codec.embed(part)) for part in tokens.split(at_once)])


def fewer(count: int, ctx: RunContext) -> int:
    """A quarter with budget ``quick``, rounded up."""
    return -(-count // _QUICK) if ctx.budget == "quick" else count


def images_at_once(ctx: RunContext) -> int:
    """Images that are decoded at once on the run's device."""
    return _CPU_IMAGES if torch.device(ctx.device).type == "cpu" else scaled(_GPU_IMAGES, ctx.device)
