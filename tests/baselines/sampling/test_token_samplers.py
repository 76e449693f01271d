"""LASS' samplers against everything there is to sample: 4 codes and sequences of 3 tokens, whose 4096 pairs can be listed."""

from __future__ import annotations

import math

import pytest
import torch
from token_toys import MIXTURE, SEQUENCES, Independent, K, S, exact, likelihood, posterior, step_logs

from baselines.networks.token_transformer import KeyValueCache, TokenTransformer
from baselines.sampling import token_samplers
from baselines.sampling.token_samplers import Drawn, Greedy, Rule, TokenPosterior, draw, search
from sepbench.noise import NoiseSource


def ancestral_law(target: TokenPosterior, rule: Rule) -> torch.Tensor:
    """Probability ``(64, 64)`` of each pair of sequences where every step draws by the rule, from the list of all pairs."""
    logs = step_logs(target) / rule.temperature
    total = torch.zeros(K**S, K**S, dtype=torch.float64)
    for position in range(S):
        # Pairs that share their tokens before the position are alternatives there.
        before = SEQUENCES[:, :position] @ (K ** torch.arange(position))
        now = before * K + SEQUENCES[:, position]
        group = before[:, None] * K**position + before[None]
        place = now[:, None] * K ** (position + 1) + now[None]
        for one in group.unique():
            inside = group == one
            places, where = place[inside].unique(return_inverse=True)
            values = torch.full((len(places),), -math.inf, dtype=torch.float64).scatter(0, where, logs[..., position][inside])
            if rule.top_k is not None:
                values[values < values.sort(descending=True).values[rule.top_k - 1]] = -math.inf
            if rule.nucleus < 1:
                shares, order = values.softmax(0).sort(descending=True)
                values[order[(shares.cumsum(0) - shares) >= rule.nucleus]] = -math.inf
            total[inside] += values.log_softmax(0)[where]
    return total.exp()


def numbers(drawn: Drawn) -> torch.Tensor:
    """Which of the 4096 pairs each row is."""
    powers = K ** torch.arange(S - 1, -1, -1)
    return (drawn.tokens[:, 0] @ powers) * K**S + drawn.tokens[:, 1] @ powers


def draws(target: TokenPosterior, rule: Rule | Greedy, count: int = 20_000, seed: int = 5) -> Drawn:
    return draw(target, MIXTURE.expand(count, -1), rule, NoiseSource(seed), torch.zeros(count, dtype=torch.int64), torch.arange(count))


def distance(drawn: Drawn, law: torch.Tensor) -> float:
    """Total variation between frequencies and a law, over that which as many true draws would have on average (at most; Cauchy and Schwarz)."""
    frequencies = torch.bincount(numbers(drawn), minlength=K ** (2 * S)) / len(drawn.tokens)
    law = law.flatten()
    expected = 0.5 * (2 / math.pi) ** 0.5 * float((law * (1 - law) / len(drawn.tokens)).clamp(min=0).sqrt().sum())
    return float((frequencies - law).abs().sum()) / 2 / expected


RULES = [Rule(), Rule(top_k=3), Rule(nucleus=0.7), Rule(temperature=0.6), Rule(temperature=1.5, top_k=4, nucleus=0.9)]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("shared", [True, False])
def test_frequencies_are_those_of_the_rule(rule: Rule, shared: bool) -> None:
    target = posterior(shared=shared, weight=0.7)
    law = ancestral_law(target, rule)
    assert float(law.sum()) == pytest.approx(1.0)
    assert distance(draws(target, rule), law) < 1.5
    other = ancestral_law(target, Rule(temperature=3.0))
    assert distance(draws(target, rule), other) > 3.0, "the test can tell laws apart"


def test_log_probabilities_are_exact() -> None:
    target, rule = posterior(weight=2.0), Rule(top_k=4)
    drawn = draws(target, rule, 500)
    torch.testing.assert_close(drawn.log_posterior, exact(target).flatten()[numbers(drawn)], atol=1e-4, rtol=0)
    torch.testing.assert_close(drawn.log_proposal, ancestral_law(target, rule).log().flatten()[numbers(drawn)], atol=1e-4, rtol=0)


