"""``.npy`` arrays of images, ``(N, H, W)`` or ``(N, H, W, C)``, uint8 or float in [0, 1], and of sounds, ``(N, T)`` int16.

Pickled objects are never loaded.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from sepbench.data.readers import corrupt, unreadable
from sepbench.errors import DataError
from sepbench.torch_later import torch

_CHANNELS = (1, 3)


def read_array(path: Path) -> npt.NDArray[np.generic]:
    """The array of one ``.npy`` file (format versions 1 and 2).

    Raises:
        DataError: no such file, not a ``.npy`` file, an array of Python objects, cut off, or more bytes than the header announces.
    """
    try:
        with path.open("rb") as stream:
            return _parse(stream, path)
    except OSError as error:
        raise unreadable(path, error) from error


def _parse(stream: BinaryIO, path: Path) -> npt.NDArray[np.generic]:
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"format version {version[0]}.{version[1]}, expected 1.0 or 2.0")
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read_header(stream)
    except OSError:
        raise
    except Exception as error:  # numpy evaluates the header as a literal: what a damaged one raises is not bounded by its documentation
        raise corrupt(path, stream.tell(), f"no .npy header ({str(error).splitlines()[0] if str(error) else type(error).__name__})") from error
    start = stream.tell()
    if dtype.hasobject:
        raise corrupt(path, start, "an array of Python objects, which is never loaded")
    if dtype.itemsize == 0 or any(n < 0 for n in shape):
        raise corrupt(path, start, f"the header announces the shape {shape} of {dtype}")
    n_bytes, there = math.prod(shape) * dtype.itemsize, os.fstat(stream.fileno()).st_size - start
    if there != n_bytes:
        problem = "the file ends early" if there < n_bytes else "there are more bytes than the header announces"
        raise corrupt(path, start + min(there, n_bytes), f"{problem}: {there:,} bytes of data, expected {n_bytes:,} for {shape} {dtype}")
    return np.frombuffer(stream.read(n_bytes), dtype=dtype).reshape(shape, order="F" if fortran_order else "C")


def read_npy_images(path: Path) -> torch.Tensor:
    """Images ``(N, C, H, W)``, uint8 as stored or float32 in [0, 1].

    Raises:
        DataError: see ``read_array``; not ``(N, H, W)`` or ``(N, H, W, C)`` with 1 or 3 channels, no images, another element type, a value that is
            not finite or outside [0, 1].
    """
    array = read_array(path)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in _CHANNELS:
        raise DataError(f"{path} holds an array of shape {array.shape}; images must be (N, H, W) or (N, H, W, C) with 1 or 3 channels last")
    if 0 in array.shape:
        raise DataError(f"{path} has no images: its shape is {array.shape}")
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)).copy())
    if array.dtype.kind != "f":
        raise DataError(f"{path} holds {array.dtype} values; images must be uint8, or float in [0, 1]")
    images = array.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    wrong = np.argwhere(~((images >= 0.0) & (images <= 1.0)))
    if len(wrong):
        raise DataError(f"{path} holds the value {images[tuple(wrong[0])]} in image {wrong[0][0]}; float images must be finite and in [0, 1]")
    return torch.from_numpy(images)


def read_npy_sounds(path: Path) -> torch.Tensor:
    """Mono sounds ``(N, 1, T)`` int16, of a file of ``(N, T)``.

    Raises:
        DataError: see ``read_array``; another shape or element type, no sounds.
    """
    array = read_array(path)
    if array.ndim != 2 or array.dtype != np.int16 or 0 in array.shape:
        raise DataError(f"{path} holds an array of shape {array.shape} of {array.dtype}; sounds must be (N, T), int16, at least one")
    return torch.from_numpy(array[:, None].astype(np.int16))
