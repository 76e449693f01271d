"""Recipes of the lists of recorded music and noise, and of their files of cluster keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from sepbench.data.lists.builders import Draws, Labels, cover_second, halves
from sepbench.data.lists.clusters import clusters_csv
from sepbench.data.lists.pairs import read_pairs
from sepbench.data.lists.recipe import Recipe, Split
from sepbench.data.readers import esc10, fsdd
from sepbench.data.readers.music_stems import CHUNKS_PER_SONG, SONGS
from sepbench.resources import resource_root

HELD_OUT = 60
"""Last training rows of FSDD (its last take) and of ESC-10 (30 clips, whole recordings) that are for validation alone."""
TEST_SONGS = ("lithium", "potassium")
"""Of the tasks whose methods may learn, which they do from the others."""
OBSERVED_SONG, MIXED_SONG = "sodium", "rubidium"
"""Level mixtures+one: the second source of the first song is observed, the other song's chunks come mixed. Sodium has no vocals."""


def recorded() -> Iterator[Recipe]:
    yield from _stems("stems-drums-bass.chunks", "drums", "bass")
    yield from _stems("stems-vocals.chunks", "vocals", "accompaniment")
    yield from _stems("stems-drums.chunks", "drums", "no-drums")
    yield from _fsdd_esc10()


def _stems(name: str, first: str, second: str) -> Iterator[Recipe]:
    """Chunks of two sources of the same place of the same song that share a sounding second (a bit of their labels), in order; no random number."""
    of_first, of_second = ((f"music-stems/{stem}", "test") for stem in (first, second))

    def rows(songs: tuple[str, ...], labels: Labels, sources: tuple[Split, ...]) -> np.ndarray:
        seconds = np.bitwise_and.reduce([labels(*source) for source in sources])
        of_songs = np.isin(np.arange(len(seconds)) // CHUNKS_PER_SONG, [SONGS.index(song) for song in songs])
        return np.repeat(np.flatnonzero((seconds != 0) & of_songs)[:, None], len(sources), axis=1)

    both, observed = (of_first, of_second), (of_second,)
    yield Recipe(name, both, lambda labels: rows(SONGS, labels, both))
    yield Recipe(f"{name}-half", both, lambda labels: rows(TEST_SONGS, labels, both))
    yield Recipe(f"{name}-half.train-mixtures", both, lambda labels: rows((MIXED_SONG,), labels, both))
    yield Recipe(f"{name}-half.train-observed", observed, lambda labels: rows((OBSERVED_SONG,), labels, observed))


def _fsdd_esc10() -> Iterator[Recipe]:
    """Speech and a chunk of noise that is not silent, at the same level. Of the lists that are scored every utterance and every chunk is used at most once."""
    name = "fsdd-esc10.speech"
    test, train = (("fsdd", "test"), ("esc10", "test")), (("fsdd", "train"), ("esc10", "train"))
    n_speech = {split: len(takes) * fsdd.ROWS_PER_TAKE for split, takes in fsdd.TAKES.items()}

    def loud(labels: Labels, split: str, part: slice) -> np.ndarray:
        sounding = labels("esc10", split) != 0
        rows: np.ndarray = np.arange(len(sounding))[part][sounding[part]]
        return rows

    def once(key: str, speech: np.ndarray, noise: np.ndarray) -> np.ndarray:
        spoken = speech[Draws(key).permutation(len(speech), slot=0)][: len(noise)]
        return np.stack([spoken, noise[Draws(key).permutation(len(noise), slot=1)]], axis=1)

    def by_recording(labels: Labels) -> tuple[np.ndarray, np.ndarray]:
        noise = loud(labels, "train", slice(0, -HELD_OUT))
        of = np.array(esc10.recordings("train"))[noise]
        observed, mixed = halves("fsdd-esc10.halves", np.unique(of))
        return noise[np.isin(of, observed)], noise[np.isin(of, mixed)]

    def scored(labels: Labels) -> np.ndarray:
        return once(name, np.arange(n_speech["test"]), loud(labels, "test", slice(None)))

    def validation(labels: Labels) -> np.ndarray:
        return once(f"{name}-val", np.arange(n_speech["train"])[-HELD_OUT:], loud(labels, "train", slice(-HELD_OUT, None)))

    def mixed(labels: Labels) -> np.ndarray:
        return cover_second(Draws(f"{name}.train-mixtures"), np.arange(n_speech["train"])[:-HELD_OUT], by_recording(labels)[1], 400)

    yield Recipe(name, test[1:], scored, test)
    yield Recipe(f"{name}-val", train[1:], validation, train)
    yield Recipe(f"{name}.train-observed", train[1:], lambda labels: by_recording(labels)[0][:, None])
    yield Recipe(f"{name}.train-mixtures", train[1:], mixed, train)


def _recordings(split: str) -> Callable[[tuple[int, ...]], tuple[str, str]]:
    noises = esc10.recordings(split)
    return lambda rows: (fsdd.speaker_and_take(split, rows[0]), str(noises[rows[1]]))


def _keys(name: str, split: str) -> bytes:
    """Keys of the mixtures of a committed list: the speaker's take and the noise's recording."""
    pairs = read_pairs(resource_root("data_manifests") / "pairs" / f"{name}.csv")
    return clusters_csv(map(_recordings(split), map(tuple, pairs.indices.tolist())), "recording", 2)


CLUSTERS: Mapping[str, Callable[[], bytes]] = {
    "fsdd-esc10.speech": lambda: _keys("fsdd-esc10.speech", "test"),
    "fsdd-esc10.speech-val": lambda: _keys("fsdd-esc10.speech-val", "train"),
}
"""``CLUSTERS[name]()`` rebuilds ``data_manifests/clusters/<name>.csv`` from the committed list; no data are opened."""
