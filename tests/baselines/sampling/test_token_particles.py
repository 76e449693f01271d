"""Particles against everything there is to sample: their weights stand for the posterior, their mean weight for its total."""

from __future__ import annotations

import math

import pytest
import torch
from token_toys import MIXTURE, SEQUENCES, K, S, exact, posterior

from baselines.sampling import token_samplers
from baselines.sampling.token_particles import Particles, _resampled, particles
from baselines.sampling.token_samplers import Rule
from sepbench.noise import NoiseSource

MIXTURES, COUNT = 400, 64


def drawn(rule: Rule = Rule(), *, seed: int = 5, ids: torch.Tensor | None = None, **more: object) -> Particles:  # noqa: B008
    ids = torch.arange(MIXTURES) if ids is None else ids
    return particles(posterior(), MIXTURE.expand(len(ids), -1), COUNT, rule, NoiseSource(seed), ids, **more)  # type: ignore[arg-type]


def numbers(tokens: torch.Tensor) -> torch.Tensor:
    """Which of the 4096 pairs ``(..., 2, S)`` are."""
    powers = K ** torch.arange(S - 1, -1, -1)
    return (tokens[..., 0, :] @ powers) * K**S + tokens[..., 1, :] @ powers


def law_of(made: Particles) -> torch.Tensor:
    """The law that the weighted particles of all mixtures stand for, each mixture's by its mean weight: their sum is unbiased for the posterior times Z."""
    shares = made.log_weights.softmax(1) * (made.log_mean_weight - made.log_mean_weight.max()).exp()[:, None]
    total = torch.zeros(K ** (2 * S), dtype=torch.float64).index_add_(0, numbers(made.tokens).flatten(), shares.flatten())
    return total / total.sum()


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rule", [Rule(), Rule(temperature=1.5)], ids=str)
def test_mean_weights_are_unbiased_for_the_posteriors_total(rule: Rule, threshold: float) -> None:
    made = drawn(rule, threshold=threshold)
    ratio = (made.log_mean_weight - exact(posterior()).flatten().logsumexp(0)).exp()
    assert abs(float(ratio.mean()) - 1.0) < 4 * float(ratio.std()) / math.sqrt(MIXTURES)
    assert float(ratio.std()) > 0.0


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_weighted_particles_stand_for_the_posterior(threshold: float) -> None:
    truth = exact(posterior()).flatten().softmax(0)
    made = drawn(threshold=threshold)
    assert 0.5 * float((law_of(made) - truth).abs().sum()) < 0.05
    plain = torch.bincount(numbers(made.tokens).flatten(), minlength=K ** (2 * S)).double() / made.log_weights.numel()
    if threshold == 0.0:  # never resampled, so that the weights are needed
        assert 0.5 * float((plain - truth).abs().sum()) > 0.1
        assert int(made.resampled.sum()) == 0
    else:
        assert int(made.resampled.min()) >= 1


def test_evidence_counts_once_however_often_it_is_asked() -> None:
    """A factor of the first source's last token alone: the posterior changes by it, and by no power of it."""
    factors = torch.tensor([0.0, -2.0, 1.0, -0.5], dtype=torch.float64)

    def evidence(tokens: torch.Tensor, made: int) -> torch.Tensor:
        return factors[tokens[:, :, 0, S - 1]] if made == S else 0.1 * tokens[:, :, 0, 0].double()

    truth = (exact(posterior()) + factors[SEQUENCES[:, S - 1]][:, None]).flatten()
    for every in (1, 2):
        made = drawn(threshold=1.0, evidence=evidence, every=every)
        ratio = (made.log_mean_weight - truth.logsumexp(0)).exp()
        assert abs(float(ratio.mean()) - 1.0) < 4 * float(ratio.std()) / math.sqrt(MIXTURES)
        assert 0.5 * float((law_of(made) - truth.softmax(0)).abs().sum()) < 0.06


def test_evidence_that_stays_weighs_once() -> None:
    """Told alike at every position, of the first token alone: after the first position it changes no weight, whoever is resampled."""

    def evidence(tokens: torch.Tensor, made: int) -> torch.Tensor:
        return 2.0 * tokens[:, :, 0, 0].double()

    truth = (exact(posterior()) + 2.0 * SEQUENCES[:, 0].double()[:, None]).flatten()
    made = drawn(threshold=0.9, evidence=evidence)
    assert int(made.resampled.max()) >= 1
    assert 0.5 * float((law_of(made) - truth.softmax(0)).abs().sum()) < 0.06
    ratio = (made.log_mean_weight - truth.logsumexp(0)).exp()
    assert abs(float(ratio.mean()) - 1.0) < 4 * float(ratio.std()) / math.sqrt(MIXTURES)


