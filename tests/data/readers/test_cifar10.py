"""CIFAR-10: all four forms give the same arrays, damage is located, and a pickle executes nothing."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import pickletools
import struct
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sepbench.data.readers import cifar10
from sepbench.data.readers.cifar10 import (
    MINI_RECORDS,
    RECORD_BYTES,
    parse_records,
    read_binary_archive,
    read_binary_folder,
    read_python_archive,
    read_python_folder,
)
from sepbench.data.readers.cifar_pickle import read_pickled_batch
from sepbench.errors import DataError

N = 3
BATCHES = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]


def batch_arrays(number: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    rng = np.random.Generator(np.random.Philox(number))
    return rng.integers(0, 256, (N, 3072), dtype=np.uint8), rng.integers(0, 10, N, dtype=np.uint8)


def records(number: int) -> bytes:
    pixels, labels = batch_arrays(number)
    return np.concatenate([labels[:, None], pixels], axis=1).tobytes()


def python2_pickle(number: int) -> bytes:
    """The bytes Python 2's pickle protocol 2 writes for a batch: 8-bit strings, numpy.core.multiarray, raw bytes in the array's state."""
    pixels, labels = batch_arrays(number)

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    raw = pixels.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text("b") + b"tR("
    array += b"K\x01M" + struct.pack("<H", N) + b"M" + struct.pack("<H", 3072) + b"\x86"
    array += b"cnumpy\ndtype\n(" + text("u1") + b"K\x00K\x01tR(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array += b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    items = text("batch_label") + text(f"training batch {number} of 5")
    items += text("labels") + b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    items += text("data") + array
    items += text("filenames") + b"](" + b"".join(text(f"camion_s_{n}.png") for n in range(N)) + b"e"
    return b"\x80\x02}(" + items + b"u."


def python3_pickle(number: int, protocol: int = 2) -> bytes:
    pixels, labels = batch_arrays(number)
    return pickle.dumps({"labels": [int(label) for label in labels], "data": pixels, "filenames": ["x.png"] * N}, protocol=protocol)


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), 1, mtime=0)


def binary_archive() -> bytes:
    # The official order of members is not the order of batches.
    order = [0, 3, 1, 2, 4, 5]
    members = {"cifar-10-batches-bin/batches.meta.txt": b"airplane\n"}
    return archive(members | {f"cifar-10-batches-bin/{BATCHES[k]}.bin": records(k + 1) for k in order})


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "BATCH_RECORDS", N)


def expected(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [batch_arrays(number) for number in (range(1, 6) if split == "train" else [6])]
    images = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, 32, 32)
    return torch.from_numpy(images), torch.from_numpy(np.concatenate([labels for _, labels in parts]).astype(np.int64))


@pytest.mark.parametrize("split", ["train", "test"])
def test_all_forms_agree(tmp_path: Path, small_batches: None, split: str) -> None:
    for number, batch in enumerate(BATCHES, start=1):
        (tmp_path / f"{batch}.bin").write_bytes(records(number))
        (tmp_path / batch).write_bytes(python2_pickle(number))
    (tmp_path / "binary.tar.gz").write_bytes(binary_archive())
    (tmp_path / "python.tar.gz").write_bytes(archive({f"cifar-10-batches-py/{batch}": python2_pickle(n) for n, batch in enumerate(BATCHES, start=1)}))
    wanted_images, wanted_labels = expected(split)
    for images, labels in (
        read_binary_folder(tmp_path, split, N),
        read_binary_archive(tmp_path / "binary.tar.gz", split),
        read_python_folder(tmp_path, split),
        read_python_archive(tmp_path / "python.tar.gz", split),
    ):
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert torch.equal(images, wanted_images)
        assert torch.equal(labels, wanted_labels)
        images[0] = 0  # writable memory of its own


# --- binary records


@given(st.integers(0, 3 * RECORD_BYTES - 1))
@example(2 * RECORD_BYTES)
@example(0)
def test_records_cut_off_anywhere_never_return(length: int) -> None:
    with pytest.raises(DataError, match=r"toy\.bin is corrupt at byte"):
        parse_records(records(1)[:length], "toy.bin", N)


def test_errors_of_records_name_the_offset() -> None:
    content = bytearray(records(1))
    with pytest.raises(DataError, match=r"at byte 3,073: the last record has 4 bytes, expected 3,073"):
        parse_records(bytes(content[: RECORD_BYTES + 4]), "toy.bin", N)
    with pytest.raises(DataError, match=r"at byte 6,146: 2 records, expected 3"):
        parse_records(bytes(content[: 2 * RECORD_BYTES]), "toy.bin", N)
    with pytest.raises(DataError, match=r"at byte 9,219: 4 records, expected 3"):
        parse_records(bytes(content) + bytes(RECORD_BYTES), "toy.bin", N)
    content[2 * RECORD_BYTES] = 10
    with pytest.raises(DataError, match=r"at byte 6,146: label 10, expected 0 to 9"):
        parse_records(bytes(content), "toy.bin", N)


# --- archives


def test_an_archive_cut_off_or_altered_never_returns(tmp_path: Path, small_batches: None) -> None:
    path, content = tmp_path / "toy.tar.gz", binary_archive()
    for length in [*range(0, len(content), 997), *range(len(content) - 12, len(content))]:
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"toy\.tar\.gz"):
            read_binary_archive(path, "test")
    altered = bytearray(content)
    altered[-6] ^= 1  # the stored CRC-32
    path.write_bytes(altered)
    with pytest.raises(DataError, match="cut off or damaged"):
        read_binary_archive(path, "train")


def test_a_missing_twofold_or_odd_member_is_named(tmp_path: Path, small_batches: None) -> None:
    path = tmp_path / "toy.tar.gz"
    path.write_bytes(archive({"cifar-10-batches-bin/data_batch_1.bin": records(1)}))
    with pytest.raises(DataError, match=r"no member cifar-10-batches-bin/test_batch\.bin"):
        read_binary_archive(path, "test")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"test_batch\.bin is corrupt .*not a plain file"):
        read_binary_archive(path, "test")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for _ in range(2):
            member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
            member.size = len(records(6))
            tar.addfile(member, io.BytesIO(records(6)))
    path.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="twice"):
        read_binary_archive(path, "test")


def test_missing_files_are_data_errors(tmp_path: Path) -> None:
    for read in (read_binary_archive, read_python_archive):
        with pytest.raises(DataError, match="cannot be read"):
            read(tmp_path / "none.tar.gz", "test")
    for read in (read_binary_folder, read_python_folder):
        with pytest.raises(DataError, match="cannot be read"):
            read(tmp_path, "test")


def test_an_archive_of_another_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.tar.gz").write_bytes(binary_archive())
    with pytest.raises(DataError, match="3 records, expected 10,000"):
        read_binary_archive(tmp_path / "b.tar.gz", "test")
    (tmp_path / "p.tar.gz").write_bytes(archive({"cifar-10-batches-py/test_batch": python2_pickle(6)}))
    with pytest.raises(DataError, match="3 images, expected 10,000"):
        read_python_archive(tmp_path / "p.tar.gz", "test")


# --- pickles


def test_the_hand_made_python2_pickle_is_what_numpy_would_load() -> None:
    loaded = pickle.loads(python2_pickle(1), encoding="bytes")
    assert np.array_equal(loaded[b"data"], batch_arrays(1)[0])
    assert loaded[b"labels"] == batch_arrays(1)[1].tolist()


@pytest.mark.parametrize("content", [python2_pickle(1), python3_pickle(1, 2), python3_pickle(1, 3), python3_pickle(1, 4)], ids=["py2", "p2", "p3", "p4"])
def test_batches_of_either_python_are_read(content: bytes) -> None:
    images, labels = read_pickled_batch(content, "toy")
    assert np.array_equal(images.reshape(N, -1), batch_arrays(1)[0])
    assert np.array_equal(labels, batch_arrays(1)[1])


class Calls:
    """Pickles into a call of any function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_executes_nothing(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "executed"
    attacks = [
        Calls(os.mkdir, str(marker)),
        Calls(os.system, f"mkdir {marker}"),
        Calls(eval, f"__import__('os').mkdir({str(marker)!r})"),
        Calls(Path.mkdir, marker),
        [0, {"data": Calls(os.mkdir, str(marker))}],
    ]
    for attack in attacks:
        content = pickle.dumps({"labels": [0], "data": attack}, protocol=protocol)
        with pytest.raises(DataError, match=r"toy is corrupt at byte [\d,]+: the pickle asks for .*nothing was executed"):
            read_pickled_batch(content, "toy")
        assert not marker.exists()
    # The control: plain pickle does execute the first of them.
    pickle.loads(pickle.dumps(attacks[0], protocol=protocol))
    assert marker.exists()


def test_names_next_to_the_allowed_ones_are_refused() -> None:
    for module, name in [
        ("numpy.core.multiarray", "scalar"),
        ("numpy", "load"),
        ("_codecs", "lookup"),
        ("numpy", "dtype.newbyteorder"),
        ("builtins", "getattr"),
    ]:
        content = b"\x80\x04" + b"\x8c" + bytes([len(module)]) + module.encode() + b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
        with pytest.raises(DataError, match=f"asks for {module}.{name}"):
            read_pickled_batch(content, "toy")


def test_a_pickle_cannot_alter_the_reader_itself() -> None:
    # BUILD with attributes to set, aimed at each object a name resolves to: it must fail and leave the next read intact.
    for name in ("numpy.core.multiarray\n_reconstruct", "numpy\ndtype", "numpy\nndarray", "_codecs\nencode"):
        attack = b"\x80\x02c" + name.encode() + b"\n}X\x08\x00\x00\x00__init__NsX\x05\x00\x00\x00stateK\x01sb."
        with pytest.raises(DataError):
            read_pickled_batch(attack, "toy")
        attack = b"\x80\x02c" + name.encode() + b"\nN}X\x08\x00\x00\x00__init__Ns\x86b."
        with pytest.raises(DataError):
            read_pickled_batch(attack, "toy")
    images, _ = read_pickled_batch(python2_pickle(1), "toy")
    assert np.array_equal(images.reshape(N, -1), batch_arrays(1)[0])


def test_persistent_ids_and_extension_codes_are_refused() -> None:
    for content in (b"\x80\x02K\x01Q.", b"\x80\x02\x82\x01."):
        with pytest.raises(DataError):
            read_pickled_batch(content, "toy")


def test_a_memo_index_does_not_allocate_memory() -> None:
    # LONG_BINPUT at 2**31 - 1: the unpickler written in C would resize its memo to 32 GB.
    with pytest.raises(DataError, match="not a dictionary"):
        read_pickled_batch(b"\x80\x02K\x01r\xff\xff\xff\x7f.", "toy")


def changed(**entries: object) -> bytes:
    pixels, labels = batch_arrays(1)
    batch: dict[str, object] = {"labels": [int(label) for label in labels], "data": pixels} | entries
    return pickle.dumps({key: value for key, value in batch.items() if value is not None}, protocol=2)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "malformed pickle"),
        (pickle.dumps([1], protocol=2), "not a dictionary"),
        (changed(data=None), "no 'data'"),
        (changed(labels=None), "no 'labels'"),
        (changed(data=b"abc"), "'data' is not an array"),
        (changed(data=np.zeros((N, 3072), dtype=np.float32)), "unsigned bytes"),
        (changed(data=np.asfortranarray(np.zeros((N, 3072), dtype=np.uint8))), "C order"),
        (changed(data=np.zeros((N, 3071), dtype=np.uint8)), r"expected \(N, 3072\)"),
        (changed(labels=[1, 2]), "list of 3 labels"),
        (changed(labels=[1, 2, 3, 4]), "list of 3 labels"),
        (changed(labels=[1, 2, 10]), "label 2 is 10"),
        (changed(labels=[1, -1, 3]), "label 1 is -1"),
        (changed(labels=[1, True, 3]), "label 1 is True"),
        (python2_pickle(1) + b"x", "1 stray bytes"),
        (python2_pickle(1).replace(b"M" + struct.pack("<H", N) + b"M", b"M" + struct.pack("<H", N + 1) + b"M"), "does not hold"),
    ],
)
def test_a_pickle_that_is_no_batch_says_what_is_wrong(content: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        read_pickled_batch(content, "toy")
    assert "\n" not in str(caught.value)


@given(st.integers(0, len(python2_pickle(1)) - 1))
def test_a_pickle_cut_off_anywhere_never_returns(length: int) -> None:
    with pytest.raises(DataError):
        read_pickled_batch(python2_pickle(1)[:length], "toy")


STRUCTURE = [position for _, _, position in pickletools.genops(python2_pickle(1)) if position is not None]


@given(st.lists(st.tuples(st.sampled_from(STRUCTURE), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300)
@example([(156, 0x81)])  # the opcode that makes an object without its __init__
def test_a_mutated_pickle_is_a_data_error_or_a_batch(changes: list[tuple[int, int]]) -> None:
    content = bytearray(python2_pickle(1))
    for position, value in changes:
        content[position] = value
    try:
        images, labels = read_pickled_batch(bytes(content), "toy")
    except DataError:
        return
    assert images.shape == (N, 3, 32, 32)
    assert labels.shape == (N,)


def test_real_records(real_data) -> None:
    folder = real_data("cifar10-mini")
    images, labels = read_binary_folder(folder, "train", MINI_RECORDS)
    assert tuple(images.shape) == (5_085, 3, 32, 32)
    assert labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    images, labels = read_binary_folder(folder, "test", MINI_RECORDS)
    assert tuple(images.shape) == (1_017, 3, 32, 32)
    assert labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    with pytest.raises(DataError, match="1,017 records, expected 10,000"):
        read_binary_folder(folder, "test")


# --- the official size of a batch


@pytest.fixture(scope="module")
def black() -> tuple[bytes, bytes]:
    """An official batch, 10,000 black images of class 0, as binary records and as a pickle."""
    pixels = np.zeros((10_000, 3072), dtype=np.uint8)
    return bytes(10_000 * 3073), pickle.dumps({"labels": [0] * 10_000, "data": pixels, "filenames": ["x.png"] * 10_000}, protocol=2)


def test_an_official_batch_has_ten_thousand_images_in_every_form(tmp_path: Path, black: tuple[bytes, bytes]) -> None:
    binary, pickled = black
    (tmp_path / "test_batch.bin").write_bytes(binary)
    (tmp_path / "test_batch").write_bytes(pickled)
    (tmp_path / "binary.tar.gz").write_bytes(archive({"cifar-10-batches-bin/test_batch.bin": binary}))
    (tmp_path / "python.tar.gz").write_bytes(archive({"cifar-10-batches-py/test_batch": pickled}))
    for images, labels in (
        read_binary_folder(tmp_path, "test"),
        read_python_folder(tmp_path, "test"),
        read_binary_archive(tmp_path / "binary.tar.gz", "test"),
        read_python_archive(tmp_path / "python.tar.gz", "test"),
    ):
        assert images.shape == (10_000, 3, 32, 32)
        assert labels.shape == (10_000,)


@pytest.mark.parametrize("count", [1_000, 1_017, 9_999, 10_001])
def test_a_batch_of_another_size_is_not_the_official_one(tmp_path: Path, count: int) -> None:
    (tmp_path / "test_batch.bin").write_bytes(bytes(count * 3073))
    with pytest.raises(DataError, match=f"{count:,} records, expected 10,000"):
        read_binary_folder(tmp_path, "test")
