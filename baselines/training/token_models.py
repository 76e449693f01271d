"""What LASS learns of clean images: a codec, a prior of its tokens, and counts of how tokens add up.

This is the fit of all ``lass`` methods. It has three stages, each in its own folder below ``ctx.cache``: the VQ-VAE
(``baselines/training/codec.py``), the prior and the counts (``baselines/training/tokens.py``). The last images of the
training split are held out in all stages, for the figures of the logs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from baselines.networks.token_transformer import TokenTransformer
from baselines.networks.vqvae import VQVAE
from baselines.priors.shipped_tokens import FILES, find_tokens, shipped_digest
from baselines.priors.token_sums import SumCounts, load_counts
from baselines.training.codec import VQVAETraining, network_digest, new_vqvae, tokens_of
from baselines.training.epochs import cut_epochs, full_batches
from baselines.training.stages import Stages
from baselines.training.token_settings import TokenSettings
from baselines.training.tokens import SumTraining, TokenTraining
from sepbench.errors import DataError
from sepbench.files import file_sha256
from sepbench.protocols import RunContext, TaskSpec, TrainingView
from sepbench.settings import STRICT

N = TypeVar("N", bound=nn.Module)
_SHARES = {"codec": 0.4, "prior": 0.5, "sums": 0.1}
"""Share of each stage in a fit, for its progress."""
TRAIN = "train"
CODEC, PRIOR, SUMS = FILES
_MOST_HELD_OUT = 10
"""At most one image in ten is held out."""


@plain_dataclass(frozen=True, slots=True)
class TokenModels:
    """All that a separator by tokens knows. Networks are in evaluation mode and need no gradients.

    Attributes:
        codec: images to tokens and back.
        prior: of the token sequence of one image.
        sums: how often two tokens make a third.
    """

    codec: VQVAE
    prior: TokenTransformer
    sums: SumCounts


@dataclass(config=STRICT)
class LearntTokens(TokenSettings):
    """``fit``, ``save`` and ``load`` of a method that works with tokens, and their settings.

    The defaults are the paper's if the paper states them. Budget ``quick`` makes a tenth of epochs and passes, rounded
    up.
    """

    weights: str = Field(
        "", description="folder of codec, prior and sums; train: learn them; empty: the shipped ones if all settings above have their defaults, else learn"
    )

    _models: TokenModels | None = field(default=None, init=False, repr=False)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Train and count, or read what ``weights`` names or what ships.

        Training continues from the checkpoints in ``ctx.cache``, if there are any.

        Raises:
            DataError: weights that are missing, damaged or of other settings.
            SepbenchError: there are fewer images than a batch needs, or a loss is not finite.
        """
        folder = self._ready(ctx.task)
        if folder is not None:
            self.load(folder, ctx)
            return
        clean = view.clean()
        kept = min(self.held_out, len(clean) // _MOST_HELD_OUT)
        images, held_out = clean[: len(clean) - kept], clean[len(clean) - kept :]
        full_batches(self.prior_batch, len(images))  # raises before the codec trains
        stages = Stages(ctx, _SHARES)
        codec = new_vqvae(ctx.task.source_shape, self.codes, self.width, ctx.seed, ctx.device)
        stages.make("codec", VQVAETraining(codec, self.codec_recipe(ctx), images, held_out))
        frozen(codec)
        tokens, held_out_tokens = tokens_of(codec, images), tokens_of(codec, held_out) if kept else torch.zeros(0, 1, dtype=torch.int64)
        prior = self.new_prior(_length(codec), ctx.seed, ctx.device)
        stages.make("prior", TokenTraining(prior, self.prior_recipe(ctx), tokens, held_out_tokens))
        passes = cut_epochs(self.passes, ctx.budget)
        counting = SumTraining(codec, images, tokens, passes, ctx.seed, symmetric=self.symmetric, every_triple=self.every_triple)
        stages.make("sums", counting)
        self._models = TokenModels(codec, frozen(prior), counting.counts())

    def save(self, folder: Path) -> None:
        """Write codec, prior and counts. Prior and counts name the codec that they belong to."""
        save_models(self.fitted(), folder)

    def load(self, folder: Path, ctx: RunContext) -> None:
        """Read what ``save`` wrote.

        Raises:
            DataError: a file is missing, damaged, of other settings, or of another codec.
        """
        codec = new_vqvae(ctx.task.source_shape, self.codes, self.width, 0, "cpu")
        load_network(codec, folder / CODEC)
        digest = network_digest(codec)
        prior = self.new_prior(_length(codec), 0, "cpu")
        load_network(prior, folder / PRIOR, digest)
        sums = load_counts(folder / SUMS, self.codes, digest)
        self._models = TokenModels(frozen(codec.to(ctx.device)), frozen(prior.to(ctx.device)), sums)

    def _ready(self, task: TaskSpec) -> Path | None:
        """The folder of given or shipped models; None if they must be learnt."""
        if self.weights not in ("", TRAIN):
            folder = Path(self.weights).expanduser()
            if not folder.is_dir():
                raise DataError(f"weights={self.weights}: no such folder; it must hold {', '.join(FILES)}, as `sepbench train tokens` writes them")
            return folder
        shipped = find_tokens(task) if self.weights == "" and self._left_alone else None
        if shipped is None:
            return None
        shipped.check()
        return shipped.folder

    @property
    def _left_alone(self) -> bool:
        """Whether all settings of the fit have their defaults."""
        return all(getattr(self, name) == field.default for name, field in LearntTokens.__pydantic_fields__.items() if name[0] != "_")  # type: ignore[attr-defined]

    def fitted(self) -> TokenModels:
        """What the fit learnt.

        Raises:
            ValueError: ``fit`` or ``load`` was not called.
        """
        if self._models is None:
            raise ValueError("fit() or load() first")
        return self._models

    @property
    def weights_sha256(self) -> str:
        """Digest of codec, prior and counts.

        Before ``fit`` it is the digest of the named files, or of all that ship if the method may use them, else empty.
        """
        if self._models is None and self.weights not in ("", TRAIN):
            files = sorted(Path(self.weights).expanduser().glob("*.safetensors"))
            return hashlib.sha256(" ".join(map(file_sha256, files)).encode()).hexdigest() if files else ""
        if self._models is None:
            return shipped_digest() if self.weights == "" and self._left_alone else ""
        parts = (network_digest(self._models.codec), network_digest(self._models.prior), self._models.sums.digest)
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @property
    def prior_label(self) -> str:
        """The learnt or shipped models, for example ``VQ-VAE and transformer, 1.9 M, 0123abcd``.

        Empty before ``fit``.
        """
        if self._models is None:
            return ""
        count = sum(p.numel() for network in (self._models.codec, self._models.prior) for p in network.parameters())
        return f"VQ-VAE and transformer, {count / 1e6:.1f} M, {LearntTokens.weights_sha256.__get__(self)[:8]}"


def _length(codec: VQVAE) -> int:
    """Tokens of an image."""
    return codec.grid[0] * codec.grid[1]


def frozen(network: N) -> N:
    """The network itself, set to evaluation mode and without gradients."""
    network.eval().requires_grad_(False)
    return network


def save_models(models: TokenModels, folder: Path) -> None:
    """Write all three models into a folder. Prior and counts name the codec that they belong to."""
    digest = network_digest(models.codec)
    save_network(models.codec, folder / CODEC)
    save_network(models.prior, folder / PRIOR, digest)
    models.sums.save(folder / SUMS)


def save_network(network: nn.Module, path: Path, codec: str = "") -> None:
    """Write the weights and the statistics of batch norm. ``codec`` is the digest of the codec that they belong to."""
    save_file({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}, path, metadata={"codec": codec})


def load_network(network: nn.Module, path: Path, codec: str = "") -> None:
    """Read what ``save_network`` wrote into a network of the same layout, on the CPU.

    Raises:
        DataError: the file is missing, damaged, of another layout, or of another codec.
    """
    try:
        with safe_open(path, framework="pt") as file:
            told = (file.metadata() or {}).get("codec", "")
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except FileNotFoundError:
        raise DataError(f"{path} is missing; train it again") from None
    except (SafetensorError, OSError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read as weights of this layout ({type(error).__name__}); train with these settings, or delete it") from error
    if told != codec:
        raise DataError(f"{path} belongs to another codec ({told[:12] or 'unnamed'}, not {codec[:12]}); train it again with this codec")
