"""CIFAR-10 in its official formats: binary records, the python batches, each as an archive or unpacked.

A binary record is one label byte and 3,072 pixel bytes: the red, green and blue planes of 32 x 32, row by row. The test batch and
training batches 1 to 5 make the official splits, in that order.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sepbench.data.readers import corrupt, unreadable
from sepbench.data.readers.cifar_pickle import read_pickled_batch
from sepbench.errors import DataError
from sepbench.torch_later import torch

RECORD_BYTES = 1 + 3 * 32 * 32
CLASSES = 10
BATCH_RECORDS = 10_000  # of every official batch
MINI_RECORDS = 1_017  # of every batch of cifar10-mini

_BATCHES = {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)}
_LARGEST_MEMBER = 64 << 20  # bytes; the official batches have 31 million
_Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


def parse_records(content: bytes, where: Path | str, n_records: int) -> _Arrays:
    """Images ``(N, 3, 32, 32)`` and labels ``(N,)`` of one binary batch.

    Raises:
        DataError: an incomplete record, another number of records, a label beyond 9; names ``where`` and the byte offset.
    """
    complete, rest = divmod(len(content), RECORD_BYTES)
    if rest:
        raise corrupt(where, complete * RECORD_BYTES, f"the last record has {rest:,} bytes, expected {RECORD_BYTES:,}")
    if complete != n_records:
        raise corrupt(where, min(complete, n_records) * RECORD_BYTES, f"{complete:,} records, expected {n_records:,}")
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, RECORD_BYTES)
    labels = records[:, 0]
    wrong = np.flatnonzero(labels >= CLASSES)
    if wrong.size:
        raise corrupt(where, int(wrong[0]) * RECORD_BYTES, f"label {labels[wrong[0]]}, expected 0 to {CLASSES - 1}")
    return records[:, 1:].reshape(-1, 3, 32, 32), labels


def read_binary_folder(folder: Path, split: str, n_records: int = BATCH_RECORDS) -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``(N, 3, 32, 32)`` uint8 and labels ``(N,)`` int64 from unpacked ``.bin`` files of ``n_records`` records each."""
    paths = [folder / f"{batch}.bin" for batch in _BATCHES[split]]
    return _joined([parse_records(_content(path), path, n_records) for path in paths])


def read_python_folder(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``read_binary_folder``, from the unpacked python batches; nothing in them is executed."""
    paths = [folder / batch for batch in _BATCHES[split]]
    return _joined([_counted(read_pickled_batch(_content(path), str(path)), str(path)) for path in paths])


def read_binary_archive(path: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``read_binary_folder``, straight from ``cifar-10-binary.tar.gz``; nothing is unpacked to disk.

    Raises:
        DataError: the archive is cut off or damaged, a batch is missing, twice there or not as it should be.
    """
    return _from_archive(path, [f"cifar-10-batches-bin/{batch}.bin" for batch in _BATCHES[split]], lambda c, w: parse_records(c, w, BATCH_RECORDS))


def read_python_archive(path: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``read_binary_archive``, from ``cifar-10-python.tar.gz``; nothing in it is executed."""
    return _from_archive(path, [f"cifar-10-batches-py/{batch}" for batch in _BATCHES[split]], lambda c, w: _counted(read_pickled_batch(c, w), w))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def _counted(arrays: _Arrays, where: str) -> _Arrays:
    if len(arrays[1]) != BATCH_RECORDS:
        raise corrupt(where, 0, f"{len(arrays[1]):,} images, expected {BATCH_RECORDS:,}")
    return arrays


def _joined(batches: Sequence[_Arrays]) -> tuple[torch.Tensor, torch.Tensor]:
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def _from_archive(path: Path, members: Sequence[str], parse: Callable[[bytes, str], _Arrays]) -> tuple[torch.Tensor, torch.Tensor]:
    """The wanted members, parsed one by one as the stream passes, so that a single unpacked batch is held besides the result."""
    batches: dict[str, _Arrays] = {}
    try:
        with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as unpacked:
            try:
                with tarfile.open(fileobj=unpacked, mode="r|") as archive:
                    for member in archive:
                        if member.name in members:
                            _take(archive, member, path, batches, parse)
                while unpacked.read(1 << 20):  # to the end: only there does gzip compare its checksum
                    pass
            except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, ValueError, OverflowError) as error:  # tarfile leaks the last two
                raise corrupt(path, unpacked.tell(), f"the archive is cut off or damaged ({error})") from error
    except OSError as error:
        raise unreadable(path, error) from error
    for name in members:
        if name not in batches:
            raise DataError(f"{path} has no member {name}; replace the file")
    return _joined([batches[name] for name in members])


def _take(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path, batches: dict[str, _Arrays], parse: Callable[[bytes, str], _Arrays]) -> None:
    where = f"{path}:{member.name}"
    if member.name in batches:
        raise corrupt(where, 0, "the member is twice in the archive")
    if not member.isreg() or member.size > _LARGEST_MEMBER:
        raise corrupt(where, 0, f"not a plain file of at most {_LARGEST_MEMBER:,} bytes")
    stream = archive.extractfile(member)
    if stream is None:
        raise corrupt(where, 0, "the member has no content")
    batches[member.name] = parse(stream.read(), where)
