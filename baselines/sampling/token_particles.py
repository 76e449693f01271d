"""Tokens of sources by sequential Monte Carlo.

Good candidates replace those that explain the mixture's next token badly. This is ours. LASS (Postolache et al. 2023)
draws each candidate by itself (``baselines/sampling/token_samplers.py``), and keeps a pair even if no tokens after it
explain the mixture well. Here the N candidates of a mixture are particles (Doucet and Johansen 2009, "A tutorial on
particle filtering and smoothing", sec. 3.5). After every position the weight of a particle is multiplied by
``p1 p2 P^w / q``. This is the step's unnormalised probability of the pair, over the probability q with which it was
drawn. For ancestral draws it is the sum over all pairs. If the effective number of the weights falls below a share of
N, particles are drawn anew by weight (systematic resampling). The mean weight is an unbiased estimate of Z(m).

More than two sources go through a tree of partial sums (``baselines/sampling/token_trees.py``). There p and q are
products over all its nodes, and for ancestral draws p / q is the sum over all tokens of the position.

``evidence`` adds what tokens alone do not tell: a log factor of the positions so far, for example how well their
decoded images explain the mixture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from baselines.sampling.token_samplers import Histories, Rule, SequencePosterior, uniforms_of
from sepbench.noise import NoiseSource

Evidence = Callable[[torch.Tensor, int], torch.Tensor]
"""A function from tokens ``(B, N, K, S)`` and the number of finished positions to log factors ``(B, N)``.

A log factor is of all finished positions together.
"""


@dataclass(frozen=True, slots=True)
class Particles:
    """The particles after the last position.

    Attributes:
        tokens: ``(B, N, K, S)`` int64.
        log_posterior: ``(B, N)`` float64 of the tokens, without log Z(m) and without evidence.
        log_weights: ``(B, N)`` float64. With these weights the particles represent the posterior.
        log_mean_weight: ``(B,)`` float64. Its exponential is an unbiased estimate of Z(m), or with evidence of the sum
            of the product.
        resampled: ``(B,)`` int64, how often.
    """

    tokens: torch.Tensor
    log_posterior: torch.Tensor
    log_weights: torch.Tensor
    log_mean_weight: torch.Tensor
    resampled: torch.Tensor


@torch.no_grad()
def particles(
    posterior: SequencePosterior,
    mixture: torch.Tensor,
    count: int,
    rule: Rule,
    noise: NoiseSource,
    example_ids: torch.Tensor,
    device: str | torch.device = "cpu",
    *,
    threshold: float = 0.5,
    evidence: Evidence | None = None,
    every: int = 1,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Particles:
    """``count`` particles for each mixture.

    Args:
        posterior: the target, of K sources.
        mixture: tokens ``(B, S)`` int64 of the mixtures.
        count: N, at most 2**16.
        rule: how a pair is drawn. Pairs that it cuts off are never drawn, and the particles then represent the
            posterior without them.
        noise: the only source of randomness. Particle n of an example has stream n. The choices of a position take the
            draws of sources 0 to K - 2, and its resampling those of source K - 1.
        example_ids: ``(B,)`` int64.
        device: of the priors.
        threshold: share of N below which the effective number of particles leads to resampling.
        evidence: more log factors, asked for after every ``every`` positions and at the end.
        every: see ``evidence``.
        progress: called with the share of the positions that are done, in [0, 1].
    """
    batch, length = mixture.shape
    rows = torch.arange(batch).repeat_interleave(count)
    ids, streams = example_ids[rows], torch.arange(count).repeat(batch)
    of_rows, histories = mixture.cpu()[rows], Histories(posterior.priors, batch * count)
    resampling = histories.sources - 1
    tokens = torch.zeros(batch * count, histories.sources, length, dtype=torch.int64, device=device)
    log_posterior, told = (torch.zeros(batch * count, dtype=torch.float64, device=device) for _ in range(2))
    log_weights = torch.zeros(batch, count, dtype=torch.float64, device=device)
    log_mean, resampled = torch.zeros(batch, dtype=torch.float64, device=device), torch.zeros(batch, dtype=torch.int64, device=device)
    for position in range(length):
        priors = histories.step(tokens[:, :, position - 1] if position else None)
        chosen = posterior.choose(priors, of_rows[:, position], rule, uniforms_of(noise, ids, streams, position, device))
        tokens[:, :, position] = chosen.tokens
        log_posterior += chosen.log_posterior
        gained = chosen.log_posterior - chosen.log_proposal
        last = position == length - 1
        if evidence is not None and (last or (position + 1) % every == 0):
            now = evidence(tokens.unflatten(0, (batch, count)), position + 1).flatten().double()
            gained += now - told
            told = now
        log_weights += gained.unflatten(0, (batch, count))
        if not last:
            kept, log_weights, log_mean, again = _resampled(log_weights, log_mean, threshold, noise.uniform(example_ids, position, resampling, (), device))
            tokens, log_posterior, told = tokens[kept], log_posterior[kept], told[kept]
            histories.select(kept)
            resampled += again
        progress((position + 1) / length)
    log_mean = log_mean + log_weights.logsumexp(1) - torch.tensor(float(count), dtype=torch.float64).log()
    shaped = tokens.unflatten(0, (batch, count))
    return Particles(shaped, log_posterior.unflatten(0, (batch, count)), log_weights, log_mean, resampled)


def _resampled(
    log_weights: torch.Tensor, log_mean: torch.Tensor, threshold: float, uniforms: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Systematic resampling of the mixtures that need it.

    Args:
        log_weights: ``(B, N)``.
        log_mean: ``(B,)``, log of the product of the mean weights of the resamplings so far.
        threshold: share of N.
        uniforms: ``(B,)`` in [0, 1).

    Returns:
        The rows ``(B * N,)`` that continue, their log weights, ``log_mean`` with the mean weights of the resampled
            mixtures, and which mixtures were resampled.
    """
    batch, count = log_weights.shape
    shares = log_weights.softmax(1)
    need = 1.0 / shares.square().sum(1) < threshold * count
    places = (uniforms.double()[:, None] + torch.arange(count, device=shares.device)) / count
    upto = shares.cumsum(1)
    parents = torch.searchsorted(upto, places * upto[:, -1:], right=True).clamp(max=count - 1)
    own = torch.arange(count, device=shares.device).expand_as(parents)
    kept = torch.where(need[:, None], parents, own) + count * torch.arange(batch, device=shares.device)[:, None]
    mean = log_weights.logsumexp(1) - torch.tensor(float(count), dtype=torch.float64).log()
    return kept.flatten(), log_weights.masked_fill(need[:, None], 0.0), log_mean + torch.where(need, mean, 0.0), need.long()
