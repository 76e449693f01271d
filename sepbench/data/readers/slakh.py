"""Slakh2100 in its redux layout: ``<split>/TrackNNNNN/metadata.yaml`` and ``<split>/TrackNNNNN/stems/SNN.flac``, mono, 44,100 Hz.

``metadata.yaml`` says of every stem its instrument class (``inst_class``), whether it is a drum kit (``is_drum``) and whether it was rendered at all
(``audio_rendered``). A class is the sum of its stems; a track without a rendered stem of a class has silence there, which suites leave out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sepbench.data.readers import listed
from sepbench.data.readers.audio_files import AudioInfo, audio_info
from sepbench.data.readers.chunks import Recording
from sepbench.errors import DataError, SepbenchError

SPLITS = ("train", "validation", "test")
CLASSES = ("drums", "bass")
SAMPLE_RATE = 44_100

_TRACK = re.compile(r"Track\d{5}")


@dataclass(frozen=True, slots=True)
class Track:
    """One song.

    Attributes:
        stems: class (``drums``, ``bass``) -> its files.
        info: the length that all of these files have, and their rate.
    """

    name: str
    stems: Mapping[str, tuple[Path, ...]]
    info: AudioInfo


def read_slakh(folder: Path, split: str, instrument: str) -> list[Recording]:
    """Drums or bass of every track of a split, in the tracks' order; both classes give the same chunks, so that row i is the same place of the same song.

    Raises:
        DataError: no tracks; metadata or a stem is missing, unreadable or of another rate.
    """
    label = CLASSES.index(instrument)
    return [Recording(track.stems[instrument], label, track.info, track.name) for track in read_tracks(folder / split)]


def read_tracks(folder: Path) -> list[Track]:
    """The tracks of a split's folder that have drums or bass, by name. Headers are read, no samples. Raises as ``read_slakh`` does."""
    names = sorted(path.name for path in listed(folder) if _TRACK.fullmatch(path.name)) if folder.is_dir() else []
    if not names:
        raise DataError(f"{folder} has no TrackNNNNN folder; unpack slakh2100_flac_redux so that its train, validation and test are in {folder.parent}")
    found = ((name, _stems(folder / name)) for name in names)
    return [Track(name, stems, _common(stems)) for name, stems in found if any(stems.values())]


def _stems(track: Path) -> dict[str, tuple[Path, ...]]:
    path = track / "metadata.yaml"
    document = _yaml(path)
    entries = document.get("stems") if isinstance(document, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) and "inst_class" in entry for entry in entries.values()):
        raise DataError(f"{path} has no table 'stems' with an inst_class for each; replace the file")
    rendered = {name: entry for name, entry in sorted(entries.items()) if entry.get("audio_rendered", True)}
    return {wanted: tuple(track / "stems" / f"{name}.flac" for name, entry in rendered.items() if _class(entry) == wanted) for wanted in CLASSES}


def _class(stem: Mapping[str, Any]) -> str:
    if stem.get("is_drum") or stem["inst_class"] == "Drums":
        return "drums"
    return "bass" if stem["inst_class"] == "Bass" else ""


def _common(stems: Mapping[str, tuple[Path, ...]]) -> AudioInfo:
    """The shortest length; stems of a track begin together."""
    infos = []
    for path in (path for paths in stems.values() for path in paths):
        info = audio_info(path)
        if info.sample_rate != SAMPLE_RATE:
            raise DataError(f"{path} has {info.sample_rate:,} Hz, Slakh2100 has {SAMPLE_RATE:,} Hz; use the files as they were published")
        infos.append(info)
    return min(infos, key=lambda info: info.length)


def _yaml(path: Path) -> object:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError as error:
        raise SepbenchError("Slakh2100's metadata need PyYAML; install it with: pip install pyyaml") from error
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check that the track is complete") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no YAML: {' '.join(str(error).split())}; replace the file") from error
