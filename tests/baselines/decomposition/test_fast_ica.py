"""Whitening and FastICA: planted sources are found, steps equal scikit-learn's, rounding errors do not decide."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from method_toys import digit_mixtures, generator
from sklearn.decomposition import FastICA

from baselines.decomposition import fast_ica as module
from baselines.decomposition.fast_ica import decorrelate, eigen_on_host, fast_ica, principal_directions, symmetric_eigen, whiten
from baselines.decomposition.patches import unfold_patches


def planted(batch: int, samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Observations ``(B, 4, n)`` of four independent sources (two peaked, two flat) through a random mixing matrix ``(B, 4, 4)``."""
    g = generator(seed)
    peaked = torch.randn(batch, 2, samples, generator=g, dtype=torch.float64) ** 3
    flat = torch.rand(batch, 2, samples, generator=g, dtype=torch.float64) - 0.5
    mixing = torch.randn(batch, 4, 4, generator=g, dtype=torch.float64)
    return mixing @ torch.cat([peaked / peaked.std(-1, keepdim=True), flat / flat.std(-1, keepdim=True)], 1), mixing


def amari(gain: torch.Tensor) -> float:
    """Amari, Cichocki and Yang (1996): 0 if the matrix is a scaled permutation, at most 1."""
    gain = gain.abs()
    size = gain.shape[-1]
    rows = (gain.sum(1) / gain.amax(1) - 1).sum()
    columns = (gain.sum(0) / gain.amax(0) - 1).sum()
    return float((rows + columns) / (2 * size * (size - 1)))


def test_planted_sources_are_found() -> None:
    observations, mixing = planted(5, 8000, seed=1)
    whitening = whiten(observations)
    found = fast_ica(whitening.white)
    assert bool(found.converged.all())
    for b in range(5):
        assert amari(found.matrix[b] @ whitening.matrix[b] @ mixing[b]) < 0.02
        assert amari(whitening.matrix[b] @ mixing[b]) > 0.1  # whitening alone does not do it


@pytest.mark.parametrize("plain_steps", [500, 5])
def test_agrees_with_scikit_learn(plain_steps: int) -> None:
    """Stabilised steps lead to the same answer as plain ones."""
    observations, _ = planted(3, 3000, seed=2)
    white = whiten(observations).white
    found = fast_ica(white, plain_steps=plain_steps, tolerance=1e-14, max_iterations=500)
    assert bool(found.converged.all())
    for b in range(3):
        theirs = FastICA(whiten=False, algorithm="parallel", fun="logcosh", w_init=np.eye(4), tol=1e-12, max_iter=500)
        wanted = theirs.fit_transform(white[b].numpy().T).T
        correlation = np.abs(np.corrcoef(wanted, (found.matrix[b] @ white[b]).numpy())[:4, 4:])
        np.testing.assert_allclose(correlation.max(0), 1.0, atol=1e-8)
        assert sorted(correlation.argmax(0)) == [0, 1, 2, 3]


def test_equals_scikit_learn_step_by_step_on_images() -> None:
    """On patches of digits too, after equally many steps; there the problem has no planted answer."""
    white = whiten(unfold_patches(digit_mixtures(3).double(), 4), 6).white
    found = fast_ica(white, plain_steps=5, max_iterations=5, tolerance=1e-15)
    for b in range(3):
        theirs = FastICA(whiten=False, algorithm="parallel", fun="logcosh", w_init=np.eye(6), tol=1e-15, max_iter=5)
        with pytest.warns(Warning, match="did not converge"):
            theirs.fit(white[b].numpy().T)
        np.testing.assert_allclose(found.matrix[b].abs().numpy(), np.abs(theirs.components_), atol=1e-7)


