"""Archives of CIFAR-10 that others packed: with holes for zeros, with members that are no files, as large as they may be."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from sepbench.data.readers import cifar10
from sepbench.data.readers.cifar10 import RECORD_BYTES, read_binary_archive
from sepbench.errors import DataError

NAME = "cifar-10-batches-bin/test_batch.bin"


@pytest.fixture(autouse=True)
def two_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "BATCH_RECORDS", 2)


def packed(folder: Path, member: tarfile.TarInfo, content: bytes, form: int = tarfile.PAX_FORMAT) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        if member.isreg():
            member.size = len(content)
        tar.addfile(member, io.BytesIO(content) if member.isreg() else None)
    (folder / "packed.tar.gz").write_bytes(gzip.compress(buffer.getvalue(), 1, mtime=0))
    return folder / "packed.tar.gz"


def test_zeros_may_be_holes(tmp_path: Path) -> None:
    """As ``tar --sparse`` packs them: a map of what is there, a whole block long, and then only that."""
    whole = np.zeros((2, RECORD_BYTES), np.uint8)
    whole[0, 0], whole[0, 1:512], whole[1, 0] = 3, 200, 7
    content = whole.tobytes()
    pieces = [(0, 512), (RECORD_BYTES - 1, 512)]
    numbers = [len(pieces), *(number for piece in pieces for number in piece)]
    sparse_map = "".join(f"{number}\n" for number in numbers).encode().ljust(512, b"\0")
    member = tarfile.TarInfo("GNUSparseFile.0/test_batch.bin")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": NAME, "GNU.sparse.realsize": str(len(content))}
    path = packed(tmp_path, member, sparse_map + b"".join(content[start : start + size] for start, size in pieces))
    images, labels = read_binary_archive(path, "test")
    assert labels.tolist() == [3, 7]
    assert torch.equal(images, torch.from_numpy(whole[:, 1:].reshape(2, 3, 32, 32)))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE], ids=["link", "hard link", "folder", "pipe"])
def test_a_batch_that_is_no_file(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo(NAME)
    member.type, member.linkname = kind, "elsewhere"
    path = packed(tmp_path, member, b"")
    with pytest.raises(DataError) as caught:
        read_binary_archive(path, "test")
    assert str(caught.value).startswith(f"{path}:{NAME} is corrupt at byte 0: not a plain file of at most 67,108,864 bytes")


def test_the_largest_member_is_read_and_one_byte_more_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = packed(tmp_path, tarfile.TarInfo(NAME), bytes(2 * RECORD_BYTES))
    monkeypatch.setattr(cifar10, "_LARGEST_MEMBER", 2 * RECORD_BYTES)
    assert len(read_binary_archive(path, "test")[1]) == 2
    monkeypatch.setattr(cifar10, "_LARGEST_MEMBER", 2 * RECORD_BYTES - 1)
    with pytest.raises(DataError, match=r"not a plain file of at most 6,145 bytes"):
        read_binary_archive(path, "test")
