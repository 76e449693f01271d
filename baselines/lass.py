"""LASS: Postolache, Mariani, Mancusi, Santilli, Cosmo and Rodola, "Latent autoregressive source separation" (AAAI 2023).

Supervision: ``prior``.

A VQ-VAE makes a sequence of tokens of an image, a transformer knows how probable a sequence is, and counts know which token the mean of two images has where
theirs are known (``baselines/training/token_models.py``). For a mixture y of two sources, with tokens m of its mean:

1. N candidates (z1, z2): tokens drawn position by position, log p(z1) + log p(z2) + w log P(m | z1, z2) (``baselines/sampling/token_samplers.py``);
2. the candidate goes on whose decoded mean is nearest to y (512 decoded pairs for a mixture);
3. its latents are refined, so that the decoded images explain y better (eqs. 12 and 13; ``baselines/sampling/latent_refinement.py``).

The estimates are decoded images as they are; their mean is near y and not equal to it.

Ours: eqs. (12) and (13) descend (flag 47 of the protocol facts); a token of a mixture that no pair of the counts makes is looked up as its nearest that one
does, where the released code raises an error; sequences begin with a vector that is no code; and see the rooms named above.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.parts import part_support
from baselines.networks.vqvae import STRIDE
from baselines.priors.token_sums import SumLikelihood
from baselines.sampling.latent_refinement import Refinement, refined
from baselines.sampling.token_samplers import Drawn, Greedy, Rule, TokenPosterior, draw, search
from baselines.training.token_models import LearntTokens, TokenModels
from sepbench.memory import scaled
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec
from sepbench.settings import STRICT, FitScope, Preset, presets

_PAPER = "Postolache et al. 2023"
_SOURCES = 2
_QUICK_SEARCH = 4
_CPU_ROWS, _GPU_ROWS = 2048, 32768
"""Candidates whose tokens are made at once; a row of 49 tokens has 300 kB of keys and values in two sequences."""
_CPU_IMAGES, _GPU_IMAGES = 512, 16384
"""Images that are decoded at once."""
_SAMPLED, _CHOSEN = 0.6, 0.7
"""Share of a separation that is done when the candidates are there, and when one is chosen."""


@dataclass(config=STRICT)
class LatentSeparation(LearntTokens):
    """Candidates of token pairs, the best of them, and its refinement.

    Budget ``quick`` makes a tenth of the fit, rounded up, and a quarter of candidates and steps.
    """

    sampler: Literal["draw", "greedy", "beam"] = Field("draw", description="by chance, the likeliest pair of each step, or beam search")
    candidates: int = Field(512, ge=1, le=65536, description="N, drawn for a mixture; the width of the beam; greedy has one")
    top_k: int = Field(32, ge=0, description="pairs of a step's list that may be drawn; 0: all, ancestral sampling")
    nucleus: float = Field(1.0, gt=0, le=1, description="share of a step's probability that may be drawn; 1: all")
    temperature: float = Field(1.0, gt=0, description="of a step's draw")
    likelihood_weight: float = Field(1.0, ge=0, description="w, the paper's lambda")
    smoothing: float = Field(0.0, ge=0, description="added to the count of every triple; 0: pairs never seen are never drawn")
    selection: Literal["error", "posterior"] = Field("error", description="the candidate of least error to the mixture, or of highest posterior")
    refinement: Refinement = Field("descent", description="eqs. 12 and 13, the released code's Adam, or none")
    refine_steps: int = Field(500, ge=0, description="T")
    refine_rate: float = Field(0.1, gt=0, description="alpha, or Adam's first rate")
    misaligned: bool = Field(False, description="beams with the scores of other beams, as in the released code (flag 46)")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="lass",
        title="LASS",
        version="1",
        domains=frozenset({"image"}),
        supervision="prior",
        paper=f"{_PAPER}, table 2",
        deterministic=False,
        max_batch_cpu=8,
    )
    fit_scope: ClassVar[FitScope] = FitScope(frozenset({"source_shape"}), "lass", "1", LearntTokens)

    @property
    def posterior_samples(self) -> int:
        """Draws behind one estimate; a quarter of them with budget ``quick``."""
        return self.candidates if self.sampler == "draw" else 1

    def supports(self, task: TaskSpec) -> Support:
        support = part_support(task, self.info.name)
        if not support.ok:
            return support
        if task.operator == "gain":
            return Support(False, f"{self.info.name} counts tokens of means; operator 'gain' weighs sources differently")
        if task.n_sources != _SOURCES:
            return Support(False, f"{self.info.name} separates two sources, the task has {task.n_sources}")
        if any(side % STRIDE for side in task.source_shape[-2:]):
            return Support(False, f"{self.info.name} takes images whose height and width are multiples of {STRIDE}")
        return support

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to decoded sources ``(B, 2, C, H, W)`` in [0, 1], whose mixture is near the given one; NaN where it is not finite."""
        models = self.fitted()
        means = mixtures.values / float(mixtures.operator.matrix().sum())
        tokens = models.codec.tokens_of(means)
        likelihood = SumLikelihood(models.sums, models.codec.codebook, self.smoothing, means.device)
        found, logs = self._candidates(models, likelihood, tokens.cpu(), mixtures.example_ids, ctx)
        ctx.progress(_SAMPLED, f"{likelihood.unseen(tokens)} of {tokens.numel()} tokens of mixtures were never counted")
        best = logs.argmax(1) if self.selection == "posterior" else errors_of(models, found, logs, means, _images(ctx)).argmin(1)
        chosen = found[torch.arange(len(found), device=found.device), best]
        finite = means.isfinite().flatten(1).all(1)
        return torch.where(finite[:, None, None, None, None], self._refined(models, chosen, means, ctx), torch.nan)

    def _candidates(
        self, models: TokenModels, likelihood: SumLikelihood, tokens: torch.Tensor, ids: torch.Tensor, ctx: RunContext
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Candidates ``(B, N, 2, S)`` of mixtures with tokens ``(B, S)``, and their log posteriors ``(B, N)``; -inf where a beam is none."""
        count = 1 if self.sampler == "greedy" else self._fewer(self.candidates, ctx)
        posterior = TokenPosterior((models.prior, models.prior), likelihood, self.likelihood_weight)
        at_once = _CPU_ROWS if torch.device(ctx.device).type == "cpu" else scaled(_GPU_ROWS, ctx.device)
        every, number = torch.arange(len(tokens)).repeat_interleave(count), torch.arange(count).repeat(len(tokens))
        # the rows of a beam search stay together
        rows = torch.arange(len(every)).split(max(1, at_once // count) * count if self.sampler == "beam" else at_once)
        made: list[Drawn] = []
        for part in rows:
            mixture = tokens[every[part]]
            if self.sampler == "beam":
                made.append(search(posterior, mixture[::count], count, ctx.device, misaligned=self.misaligned))
            else:
                rule = Greedy() if self.sampler == "greedy" else Rule(self.temperature, self.top_k or None, self.nucleus)
                made.append(draw(posterior, mixture, rule, ctx.noise, ids[every[part]], number[part], ctx.device))
            ctx.progress(_SAMPLED * len(made) / len(rows), "candidates")
        found = torch.cat([one.tokens for one in made]).unflatten(0, (-1, count))
        return found, torch.cat([one.log_posterior for one in made]).unflatten(0, (-1, count))

    def _refined(self, models: TokenModels, chosen: torch.Tensor, means: torch.Tensor, ctx: RunContext) -> torch.Tensor:
        """Images ``(B, 2, C, H, W)`` of chosen tokens ``(B, 2, S)``. Eqs. (12) and (13) start from the latents E(D(e)), the released code from e."""
        steps = 0 if self.refinement == "none" else self._fewer(self.refine_steps, ctx)
        codec = models.codec
        images: list[torch.Tensor] = []
        parts = torch.arange(len(chosen), device=chosen.device).split(max(1, _images(ctx) // _SOURCES))
        for part in parts:
            codes = codec.embed(chosen[part].flatten(0, 1))
            start = codec.encode(codec.decode(codes)) if steps and self.refinement == "descent" else codes
            told = partial(_refinement_done, ctx, len(images), len(parts))
            latents = start.unflatten(0, (-1, _SOURCES))
            images.append(refined(codec.decode, latents, means[part], steps, self.refine_rate, self.refinement, progress=told))
        return torch.cat(images)

    @staticmethod
    def _fewer(count: int, ctx: RunContext) -> int:
        return -(-count // _QUICK_SEARCH) if ctx.budget == "quick" else count


@torch.no_grad()
def errors_of(models: TokenModels, found: torch.Tensor, logs: torch.Tensor, means: torch.Tensor, at_once: int) -> torch.Tensor:
    """Squared L2 distances ``(B, N)`` of the candidates' decoded means to those of the mixtures; inf where the log posterior is -inf, which is no candidate.

    Args:
        models: whose codec decodes.
        found: tokens ``(B, N, 2, S)``.
        logs: ``(B, N)``.
        means: ``(B, C, H, W)``.
        at_once: images that are decoded at once.
    """
    count = found.shape[1]
    if count == 1:
        return torch.zeros_like(logs)
    errors = []
    for rows in torch.arange(len(found) * count, device=found.device).split(max(1, at_once // _SOURCES)):
        images = models.codec.decode(models.codec.embed(found.flatten(0, 1)[rows].flatten(0, 1))).unflatten(0, (-1, _SOURCES))
        errors.append((images.mean(1) - means[rows // count]).flatten(1).square().sum(1))
    distances = torch.cat(errors).unflatten(0, (-1, count))
    return torch.where(logs.isfinite(), distances, torch.inf)


def _refinement_done(ctx: RunContext, before: int, parts: int, fraction: float) -> None:
    ctx.progress(_CHOSEN + (1.0 - _CHOSEN) * (before + fraction) / parts, "refinement")


def _images(ctx: RunContext) -> int:
    return _CPU_IMAGES if torch.device(ctx.device).type == "cpu" else scaled(_GPU_IMAGES, ctx.device)


def _preset(title: str, where: str, reason: str, max_batch_cpu: int, **settings: Any) -> Preset:
    return Preset(title, f"{_PAPER}, {where}", reason, settings, max_batch_cpu=max_batch_cpu)


_TABLE = "table 3"
PRESETS: Mapping[str, type[LatentSeparation]] = presets(
    LatentSeparation,
    {
        "lass-raw": _preset("LASS, one candidate", "sec. 3", "What tokens alone give: one draw, decoded.", 64, candidates=1, refinement="none"),
        "lass-selected": _preset("LASS, not refined", "sec. 3", "What the selection of 512 candidates adds.", 12, refinement="none"),
        "lass-greedy": _preset("LASS, greedy", _TABLE, "Table 3.", 16, sampler="greedy", candidates=1),
        "lass-beam": _preset("LASS, beam search", _TABLE, "A beam of 128, as the released code has.", 8, sampler="beam", candidates=128, selection="posterior"),
        "lass-ancestral": _preset("LASS, ancestral sampling", _TABLE, "Table 3.", 8, top_k=0),
        "lass-topk": _preset("LASS, top-k", _TABLE, "Table 3, k = 32, refined as in the released code.", 8, refinement="adam"),
    },
)
"""The registered names of LASS: its stages, and the samplers of the paper's table 3. They share their fits."""
