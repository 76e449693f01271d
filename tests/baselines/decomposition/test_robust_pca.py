"""Principal component pursuit: recovers what theory says it recovers, equals the plain algorithm, also with the fast shrinkage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from method_toys import digit_mixtures, generator
from sound_toys import RATE, mixed, sounds

from baselines.decomposition.robust_pca import robust_pca, soft_threshold
from baselines.decomposition.shrinkage import WarmShrinkage
from sepbench.stft import Stft

Array = np.ndarray


def planted(batch: int, rows: int, columns: int, rank: int, density: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Low rank by Gaussian factors and a sparse part of random signs on a random support, as in Candes et al. 2011, sec. 4.1."""
    g = generator(seed)
    left = torch.randn(batch, rows, rank, generator=g, dtype=torch.float64) / math.sqrt(rows)
    right = torch.randn(batch, rank, columns, generator=g, dtype=torch.float64) / math.sqrt(columns)
    support = torch.rand(batch, rows, columns, generator=g) < density
    signs = torch.randint(0, 2, (batch, rows, columns), generator=g).double() * 2 - 1
    return left @ right, torch.where(support, signs, 0.0)


def plain_rpca(data: Array, growth: float, eps_1: float, eps_2: float, sparsity: float = 1.0, most: int = 300) -> tuple[Array, Array, int]:
    """Algorithm 5 of Lin, Chen and Ma for one matrix, with a full SVD."""
    weight = sparsity / math.sqrt(max(data.shape))
    norm, spectral = np.linalg.norm(data), np.linalg.norm(data, 2)
    multiplier = data / max(spectral, np.abs(data).max() / weight)
    sparse, mu = np.zeros_like(data), 1.25 / spectral
    iteration = 0
    while iteration < most:
        iteration += 1
        u, s, vt = np.linalg.svd(data - sparse + multiplier / mu, full_matrices=False)
        low_rank = u @ np.diag(np.maximum(s - 1 / mu, 0)) @ vt
        target = data - low_rank + multiplier / mu
        old, sparse = sparse, np.sign(target) * np.maximum(np.abs(target) - weight / mu, 0)
        multiplier = multiplier + mu * (data - low_rank - sparse)
        slow = min(mu, math.sqrt(mu)) * np.linalg.norm(sparse - old) < eps_2 * norm
        if np.linalg.norm(data - low_rank - sparse) < eps_1 * norm:
            break
        mu = growth * mu if slow else mu
    return low_rank, sparse, iteration


@pytest.mark.parametrize(("rows", "columns", "rank", "density"), [(60, 60, 3, 0.05), (60, 60, 3, 0.1), (50, 80, 2, 0.1), (80, 50, 2, 0.1)])
def test_planted_parts_are_recovered(rows: int, columns: int, rank: int, density: float) -> None:
    low_rank, sparse = planted(3, rows, columns, rank, density, seed=1)
    found = robust_pca(low_rank + sparse)
    assert bool(found.converged.all())
    for b in range(3):
        assert torch.linalg.norm(found.low_rank[b] - low_rank[b]) < 1e-3 * torch.linalg.norm(low_rank[b])
        assert torch.linalg.norm(found.sparse[b] - sparse[b]) < 1e-3 * torch.linalg.norm(sparse[b])


def test_outside_the_guarantee_nothing_is_recovered() -> None:
    """Half the entries corrupted at rank n/3: if this were recovered too, the test above would prove nothing."""
    low_rank, sparse = planted(1, 30, 30, 10, 0.5, seed=2)
    found = robust_pca(low_rank + sparse)
    assert torch.linalg.norm(found.low_rank - low_rank) > 0.1 * torch.linalg.norm(low_rank)


@pytest.mark.parametrize("eps_2", [1e-3, math.inf])
def test_equals_the_plain_algorithm_per_matrix(eps_2: float) -> None:
    low_rank, sparse = planted(4, 14, 20, 2, 0.1, seed=3)
    batches = [low_rank + sparse, digit_mixtures(40)[:, 0].double()]
    for matrices in batches:
        found = robust_pca(matrices, growth=1.5, penalty_tolerance=eps_2)
        for b, matrix in enumerate(matrices.numpy()):
            wanted_low, wanted_sparse, iterations = plain_rpca(matrix, 1.5, 1e-7, eps_2)
            assert int(found.iterations[b]) == iterations
            np.testing.assert_allclose(found.low_rank[b].numpy(), wanted_low, atol=1e-6)
            np.testing.assert_allclose(found.sparse[b].numpy(), wanted_sparse, atol=1e-6)


def test_the_faster_penalty_rule_reaches_the_papers_objective() -> None:
    """The default eps_2 is 1e-3 for speed; the paper's 1e-5 must not find a better optimum worth the name."""
    images = digit_mixtures(30)[:, 0]

    def objective(eps_2: float) -> torch.Tensor:
        found = robust_pca(images, penalty_tolerance=eps_2, max_iterations=2000)
        return torch.linalg.svdvals(found.low_rank).sum(-1) + found.sparse.abs().sum((1, 2)) / math.sqrt(8)

    ratio = objective(1e-3) / objective(1e-5)
    assert float((ratio - 1).abs().max()) < 1e-3


def test_soft_threshold() -> None:
    values = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0])
    torch.testing.assert_close(soft_threshold(values, torch.tensor(1.0)), torch.tensor([-2.0, 0.0, 0.0, 0.0, 2.0]))


