"""How songs become data sets: which songs a split holds, and how they are cut into chunks. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

Stem = Literal["drums", "bass"]

NAME = "drums-bass-synth"
VERSION = 1
"""Part of every seed; raised whenever a song changes."""
STEMS: tuple[Stem, ...] = ("drums", "bass")
SAMPLE_RATE = 22_050
CHUNK = 65_536
"""Samples of a chunk: 2.972 s, LASS' 131,072 samples at 44,100 Hz."""
CHUNKS_PER_SONG = 10
SONG_LENGTH = CHUNKS_PER_SONG * CHUNK
HELD_OUT_SONGS = 8
"""Songs for validation: the last ones of the training split, of seeds of their own."""
SPLITS: dict[str, tuple[tuple[str, int], ...]] = {"train": (("train", 60), ("validation", HELD_OUT_SONGS)), "test": (("test", 52),)}
"""Seeds of each split's songs, and how many songs of each."""


def song_keys(split: str) -> list[str]:
    """Keys of a split's songs, in the order of its rows. Row ``song * CHUNKS_PER_SONG + chunk`` of both stems is the same place of the same song.

    Raises:
        KeyError: no such split.
    """
    return [f"{NAME}.v{VERSION}.{seed}.{number}" for seed, count in SPLITS[split] for number in range(count)]


def file_name(split: str, stem: Stem) -> str:
    """Where a stem of a split lies in the data set's folder."""
    return f"{split}/{stem}.wav"
