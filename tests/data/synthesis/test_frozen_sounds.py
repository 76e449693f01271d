"""Frozen numbers of everything that is drawn: scores of every style, every drum at every strength, every kind of bass, every generated distribution.

One song alone is frozen as a whole (``test_synthesis_songs.py``): it has one style, one voice and some of the drums. Digests are of whole numbers, far
coarser than the last bits in which machines may differ. Whoever changes a sound on purpose raises ``layout.VERSION`` and freezes these anew.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from sepbench.data.synthesis.bass import render_bass, voice_of
from sepbench.data.synthesis.dice import Dice
from sepbench.data.synthesis.drums import Kit, render_drums
from sepbench.data.synthesis.generated import generated_names, generated_prior, open_generated
from sepbench.data.synthesis.score import Note, Stroke
from sepbench.data.synthesis.songs import Song
from sepbench.data.synthesis.styles import STYLES

SCORES = {
    "rock": "05a75013e4b877c7",
    "four": "ba84547cbf759d40",
    "funk": "9a2dec1a9d38ddd1",
    "half-time": "f04a0a1fe29c8cbd",
    "breakbeat": "0c15a40f61bc2d32",
    "latin": "2ce53a07e8723073",
    "ballad": "2bd0276ebd02f430",
    "shuffle": "0ff21c4b3eea4ec7",
    "swing": "b0c99fa24632543a",
    "twelve-eight": "73e988e1176eabdd",
    "waltz": "d79cd8edc2188e07",
}
DRUMS = {
    "kick": "182a48ab06dc6397",
    "snare": "a3e77f5699164060",
    "clap": "d1212d11662b7e46",
    "rim": "3d4f429d02f688a6",
    "hat": "fcd230cafebf03ca",
    "open": "5d0c626cf78827f3",
    "ride": "f89c8841ae5bd181",
    "crash": "50b2273dbf6247c2",
    "shaker": "3e2e546a0d0128ce",
    "tom-low": "ee6b3aff7a10fc00",
    "tom-mid": "4b858aa91939e8a1",
    "tom-high": "4b1344445b46e8f0",
    "room 0": "2c6f21463c19ce8d",
    "room 1": "d37fa00583edd0e2",
}
BASSES = {
    "bass 0": "001a7d0e01c045ad",
    "bass 1": "bdfcd417ab4ef50c",
    "bass 2": "f85f3395724c512e",
    "bass 7": "231efc6ddf958d90",
    "bass 9": "89d385f8b0562b5e",
    "bass 18": "d6f34f063f568223",
    "bass 46": "7cb68e2e1bc31beb",
}
GENERATED = {
    "generated:gaussian-d2-0": "ff0361e2662e9b65",
    "generated:gaussian-d2-1": "bdf149fa763a5349",
    "generated:gaussian-d2-2": "83ea3ce13a0f0684",
    "generated:gaussian-d8-0": "9455fca1cf95655f",
    "generated:gaussian-d8-1": "215a482ff446117c",
    "generated:gaussian-d8-2": "b55b0157023a2453",
    "generated:gaussian-d64-0": "44bf2be05f9c34d5",
    "generated:gaussian-d64-1": "5900150b902bd12c",
    "generated:gaussian-d64-2": "c32fdf26f57cd671",
    "generated:gmm-d2-0": "28906c1a8d91580f",
    "generated:gmm-d2-1": "e30557f248a256b6",
    "generated:gmm-d8-0": "00bbd10c063cbc97",
    "generated:gmm-d8-1": "37ea80e0561a64fa",
    "generated:gmm-d64-0": "b28281fe89686c6a",
    "generated:gmm-d64-1": "ad54b33a61f66e97",
}


def digest(*values: np.ndarray) -> str:
    """Of values on a grid of 2**-12."""
    sha = hashlib.sha256()
    for value in values:
        sha.update(np.rint(value * 4096).astype("<i8").tobytes())
    return sha.hexdigest()[:16]


def of_score(songs: list[Song]) -> str:
    sha = hashlib.sha256()
    for song in songs:
        grid, frame = song.frame.grid, song.frame
        numbers = [grid.beats, grid.steps, grid.swung, round(4096 * grid.tempo), round(4096 * grid.swing), frame.tonic, frame.minor, frame.length]
        sha.update(repr(numbers).encode())
        sha.update(repr([(bar.section, bar.drums, bar.bass, bar.chord, bar.fill, bar.opens) for bar in frame.bars]).encode())
        sha.update(repr([(one.voice, one.at, round(4096 * one.velocity)) for one in song.strokes]).encode())
        notes = [(one.at, one.stop, one.pitch, round(4096 * one.velocity), one.slide_from, round(4096 * one.slide_seconds)) for one in song.notes]
        sha.update(repr(notes).encode())
    return sha.hexdigest()[:16]


@pytest.mark.parametrize("style", [style.name for style in STYLES])
def test_songs_of_a_style_are_written_as_they_were_frozen(composed: list[Song], style: str) -> None:
    songs = [song for song in composed if song.frame.style.name == style]
    assert of_score(songs) == SCORES[style]


def of_drum(voice: str) -> str:
    kit = Kit(Dice("frozen kit"))
    return digest(*(kit.sound(voice, velocity, variation) for velocity in (0.449, 0.45, 0.799, 0.8, 1.0) for variation in (0, 1)))


@pytest.mark.parametrize("voice", Kit.VOICES)
def test_every_drum_sounds_as_it_was_frozen(voice: str) -> None:
    assert of_drum(voice) == DRUMS[voice]


def of_room(key: str) -> str:
    hits = [("open", 100, 0.9), ("kick", 900, 0.5), ("open", 2000, 0.7), ("hat", 2600, 0.3), ("snare", 3000, 1.0), ("crash", 5900, 0.8)]
    return digest(render_drums(key, [Stroke(*hit) for hit in hits], 6000))


@pytest.mark.parametrize("key", ["room 0", "room 1"])
def test_a_kit_in_its_room_sounds_as_it_was_frozen(key: str) -> None:
    assert of_room(key) == DRUMS[key]


LINE = [Note(50, 2500, 33, 0.7), Note(2600, 4500, 40, 1.0, 35, 0.05), Note(4500, 4600, 45, 0.65, 57, 0.1), Note(4700, 9000, 28, 0.9)]
"""Let go before the next, upwards into a note, downwards and cut short, and beyond the end."""


def of_bass(key: str) -> str:
    return digest(render_bass(key, LINE, 8000), render_bass(key, [], 100))


@pytest.mark.parametrize("key", ["bass 0", "bass 1", "bass 2", "bass 7", "bass 9", "bass 18", "bass 46"])
def test_every_bass_sounds_as_it_was_frozen(key: str) -> None:
    assert of_bass(key) == BASSES[key]


def of_generated(name: str) -> str:
    prior = generated_prior(name)
    parts = [prior.weights.numpy(), prior.means.numpy() * 16, prior.covariances.numpy() * 256]
    return digest(*parts, *(open_generated(name, split).load(range(100)).double().numpy() * 16 for split in ("train", "test")))


@pytest.mark.parametrize("name", generated_names())
def test_generated_signals_are_those_that_were_frozen(name: str) -> None:
    assert of_generated(name) == GENERATED[name]
    assert len(open_generated(name, "train")) == 2100


def test_all_voices_and_shapes_of_the_bass_are_among_the_frozen() -> None:
    assert {voice_of(key) for key in BASSES} == {"string", "synth", "sub"}
    shapes = []
    for key in BASSES:
        if voice_of(key) == "synth":
            shapes.append(Dice(f"{key}.bass-sound").pick(("saw", "pulse", "both")))
    assert set(shapes) == {"saw", "pulse", "both"}
