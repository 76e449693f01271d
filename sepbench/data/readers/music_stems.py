"""Four songs of real music: ``SONG/{drums,bass,vocals,other}.flac``, 90 s each, mono, 22,050 Hz, 16 bits, aligned.

A source is a stem or a sum of stems; the mixture of a song is the sum of all four. Songs are cut from their start into consecutive chunks of 65,536
samples (2.972 s, LASS' 131,072 at 44,100 Hz), 30 each. Row ``song * 30 + chunk`` of every source is the same place of the same song. There is one split,
``test``: with four songs every suite divides them by rows.
"""

from __future__ import annotations

from pathlib import Path

from sepbench.data.readers.audio_files import read_pcm
from sepbench.data.readers.sounding import sounding_seconds
from sepbench.errors import DataError
from sepbench.torch_later import torch

SONGS = ("lithium", "potassium", "rubidium", "sodium")
STEMS = ("drums", "bass", "vocals", "other")
SOURCES = {
    "drums": ("drums",),
    "bass": ("bass",),
    "vocals": ("vocals",),
    "accompaniment": ("drums", "bass", "other"),
    "no-drums": ("vocals", "bass", "other"),
}
"""Name of a source -> the stems it is the sum of."""
SAMPLE_RATE = 22_050
CHUNK = 65_536
CHUNKS_PER_SONG = 30


def read_music_stems(folder: Path, source: str, chunks_per_song: int = CHUNKS_PER_SONG) -> tuple[torch.Tensor, torch.Tensor]:
    """One source of all songs, ``(songs * chunks_per_song, 1, 65536)`` int16, and which whole seconds of each chunk sound, ``(rows,)`` int64.

    Raises:
        DataError: a stem is missing, damaged, too short, not 22,050 Hz mono of 16 bits; a sum of stems leaves the range of 16 bits.
    """
    chunks = torch.cat([_song(folder / song, SOURCES[source], chunks_per_song * CHUNK) for song in SONGS]).reshape(-1, 1, CHUNK)
    return chunks, torch.from_numpy(sounding_seconds(chunks.numpy(), SAMPLE_RATE))


def song_of(row: int) -> int:
    """Number of the song that a row belongs to."""
    return row // CHUNKS_PER_SONG


def _song(folder: Path, stems: tuple[str, ...], length: int) -> torch.Tensor:
    total = torch.zeros(length, dtype=torch.int32)
    for stem in stems:
        path = folder / f"{stem}.flac"
        samples = read_pcm(path, SAMPLE_RATE)
        if len(samples) < length:
            raise DataError(f"{path} has {len(samples):,} samples, a song needs {length:,}; replace the file")
        total += samples[:length]
    made = total.to(torch.int16)
    if not torch.equal(made.to(torch.int32), total):
        raise DataError(f"{folder}: the sum of {', '.join(stems)} leaves the range of 16 bits; replace the files by the originals")
    return made
