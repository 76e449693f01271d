"""One file with one source: PNG for images, WAV or FLAC for sounds, ``.npy`` for any signal. Held against the task, never converted to fit it."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sepbench.compat import import_soundfile
from sepbench.data.estimates.numbers import as_float32, is_clipped
from sepbench.data.estimates.png import read_png
from sepbench.data.estimates.problems import CHANNELS, NOT_FINITE, RATE, SHAPE, UNREADABLE, FileProblem
from sepbench.data.readers.audio_files import audio_info
from sepbench.errors import DataError, flat, reason
from sepbench.protocols import Domain, TaskSpec

SUFFIXES: Mapping[Domain, tuple[str, ...]] = {"image": (".png", ".npy"), "audio": (".wav", ".flac", ".npy"), "vector": (".npy",)}
"""How names of files with one source end."""
_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
"""Of libsndfile's names for whole numbers."""


def read_signal(path: Path, spec: TaskSpec) -> tuple[npt.NDArray[np.float32], bool]:
    """A source ``source_shape`` float32, and whether it is a sound that is clipped (``numbers.is_clipped``).

    Raises:
        FileProblem: unreadable, or no signal of the task's shape, sample rate and kind; not finite.
        SepbenchError: a package that reads such files is not installed.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            values, full_scale = as_float32(read_array(path), spec.domain), 1.0
        elif suffix == ".png":
            values, full_scale = as_float32(read_png(path.read_bytes()), spec.domain), 1.0
            _check_channels(values.shape, spec.source_shape)
        else:
            values, full_scale = _read_sound(path, spec)
    except OSError as error:
        raise FileProblem(UNREADABLE, error.strerror or reason(error)) from error
    if values.shape != spec.source_shape:
        values = _with_channel(values, spec)
    if not np.isfinite(values).all():
        raise FileProblem(NOT_FINITE)
    return values, spec.domain == "audio" and suffix != ".npy" and is_clipped(values, full_scale)


def read_array(path: Path) -> npt.NDArray[Any]:
    """The array of a small ``.npy`` file; objects are never loaded.

    Raises:
        FileProblem: it cannot be read as one.
        OSError: it cannot be opened.
    """
    data = path.read_bytes()
    try:
        array: npt.NDArray[Any] = np.load(BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy evaluates the header as a literal: what a damaged one raises is not bounded by its documentation
        raise FileProblem(UNREADABLE, reason(error)) from error
    if not isinstance(array, np.ndarray):
        raise FileProblem(UNREADABLE, "no .npy file")
    return array


def _read_sound(path: Path, spec: TaskSpec) -> tuple[npt.NDArray[np.float32], float]:
    """A sound ``(channels, T)`` and the largest number of its format."""
    soundfile = import_soundfile()
    try:
        info = audio_info(path)
    except DataError as error:
        raise FileProblem(UNREADABLE, flat(error).removeprefix(str(path)).strip()) from error
    if info.sample_rate != spec.sample_rate:
        raise FileProblem(RATE, f"{info.sample_rate:,} Hz instead of {spec.sample_rate or 0:,} Hz")
    if (info.channels, info.length) != spec.source_shape:
        raise FileProblem(SHAPE, f"{_sound(info.channels, info.length)} instead of {_sound(*spec.source_shape)}")
    try:
        with soundfile.SoundFile(str(path)) as file:
            bits = _BITS.get(file.subtype)
            values = file.read(dtype="float32", always_2d=True)
    except (RuntimeError, OSError) as error:
        raise FileProblem(UNREADABLE, reason(error)) from error
    # In float32 the largest number of 32 bits is 1.
    return np.ascontiguousarray(values.T), 1.0 if bits is None else float(np.float32(1.0 - 2.0 ** (1 - bits)))


def _sound(channels: int, length: int) -> str:
    return f"{channels} x {length:,} samples"


def _check_channels(found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Grey for colour, or the reverse: told apart from a wrong size."""
    if found[0] != wanted[0]:
        words = {1: "grey", 3: "colour"}
        raise FileProblem(CHANNELS, f"{words[found[0]]}, the task has {words.get(wanted[0], f'{wanted[0]} channels')}")


def _with_channel(values: npt.NDArray[np.float32], spec: TaskSpec) -> npt.NDArray[np.float32]:
    """A signal of the task's shape: ``(H, W)`` and ``(T,)`` stand for one channel."""
    if spec.source_shape[0] == 1 and values.shape == spec.source_shape[1:]:
        return values[None]
    raise FileProblem(SHAPE, f"{_shape(values.shape)} instead of {_shape(spec.source_shape)}")


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one number"
