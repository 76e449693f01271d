"""Generated data sets: draws from distributions whose density, score and posterior are known in closed form. Nothing is downloaded.

``generated:<family>-d<D>-<slot>`` with family ``gaussian`` (slots 0 to 2) or ``gmm`` (slots 0 and 1) and D = 2, 8 or 64. Every number
follows from Philox words keyed by the name, computed in float64 and rounded to a grid (2**-16 for signals and means, 2**-20 for covariances):
the rounding hides the last bits in which ``log``, ``cos`` and Cholesky factors differ between machines, and sums of signals are exact in float32.

``gaussian``
    One Gaussian per slot; mean uniform in [0.25, 0.75] per coordinate, standard deviations along random axes geometric from 0.5 to 0.1.
``gmm``
    Components at the corners of a regular simplex in random position, 0.3 sqrt(D) from its centre, which is uniform in [0.25, 0.75] per
    coordinate for each slot; standard deviations within a component geometric from 0.12 to 0.04 along axes of its own. Both slots share the
    simplex and the covariances and differ in centre and weights. So for a mixture of components i and j of the two slots, j and i explain it
    equally well: the posterior has two modes, in every dimension, and their odds are those of the weights alone.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sepbench.data.signals import ArraySignals
from sepbench.errors import DataError, some
from sepbench.gmm import GaussianMixture
from sepbench.noise import NoiseSource
from sepbench.torch_later import torch

PREFIX = "generated:"
SIZES = {"train": 2100, "test": 100}
"""Signals per split."""

Array = npt.NDArray[np.float64]

_SLOTS = {"gaussian": 3, "gmm": 2}
_DIMENSIONS = (2, 8, 64)
_NAME = re.compile(r"(gaussian|gmm)-d(\d+)-(\d+)")
_CENTRES = (0.25, 0.75)
_GAUSSIAN_SPREAD, _COMPONENT_SPREAD = (0.5, 0.1), (0.12, 0.04)  # largest and smallest standard deviation
_CORNER = 0.3  # distance of a component from the centre, per square root of the dimension
_SIXTEENTHS = {2: ((8, 5, 3), (4, 4, 8)), 8: ((6, 5, 3, 2), (2, 4, 4, 6)), 64: ((5, 4, 3, 2, 2), (2, 2, 3, 3, 6))}  # weights of the gmm's slots
_SIGNAL_GRID, _COVARIANCE_GRID = 2.0**-16, 2.0**-20


def generated_names() -> list[str]:
    """All generated data sets, prefix included."""
    return [f"{PREFIX}{family}-d{dimension}-{slot}" for family, slots in _SLOTS.items() for dimension in _DIMENSIONS for slot in range(slots)]


@lru_cache(maxsize=32)
def generated_prior(name: str) -> GaussianMixture:
    """The distribution that a generated data set is drawn from.

    Raises:
        DataError: no such data set.
    """
    family, dimension, slot = _parsed(name)
    mixture = _gaussian(dimension, slot) if family == "gaussian" else _simplex_mixture(dimension, slot)
    return GaussianMixture(*(torch.from_numpy(np.ascontiguousarray(part)) for part in mixture))


@lru_cache(maxsize=32)
def open_generated(name: str, split: str) -> ArraySignals:
    """One split: independent draws ``(n, D)`` float32 from ``generated_prior(name)``, ``n`` as in ``SIZES``; labels are all zero.

    Raises:
        DataError: no such data set.
    """
    prior, count = generated_prior(name), SIZES[split]
    words = KeyedWords(f"{name.removeprefix(PREFIX)}.{split}")
    factors = np.linalg.cholesky(prior.covariances.numpy())
    component = np.searchsorted(prior.weights.numpy().cumsum()[:-1], words.uniform(count, 1, step=1)[:, 0], side="right")
    normals = words.normal(count, prior.dimension, step=0)
    signals = prior.means.numpy()[component] + np.einsum("nde,ne->nd", factors[component], normals)
    values = torch.from_numpy(_on_grid(signals, _SIGNAL_GRID)).float()
    return ArraySignals(name, split, "vector", values, torch.zeros(count, dtype=torch.int64))


def check_generated(name: str) -> None:
    """Whether there is such a data set.

    Raises:
        DataError: there is none.
    """
    _parsed(name)


def _parsed(name: str) -> tuple[str, int, int]:
    found = _NAME.fullmatch(name.removeprefix(PREFIX))
    if name not in generated_names() or found is None:
        raise DataError(f"unknown generated data set {name!r}; choose from {some(generated_names())}")
    return found[1], int(found[2]), int(found[3])


class KeyedWords:
    """Float64 uniforms and normals keyed by a text."""

    def __init__(self, key: str) -> None:
        self._noise = NoiseSource(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))

    def uniform(self, rows: int, columns: int, step: int) -> Array:
        """``(rows, columns)`` in [0, 1), multiples of 2**-32."""
        words = self._noise.words(torch.arange(rows), step, 0, columns).numpy()[:, :columns]
        return np.asarray(words, dtype=np.float64) * 2.0**-32

    def normal(self, rows: int, columns: int, step: int) -> Array:
        """Standard normals by Box and Muller (1958)."""
        both = 1.0 - self.uniform(rows, 2 * columns, step)  # (0, 1]: the logarithm's argument is never zero
        return np.asarray(np.sqrt(-2.0 * np.log(both[:, ::2])) * np.cos(2.0 * np.pi * both[:, 1::2]))


def _on_grid(values: Array, grid: float) -> Array:
    return np.asarray(np.round(values / grid) * grid)


def _rotation(words: KeyedWords, dimension: int, step: int) -> Array:
    """A random orthogonal matrix: D reflections at normals (Householder), whose bits do not hang on a library's sign conventions."""
    result = np.eye(dimension)
    for normal in words.normal(dimension, dimension, step):
        result = result - 2.0 * np.outer(result @ normal, normal) / (normal @ normal)
    return result