def test_unmixing_matrices_are_orthogonal_and_a_start_can_be_given() -> None:
    white = whiten(planted(3, 500, seed=3)[0]).white
    start = torch.randn(3, 4, 4, generator=generator(4), dtype=torch.float64)
    for found in (fast_ica(white).matrix, fast_ica(white, start, max_iterations=2).matrix, decorrelate(start)):
        torch.testing.assert_close(found @ found.mT, torch.eye(4, dtype=torch.float64).expand(3, 4, 4), atol=1e-10, rtol=0)


def test_each_example_stops_by_itself() -> None:
    observations, _ = planted(6, 1000, seed=5)
    observations[3] = torch.randn(4, 1000, generator=generator(6), dtype=torch.float64)  # Gaussian: nothing to find, slow
    white = whiten(observations).white
    together = fast_ica(white, max_iterations=60)
    assert len(together.iterations.unique()) > 1
    for b in range(6):
        alone = fast_ica(white[b : b + 1], max_iterations=60)
        assert int(alone.iterations[0]) == int(together.iterations[b])
        torch.testing.assert_close(alone.matrix[0], together.matrix[b], atol=1e-8, rtol=0)


@pytest.mark.parametrize("look_every", [2, 7, 1000])
def test_how_often_it_looks_changes_nothing(look_every: int) -> None:
    observations, _ = planted(6, 1000, seed=5)
    observations[3] = torch.randn(4, 1000, generator=generator(6), dtype=torch.float64)
    white = whiten(observations).white
    for iterations in (3, 20, 60):
        always, rarely = (fast_ica(white, max_iterations=iterations, look_every=every) for every in (1, look_every))
        assert torch.equal(always.iterations, rarely.iterations)
        assert torch.equal(always.converged, rarely.converged)
        torch.testing.assert_close(rarely.matrix, always.matrix, atol=1e-10, rtol=0)


@pytest.mark.parametrize(("count", "workers"), [(5, 1), (5, 2), (3, 16)])
def test_eigenvectors_from_several_threads_are_those_of_one(count: int, workers: int) -> None:
    matrices = torch.randn(count, 40, 40, generator=generator(9), dtype=torch.float64)
    matrices = matrices @ matrices.mT
    for found, wanted in zip(eigen_on_host(matrices, workers), torch.linalg.eigh(matrices), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-10, rtol=0)


def test_rounding_errors_do_not_decide() -> None:
    """Plain FastICA jumps about on few samples: a change of 1e-12 then changes everything, and a batch of another size would too."""
    images = digit_mixtures(80).double()
    white = whiten(unfold_patches(images, 8), 8).white
    nearby = white + 1e-12 * torch.randn(white.shape, generator=generator(10), dtype=torch.float64)

    def moved(plain_steps: int) -> torch.Tensor:
        first, second = (fast_ica(z, plain_steps=plain_steps, max_iterations=100).matrix for z in (white, nearby))
        return 1 - (first * second).sum(-1).abs().amin(-1)

    assert float(moved(plain_steps=5).max()) < 1e-9
    assert float(moved(plain_steps=100).max()) > 1e-3


def test_whitening_is_white_and_can_be_undone() -> None:
    observations, _ = planted(3, 700, seed=7)
    found = whiten(observations + 5.0, ridge=0.0)
    covariance = found.white @ found.white.mT / 700
    torch.testing.assert_close(covariance, torch.eye(4, dtype=torch.float64).expand(3, 4, 4), atol=1e-9, rtol=0)
    centred = observations - observations.mean(-1, keepdim=True)
    torch.testing.assert_close(found.inverse @ found.white, centred, atol=1e-9, rtol=0)


def test_whitening_keeps_the_directions_of_most_variance_and_survives_none() -> None:
    observations = torch.randn(1, 3, 500, generator=generator(8), dtype=torch.float64) * torch.tensor([[[1.0], [10.0], [0.0]]], dtype=torch.float64)
    found = whiten(observations, components=1)
    assert float(found.matrix[0, 0].abs().argmax()) == 1
    flat = whiten(torch.full((2, 3, 50), 0.7, dtype=torch.float64))
    assert bool(torch.isfinite(flat.white).all())
    assert bool(torch.isfinite(fast_ica(flat.white).matrix).all())


