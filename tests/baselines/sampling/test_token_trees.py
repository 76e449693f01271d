"""Trees of partial sums against everything there is to sample: 3 codes, sequences of 2 tokens, 3 and 4 sources, whose 6,561 sets can be listed."""

from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from baselines.networks.token_transformer import TokenTransformer
from baselines.priors.token_sums import SumCounter, SumLikelihood
from baselines.sampling import token_samplers
from baselines.sampling.token_particles import Particles, particles
from baselines.sampling.token_samplers import Drawn, Rule, TokenPosterior, draw
from baselines.sampling.token_trees import Split, TreePosterior, balanced
from sepbench.noise import NoiseSource

K, S = 3, 2
MIXTURE = torch.tensor([1, 2])
SEQUENCES = torch.cartesian_prod(*[torch.arange(K)] * S)


@cache
def transformer(seed: int) -> TokenTransformer:
    network = TokenTransformer(K, S, width=8, layers=1, heads=2)
    random = torch.Generator().manual_seed(seed)
    network.draw_weights(random)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=random), alpha=0.4)
    return network.eval()


@cache
def likelihood(left: int, right: int) -> SumLikelihood:
    """Others for every node; two thirds of the triples were seen."""
    random = torch.Generator().manual_seed(10 * left + right)
    triples = torch.cartesian_prod(*[torch.arange(K)] * 3)
    seen = triples[torch.randperm(len(triples), generator=random)[:18]]
    counter = SumCounter(K)
    counter.add(*seen.repeat_interleave(torch.randint(1, 9, (len(seen),), generator=random), 0).unbind(1))
    return SumLikelihood(counter.counts(symmetric=left == right), torch.eye(K))


def table(left: int, right: int, weight: float) -> torch.Tensor:
    """``P(t | left, right)^weight`` as ``(t, left, right)``."""
    made = torch.zeros(K, K, K, dtype=torch.float64)
    for token in range(K):
        pairs = likelihood(left, right).pairs(token)
        made[token, pairs.first, pairs.second] = (weight * pairs.logs.double()).exp()
    return made


def of_mixture(sources: int, weight: float) -> torch.Tensor:
    """What the sources' tokens at one position make of the mixture's, partial sums summed out: ``(K, ..., K)`` of the mixture's token 0, 1, 2 in front."""
    if sources == 3:
        return torch.einsum("muz,uxy->mxyz", table(2, 1, weight), table(1, 1, weight))
    return torch.einsum("muv,uwx,vyz->mwxyz", table(2, 2, weight), table(1, 1, weight), table(1, 1, weight))


def priors(sources: int, shared: bool) -> tuple[TokenTransformer, ...]:
    return tuple(transformer(3 if shared else 3 + number) for number in range(sources))


@torch.no_grad()
def step_logs(sources: int, shared: bool, weight: float) -> torch.Tensor:
    """``(9, ..., 9, S)``: log prior and likelihood of each position for every set of sequences, partial sums summed out."""
    total = torch.zeros(*[K**S] * sources, S, dtype=torch.float64)
    for number, prior in enumerate(priors(sources, shared)):
        own = prior(SEQUENCES).double().log_softmax(-1).gather(-1, SEQUENCES[..., None]).squeeze(-1)
        total += own.reshape(*[1] * number, K**S, *[1] * (sources - number - 1), S)
    for position, token in enumerate(MIXTURE):
        where = torch.meshgrid(*[SEQUENCES[:, position]] * sources, indexing="ij")
        total[..., position] += of_mixture(sources, weight)[token][where].log()
    return total


def ancestral_law(sources: int, shared: bool, weight: float) -> torch.Tensor:
    """Probability of every set of sequences, flat, where each position is drawn given those before it."""
    logs = step_logs(sources, shared, weight)
    firsts, lasts = logs[..., 0], logs[..., 1]
    for axis in range(sources):  # each sequence number to its two tokens
        firsts, lasts = firsts.unflatten(2 * axis, (K, K)), lasts.unflatten(2 * axis, (K, K))
    first_axes, last_axes = [2 * axis for axis in range(sources)], [2 * axis + 1 for axis in range(sources)]
    first = firsts[(slice(None), 0) * sources]  # position 0 does not depend on what comes after
    first = first.flatten().log_softmax(0).reshape(first.shape)
    last = lasts.permute(*first_axes, *last_axes).flatten(sources).log_softmax(-1).reshape(*[K] * (2 * sources))
    both = first.reshape(*[K] * sources, *[1] * sources) + last
    order = [axis for number in range(sources) for axis in (number, sources + number)]
    return both.permute(order).flatten().exp()


def numbers(drawn: Drawn) -> torch.Tensor:
    sequences = drawn.tokens @ torch.tensor([K, 1])
    return sequences @ torch.tensor([(K**S) ** power for power in range(drawn.tokens.shape[1] - 1, -1, -1)])


