"""Edges of supplied estimates: files that changed within a tick, links to nowhere, names in other bytes, pictures and archives byte by byte."""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from estimate_cases import COLOUR, DIGIT, SOUND

from sepbench.data.estimates.arrays import of_array, of_file
from sepbench.data.estimates.files import FileEstimates, files_digest
from sepbench.data.estimates.names import list_folder
from sepbench.data.estimates.numbers import as_float32
from sepbench.data.estimates.opening import open_estimates
from sepbench.data.estimates.png import png_bytes, read_png
from sepbench.data.estimates.problems import EstimatesError, FileProblem, Problems
from sepbench.data.estimates.signals import read_signal
from sepbench.data.estimates.writers import file_writer, write_array
from sepbench.errors import DataError


def quiet(done: int, total: int) -> None:
    """Nobody watches."""


def within_a_tick(path: Path, values: np.ndarray) -> None:
    """Write a file anew without another time of change."""
    changed = path.stat().st_mtime_ns
    np.save(path, values)
    os.utime(path, ns=(changed, changed))


# --- files ----------------------------------------------------------------------------------------------------------------------------


def test_files_of_another_size_have_changed_whatever_their_time(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((1, 2, 8, 8), np.float32))
    whole = of_file(path, DIGIT, 1)
    whole.inspect(1, Problems(), quiet)
    within_a_tick(path, np.zeros((1, 2, 8, 8), np.float64))
    with pytest.raises(EstimatesError, match="has changed since it was read first"):
        whole.load([0])
    table = {(0, slot): tmp_path / f"0_{slot + 1}.npy" for slot in range(2)}
    for path in table.values():
        np.save(path, np.zeros((8, 8), np.float32))
    files = FileEstimates(table, tmp_path, DIGIT)
    files.inspect(1, Problems(), quiet)
    within_a_tick(path, np.zeros((8, 8), np.float64))
    with pytest.raises(EstimatesError, match=r"0_2\.npy has changed since it was read first"):
        files.load([0])


def test_the_largest_value_is_that_without_its_sign(tmp_path: Path) -> None:
    table = {(0, slot): tmp_path / f"{slot}.npy" for slot in range(2)}
    for path, level in zip(table.values(), (-3.0, 2.0), strict=True):
        np.save(path, np.full((8, 8), level, np.float32))
    assert FileEstimates(table, tmp_path, DIGIT).inspect(1, Problems(), quiet).largest == 3.0


def test_a_link_to_nowhere_is_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "0_1.npy").symlink_to("nowhere.npy")
    np.save(tmp_path / "0_2.npy", np.zeros((8, 8), np.float32))
    problems = Problems()
    table = list_folder(tmp_path, DIGIT, 9, problems)
    assert list(table) == [(0, 0), (0, 1)]
    assert not problems
    FileEstimates(table, tmp_path, DIGIT).inspect(1, problems, quiet)
    assert problems.text() == "2 unreadable (0_1.npy: No such file or directory, 0_1.npy: No such file or directory)"


def test_names_of_two_lines_are_no_names(tmp_path: Path) -> None:
    for name in ("1_1\n2.npy", "1_2\n.npy", "1_1.npy"):
        np.save(tmp_path / name, np.zeros((8, 8), np.float32))
    problems = Problems()
    assert list_folder(tmp_path, DIGIT, 9, problems) == {(1, 0): tmp_path / "1_1.npy"}
    assert problems.text().startswith("2 misnamed (")
    assert "\n" not in problems.text()


def test_a_folder_that_is_none_or_gone_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, why in (("gone", "No such file or directory"), ("file", "Not a directory")):
        with pytest.raises(DataError) as caught:
            list_folder(tmp_path / name, SOUND, 9, Problems())
        assert str(caught.value) == f"{tmp_path / name} cannot be read: {why}; check that the file is there and readable"


def test_names_that_are_no_utf_8_are_in_the_digest_as_their_bytes() -> None:
    assert files_digest([("caf\udce9.png", "aa")]) == hashlib.sha256(b"aa  caf\xe9.png\n").hexdigest()


def test_names_of_an_index_are_told_and_digested_from_its_folder(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "sub").mkdir()
    names = ["sub/a.npy", "sub/b.npy"]
    for name in names:
        np.save(tmp_path / name, np.zeros((8, 8), np.float32))
    pq.write_table(pa.table({"example": [0, 0], "source": ["1", "2"], "path": names}), tmp_path / "x.parquet")
    found = open_estimates(tmp_path / "x.parquet", DIGIT, 1, Problems()).inspect(1, Problems(), quiet)
    assert found.sha256 == files_digest((name, hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()) for name in names)


class Attack:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_objects_in_archives_and_files_are_never_unpickled(tmp_path: Path) -> None:
    objects = np.array([Attack(tmp_path / "executed")], dtype=object)
    np.savez(tmp_path / "x.npz", estimates=objects)
    np.save(tmp_path / "0_1.npy", objects)
    with pytest.raises(EstimatesError, match=r"x\.npz cannot be read as \.npz \(ValueError: Object arrays cannot be loaded"):
        of_file(tmp_path / "x.npz", DIGIT, 1)
    with pytest.raises(FileProblem) as caught:
        read_signal(tmp_path / "0_1.npy", DIGIT)
    assert caught.value.kind == "unreadable"
    assert not (tmp_path / "executed").exists()


