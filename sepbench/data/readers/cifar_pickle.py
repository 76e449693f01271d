"""CIFAR-10's python batches through an unpickler that executes nothing.

A pickle is a program; ``pickle.load`` runs it and it may call anything that can be imported. Here every name a pickle asks for is answered
from a table of five, none of which leads to code of any library: arrays, dtypes and encoded bytes become passive records, from which the
image array is then built and checked. Any other name, and any malformed pickle, raises DataError.
"""

from __future__ import annotations

import pickle
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sepbench.data.readers import corrupt
from sepbench.errors import DataError

_PIXELS = 3 * 32 * 32
_CLASSES = 10


class _Record:
    """Base of the passive records. Having ``__setstate__`` at all keeps a pickle from setting attributes of these classes."""

    __slots__ = ("state",)

    def __new__(cls, *_: Any) -> Self:
        """A damaged pickle can make a record without ``__init__``: what that would have set is None."""
        record = super().__new__(cls)
        for kind in cls.__mro__:
            for name in getattr(kind, "__slots__", ()):
                setattr(record, name, None)
        return record

    def __init__(self) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Record):
    """Stands for an array under reconstruction; its state is (version, shape, dtype, fortran order, bytes)."""

    __slots__ = ()

    def __init__(self, subtype: Any, shape: Any, typecode: Any) -> None:
        super().__init__()


class _Dtype(_Record):
    """Stands for ``numpy.dtype(code, align, copy)``."""

    __slots__ = ("code",)

    def __init__(self, code: Any, align: Any = 0, copy: Any = 1) -> None:
        super().__init__()
        self.code = code


class _Encoded(_Record):
    """Stands for ``_codecs.encode(text, "latin1")``, which is how Python 3 writes bytes in old pickle protocols."""

    __slots__ = ("encoding", "text")

    def __init__(self, text: Any, encoding: Any = "") -> None:
        super().__init__()
        self.text, self.encoding = text, encoding

    def decoded(self) -> bytes:
        if not isinstance(self.text, str) or self.encoding not in ("latin1", "latin-1"):
            raise ValueError("bytes in an encoding other than latin1")
        return self.text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): "numpy.ndarray",  # only ever an argument of _reconstruct
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encoded,
}


class _Tape:
    """What the unpickler reads from; knows how far it came."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.offset = 0

    def read(self, n_bytes: int) -> bytes:
        piece = self._content[self.offset : self.offset + n_bytes]
        self.offset += len(piece)
        return piece

    def readline(self) -> bytes:
        end = self._content.find(b"\n", self.offset)
        return self.read((len(self._content) if end < 0 else end + 1) - self.offset)


class _RestrictedUnpickler(pickle._Unpickler):
    """Resolves names from ``_ALLOWED`` and nothing else.

    The unpickler written in Python, because the one in C allocates whatever memory a damaged memo index asks for.
    """

    def __init__(self, tape: _Tape, where: str) -> None:
        super().__init__(tape, encoding="bytes")
        self._tape, self._where = tape, where

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            problem = f"the pickle asks for {module}.{name}, which no CIFAR-10 batch needs; nothing was executed"
            raise corrupt(self._where, self._tape.offset, problem) from None

    def persistent_load(self, pid: Any) -> Any:
        raise corrupt(self._where, self._tape.offset, "the pickle refers to an object outside the file")


def read_pickled_batch(content: bytes, where: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images ``(N, 3, 32, 32)`` and labels ``(N,)`` of one batch of the python archive.

    Args:
        content: the batch file's bytes.
        where: its name for errors.

    Raises:
        DataError: a malformed pickle, one that asks for anything but arrays and containers, or one that holds something else than a batch.
    """
    tape = _Tape(content)
    try:
        batch = _RestrictedUnpickler(tape, where).load()
    except DataError:
        raise
    except Exception as error:  # a malformed pickle can raise nearly anything, from EOFError to OverflowError
        raise corrupt(where, tape.offset, f"malformed pickle ({type(error).__name__})") from error
    if tape.offset != len(content):
        raise corrupt(where, tape.offset, f"{len(content) - tape.offset:,} stray bytes follow the pickle")
    try:
        images = _images(_entry(batch, "data"))
        return images, _labels(_entry(batch, "labels"), len(images))
    except ValueError as error:
        raise corrupt(where, 0, f"the pickle is no CIFAR-10 batch: {error}") from error


def _entry(batch: Any, key: str) -> Any:
    """The value under a key that Python 2 wrote as bytes and Python 3 writes as text."""
    if not isinstance(batch, dict):
        raise ValueError(f"it holds a {type(batch).__name__}, not a dictionary")
    for name in (key.encode(), key):
        if name in batch:
            return batch[name]
    raise ValueError(f"it has no {key!r}")


def _images(array: Any) -> npt.NDArray[np.uint8]:
    if not isinstance(array, _Array) or not isinstance(array.state, tuple) or len(array.state) != 5:
        raise ValueError("'data' is not an array")
    _, shape, dtype, fortran, raw = array.state
    if not isinstance(dtype, _Dtype) or dtype.code not in ("u1", b"u1") or fortran not in (False, 0):
        raise ValueError("'data' is not an array of unsigned bytes in C order")
    if not isinstance(shape, tuple) or len(shape) != 2 or not all(isinstance(n, int) for n in shape) or shape[1] != _PIXELS:
        raise ValueError(f"'data' has the shape {shape}, expected (N, {_PIXELS})")
    content = raw.decoded() if isinstance(raw, _Encoded) else raw
    if not isinstance(content, bytes) or len(content) != shape[0] * _PIXELS:
        raise ValueError(f"'data' does not hold the {shape[0]} x {_PIXELS} bytes it announces")
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, 3, 32, 32)


def _labels(labels: Any, n_images: int) -> npt.NDArray[np.uint8]:
    if not isinstance(labels, list) or len(labels) != n_images:
        raise ValueError(f"'labels' is not a list of {n_images:,} labels")
    for position, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < _CLASSES:
            raise ValueError(f"label {position:,} is {label!r}, expected 0 to {_CLASSES - 1}")
    return np.array(labels, dtype=np.uint8)