def written_out(
    white: np.ndarray, plain_steps: int, max_iterations: int, tolerance: float, start: np.ndarray | None = None
) -> tuple[np.ndarray, int, bool, float]:
    """FastICA of one example ``(d, n)`` with loops, as its docstring tells it; last the least sum of two curvatures that it met."""

    def orthogonal(matrix: np.ndarray) -> np.ndarray:
        left, _, right = np.linalg.svd(matrix)
        return np.asarray(left @ right)

    size = len(white)
    rows = np.eye(size) if start is None else orthogonal(start)
    signs, least = np.ones(size), np.inf
    for step in range(1, max_iterations + 1):
        responses = np.tanh(rows @ white)
        slopes = [float(np.mean(1 - responses[i] ** 2)) for i in range(size)]
        products = [[float(np.mean(responses[i] * (rows @ white)[j])) for j in range(size)] for i in range(size)]
        if step <= plain_steps:
            new = orthogonal(np.array([sum(products[i][j] * rows[j] for j in range(size)) - slopes[i] * rows[i] for i in range(size)]))
            turned = max(abs(abs(float(new[i] @ rows[i])) - 1) for i in range(size))
            signs = np.array([-1.0 if products[i][i] < slopes[i] else 1.0 for i in range(size)])
        else:
            turn = np.zeros((size, size))
            for i in range(size):
                for j in range(size):
                    curvature = signs[i] * (products[i][i] - slopes[i]) + signs[j] * (products[j][j] - slopes[j])
                    least = min(least, curvature)
                    turn[i, j] = (signs[i] * products[i][j] - signs[j] * products[j][i]) / max(curvature, 0.2)
            new = orthogonal(rows + 0.7 * turn @ rows)
            turned = max(float(np.sum(turn[i] ** 2)) for i in range(size)) / 2
        rows = new
        if turned < tolerance:
            return rows, step, True, least
    return rows, max_iterations, False, least


@pytest.mark.parametrize(
    ("plain_steps", "max_iterations", "tolerance", "started"),
    [(5, 200, 1e-4, False), (5, 200, 1e-6, True), (0, 25, 1e-9, True), (2, 7, 1e-3, False), (3, 2, 1e-9, False), (5, 5, 1e-1, False)],
)
def test_every_example_goes_as_the_algorithm_written_out_with_loops(plain_steps: int, max_iterations: int, tolerance: float, started: bool) -> None:
    observations = torch.cat([planted(3, 60, seed=11)[0], torch.randn(3, 4, 60, generator=generator(12), dtype=torch.float64)])
    white = whiten(observations).white
    start = torch.randn(6, 4, 4, generator=generator(13), dtype=torch.float64) if started else None
    found = fast_ica(white, start, plain_steps=plain_steps, max_iterations=max_iterations, tolerance=tolerance)
    least = []
    for b, one in enumerate(white.numpy()):
        rows, steps, converged, curvature = written_out(one, plain_steps, max_iterations, tolerance, None if start is None else start[b].numpy())
        assert (int(found.iterations[b]), bool(found.converged[b])) == (steps, converged)
        np.testing.assert_allclose(found.matrix[b].numpy(), rows, atol=1e-7)
        least.append(curvature)
    if max_iterations > 20:
        assert min(least) < 0.2, "the bound of the curvatures counts in some example"


def test_the_defaults_are_five_plain_steps_and_the_identity() -> None:
    white = whiten(planted(2, 80, seed=14)[0]).white
    found, told = fast_ica(white), fast_ica(white, torch.eye(4, dtype=torch.float64).expand(2, 4, 4), plain_steps=5, max_iterations=200, tolerance=1e-4)
    assert torch.equal(found.iterations, told.iterations)
    torch.testing.assert_close(found.matrix, told.matrix, atol=1e-12, rtol=0)
    none = fast_ica(white, max_iterations=0)
    assert torch.equal(none.matrix, torch.eye(4, dtype=torch.float64).expand(2, 4, 4))
    assert (none.iterations.tolist(), none.converged.tolist()) == ([0, 0], [False, False])
    assert fast_ica(white[:0]).matrix.shape == (0, 4, 4)


