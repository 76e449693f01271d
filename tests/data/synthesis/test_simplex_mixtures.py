"""The closed-form distributions of synthetic suites: a regular simplex, and means and covariances made from it."""

from __future__ import annotations

import numpy as np
import pytest

from sepbench.data.synthesis import generated


@pytest.mark.parametrize("corners", [2, 3, 5])
def test_corners_of_a_simplex_are_equally_far_apart_on_the_sphere(corners: int) -> None:
    points = generated._simplex(corners)
    assert points.shape == (corners, corners - 1)
    assert np.allclose((points**2).sum(axis=1), 1.0)
    assert np.allclose(points.sum(axis=0), 0.0)
    inner = points @ points.T
    assert np.allclose(inner[~np.eye(corners, dtype=bool)], -1.0 / (corners - 1))


@pytest.mark.parametrize("dimension", sorted(generated._SIXTEENTHS))
@pytest.mark.parametrize("slot", [0, 1])
def test_a_mixture_on_a_simplex(dimension: int, slot: int) -> None:
    weights, means, covariances = generated._simplex_mixture(dimension, slot)
    assert weights.sum() == 1.0
    assert (weights > 0).all()
    assert covariances.shape == (len(weights), dimension, dimension)
    gaps = np.linalg.norm(means[:, None] - means[None], axis=2)[~np.eye(len(weights), dtype=bool)]
    edge = generated._CORNER * np.sqrt(dimension) * np.sqrt(2 + 2 / (len(weights) - 1))  # of a simplex on a sphere of that radius
    assert np.allclose(gaps, edge, atol=4 * generated._SIGNAL_GRID * np.sqrt(dimension))
    low, high = generated._COMPONENT_SPREAD
    for covariance in covariances:
        assert np.array_equal(covariance, covariance.T)
        values = np.sqrt(np.linalg.eigvalsh(covariance))
        assert np.allclose(values, np.sort(np.geomspace(low, high, dimension)), rtol=0.05, atol=np.sqrt(generated._COVARIANCE_GRID * dimension))
    if len(covariances) > 1:
        assert not np.allclose(covariances[0], covariances[1])


def test_sources_differ_in_where_they_lie_and_share_their_shape() -> None:
    dimension = min(generated._SIXTEENTHS)
    (_, first, own), (_, second, other) = (generated._simplex_mixture(dimension, slot) for slot in (0, 1))
    assert not np.allclose(first, second)
    assert len(first) != len(second) or np.allclose(first - first[0], second - second[0], atol=4 * generated._SIGNAL_GRID)
    assert np.array_equal(own[0], other[0])


def test_normals_have_the_moments_of_normals() -> None:
    values = generated.KeyedWords("a test").normal(2_000, 2, 0)
    assert values.shape == (2_000, 2)
    assert np.abs(values.mean(axis=0)).max() < 0.08
    assert np.abs(np.cov(values.T) - np.eye(2)).max() < 0.1
    assert np.abs((values**4).mean(axis=0) - 3.0).max() < 0.6
