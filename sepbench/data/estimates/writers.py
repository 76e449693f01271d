"""Signals to files that ``opening.py`` reads: one array for all, or one file each. Written stretch by stretch, so that a set need not fit in memory.

``.npy``, ``.npz``, ``.safetensors`` and ``.wav`` (32-bit float) hold every bit. ``.png`` has 16 bits per channel::

    pixel = round((value - low) / (high - low) * 65535)         value = low + pixel / 65535 * (high - low)

with the range of the signals, [0, 1] for sources and the operator's for mixtures; values beyond it are cut.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Literal, get_args

import numpy as np
import numpy.typing as npt

from sepbench.compat import import_soundfile
from sepbench.data.estimates.png import png_bytes

ArrayFormat = Literal["npy", "npz", "safetensors"]
FileFormat = Literal["png", "wav"]
ARRAY_FORMATS: tuple[ArrayFormat, ...] = get_args(ArrayFormat)
FILE_FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)

Floats = npt.NDArray[np.float32]


def write_array(path: Path, name: str, shape: tuple[int, ...], parts: Iterable[Floats]) -> None:
    """One array as ``.npy``, ``.npz`` or ``.safetensors``, little-endian float32, by the ending of ``path``.

    Args:
        name: of the array, where the format has names.
        parts: its rows in their order.

    Raises:
        OSError: it cannot be written.
    """
    {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}[path.suffix](path, name, shape, parts)


def _npy(path: Path, name: str, shape: tuple[int, ...], parts: Iterable[Floats]) -> None:
    with path.open("wb") as file:
        _npy_into(file, shape, parts)


def _npy_into(file: IO[bytes], shape: tuple[int, ...], parts: Iterable[Floats]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    for part in parts:
        file.write(_bytes(part))


def _npz(path: Path, name: str, shape: tuple[int, ...], parts: Iterable[Floats]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))  # no clock: the same array gives the same bytes
        member.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(member, "w", force_zip64=True) as file:
            _npy_into(file, shape, parts)


def _safetensors(path: Path, name: str, shape: tuple[int, ...], parts: Iterable[Floats]) -> None:
    """Length of the header (8 bytes), header (JSON, padded to 8 bytes), values: safetensors' own writer wants all values at once."""
    size = 4 * int(np.prod(shape, dtype=np.int64))
    header = json.dumps({name: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]}}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for part in parts:
            file.write(_bytes(part))


def _bytes(part: Floats) -> bytes:
    return np.ascontiguousarray(part).astype("<f4", copy=False).tobytes()


def file_writer(form: FileFormat, value_range: tuple[float, float], sample_rate: int) -> Callable[[Path, Floats], None]:
    """Writes one signal, ``(C, H, W)`` or ``(channels, T)``, to a path.

    Args:
        value_range: of the signals, for PNG.
        sample_rate: Hz, for WAV.

    Raises:
        SepbenchError: soundfile is not installed.
    """
    if form == "wav":
        soundfile = import_soundfile()
        return lambda path, signal: soundfile.write(path, signal.T, sample_rate, subtype="FLOAT", format="WAV")
    low, high = value_range

    def write(path: Path, signal: Floats) -> None:
        scaled = (signal.astype(np.float64) - low) / (high - low)
        path.write_bytes(png_bytes(np.round(np.clip(scaled, 0.0, 1.0) * 65_535.0).astype(np.uint16)))

    return write
