"""A posterior of token pairs that can be listed: 4 codes and sequences of 3 tokens, whose 4096 pairs are all there is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch

from baselines.networks.token_transformer import TokenTransformer
from baselines.priors.token_sums import SumCounter, SumLikelihood
from baselines.sampling.token_samplers import TokenPosterior

K, S = 4, 3
MIXTURE = torch.tensor([1, 2, 1])
SEQUENCES = torch.cartesian_prod(*[torch.arange(K)] * S)


def transformer(seed: int) -> TokenTransformer:
    """Of weights that make some tokens much likelier than others."""
    network = TokenTransformer(K, S, width=8, layers=1, heads=2)
    random = torch.Generator().manual_seed(seed)
    network.draw_weights(random)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=random), alpha=0.4)
    return network.eval()


class Independent:
    """A prior whose tokens do not depend on each other."""

    def __init__(self, seed: int) -> None:
        self.logits = torch.randn(S, K, generator=torch.Generator().manual_seed(seed))

    @dataclass
    class Cache:
        count: int
        at: int = 0

        def reorder(self, rows: torch.Tensor, since: int = 0) -> None:
            self.count = len(rows)

    def start(self, count: int) -> Independent.Cache:
        return self.Cache(count)

    def step(self, tokens: torch.Tensor | None, cache: Independent.Cache) -> torch.Tensor:
        cache.at += 1
        return self.logits[cache.at - 1].expand(cache.count, -1)


@cache
def likelihood() -> SumLikelihood:
    """About half of the triples were seen."""
    random = torch.Generator().manual_seed(8)
    triples = torch.cartesian_prod(*[torch.arange(K)] * 3)
    seen = triples[torch.randperm(len(triples), generator=random)[: len(triples) // 2]]
    counter = SumCounter(K)
    counter.add(*seen.repeat_interleave(torch.randint(1, 9, (len(seen),), generator=random), 0).unbind(1))
    return SumLikelihood(counter.counts(symmetric=False), torch.eye(K))


def posterior(seed: int = 3, *, shared: bool = False, weight: float = 1.0) -> TokenPosterior:
    first = transformer(seed)
    return TokenPosterior((first, first if shared else transformer(seed + 1)), likelihood(), weight)


def table() -> torch.Tensor:
    """log P(m | z1, z2) as ``(m, z1, z2)``, -inf where never seen."""
    logs = torch.full((K, K, K), -math.inf)
    for token in range(K):
        pairs = likelihood().pairs(token)
        logs[token, pairs.first, pairs.second] = pairs.logs
    return logs.double()


@torch.no_grad()
def step_logs(target: TokenPosterior, mixture: torch.Tensor = MIXTURE) -> torch.Tensor:
    """``(64, 64, S)``: the step's logs at the token that each pair of sequences has, given its own earlier tokens."""
    own = [one.logits.expand(K**S, -1, -1) if isinstance(one, Independent) else one(SEQUENCES) for one in target.priors]  # type: ignore[operator]
    first, second = (logits.double().log_softmax(-1).gather(-1, SEQUENCES[..., None]).squeeze(-1) for logits in own)
    of_mixture = table()[mixture[None, None], SEQUENCES[:, None], SEQUENCES[None]]
    return first[:, None] + second[None] + target.weight * of_mixture


def exact(target: TokenPosterior) -> torch.Tensor:
    """The unnormalised log posterior ``(64, 64)``."""
    return step_logs(target).sum(-1)
