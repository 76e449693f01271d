"""``.npy`` arrays of images: layouts, ranges, damage, and no pickled objects."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sepbench.data.readers.npy import read_array, read_npy_images
from sepbench.errors import DataError


def npy_bytes(array: npt.NDArray[np.generic], version: tuple[int, int] = (1, 0)) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


def reading(content: bytes) -> npt.NDArray[np.generic]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toy.npy"
        path.write_bytes(content)
        return read_array(path)


ANY_ARRAY = st.sampled_from(["u1", "<f4", ">f8", "<i2", "bool"]).flatmap(lambda dtype: arrays(dtype, array_shapes(max_dims=4, min_side=0, max_side=4)))


@given(ANY_ARRAY, st.booleans(), st.sampled_from([(1, 0), (2, 0)]))
@settings(deadline=None)
def test_what_numpy_writes_is_read_back(array: npt.NDArray[np.generic], fortran: bool, version: tuple[int, int]) -> None:
    written = np.asfortranarray(array) if fortran else array
    found = reading(npy_bytes(written, version))
    assert found.dtype == array.dtype
    assert np.array_equal(found, array, equal_nan=array.dtype.kind == "f")


@given(ANY_ARRAY, st.data())
@settings(deadline=None)
def test_a_file_cut_off_anywhere_never_returns(array: npt.NDArray[np.generic], data: st.DataObject) -> None:
    content = npy_bytes(array)
    with pytest.raises(DataError, match=r"toy\.npy is corrupt at byte"):
        reading(content[: data.draw(st.integers(0, len(content) - 1))])


@given(st.binary(min_size=1, max_size=9))
@settings(deadline=None)
def test_stray_bytes_are_refused(stray: bytes) -> None:
    with pytest.raises(DataError, match="at byte 134: there are more bytes than the header announces"):
        reading(npy_bytes(np.zeros(6, dtype=np.uint8)) + stray)


@given(st.integers(0, 127), st.integers(0, 255))
@settings(deadline=None, max_examples=300)
def test_a_damaged_header_is_a_data_error_or_an_array(position: int, value: int) -> None:
    content = bytearray(npy_bytes(np.zeros((2, 3), dtype=np.uint8)))
    content[position] = value
    with contextlib.suppress(DataError):
        assert reading(bytes(content)).nbytes <= len(content)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    buffer = io.BytesIO()
    array = np.array([Attack()], dtype=object)
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        reading(buffer.getvalue())
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Attack()))  # the control
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"\x93NUMPY\x03\x00", npy_bytes(np.zeros(0, dtype="S1")).replace(b"|S1", b"|S0")])
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="is corrupt at byte"):
        reading(content)


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_array(tmp_path / "none.npy")


def images_of(tmp_path: Path, array: npt.NDArray[np.generic]) -> torch.Tensor:
    np.save(tmp_path / "toy.npy", array)
    return read_npy_images(tmp_path / "toy.npy")


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_becomes_channels_first(tmp_path: Path, channels: int) -> None:
    array = np.arange(2 * 4 * 5 * channels, dtype=np.uint8).reshape(2, 4, 5, channels)
    for stored in (array, np.asfortranarray(array)):
        images = images_of(tmp_path, stored)
        assert (tuple(images.shape), images.dtype, images.is_contiguous()) == ((2, channels, 4, 5), torch.uint8, True)
        assert np.array_equal(images.numpy(), array.transpose(0, 3, 1, 2))


def test_grey_images_need_no_channel_axis(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert np.array_equal(images_of(tmp_path, array).numpy(), array[:, None])


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<f2"])
def test_floats_become_float32(tmp_path: Path, dtype: str) -> None:
    array = np.linspace(0, 1, 24).reshape(2, 3, 4).astype(dtype)
    images = images_of(tmp_path, array)
    assert images.dtype == torch.float32
    assert np.array_equal(images.numpy(), array[:, None].astype(np.float32))


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros((2, 3), dtype=np.uint8), "must be"),
        (np.zeros((2, 3, 8, 8), dtype=np.uint8), "1 or 3 channels last"),
        (np.zeros((0, 3, 8), dtype=np.uint8), "has no images"),
        (np.zeros((2, 3, 8), dtype=np.int64), "int64 values"),
        (np.zeros((2, 3, 8), dtype=bool), "bool values"),
        (np.full((2, 3, 8), 255.0), "the value 255.0 in image 0"),
        (np.stack([np.zeros((3, 8)), np.full((3, 8), np.nan)]), "the value nan in image 1"),
        (np.full((2, 3, 8), -1e-6), "must be finite and in"),
    ],
)
def test_arrays_that_are_no_images_are_refused(tmp_path: Path, array: npt.NDArray[np.generic], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        images_of(tmp_path, array)


def test_real_bags_and_shoes(real_data) -> None:
    folder = real_data("bags-shoes-mini")
    for kind in ("bags", "shoes"):
        images = read_npy_images(folder / kind / "test.npy")
        assert (tuple(images.shape), images.dtype) == ((200, 3, 64, 64), torch.uint8)
        assert np.array_equal(images.numpy(), np.load(folder / kind / "test.npy", allow_pickle=False).transpose(0, 3, 1, 2))
