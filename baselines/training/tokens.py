"""Training of the two things that LASS knows about tokens: an autoregressive prior, and counts of how tokens add up.

The prior (``baselines/networks/token_transformer.py``) learns from the token sequences of clean images. Its loss is
the mean negative log likelihood of a token. Postolache et al. 2023 state batches of 128, 500 epochs, a rate of 2e-4
and dropout 0.1. Adam with its usual betas and a rate that falls linearly to zero at the end are ours.

Counts are of random pairs of clean images (sec. 3.2). Every pass puts the images in a new order and cuts them into
batches. The first half of a batch is paired with the second half, and the tokens of both and of their mean are
counted. The last, partial batch is dropped. We have not measured how many passes the counts need. The log shows how
many triples each pass saw for the first time. The released code keeps the pass with the best likelihood on the test
set, and we keep the last pass.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from baselines.networks.token_transformer import TokenTransformer
from baselines.networks.vqvae import VQVAE
from baselines.priors.token_sums import SumCounter, SumCounts
from baselines.training.codec import Precision, falling, network_digest, tokens_of
from baselines.training.config import derived_seed, generator
from baselines.training.epochs import MeanLoss, epoch_rows, full_batches
from sepbench.precision import training_autocast

_LOOKED_AT = 512
"""How many held-out sequences the log's figure uses."""


@dataclass(frozen=True, slots=True)
class TokenRecipe:
    """How the prior is trained. The defaults are the paper's if the paper states them.

    Attributes:
        epochs: passes over the sequences.
        batch: sequences per step.
        lr: Adam's rate.
        decay: share of the steps, at the end, over which the rate falls linearly to zero.
        dropout: dropout rate.
        precision: ``bfloat16`` computes the network under autocast.
        seed: of weights, order and dropout.
    """

    epochs: int = 500
    batch: int = 128
    lr: float = 2e-4
    decay: float = 0.2
    dropout: float = 0.1
    precision: Precision = "bfloat16"
    seed: int = 0


def new_transformer(codes: int, length: int, width: int, layers: int, heads: int, seed: int, device: str | torch.device) -> TokenTransformer:
    """A transformer whose weights depend only on the seed. The other arguments are those of ``TokenTransformer``."""
    with torch.random.fork_rng(devices=[]):
        network = TokenTransformer(codes, length, width, layers, heads)
    network.draw_weights(generator(seed, "tokens"))
    return network.to(device)


class TokenTraining:
    """Training of the prior. It is a ``baselines.training.loop.Training``.

    Args:
        network: trained in place.
        recipe: see ``TokenRecipe``.
        tokens: ``(N, S)`` int64.
        held_out: ``(M, S)`` int64, sequences that are not trained on, for the figure of the log. The first 512 are
            used.

    Raises:
        SepbenchError: there are fewer sequences than a batch needs.
    """

    def __init__(self, network: TokenTransformer, recipe: TokenRecipe, tokens: torch.Tensor, held_out: torch.Tensor) -> None:
        self.network, self.recipe = network, recipe
        self.device = network.embedding.device
        self.tokens, self.held_out = tokens.to(self.device), held_out[:_LOOKED_AT].to(self.device)
        self.optimiser = torch.optim.Adam(network.parameters(), lr=recipe.lr)
        self.batches = full_batches(recipe.batch, len(tokens))
        self.steps = recipe.epochs * self.batches
        self.step, self.seconds = 0, 0.0
        self.losses = MeanLoss(self.device)

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    @property
    def fraction(self) -> float:
        return self.step / self.steps

    def advance(self) -> None:
        """Make one step of Adam."""
        recipe = self.recipe
        epoch, batch = divmod(self.step, self.batches)
        rows = epoch_rows(recipe.seed, "token-rows", epoch, batch, recipe.batch, len(self.tokens), self.device)
        tokens = self.tokens[rows]
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.lr * falling(self.step, self.steps, recipe.decay)
        random = torch.Generator(self.device).manual_seed(derived_seed(recipe.seed, "dropout", self.step))
        self.optimiser.zero_grad(set_to_none=True)
        with training_autocast(self.device, recipe.precision == "bfloat16"):
            logits = self.network(tokens, recipe.dropout, random)
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        loss.backward()
        self.optimiser.step()
        self.losses.add(loss)
        self.step += 1

    def row(self) -> Mapping[str, Any]:
        """``loss``, the mean since the last row, and ``bits`` of held-out sequences.

        ``loss`` is in nats per token, with dropout. ``bits`` is in bits per token, without dropout.

        Raises:
            SepbenchError: the loss is not finite.
        """
        row: dict[str, Any] = self.losses.take(self.step)
        if len(self.held_out):
            row["bits"] = round(bits_per_token(self.network, self.held_out), 4)
        return row

    def state(self) -> Mapping[str, Any]:
        """See ``baselines.training.loop.Training``."""
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(), "losses": self.losses.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See ``baselines.training.loop.Training``."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.losses.restore(state["losses"])


