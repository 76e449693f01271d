"""Which builder made which frozen list: ``RECIPES[name]`` rebuilds ``data_manifests/pairs/<name>.csv``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sepbench.data.lists.builders import Draws, Labels, apart, cover_second, distinct, halves, independent, rows_with
from sepbench.data.lists.recipe import Recipe, Split
from sepbench.data.lists.recorded import recorded
from sepbench.data.readers.fsdd import ROWS_PER_TAKE, TAKES, take_of
from sepbench.data.synthesis import noises
from sepbench.data.synthesis.layout import CHUNKS_PER_SONG, HELD_OUT_SONGS, song_keys

LOW, HIGH = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)  # digits, BASIS sec. 5.1
SPEAKERS_LOW, SPEAKERS_HIGH = (0, 1, 2), (3, 4, 5)  # FSDD: george, jackson, lucas; nicolas, theo, yweweler
ANIMALS, VEHICLES = (2, 3, 4, 5, 6, 7), (0, 1, 8, 9)  # CIFAR-10, BASIS sec. 5.2


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


_FSDD_HELD_OUT = noises.HELD_OUT_TAKES * ROWS_PER_TAKE
_FSDD_TRAINED = np.asarray(TAKES["train"])[: -noises.HELD_OUT_TAKES]  # takes


def _fsdd_pairs() -> Iterator[Recipe]:
    """Two speakers at the same level. Observed and mixed training utterances are of different takes, so they share no recording (rows overlap)."""
    s = _Halved("fsdd-pairs", "fsdd", SPEAKERS_LOW, SPEAKERS_HIGH, held_out=_FSDD_HELD_OUT, n_test=500, n_val=100)
    test, train = ("fsdd", "test"), ("fsdd", "train")
    split, agnostic = "fsdd-pairs.class-split", "fsdd-pairs.class-agnostic"

    def by_take(labels: Labels) -> tuple[np.ndarray, np.ndarray]:
        second = s.pools(labels, "train", s.training)[1]
        observed, mixed = halves(f"{split}.halves", _FSDD_TRAINED)
        takes = take_of("train", second)
        return second[np.isin(takes, observed)], second[np.isin(takes, mixed)]

    def mixed(labels: Labels) -> np.ndarray:
        other = by_take(labels)[1]
        return cover_second(Draws(f"{split}.train-mixtures"), s.pools(labels, "train", s.training)[0], other, len(other))

    def two_speakers(name: str, of: Split, part: slice, count: int) -> Callable[[Labels], np.ndarray]:
        def build(labels: Labels) -> np.ndarray:
            speakers = labels(*of)
            return distinct(Draws(name), np.arange(len(speakers))[part], 2, count, keys=speakers[part])

        return build

    yield Recipe(split, (test,), lambda labels: independent(Draws(split), s.pools(labels, "test", slice(None)), s.n_test), (test, test))
    yield Recipe(f"{split}-val", (train,), lambda labels: independent(Draws(f"{split}-val"), s.pools(labels, "train", s.validation), s.n_val), (train, train))
    yield Recipe(f"{split}.train-observed", (train,), lambda labels: by_take(labels)[0][:, None])
    yield Recipe(f"{split}.train-mixtures", (train,), mixed, (train, train))
    yield Recipe(agnostic, (test,), two_speakers(agnostic, test, slice(None), s.n_test), (test, test))
    yield Recipe(f"{agnostic}-val", (train,), two_speakers(f"{agnostic}-val", train, s.validation, s.n_val), (train, train))


def _fsdd_noise(kind: int) -> Iterator[Recipe]:
    """Speech and one kind of noise at the same level. Every test noise is used once.

    Babble is made of the same data set's speech. A number's noise belongs to a take; the speech it is mixed with is of another, and the takes of
    observed training noise are not those of the training mixtures' speech and noise. So no recording is target and babble at once. The rule is the
    same for all kinds.
    """
    base = f"fsdd-noise.{noises.KINDS[kind]}"
    test, train = (("fsdd", "test"), ("noises:fsdd", "test")), (("fsdd", "train"), ("noises:fsdd", "train"))
    utterances = {split: np.arange(len(takes) * ROWS_PER_TAKE) for split, takes in TAKES.items()}
    observed_takes, mixed_takes = halves("fsdd-noise.halves", _FSDD_TRAINED)

    def with_speech(name: str, split: str, speech: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        refused = noises.takes_of_numbers(split)[numbers]
        spoken = apart(Draws(name), speech, take_of(split, speech), refused, slot=0)
        return np.stack([spoken, noises.rows_of_numbers(kind, numbers)], axis=1)

    def numbers_of(takes: np.ndarray) -> np.ndarray:
        return np.flatnonzero(np.isin(noises.takes_of_numbers("train"), takes))

    def observed(_: Labels) -> np.ndarray:
        return noises.rows_of_numbers(kind, numbers_of(observed_takes))[:, None]

    def mixed(_: Labels) -> np.ndarray:
        name, pool, speech = f"{base}.train-mixtures", numbers_of(mixed_takes), utterances["train"]
        numbers = np.resize(pool[Draws(name).permutation(len(pool), slot=1)], 600)
        return with_speech(name, "train", speech[np.isin(take_of("train", speech), mixed_takes)], numbers)

    def validation(_: Labels) -> np.ndarray:
        numbers = np.arange(noises.NUMBERS["train"])[-noises.HELD_OUT_NUMBERS :][:50]
        return with_speech(f"{base}-val", "train", utterances["train"][-_FSDD_HELD_OUT:], numbers)

    yield Recipe(base, (), lambda _: with_speech(base, "test", utterances["test"], np.arange(noises.NUMBERS["test"])), test)
    yield Recipe(f"{base}-val", (), validation, train)
    yield Recipe(f"{base}.train-observed", (), observed)
    yield Recipe(f"{base}.train-mixtures", (), mixed, train)


def _drums_bass_synth() -> Iterator[Recipe]:
    """Chunks of drums and bass of the same place of the same song that share a sounding second (a bit of their labels); each at most once.

    Level mixtures+one: the bass of one half of the training songs is observed, the other half's chunks come mixed, so that no song is in both.
    """
    name, drums, bass = "drums-bass-synth.chunks", "drums-bass-synth/drums", "drums-bass-synth/bass"
    n_songs = len(song_keys("train"))
    observed_songs, mixed_songs = halves("drums-bass-synth.halves", np.arange(n_songs - HELD_OUT_SONGS))

    def rows(labels: Labels, split: str, songs: np.ndarray, stems: tuple[str, ...]) -> np.ndarray:
        seconds = np.bitwise_and.reduce([labels(stem, split) for stem in stems])
        of_songs = np.isin(np.arange(len(seconds)) // CHUNKS_PER_SONG, songs)
        return np.flatnonzero((seconds != 0) & of_songs)

    def aligned(key: str, split: str, songs: np.ndarray, count: int | None) -> Callable[[Labels], np.ndarray]:
        def build(labels: Labels) -> np.ndarray:
            pool = rows(labels, split, songs, (drums, bass))
            return np.repeat(pool[Draws(key).permutation(len(pool), slot=0)][:count, None], 2, axis=1)

        return build

    def observed(labels: Labels) -> np.ndarray:
        pool = rows(labels, "train", observed_songs, (bass,))
        order = Draws(f"{name}.train-observed").permutation(len(pool), slot=0)
        return np.stack([pool[order]], axis=1)

    test, train = ((drums, "test"), (bass, "test")), ((drums, "train"), (bass, "train"))
    yield Recipe(name, test, aligned(name, "test", np.arange(len(song_keys("test"))), 450))
    yield Recipe(f"{name}-val", train, aligned(f"{name}-val", "train", np.arange(n_songs)[-HELD_OUT_SONGS:], 50))
    yield Recipe(f"{name}.train-observed", train[1:], observed)
    yield Recipe(f"{name}.train-mixtures", train, aligned(f"{name}.train-mixtures", "train", mixed_songs, None))


def _all() -> Iterator[Recipe]:
    yield from _pair_suite(_Halved("mnist-pairs", "mnist", LOW, HIGH, held_out=5000, n_test=6000, n_val=500))
    yield from _nes_direction("x-0-4", LOW, HIGH)
    yield from _nes_direction("x-5-9", HIGH, LOW)
    yield from _mnist_others()
    yield from _cifar10()
    yield from _pair_suite(_Halved("cifar10-mini-pairs", "cifar10-mini", ANIMALS, VEHICLES, held_out=500, n_test=1000, n_val=200))
    yield Recipe("cifar10-mini-color.colorization", (), lambda _: np.arange(1_017)[:, None])  # every test image once
    yield Recipe("cifar10-mini-color.colorization-val", (), lambda _: np.arange(4_585, 4_785)[:, None])
    yield from _bags_shoes()
    yield from _exact()
    yield from _fsdd_pairs()
    for kind in range(len(noises.KINDS)):
        yield from _fsdd_noise(kind)
    yield from _drums_bass_synth()
    yield from recorded()
    yield from _pair_suite(_Halved("digits-pairs", "digits", LOW, HIGH, held_out=200, n_test=1000, n_val=200))


RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _all()}