def test_log_posteriors_are_those_of_the_tokens() -> None:
    made = drawn(threshold=1.0)
    assert torch.allclose(made.log_posterior, exact(posterior()).flatten()[numbers(made.tokens)], atol=1e-5)


def test_an_example_does_not_depend_on_its_batch() -> None:
    whole, part = drawn(threshold=0.8, ids=torch.arange(6)), drawn(threshold=0.8, ids=torch.tensor([4, 1]))
    assert torch.equal(whole.tokens[[4, 1]], part.tokens)
    assert not torch.equal(whole.tokens[0], whole.tokens[1])


def test_pairs_that_a_rule_cuts_off_are_never_drawn() -> None:
    made = drawn(Rule(top_k=1), threshold=1.0)
    assert len(numbers(made.tokens).unique()) == 1


def test_systematic_resampling_by_hand() -> None:
    """Four particles of shares 0.1 to 0.4: places at 1/8, 3/8, 5/8 and 7/8 lie in the second, the third and twice the fourth; even ones stay."""
    shares = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    before = torch.tensor([0.5, 0.25], dtype=torch.float64)
    kept, weights, mean, again = _resampled((2.0 * shares).log(), before, 0.9, torch.tensor([0.5, 0.5]))
    assert kept.tolist() == [1, 2, 3, 3, 4, 5, 6, 7]
    assert again.tolist() == [1, 0]
    torch.testing.assert_close(weights, torch.stack([torch.zeros(4), (2.0 * shares[1]).log()]).double())
    torch.testing.assert_close(mean, before + torch.tensor([0.5, 1.0], dtype=torch.float64).log())


@pytest.mark.parametrize(("threshold", "again"), [(0.5, 0), (0.51, 1)])
def test_an_effective_number_at_the_threshold_is_enough(threshold: float, again: int) -> None:
    """All weight on one of two particles: an effective number of 1."""
    weights = torch.tensor([[0.0, -torch.inf]], dtype=torch.float64)
    kept, after, _, resampled = _resampled(weights, torch.zeros(1, dtype=torch.float64), threshold, torch.tensor([0.9]))
    assert resampled.tolist() == [again]
    assert kept.tolist() == ([0, 0] if again else [0, 1])
    assert after.tolist() == ([[0.0, 0.0]] if again else weights.tolist())


def test_particles_of_different_mixtures_are_those_of_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever tokens the others have, and in how many parts the lists of pairs are handled."""
    mixtures, ids = torch.tensor([[1, 2, 1], [0, 3, 3], [1, 0, 3], [2, 2, 0]]), torch.tensor([7, 5, 6, 2])

    def made(rows: list[int]) -> Particles:
        return particles(posterior(), mixtures[rows], 6, Rule(), NoiseSource(9), ids[rows], threshold=0.7)

    whole = made([0, 1, 2, 3])
    assert len({tuple(one.flatten().tolist()) for one in whole.tokens}) == 4
    monkeypatch.setattr(token_samplers, "_CPU_ENTRIES", 1)
    for rows in ([2], [3, 0], [3, 2, 1, 0]):
        part = made(rows)
        assert torch.equal(part.tokens, whole.tokens[rows])
        for name in ("log_posterior", "log_weights", "log_mean_weight"):
            torch.testing.assert_close(getattr(part, name), getattr(whole, name)[rows], atol=1e-5, rtol=0)
        assert torch.equal(part.resampled, whole.resampled[rows])


@pytest.mark.parametrize(("every", "asked"), [(1, [1, 2, 3]), (2, [2, 3]), (3, [3]), (9, [3])])
def test_evidence_is_asked_for_every_so_many_positions_and_at_the_end(every: int, asked: list[int]) -> None:
    seen: list[int] = []
    told: list[float] = []

    def evidence(tokens: torch.Tensor, made: int) -> torch.Tensor:
        assert tokens.shape == (2, COUNT, 2, S)
        seen.append(made)
        return torch.zeros(2, COUNT)

    found = drawn(ids=torch.arange(2), evidence=evidence, every=every, progress=told.append)
    assert seen == asked
    assert told == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert not found.log_posterior.requires_grad
