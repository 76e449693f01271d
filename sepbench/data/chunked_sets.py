"""The data sets that are read chunk by chunk: where their recordings come from, and the length and rate of their chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from sepbench.data.files.fetch import Found
from sepbench.data.readers.chunks import ChunkedAudio, Recording
from sepbench.data.readers.esc50 import read_esc50
from sepbench.data.readers.musdb import SOURCES, read_musdb
from sepbench.data.readers.slakh import CLASSES, read_slakh
from sepbench.data.readers.speech_folder import read_speech_folder
from sepbench.errors import DataError

SPLITS = ("train", "validation", "test")

_CACHED = 8  # LRW's training split, the largest, is a list of 489,000 names


@dataclass(frozen=True, slots=True)
class ChunkedSet:
    """One data set.

    Attributes:
        manifest: whose files it reads.
        read: (folder, split) -> recordings in order.
        length: samples per chunk.
        sample_rate: Hz of the chunks.
    """

    manifest: str
    read: Callable[[Path, str], list[Recording]]
    length: int
    sample_rate: int


def _slakh(instrument: str) -> ChunkedSet:
    # LASS' chunks of 131,072 samples at 44,100 Hz (protocols.md 1.6), 2.972 s.
    return ChunkedSet("slakh2100", partial(read_slakh, instrument=instrument), length=65_536, sample_rate=22_050)


def _musdb(source: str) -> ChunkedSet:
    # NES' rate (protocols.md 1.4); 3 s, three windows of its SDR.
    return ChunkedSet("musdb18-hq", partial(read_musdb, source=source), length=61_440, sample_rate=20_480)


CHUNKED_SETS: dict[str, ChunkedSet] = {
    **{f"slakh2100/{instrument}": _slakh(instrument) for instrument in CLASSES},
    **{f"musdb18-hq/{source}": _musdb(source) for source in SOURCES},
    # NES' 64 frames of 160 samples (protocols.md 1.4, flag 10), 0.64 s.
    "lrw": ChunkedSet("lrw", read_speech_folder, length=10_240, sample_rate=16_000),
    "esc50": ChunkedSet("esc50", read_esc50, length=10_240, sample_rate=16_000),
}


def open_chunked(name: str, split: str, found: Found) -> ChunkedAudio:
    """One split; lists of files are kept (the last few) and shared between callers.

    Raises:
        DataError: no such split, or as the readers raise it.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; data set {name!r} has {', '.join(SPLITS)}")
    return _opened(name, split, found.folder)


@lru_cache(maxsize=_CACHED)
def _opened(name: str, split: str, folder: Path) -> ChunkedAudio:
    chunked = CHUNKED_SETS[name]
    return ChunkedAudio(name, split, chunked.read(folder, split), chunked.length, chunked.sample_rate)
