"""Folds 1 and 2 of ESC-10: ``audio/CLASS/FOLD-RECORDING-TAKE.ogg``, 160 clips of about 5 s, Ogg Vorbis, mono, 44,100 Hz.

Fold 1 is the training split, fold 2 the test split, so that no source recording (the Freesound number in a clip's name) is in both. A clip is resampled to
FSDD's 8 kHz and its first 32,768 samples are two rows of 16,384 (2.048 s). Label 0 is a chunk that is silent (``sounding_seconds``; ESC-10 pads short
sounds with zeros), 1 to 10 are the classes in alphabetical order.

The recordings of every class are spread evenly over the rows, so that rows held out at the end of the training split are of many classes. The last 60
training rows are whole recordings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np

from sepbench.data.files.manifests import load_manifest
from sepbench.data.readers.audio_files import read_vorbis, resample
from sepbench.data.readers.sounding import sounding_seconds
from sepbench.errors import DataError
from sepbench.torch_later import torch

CLASSES = ("chainsaw", "clock_tick", "crackling_fire", "crying_baby", "dog", "helicopter", "rain", "rooster", "sea_waves", "sneezing")
FOLDS = {"train": 1, "test": 2}
FILE_RATE = 44_100
SAMPLE_RATE = 8000
LENGTH = 16_384
"""Samples per row."""
ROWS_PER_CLIP = 2

_NAME = re.compile(r"audio/(?P<kind>[a-z_]+)/(?P<fold>\d)-(?P<recording>\d+)-(?P<take>[A-Z])\.ogg")
_PCM_SCALE = 32_768


@dataclass(frozen=True, slots=True)
class Clip:
    """One file.

    Attributes:
        name: path inside the data set's folder.
        kind: its class.
        fold: 1 or 2.
        recording: number of the Freesound recording that it was cut from.
    """

    name: str
    kind: str
    fold: int
    recording: int


def clips(names: Iterable[str], split: str) -> list[Clip]:
    """The clips of a split among some paths, in the order of its rows.

    Raises:
        DataError: an Ogg file whose name is not ESC-10's.
    """
    found = sorted((_clip(name) for name in names if name.endswith(".ogg")), key=lambda clip: (clip.recording, clip.name))
    places: dict[Clip, tuple[Fraction, str, int, str]] = {}
    for kind in CLASSES:
        of_kind = [clip for clip in found if clip.kind == kind and clip.fold == FOLDS[split]]
        recordings = list(dict.fromkeys(clip.recording for clip in of_kind))
        for clip in of_kind:
            rank = recordings.index(clip.recording)
            places[clip] = (Fraction(rank, len(recordings)), kind, rank, clip.name)
    return sorted(places, key=places.__getitem__)


def _clip(name: str) -> Clip:
    match = _NAME.fullmatch(name)
    if match is None or match["kind"] not in CLASSES:
        raise DataError(f"{name} is no clip of ESC-10, whose files are audio/CLASS/FOLD-RECORDING-TAKE.ogg; remove it")
    return Clip(name, match["kind"], int(match["fold"]), int(match["recording"]))


@cache
def recordings(split: str) -> tuple[int, ...]:
    """Of every row of a split the source recording, by the manifest: no data are opened."""
    listed = clips((file.name for file in load_manifest("esc10").files), split)
    return tuple(clip.recording for clip in listed for _ in range(ROWS_PER_CLIP))


def read_esc10(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Chunks ``(rows, 1, 16384)`` int16 and labels ``(rows,)`` int64 of a split; the other's clips are not opened.

    Raises:
        DataError: no clips; a clip is missing, damaged, too short, not 44,100 Hz mono.
    """
    found = clips((path.relative_to(folder).as_posix() for path in folder.glob("audio/*/*.ogg")), split)
    if not found:
        raise DataError(f"{folder / 'audio'} has no clip of fold {FOLDS[split]}; lay ESC-10 out as audio/CLASS/FOLD-RECORDING-TAKE.ogg")
    chunks = torch.cat([_chunks(folder / clip.name) for clip in found])
    kinds = np.repeat([CLASSES.index(clip.kind) + 1 for clip in found], ROWS_PER_CLIP)
    sounding = sounding_seconds(chunks.numpy(), SAMPLE_RATE) > 0
    return chunks, torch.from_numpy(np.where(sounding, kinds, 0).astype(np.int64))


def _chunks(path: Path) -> torch.Tensor:
    """``(ROWS_PER_CLIP, 1, LENGTH)``."""
    values = read_vorbis(path, FILE_RATE)
    if len(values) != 1:
        raise DataError(f"{path} has {len(values)} channels, expected one; replace the file")
    at_rate, wanted = resample(values[0], FILE_RATE, SAMPLE_RATE), ROWS_PER_CLIP * LENGTH
    if len(at_rate) < wanted:
        raise DataError(f"{path} lasts {len(at_rate) / SAMPLE_RATE:.2f} s, a clip needs {wanted / SAMPLE_RATE:.2f} s; replace the file")
    rounded = at_rate[:wanted].double().mul(_PCM_SCALE).round().clamp(-_PCM_SCALE, _PCM_SCALE - 1)
    return rounded.to(torch.int16).reshape(ROWS_PER_CLIP, 1, LENGTH)
