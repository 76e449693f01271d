"""The splits on disk: one WAV file (mono, 16 bits) per stem and split with all its songs in a row; made when missing, read when opened."""

from __future__ import annotations

import contextlib
import wave
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sepbench.data.readers.sounding import sounding_seconds
from sepbench.data.synthesis.layout import CHUNK, SAMPLE_RATE, SONG_LENGTH, SPLITS, STEMS, Stem, file_name, song_keys
from sepbench.files import replacing
from sepbench.torch_later import torch

Pcm = npt.NDArray[np.int16]

_HEADER = 44  # bytes before the first sample


def make(names: Collection[str], folder: Path, progress: Callable[[str, int, int], None] | None = None) -> None:
    """Render files of the data set; about 10 s of one core per split.

    Both stems of a song come out of one composition, so a split is rendered once for both. A file appears under its name when it is complete.

    Args:
        names: files to make, as ``layout.file_name`` names them.
        folder: the data set's folder.
        progress: called with (file name, bytes so far, bytes in all).

    Raises:
        OSError: the folder cannot be written.
    """
    for split in SPLITS:
        stems = tuple(stem for stem in STEMS if file_name(split, stem) in names)
        if stems:
            _make_split(split, stems, folder, progress)


def _make_split(split: str, stems: tuple[Stem, ...], folder: Path, progress: Callable[[str, int, int], None] | None) -> None:
    from sepbench.data.synthesis.songs import compose, render  # scipy.signal takes a while to import, and reading does not need it

    keys = song_keys(split)
    total = _HEADER + 2 * len(keys) * SONG_LENGTH
    with contextlib.ExitStack() as stack:
        temporary = {stem: stack.enter_context(replacing(folder / file_name(split, stem))) for stem in stems}
        files = {stem: stack.enter_context(wave.open(str(path), "wb")) for stem, path in temporary.items()}
        for file in files.values():
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.setnframes(len(keys) * SONG_LENGTH)
        for number, key in enumerate(keys, start=1):
            song = render(compose(key))
            for stem, file in files.items():
                file.writeframesraw(song[stem].astype("<i2", copy=False).tobytes())
                if progress:
                    progress(file_name(split, stem), _HEADER + 2 * number * SONG_LENGTH if number < len(keys) else total, total)


def read(folder: Path, split: str, stem: Stem) -> tuple[torch.Tensor, torch.Tensor]:
    """A split's chunks of one stem ``(rows, 1, CHUNK)`` int16, and their labels ``(rows,)`` int64, see ``labels_of``.

    The file's digest has been compared before, so its layout is known.
    """
    chunks = np.fromfile(folder / file_name(split, stem), dtype="<i2", offset=_HEADER).astype(np.int16, copy=False).reshape(-1, 1, CHUNK)
    return torch.from_numpy(chunks), torch.from_numpy(labels_of(chunks))


def labels_of(chunks: Pcm) -> npt.NDArray[np.int64]:
    """Labels ``(rows,)`` of chunks ``(rows, 1, length)``: which whole seconds of each sound, see ``sounding_seconds``."""
    return sounding_seconds(chunks, SAMPLE_RATE)