def test_draws_stand_for_the_posterior_with_their_weights() -> None:
    """Without weights they do not: a step does not know what comes after it."""
    target = posterior()
    law = exact(target).flatten().softmax(0)
    drawn = draws(target, Rule(), 50_000)
    weights = (drawn.log_posterior - drawn.log_proposal).softmax(0)
    weighted = torch.zeros_like(law).index_add_(0, numbers(drawn), weights)
    plain = torch.bincount(numbers(drawn), minlength=len(law)) / len(drawn.tokens)
    assert float((weighted - law).abs().sum()) / 2 < 0.05
    assert float((plain - law).abs().sum()) / 2 > 2 * float((weighted - law).abs().sum()) / 2


def test_of_independent_positions_draws_are_the_posteriors() -> None:
    target = TokenPosterior((Independent(1), Independent(2)), likelihood(), 1.3)
    assert distance(draws(target, Rule()), exact(target).flatten().softmax(0)) < 1.5


def test_greedy_takes_the_likeliest_pair_of_each_step() -> None:
    for seed in range(5):
        target = posterior(seed)
        drawn = draws(target, Greedy(), 1)
        assert numbers(drawn).tolist() == numbers(draws(target, Rule(top_k=1), 1)).tolist()
        assert numbers(drawn).tolist() == numbers(search(target, MIXTURE[None], 1)).tolist()


def test_greedy_takes_the_first_of_equals() -> None:
    chosen, _ = Greedy().choose(torch.tensor([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]]), torch.zeros(2))
    assert chosen.tolist() == [1, 0]


@pytest.mark.parametrize("shared", [True, False])
def test_a_beam_that_is_wide_enough_is_brute_force(shared: bool) -> None:
    target = posterior(shared=shared)
    law = exact(target).flatten()
    possible = int(law.isfinite().sum())
    found = search(target, MIXTURE[None], K ** (2 * S))
    assert int(found.log_posterior.isfinite().sum()) == possible
    torch.testing.assert_close(found.log_posterior[:possible], law.sort(descending=True).values[:possible], atol=1e-4, rtol=0)
    torch.testing.assert_close(law[numbers(found)[:possible]], found.log_posterior[:possible], atol=1e-4, rtol=0)
    assert numbers(found)[:possible].unique().numel() == possible


def test_a_narrow_beam_keeps_the_best_of_each_step() -> None:
    """Against a search written out with lists."""
    mixtures = torch.tensor([[1, 2, 1], [0, 3, 3], [1, 2, 3]])
    for seed in range(4):
        target = posterior(seed, weight=1.5)
        found = search(target, mixtures, 5)
        for row, mixture in enumerate(mixtures):
            sums = step_logs(target, mixture).cumsum(-1)
            kept: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((), ())]
            for position in range(S):
                scores = {}
                for i, first in enumerate(SEQUENCES.tolist()):
                    for j, second in enumerate(SEQUENCES.tolist()):
                        if (tuple(first[:position]), tuple(second[:position])) in kept:
                            scores[tuple(first[: position + 1]), tuple(second[: position + 1])] = float(sums[i, j, position])
                kept = sorted((pair for pair in scores if math.isfinite(scores[pair])), key=lambda pair: -scores[pair])[:5]
            made = found.tokens[5 * row : 5 * row + len(kept)]
            assert [tuple(map(tuple, pair)) for pair in made.tolist()] == kept


def test_misaligned_scores_are_the_released_codes() -> None:
    """Flag 46: after the first step every beam has the score of the worst that was kept, so that the second step forgets the first."""
    differ = 0
    for seed in range(6):
        target = posterior(seed)
        right, wrong = search(target, MIXTURE[None], 4), search(target, MIXTURE[None], 4, misaligned=True)
        known = wrong.log_posterior.isfinite()
        torch.testing.assert_close(wrong.log_posterior[known], exact(target).flatten()[numbers(wrong)[known]], atol=1e-4, rtol=0)
        differ += numbers(right).tolist() != numbers(wrong).tolist()
        two = MIXTURE[None, :2]
        logs = step_logs(target)
        kept = search(target, MIXTURE[None, :1], 4).tokens[:, :, 0].tolist()
        second = {}
        for i, first in enumerate(SEQUENCES.tolist()):
            for j, other in enumerate(SEQUENCES.tolist()):
                if [first[0], other[0]] in kept and math.isfinite(float(logs[i, j, 1])):
                    second[tuple(first[:2]), tuple(other[:2])] = float(logs[i, j, 1])
        made = search(target, two, 4, misaligned=True).tokens.tolist()
        assert [tuple(map(tuple, pair)) for pair in made] == sorted(second, key=lambda pair: -second[pair])[:4]
    assert differ