def draws(sources: int, shared: bool, weight: float, count: int, rule: Rule = Rule(), seed: int = 4) -> Drawn:  # noqa: B008
    tree = balanced(sources, likelihood)
    assert isinstance(tree, Split)
    given = (NoiseSource(seed), torch.zeros(count, dtype=torch.int64), torch.arange(count))
    return draw(TreePosterior(priors(sources, shared), tree, weight), MIXTURE.expand(count, -1), rule, *given)


def distance(frequencies: torch.Tensor, law: torch.Tensor, count: int) -> float:
    """Total variation over what as many true draws would have on average (at most; Cauchy and Schwarz)."""
    expected = 0.5 * (2 / math.pi) ** 0.5 * float((law * (1 - law) / count).clamp(min=0).sqrt().sum())
    return float((frequencies - law).abs().sum()) / 2 / expected


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("sources", [3, 4])
def test_frequencies_are_those_with_the_partial_sums_summed_out(sources: int, shared: bool) -> None:
    law = ancestral_law(sources, shared, 0.8)
    assert float(law.sum()) == pytest.approx(1.0)
    frequencies = torch.bincount(numbers(draws(sources, shared, 0.8, 40_000)), minlength=len(law)) / 40_000
    assert distance(frequencies, law, 40_000) < 1.3
    assert distance(frequencies, ancestral_law(sources, shared, 2.5), 40_000) > 3.0, "the test can tell laws apart"


def test_draws_stand_for_the_posterior_with_their_weights() -> None:
    law = step_logs(3, False, 2.5).sum(-1).flatten().softmax(0)
    drawn = draws(3, False, 2.5, 60_000)
    weights = (drawn.log_posterior - drawn.log_proposal).softmax(0)
    weighted = torch.zeros_like(law).index_add_(0, numbers(drawn), weights)
    plain = torch.bincount(numbers(drawn), minlength=len(law)) / len(drawn.tokens)
    assert float((weighted - law).abs().sum()) < 0.7 * float((plain - law).abs().sum())


@cache
def grown(sources: int, shared: bool) -> Particles:
    """32 particles of each of 1,500 mixtures, resampled after the first position."""
    tree = balanced(sources, likelihood)
    assert isinstance(tree, Split)
    ids = torch.arange(1500)
    posterior = TreePosterior(priors(sources, shared), tree, 2.5)
    return particles(posterior, MIXTURE.expand(len(ids), -1), 32, Rule(), NoiseSource(4), ids, threshold=1.0)


@pytest.mark.parametrize(("sources", "shared"), [(3, False), (4, True)])
def test_mean_weights_of_a_tree_are_unbiased_for_the_posteriors_total(sources: int, shared: bool) -> None:
    made = grown(sources, shared)
    assert int(made.resampled.min()) == 1
    ratio = (made.log_mean_weight - step_logs(sources, shared, 2.5).sum(-1).flatten().logsumexp(0)).exp()
    assert abs(float(ratio.mean()) - 1.0) < 4 * float(ratio.std()) / math.sqrt(len(ratio))


def test_particles_of_a_tree_stand_for_the_posterior() -> None:
    made, exact = grown(3, False), step_logs(3, False, 2.5).sum(-1).flatten()
    shares = made.log_weights.softmax(1) * (made.log_mean_weight - made.log_mean_weight.max()).exp()[:, None]
    places = numbers(Drawn(made.tokens.flatten(0, 1), made.log_posterior.flatten(), made.log_weights.flatten()))
    law = torch.zeros_like(exact).index_add_(0, places, shares.flatten())
    plain = ancestral_law(3, False, 2.5)
    off, off_plain = (float((one - exact.softmax(0)).abs().sum()) for one in (law / law.sum(), plain))
    assert off < 0.5 * off_plain


def test_weights_of_particles_do_not_depend_on_the_partial_sums_that_were_drawn() -> None:
    """Without a rule that cuts, a step's weight is the sum over all tokens of the position, the same for all first tokens."""
    tree = balanced(3, likelihood)
    assert isinstance(tree, Split)
    ids = torch.arange(1)
    made = particles(TreePosterior(priors(3, False), tree), MIXTURE[None, :1], 20, Rule(), NoiseSource(4), ids)
    assert len(made.tokens.flatten(0, 1).unique(dim=0)) > 1
    torch.testing.assert_close(made.log_weights, made.log_weights[:, :1].expand(-1, 20), atol=1e-5, rtol=0)