@torch.no_grad()
def bits_per_token(network: TokenTransformer, tokens: torch.Tensor) -> float:
    """Mean negative log2 likelihood of a token of sequences ``(N, S)``, without dropout.

    Uniform guesses give log2 K.
    """
    logs = torch.cat([network.log_prob(part) for part in tokens.split(_LOOKED_AT)])
    return -float(logs.mean()) / (tokens.shape[1] * math.log(2.0))


class PairCounting(ABC):
    """Counts of random pairs of clean signals. A subclass says which pairs.

    It is a ``baselines.training.loop.Training``; a step is a batch of pairs, and ``counts()`` is the result.

    Args:
        codec: makes the tokens, in evaluation mode.
        batches: how many batches of pairs a pass has.
        passes: how many passes are made.
        symmetric, every_triple: False gives the released code's counts, see ``SumCounter``.
    """

    def __init__(self, codec: VQVAE, batches: int, passes: int, *, symmetric: bool = True, every_triple: bool = True) -> None:
        self.codec, self.batches, self.symmetric = codec, batches, symmetric
        self.steps = passes * batches
        self.step, self.seconds = 0, 0.0
        self.counter = SumCounter(len(codec.codebook), every_triple=every_triple)
        self.triples = 0

    @abstractmethod
    def pairs(self, turn: int, batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The pairs of a batch of a pass: tokens ``(n, S)`` of both signals, and what the codec takes of their mixtures."""

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    @property
    def fraction(self) -> float:
        return self.step / self.steps

    def advance(self) -> None:
        """Count one batch of pairs."""
        first, second, mixed = self.pairs(*divmod(self.step, self.batches))
        self.counter.add(first, second, tokens_of(self.codec, mixed))
        self.step += 1

    def row(self) -> Mapping[str, Any]:
        """``triples`` in one order, ``new`` ones since the last row, and ``density`` of the counts in percent."""
        made, before = self.counter.counts(symmetric=False), self.triples
        self.triples = len(made.keys)
        whole = made.symmetric() if self.symmetric else made
        return {"triples": self.triples, "new": self.triples - before, "density": round(100 * whole.density, 4)}

    def counts(self) -> SumCounts:
        """What was counted so far, with the digest of this codec."""
        made = self.counter.counts(symmetric=self.symmetric)
        return SumCounts(made.codes, made.keys, made.counts, network_digest(self.codec))

    def state(self) -> Mapping[str, Any]:
        """See ``baselines.training.loop.Training``."""
        made = self.counter.counts(symmetric=False)
        return {"keys": made.keys, "counts": made.counts, "triples": self.triples, "codec": network_digest(self.codec)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See ``baselines.training.loop.Training``."""
        if state["codec"] != network_digest(self.codec):
            raise ValueError("counts of another codec")
        self.counter.restore(SumCounts(self.counter.codes, state["keys"].cpu(), state["counts"].cpu()))
        self.triples = state["triples"]


class SumTraining(PairCounting):
    """Counts of random pairs of clean images, and of their means.

    Args:
        codec: makes the tokens, in evaluation mode.
        images: clean images ``(N, C, H, W)`` in [0, 1].
        tokens: of these images, ``(N, S)`` int64.
        passes: how many passes over the images.
        seed: of the pairs.
        batch: pairs per step.
        symmetric, every_triple: False gives the released code's counts, see ``SumCounter``.
    """

    def __init__(
        self,
        codec: VQVAE,
        images: torch.Tensor,
        tokens: torch.Tensor,
        passes: int,
        seed: int,
        *,
        batch: int = 512,
        symmetric: bool = True,
        every_triple: bool = True,
    ) -> None:
        self.images, self.tokens, self.seed = images, tokens.to(codec.codebook.device), seed
        self.batch = min(batch, max(1, len(images) // 2))
        super().__init__(codec, full_batches(2 * self.batch, len(images)), passes, symmetric=symmetric, every_triple=every_triple)

    def pairs(self, turn: int, batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = epoch_rows(self.seed, "token-pairs", turn, batch, 2 * self.batch, len(self.images))
        one, other = rows.chunk(2)
        mixed = 0.5 * (self.images[one] + self.images[other])
        return self.tokens[one.to(self.tokens.device)], self.tokens[other.to(self.tokens.device)], mixed
