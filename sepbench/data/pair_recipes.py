"""Which builder made which frozen list: ``RECIPES[name]`` rebuilds ``data_manifests/pairs/<name>.csv``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sepbench.data.pair_builders import Draws, Labels, cover_second, distinct, halves, independent, rows_with

Split = tuple[str, str]

LOW, HIGH = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)  # digits, BASIS sec. 5.1
ANIMALS, VEHICLES = (2, 3, 4, 5, 6, 7), (0, 1, 8, 9)  # CIFAR-10, BASIS sec. 5.2


@dataclass(frozen=True, slots=True)
class Recipe:
    """One frozen list.

    Attributes:
        name: stem of the CSV file, and key of its random numbers.
        needs: the (data set, split) pairs whose labels it reads; empty if none, so that it can be rebuilt anywhere.
        build: labels to ``(M, K)`` indices.
    """

    name: str
    needs: tuple[Split, ...]
    build: Callable[[Labels], np.ndarray]


@dataclass(frozen=True, slots=True)
class _Halved:
    """A data set with two halves of its classes, and the sizes of its lists."""

    prefix: str
    dataset: str
    first: tuple[int, ...]
    second: tuple[int, ...]
    held_out: int
    n_test: int
    n_val: int

    def pools(self, labels: Labels, split: str, part: slice) -> tuple[np.ndarray, np.ndarray]:
        values = labels(self.dataset, split)
        start, stop, _ = part.indices(len(values))
        return rows_with(values, self.first, start, stop), rows_with(values, self.second, start, stop)

    @property
    def training(self) -> slice:
        return slice(0, -self.held_out)

    @property
    def validation(self) -> slice:
        return slice(-self.held_out, None)


def _pair_suite(s: _Halved) -> Iterator[Recipe]:
    """Class split and class-agnostic pairs of one data set, plain random with repetition (BASIS), their validation and NES-style training lists."""
    test, train = (s.dataset, "test"), (s.dataset, "train")
    split, agnostic = f"{s.prefix}.class-split", f"{s.prefix}.class-agnostic"

    def split_test(labels: Labels) -> np.ndarray:
        return independent(Draws(split), s.pools(labels, "test", slice(None)), s.n_test)

    def split_val(labels: Labels) -> np.ndarray:
        return independent(Draws(f"{split}-val"), s.pools(labels, "train", s.validation), s.n_val)

    def observed(labels: Labels) -> np.ndarray:
        return halves(f"{split}.halves", s.pools(labels, "train", s.training)[1])[0][:, None]

    def mixed(labels: Labels) -> np.ndarray:
        first, second = s.pools(labels, "train", s.training)
        other = halves(f"{split}.halves", second)[1]
        return cover_second(Draws(f"{split}.train-mixtures"), first, other, len(other))

    def agnostic_test(labels: Labels) -> np.ndarray:
        return distinct(Draws(agnostic), np.arange(len(labels(*test))), 2, s.n_test)

    def agnostic_val(labels: Labels) -> np.ndarray:
        return distinct(Draws(f"{agnostic}-val"), np.arange(len(labels(*train)))[s.validation], 2, s.n_val)

    yield Recipe(split, (test,), split_test)
    yield Recipe(f"{split}-val", (train,), split_val)
    yield Recipe(f"{split}.train-observed", (train,), observed)
    yield Recipe(f"{split}.train-mixtures", (train,), mixed)
    yield Recipe(agnostic, (test,), agnostic_test)
    yield Recipe(f"{agnostic}-val", (train,), agnostic_val)


def _nes_direction(name: str, x: tuple[int, ...], b: tuple[int, ...]) -> Iterator[Recipe]:
    """NES sec. 4.1: 12,000 clean B; another 12,000 B, each with a random X; 5,000 test mixtures built the same way.

    Flag 54: where B = 5-9 the test split has 4,861 images, so 139 of them come a second time.
    """
    s = _Halved("mnist-nes", "mnist", x, b, held_out=5000, n_test=5000, n_val=500)
    base = f"{s.prefix}.{name}"
    test, train = (s.dataset, "test"), (s.dataset, "train")
    n_train = 12_000

    def shuffled_b(labels: Labels) -> np.ndarray:
        second = s.pools(labels, "train", s.training)[1]
        shuffled: np.ndarray = second[Draws(f"{base}.shuffle").permutation(len(second), slot=0)]
        return shuffled

    def observed(labels: Labels) -> np.ndarray:
        return shuffled_b(labels)[:n_train, None]

    def mixed(labels: Labels) -> np.ndarray:
        first = s.pools(labels, "train", s.training)[0]
        return cover_second(Draws(f"{base}.train-mixtures"), first, shuffled_b(labels)[n_train : 2 * n_train], n_train)

    yield Recipe(base, (test,), lambda labels: cover_second(Draws(base), *s.pools(labels, "test", slice(None)), s.n_test))
    yield Recipe(f"{base}-val", (train,), lambda labels: cover_second(Draws(f"{base}-val"), *s.pools(labels, "train", s.validation), s.n_val))
    yield Recipe(f"{base}.train-observed", (train,), observed)
    yield Recipe(f"{base}.train-mixtures", (train,), mixed)


def _mnist_others() -> Iterator[Recipe]:
    def permuted(_: Labels) -> np.ndarray:
        partner: np.ndarray = np.random.default_rng(100).permutation(10_000)  # the authors' own draw
        return np.stack([np.arange(10_000), partner], axis=1)

    yield Recipe("mnist-lass.permuted", (), permuted)
    yield Recipe("mnist-quads.quads", (), lambda _: distinct(Draws("mnist-quads.quads"), np.arange(10_000), 4, 1_000))
    yield Recipe("mnist-quads.quads-val", (), lambda _: distinct(Draws("mnist-quads.quads-val"), np.arange(55_000, 60_000), 4, 200))


def _cifar10() -> Iterator[Recipe]:
    """CIFAR-10 without its labels at hand: the class split counts ranks within a class, whose sizes are the official ones.

    Test: 6,000 animals, 4,000 vehicles. Training split: 30,000 and 20,000, shuffled, so the first 25,000 and 17,000 surely lie among the first
    45,000 images and the last 2,500 and 1,500 among the held-out last 5,000 (expected 27,000, 18,000, 3,000, 2,000, spread about 35). The
    loader checks both when the data are there.
    """
    split, agnostic, color = "cifar10-pairs.class-split", "cifar10-pairs.class-agnostic", "cifar10-color.colorization"
    animals, vehicles = np.arange(25_000), np.arange(17_000)

    def observed(_: Labels) -> np.ndarray:
        return halves(f"{split}.halves", vehicles)[0][:, None]

    def mixed(_: Labels) -> np.ndarray:
        other = halves(f"{split}.halves", vehicles)[1]
        return cover_second(Draws(f"{split}.train-mixtures"), animals, other, len(other))

    val_pools = (np.arange(27_500, 30_000), np.arange(18_500, 20_000))
    yield Recipe(split, (), lambda _: independent(Draws(split), (np.arange(6_000), np.arange(4_000)), 25_000))
    yield Recipe(f"{split}-val", (), lambda _: independent(Draws(f"{split}-val"), val_pools, 500))
    yield Recipe(f"{split}.train-observed", (), observed)
    yield Recipe(f"{split}.train-mixtures", (), mixed)
    yield Recipe(agnostic, (), lambda _: distinct(Draws(agnostic), np.arange(10_000), 2, 25_000))
    yield Recipe(f"{agnostic}-val", (), lambda _: distinct(Draws(f"{agnostic}-val"), np.arange(45_000, 50_000), 2, 500))
    yield Recipe(color, (), lambda _: independent(Draws(color), (np.arange(10_000),), 50_000))
    yield Recipe(f"{color}-val", (), lambda _: independent(Draws(f"{color}-val"), (np.arange(45_000, 50_000),), 500))


def _bags_shoes() -> Iterator[Recipe]:
    """Pairs by index, as NES' code does; no random number."""

    def by_index(start: int, stop: int, n_sources: int = 2) -> Callable[[Labels], np.ndarray]:
        return lambda _: np.repeat(np.arange(start, stop)[:, None], n_sources, axis=1)

    yield Recipe("bags-shoes-mini.all", (), by_index(0, 200))
    yield Recipe("bags-shoes-mini.half", (), by_index(100, 200))
    yield Recipe("bags-shoes-mini.half.train-observed", (), by_index(0, 50, 1))
    yield Recipe("bags-shoes-mini.half.train-mixtures", (), by_index(50, 100))


