"""Best of N: criteria against closed forms."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from sepbench.gmm import GaussianMixture
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures, TaskSpec
from sepbench.selection import by_denoising_loss, by_log_prior, by_mixture_error, by_truth, denoising_losses, select, weighted_mean


def _prior(dimension: int, components: int = 2) -> GaussianMixture:
    generator = torch.Generator().manual_seed(4)
    root = 0.2 * torch.randn(components, dimension, dimension, generator=generator, dtype=torch.float64)
    covariances = root @ root.mT + 0.01 * torch.eye(dimension, dtype=torch.float64)
    return GaussianMixture(
        torch.full((components,), 1 / components, dtype=torch.float64), torch.rand(components, dimension, generator=generator).double(), covariances
    )


def test_the_highest_criterion_wins_and_nan_never_does() -> None:
    draws = torch.arange(12.0).reshape(2, 3, 2, 1)
    criterion = torch.tensor([[0.0, 2.0, 1.0], [math.nan, -5.0, -7.0]])
    assert torch.equal(select(draws, criterion), torch.stack([draws[0, 1], draws[1, 1]]))


def test_mixture_error_is_the_rms_of_the_residual() -> None:
    operator = make_operator("sum", 2)
    mixtures = Mixtures(torch.zeros(1, 1, 2, 2), torch.tensor([0]), operator)
    draws = torch.zeros(1, 2, 2, 1, 2, 2)
    draws[0, 1] += 0.5
    torch.testing.assert_close(by_mixture_error(draws, mixtures), torch.tensor([[0.0, -1.0]], dtype=torch.float64))


def test_denoising_loss_ranks_as_the_density_does() -> None:
    prior = _prior(4)
    likely = prior.sample(NoiseSource(0), torch.arange(200), 0, 0)
    unlikely = likely + 0.8 * NoiseSource(1).normal(torch.arange(200), 0, 0, (4,)).double()
    draws = torch.stack([likely, unlikely], dim=1).unsqueeze(2)
    mixtures = Mixtures(draws[:, 0, 0], torch.arange(200), make_operator("sum", 1))
    by_loss = by_denoising_loss(draws, [prior], mixtures, NoiseSource(3), (0.05, 0.1, 0.2, 0.4), repeats=2)
    by_density = by_log_prior(draws, lambda x: prior.log_prob(x.flatten(0, 1), 0.02).unflatten(0, x.shape[:2]))
    assert float((by_loss.argmax(1) == by_density.argmax(1)).double().mean()) > 0.9
    assert float((by_loss.argmax(1) == 0).double().mean()) > 0.9


def test_denoising_loss_uses_the_same_noise_for_every_candidate() -> None:
    prior = _prior(2)
    x = prior.sample(NoiseSource(0), torch.arange(3), 0, 0)
    ids = torch.tensor([5, 5, 6])
    same = denoising_losses(prior, x[:1].expand(3, -1), ids, NoiseSource(0), (0.1,))
    assert float(same[0]) == float(same[1])
    assert float(same[0]) != float(same[2])


def test_the_oracle_picks_the_best_and_respects_the_assignment() -> None:
    references = torch.rand(2, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    draws = torch.stack([references * 0.5, references.flip(1), references * 0.9], dim=1)
    spec = TaskSpec("s", "t", "image", 2, (1, 8, 8), "sum", ("a", "a"), "permutation", (0, 1))
    assert by_truth(draws, references, spec).argmax(1).tolist() == [1, 1]
    ordered = TaskSpec("s", "t", "image", 2, (1, 8, 8), "sum", ("a", "b"), "ordered", (0, 1))
    assert by_truth(draws, references, ordered).argmax(1).tolist() == [2, 2]


def test_the_mean_of_a_mode_ignores_other_modes_and_undoes_exchanged_sources() -> None:
    truth = torch.rand(3, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    wrong = torch.rand(3, 2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    offset = 0.1 * torch.rand(3, 2, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    draws = torch.stack([truth + offset, (truth - offset).flip(1), wrong], dim=1)
    criterion = torch.tensor([[0.0, -1e-9, -1e6]], dtype=torch.float64).expand(3, -1)
    torch.testing.assert_close(weighted_mean(draws, criterion, temperature=1.0, exchangeable=True), truth)
    as_they_stand = weighted_mean(draws, criterion, temperature=1.0, exchangeable=False)
    torch.testing.assert_close(as_they_stand, 0.5 * (draws[:, 0] + draws[:, 1]))
    some = weighted_mean(draws, criterion, temperature=1.0, exchangeable=torch.tensor([True, False, True]))
    torch.testing.assert_close(some, torch.stack([truth[0], as_they_stand[1], truth[2]]))


def test_the_mean_at_low_temperature_is_the_best_draw_and_nan_counts_for_nothing() -> None:
    draws = torch.rand(4, 5, 2, 3, generator=torch.Generator().manual_seed(0))
    criterion = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).double()
    criterion[:, 2] = torch.nan
    torch.testing.assert_close(weighted_mean(draws, criterion, 1e-6, exchangeable=True), select(draws, criterion))
    warm = weighted_mean(draws, criterion, 1.0, exchangeable=False)
    assert bool(torch.isfinite(warm).all())
    draws[:, 2] = torch.nan
    torch.testing.assert_close(weighted_mean(draws, criterion, 1.0, exchangeable=False), warm)


def test_denoising_losses_by_hand() -> None:
    """Priors N(mean, spread^2) of single numbers, so that D is linear; each source is judged by its own prior, each level over its own variance."""
    means, spreads, sigmas, repeats = (0.2, 0.9), (0.3, 0.5), (0.1, 0.7), 2
    one = torch.ones(1, dtype=torch.float64)
    priors = [GaussianMixture(one, one[:, None] * m, one[:, None, None] * s**2) for m, s in zip(means, spreads, strict=True)]
    ids = torch.tensor([8, 3, 5])
    draws = torch.rand(3, 4, 2, 1, generator=torch.Generator().manual_seed(0))
    probes, wanted = NoiseSource(6).fork(7001), torch.zeros(3, 4, dtype=torch.float64)
    for b in range(3):
        for n in range(4):
            for k in range(2):
                x = float(draws[b, n, k, 0])
                for level, sigma in enumerate(sigmas):
                    for repeat in range(repeats):
                        noisy = x + sigma * float(probes.normal(ids[b : b + 1], level, repeat, (1,)))
                        clean = (sigma**2 * means[k] + spreads[k] ** 2 * noisy) / (sigma**2 + spreads[k] ** 2)
                        wanted[b, n] -= (x - clean) ** 2 / sigma**2 / repeats
    mixtures = Mixtures(draws[:, 0].sum(1), ids, make_operator("sum", 2))
    torch.testing.assert_close(by_denoising_loss(draws, priors, mixtures, NoiseSource(6), sigmas, repeats), wanted, atol=1e-5, rtol=1e-5)


def test_mixture_error_and_log_prior_by_hand() -> None:
    """Every example has gains of its own, which all its draws share."""
    gains = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 0.1]])
    operator = make_operator("gain", 2, gains=gains)
    draws = torch.rand(3, 4, 2, 5, generator=torch.Generator().manual_seed(0))
    mixtures = Mixtures(torch.rand(3, 5, generator=torch.Generator().manual_seed(1)), torch.arange(3), operator)
    predicted = (gains[:, None, :, None] * draws).sum(2)
    wanted = -(mixtures.values[:, None] - predicted).double().square().mean(2).sqrt()
    torch.testing.assert_close(by_mixture_error(draws, mixtures), wanted, atol=1e-6, rtol=1e-6)
    logs = by_log_prior(draws, lambda sources: sources.sum(2) * torch.tensor([1.0, 10.0]))
    torch.testing.assert_close(logs, (draws.sum(3) * torch.tensor([1.0, 10.0])).sum(2).double())


def test_a_prior_for_all_sources_and_one_for_each_are_told_apart_and_parts_of_a_batch_are_joined() -> None:
    """130 candidates are more than a CPU takes at a time; every source is judged by its own prior, or all by the only one."""
    one = torch.ones(1, dtype=torch.float64)
    priors = [GaussianMixture(one, one[:, None] * mean, one[:, None, None] * 0.04) for mean in (0.0, 1.0)]
    draws = torch.rand(65, 2, 2, 1, generator=torch.Generator().manual_seed(3))
    mixtures = Mixtures(draws[:, 0].sum(1), torch.arange(65) * 3, make_operator("sum", 2))

    def alone(prior: GaussianMixture, k: int) -> torch.Tensor:
        ids = mixtures.example_ids.repeat_interleave(2)
        return -denoising_losses(prior, draws[:, :, k].flatten(0, 1), ids, NoiseSource(1), (0.2,)).unflatten(0, (65, 2))

    apart = by_denoising_loss(draws, priors, mixtures, NoiseSource(1), (0.2,))
    torch.testing.assert_close(apart, alone(priors[0], 0) + alone(priors[1], 1))
    shared = by_denoising_loss(draws, priors[:1], mixtures, NoiseSource(1), (0.2,))
    torch.testing.assert_close(shared, alone(priors[0], 0) + alone(priors[0], 1))
    assert not torch.allclose(apart, shared)


def test_the_oracle_looks_at_the_scored_slots_alone() -> None:
    references = torch.rand(1, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    first, second = references.clone(), references.clone()
    first[:, 1], second[:, 0] = 0.0, 0.0
    draws = torch.stack([first, second], dim=1)
    for scored, best in (((0,), 0), ((1,), 1)):
        spec = TaskSpec("s", "t", "image", 2, (1, 8, 8), "sum", ("a", "b"), "ordered", scored)
        assert by_truth(draws, references, spec).argmax(1).tolist() == [best]
        assert by_truth(draws, references, spec, "ssim").argmax(1).tolist() == [best]
        assert by_truth(draws, references, spec).dtype == torch.float64


def test_weights_of_draws_by_hand() -> None:
    """A criterion that is lower by three temperatures' logarithm counts a third; sources that are exchanged count where they stand."""
    draws = torch.tensor([[[[4.0], [0.0]], [[8.0], [4.0]]]])
    criterion = torch.tensor([[0.0, -2.0 * math.log(3.0)]], dtype=torch.float64)
    found = weighted_mean(draws, criterion, temperature=2.0, exchangeable=False)
    torch.testing.assert_close(found, torch.tensor([[[5.0], [1.0]]]))
    assert found.dtype == torch.float32


