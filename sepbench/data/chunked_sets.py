"""The data sets that are read chunk by chunk: where their recordings come from, and the length and rate of their chunks.

Every data set here is named by an entry point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from sepbench.data.files.fetch import FoundData
from sepbench.data.readers.chunks import ChunkedAudio, Recording
from sepbench.data.readers.esc50 import read_esc50
from sepbench.data.readers.musdb import read_musdb
from sepbench.data.readers.slakh import read_slakh
from sepbench.data.readers.speech_folder import read_speech_folder

_CACHED = 8  # LRW's training split, the largest, is a list of 489,000 names


@dataclass(frozen=True, slots=True)
class ChunkedSet:
    """A data set that is decoded chunk by chunk, of sepbench's own manifests.

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

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "validation", "test")

    def open(self, name: str, split: str, found: FoundData | None) -> ChunkedAudio:
        """One split; the last few lists of files are kept and shared between callers."""
        if found is None:
            raise ValueError(f"data set {name!r} is read from the files of {self.manifest!r}, and was handed none")
        return _opened(self, name, split, found.folder)


@lru_cache(maxsize=_CACHED)
def _opened(chunked: ChunkedSet, name: str, split: str, folder: Path) -> ChunkedAudio:
    return ChunkedAudio(name, split, chunked.read(folder, split), chunked.length, chunked.sample_rate)


def _slakh(instrument: str) -> ChunkedSet:
    # LASS' chunks of 131,072 samples at 44,100 Hz (docs/protocols.md 1.6), 2.972 s.
    return ChunkedSet("slakh2100", partial(read_slakh, instrument=instrument), length=65_536, sample_rate=22_050)


def _musdb(source: str) -> ChunkedSet:
    # NES' rate (docs/protocols.md 1.4); 3 s, three windows of its SDR.
    return ChunkedSet("musdb18-hq", partial(read_musdb, source=source), length=61_440, sample_rate=20_480)


SLAKH_DRUMS = _slakh("drums")
SLAKH_BASS = _slakh("bass")
MUSDB_VOCALS = _musdb("vocals")
MUSDB_ACCOMPANIMENT = _musdb("accompaniment")
MUSDB_DRUMS = _musdb("drums")
MUSDB_NO_DRUMS = _musdb("no-drums")
# NES' 64 frames of 160 samples (docs/protocols.md 1.4, flag 10), 0.64 s.
LRW = ChunkedSet("lrw", read_speech_folder, length=10_240, sample_rate=16_000)
ESC50 = ChunkedSet("esc50", read_esc50, length=10_240, sample_rate=16_000)