def _exact() -> Iterator[Recipe]:
    """Suites of generated sources: the draws are independent, so the i-th of every slot are mixed; no random number."""

    def by_index(start: int, n_sources: int) -> Callable[[Labels], np.ndarray]:
        return lambda _: np.repeat(np.arange(start, start + 100)[:, None], n_sources, axis=1)

    for n_sources in (2, 3):
        yield Recipe(f"generated.{n_sources}-sources", (), by_index(0, n_sources))
        yield Recipe(f"generated.{n_sources}-sources-val", (), by_index(2000, n_sources))


def _all() -> Iterator[Recipe]:
    yield from _pair_suite(_Halved("mnist-pairs", "mnist", LOW, HIGH, held_out=5000, n_test=6000, n_val=500))
    yield from _nes_direction("x-0-4", LOW, HIGH)
    yield from _nes_direction("x-5-9", HIGH, LOW)
    yield from _mnist_others()
    yield from _cifar10()
    yield from _pair_suite(_Halved("cifar10-mini-pairs", "cifar10-mini", ANIMALS, VEHICLES, held_out=500, n_test=1000, n_val=200))
    yield from _bags_shoes()
    yield from _exact()
    yield from _pair_suite(_Halved("digits-pairs", "digits", LOW, HIGH, held_out=200, n_test=1000, n_val=200))


RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _all()}