def test_a_draw_depends_on_its_example_and_candidate_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    target, noise = posterior(shared=True), NoiseSource(9)
    mixtures = torch.tensor([[1, 2, 1], [0, 3, 3], [1, 0, 3]]).repeat_interleave(6, 0)
    ids, numbered = torch.tensor([7, 5, 6]).repeat_interleave(6), torch.arange(6).repeat(3)
    whole = draw(target, mixtures, Rule(), noise, ids, numbered)
    monkeypatch.setattr(token_samplers, "_CPU_ENTRIES", 1)
    for rows in (torch.tensor([4]), torch.tensor([17, 2, 9, 0]), torch.arange(18).flip(0)):
        part = draw(target, mixtures[rows], Rule(), noise, ids[rows], numbered[rows])
        assert torch.equal(part.tokens, whole.tokens[rows])
        torch.testing.assert_close(part.log_posterior, whole.log_posterior[rows], atol=1e-5, rtol=0)
    found = search(target, mixtures[::6], 3)
    assert torch.equal(found.tokens[3:6], search(target, mixtures[6:7], 3).tokens)
    assert not torch.equal(draw(target, mixtures, Rule(), NoiseSource(10), ids, numbered).tokens, whole.tokens)


def test_progress_ends_with_all_of_it() -> None:
    told: list[float] = []
    draw(posterior(), MIXTURE[None], Rule(), NoiseSource(0), torch.tensor([0]), torch.tensor([0]), progress=told.append)
    search(posterior(), MIXTURE[None], 2, progress=told.append)
    assert told == pytest.approx([1 / 3, 2 / 3, 1.0] * 2)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"top_k": 0}, {"nucleus": 0.0}, {"nucleus": 1.1}])
def test_rules_that_keep_nothing(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="temperature must be above 0"):
        Rule(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [1, 3])
