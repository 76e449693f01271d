"""LASS. Postolache, Mariani, Mancusi, Santilli, Cosmo and Rodola, AAAI 2023.

The paper is "Latent autoregressive source separation".

Supervision: ``prior``.

A VQ-VAE turns an image into a sequence of tokens. A transformer gives the probability of a sequence. Counts give the
probability of a token of the mean of two images, given the tokens of both (``baselines/training/token_models.py``).
Take a mixture y of two sources, and the tokens m of its mean:

1. Make N candidates (z1, z2), token by token, from log p(z1) + log p(z2) + w log P(m | z1, z2).
2. Decode all candidates. Keep the one whose decoded mean is nearest to y.
3. Refine its latents, so that the decoded images explain y better (``baselines/sampling/latent_refinement.py``).

The estimates are the decoded images. Their mean is near y, and not equal to it.

Ours differs from the paper in the sampler: ``lass`` makes 256 candidates that are resampled as they grow
(``baselines/sampling/token_particles.py``). The paper draws 512 of them, each by itself, from the 32 likeliest pairs of
a step (``lass-topk``; ``baselines/sampling/token_samplers.py``). We chose on validation mixtures (docs/lass.md). The
refinement is the released code's. ``lass-printed`` has the paper's eqs. (12) and (13), which descend here (flag 47 of
docs/protocols.md). If no counted pair makes a token of a mixture, the nearest token that a pair does make takes its
place; the released code raises an error. Sequences begin with a vector that is no code. The rooms named above list the
rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.parts import part_support
from baselines.sampling.latent_refinement import Refinement, refined
from baselines.training.token_candidates import TokenCandidates, errors_of, fewer, images_at_once
from baselines.training.token_models import LearntTokens, TokenModels
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec
from sepbench.settings import STRICT, FitScope, Preset, presets

_PAPER = "Postolache et al. 2023"
_SAMPLED, _CHOSEN = 0.6, 0.7
"""Share of a separation that is done when the candidates are drawn, and when one is chosen."""


@dataclass(config=STRICT)
class LatentSeparation(TokenCandidates):
    """Candidate token sequences, the best of them, and its refinement.

    Sampler and refinement were chosen on validation mixtures (docs/lass.md).

    Budget ``quick`` makes a tenth of the fit, and a quarter of the candidates and of the steps, all rounded up.
    """

    sampler: Literal["draw", "greedy", "beam", "particles"] = Field(
        "particles", description="at random with resampling (ours), at random, the likeliest pair of each step, or beam search"
    )
    candidates: int = Field(256, ge=1, le=65536, description="N, how many are made for a mixture; the width of the beam; greedy has one")
    top_k: int = Field(0, ge=0, description="how many pairs of a step's list may be drawn; 0: all, ancestral sampling")
    evidence: float = Field(5.0, ge=0, description="nats that a particle loses per unit of squared error of the rows decoded so far; 0: tokens alone")
    selection: Literal["error", "posterior"] = Field("error", description="which candidate is kept: of least error to the mixture, or of highest posterior")
    refinement: Refinement = Field("adam", description="the released code's Adam (adam), eqs. 12 and 13 (descent), or none")
    refine_steps: int = Field(500, ge=0, description="T, steps of the refinement")
    refine_rate: float = Field(0.1, gt=0, description="alpha, or Adam's first rate")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="lass",
        title="LASS",
        version="2",
        domains=frozenset({"image"}),
        supervision="prior",
        paper=f"after {_PAPER}; resampling and the evidence of decoded rows are ours",
        deterministic=False,
        max_batch_cpu=8,
    )
    fit_scope: ClassVar[FitScope] = FitScope(frozenset({"source_shape"}), "lass", "1", LearntTokens)

    def supports(self, task: TaskSpec) -> Support:
        support = part_support(task, self.info.name)
        return self.token_support(task, self.info.name) if support.ok else support

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to decoded sources ``(B, K, C, H, W)`` in [0, 1].

        Their mixture is near the given one. A mixture that is not finite gets NaN.
        """
        models = self.fitted()
        means = mixtures.values / float(mixtures.operator.matrix().sum())
        tokens = models.codec.tokens_of(means)
        found, logs = self.found(means, mixtures.n_sources, mixtures.example_ids, ctx, lambda done: ctx.progress(_SAMPLED * done, "candidates"))
        unseen = self.likelihood(models, ctx.device).unseen(tokens) if mixtures.n_sources == 2 else 0
        ctx.progress(_SAMPLED, f"{unseen} of {tokens.numel()} tokens of mixtures were never counted")
        best = logs.argmax(1) if self.selection == "posterior" else errors_of(models, found, logs, means, images_at_once(ctx)).argmin(1)
        chosen = found[torch.arange(len(found), device=found.device), best]
        finite = means.isfinite().flatten(1).all(1)
        return torch.where(finite[:, None, None, None, None], self._refined(models, chosen, means, ctx), torch.nan)

    def _refined(self, models: TokenModels, chosen: torch.Tensor, means: torch.Tensor, ctx: RunContext) -> torch.Tensor:
        """Images ``(B, K, C, H, W)`` of chosen tokens ``(B, K, S)``.

        Eqs. (12) and (13) start from the latents E(D(e)), and the released code starts from e.
        """
        steps = 0 if self.refinement == "none" else fewer(self.refine_steps, ctx)
        codec = models.codec
        images: list[torch.Tensor] = []
        parts = torch.arange(len(chosen), device=chosen.device).split(max(1, images_at_once(ctx) // chosen.shape[1]))
        for part in parts:
            codes = codec.embed(chosen[part].flatten(0, 1))
            start = codec.encode(codec.decode(codes)) if steps and self.refinement == "descent" else codes
            told = partial(_refinement_done, ctx, len(images), len(parts))
            latents = start.unflatten(0, chosen[part].shape[:2])
            images.append(refined(codec.decode, latents, means[part], steps, self.refine_rate, self.refinement, progress=told))
        return torch.cat(images)


def _refinement_done(ctx: RunContext, before: int, parts: int, fraction: float) -> None:
    ctx.progress(_CHOSEN + (1.0 - _CHOSEN) * (before + fraction) / parts, "refinement")


def _preset(title: str, where: str, reason: str, max_batch_cpu: int, **settings: Any) -> Preset:
    return Preset(title, f"{_PAPER}, {where}", reason, settings, max_batch_cpu=max_batch_cpu)


_TABLE = "table 3"
_DRAWS: Mapping[str, Any] = {"sampler": "draw", "candidates": 512, "top_k": 32}
PRESETS: Mapping[str, type[LatentSeparation]] = presets(
    LatentSeparation,
    {
        "lass-raw": _preset(
            "LASS, one candidate", "sec. 3", "What tokens alone give: one draw, decoded.", 64, **{**_DRAWS, "candidates": 1, "refinement": "none"}
        ),
        "lass-selected": _preset("LASS, not refined", "sec. 3", "What the choice among the candidates of lass adds.", 12, refinement="none"),
        "lass-printed": _preset("LASS, as printed", "table 2", "512 draws with k = 32, refined by eqs. 12 and 13.", 8, **_DRAWS, refinement="descent"),
        "lass-topk": _preset("LASS, top-k", _TABLE, "512 draws with k = 32, refined as in the released code.", 8, **_DRAWS),
        "lass-ancestral": _preset("LASS, ancestral sampling", _TABLE, "512 draws from all pairs.", 8, **{**_DRAWS, "top_k": 0}),
        "lass-greedy": _preset("LASS, greedy", _TABLE, "The likeliest pair of each step.", 16, sampler="greedy", candidates=1),
        "lass-beam": _preset("LASS, beam search", _TABLE, "A beam of 128, as the released code has.", 8, sampler="beam", candidates=128, selection="posterior"),
    },
)
"""The registered names of LASS: its stages, and the samplers of the paper's table 3. They share their fits."""
