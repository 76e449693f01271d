"""Best of N: criteria against closed forms."""

from __future__ import annotations

import math

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


def test_the_mean_at_low_temperature_is_the_best_draw_and_nan_counts_for_nothing() -> None:
    draws = torch.rand(4, 5, 2, 3, generator=torch.Generator().manual_seed(0))
    criterion = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).double()
    criterion[:, 2] = torch.nan
    torch.testing.assert_close(weighted_mean(draws, criterion, 1e-6, exchangeable=True), select(draws, criterion))
    warm = weighted_mean(draws, criterion, 1.0, exchangeable=False)
    assert bool(torch.isfinite(warm).all())
    draws[:, 2] = torch.nan
    torch.testing.assert_close(weighted_mean(draws, criterion, 1.0, exchangeable=False), warm)