def test_resampling_of_particles_has_draws_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nodes of a tree of three sources take the draws of sources 0 and 1, the resampling those of source 2."""
    taken = []
    uniform = NoiseSource.uniform

    def noted(self: NoiseSource, ids: torch.Tensor, step: int, source: int, *rest: Any) -> torch.Tensor:
        taken.append((step, source, len(ids)))
        return uniform(self, ids, step, source, *rest)

    monkeypatch.setattr(NoiseSource, "uniform", noted)
    tree = balanced(3, likelihood)
    assert isinstance(tree, Split)
    particles(TreePosterior(priors(3, False), tree), MIXTURE[None], 5, Rule(), NoiseSource(4), torch.arange(1))
    assert taken == [(0, 0, 5), (0, 1, 5), (0, 2, 1), (1, 0, 5), (1, 1, 5)]


def test_a_tree_of_two_sources_is_the_papers_sampler() -> None:
    count, rule = 200, Rule(top_k=4, temperature=1.3)
    given = (NoiseSource(1), torch.arange(count), torch.arange(count) % 7)
    pair = Split(0, 1, likelihood(1, 1))
    found = draw(TreePosterior(priors(2, True), pair, 0.7), MIXTURE.expand(count, -1), rule, *given)
    two = draw(TokenPosterior((transformer(3), transformer(3)), likelihood(1, 1), 0.7), MIXTURE.expand(count, -1), rule, *given)
    assert torch.equal(found.tokens, two.tokens)
    torch.testing.assert_close(found.log_posterior, two.log_posterior, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.log_proposal, two.log_proposal, atol=1e-5, rtol=0)


def test_a_draw_depends_on_its_example_and_candidate_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tree, noise = balanced(3, likelihood), NoiseSource(9)
    assert isinstance(tree, Split)
    mixtures = torch.tensor([[1, 2], [0, 2], [1, 0]]).repeat_interleave(6, 0)
    ids, numbered = torch.tensor([7, 5, 6]).repeat_interleave(6), torch.arange(6).repeat(3)
    whole = draw(TreePosterior(priors(3, True), tree), mixtures, Rule(), noise, ids, numbered)
    monkeypatch.setattr(token_samplers, "_CPU_ENTRIES", 1)
    for rows in (torch.tensor([4]), torch.tensor([17, 2, 9, 0]), torch.arange(18).flip(0)):
        part = draw(TreePosterior(priors(3, True), tree), mixtures[rows], Rule(), noise, ids[rows], numbered[rows])
        assert torch.equal(part.tokens, whole.tokens[rows])
    assert len({tuple(row.flatten().tolist()) for row in whole.tokens[:6]}) > 1


def test_trees_halve_the_sources() -> None:
    made: list[tuple[int, int]] = []

    def noted(left: int, right: int) -> SumLikelihood:
        made.append((left, right))
        return likelihood(1, 1)

    def leaves(part: Split | int) -> list[int]:
        return [part] if isinstance(part, int) else [*leaves(part.left), *leaves(part.right)]

    assert leaves(balanced(5, noted)) == [0, 1, 2, 3, 4]
    assert made == [(1, 1), (2, 1), (1, 1), (3, 2)]


class TwoTokens:
    """Token 0 is made by the pairs (0, 1) and (1, 0), token 2 by (2, 2); token 1 was never seen, and its pairs are a substitute's."""

    seen = torch.tensor([True, False, True])

    def __init__(self) -> None:
        self.asked: list[int] = []

    def pairs(self, token: int) -> SimpleNamespace:
        self.asked.append(token)
        first, second, shares = {0: ([0, 1], [1, 0], [0.25, 1.0]), 1: ([1], [1], [1.0]), 2: ([2], [2], [0.5])}[token]
        return SimpleNamespace(first=torch.tensor(first), second=torch.tensor(second), logs=torch.tensor(shares).log())


def test_tables_of_a_node_by_hand() -> None:
    likelihood = TwoTokens()
    node = Split(0, 1, likelihood)  # type: ignore[arg-type]
    for weight in (1.0, 2.0, 1.0):
        wanted = torch.zeros(9, 3)
        wanted[1, 0], wanted[3, 0], wanted[8, 2] = 0.25**weight, 1.0, 0.5**weight
        torch.testing.assert_close(node.table(3, weight, "cpu"), wanted)
    assert likelihood.asked == [0, 2, 0, 2]  # each weight's table is made once


def test_numbers_of_sources_in_a_tree() -> None:
    asked: list[tuple[int, int]] = []
    tree: Any = balanced(5, lambda left, right: (asked.append((left, right)), (left, right))[1], first=3)  # type: ignore[arg-type, return-value]
    assert (tree.left.left.left, tree.left.left.right, tree.left.right) == (3, 4, 5)
    assert (tree.right.left, tree.right.right, tree.likelihood) == (6, 7, (3, 2))
    assert sorted(asked) == [(1, 1), (1, 1), (2, 1), (3, 2)]
    assert balanced(1, lambda left, right: None, first=4) == 4  # type: ignore[arg-type, return-value]


def test_sampling_keeps_no_graph() -> None:
    assert all(weight.requires_grad for weight in transformer(3).parameters())
    assert not draws(3, True, 1.0, 2).log_posterior.requires_grad