def test_each_matrix_stops_by_itself() -> None:
    """Easy and hard matrices, and a matrix of zeros, in one batch: the same as alone."""
    low_rank, sparse = planted(3, 12, 12, 1, 0.05, seed=4)
    noise = torch.randn(3, 12, 12, generator=generator(5), dtype=torch.float64)
    matrices = torch.cat([low_rank + sparse, noise, torch.zeros(1, 12, 12, dtype=torch.float64)])
    together = robust_pca(matrices)
    assert len(together.iterations.unique()) > 2
    for b in range(len(matrices)):
        alone = robust_pca(matrices[b : b + 1])
        assert int(alone.iterations[0]) == int(together.iterations[b])
        torch.testing.assert_close(alone.low_rank[0], together.low_rank[b], atol=1e-9, rtol=0)
    assert bool((together.low_rank[-1] == 0).all())
    assert bool((together.sparse[-1] == 0).all())


def test_scale_does_not_matter() -> None:
    matrices = digit_mixtures(10)[:, 0].double()
    torch.testing.assert_close(robust_pca(1e4 * matrices, penalty_tolerance=math.inf).sparse / 1e4, robust_pca(matrices, penalty_tolerance=math.inf).sparse)


def test_an_early_end_is_told() -> None:
    found = robust_pca(digit_mixtures(5)[:, 0], max_iterations=3)
    assert not bool(found.converged.any())
    assert found.iterations.tolist() == [3] * 5
    assert bool(torch.isfinite(found.low_rank).all())


def test_an_empty_batch_is_fine() -> None:
    assert tuple(robust_pca(torch.zeros(0, 5, 7)).low_rank.shape) == (0, 5, 7)


def test_the_fast_scheme_is_the_plain_one() -> None:
    spectrograms = Stft.at(RATE).forward(mixed(sounds(3)).values[:, 0]).abs()
    plain = robust_pca(spectrograms, growth=1.5, penalty_tolerance=math.inf, tolerance=1e-5)
    fast = robust_pca(spectrograms, growth=1.5, penalty_tolerance=math.inf, tolerance=1e-5, shrinkage=WarmShrinkage())
    assert bool(fast.converged.all())
    assert int((fast.iterations - plain.iterations).abs().max()) <= 1
    assert float((fast.low_rank - plain.low_rank).norm() / plain.low_rank.norm()) < 2e-3


def test_in_float32_the_fast_scheme_finds_the_same_parts() -> None:
    """Down to the tolerance at which spectrograms end; Gram matrices in float32 would lose what is below 3e-4 of the largest singular value."""
    spectrograms = Stft.at(RATE).forward(mixed(sounds(3)).values[:, 0]).abs()
    plain = robust_pca(spectrograms, growth=1.5, penalty_tolerance=math.inf, tolerance=1e-4)
    single = robust_pca(spectrograms, growth=1.5, penalty_tolerance=math.inf, tolerance=1e-4, precision=torch.float32, shrinkage=WarmShrinkage())
    assert single.low_rank.dtype == torch.float32
    assert bool(single.converged.all())
    assert float((single.low_rank - plain.low_rank).norm() / plain.low_rank.norm()) < 2e-3


OPTIONS: list[dict[str, float]] = [{}, {"sparsity": 0.6}, {"growth": 2.5}, {"tolerance": 1e-3}, {"penalty_tolerance": 1e-1}, {"max_iterations": 4}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("high", [False, True])
def test_every_option_reaches_the_algorithm_also_of_a_matrix_that_is_higher_than_wide(options: dict[str, float], high: bool) -> None:
    low_rank, sparse = planted(2, 9, 15, 2, 0.2, seed=6)
    matrices = (low_rank + sparse).mT if high else low_rank + sparse
    found = robust_pca(matrices, **options)  # type: ignore[arg-type]
    told = {"growth": 1.6, "tolerance": 1e-7, "penalty_tolerance": 1e-3, "sparsity": 1.0, "max_iterations": 300} | options
    for b, matrix in enumerate(matrices.numpy()):
        limits = told["growth"], told["tolerance"], told["penalty_tolerance"], told["sparsity"], int(told["max_iterations"])
        wanted_low, wanted_sparse, iterations = plain_rpca(matrix, *limits)
        assert (int(found.iterations[b]), bool(found.converged[b])) == (iterations, "max_iterations" not in options)
        np.testing.assert_allclose(found.low_rank[b].numpy(), wanted_low, atol=1e-7)
        np.testing.assert_allclose(found.sparse[b].numpy(), wanted_sparse, atol=1e-7)


@pytest.mark.parametrize("shape", [(1, 6, 9), (1, 9, 6)])
def test_precision_and_shrinkage_are_those_that_are_asked_for(shape: tuple[int, ...]) -> None:
    calls: list[tuple[tuple[int, ...], torch.dtype, torch.dtype]] = []

    class Watched(WarmShrinkage):
        def __call__(self, matrices: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
            calls.append((tuple(matrices.shape), matrices.dtype, threshold.dtype))
            return super().__call__(matrices, threshold)

    values = torch.rand(shape, generator=generator(7))
    plain = robust_pca(values)
    assert (plain.low_rank.dtype, plain.sparse.dtype, plain.iterations.dtype) == (torch.float64, torch.float64, torch.int64)
    found = robust_pca(values, precision=torch.float32, shrinkage=Watched(), max_iterations=2)
    assert calls == [((1, 6, 9), torch.float32, torch.float32)] * 2
    assert (found.low_rank.shape, found.sparse.dtype) == (shape, torch.float32)


def test_a_matrix_of_zeros_is_done_before_it_begins() -> None:
    found = robust_pca(torch.zeros(2, 3, 5))
    assert (found.iterations.tolist(), found.converged.tolist()) == ([0, 0], [True, True])
