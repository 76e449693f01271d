"""Tokens of two sources, given those of their mixture: greedy, beam, ancestral, top-k and nucleus search of LASS.

See Postolache et al. 2023, sec. 3.3, Table 3. The posterior of sequences z1, z2 of S tokens, given the mixture's
tokens m, is::

    log p(z1, z2 | m) = sum_s log p1(z1_s | z1_<s) + log p2(z2_s | z2_<s) + w log P(m_s | z1_s, z2_s)  -  log Z(m)

The weight w (the paper's lambda) is 1 on MNIST and 3 on CelebA and Slakh2100. All samplers go through the positions in
raster order. Each position has a short list of the pairs (z1_s, z2_s) that P allows for m_s. The sums of the three
terms of every pair on the list are the *step's logs*.

``draw`` draws a pair at random, in proportion to exp(logs / temperature), among the pairs that the rule keeps. This is
no draw from the posterior, because it does not depend on how well later tokens of the mixture can be explained.
``Drawn`` has both log probabilities. Their differences are the weights of importance sampling, and with these weights
draws do represent the posterior. If the prior is independent between positions, the two agree.

``search`` keeps the best sequences so far. The released code gives every beam the score of another one (flag 46 of
docs/protocols.md): ``misaligned``.

Nothing here is trained or remembered. A draw depends only on the mixture's tokens, the seed, the example's id, the
candidate's number and the position.
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
"""How many logs are handled at once."""


class TokenPrior(Protocol):
    """An autoregressive prior of token sequences, see ``TokenTransformer``. Its caches have ``reorder``."""

    def start(self, count: int) -> Any:
        """A cache for ``count`` sequences without tokens."""

    def step(self, tokens: torch.Tensor | None, cache: Any) -> torch.Tensor:
        """Logits ``(N, K)`` of the next token after ``tokens`` ``(N,)``, or None at the first.

        The cache grows in place.
        """


class PossiblePairs(Protocol):
    """The pairs that may explain a mixture token, see ``TokenPairs``: z1 and z2 ``(L,)`` int64 and log P ``(L,)``."""

    @property
    def first(self) -> torch.Tensor: ...
    @property
    def second(self) -> torch.Tensor: ...
    @property
    def logs(self) -> torch.Tensor: ...


class TokenLikelihood(Protocol):
    """P(m | z1, z2), see ``SumLikelihood``."""

    def pairs(self, token: int) -> PossiblePairs:
        """The pairs that may explain a mixture token, at least one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which pairs of a step's list may be drawn, and how evenly. The defaults are ancestral sampling.

    Attributes:
        temperature: divides the logs before ``nucleus`` is applied. ``top_k`` does not depend on it.
        top_k: how many pairs with the highest logs are kept; None keeps all.
        nucleus: the likeliest pairs that together have this share of the probability are kept, at least one; 1 keeps
            all.

    Raises:
        ValueError: a number is out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    nucleus: float = 1.0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and (self.top_k is None or self.top_k >= 1) and 0 < self.nucleus <= 1):
            raise ValueError("temperature must be above 0, top_k at least 1 and nucleus in (0, 1]")

    def choose(self, logs: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw one pair from each list.

        Args:
            logs: ``(n, L)``, the step's logs.
            uniforms: ``(n,)`` in [0, 1).

        Returns:
            Positions ``(n,)`` in the lists, and log probabilities ``(n,)`` float64 of these draws.
        """
        kept: torch.Tensor | None = None
        if self.top_k is not None and self.top_k < logs.shape[1]:
            kept = logs.topk(self.top_k, dim=1, sorted=False).indices.sort(dim=1).values  # in the order of the list
            logs = logs.gather(1, kept)
        logs = logs.double() / self.temperature
        if self.nucleus < 1:
            shares, order = logs.softmax(1).sort(dim=1, descending=True, stable=True)
            beyond = shares.cumsum(1) - shares >= self.nucleus
            logs = logs.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -math.inf)
        # In the order of the list, so that two pairs that differ only by rounding do not change places.
        upto = logs.softmax(1).cumsum(1)
        chosen = torch.searchsorted(upto, uniforms.double()[:, None] * upto[:, -1:], right=True)
        chances = logs.log_softmax(1).gather(1, chosen).squeeze(1)
        return (chosen if kept is None else kept.gather(1, chosen)).squeeze(1), chances


class Greedy:
    """The likeliest pair of every step, or the first of several. It needs no randomness."""

    def choose(self, logs: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Rule.choose``. The log probabilities are zero."""
        places = torch.arange(logs.shape[1], device=logs.device).expand_as(logs)
        first = places.masked_fill(logs < logs.amax(1, keepdim=True), logs.shape[1]).amin(1)
        return first, torch.zeros(len(logs), dtype=torch.float64, device=logs.device)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The tokens of one position, and their log probabilities.

    Attributes:
        tokens: ``(N, K)`` int64, one of each source.
        log_posterior: ``(N,)`` float64, the step's log of these tokens.
        log_proposal: ``(N,)`` float64, log of the probability of just this choice; zero if nothing was random.
    """

    tokens: torch.Tensor
    log_posterior: torch.Tensor
    log_proposal: torch.Tensor


class SequencePosterior(Protocol):
    """The unnormalised posterior of K sequences, see ``TokenPosterior`` and ``token_trees.TreePosterior``."""

    @property
    def priors(self) -> tuple[TokenPrior, ...]:
        """One for every source. If they are one object, all sources go through it in one batch."""

    def choose(self, priors: torch.Tensor, mixture: torch.Tensor, rule: Rule | Greedy, uniforms: Callable[[int], torch.Tensor]) -> Chosen:
        """Choose the tokens of one position.

        Args:
            priors: log probabilities ``(K, N, codes)`` of the sources' next tokens.
            mixture: tokens ``(N,)`` of the mixtures, on the CPU.
            rule: how a pair is chosen.
            uniforms: from the number of a choice of this position, counted from 0, to ``(N,)`` in [0, 1).
        """


@dataclass(frozen=True, slots=True)
class TokenPosterior:
    """The unnormalised posterior of two sequences.

    Attributes:
        priors: p1 and p2. If they are one object, both sources go through it in one batch.
        likelihood: P(m | z1, z2).
        weight: w, the paper's lambda.
    """

    priors: tuple[TokenPrior, TokenPrior]
    likelihood: TokenLikelihood
    weight: float = 1.0

    def choose(self, priors: torch.Tensor, mixture: torch.Tensor, rule: Rule | Greedy, uniforms: Callable[[int], torch.Tensor]) -> Chosen:
        """See ``SequencePosterior``. A position has one choice."""
        count, device, drawn = priors.shape[1], priors.device, uniforms(0)
        rows = torch.arange(count, device=device)
        tokens = torch.zeros(count, 2, dtype=torch.int64, device=device)
        log_posterior, log_proposal = (torch.zeros(count, dtype=torch.float64, device=device) for _ in range(2))
        for token, of_token in by_token(mixture):
            pairs = self.likelihood.pairs(token)
            for part in rows[of_token.to(device)].split(max(1, entries_at_once(device) // len(pairs.logs))):
                logs = step_logs(priors[:, part], pairs, self.weight)
                chosen, log_proposal[part] = rule.choose(logs, drawn[part])
                tokens[part, 0], tokens[part, 1] = pairs.first[chosen], pairs.second[chosen]
                log_posterior[part] = logs.gather(1, chosen[:, None]).squeeze(1).double()
        return Chosen(tokens, log_posterior, log_proposal)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Sequences and their log probabilities.

    Attributes:
        tokens: ``(N, 2, S)`` int64, or ``(N, K, S)`` for K sources.
        log_posterior: ``(N,)`` float64, without log Z(m).
        log_proposal: ``(N,)`` float64, log of the probability of just this draw; zero if nothing was random.
    """

    tokens: torch.Tensor
    log_posterior: torch.Tensor
    log_proposal: torch.Tensor


@torch.no_grad()
def draw(
    posterior: SequencePosterior,
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
        posterior: the target, of K sources.
        mixture: tokens ``(N, S)`` int64 of the mixtures.
        rule: how a pair is chosen.
        noise: the only source of randomness. Position s of a row takes step s of its example, on the stream of its
            candidate, and choice c of the position the draws of source c.
        example_ids, candidates: ``(N,)`` int64. Together they identify the draw of a row. Candidates are in [0,
            2**16).
        device: of the priors.
        progress: called with the share of the positions that are done, in [0, 1].
    """
    count, length = mixture.shape
    mixture = mixture.cpu()
    histories = Histories(posterior.priors, count)
    tokens = torch.zeros(count, histories.sources, length, dtype=torch.int64, device=device)
    log_posterior, log_proposal = (torch.zeros(count, dtype=torch.float64, device=device) for _ in range(2))
    for position in range(length):
        priors = histories.step(tokens[:, :, position - 1] if position else None)
        chosen = posterior.choose(priors, mixture[:, position], rule, uniforms_of(noise, example_ids, candidates, position, device))
        tokens[:, :, position] = chosen.tokens
        log_posterior += chosen.log_posterior
        log_proposal += chosen.log_proposal
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
        posterior: the target.
        mixture: tokens ``(B, S)`` int64 of the mixtures.
        width: how many sequences are kept after each position.
        device: of the priors.
        misaligned: do as the released code does (flag 46): after each step, beam i gets the score of the beam whose
            number is that of i's parent.
        progress: called with the share of the positions that are done, in [0, 1].

    Returns:
        ``B * width`` rows, all rows of a mixture together. If there are fewer sequences than ``width``, the last rows
            are empty, and their log posterior is -inf.
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
                taken = best.indices.flip(1)  # the best last, as in the released code
                parents[rows], scores[rows], steps[rows] = taken // size, best.values.flip(1), logs.flatten(1).gather(1, taken)
                made[rows] = torch.stack([pairs.first[taken % size], pairs.second[taken % size]], -1)
        beams.go_on(position, parents, made, steps, scores, misaligned)
        histories.select((torch.arange(batch, device=device)[:, None] * width + parents).flatten(), beams.alike)
        progress((position + 1) / length)
    last = torch.where(beams.scores.isfinite(), beams.true, -math.inf)
    return Drawn(beams.tokens.flip(1).flatten(0, 1), last.flip(1).flatten(), torch.zeros(batch * width, dtype=torch.float64, device=device))


class _Beams:
    """Sequences of a search. Empty ones come first, and then the others, the best last."""

    def __init__(self, batch: int, width: int, length: int, device: str | torch.device) -> None:
        self.tokens = torch.zeros(batch, width, 2, length, dtype=torch.int64, device=device)
        self.true = torch.zeros(batch, width, dtype=torch.float64, device=device)
        self.scores = torch.full((batch, width), -math.inf, dtype=torch.float64, device=device)
        self.scores[:, -1] = 0.0
        self.alike = 0

    def go_on(self, position: int, parents: torch.Tensor, made: torch.Tensor, steps: torch.Tensor, scores: torch.Tensor, misaligned: bool) -> None:
        """Replace the beams with those of a step.

        Args:
            position: of the step.
            parents: ``(B, width)``, the number of each beam's parent.
            made: ``(B, width, 2)``, the new tokens.
            steps: ``(B, width)``, the step's logs.
            scores: ``(B, width)``, of the new beams.
            misaligned: see ``search``.
        """
        none_before, none_now = ((~one.isfinite()).sum(1, keepdim=True) for one in (self.scores, scores))
        self.alike = self._alike(position)
        self.tokens = self.tokens.gather(1, parents[:, :, None, None].expand_as(self.tokens))
        self.tokens[..., position] = made
        self.true = self.true.gather(1, parents) + steps
        if misaligned:  # numbers count only beams that are not empty
            others = (parents - none_before + none_now).clamp(0, scores.shape[1] - 1)
            scores = torch.where(scores.isfinite(), scores.gather(1, others), scores)
        self.scores = scores

    def _alike(self, position: int) -> int:
        """How many tokens before ``position`` all beams of a mixture have in common, at least.

        They are those of one ancestor, and the priors' histories of them need not be copied when beams change places.
        """
        before = self.tokens[..., self.alike : position]
        same = (before == before[:, -1:]).all(dim=(1, 2)).all(0)
        return self.alike + int(same.long().cumprod(0).sum())


class Histories:
    """The tokens that each source's prior has seen so far.

    If all priors are one object, there is one cache for all sources.

    Args:
        priors: one for every source.
        count: how many rows. Each row has as many sequences as there are priors.
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

    def select(self, rows: torch.Tensor, since: int = 0) -> None:
        """Make row i continue row ``rows[i]``. Before position ``since`` they are the same."""
        every = torch.cat([rows + number * self.count for number in range(self.sources)]) if self.shared else rows
        for cache in self.caches:
            cache.reorder(every, since)


def step_logs(priors: torch.Tensor, pairs: PossiblePairs, weight: float) -> torch.Tensor:
    """Log probabilities ``(2, ..., K)`` of the priors to the step's logs ``(..., L)`` of the pairs."""
    return priors[0].index_select(-1, pairs.first) + priors[1].index_select(-1, pairs.second) + weight * pairs.logs


def uniforms_of(
    noise: NoiseSource, example_ids: torch.Tensor, candidates: torch.Tensor, position: int, device: str | torch.device
) -> Callable[[int], torch.Tensor]:
    """The random numbers of one position: from the number of a choice to ``(N,)`` in [0, 1)."""
    return lambda choice: noise.uniform(example_ids, position, choice, (), device, candidates)


def entries_at_once(device: str | torch.device) -> int:
    """How many logs are handled at once."""
    return _CPU_ENTRIES if torch.device(device).type == "cpu" else scaled(_GPU_ENTRIES, device)


def by_token(tokens: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """The different tokens of ``(N,)`` on the CPU, each with the rows that have it."""
    order = tokens.argsort(stable=True)
    different, counts = tokens[order].unique_consecutive(return_counts=True)
    yield from zip(different.tolist(), order.split(counts.tolist()), strict=True)
