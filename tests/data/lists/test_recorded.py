"""Lists of recorded music and noise: what must not meet, and the cluster keys rebuilt."""

from __future__ import annotations

import numpy as np
import pytest

from sepbench.data.lists.clusters import read_clusters
from sepbench.data.lists.pairs import read_pairs
from sepbench.data.lists.recorded import CLUSTERS, HELD_OUT
from sepbench.data.readers import esc10, fsdd
from sepbench.data.readers.music_stems import SONGS, song_of
from sepbench.resources import resource_root

ROOT = resource_root("data_manifests")


def rows(name: str) -> np.ndarray:
    return read_pairs(ROOT / "pairs" / f"{name}.csv").indices.numpy()


def songs(name: str) -> set[str]:
    return {SONGS[song_of(int(row))] for row in rows(name).ravel()}


def test_every_file_of_keys_has_its_builder() -> None:
    assert {path.stem for path in (ROOT / "clusters").glob("fsdd-esc10*.csv")} == set(CLUSTERS)


@pytest.mark.parametrize("name", sorted(CLUSTERS))
def test_the_builder_reproduces_the_committed_keys(name: str) -> None:
    assert CLUSTERS[name]() == (ROOT / "clusters" / f"{name}.csv").read_bytes()


def test_keys_are_equal_where_a_recording_is_shared() -> None:
    pairs, keys = rows("fsdd-esc10.speech"), read_clusters(ROOT / "clusters" / "fsdd-esc10.speech.csv").keys
    spoken = pairs[:, 0] // 10  # rows of one speaker's take come ten in a row
    heard = np.array(esc10.recordings("test"))[pairs[:, 1]]
    for of_signal, column in ((spoken, keys[:, 0]), (heard, keys[:, 1])):
        assert ((of_signal[:, None] == of_signal) == (column[:, None] == column)).all()
    assert not set(keys[:, 0]) & set(keys[:, 1])
    assert fsdd.speaker_and_take("test", 37) == "nicolas-0"
    assert fsdd.speaker_and_take("train", 60) == "george-6"


@pytest.mark.parametrize("name", ["fsdd-esc10.speech", "fsdd-esc10.speech-val"])
def test_what_is_scored_comes_at_most_once(name: str) -> None:
    assert all(len(set(column)) == len(column) for column in rows(name).T)


def test_speech_and_noise_of_validation_are_trained_on_nowhere() -> None:
    mixed, observed, held = (rows(f"fsdd-esc10.speech{kind}") for kind in (".train-mixtures", ".train-observed", "-val"))
    noises = np.array(esc10.recordings("train"))
    assert max(mixed[:, 1].max(), observed.max()) < 160 - HELD_OUT <= held[:, 1].min()
    assert fsdd.take_of("train", mixed[:, 0]).max() == 48
    assert set(fsdd.take_of("train", held[:, 0])) == {49}
    assert not set(noises[mixed[:, 1]]) & set(noises[observed[:, 0]])


@pytest.mark.parametrize("name", ["stems-drums-bass", "stems-vocals", "stems-drums"])
def test_songs_are_separated_or_observed_or_mixed(name: str) -> None:
    half = f"{name}.chunks-half"
    assert songs(half) == {"lithium", "potassium"}
    assert songs(f"{half}.train-mixtures") == {"rubidium"}
    assert songs(f"{half}.train-observed") == {"sodium"}
    assert songs(f"{name}.chunks") == (set(SONGS) - {"sodium"} if name == "stems-vocals" else set(SONGS))
    assert (rows(f"{name}.chunks")[:, 0] == rows(f"{name}.chunks")[:, 1]).all()
