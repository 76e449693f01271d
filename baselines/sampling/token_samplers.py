"""Tokens of two sources, given those of their mixture: greedy, beam, ancestral, top-k and nucleus search of LASS (Postolache et al. 2023, sec. 3.3, Table 3).

The posterior of sequences z1, z2 of S tokens, given the mixture's tokens m::

    log p(z1, z2 | m) = sum_s log p1(z1_s | z1_<s) + log p2(z2_s | z2_<s) + w log P(m_s | z1_s, z2_s)  -  log Z(m)

with w (the paper's lambda) 1 on MNIST and 3 on CelebA and Slakh2100. All samplers go through the positions in raster order. At each there is a list of the
pairs (z1_s, z2_s) that P allows for m_s, which is short, and the three terms of every pair on it, the *step's logs*.

``draw`` takes a pair by chance, in proportion to exp(logs / temperature) among those that the rule keeps. That is not a draw from the posterior: a pair is
taken without regard to how well the mixture's later tokens can be explained after it. ``Drawn`` holds both log probabilities, whose differences are the
weights of importance sampling, with which draws do stand for the posterior. Where the prior is independent between positions the two agree.

``search`` keeps the best sequences so far. The released code gives every beam the score of another one (flag 46 of docs/protocols.md): ``misaligned``.

Nothing here is trained or remembered. A draw depends on the mixture's tokens, the seed, the example's id, the candidate's number and the position alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from sepbench.memory import scaled
from sepbench.noise import NoiseSource

_CPU_ENTRIES, _GPU_ENTRIES = 1 << 22, 1 << 26
"""Logs that are worked on at once."""


class TokenPrior(Protocol):
    """An autoregressive prior of token sequences, see ``TokenTransformer``. Its caches have ``select``."""

    def start(self, count: int) -> Any:
        """A cache for ``count`` sequences that have no token yet."""

    def step(self, tokens: torch.Tensor | None, cache: Any) -> torch.Tensor:
        """Logits ``(N, K)`` of the next token after ``tokens`` ``(N,)``, None at the first; moves the cache on."""


class PossiblePairs(Protocol):
    """What may lie behind a mixture token, see ``TokenPairs``: z1 and z2 ``(L,)`` int64 and log P ``(L,)``."""

    @property
    def first(self) -> torch.Tensor: ...
    @property
    def second(self) -> torch.Tensor: ...
    @property
    def logs(self) -> torch.Tensor: ...


class TokenLikelihood(Protocol):
    """P(m | z1, z2), see ``SumLikelihood``."""

    def pairs(self, token: int) -> PossiblePairs:
        """The pairs that a mixture token may come from; at least one."""


@dataclass(frozen=True, slots=True)
class TokenPosterior:
    """The unnormalised posterior of two sequences.

    Attributes:
        priors: p1 and p2; where they are one object, both sources go through it in one batch.
        likelihood: P(m | z1, z2).
        weight: w, the paper's lambda.
    """

    priors: tuple[TokenPrior, TokenPrior]
    likelihood: TokenLikelihood
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Rule:
    """Which pairs of a step's list may be drawn, and how evenly. The defaults are ancestral sampling.

    Attributes:
        temperature: divides the logs before all else.
        top_k: only so many pairs with the highest logs; None keeps all.
        nucleus: only the likeliest pairs that together hold this share of the probability, at least one; 1 keeps all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    nucleus: float = 1.0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and (self.top_k is None or self.top_k >= 1) and 0 < self.nucleus <= 1):
            raise ValueError("temperature must be above 0, top_k at least 1 and nucleus in (0, 1]")

    def choose(self, logs: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions ``(n,)`` in the lists ``(n, L)``, and the log probabilities ``(n,)`` float64 that they were drawn with; uniforms ``(n,)`` in [0, 1)."""
        kept: torch.Tensor | None = None
        if self.top_k is not None and self.top_k < logs.shape[1]:
            kept = logs.topk(self.top_k, dim=1, sorted=False).indices.sort(dim=1).values  # in the order of the list
            logs = logs.gather(1, kept)
        logs = logs.double() / self.temperature
        if self.nucleus < 1:
            shares, order = logs.softmax(1).sort(dim=1, descending=True, stable=True)
            beyond = shares.cumsum(1) - shares >= self.nucleus
            logs = logs.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -math.inf)
        # In the order of the list, so that two pairs which are as likely but for rounding do not change places.
        upto = logs.softmax(1).cumsum(1)
        chosen = torch.searchsorted(upto, uniforms.double()[:, None] * upto[:, -1:], right=True)
        chances = logs.log_softmax(1).gather(1, chosen).squeeze(1)
        return (chosen if kept is None else kept.gather(1, chosen)).squeeze(1), chances


class Greedy:
    """The likeliest pair of every step, the first of the list where several are; needs no chance."""

    def choose(self, logs: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Rule.choose``; the log probabilities are zero."""
        places = torch.arange(logs.shape[1], device=logs.device).expand_as(logs)
        first = places.masked_fill(logs < logs.amax(1, keepdim=True), logs.shape[1]).amin(1)
        return first, torch.zeros(len(logs), dtype=torch.float64, device=logs.device)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Sequences and what is known of them.

    Attributes:
        tokens: ``(N, 2, S)`` int64; of K sources ``(N, K, S)``.
        log_posterior: ``(N,)`` float64, without log Z(m).
        log_proposal: ``(N,)`` float64, log of the probability that just this was drawn; zero where there was no chance.
    """

    tokens: torch.Tensor
    log_posterior: torch.Tensor
    log_proposal: torch.Tensor


@torch.no_grad()
def draw(
    posterior: TokenPosterior,
    mixture: torch.Tensor,
    rule: Rule | Greedy,
    noise: NoiseSource,
    example_ids: torch.Tensor,
    candidates: torch.Tensor,
    device: str | torch.device = "cpu",
    *,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Drawn:
    """A candidate for each row.

    Args:
        posterior: what it is to be likely under.
        mixture: tokens ``(N, S)`` int64 of the mixtures.
        rule: how a pair is chosen.
        noise: what chance there is; position s of a row takes step s of its example on the stream of its candidate.
        example_ids, candidates: ``(N,)`` int64, which together say which draw a row is; candidates in [0, 2**16).
        device: of the priors.
        progress: told the share of the positions that are done.
    """
    count, length = mixture.shape
    mixture, numbers = mixture.cpu(), torch.arange(count, device=device)
    histories = Histories(posterior.priors, count)
    tokens = torch.zeros(count, 2, length, dtype=torch.int64, device=device)
    log_posterior, log_proposal = (torch.zeros(count, dtype=torch.float64, device=device) for _ in range(2))
    for position in range(length):
        priors = histories.step(tokens[:, :, position - 1] if position else None)
        uniforms = noise.uniform(example_ids, position, 0, (), device, candidates)
        for token, of_token in by_token(mixture[:, position]):
            pairs = posterior.likelihood.pairs(token)
            for rows in numbers[of_token.to(device)].split(max(1, entries_at_once(device) // len(pairs.logs))):
                logs = step_logs(priors[:, rows], pairs, posterior.weight)
                chosen, chance = rule.choose(logs, uniforms[rows])
                tokens[rows, 0, position], tokens[rows, 1, position] = pairs.first[chosen], pairs.second[chosen]
                log_posterior[rows] += logs.gather(1, chosen[:, None]).squeeze(1).double()
                log_proposal[rows] += chance
        progress((position + 1) / length)
    return Drawn(tokens, log_posterior, log_proposal)


@torch.no_grad()
def search(
    posterior: TokenPosterior,
    mixture: torch.Tensor,
    width: int,
    device: str | torch.device = "cpu",
    *,
    misaligned: bool = False,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Drawn:
    """The ``width`` best sequences of every mixture by beam search, the best first.

    Args:
        posterior: what they are to be likely under.
        mixture: tokens ``(B, S)`` int64 of the mixtures.
        width: sequences that are kept after each position.
        device: of the priors.
        misaligned: as the released code (flag 46): after each step, beam i goes on with the score of the beam whose number is that of i's parent.
        progress: told the share of the positions that are done.

    Returns:
        ``B * width`` rows, all of a mixture together. Where there are fewer sequences than ``width``, the last have a log posterior of -inf and are none.
    """
    batch, length = mixture.shape
    mixture = mixture.cpu()
    beams = _Beams(batch, width, length, device)
    histories = Histories(posterior.priors, batch * width)
    for position in range(length):
        priors = histories.step(beams.tokens[..., position - 1].flatten(0, 1) if position else None).unflatten(1, (batch, width))
        parents = torch.zeros(batch, width, dtype=torch.int64, device=device)
        steps, scores = (torch.zeros(batch, width, dtype=torch.float64, device=device) for _ in range(2))
        made = torch.zeros(batch, width, 2, dtype=torch.int64, device=device)
        for token, of_token in by_token(mixture[:, position]):
            pairs = posterior.likelihood.pairs(token)
            size = len(pairs.logs)
            for rows in of_token.to(device).split(max(1, entries_at_once(device) // (width * size))):
                logs = step_logs(priors[:, rows], pairs, posterior.weight).double()
                best = (beams.scores[rows, :, None] + logs).flatten(1).topk(width, dim=1)
                taken = best.indices.flip(1)  # the best last, as the released code has it
                parents[rows], scores[rows], steps[rows] = taken // size, best.values.flip(1), logs.flatten(1).gather(1, taken)
                made[rows] = torch.stack([pairs.first[taken % size], pairs.second[taken % size]], -1)
        beams.go_on(position, parents, made, steps, scores, misaligned)
        histories.select((torch.arange(batch, device=device)[:, None] * width + parents).flatten())
        progress((position + 1) / length)
    last = torch.where(beams.scores.isfinite(), beams.true, -math.inf)
    return Drawn(beams.tokens.flip(1).flatten(0, 1), last.flip(1).flatten(), torch.zeros(batch * width, dtype=torch.float64, device=device))


class _Beams:
    """Sequences of a search, those that are none first, and behind them the better the later."""

    def __init__(self, batch: int, width: int, length: int, device: str | torch.device) -> None:
        self.tokens = torch.zeros(batch, width, 2, length, dtype=torch.int64, device=device)
        self.true = torch.zeros(batch, width, dtype=torch.float64, device=device)
        self.scores = torch.full((batch, width), -math.inf, dtype=torch.float64, device=device)
        self.scores[:, -1] = 0.0

    def go_on(self, position: int, parents: torch.Tensor, made: torch.Tensor, steps: torch.Tensor, scores: torch.Tensor, misaligned: bool) -> None:
        """Put what a step made ``(B, width, 2)``, with the parents' numbers, the step's logs and the scores ``(B, width)``, in the place of what was."""
        none_before, none_now = ((~one.isfinite()).sum(1, keepdim=True) for one in (self.scores, scores))
        self.tokens = self.tokens.gather(1, parents[:, :, None, None].expand_as(self.tokens))
        self.tokens[..., position] = made
        self.true = self.true.gather(1, parents) + steps
        if misaligned:  # numbers count those that are sequences
            others = (parents - none_before + none_now).clamp(0, scores.shape[1] - 1)
            scores = torch.where(scores.isfinite(), scores.gather(1, others), scores)
        self.scores = scores


class Histories:
    """What each source's prior has seen so far; one cache for all sources where their priors are one.

    Args:
        priors: one for every source.
        count: rows, each of as many sequences as there are priors.
    """

    def __init__(self, priors: Sequence[TokenPrior], count: int) -> None:
        self.count, self.sources, self.shared = count, len(priors), all(prior is priors[0] for prior in priors)
        self.priors = priors[:1] if self.shared else priors
        self.caches = [prior.start(count * self.sources // len(self.priors)) for prior in self.priors]

    def step(self, last: torch.Tensor | None) -> torch.Tensor:
        """Log probabilities ``(sources, N, K)`` float32 of the next tokens, after the last ones ``(N, sources)``."""
        if self.shared:
            logits = self.priors[0].step(None if last is None else last.T.flatten(), self.caches[0]).unflatten(0, (self.sources, self.count))
        else:
            parts = enumerate(zip(self.priors, self.caches, strict=True))
            logits = torch.stack([prior.step(None if last is None else last[:, which], cache) for which, (prior, cache) in parts])
        logs: torch.Tensor = logits.float().log_softmax(-1)
        return logs

    def select(self, rows: torch.Tensor) -> None:
        """Row i goes on where row ``rows[i]`` stands."""
        every = torch.cat([rows + number * self.count for number in range(self.sources)]) if self.shared else rows
        self.caches = [cache.select(every) for cache in self.caches]


def step_logs(priors: torch.Tensor, pairs: PossiblePairs, weight: float) -> torch.Tensor:
    """``(2, ..., K)`` log probabilities of the priors to the step's logs ``(..., L)`` of the pairs."""
    return priors[0].index_select(-1, pairs.first) + priors[1].index_select(-1, pairs.second) + weight * pairs.logs


def entries_at_once(device: str | torch.device) -> int:
    """Logs that are worked on at once."""
    return _CPU_ENTRIES if torch.device(device).type == "cpu" else scaled(_GPU_ENTRIES, device)


def by_token(tokens: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Different tokens of ``(N,)`` on the CPU, and with each the rows that have it."""
    order = tokens.argsort(stable=True)
    different, counts = tokens[order].unique_consecutive(return_counts=True)
    yield from zip(different.tolist(), order.split(counts.tolist()), strict=True)
