"""Non-negative least squares of many rows: scipy's answers, each row by itself, degenerate inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls as one_at_a_time

from baselines.decomposition import nnls as module
from baselines.decomposition.nnls import nnls


def problem(rows: int, atoms: int, pixels: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Non-negative atoms ``(R, D)`` and signals ``(N, D)`` that they do not explain exactly."""
    g = torch.Generator().manual_seed(seed)
    bases = torch.rand(atoms, pixels, generator=g, dtype=torch.float64) * (torch.rand(atoms, pixels, generator=g) < 0.5)
    return bases, torch.rand(rows, pixels, generator=g, dtype=torch.float64)


def by_scipy(bases: torch.Tensor, signals: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.stack([one_at_a_time(bases.T.numpy(), signal.numpy())[0] for signal in signals]))


@given(atoms=st.integers(1, 20), pixels=st.integers(20, 40), seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_every_row_is_what_scipy_finds(atoms: int, pixels: int, seed: int) -> None:
    bases, signals = problem(7, atoms, pixels, seed)
    found = nnls(bases @ bases.T, signals @ bases.T, tolerance=1e-10)
    torch.testing.assert_close(found @ bases, by_scipy(bases, signals) @ bases, atol=1e-6, rtol=0)


def test_codes_agree_where_they_are_unique() -> None:
    bases, signals = problem(200, 50, 300, seed=3)
    torch.testing.assert_close(nnls(bases @ bases.T, signals @ bases.T, tolerance=1e-9), by_scipy(bases, signals), atol=1e-6, rtol=0)


def test_the_tolerance_bounds_the_projected_gradient() -> None:
    bases, signals = problem(300, 30, 100, seed=1)
    gram, targets = bases @ bases.T, signals @ bases.T
    length = gram.diagonal().sqrt()
    worst = []
    for tolerance in (1e-2, 1e-4, 1e-8):
        codes = nnls(gram, targets, tolerance=tolerance)
        gradient = (codes @ gram - targets) / length
        projected = torch.where(codes > 0, gradient.abs(), (-gradient).clamp(min=0))
        share = projected.amax(1) / (targets / length).amax(1)
        assert share.max() <= 1.001 * tolerance
        worst.append(float(share.max()))
    assert worst[2] < worst[0] / 1e3


def test_more_atoms_than_pixels_is_optimal_still() -> None:
    bases, signals = problem(50, 40, 16, seed=2)
    found = nnls(bases @ bases.T, signals @ bases.T, tolerance=1e-9)
    torch.testing.assert_close(found @ bases, by_scipy(bases, signals) @ bases, atol=1e-5, rtol=0)


def test_a_row_does_not_know_its_batch() -> None:
    bases, signals = problem(64, 20, 50, seed=4)
    gram, targets = bases @ bases.T, signals @ bases.T
    whole = nnls(gram, targets)
    singly = torch.cat([nnls(gram, row[None]) for row in targets])
    torch.testing.assert_close(singly, whole, atol=1e-9, rtol=0)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_scale_of_atoms_and_signals_changes_nothing(scale: float) -> None:
    bases, signals = problem(20, 10, 30, seed=5)
    plain = nnls(bases @ bases.T, signals @ bases.T, tolerance=1e-9)
    scaled = bases * scale
    torch.testing.assert_close(nnls(scaled @ scaled.T, signals @ scaled.T, tolerance=1e-9) * scale, plain, atol=1e-7, rtol=0)


def test_a_start_leads_to_the_same_place() -> None:
    bases, signals = problem(20, 10, 30, seed=6)
    gram, targets = bases @ bases.T, signals @ bases.T
    far = torch.full_like(targets, 3.0)
    torch.testing.assert_close(nnls(gram, targets, tolerance=1e-10, start=far), nnls(gram, targets, tolerance=1e-10), atol=1e-7, rtol=0)


def test_zeros_are_solved_by_zeros() -> None:
    bases, signals = problem(5, 6, 20, seed=7)
    bases[2] = 0.0
    signals[3] = 0.0
    found = nnls(bases @ bases.T, signals @ bases.T)
    assert torch.equal(found[3], torch.zeros(6, dtype=torch.float64))
    assert torch.equal(found[:, 2], torch.zeros(5, dtype=torch.float64))
    against = nnls(bases @ bases.T, -torch.ones(2, 6, dtype=torch.float64))
    assert torch.equal(against, torch.zeros_like(against))


def test_the_limit_ends_it() -> None:
    bases, signals = problem(20, 30, 60, seed=8)
    gram, targets = bases @ bases.T, signals @ bases.T
    exact = nnls(gram, targets, tolerance=1e-9)
    errors = [float((nnls(gram, targets, tolerance=1e-9, limit=limit) - exact).abs().max()) for limit in (1, 30, 10_000)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] == 0.0


@pytest.mark.parametrize("limit", [1, 3, 10, 13])
@pytest.mark.parametrize("begun", [False, True])
def test_rows_that_run_out_of_iterations_are_where_they_came_to(limit: int, begun: bool) -> None:
    """Accelerated descent with restart by hand, in unknowns whose Gram matrix has a diagonal of ones; far too strict to be done by then."""
    random = np.random.default_rng(0)
    atoms, signals, start = random.random((4, 6)), random.random((3, 6)), random.random((3, 4))
    gram, scale = atoms @ atoms.T, np.sqrt(np.diag(atoms @ atoms.T))
    scaled = gram / np.outer(scale, scale)
    step = 1.0 / (1.001 * np.linalg.eigvalsh(scaled)[-1])
    expected = []
    for row, signal in enumerate(signals):
        goal = atoms @ signal / scale
        code = ahead = start[row] * scale if begun else np.zeros(4)
        t = 1.0
        for _ in range(limit):
            new = np.maximum(ahead + step * (goal - scaled @ ahead), 0.0)
            t = 1.0 if (ahead - new) @ (new - code) > 0 else t
            grown = (1.0 + np.sqrt(1.0 + 4.0 * t * t)) / 2.0
            ahead, code, t = new + (t - 1.0) / grown * (new - code), new, grown
        expected.append(code / scale)
    given, goals = torch.from_numpy(gram), torch.from_numpy(signals @ atoms.T)
    found = nnls(given, goals, tolerance=0.0, limit=limit, start=torch.from_numpy(start) if begun else None)
    np.testing.assert_allclose(found.numpy(), np.array(expected), atol=1e-12)
    assert torch.equal(
        nnls(given, goals, tolerance=1e9, start=torch.from_numpy(start)), nnls(given, goals, tolerance=0.0, limit=10, start=torch.from_numpy(start))
    )


def test_finished_rows_leave_and_rows_that_nothing_explains_are_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ten iterations there is a look, at the rows that are left."""
    looks: list[int] = []
    is_optimal = module._is_optimal

    def counted(gram: torch.Tensor, targets: torch.Tensor, codes: torch.Tensor, small: torch.Tensor) -> torch.Tensor:
        looks.append(len(codes))
        return is_optimal(gram, targets, codes, small)

    monkeypatch.setattr(module, "_is_optimal", counted)
    gram = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert torch.equal(nnls(gram, -torch.ones(2, 2, dtype=torch.float64)), torch.zeros(2, 2, dtype=torch.float64))
    assert looks == [2]
    looks.clear()
    hard = torch.tensor([[1.0, 0.999], [0.999, 1.0]], dtype=torch.float64)
    nnls(hard, torch.tensor([[-1.0, -1.0], [1.0, 0.9995], [-2.0, -1.0]], dtype=torch.float64), tolerance=1e-12, limit=25)
    assert looks == [3, 1, 1]