def _covariance(words: KeyedWords, dimension: int, spread: tuple[float, float], step: int) -> Array:
    axes = _rotation(words, dimension, step)
    covariance = (axes * np.geomspace(*spread, dimension) ** 2) @ axes.T
    return _on_grid((covariance + covariance.T) / 2, _COVARIANCE_GRID)


def _centre(words: KeyedWords, dimension: int) -> Array:
    low, high = _CENTRES
    return np.asarray(low + (high - low) * words.uniform(1, dimension, step=0)[0])


def _gaussian(dimension: int, slot: int) -> tuple[Array, Array, Array]:
    words = KeyedWords(f"gaussian-d{dimension}-{slot}")
    mean = _on_grid(_centre(words, dimension), _SIGNAL_GRID)
    return np.ones(1), mean[None], _covariance(words, dimension, _GAUSSIAN_SPREAD, step=1)[None]


def _simplex_mixture(dimension: int, slot: int) -> tuple[Array, Array, Array]:
    shared, own = KeyedWords(f"gmm-d{dimension}"), KeyedWords(f"gmm-d{dimension}-{slot}")
    weights = np.asarray(_SIXTEENTHS[dimension][slot]) / 16.0
    corners = np.zeros((len(weights), dimension))
    corners[:, : len(weights) - 1] = _simplex(len(weights))
    offsets = _CORNER * np.sqrt(dimension) * corners @ _rotation(shared, dimension, step=0).T
    means = _on_grid(_centre(own, dimension) + offsets, _SIGNAL_GRID)
    return weights, means, np.stack([_covariance(shared, dimension, _COMPONENT_SPREAD, step=1 + c) for c in range(len(weights))])


def _simplex(corners: int) -> Array:
    """Corners ``(C, C - 1)`` of a regular simplex on the unit sphere: columns of Helmert's matrix without its constant row, made longer."""
    helmert = np.zeros((corners - 1, corners))
    for row in range(1, corners):
        helmert[row - 1, :row] = 1.0 / np.sqrt(row * (row + 1))
        helmert[row - 1, row] = -row / np.sqrt(row * (row + 1))
    return np.asarray(helmert.T * np.sqrt(corners / (corners - 1)))
