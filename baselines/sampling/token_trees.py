"""Tokens of more than two sources, given those of their mixture.

The paper (Postolache et al. 2023) has two sources and leaves more of them open. This is ours. The mean of K images is
a mean of two: the mean of the first half of them, and the mean of the rest. Repeated down to single sources, this
gives a binary tree. Its inner nodes are *partial sums*, images with their own tokens t. Every node has counts of how
the tokens of its two parts make the tokens of the whole, ``P(t | left, right)``. The model of four sources with
mixture m is then::

    p(z1) p(z2) p(z3) p(z4)  prod_s  P(u_s | z1_s, z2_s)^w P(v_s | z3_s, z4_s)^w P(m_s | u_s, v_s)^w

The partial sums u and v need no prior of their own: it follows from the priors of the sources. At every position the
sampler first sums over the unknown tokens, from the sources up, and then draws from the mixture down:

1. up: ``A(u) = sum over (z1, z2) of p(z1 | before) p(z2 | before) P(u | z1, z2)^w`` for all K codes, at every partial
   sum;
2. down: (u, v) from ``A(u) A(v) P(m | u, v)^w``, then (z1, z2) given u, and (z3, z4) given v.

If no rule cuts the lists, this is an exact draw of all tokens of the position given those before it, summed over the
partial sums. The paper's ancestral sampling is the same for two sources. As in
``baselines/sampling/token_samplers.py``, a draw does not depend on later positions.

There are two assumptions. Positions are independent given the sources' tokens, as in the paper. And the tokens of a
partial sum tell the rest everything about its sources. Both are wrong if a code is coarse, and partial sums make it
coarser. Only measurement can tell what this loses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch

from baselines.sampling.token_samplers import Chosen, Greedy, Rule, TokenLikelihood, TokenPrior, by_token, entries_at_once

MOST_CODES = 512
"""The most codes.

The table of a partial sum has one float32 for every triple (512: 537 MB), and more would fill the memory.
"""
_LEAST = 1e-37
"""The least message, relative to the largest. Smaller ones are negligible.

