"""Autoregressive prior of tokens: a transformer in GPT-2's layout (Radford et al. 2019).

The size is the one that LASS trains on MNIST (Postolache et al. 2023): 49 tokens of 256 codes, width 128, 3 blocks of
2 heads, 634,240 parameters. Layer norm precedes attention and MLP, and follows the last block. The MLP is four times
as wide, with a GELU. The embedding of the codes is also the matrix of the logits. Position s predicts token s from the
tokens before it.

A sequence begins with a vector of its own that is no code. The authors' sequences begin with code 0, which is also a
real one.

Sequences are made token by token, many at once, with a cache of keys and values: ``start`` makes the cache, ``step``
gives the next logits, and ``reorder`` keeps the chosen sequences of a search. The only random numbers here are those of
dropout, from the caller's generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

_DEVIATION = 0.02
"""Standard deviation of GPT-2's first weights.

Weights that add to the residual stream have it over sqrt(2 * layers).
"""


@dataclass(slots=True)
class KeyValueCache:
    """Keys and values of the tokens so far, ``(layers, 2, N, heads, length, width / heads)``.

    The first ``filled`` positions are valid.
    """

    values: torch.Tensor
    filled: int = 0

    def reorder(self, rows: torch.Tensor, since: int = 0) -> None:
        """Make row i continue row ``rows[i]``, in place. Only rows that change are copied.

        Args:
            rows: ``(N,)`` int64.
            since: the first position at which row i and row ``rows[i]`` may differ. Positions before it stay.
        """
        changed = (rows != torch.arange(len(rows), device=rows.device)).nonzero().squeeze(1)
        valid = self.values[..., since : self.filled, :]
        valid.index_copy_(2, changed, valid.index_select(2, rows[changed]))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def heads_of(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``(N, S, width)`` to queries, keys and values ``(N, heads, S, width / heads)``."""
        query, key, value = self.mix(self.before_attention(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return query, key, value

    def add(self, x: torch.Tensor, attended: torch.Tensor, dropout: _Dropout) -> torch.Tensor:
        """The stream ``(N, S, width)`` plus the outputs of attention ``(N, heads, S, width / heads)`` and MLP."""
        x = x + dropout(self.out(attended.transpose(1, 2).flatten(2)))
        return x + dropout(self.down(functional.gelu(self.up(self.before_mlp(x)), approximate="tanh")))


class _Dropout:
    """Dropout (Srivastava et al. 2014) from a given generator, so that a step can be repeated.

    Without one it drops nothing.
    """

    def __init__(self, rate: float, random: torch.Generator | None) -> None:
        self.rate, self.random = rate, random

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if not self.active:
            return x
        kept = torch.empty(x.shape, dtype=x.dtype, device=x.device).bernoulli_(1.0 - self.rate, generator=self.random)
        return x * kept.mul_(1.0 / (1.0 - self.rate))

    @property
    def active(self) -> bool:
        return self.random is not None and self.rate > 0


class TokenTransformer(nn.Module):
    """The transformer: see the top of this file.

    Args:
        codes: K, how many different tokens there are.
        length: tokens of a sequence.
        width: of the residual stream.
        layers, heads: how many blocks, and heads of each.

    Raises:
        ValueError: the heads do not divide the width.
    """

    def __init__(self, codes: int = 256, length: int = 49, width: int = 128, layers: int = 3, heads: int = 2) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.codes, self.length = codes, length
        self.embedding = nn.Parameter(torch.zeros(codes, width))
        self.begin = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.last_norm = nn.LayerNorm(width)

    def draw_weights(self, random: torch.Generator) -> None:
        """Draw GPT-2's first weights: normal with standard deviation 0.02, and zero biases.

        The deviation of weights that add to the residual stream is 0.02 / sqrt(2 * layers).
        """
        for table in (self.embedding, self.begin, self.positions):
            nn.init.normal_(table, 0.0, _DEVIATION, generator=random)
        for block in self._blocks():
            for layer in (block.mix, block.out, block.up, block.down):
                adds = layer is block.out or layer is block.down
                nn.init.normal_(layer.weight, 0.0, _DEVIATION / (math.sqrt(2 * len(self.blocks)) if adds else 1.0), generator=random)
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: torch.Tensor, dropout: float = 0.0, random: torch.Generator | None = None) -> torch.Tensor:
        """Logits of every token given the tokens before it.

        Args:
            tokens: ``(N, S)`` int64, S at most ``length``.
            dropout: rate, after the embedding, on attention weights, and on the outputs of attention and MLP, as in
                GPT-2.
            random: generator of the dropout, on the tokens' device; None drops nothing.

        Returns:
            ``(N, S, K)`` float32. Position s does not depend on token s and later ones.
        """
        drop = _Dropout(dropout, random)
        first = self.begin.expand(len(tokens), 1, -1)
        x = torch.cat([first, functional.embedding(tokens[:, :-1], self.embedding)], 1) + self.positions[: tokens.shape[1]]
        x = drop(x)
        for block in self._blocks():
            query, key, value = block.heads_of(x)
            x = block.add(x, _attend(query, key, value, drop), drop)
        return self._logits(x)

    def log_prob(self, tokens: torch.Tensor) -> torch.Tensor:
        """``log p`` in nats of sequences ``(N, S)``: ``(N,)`` float64."""
        logs: torch.Tensor = self(tokens).double().log_softmax(-1)
        return logs.gather(-1, tokens[..., None]).squeeze(-1).sum(-1)

    def start(self, count: int) -> KeyValueCache:
        """An empty cache for ``count`` sequences."""
        block = self._blocks()[0]
        width = self.embedding.shape[1]
        shape = (len(self.blocks), 2, count, block.heads, self.length, width // block.heads)
        return KeyValueCache(torch.empty(shape, device=self.embedding.device, dtype=self.embedding.dtype))

    def step(self, tokens: torch.Tensor | None, cache: KeyValueCache) -> torch.Tensor:
        """Logits ``(N, K)`` float32 of the next token. The cache grows in place.

        Args:
            tokens: ``(N,)``, the last token of each sequence; None at the first position.
            cache: of the tokens before it.

        Raises:
            ValueError: there are tokens at the first position or none at a later one, or the sequences are complete.
        """
        at, count = cache.filled, cache.values.shape[2]
        if (tokens is None) != (at == 0) or at >= self.length:
            raise ValueError(f"position {at} of {self.length} takes {'no token' if at == 0 else 'the token before it' if at < self.length else 'nothing'}")
        x = self.begin.expand(count, -1) if tokens is None else functional.embedding(tokens, self.embedding)
        x = (x + self.positions[at])[:, None]
        for layer, block in enumerate(self._blocks()):
            query, key, value = block.heads_of(x)
            cache.values[layer, 0, :, :, at], cache.values[layer, 1, :, :, at] = key[:, :, 0], value[:, :, 0]
            keys, values = cache.values[layer, :, :, :, : at + 1]
            x = block.add(x, functional.scaled_dot_product_attention(query, keys, values), _NO_DROPOUT)
        cache.filled = at + 1
        return self._logits(x)[:, 0]

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = functional.linear(self.last_norm(x), self.embedding)
        return logits.float()

    def _blocks(self) -> list[_Block]:
        return [block for block in self.blocks if isinstance(block, _Block)]


_NO_DROPOUT = _Dropout(0.0, None)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, drop: _Dropout) -> torch.Tensor:
    """Causal attention ``(N, heads, S, d)``.

    With dropout it is written out, because torch's own draws from its global state.
    """
    if not drop.active:
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    length = query.shape[-2]
    hidden = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    scores = (query @ key.transpose(-1, -2)).mul(query.shape[-1] ** -0.5).masked_fill(hidden, -math.inf)
    return drop(scores.softmax(-1).to(value.dtype)) @ value
