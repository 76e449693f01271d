"""Counts of how the tokens of partial sums add up, for LASS with more than two sources.

``baselines/sampling/token_trees.py`` uses them. ``SumTraining`` counts means of two clean images, and a fit keeps no
other counts. This module draws its own images: the prior draws token sequences, and the codec decodes them. So anybody
with codec and prior can count any partial sum in minutes, without training images. One fit serves any number of
sources.
"""

from __future__ import annotations

import torch

from baselines.networks.token_transformer import TokenTransformer
from baselines.networks.vqvae import VQVAE
from baselines.priors.token_sums import SumCounter, SumCounts
from baselines.training.codec import network_digest, tokens_of
from baselines.training.config import generator

_AT_ONCE = 1024
_TURNS = 8
"""How many mixtures use a part before the images are grouped anew. The tokens of the part are computed once."""


@torch.no_grad()
def own_images(codec: VQVAE, prior: TokenTransformer, count: int, seed: int) -> torch.Tensor:
    """Images ``(count, C, H, W)`` in [0, 1] that the prior draws, on the CPU.

    They depend only on the models and ``seed``.
    """
    random = generator(seed, "own-images")
    made = []
    for rows in torch.arange(count).split(_AT_ONCE):
        cache, tokens = prior.start(len(rows)), torch.zeros(len(rows), 0, dtype=torch.int64)
        for position in range(prior.length):
            logits = prior.step(tokens[:, -1].to(codec.codebook.device) if position else None, cache)
            tokens = torch.cat([tokens, torch.multinomial(logits.softmax(-1).cpu(), 1, generator=random)], 1)
        made.append(codec.decode(codec.embed(tokens.to(codec.codebook.device))).cpu())
    return torch.cat(made)


@torch.no_grad()
def count_partial_sums(codec: VQVAE, images: torch.Tensor, sizes: tuple[int, int], count: int, seed: int) -> SumCounts:
    """Count how the tokens of two partial means make the tokens of the whole mean.

    One part is a mean of ``sizes[0]`` images, the other a mean of ``sizes[1]``.

    Args:
        codec: makes the tokens, in evaluation mode.
        images: clean images ``(N, C, H, W)`` in [0, 1], with N at least the sum of ``sizes``.
        sizes: images in each part. If they are equal, every pair counts in both orders.
        count: how many mixtures are counted, each of distinct images.
        seed: decides which images are mixed.
    """
    random, total = generator(seed, "partial-sums", *sizes), sum(sizes)
    counter, left = SumCounter(len(codec.codebook)), count
    while left > 0:
        whole = len(images) // total
        chosen = images[torch.randperm(len(images), generator=random)[: whole * total]]
        one, other = (part.unflatten(0, (whole, -1)).mean(1) for part in chosen.split([whole * size for size in sizes]))
        of_one, of_other = tokens_of(codec, one), tokens_of(codec, other)
        for turn in range(min(_TURNS, whole)):
            mixes = min(left, whole)
            turned = other.roll(turn, 0)
            mixed = (sizes[0] * one[:mixes] + sizes[1] * turned[:mixes]) / total
            counter.add(of_one[:mixes], of_other.roll(turn, 0)[:mixes], tokens_of(codec, mixed) if mixes else of_one[:0])
            left -= mixes
    made = counter.counts(symmetric=sizes[0] == sizes[1])
    return SumCounts(made.codes, made.keys, made.counts, network_digest(codec))
