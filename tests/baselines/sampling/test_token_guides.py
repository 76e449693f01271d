"""Candidates that are cut down as they grow: who goes on, when, and that a tree of draws gets nearer to its mixture by it."""

from __future__ import annotations

import pytest
import torch

from baselines.networks.token_transformer import TokenTransformer
from baselines.priors.token_sums import SumCounter, SumLikelihood
from baselines.sampling.token_guides import all_go_on, keep_nearest
from baselines.sampling.token_samplers import Rule
from baselines.sampling.token_trees import Split, draw_tree
from sepbench.noise import NoiseSource

SIDE, CODES, COUNT = 4, 5, 16


def decode(tokens: torch.Tensor) -> torch.Tensor:
    """A token is one pixel of so many fifths."""
    return tokens.reshape(-1, 1, SIDE, SIDE) / CODES


def mixtures(count: int) -> torch.Tensor:
    """Tokens of single sources' mean where all sources are alike."""
    return torch.randint(0, CODES, (count, SIDE * SIDE), generator=torch.Generator().manual_seed(2))


def test_the_nearest_go_on_as_often_as_there_is_room() -> None:
    mixture = mixtures(1)
    parents = keep_nearest(decode, decode(mixture), mixture, SIDE, 6, 1 / 3)
    tokens = mixture[:, None].repeat(6, 2, 1)
    for row in (0, 1, 3, 5):
        tokens[row, :, 0] = (tokens[row, :, 0] + 1) % CODES  # in the first row: seen
    tokens[2, 0, SIDE] = (tokens[2, 0, SIDE] + 1) % CODES  # in the last row so far: not seen yet
    tokens[4, 0, -1] = 0 * tokens[4, 0, -1] + (mixture[0, -1] + 2) % CODES  # still to come: not asked for
    chosen = parents(2 * SIDE - 1, tokens)
    assert chosen is not None
    assert sorted(chosen.tolist()) == [2, 2, 2, 4, 4, 4]
    assert all(parents(position, tokens) is None for position in (0, SIDE - 1, 2 * SIDE, SIDE * SIDE - 1))
    assert all_go_on(7, tokens) is None


def test_mixtures_keep_their_own_candidates() -> None:
    mixture = mixtures(3)
    tokens = torch.randint(0, CODES, (3 * COUNT, 2, SIDE * SIDE), generator=torch.Generator().manual_seed(3))
    together = keep_nearest(decode, decode(mixture), mixture, SIDE, COUNT, 0.25)(3 * SIDE - 1, tokens)
    assert together is not None
    for row in range(3):
        alone = keep_nearest(decode, decode(mixture[row : row + 1]), mixture[row : row + 1], SIDE, COUNT, 0.25)
        part = alone(3 * SIDE - 1, tokens[row * COUNT : (row + 1) * COUNT])
        assert part is not None
        assert torch.equal(together[row * COUNT : (row + 1) * COUNT], part + row * COUNT)


@pytest.mark.parametrize("share", [0.5, 0.125])
def test_draws_get_nearer_to_their_mixture(share: float) -> None:
    prior = TokenTransformer(CODES, SIDE * SIDE, width=8, layers=1, heads=2)
    prior.draw_weights(torch.Generator().manual_seed(0))
    counter = SumCounter(CODES)
    counter.add(*torch.cartesian_prod(*[torch.arange(CODES)] * 3).unbind(1))  # which says nothing
    tree, mixture = Split(0, 1, SumLikelihood(counter.counts(), torch.eye(CODES))), mixtures(20)
    means, each = decode(mixture), mixture.repeat_interleave(COUNT, 0)
    errors = []
    for guide in (all_go_on, keep_nearest(decode, means, mixture, SIDE, COUNT, share)):
        ids, numbered = torch.arange(20).repeat_interleave(COUNT), torch.arange(COUNT).repeat(20)
        drawn = draw_tree([prior.eval()] * 2, tree, 1.0, each, Rule(), NoiseSource(0), ids, numbered, parents_after=guide)
        images = decode(drawn.tokens.flatten(0, 1)).unflatten(0, (20, COUNT, 2)).mean(2)
        errors.append((images - means[:, None]).square().flatten(2).sum(2).mean())
    assert float(errors[1]) < 0.9 * float(errors[0])
