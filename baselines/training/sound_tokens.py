"""What LASS learns of clean sounds: a codec of spectrograms, a prior of tokens per class, and counts of how tokens add up.

This is the fit of the ``lass`` methods on sound (Postolache et al. 2023, sec. 4.3). The paper takes Jukebox's codec of
waveforms and trains two priors of its size. Ours are small enough for a CPU, and differ in this:

* The codec (``baselines/networks/vqvae.py``) reads pictures of spectrograms (``band_spectrogram.py``).
* It learns from the parts of a mixture (sources times their weights) and from mixtures of random pairs, because it has
  to code both. It also learns from what is neither: the share ``means`` of every batch becomes means of two pictures,
  as for images (``codec.py``). A picture holds logarithms of powers, and a mean of two is no picture of a sum. With
  0.33 a batch is 45 % clean sounds, 22 % mixtures and 33 % such means. The committed rows were made so, and the
  default stays.
* Counts are of pairs of one sound of each class, in the order of the classes. The paper pairs sounds of all classes and
  counts both orders.

One codec serves both classes, as in the paper. If all sources are of one class, there is one prior.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from pathlib import Path

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.networks.token_transformer import TokenTransformer
from baselines.networks.vqvae import STRIDE, VQVAE
from baselines.priors.token_sums import SumCounts, load_counts
from baselines.training.band_spectrogram import BandSpectrogram
from baselines.training.codec import VQVAETraining, network_digest, new_vqvae, tokens_of
from baselines.training.config import generator
from baselines.training.epochs import cut_epochs, epoch_rows, full_batches
from baselines.training.stages import Stages
from baselines.training.token_models import frozen, load_network, save_network
from baselines.training.token_settings import TokenSettings
from baselines.training.tokens import PairCounting, TokenTraining
from sepbench.operators import make_operator
from sepbench.protocols import RunContext, TaskSpec, TrainingView
from sepbench.settings import STRICT

CODEC, SUMS = "codec.safetensors", "sums.safetensors"
_CODEC_SHARE, _PRIORS_SHARE, _SUMS_SHARE = 0.45, 0.45, 0.1
_MOST_HELD_OUT = 10
"""At most one sound in ten of each class is held out."""
_AT_ONCE = 64
"""How many signals are transformed at once."""


@plain_dataclass(frozen=True, slots=True)
class SoundModels:
    """All that a separator of sounds by tokens knows. Networks are in evaluation mode and need no gradients.

    Attributes:
        front: signals to pictures.
        codec: pictures to tokens and back.
        priors: of the token sequence of one sound, for each source. They are one object if all sources are of one class.
        sums: how often a token of each source makes a third.
    """

    front: BandSpectrogram
    codec: VQVAE
    priors: tuple[TokenTransformer, TokenTransformer]
    sums: SumCounts


@dataclass(config=STRICT)
class LearntSoundTokens(TokenSettings):
    """``fit``, ``save`` and ``load`` of a method that separates sounds by tokens, and their settings.

    Budget ``quick`` makes a tenth of epochs and passes, rounded up.
    """

    codes: int = Field(512, ge=2, description="K, codes of the VQ-VAE")
    width: int = Field(64, ge=1, description="channels of the VQ-VAE's layers, and the dimension of a code")
    codec_epochs: int = Field(40, ge=1, description="passes over the pictures to train the VQ-VAE")
    codec_batch: int = Field(32, ge=2, description="pictures per step")
    codec_lr: float = Field(1e-3, gt=0, description="Adam's rate for the VQ-VAE")
    reconstruction: float = Field(10.0, gt=0, description="r, weight of the reconstruction's mean squared error")
    prior_epochs: int = Field(30, ge=1, description="passes over the token sequences to train each prior")
    prior_batch: int = Field(16, ge=1, description="sequences per step")
    prior_lr: float = Field(1e-3, gt=0, description="Adam's rate for the priors")
    passes: int = Field(50, ge=1, description="how often all sounds are put in pairs to count sums of tokens")
    symmetric: bool = Field(False, description="count each pair in both orders, as the paper does; true in any case if all sources are of one class")
    held_out: int = Field(100, ge=0, description="how many of the last clean sounds of a class serve only for figures, at most a tenth")
    means: float = Field(
        0.33, ge=0, lt=1, description="share of the VQ-VAE's pictures that are of mixtures; then the same share of each batch becomes means of two pictures"
    )
    bands: int = Field(64, ge=STRIDE, multiple_of=STRIDE, description="frequency bands of a picture")

    _sounds: SoundModels | None = field(default=None, init=False, repr=False)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Train and count. Training continues from the checkpoints in ``ctx.cache``, if there are any.

        Raises:
            SepbenchError: there are fewer sounds than a batch needs, or a loss is not finite.
        """
        parts = _parts(view, ctx.task)
        kept = [min(self.held_out, len(one) // _MOST_HELD_OUT) for one in parts]
        learnt = [one[: len(one) - count] for one, count in zip(parts, kept, strict=True)]
        held_out = [one[len(one) - count :] for one, count in zip(parts, kept, strict=True)]
        full_batches(self.prior_batch, *map(len, learnt))  # raises before the codec trains
        front = self._front(ctx.task)
        stages = Stages(ctx, {"codec": _CODEC_SHARE, "sums": _SUMS_SHARE} | {f"prior-{which}": _PRIORS_SHARE / len(parts) for which in range(len(parts))})
        codec = new_vqvae(front.shape(parts[0].shape[-1]), self.codes, self.width, ctx.seed, ctx.device)
        pictures = [pictures_of(front, one) for one in learnt]
        others = [pictures_of(front, one) for one in held_out]
        mixed = pictures_of(front, self._mixtures(learnt, ctx.seed))
        stages.make("codec", VQVAETraining(codec, self.codec_recipe(ctx), torch.cat([*pictures, mixed]), torch.cat(others)))
        frozen(codec)
        tokens = [tokens_of(codec, one) for one in pictures]
        priors = []
        for which, (one, other) in enumerate(zip(tokens, others, strict=True)):
            prior = self.new_prior(one.shape[1], ctx.seed + which, ctx.device)
            stages.make(f"prior-{which}", TokenTraining(prior, self.prior_recipe(ctx), one, tokens_of(codec, other) if len(other) else one[:0]))
            priors.append(frozen(prior))
        passes, both = cut_epochs(self.passes, ctx.budget), self.symmetric or len(parts) == 1
        counting = SoundSums(codec, front, learnt, tokens, passes, ctx.seed, symmetric=both, every_triple=self.every_triple)
        stages.make("sums", counting)
        self._sounds = SoundModels(front, codec, (priors[0], priors[-1]), counting.counts())

    def save(self, folder: Path) -> None:
        """Write codec, priors and counts. Priors and counts name the codec that they belong to."""
        models = self.fitted()
        digest = network_digest(models.codec)
        save_network(models.codec, folder / CODEC)
        for which, prior in enumerate(_different(models.priors)):
            save_network(prior, folder / _prior_file(which), digest)
        models.sums.save(folder / SUMS)

    def load(self, folder: Path, ctx: RunContext) -> None:
        """Read what ``save`` wrote.

        Raises:
            DataError: a file is missing, damaged, of other settings, or of another codec.
        """
        front = self._front(ctx.task)
        codec = new_vqvae(front.shape(ctx.task.source_shape[-1]), self.codes, self.width, 0, "cpu")
        load_network(codec, folder / CODEC)
        digest = network_digest(codec)
        priors = []
        for which in range(1 if ctx.task.class_agnostic else 2):
            prior = self.new_prior(codec.grid[0] * codec.grid[1], 0, "cpu")
            load_network(prior, folder / _prior_file(which), digest)
            priors.append(frozen(prior.to(ctx.device)))
        sums = load_counts(folder / SUMS, self.codes, digest)
        self._sounds = SoundModels(front, frozen(codec.to(ctx.device)), (priors[0], priors[-1]), sums)

    def fitted(self) -> SoundModels:
        """What the fit learnt.

        Raises:
            ValueError: ``fit`` or ``load`` was not called.
        """
        if self._sounds is None:
            raise ValueError("fit() or load() first")
        return self._sounds

    @property
    def weights_sha256(self) -> str:
        """Digest of codec, priors and counts. Empty before ``fit``."""
        if self._sounds is None:
            return ""
        networks = (self._sounds.codec, *_different(self._sounds.priors))
        return hashlib.sha256(" ".join([*map(network_digest, networks), self._sounds.sums.digest]).encode()).hexdigest()

    @property
    def prior_label(self) -> str:
        """The learnt models, for example ``VQ-VAE and 2 transformers, 1.7 M, 0123abcd``. Empty before ``fit``."""
        if self._sounds is None:
            return ""
        priors = _different(self._sounds.priors)
        count = sum(p.numel() for network in (self._sounds.codec, *priors) for p in network.parameters())
        many = "transformer" if len(priors) == 1 else f"{len(priors)} transformers"
        return f"VQ-VAE and {many}, {count / 1e6:.1f} M, {LearntSoundTokens.weights_sha256.__get__(self)[:8]}"

    def _front(self, task: TaskSpec) -> BandSpectrogram:
        assert task.sample_rate is not None  # ``supports`` of the methods checks it
        return BandSpectrogram(task.sample_rate, self.bands)

    def _mixtures(self, parts: Sequence[torch.Tensor], seed: int) -> torch.Tensor:
        """Sums of random pairs of parts, so many that they are the share ``means`` of the codec's pictures.

        The codec does not see this share: of a batch ``means`` is replaced, mixtures among it.
        """
        count = round(self.means / (1.0 - self.means) * sum(map(len, parts)))
        rows = [torch.randint(len(one), (count,), generator=generator(seed, "codec-mixtures", which)) for which, one in enumerate((parts[0], parts[-1]))]
        return parts[0][rows[0]] + parts[-1][rows[1]]


class SoundSums(PairCounting):
    """Counts of random pairs of one sound of each class, and of their sums.

    Every pass puts the sounds of each class in a new order. If there is only one class, a sound may meet itself.

    Args:
        codec: makes the tokens, in evaluation mode.
        front: makes the pictures.
        parts: signals ``(N, C, T)`` of each class, times their weight in a mixture; one or two classes.
        tokens: of these parts, ``(N, S)`` int64 each.
        passes: how many passes over the smallest class.
        seed: of the pairs.
        batch: pairs per step.
        symmetric, every_triple: see ``SumCounter``.
    """

    def __init__(
        self,
        codec: VQVAE,
        front: BandSpectrogram,
        parts: Sequence[torch.Tensor],
        tokens: Sequence[torch.Tensor],
        passes: int,
        seed: int,
        *,
        batch: int = _AT_ONCE,
        symmetric: bool = False,
        every_triple: bool = True,
    ) -> None:
        self.front, self.seed = front, seed
        self.parts, self.tokens = (parts[0], parts[-1]), (tokens[0], tokens[-1])
        self.batch = min(batch, *map(len, parts))
        super().__init__(codec, full_batches(self.batch, *map(len, parts)), passes, symmetric=symmetric, every_triple=every_triple)

    def pairs(self, turn: int, batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        one, other = (epoch_rows(self.seed, f"sound-pairs-{which}", turn, batch, self.batch, len(of)) for which, of in enumerate(self.parts))
        mixed = self.front.pictures(self.parts[0][one] + self.parts[1][other])
        first, second = self.tokens
        return first[one.to(first.device)], second[other.to(second.device)], mixed


def pictures_of(front: BandSpectrogram, signals: torch.Tensor) -> torch.Tensor:
    """Pictures ``(N, 1, rows, bands)`` of signals ``(N, C, T)``, some at a time."""
    shape = front.shape(signals.shape[-1])
    return torch.cat([signals.new_zeros(0, *shape), *(front.pictures(some) for some in signals.split(_AT_ONCE) if len(some))])


def _parts(view: TrainingView, task: TaskSpec) -> list[torch.Tensor]:
    """Clean signals ``(N, C, T)`` of each class, times their weight in a mixture."""
    weights = make_operator(task.operator, task.n_sources).matrix().reshape(-1).tolist()
    if task.class_agnostic:
        return [weights[0] * view.clean()]
    return [weights[slot] * view.sources(slot) for slot in range(task.n_sources)]


def _different(priors: tuple[TokenTransformer, TokenTransformer]) -> tuple[TokenTransformer, ...]:
    return priors[:1] if priors[0] is priors[1] else priors


def _prior_file(which: int) -> str:
    return f"prior-{which}.safetensors"
