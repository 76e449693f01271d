"""Small data sets in the official layouts of Slakh2100, MUSDB18-HQ, LRW, ESC-50, ESC-10 and the music stems: made-up sound, written when a test asks for it.

Every recording is a chord whose pitches follow from its path, so that no two are alike and a chunk tells which recording it came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import yaml

MUSIC_RATE = 44_100
SLAKH_CHUNK = 131_072  # at 44,100 Hz
MUSDB_CHUNK = 132_300

SLAKH_TRACKS = {"train": ("Track00001", "Track00002"), "validation": ("Track01501",), "test": ("Track01876", "Track01877")}
MUSDB_SONGS = {"train": ("Band - First", "Band - Second", "Leaf - Summerghost"), "test": ("Al James - Schoolboy Facination", "Band - Third")}
WORDS = ("ABOUT", "YOUNG")
SONGS = ("lithium", "potassium", "rubidium", "sodium")
STEMS = ("drums", "bass", "vocals", "other")
STEM_RATE = 22_050
STEM_CHUNK = 65_536


def chord(name: str, length: int, rate: int, channels: int = 1, silent: Sequence[slice] = ()) -> npt.NDArray[np.float32]:
    """``(length, channels)``: three partials whose frequencies are keyed by the name, slowly louder, zeros in the silent parts."""
    key = np.frombuffer(hashlib.sha256(name.encode()).digest(), dtype=np.uint8)
    pitches = 80 + 6 * key[: 3 * channels].astype(np.int64).reshape(channels, 3)  # whole numbers: a second can be repeated
    second = np.sin(2 * np.pi * (np.arange(rate)[:, None, None] / rate) * pitches).sum(-1).astype(np.float32) / 12
    tone = np.resize(second, (length, channels)) * np.linspace(0.6, 1.0, length, dtype=np.float32)[:, None]
    for part in silent:
        tone[part] = 0.0
    return tone


def write(path: Path, values: npt.NDArray[np.float32], rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, values, rate, subtype="PCM_16")


def make_slakh(root: Path, chunks: int = 3) -> Path:
    """Tracks of a bass, two drum kits, a piano and a stem that was not rendered; the second chunk of every track has silent drums."""
    folder = root / "slakh2100"
    for split, tracks in SLAKH_TRACKS.items():
        for track in tracks:
            stems = {
                "S00": {"inst_class": "Bass", "is_drum": False, "audio_rendered": True},
                "S01": {"inst_class": "Drums", "is_drum": True, "audio_rendered": True},
                "S02": {"inst_class": "Piano", "is_drum": False, "audio_rendered": True},
                "S03": {"inst_class": "Drums", "is_drum": True, "audio_rendered": True},
                "S04": {"inst_class": "Bass", "is_drum": False, "audio_rendered": False},
            }
            here = folder / split / track
            here.mkdir(parents=True)
            (here / "metadata.yaml").write_text(yaml.safe_dump({"UUID": track, "stems": stems}))
            pause = [slice(SLAKH_CHUNK, 2 * SLAKH_CHUNK)]
            for stem in ("S00", "S01", "S03"):
                values = chord(f"{track}/{stem}", chunks * SLAKH_CHUNK + 999, MUSIC_RATE, silent=pause if stem != "S00" else [])
                write(here / "stems" / f"{stem}.flac", values, MUSIC_RATE)
    return folder


def make_musdb(root: Path, chunks: int = 3, songs: Mapping[str, Sequence[str]] = MUSDB_SONGS) -> Path:
    """Stereo songs; one of the training songs is of the authors' validation part."""
    folder = root / "musdb18-hq"
    for split, names in songs.items():
        for song in names:
            for stem in ("mixture", "vocals", "drums", "bass", "other"):
                write(folder / split / song / f"{stem}.wav", chord(f"{song}/{stem}", chunks * MUSDB_CHUNK + 500, MUSIC_RATE, channels=2), MUSIC_RATE)
    return folder


def make_lrw(root: Path, files: int = 4, rate: int = 16_000) -> Path:
    """Words of 1.16 s; in every word the last file of each split is FLAC."""
    folder = root / "lrw"
    for word in WORDS:
        for split in ("train", "val", "test"):
            for number in range(1, files + 1):
                suffix = "flac" if number == files else "wav"
                name = f"{word}_{number:05d}"
                write(folder / word / split / f"{name}.{suffix}", chord(f"{name}/{split}", round(1.16 * rate), rate), rate)
    return folder


def make_esc50(root: Path, clips: int = 2) -> Path:
    """Clips of 5 s in every fold; the second half of each first clip is the silence that ESC-50 pads short sounds with."""
    folder = root / "esc50"
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for clip in range(clips):
            name = f"{fold}-{clip}-A-{clip}.wav"
            lines.append(f"{name},{fold},{clip},kind{clip},False,{fold}{clip},A")
            pad = [slice(110_250, None)] if clip == 0 else []
            write(folder / "audio" / name, chord(name, 5 * MUSIC_RATE, MUSIC_RATE, silent=pad), MUSIC_RATE)
    (folder / "meta").mkdir()
    (folder / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_music_stems(root: Path, chunks: int = 2, rests: Mapping[str, Sequence[slice]] | None = None) -> Path:
    """Four songs of four stems; ``rests``: song/stem -> silent samples."""
    folder = root / "music-stems"
    for song in SONGS:
        for stem in STEMS:
            name = f"{song}/{stem}"
            write(folder / f"{name}.flac", chord(name, chunks * STEM_CHUNK + 77, STEM_RATE, silent=(rests or {}).get(name, ())), STEM_RATE)
    return folder


def make_esc10(root: Path, silent: Sequence[str] = ()) -> Path:
    """Two classes in both folds, Ogg Vorbis: of ``dog`` two recordings, one of them in two clips; the clips named in ``silent`` are zeros after 2.05 s."""
    folder = root / "esc10"
    for name in ("dog/1-20-A", "dog/1-20-B", "dog/1-3-A", "rain/1-7-A", "dog/2-40-A", "rain/2-50-A"):
        values = chord(name, 5 * MUSIC_RATE, MUSIC_RATE, silent=[slice(90_405, None)] if name in silent else [])
        path = folder / "audio" / f"{name}.ogg"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, values, MUSIC_RATE, format="OGG", subtype="VORBIS")
    return folder