def test_numbers_of_mixtures_are_whole_where_none_is_complete(tmp_path: Path) -> None:
    problems = Problems()
    found = FileEstimates({}, tmp_path, DIGIT).inspect(1, problems, quiet)
    assert (found.examples.tolist(), found.examples.dtype) == ([], np.int64)
    assert problems.text() == "2 missing (000000_1.png, 000000_2.png)"


# --- numbers --------------------------------------------------------------------------------------------------------------------------


def test_numbers_beyond_float32_are_infinite_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert as_float32(np.array([1e300, -1e300, 1.0]), "vector").tolist() == [np.inf, -np.inf, 1.0]


def test_tensors_that_are_being_learnt_are_taken_and_stay_as_they_are() -> None:
    values = torch.full((2, 2, 8, 8), 0.5, requires_grad=True)
    estimates = of_array(values, DIGIT, 2)
    assert estimates.inspect(2, Problems(), quiet).largest == 0.5
    loaded = estimates.load([1])
    loaded.add_(1.0)
    assert (loaded.requires_grad, float(values.detach().max())) == (False, 0.5)


def test_tensors_in_memory_are_taken_in_their_own_kind_of_number() -> None:
    values = torch.linspace(0, 1, 128, dtype=torch.float64).reshape(1, 2, 8, 8) / 3
    found = of_array(values, DIGIT, 1).inspect(1, Problems(), quiet)
    assert found.sha256 == hashlib.sha256(values.numpy().tobytes()).hexdigest()
    with pytest.raises(EstimatesError, match=r"^the array holds int64, image signals are uint8, uint16, float; convert it to float32$"):
        of_array(values.long(), DIGIT, 1)


def test_only_files_of_sounds_can_be_clipped(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full(400, -32_768, np.int16))
    values, clipped = read_signal(tmp_path / "x.npy", SOUND)
    assert (float(values.min()), clipped) == (-1.0, False)


def test_one_channel_may_be_left_out_and_three_may_not(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((8, 8), np.float32))
    assert read_signal(tmp_path / "x.npy", DIGIT)[0].shape == (1, 8, 8)
    with pytest.raises(FileProblem) as caught:
        read_signal(tmp_path / "x.npy", COLOUR)
    assert caught.value.args == ("of another shape", "8 x 8 instead of 3 x 8 x 8")


# --- bytes ----------------------------------------------------------------------------------------------------------------------------


def piece(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize(("channels", "kind"), [(1, 0), (3, 2)])
def test_a_picture_byte_by_byte(channels: int, kind: int) -> None:
    """Section 11.2 of the PNG specification: 16 bits, no filter, not interlaced."""
    pixels = np.arange(channels * 2 * 3, dtype=np.uint16).reshape(channels, 2, 3) * 1_001
    rows = [b"\0" + b"".join(struct.pack(">H", pixels[c, y, x]) for x in range(3) for c in range(channels)) for y in range(2)]
    head, body = piece(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 16, kind, 0, 0, 0)), piece(b"IDAT", zlib.compress(b"".join(rows), 6))
    assert png_bytes(pixels) == b"\x89PNG\r\n\x1a\n" + head + body + piece(b"IEND", b"")


def test_half_a_picture_is_unreadable_whatever_a_package_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("PIL.Image", reason="pillow is not installed")
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    head = piece(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, 0))
    rows = np.random.default_rng(0).integers(0, 256, (64, 65), dtype=np.uint8)
    rows[:, 0] = 0  # no filter
    half = zlib.compress(rows.tobytes())
    with pytest.raises(FileProblem) as caught:
        read_png(b"\x89PNG\r\n\x1a\n" + head + piece(b"IDAT", half[: len(half) // 2]) + piece(b"IEND", b""))
    assert caught.value.kind == "unreadable"


def test_an_archive_is_compressed_and_knows_no_clock(tmp_path: Path) -> None:
    write_array(tmp_path / "x.npz", "estimates", (2, 500), [np.zeros((2, 500), ">f4")])
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        (member,) = archive.infolist()
    assert (member.filename, member.date_time, member.compress_type) == ("estimates.npy", (1980, 1, 1, 0, 0, 0), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "x.npz").stat().st_size < 500


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors"])
def test_values_are_written_little_endian_however_they_come(tmp_path: Path, suffix: str) -> None:
    values = np.arange(128, dtype=np.float32).reshape(1, 2, 8, 8)
    write_array(tmp_path / f"x.{suffix}", "estimates", values.shape, [values.astype(">f4")])
    estimates = of_file(tmp_path / f"x.{suffix}", DIGIT, 1)
    estimates.inspect(1, Problems(), quiet)
    assert np.array_equal(estimates.load([0]).numpy()[:, :, 0], values)


def test_sounds_are_plain_wav_of_floats(tmp_path: Path) -> None:
    pytest.importorskip("soundfile", reason="soundfile is not installed")
    file_writer("wav", (0.0, 1.0), 8_000)(tmp_path / "x", np.zeros((2, 5), np.float32))
    raw = (tmp_path / "x").read_bytes()
    assert (raw[:4], raw[8:16]) == (b"RIFF", b"WAVEfmt ")
    assert struct.unpack("<HHI", raw[20:28]) == (3, 2, 8_000)  # floats, channels, Hz
