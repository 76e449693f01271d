"""Kernel distance between two sets of features (KID): the unbiased squared maximum mean discrepancy, averaged over blocks.

Binkowski et al., "Demystifying MMD GANs" (ICLR 2018), sec. 4: kernel ``k(x, y) = (x y / F + 1)^3``, and for a block of m estimates x and m
references y

    1 / (m (m - 1)) (sum over i != j of k(x_i, x_j) + the same of y) - 2 / m^2 sum over i, j of k(x_i, y_j).

Blocks of 1,000 images each, as published; here they lie side by side (images 0 to 999, 1,000 to 1,999, ...) instead of being drawn at random, so
that every image counts once and no random stream is needed. Unlike FID, its expectation does not depend on the number of images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sepbench.metrics.sets.moments import Array, Stream, rebatched

BLOCK = 1_000


@dataclass(frozen=True, slots=True, eq=False)
class KernelValues:
    """KID as a value per image.

    Attributes:
        values: ``(n,)``; their mean is the distance, their deviations from it the influence of each image. Images that no whole block holds have no
            influence, unless all are fewer than a block: then they are one.
        blocks: ``(blocks,)`` the distance of each.
    """

    values: Array
    blocks: Array


def polynomial_kernel(x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> Array:
    """``(n, F)`` and ``(m, F)`` -> ``(n, m)``."""
    return np.asarray((np.asarray(x, np.float64) @ np.asarray(y, np.float64).T / x.shape[1] + 1.0) ** 3)


def block_distance(x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> tuple[float, Array]:
    """The unbiased distance of two sets ``(m, F)`` and ``(r, F)``, and the influence ``(m,)`` of each of the first, whose mean is 0.

    NaN where a set has fewer than two members.
    """
    m, r = len(x), len(y)
    if m < 2 or r < 2:
        return float("nan"), np.full(m, np.nan)
    among, with_y, among_y = polynomial_kernel(x, x), polynomial_kernel(x, y), polynomial_kernel(y, y)
    own = (among.sum(axis=1) - among.diagonal()) / (m - 1)
    cross = with_y.mean(axis=1)
    y_part = (among_y.sum() - among_y.trace()) / (r * (r - 1))
    influence = 2.0 * (own - cross)
    return float(own.mean() - 2.0 * cross.mean() + y_part), np.asarray(influence - influence.mean())


def kernel_values(stream: Stream, reference: npt.NDArray[np.floating]) -> KernelValues:
    """KID of a stream of features against a reference ``(r, F)``: block by block, each against the next as many of the reference, from its
    beginning again when it is used up."""
    found: list[tuple[float, Array]] = []
    start = rest = 0
    for block in rebatched(stream(), BLOCK):
        if found and len(block) < BLOCK:
            rest = len(block)
            break
        size = min(len(block), len(reference))
        start = start if start + size <= len(reference) else 0
        found.append(block_distance(block, reference[start : start + size]))
        start += size
    distances = np.array([distance for distance, _ in found])
    mean = float(distances.mean())
    # All images share the value of those in whole blocks, whose influence is the larger for it.
    influence = np.concatenate([distance - mean + own for distance, own in found])
    influence = np.concatenate([influence * ((len(influence) + rest) / len(influence)), np.zeros(rest)])
    return KernelValues(mean + influence - influence.mean(), distances)