def test_where_every_criterion_is_lost_the_first_draw_is_taken() -> None:
    draws = torch.arange(6.0).reshape(1, 3, 2, 1)
    assert torch.equal(select(draws, torch.full((1, 3), math.nan)), draws[:, 0])


def test_the_oracle_takes_the_mean_over_scored_slots_of_a_metric_of_either_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a distance, the smallest is best; the value is minus its mean."""

    def pairwise(estimates: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        return (estimates[:, :, None] - references[:, None]).abs().flatten(3).mean(3).double()

    def metric(name: str, spec: TaskSpec) -> SimpleNamespace:
        asked.append((name, spec.name))
        return SimpleNamespace(pairwise=pairwise, info=SimpleNamespace(higher_is_better=False))

    asked: list[tuple[str, str]] = []
    monkeypatch.setattr("sepbench.selection.pair_metric", metric)
    references = torch.tensor([[[0.0], [10.0]], [[5.0], [7.0]]])
    draws = torch.tensor([[[[1.0], [14.0]], [[10.5], [0.0]]], [[[5.0], [7.0]], [[8.0], [5.0]]]])
    found = {}
    for assignment in ("ordered", "permutation"):
        spec = TaskSpec("s", "t", "vector", 2, (1,), "sum", ("a", "a"), assignment, (0, 1))  # type: ignore[arg-type]
        found[assignment] = by_truth(draws, references, spec, "distance").tolist()
    assert found == {"ordered": [[-2.5, -10.25], [0.0, -2.5]], "permutation": [[-2.5, -0.25], [0.0, -0.5]]}
    assert by_truth(draws, references, TaskSpec("s", "t", "vector", 2, (1,), "sum", ("a", "a"), "ordered", (1,))).tolist() == [[-4.0, -10.0], [0.0, -2.0]]
    assert asked == [("distance", "t"), ("distance", "t"), ("psnr", "t")]


def test_a_loss_is_the_mean_over_repeats_and_the_sum_over_levels() -> None:
    prior = _prior(2)
    x, ids, noise = prior.sample(NoiseSource(0), torch.arange(3), 0, 0).float(), torch.tensor([4, 5, 6]), NoiseSource(1)

    def one(level: int, repeat: int, sigma: float) -> torch.Tensor:
        n = noise.fork(7001).normal(ids, level, repeat, (2,))
        return (x - prior.denoise(x + sigma * n, sigma)).double().square().sum(1) / sigma**2

    expected = one(0, 0, 0.2) + one(1, 0, 0.4) + one(0, 1, 0.2) + one(1, 1, 0.4)
    torch.testing.assert_close(denoising_losses(prior, x, ids, noise, (0.2, 0.4), repeats=2), expected / 2)
    torch.testing.assert_close(denoising_losses(prior, x, ids, noise, (0.2, 0.4)), one(0, 0, 0.2) + one(1, 0, 0.4))