@pytest.mark.parametrize(("given", "of_device", "sizes"), [(1, 5, True), (1000, 1, False), (None, 1, True), (None, 1000, False)])
def test_finished_examples_are_removed_when_it_looks(given: int | None, of_device: int, sizes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    observations, _ = planted(4, 1000, seed=5)
    observations[3] = torch.randn(4, 1000, generator=generator(6), dtype=torch.float64)
    white, handled, response = whiten(observations).white, [], module._response
    monkeypatch.setattr(module, "LOOK_EVERY", {"cpu": of_device})
    monkeypatch.setattr(module, "_response", lambda unmixing, samples: (handled.append(len(unmixing)), response(unmixing, samples))[1])
    found = fast_ica(white, max_iterations=30, look_every=given)
    last = int(found.iterations.max())
    assert handled == ([int((found.iterations > step).sum()) for step in range(last)] if sizes else [4] * 30)


def test_whitening_by_hand() -> None:
    """Four samples with variances 4 and 1: with a ridge of a half, 2 is added to both."""
    observations = torch.tensor([[[3.0, 3.0, -1.0, -1.0], [6.0, 4.0, 6.0, 4.0]]], dtype=torch.float64)
    found = whiten(observations, ridge=0.5)
    torch.testing.assert_close(found.matrix.abs(), torch.tensor([[[6**-0.5, 0.0], [0.0, 3**-0.5]]], dtype=torch.float64))
    torch.testing.assert_close(found.inverse @ found.matrix, torch.eye(2, dtype=torch.float64)[None])
    torch.testing.assert_close(found.white.abs(), torch.tensor([[2 / 6**0.5], [1 / 3**0.5]], dtype=torch.float64).expand(1, 2, 4))
    one, more = whiten(observations, 1, 0.0), whiten(observations, 7, 0.0)
    assert (one.white.shape, one.inverse.shape, more.white.shape) == ((1, 1, 4), (1, 2, 1), (1, 2, 4))
    torch.testing.assert_close(one.inverse @ one.white, torch.tensor([[[2.0, 2.0, -2.0, -2.0], [0.0] * 4]], dtype=torch.float64))
    torch.testing.assert_close(whiten(1e4 * observations, ridge=0.5).white, found.white)


def test_a_variance_that_rounding_made_negative_is_none() -> None:
    covariance = torch.diag(torch.tensor([1.0, -1e-9], dtype=torch.float64)).expand(2, 2, 2)
    matrix, inverse = principal_directions(covariance, ridge=0.0)
    assert bool(matrix.isfinite().all())
    torch.testing.assert_close((inverse @ matrix), torch.eye(2, dtype=torch.float64).expand(2, 2, 2))
    assert float(inverse[0].abs().min(0).values.max()) == 0.0
    assert float(inverse[0, :, 1].abs().max()) < 1e-100


@pytest.mark.parametrize(
    ("device", "size", "cores", "workers"), [("cpu", 40, 3, None), ("cuda", 32, 3, None), ("cuda", 33, 3, 3), ("cuda", 40, None, 1), ("cpu", 8, 3, None)]
)
def test_large_matrices_of_a_gpu_go_to_all_cores(device: str, size: int, cores: int | None, workers: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(module, "eigen_on_host", lambda matrices, workers: (asked.append(workers), (1, 2))[1])
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrices: (asked.append(None), (1, 2))[1])
    assert symmetric_eigen(SimpleNamespace(device=SimpleNamespace(type=device), shape=(3, size, size))) == (1, 2)  # type: ignore[arg-type]
    assert asked == [workers]