def test_histories_that_all_beams_have_in_common_are_left_where_they_are(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """Beams of long sequences descend from one ancestor. Copying everything gives the same sequences."""
    priors = []
    for seed in (1, 2):
        network = TokenTransformer(K, 20, width=8, layers=2, heads=2)
        random = torch.Generator().manual_seed(seed)
        network.draw_weights(random)
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(torch.randn(weight.shape, generator=random), alpha=0.4)
        priors.append(network.eval())
    target = TokenPosterior((priors[0], priors[1]), likelihood())
    mixture = torch.randint(0, K, (batch, 20), generator=torch.Generator().manual_seed(3))
    since: list[int] = []
    reorder = KeyValueCache.reorder
    monkeypatch.setattr(KeyValueCache, "reorder", lambda self, rows, first: (since.append(first), reorder(self, rows, first))[1])
    found = search(target, mixture, 4)
    monkeypatch.setattr(KeyValueCache, "reorder", lambda self, rows, first: reorder(self, rows))
    every = search(target, mixture, 4)
    assert torch.equal(found.tokens, every.tokens)
    assert torch.equal(found.log_posterior, every.log_posterior)
    assert since == sorted(since)
    assert since[-1] > 2
    final = found.tokens.unflatten(0, (batch, 4))
    assert bool((final[..., : since[-1]] == final[:, :1, :, : since[-1]]).all())
    for row in range(len(found.tokens)):
        logs = sum(float(prior.log_prob(one[None]).detach()) for prior, one in zip(priors, found.tokens[row], strict=True))
        pairs = [likelihood().pairs(int(token)) for token in mixture[row // 4]]
        told = [one.logs[(one.first == a) & (one.second == b)] for one, a, b in zip(pairs, *found.tokens[row], strict=True)]
        assert float(found.log_posterior[row]) == pytest.approx(logs + float(torch.cat(told).sum()), abs=1e-3)


def weighted(*weights: float) -> torch.Tensor:
    return torch.tensor([weights], dtype=torch.float32).log()


@pytest.mark.parametrize(
    ("rule", "weights", "chances"),
    [
        (Rule(), (1, 2, 3), {0: 1 / 6, 1: 2 / 6, 2: 3 / 6}),
        (Rule(temperature=0.5), (1, 2, 3), {0: 1 / 14, 1: 4 / 14, 2: 9 / 14}),
        (Rule(top_k=2), (3, 1, 2), {0: 3 / 5, 2: 2 / 5}),
        (Rule(top_k=2), (2, 1, 3), {0: 2 / 5, 2: 3 / 5}),
        (Rule(top_k=9), (2, 2), {0: 1 / 2, 1: 1 / 2}),
        (Rule(top_k=1), (2, 1, 3), {2: 1.0}),
        (Rule(nucleus=0.5), (1, 2, 3), {2: 1.0}),
        (Rule(nucleus=0.51), (1, 2, 3), {1: 2 / 5, 2: 3 / 5}),
        (Rule(nucleus=1e-9), (1, 2, 3), {2: 1.0}),
        (Rule(nucleus=0.49), (1, 1, 1, 1), {0: 1 / 2, 1: 1 / 2}),
        (Rule(temperature=2.0, nucleus=0.6), (1, 4, 9), {1: 2 / 5, 2: 3 / 5}),
        (Rule(top_k=2, nucleus=0.65), (4, 2, 3), {0: 4 / 7, 2: 3 / 7}),
        (Rule(temperature=2.0, top_k=2), (1, 4, 9), {1: 2 / 5, 2: 3 / 5}),
        (Rule(), (0, 1, 1, 0), {1: 1 / 2, 2: 1 / 2}),
    ],
    ids=str,
)
def test_a_uniform_number_chooses_by_the_sums_of_the_chances_in_the_order_of_the_list(
    rule: Rule, weights: tuple[float, ...], chances: dict[int, float]
) -> None:
    begun = 0.0
    for which, chance in chances.items():
        for place in (begun + 1e-5, begun + 0.5 * chance, begun + chance - 1e-5, *([0.0] if begun == 0.0 else [])):
            chosen, logs = rule.choose(weighted(*weights).expand(2, -1), torch.tensor([place, place]))
            assert chosen.tolist() == [which] * 2
            assert (logs.dtype, logs.tolist()) == (torch.float64, pytest.approx([math.log(chance)] * 2, abs=1e-6))
        begun += chance
    assert begun == pytest.approx(1.0)


def test_the_bounds_of_a_rule() -> None:
    assert (Rule().temperature, Rule().top_k, Rule().nucleus) == (1.0, None, 1.0)
    assert Rule(1e-9, 1, 1e-9) == Rule(temperature=1e-9, top_k=1, nucleus=1e-9)
    for wrong in ((-1.0, None, 1.0), (1.0, -1, 1.0), (1.0, None, -0.1)):
        with pytest.raises(ValueError, match=r"^temperature must be above 0, top_k at least 1 and nucleus in \(0, 1\]$"):
            Rule(*wrong)  # type: ignore[arg-type]


def test_rows_by_their_token() -> None:
    found = [(token, rows.tolist()) for token, rows in token_samplers.by_token(torch.tensor([2, 0, 2, 7, 0]))]
    assert found == [(0, [1, 4]), (2, [0, 2]), (7, [3])]


def test_how_many_logs_are_handled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_samplers, "scaled", lambda number, device: (number, device))
    assert token_samplers.entries_at_once("cpu") == 1 << 22
    assert token_samplers.entries_at_once("cuda:1") == (1 << 26, "cuda:1")  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("shared", [True, False])
def test_logs_of_a_step_are_of_each_source_s_own_tokens_and_rows_go_on_from_others(shared: bool) -> None:
    target = posterior(shared=shared)
    histories = token_samplers.Histories(target.priors, 3)
    assert (histories.sources, histories.shared, len(histories.caches)) == (2, shared, 1 if shared else 2)
    logs = histories.step(None)
    assert (logs.shape, logs.dtype) == ((2, 3, K), torch.float32)
    histories.step(torch.tensor([[0, 1], [2, 3], [1, 1]]))
    histories.select(torch.tensor([1, 1, 0]))
    found = histories.step(torch.tensor([[3, 0], [1, 2], [2, 2]]))
    own = torch.tensor([[[2, 3], [2, 1], [0, 2]], [[3, 0], [3, 2], [1, 2]]])
    for which, prior in enumerate(target.priors):
        padded = torch.nn.functional.pad(own[which], (0, 1))
        wanted = prior(padded)[:, 2].log_softmax(-1)  # type: ignore[operator]
        torch.testing.assert_close(found[which], wanted, atol=1e-5, rtol=0)


def test_sampling_keeps_no_graph() -> None:
    target = posterior()
    assert any(weight.requires_grad for prior in target.priors for weight in prior.parameters())  # type: ignore[attr-defined]
    assert not draws(target, Rule(), 2).log_posterior.requires_grad
    assert not search(target, MIXTURE[None], 2).log_posterior.requires_grad
