"""Robust PCA: recovers what theory says it recovers, equals the plain algorithm, and hands out estimates that explain the mixture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from baselines.decomposition.parts import estimates_from_parts
from baselines.rpca import RobustPCA, robust_pca, soft_threshold
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import MixingOperator, Mixtures, RunContext, Separator, TaskSpec

Array = np.ndarray


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def task(shape: tuple[int, ...] = (1, 8, 8), operator: str = "sum", n_sources: int = 2, domain: str = "image") -> TaskSpec:
    return TaskSpec("suite", "task", domain, n_sources, shape, operator, ("any",) * n_sources, "permutation", tuple(range(n_sources)))


def separate(method: RobustPCA, values: torch.Tensor, operator: MixingOperator) -> torch.Tensor:
    ctx = RunContext(task(tuple(values.shape[1:]), operator.name), "cpu", NoiseSource(0), 0)
    return method.separate(Mixtures(values, torch.arange(len(values)), operator), ctx)


def operator_named(name: str, batch: int, n_sources: int = 2) -> MixingOperator:
    gains = torch.rand(batch, n_sources, generator=generator(5)) + 0.25
    return make_operator(name, n_sources, gains=gains if name == "gain" else None)


def planted(batch: int, rows: int, columns: int, rank: int, density: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Low rank by Gaussian factors and a sparse part of random signs on a random support, as in Candes et al. 2011, sec. 4.1."""
    g = generator(seed)
    left = torch.randn(batch, rows, rank, generator=g, dtype=torch.float64) / math.sqrt(rows)
    right = torch.randn(batch, rank, columns, generator=g, dtype=torch.float64) / math.sqrt(columns)
    support = torch.rand(batch, rows, columns, generator=g) < density
    signs = torch.randint(0, 2, (batch, rows, columns), generator=g).double() * 2 - 1
    return left @ right, torch.where(support, signs, 0.0)


def digit_mixtures(count: int) -> torch.Tensor:
    images = torch.from_numpy(load_digits().images / 16.0).float().unsqueeze(1)
    return images[:count] + images[count : 2 * count]


def plain_rpca(data: Array, growth: float, eps_1: float, eps_2: float) -> tuple[Array, Array, int]:
    """Algorithm 5 of Lin, Chen and Ma for one matrix, with a full SVD."""
    weight = 1.0 / math.sqrt(max(data.shape))
    norm, spectral = np.linalg.norm(data), np.linalg.norm(data, 2)
    multiplier = data / max(spectral, np.abs(data).max() / weight)
    sparse, mu = np.zeros_like(data), 1.25 / spectral
    iteration = 0
    while iteration < 300:
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


# --- the kernel -----------------------------------------------------------------------------------------------------------------


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


# --- the separator --------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["sum", "mean", "gain"]), st.integers(1, 3), st.sampled_from([1, 3]), st.integers(2, 11), st.integers(2, 11), st.integers(0, 100))
def test_estimates_mix_to_the_mixture(name: str, batch: int, channels: int, height: int, width: int, seed: int) -> None:
    values = 2 * torch.rand(batch, channels, height, width, generator=generator(seed))
    operator = operator_named(name, batch)
    estimates = separate(RobustPCA(max_iterations=20), values, operator)
    assert tuple(estimates.shape) == (batch, 2, channels, height, width)
    assert estimates.dtype == torch.float32
    torch.testing.assert_close(operator.forward(estimates), values, atol=2e-6, rtol=0)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (1, 32, 32), (3, 32, 32), (3, 64, 64)])
def test_the_benchmarks_image_sizes(shape: tuple[int, ...]) -> None:
    values = 2 * torch.rand(2, *shape, generator=generator(6))
    estimates = separate(RobustPCA(), values, make_operator("sum", 2))
    assert bool(torch.isfinite(estimates).all())
    torch.testing.assert_close(estimates.sum(1), values, atol=2e-6, rtol=0)


def test_source_0_is_the_low_rank_part_of_rows_by_channels_and_columns() -> None:
    values = torch.rand(2, 3, 10, 6, generator=generator(7))
    estimates = separate(RobustPCA(), values, make_operator("mean", 2))
    matrices = torch.stack([torch.cat([values[b, c] for c in range(3)], dim=1) for b in range(2)])
    found = robust_pca(matrices)
    for c in range(3):
        wanted = torch.stack([found.low_rank, found.sparse], 1)[..., 6 * c : 6 * c + 6] * 2  # weight 1/2
        torch.testing.assert_close(estimates[:, :, c].double(), wanted, atol=1e-5, rtol=0)


def test_batch_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = digit_mixtures(6)
    operator = operator_named("gain", 6)
    together = separate(RobustPCA(), values, operator)
    singly = torch.cat([separate(RobustPCA(), values[b : b + 1], operator.select(torch.tensor([b]))) for b in range(6)])
    torch.testing.assert_close(singly, together, atol=1e-6, rtol=0)
    monkeypatch.setattr("baselines.rpca._CHUNK_ELEMENTS", 4 * 64)
    torch.testing.assert_close(separate(RobustPCA(), values, operator), together, atol=1e-6, rtol=0)


def test_mixtures_are_left_alone() -> None:
    values = digit_mixtures(3)
    before = values.clone()
    separate(RobustPCA(), values, make_operator("sum", 2))
    assert torch.equal(values, before)


def test_a_source_of_weight_zero_gets_nothing() -> None:
    operator = make_operator("gain", 2, gains=[[1.0, 0.0], [0.5, 2.0]])
    values = torch.rand(2, 1, 4, 4, generator=generator(8), dtype=torch.float64)
    estimates = estimates_from_parts(torch.stack([0.25 * values, 0.75 * values], 1), values, operator)
    torch.testing.assert_close(operator.forward(estimates), values)
    assert bool((estimates[0, 1] == 0).all())
    torch.testing.assert_close(estimates[0, 0], values[0])
    torch.testing.assert_close(estimates[1], torch.stack([0.5 * values[1], 0.375 * values[1]]))


def test_what_it_says_of_itself() -> None:
    method = RobustPCA()
    assert isinstance(method, Separator)
    assert (method.info.name, method.info.supervision, method.info.deterministic) == ("rpca", "blind", True)
    assert method.supports(task()).ok
    assert "degenerate" in method.supports(task()).note


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (task(n_sources=4), "4 sources"),
        (task(operator="channel-mean", n_sources=1), "channel-mean"),
        (task(shape=(1, 8000), domain="audio"), "audio"),
        (task(shape=(16,), domain="vector"), "vector"),
    ],
)
def test_what_it_refuses(spec: TaskSpec, reason: str) -> None:
    support = RobustPCA().supports(spec)
    assert not support.ok
    assert reason in support.note


@pytest.mark.parametrize("wrong", [{"sparsity": 0.0}, {"growth": 1.0}, {"tolerance": 0.0}, {"penalty_tolerance": -1.0}, {"max_iterations": 0}])
def test_settings_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        RobustPCA(**wrong)
