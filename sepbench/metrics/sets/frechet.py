"""Frechet distance between two sets of features (FID), and its value for infinitely many images.

Heusel et al., "GANs trained by a two time-scale update rule" (2017), eq. (6): with means m, n and covariances S, R of estimates and reference,

    d^2 = |m - n|^2 + tr S + tr R - 2 tr (R^1/2 S R^1/2)^1/2.

The trace of the root is the sum of the square roots of the eigenvalues of a symmetric matrix, so no general matrix root is taken. They are also those of
``L^T S L`` with ``R = L L^T`` (Cholesky), which one routine of LAPACK makes in a quarter of two products' operations; where R is singular the root serves.

The distance depends on the number of images: its expectation is above that of infinitely many by about c / n.
``frechet_limit`` draws the line through the distances of several n (Chong and Forsyth, "Effectively unbiased FID and
Inception Score", CVPR 2020, sec. 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import linalg

from sepbench.metrics.sets.moments import Array, Moments, Stream, moments_of

LIMIT_POINTS = 15
"""Numbers of images that the line goes through, as published."""
LIMIT_SMALLEST = 10
"""The smallest of them is all images over this."""


@dataclass(frozen=True, eq=False)
class FrechetReference:
    """The reference's moments and the root of its covariance, made once."""

    moments: Moments

    @cached_property
    def root(self) -> Array:
        """``(F, F)`` symmetric, its square is the covariance."""
        values, vectors = np.linalg.eigh(self.moments.covariance)
        return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)

    @cached_property
    def factor(self) -> Array | None:
        """``(F, F)`` lower triangular L with ``L L^T`` the covariance; None where that is singular to rounding."""
        try:
            return np.asfortranarray(np.linalg.cholesky(self.moments.covariance))
        except np.linalg.LinAlgError:
            return None

    @property
    def usable(self) -> bool:
        return self.moments.count > 1 and bool(np.isfinite(self.moments.scatter).all())


def frechet_distance(moments: Moments, reference: FrechetReference) -> float:
    """d^2 of the top of this file; NaN where a set has fewer than two images or holds what is not finite."""
    if moments.count < 2 or not reference.usable or not np.isfinite(moments.scatter).all():
        return float("nan")
    values = linalg.eigvalsh(_product(moments.covariance, reference), driver="evd", overwrite_a=True, check_finite=False)
    return _distance(moments, reference, float(np.sqrt(np.maximum(values, 0.0)).sum()))


def _product(covariance: Array, reference: FrechetReference) -> Array:
    """A symmetric matrix with the eigenvalues of S R; only its lower triangle is meant."""
    if reference.factor is None:
        return reference.root @ covariance @ reference.root
    product, _ = linalg.lapack.dsygst(covariance, reference.factor, itype=2, lower=1)
    return np.asarray(product)


def _distance(moments: Moments, reference: FrechetReference, trace_of_root: float) -> float:
    step = moments.mean - reference.moments.mean
    traces = np.trace(moments.covariance) + np.trace(reference.moments.covariance)
    return float(step @ step + traces - 2.0 * trace_of_root)


def frechet_values(stream: Stream, reference: FrechetReference) -> Array:
    """The distance as a value per image ``(n,)``: their mean is the distance, their deviations from it are the influence of each image.

    The influence of an image x on a function of mean and covariance is its derivative towards x (Hampel 1974). With the derivative of the root's
    trace, ``A = I - R^1/2 (R^1/2 S R^1/2)^-1/2 R^1/2``, it is

        2 (m - n) (x - m) + (x - m) A (x - m) - its mean.

    Where the estimates' covariance is singular (fewer images than features, constant images) the inverse root is the pseudo-inverse: no image
    leaves the space that the images span.
    """
    moments = moments_of(stream())
    distance = frechet_distance(moments, reference)
    if not np.isfinite(distance):
        return np.full(moments.count, np.nan)
    values, vectors = np.linalg.eigh(reference.root @ moments.covariance @ reference.root)
    floor = max(float(values[-1]), 0.0) * len(values) * np.finfo(np.float64).eps
    inverse = np.where(values > floor, 1.0 / np.sqrt(np.where(values > floor, values, 1.0)), 0.0)
    half = vectors.T @ reference.root
    slope = np.eye(len(values)) - (half.T * inverse) @ half
    step = 2.0 * (moments.mean - reference.moments.mean)
    influences = []
    for part in stream():
        centred = np.asarray(part, np.float64) - moments.mean
        influences.append(centred @ step + np.einsum("bf,bf->b", centred @ slope, centred))
    influence = np.concatenate(influences)
    return np.asarray(distance + influence - influence.mean())


def limit_counts(count: int) -> list[int]:
    """The numbers of images that the line goes through: evenly spaced, up to all."""
    return [round(n) for n in np.linspace(count / LIMIT_SMALLEST, count, LIMIT_POINTS)]


def limit_weights(counts: list[int]) -> Array:
    """Weights ``(points,)`` that turn the distances of ``counts`` images into the line's value at 1 / n = 0 (least squares)."""
    x = 1.0 / np.asarray(counts, np.float64)
    centred = x - x.mean()
    return np.asarray(1.0 / len(x) - x.mean() * centred / (centred @ centred))


def smallest_for_limit(features: int) -> int:
    """Images below which no line is drawn: the smallest of its sets would have fewer images than twice the features."""
    return 2 * LIMIT_SMALLEST * features


def frechet_limit_values(stream: Stream, reference: FrechetReference, order: Array) -> Array:
    """The distance for infinitely many images as a value per image ``(n,)``, as ``frechet_values``; NaN for fewer than ``smallest_for_limit``.

    Args:
        order: ``(n,)`` distinct numbers; the set of k images is that of the k smallest, so that the sets lie within each other and depend on
            the images alone.
    """
    count = len(order)
    features = next(iter(stream())).shape[1] if count else 0
    if count < smallest_for_limit(features):
        return np.full(count, np.nan)
    place = np.empty(count, np.int64)
    place[np.argsort(order, kind="stable")] = np.arange(count)
    counts = limit_counts(count)
    total, centred = 0.0, np.zeros(count)
    for size, weight in zip(counts, limit_weights(counts), strict=True):
        inside = place < size
        values = frechet_values(_chosen(stream, inside), reference)
        mean = float(values.mean())
        total += weight * mean
        centred[inside] += weight * (count / size) * (values - mean)
    return np.asarray(total + centred)


def _chosen(stream: Stream, rows: npt.NDArray[np.bool_]) -> Stream:
    """The images where ``rows`` ``(n,)`` is true."""

    def parts() -> Iterator[npt.NDArray[np.floating]]:
        start = 0
        for part in stream():
            yield part[rows[start : start + len(part)]]
            start += len(part)

    return parts