It is above zero, so that a list of nothing else can still be drawn from.
"""
Choose = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class SeenLikelihood(TokenLikelihood, Protocol):
    """A ``TokenLikelihood`` that tells which tokens it knows, see ``SumLikelihood``."""

    @property
    def seen(self) -> torch.Tensor:
        """Which tokens some pair was seen with, ``(K,)`` bool.

        For other tokens, ``pairs`` gives those of a substitute.
        """


@dataclass(frozen=True)
class Split:
    """A node of the tree: the mean of the sources below it, as the mean of its two parts.

    Attributes:
        left, right: the parts. A number is a single source.
        likelihood: P(token of the mean | tokens of the parts).
    """

    left: Split | int
    right: Split | int
    likelihood: SeenLikelihood
    _tables: dict[float, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def table(self, codes: int, weight: float, device: str | torch.device) -> torch.Tensor:
        """``P(t | left, right)^weight`` as ``(codes^2, codes)`` float32, pairs by tokens; 0 for unseen tokens.

        It is made once.
        """
        if weight not in self._tables:
            made = torch.zeros(codes * codes, codes, device=device)
            for token in self.likelihood.seen.nonzero().flatten().tolist():
                pairs = self.likelihood.pairs(token)
                made[pairs.first * codes + pairs.second, token] = (weight * pairs.logs).exp()
            self._tables[weight] = made
        return self._tables[weight]


def balanced(sources: int, likelihood_of: Callable[[int, int], SeenLikelihood], first: int = 0) -> Split | int:
    """The tree of ``sources`` sources that halves them at every node, the larger half on the left.

    Args:
        sources: how many, at least 1.
        likelihood_of: the counts for a node, from the number of sources of its left and its right part.
        first: the number of its first source.
    """
    if sources == 1:
        return first
    larger = (sources + 1) // 2
    left, right = balanced(larger, likelihood_of, first), balanced(sources - larger, likelihood_of, first + larger)
    return Split(left, right, likelihood_of(larger, sources - larger))


@dataclass(frozen=True, slots=True)
class TreePosterior:
    """The unnormalised posterior of K sequences and of the partial sums between them.

    For two sources it is ``token_samplers.TokenPosterior``.

    Attributes:
        priors: one for every source, in the order of the numbers in the tree. If all are one object, the sources go
            through it in one batch.
        tree: of the whole mixture.
        weight: w, the paper's lambda, of every node.
    """

    priors: tuple[TokenPrior, ...]
    tree: Split
    weight: float = 1.0

    def choose(self, priors: torch.Tensor, mixture: torch.Tensor, rule: Rule | Greedy, uniforms: Callable[[int], torch.Tensor]) -> Chosen:
        """See ``SequencePosterior``. Every node is a choice, counted from the mixture down.

        Both logs count the tokens of the partial sums as drawn too. Without a rule that cuts, their difference is the
        same whatever these tokens are: it is the log of the sum over all tokens of the position.
        """
        sources, count = priors.shape[:2]
        tokens = torch.zeros(count, sources, dtype=torch.int64, device=priors.device)
        logs = (torch.zeros(count, dtype=torch.float64, device=priors.device) for _ in range(2))
        step = _Step(Chosen(tokens, *logs), _Messages(priors, self.weight), rule.choose, uniforms)
        step.down(self.tree, mixture, torch.arange(count, device=priors.device), 0)
        return step.made


class _Messages:
    """What the priors tell about every node's tokens at one position: log A ``(N, codes)``, computed on first use."""

    def __init__(self, logs: torch.Tensor, weight: float) -> None:
        self.logs, self.weight, self.device = logs, weight, logs.device
        self.known: dict[int, torch.Tensor] = {}

    def of(self, part: Split | int) -> torch.Tensor:
        if isinstance(part, int):
            return self.logs[part]
        if id(part) not in self.known:
            left, right = self.of(part.left), self.of(part.right)
            codes = left.shape[1]
            table = part.table(codes, self.weight, self.device)
            highest = left.amax(1, keepdim=True) + right.amax(1, keepdim=True)
            one, other = ((side - side.amax(1, keepdim=True)).exp() for side in (left, right))
            sums = [
                (one[rows, :, None] * other[rows, None]).flatten(1) @ table
                for rows in torch.arange(len(left), device=left.device).split(max(1, entries_at_once(self.device) // codes**2))
            ]
            self.known[id(part)] = torch.cat(sums).clamp_min(_LEAST).log() + highest
        return self.known[id(part)]


@dataclass
class _Step:
    """The way down the tree at one position. It fills in ``made``."""

    made: Chosen
    messages: _Messages
    choose: Choose
    uniforms: Callable[[int], torch.Tensor]

    def down(self, node: Split, tokens: torch.Tensor, rows: torch.Tensor, number: int) -> int:
        """Draw the parts of a node whose tokens ``(N,)`` on the CPU are known. Returns the number of the next node."""
        left, right, weight = self.messages.of(node.left), self.messages.of(node.right), self.messages.weight
        uniforms = self.uniforms(number)
        chosen_left, chosen_right = torch.zeros_like(rows), torch.zeros_like(rows)
        for token, of_token in by_token(tokens):
            pairs = node.likelihood.pairs(token)
            for part in rows[of_token.to(rows.device)].split(max(1, entries_at_once(rows.device) // len(pairs.logs))):
                of_pairs = weight * pairs.logs
                logs = left[part][:, pairs.first] + right[part][:, pairs.second] + of_pairs
                chosen, chance = self.choose(logs, uniforms[part])
                chosen_left[part], chosen_right[part] = pairs.first[chosen], pairs.second[chosen]
                self.made.log_posterior[part] += of_pairs[chosen].double()
                self.made.log_proposal[part] += chance
        for side, chosen in ((node.left, chosen_left), (node.right, chosen_right)):
            number += 1
            if isinstance(side, Split):
                number = self.down(side, chosen.cpu(), rows, number)
            else:
                self.made.tokens[:, side] = chosen
                self.made.log_posterior.add_(self.messages.logs[side].gather(1, chosen[:, None]).squeeze(1).double())
        return number
