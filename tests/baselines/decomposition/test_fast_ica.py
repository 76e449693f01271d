"""Whitening and FastICA: planted sources are found, steps equal scikit-learn's, rounding errors do not decide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from method_toys import digit_mixtures, generator
from sklearn.decomposition import FastICA

from baselines.decomposition.fast_ica import decorrelate, eigen_on_host, fast_ica, whiten
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
