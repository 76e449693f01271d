"""IDX, the format of MNIST: a magic number, the dimensions, then the raw bytes.

Layout (Y. LeCun's MNIST page): two zero bytes, one byte for the element type (8 = unsigned byte), one byte for the number of dimensions, each dimension
as a big-endian 32-bit integer, the elements in C order. Only unsigned bytes occur in MNIST and only they are read.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sepbench.data.readers import corrupt, unreadable
from sepbench.torch_later import torch

_UNSIGNED_BYTE = 8
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib: window of 2**15 bytes, gzip header and checksum
_LARGEST = 1 << 40  # bytes; a header that claims more is damaged

MNIST_PREFIX = {"train": "train", "test": "t10k"}
MNIST_SIDE = 28
MNIST_CLASSES = 10


class _Unpacked:
    """Bytes of a plain or gzip-compressed file in order, knowing where it is and where the stream properly ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._rest = path.read_bytes()
        except OSError as error:
            raise unreadable(path, error) from error
        self._gzip = zlib.decompressobj(_GZIP_WINDOW) if self._rest.startswith(_GZIP_MAGIC) else None
        self.offset = 0

    def take(self, n_bytes: int) -> bytes:
        """The next ``n_bytes``, fewer only at the end of the stream."""
        if self._gzip is None:
            piece, self._rest = self._rest[:n_bytes], self._rest[n_bytes:]
        elif n_bytes == 0 or self._gzip.eof:
            piece = b""  # zlib reads 0 as "no limit", and counts stray bytes twice if it is handed them again
        else:
            try:
                piece = self._gzip.decompress(self._rest, n_bytes)
            except zlib.error as error:
                raise corrupt(self._path, self.offset, f"the gzip stream is damaged ({error})") from error
            self._rest = self._gzip.unconsumed_tail
        self.offset += len(piece)
        return piece

    def close(self) -> None:
        """Raises DataError unless exactly here the stream ends, with a gzip checksum that agrees."""
        if self.take(1):
            raise corrupt(self._path, self.offset - 1, "there are more bytes than the header announces")
        if self._gzip is not None and not self._gzip.eof:
            raise corrupt(self._path, self.offset, "the gzip stream is cut off before its end")
        if self._gzip is not None and self._gzip.unused_data:
            raise corrupt(self._path, self.offset, f"{len(self._gzip.unused_data):,} stray bytes follow the gzip stream")


def read_idx(path: Path, ndim: int) -> npt.NDArray[np.uint8]:
    """One IDX file, plain or gzip, with ``ndim`` dimensions.

    Raises:
        DataError: cut off, wrong magic number, other element type or number of dimensions, too many bytes, damaged gzip stream; names
            the file and the byte offset (of the unpacked stream).
    """
    stream = _Unpacked(path)
    magic = stream.take(4)
    if len(magic) < 4:
        raise corrupt(path, stream.offset, "the file ends within the magic number")
    wanted = bytes([0, 0, _UNSIGNED_BYTE, ndim])
    if magic != wanted:
        raise corrupt(path, 0, f"magic number {magic.hex()}, expected {wanted.hex()} (unsigned bytes, {ndim} dimensions)")
    header = stream.take(4 * ndim)
    if len(header) < 4 * ndim:
        raise corrupt(path, stream.offset, f"the file ends within the header of {4 + 4 * ndim} bytes")
    shape = tuple(int(n) for n in np.frombuffer(header, dtype=">u4"))
    n_bytes = math.prod(shape)
    if n_bytes > _LARGEST:
        raise corrupt(path, 4, f"the header announces {' x '.join(map(str, shape))} bytes")
    body = stream.take(n_bytes)
    if len(body) < n_bytes:
        raise corrupt(path, stream.offset, f"the file ends early: the header announces {n_bytes:,} bytes of data, {len(body):,} are there")
    stream.close()
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def read_mnist(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """MNIST's images ``(N, 1, 28, 28)`` uint8 and labels ``(N,)`` int64 of the official split ``train`` or ``test``.

    Raises:
        DataError: see ``read_idx``; images of another size, a label beyond 9, as many labels as images not found.
    """
    image_path = folder / f"{MNIST_PREFIX[split]}-images-idx3-ubyte.gz"
    label_path = folder / f"{MNIST_PREFIX[split]}-labels-idx1-ubyte.gz"
    images, labels = read_idx(image_path, 3), read_idx(label_path, 1)
    if images.shape[1:] != (MNIST_SIDE, MNIST_SIDE):
        raise corrupt(image_path, 8, f"images of {images.shape[1]} x {images.shape[2]} pixels, expected {MNIST_SIDE} x {MNIST_SIDE}")
    if len(images) != len(labels):
        raise corrupt(label_path, 4, f"{len(labels):,} labels for {len(images):,} images in {image_path.name}")
    wrong = np.flatnonzero(labels >= MNIST_CLASSES)
    if wrong.size:
        raise corrupt(label_path, 8 + int(wrong[0]), f"label {labels[wrong[0]]}, expected 0 to {MNIST_CLASSES - 1}")
    # A copy, because what was read is read-only memory and torch tensors are not.
    return torch.from_numpy(images[:, None].copy()), torch.from_numpy(labels.astype(np.int64))
