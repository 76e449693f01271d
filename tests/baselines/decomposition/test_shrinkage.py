"""Singular value thresholding: that of the SVD; the warm start changes nothing that counts and forgets nothing."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.decomposition.shrinkage import ExactShrinkage, WarmShrinkage, singular_value_threshold


def falling(batch: int, rows: int, columns: int, rate: float, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Matrices with singular values ``exp(-rate k)``, turned a little more with every seed."""
    g = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(batch, rows, rows, generator=g, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(batch, columns, rows, generator=g, dtype=torch.float64))
    rates = rate * (1 + 0.5 * torch.arange(batch, dtype=torch.float64)).unsqueeze(1)
    spectrum = torch.exp(-rates * torch.arange(rows, dtype=torch.float64)).unsqueeze(1)
    noise = 1e-3 * torch.randn(batch, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / columns**0.5
    return ((left * spectrum) @ right.mT + seed * noise).to(dtype)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(0, 6), st.floats(0.01, 3.0), st.floats(0.0, 9.0), st.integers(0, 1000))
def test_singular_value_threshold_is_that_of_the_svd(rows: int, extra: int, threshold: float, decades: float, seed: int) -> None:
    """Also for spectra that fall over many decades, where a Gram matrix loses the small ones."""
    g = torch.Generator().manual_seed(seed)
    u, _ = torch.linalg.qr(torch.randn(2, rows, rows, generator=g, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(2, rows + extra, rows, generator=g, dtype=torch.float64))
    spectrum = torch.logspace(0, -decades, rows, dtype=torch.float64)
    level = threshold * spectrum[rows // 2]
    wanted = (u * (spectrum - level).clamp(min=0.0)) @ v.mT
    found = singular_value_threshold((u * spectrum) @ v.mT, level.expand(2))
    assert float((found - wanted).abs().max()) < 1e-7


def test_a_falling_threshold_from_a_warm_start_is_exact_enough() -> None:
    """As robust PCA calls it: thresholds fall by 1.5, matrices move by 1e-3; two matrices of different rank, so different widths."""
    warm, dtype = WarmShrinkage(), torch.float64
    threshold = torch.tensor([0.7, 0.7], dtype=dtype)
    widths = set()
    for step in range(14):
        matrices = falling(2, 140, 200, 0.04, seed=step)
        found = warm(matrices, threshold)
        wanted = singular_value_threshold(matrices, threshold)
        assert float((found - wanted).abs().max()) < 0.02 * float(threshold[0])
        assert float((found - wanted).norm() / wanted.norm()) < 2e-3
        widths.update(warm._widths(140).tolist())
        threshold = threshold / 1.5
    assert {32, 64, 0} <= widths


def test_a_sudden_rank_falls_back_to_all_vectors() -> None:
    """The second matrix has far more above the threshold than a subspace from the first can hold: nothing may be lost."""
    warm = WarmShrinkage()
    warm(falling(1, 140, 200, 1.0), torch.tensor([0.5], dtype=torch.float64))
    assert warm._widths(140).tolist() == [32]
    flat, threshold = falling(1, 140, 200, 0.001), torch.tensor([0.3], dtype=torch.float64)
    torch.testing.assert_close(warm(flat, threshold), singular_value_threshold(flat, threshold), atol=1e-5, rtol=0)


def test_rows_that_stay_keep_their_memory() -> None:
    threshold = torch.tensor([0.3, 0.3, 0.3], dtype=torch.float64)
    first, second = falling(3, 80, 100, 0.1, 0), falling(3, 80, 100, 0.1, 1)
    together, alone = WarmShrinkage(), WarmShrinkage()
    together(first, threshold)
    alone(first[2:], threshold[2:])
    left = together.select(torch.tensor([False, False, True]))
    assert torch.equal(left(second[2:], threshold[2:] / 1.5), alone(second[2:], threshold[2:] / 1.5))
    assert WarmShrinkage().select(torch.tensor([True]))._vectors is None


def test_directions_without_energy_do_not_explode() -> None:
    """Rank one in float32, many calls: columns of rounding noise must not grow to infinity."""
    warm, matrix = WarmShrinkage(), torch.ones(1, 70, 90)
    for _ in range(5):
        found = warm(matrix, torch.tensor([1.0]))
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found, matrix * (1 - 1 / (70 * 90) ** 0.5), atol=1e-4, rtol=0)


def test_the_exact_one_has_no_memory() -> None:
    exact, matrices, threshold = ExactShrinkage(), falling(2, 9, 12, 0.5), torch.tensor([0.1, 0.2], dtype=torch.float64)
    assert exact.select(torch.tensor([True, False])) is exact
    assert torch.equal(exact(matrices, threshold), singular_value_threshold(matrices, threshold))


def test_float32_loses_rounding_and_no_small_singular_values() -> None:
    """A threshold of 1e-4: with a Gram matrix in float32, which resolves 3e-4, the error would be a hundred times larger."""
    matrices, threshold = falling(1, 140, 200, 0.2), torch.tensor([1e-4], dtype=torch.float64)
    wanted = singular_value_threshold(matrices, threshold)
    single, double = WarmShrinkage(), WarmShrinkage()
    for _ in range(3):  # all vectors first, then a subspace
        found = single(matrices.float(), threshold.float())
        assert found.dtype == torch.float32
        assert float((found - wanted).abs().max()) < 1e-6
        assert float((double(matrices, threshold) - wanted).abs().max()) < 1e-9
    assert single._widths(140).tolist() == double._widths(140).tolist() == [64]
    assert float((singular_value_threshold(matrices.float(), threshold.float()) - wanted).abs().max()) > 1e-5
