"""IDX: what is written is read back, and nothing that is cut off or altered is ever returned."""

from __future__ import annotations

import gzip
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sepbench.data.readers.idx import read_idx, read_mnist
from sepbench.errors import DataError

ARRAYS = arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9))


def idx_bytes(array: npt.NDArray[np.uint8]) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def read_bytes(content: bytes, ndim: int) -> npt.NDArray[np.uint8]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toy-idx.gz"
        path.write_bytes(content)
        return read_idx(path, ndim)


def packed(content: bytes, compressed: bool) -> bytes:
    return gzip.compress(content, mtime=0) if compressed else content


@given(ARRAYS, st.booleans())
@settings(deadline=None)
def test_what_is_written_is_read_back(array: npt.NDArray[np.uint8], compressed: bool) -> None:
    found = read_bytes(packed(idx_bytes(array), compressed), array.ndim)
    assert found.dtype == np.uint8
    assert np.array_equal(found, array)


@given(ARRAYS, st.booleans(), st.data())
@settings(deadline=None)
def test_a_file_cut_off_anywhere_never_returns(array: npt.NDArray[np.uint8], compressed: bool, data: st.DataObject) -> None:
    content = packed(idx_bytes(array), compressed)
    length = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(DataError, match=r"toy-idx\.gz is corrupt at byte"):
        read_bytes(content[:length], array.ndim)


def test_a_file_cut_off_at_every_single_offset_never_returns() -> None:
    content = gzip.compress(idx_bytes(np.arange(60, dtype=np.uint8).reshape(3, 4, 5)), mtime=0)
    for length in range(len(content)):
        with pytest.raises(DataError):
            read_bytes(content[:length], 3)


@given(ARRAYS, st.booleans(), st.binary(min_size=1, max_size=20))
@settings(deadline=None)
def test_stray_bytes_at_the_end_are_refused(array: npt.NDArray[np.uint8], compressed: bool, stray: bytes) -> None:
    with pytest.raises(DataError, match=r"more bytes than|stray bytes"):
        read_bytes(packed(idx_bytes(array), compressed) + stray, array.ndim)
    with pytest.raises(DataError, match="more bytes than"):
        read_bytes(packed(idx_bytes(array) + stray, compressed), array.ndim)


@given(arrays(np.uint8, (4, 5)), st.data())
@settings(deadline=None)
def test_a_flipped_bit_in_a_gzip_body_never_returns_other_data(array: npt.NDArray[np.uint8], data: st.DataObject) -> None:
    content = bytearray(gzip.compress(idx_bytes(array), mtime=0))
    # From byte 10 on: before it lie the header's time, flags and system, which do not touch the data.
    position = data.draw(st.integers(10, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = read_bytes(bytes(content), 2)
    except DataError:
        return
    assert np.array_equal(found, array)


def test_errors_name_the_offset() -> None:
    content = idx_bytes(np.zeros((2, 3, 3), dtype=np.uint8))
    for altered, problem in [
        (b"", "at byte 0: the file ends within the magic number"),
        (content[:9], "at byte 9: the file ends within the header of 16 bytes"),
        (b"\x00\x00\x08\x01" + content[4:], "at byte 0: magic number 00000801, expected 00000803"),
        (b"\x00\x00\x0d\x03" + content[4:], "at byte 0: magic number 00000d03"),
        (content[:20], "at byte 20: the file ends early: the header announces 18 bytes of data, 4 are there"),
        (content + b"z", "at byte 34: there are more bytes than the header announces"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "at byte 4: the header announces 4294967295 x"),
    ]:
        for compressed in (False, True):
            with pytest.raises(DataError, match=problem) as caught:
                read_bytes(packed(altered, compressed), 3)
            assert "\n" not in str(caught.value)


def test_a_wrong_gzip_checksum_is_noticed() -> None:
    content = bytearray(gzip.compress(idx_bytes(np.ones((2, 2), dtype=np.uint8)), mtime=0))
    assert zlib.crc32(b"") == 0
    content[-8] ^= 1  # the stored CRC-32
    with pytest.raises(DataError, match="gzip stream is damaged"):
        read_bytes(bytes(content), 2)


# --- MNIST's pair of files


@pytest.fixture
def mnist_folder(tmp_path: Path) -> Path:
    write_mnist(tmp_path)
    return tmp_path


def write_mnist(folder: Path, *, n_labels: int = 6, side: int = 28, label: int = 9) -> None:
    rng = np.random.Generator(np.random.Philox(7))
    for prefix in ("train", "t10k"):
        images = rng.integers(0, 256, (6, side, side), dtype=np.uint8)
        labels = np.arange(4, 4 + n_labels, dtype=np.uint8)
        labels[3] = label
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images), 1))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.minimum(labels, max(label, 9))), 1))


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_images_get_a_channel_and_labels_are_int64(mnist_folder: Path, split: str) -> None:
    images, labels = read_mnist(mnist_folder, split)
    assert (images.shape, images.dtype) == ((6, 1, 28, 28), torch.uint8)
    assert (labels.shape, labels.dtype) == ((6,), torch.int64)
    images[0] = 0  # the memory is writable and the tensor's own


def test_train_and_test_are_different_files(mnist_folder: Path) -> None:
    assert not torch.equal(read_mnist(mnist_folder, "train")[0], read_mnist(mnist_folder, "test")[0])


def test_as_many_labels_as_images(mnist_folder: Path) -> None:
    write_mnist(mnist_folder, n_labels=5)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is corrupt at byte 4: 5 labels for 6 images"):
        read_mnist(mnist_folder, "test")


def test_a_label_out_of_range_names_its_byte(mnist_folder: Path) -> None:
    write_mnist(mnist_folder, label=10)
    with pytest.raises(DataError, match=r"corrupt at byte 11: label 10, expected 0 to 9"):
        read_mnist(mnist_folder, "test")


def test_images_of_another_size_are_refused(mnist_folder: Path) -> None:
    write_mnist(mnist_folder, side=32)
    with pytest.raises(DataError, match="32 x 32 pixels, expected 28 x 28"):
        read_mnist(mnist_folder, "train")


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_mnist(tmp_path, "train")


def test_real_mnist(real_data) -> None:
    folder = real_data("mnist")
    images, labels = read_mnist(folder, "test")
    assert tuple(images.shape) == (10_000, 1, 28, 28)
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert (int((labels <= 4).sum()), int((labels >= 5).sum())) == (5_139, 4_861)  # docs/protocols.md 1.1
    images, labels = read_mnist(folder, "train")
    assert tuple(images.shape) == (60_000, 1, 28, 28)
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    # The mean that everybody normalises with, 0.1307.
    assert float(images.double().mean() / 255) == pytest.approx(0.1307, abs=5e-5)
