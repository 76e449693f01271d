"""MUSDB18-HQ: ``train/<song>/{mixture,vocals,drums,bass,other}.wav`` and ``test/<song>/...``, stereo, 44,100 Hz.

The official training part has 100 songs; 14 of them are the validation part that the authors name in the configuration of their reader (musdb,
``validation_tracks``), the other 86 are for training. ``mixture.wav`` is not read: a mixture is the sum of its stems.
"""

from __future__ import annotations

from pathlib import Path

from sepbench.data.readers import listed
from sepbench.data.readers.audio_files import audio_info
from sepbench.data.readers.chunks import Recording
from sepbench.errors import DataError

SPLITS = ("train", "validation", "test")
STEMS = ("vocals", "drums", "bass", "other")
SAMPLE_RATE = 44_100

SOURCES = {
    "vocals": ("vocals",),
    "accompaniment": ("drums", "bass", "other"),
    "drums": ("drums",),
    "no-drums": ("vocals", "bass", "other"),
}
"""Name of a source -> the stems it is the sum of."""

VALIDATION = frozenset(
    {
        "ANiMAL - Rockshow",
        "Actions - One Minute Smile",
        "Alexander Ross - Goodbye Bolero",
        "Clara Berry And Wooldog - Waltz For My Victims",
        "Fergessen - Nos Palpitants",
        "James May - On The Line",
        "Johnny Lokke - Promises & Lies",
        "Leaf - Summerghost",
        "Meaxic - Take A Step",
        "Patrick Talbot - A Reason To Leave",
        "Skelpolu - Human Mistakes",
        "Traffic Experiment - Sirens",
        "Triviul - Angelsaint",
        "Young Griffo - Pennies",
    }
)


def read_musdb(folder: Path, split: str, source: str) -> list[Recording]:
    """One source of every song of a split, in the order of the songs' names; all sources give the same chunks. Headers are read, no samples.

    Raises:
        DataError: no songs; a stem is missing, unreadable or of another rate.
    """
    part = folder / ("test" if split == "test" else "train")
    songs = [path for path in listed(part) if path.is_dir()] if part.is_dir() else []
    if split != "test":
        songs = [song for song in songs if (song.name in VALIDATION) == (split == "validation")]
    if not songs:
        raise DataError(f"{part} has no song of the {split} split; unpack MUSDB18-HQ so that its train and test are in {folder}")
    label = list(SOURCES).index(source)
    return [_recording(song, source, label) for song in songs]


def _recording(song: Path, source: str, label: int) -> Recording:
    infos = []
    for path in (song / f"{stem}.wav" for stem in STEMS):
        info = audio_info(path)
        if info.sample_rate != SAMPLE_RATE:
            raise DataError(f"{path} has {info.sample_rate:,} Hz, MUSDB18-HQ has {SAMPLE_RATE:,} Hz; use the files as they were published")
        infos.append(info)
    return Recording(tuple(song / f"{stem}.wav" for stem in SOURCES[source]), label, min(infos, key=lambda info: info.length), song.name)
