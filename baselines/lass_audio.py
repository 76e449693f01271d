"""LASS of sound. Postolache, Mariani, Mancusi, Santilli, Cosmo and Rodola, AAAI 2023, sec. 4.3 and Table 5.

The paper is "Latent autoregressive source separation".

Supervision: ``sources`` (clean recordings of every class). Class-agnostic tasks have no classes to know, and there the
level is ``prior``.

A VQ-VAE turns a spectrogram into a sequence of tokens. A transformer of each class gives the probability of a sequence.
Counts give the probability of a token of the sum of two sounds, given the tokens of both
(``baselines/training/sound_tokens.py``). Take a mixture y and its tokens m:

1. Draw candidates (z1, z2), token by token, from log p1(z1) + log p2(z2) + w log P(m | z1, z2), or search the
   likeliest by a beam of 100, as the paper does (``baselines/sampling/token_samplers.py``).
2. Decode both sequences of a candidate. Their powers share out every band of the mixture.
3. Take the mean of the shares of all candidates, or those of one of them.

The estimates are the mixture's spectrum times the shares. Steps 2 and 3 are ours. The paper's codec decodes waveforms,
and nothing ties their sum to the mixture. The mean of posterior draws has the least squared error, if the draws are
right. There is no refinement, as in the paper. Ours differs from the released code in this: beams keep their own
scores (flag 46 of docs/protocols.md, ``misaligned`` gives the code's), and all sampling rules work (flag 49).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.masks import estimates_from_masks, magnitudes_of, mask_support, mixture_spectra
from baselines.priors.token_sums import SumLikelihood
from baselines.sampling.token_samplers import Drawn, Greedy, Rule, TokenPosterior, draw, search
from baselines.training.sound_tokens import LearntSoundTokens, SoundModels
from baselines.training.token_candidates import fewer
from sepbench.memory import scaled
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec
from sepbench.settings import STRICT, FitScope, Preset, presets

_PAPER = "Postolache et al. 2023"
_CPU_ROWS, _GPU_ROWS = 128, 16384
"""How many candidates are made at once. A sequence of 272 tokens has 0.8 MB of keys and values, and a candidate has two."""


@dataclass(config=STRICT)
class LatentSoundSeparation(LearntSoundTokens):
    """Candidate token sequences, and the masks that they give.

    Budget ``quick`` makes a tenth of the fit, and a quarter of the candidates, all rounded up.
    """

    sampler: Literal["draw", "greedy", "beam"] = Field("draw", description="at random, the likeliest pair of each step, or beam search")
    candidates: int = Field(16, ge=1, le=65536, description="N, how many are drawn for a mixture; the width of the beam; greedy has one")
    top_k: int = Field(0, ge=0, description="how many pairs of a step's list may be drawn; 0: all, ancestral sampling")
    temperature: float = Field(1.0, gt=0, description="temperature of a step's draw")
    likelihood_weight: float = Field(1.0, ge=0, description="w, the paper's lambda")
    smoothing: float = Field(0.0, ge=0, description="added to the count of every triple; 0: pairs never seen are never drawn")
    selection: Literal["mean", "error", "posterior"] = Field(
        "mean", description="what is kept: the mean of the shares of all candidates, or one candidate, of least error to the mixture or of highest posterior"
    )
    exponent: float = Field(1.0, gt=0, description="of the decoded powers in the masks; 1: Wiener's filter, 0.5: the ratio of magnitudes")
    misaligned: bool = Field(False, description="beams get the scores of other beams, as in the released code (flag 46)")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="lass",
        title="LASS",
        version="1",
        domains=frozenset({"audio"}),
        supervision="sources",
        paper=f"audio: {_PAPER}, sec. 4.3 and table 5",
        deterministic=False,
        max_batch_cpu=16,
    )
    fit_scope: ClassVar[FitScope] = FitScope(
        frozenset({"source_shape", "sample_rate", "operator", "n_sources", "source_classes"}), "lass.audio", "1", LearntSoundTokens
    )

    def supports(self, task: TaskSpec) -> Support:
        support = mask_support(task, "LASS of sound", parts=2)
        if support.ok and task.operator == "gain":
            return Support(False, "LASS counts tokens of sums with fixed weights; operator 'gain' weighs sources differently")
        if support.ok and task.class_agnostic and task.assignment == "ordered":
            return Support(False, "LASS without classes cannot tell which source is which; choose a task under the best assignment")
        return support

    @property
    def posterior_samples(self) -> int:
        """Draws behind one estimate, with the paper's budget."""
        return self.candidates if self.sampler == "draw" else 1

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, T)`` to estimates ``(B, K, C, T)``. A mixture that is not finite gets NaN. B may be 0."""
        models = self.fitted()
        if not len(mixtures):  # MKL transforms no empty batch
            return mixtures.values.new_empty(0, mixtures.n_sources, *mixtures.values.shape[1:])
        stft, spectra = mixture_spectra(mixtures, ctx, models.front.stft)
        pictures = models.front.pictures_of(magnitudes_of(spectra).square())
        tokens = models.codec.tokens_of(pictures).cpu()
        likelihood = SumLikelihood(models.sums, models.codec.codebook, self.smoothing, ctx.device)
        posterior = TokenPosterior(models.priors, likelihood, self.likelihood_weight)
        count = 1 if self.sampler == "greedy" else fewer(self.candidates, ctx)
        parts = torch.arange(len(tokens)).split(max(1, _rows_at_once(ctx) // count))
        shares = []
        for number, part in enumerate(parts):
            found = self._candidates(posterior, tokens[part], mixtures.example_ids[part], count, ctx)
            shares.append(self._shares(models, found, pictures[part], count))
            ctx.progress((number + 1) / len(parts), f"{likelihood.unseen(tokens)} of {tokens.numel()} tokens of mixtures were never counted")
        masks = models.front.masks(torch.cat(shares), spectra.shape[-1])
        return estimates_from_masks(masks.expand(-1, -1, spectra.shape[1], -1, -1), spectra, mixtures, stft)

    def _candidates(self, posterior: TokenPosterior, tokens: torch.Tensor, ids: torch.Tensor, count: int, ctx: RunContext) -> Drawn:
        """``count`` candidates of each of the mixtures' tokens ``(B, S)``, all rows of a mixture together."""
        if self.sampler == "beam":
            return search(posterior, tokens, count, ctx.device, misaligned=self.misaligned)
        every, number = torch.arange(len(tokens)).repeat_interleave(count), torch.arange(count).repeat(len(tokens))
        rule = Greedy() if self.sampler == "greedy" else Rule(self.temperature, self.top_k or None)
        return draw(posterior, tokens[every], rule, ctx.noise, ids[every], number, ctx.device)

    @torch.no_grad()
    def _shares(self, models: SoundModels, found: Drawn, pictures: torch.Tensor, count: int) -> torch.Tensor:
        """Shares ``(B, 2, rows, bands)`` of the parts of mixtures with pictures ``(B, 1, rows, bands)``, by ``selection``."""
        front, kept = models.front, []
        tokens, logs = found.tokens.unflatten(0, (-1, count)), found.log_posterior.unflatten(0, (-1, count))
        for some, log, picture in zip(tokens, logs, pictures, strict=True):
            if self.selection == "posterior":
                some = some[log.argmax()][None]
            else:
                some, log = some[log.isfinite()], log[log.isfinite()]
            images = models.codec.decode(models.codec.embed(some.flatten(0, 1))).unflatten(0, (-1, 2))
            if self.selection == "error":
                errors = (front.picture_of_sum(images) - picture).square().flatten(1).sum(1)
                images = images[errors.argmin()][None]
            kept.append(front.shares(images, self.exponent).mean(0))
        return torch.stack(kept)


def _rows_at_once(ctx: RunContext) -> int:
    return _CPU_ROWS if torch.device(ctx.device).type == "cpu" else scaled(_GPU_ROWS, ctx.device)


def _preset(title: str, where: str, reason: str, **settings: Any) -> Preset:
    return Preset(title, f"audio: {_PAPER}, {where}", reason, settings)


_BEAM: Mapping[str, Any] = {"sampler": "beam", "candidates": 100, "selection": "posterior", "likelihood_weight": 3.0}
PRESETS: Mapping[str, type[LatentSoundSeparation]] = presets(
    LatentSoundSeparation,
    {
        "lass-greedy": _preset("LASS, greedy", "sec. 3.3", "The likeliest pair of each step.", **{**_BEAM, "sampler": "greedy", "candidates": 1}),
        "lass-beam": _preset("LASS, beam search", "table 5", "A beam of 100, lambda 3, the likeliest sequence.", **_BEAM),
        "lass-topk": _preset("LASS, top-k", "sec. 3.3", "100 draws with k = 32, chosen by their error.", candidates=100, top_k=32, selection="error"),
    },
)
"""The registered names of LASS that separate sounds. They share their fits."""
