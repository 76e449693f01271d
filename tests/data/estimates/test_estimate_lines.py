"""Supplied estimates at their edges, with the whole line of each that is refused: arrays in stretches, files elsewhere, names, indices, pictures."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from estimate_cases import COLOUR, DIGIT, SOUND
from safetensors.torch import save_file

from sepbench.data.estimates import arrays, png
from sepbench.data.estimates.arrays import of_array, of_file
from sepbench.data.estimates.files import FileEstimates, files_digest
from sepbench.data.estimates.names import list_folder, read_index, slots_by_name
from sepbench.data.estimates.opening import open_estimates
from sepbench.data.estimates.png import png_bytes, read_png
from sepbench.data.estimates.problems import CLIPPED, MISSING, RATE, EstimatesError, FileProblem, Problems
from sepbench.data.estimates.signals import read_signal
from sepbench.errors import DataError, SepbenchError
from sepbench.files import file_sha256


def told(do: Callable[..., object], *arguments: object, kind: type[SepbenchError] = EstimatesError) -> str:
    with pytest.raises(kind) as caught:
        do(*arguments)
    return str(caught.value)


def quiet(done: int, total: int) -> None:
    """Nobody watches."""


def rows(count: int) -> np.ndarray:
    return np.arange(count * 128, dtype=np.float32).reshape(count, 2, 1, 8, 8) / 1024


# --- arrays -------------------------------------------------------------------------------------------------------------------------


def test_arrays_are_looked_at_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_STRETCH", 3 * 128 + 1)
    values = rows(7)
    values[2, 1, 0, 7, 7], values[5, 0, 0, 0, 0], values[4, 0, 0, 0, 0] = np.nan, np.inf, -900.0
    problems, steps = Problems(), list[tuple[int, int]]()
    found = of_array(values, DIGIT, 9).inspect(7, problems, lambda done, total: steps.append((done, total)))
    assert steps == [(3, 7), (6, 7), (7, 7)]
    assert problems.text() == "2 not finite (mixture 2, mixture 5)"
    assert (found.largest, found.examples.tolist(), found.clipped) == (900.0, [*range(7)], ())
    one = of_array(values, DIGIT, 9)
    assert one.inspect(2, Problems(), quiet).largest == float(values[1].max())  # of what is planned alone
    assert of_array(values[2:3], DIGIT, 9).inspect(1, Problems(), quiet).largest == 0.0


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_values_that_are_handed_out_are_a_copy(tmp_path: Path, suffix: str) -> None:
    (np.savez if suffix == "npz" else np.save)(tmp_path / f"x.{suffix}", rows(3))
    estimates = of_file(tmp_path / f"x.{suffix}", DIGIT, 3)
    estimates.inspect(3, Problems(), quiet)
    handed = estimates.load([0, 1])
    handed.add_(1.0)
    assert torch.equal(estimates.load([0, 1]), torch.from_numpy(rows(3)[:2]))


def test_what_is_said_of_arrays(tmp_path: Path) -> None:
    fits = "the estimates of task {} are {}; {}"
    shapes: list[tuple[tuple[int, ...], Any, str]] = [
        ((3,), DIGIT, "(3) " + fits.format("digits", "(M, 2, 1, 8, 8)", "write it in this shape")),
        ((3, 2, 8, 8, 3), COLOUR, "(3, 2, 8, 8, 3) " + fits.format("colours", "(M, 2, 3, 8, 8)", "move the channels before the height")),
        ((3, 2, 400, 1), SOUND, "(3, 2, 400, 1) " + fits.format("sounds", "(M, 2, 1, 400)", "write it in this shape")),
    ]
    for shape, spec, line in shapes:
        assert told(of_array, np.zeros(shape), spec, 3) == f"the array has the shape {line.replace(') the', '), the', 1)}"
    assert told(of_array, np.zeros((1, 2, 8, 8), bool), DIGIT, 1) == "the array holds bool, image signals are uint8, uint16, float; convert it to float32"
    path = tmp_path / "x.npz"
    for ids, what in ((np.zeros((3, 1), int), "(3, 1) of int64"), (np.zeros(2, int), "(2) of int64"), (np.zeros(3), "(3) of float64")):
        np.savez(path, any=rows(3), example_ids=ids)
        assert told(of_file, path, DIGIT, 3) == f"{path}: example_ids must be 3 whole numbers, one per row; found {what}"
    np.savez(path, any=rows(3), example_ids=np.array([2, 1, 0], np.uint8))
    assert of_file(path, DIGIT, 3).inspect(3, Problems(), quiet).examples.tolist() == [0, 1, 2]
    np.savez(path, a=rows(1), b=rows(1), c=rows(1), d=rows(1))
    one = "it must hold one, and example_ids if its rows are not mixtures 0 to M - 1"
    assert told(of_file, path, DIGIT, 3) == f"{path} holds 4 arrays (a, b, c); {one}"
    path = tmp_path / "X.NPY"
    np.save(tmp_path / "x.npy", rows(2))
    (tmp_path / "x.npy").rename(path)
    estimates = of_file(path, DIGIT, 2)
    assert estimates.inspect(2, Problems(), quiet).sha256 == file_sha256(path)
    os.utime(path, ns=(7, 7))
    assert told(estimates.load, [0]) == f"{path} has changed since it was read first; leave the file alone and evaluate again"
    path.write_bytes(path.read_bytes()[:-4])
    size = path.stat().st_size
    assert told(of_file, path, DIGIT, 2).startswith(f"{path} ")
    path.write_bytes(path.read_bytes() + bytes(8))
    assert told(of_file, path, DIGIT, 2) == f"{path} has {size + 8:,} bytes, its header announces {size + 4:,}; write it anew"
    path.write_bytes(b"no array")
    assert told(of_file, path, DIGIT, 2).startswith(f"{path} cannot be read as .npy (")
    assert told(of_file, path, DIGIT, 2).endswith("; write it anew")
    gone = tmp_path / "gone.npy"
    assert told(of_file, gone, DIGIT, 2, kind=DataError) == f"{gone} cannot be read: No such file or directory; check that the file is there and readable"


def test_a_run_s_own_safetensors_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    values = torch.from_numpy(rows(3))
    save_file({"estimates": values, "seconds": torch.zeros(3), "other": torch.zeros(1), "example_ids": torch.tensor([4, 2, 0])}, path)
    estimates = of_file(path, DIGIT, 5)
    assert estimates.inspect(5, problems := Problems(), quiet).examples.tolist() == [0, 2, 4]
    assert problems.text() == "2 missing (mixture 1, mixture 3)"
    assert torch.equal(estimates.load([0, 4]), values[[2, 0]])
    save_file({"mine": values, "seconds": torch.zeros(3)}, path)
    assert of_file(path, DIGIT, 5).inspect(1, Problems(), quiet).examples.tolist() == [0]
    save_file({"mine": values[:0]}, path)
    assert of_file(path, DIGIT, 5).inspect(1, Problems(), quiet).examples.tolist() == []


# --- files and names ----------------------------------------------------------------------------------------------------------------


def test_files_elsewhere_have_their_whole_paths_in_the_digest(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    table = {}
    for folder, slot in ((root / "sub", 0), (other, 1)):
        folder.mkdir(parents=True)
        table[0, slot] = folder / "x.npy"
        np.save(table[0, slot], np.full((8, 8), slot, np.float32))
    found = FileEstimates(table, root, DIGIT).inspect(1, problems := Problems(), quiet)
    digests = [file_sha256(table[0, slot]) for slot in range(2)]
    lines = sorted([("sub/x.npy", digests[0]), ((other / "x.npy").as_posix(), digests[1])])
    assert found.sha256 == files_digest(lines) == hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in lines).encode()).hexdigest()
    assert not problems
    table[0, 1].write_bytes(b"")
    table[0, 0].unlink()
    FileEstimates(table, root, DIGIT).inspect(1, problems := Problems(), quiet)
    assert problems.text().startswith("3 unreadable (sub/x.npy: No such file or directory, ")
    assert problems.text().endswith(", sub/x.npy: No such file or directory)")


def listed(folder: Path, *names: str, n: int = 20) -> tuple[list[tuple[int, int]], str]:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    problems = Problems()
    return list(list_folder(folder, SOUND, n, problems)), problems.text()


def test_what_is_passed_over_and_what_is_misnamed(tmp_path: Path) -> None:
    fine = ("7/.DS_Store", "7/mixture.flac", "7/mixture.txt", "manifest.json", ".git/x", "7/1.wav", "000000000008_2.WAV")
    assert listed(tmp_path / "a", *fine) == ([(8, 1), (7, 0)], "")
    assert listed(tmp_path / "b", "7/sub/") == ([], "1 misnamed (7/sub)")
    assert listed(tmp_path / "c", "7/manifest.json", "mixture.wav") == ([], "2 misnamed (7/manifest.json, mixture.wav)")
    assert listed(tmp_path / "d", "0000000000008_1.wav", "1234567890123/1.wav", "x/1.wav") == (
        [],
        "3 misnamed (0000000000008_1.wav, 1234567890123/, x/)",
    )
    assert listed(tmp_path / "e", "1_.wav", "1_1", "_1.wav", "1_1.wav.txt", "²_1.wav") == ([], "5 misnamed (1_.wav, 1_1, 1_1.wav.txt and 2 more)")
    assert listed(tmp_path / "f", "19_1.wav", "20_1.wav", "0_0.wav", "0_3.wav") == ([(19, 0)], "3 extra (0_0.wav, 0_3.wav, 20_1.wav)")
    assert slots_by_name(replace(SOUND, source_classes=("a", "a"), n_sources=2)) == {"1": 0, "2": 1}


def index(at: Path, **columns: Sequence[object]) -> Path:
    pq.write_table(pa.table(dict(columns)), at)
    return at


def test_what_is_said_of_an_index(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    for name in ("source", "path", "example"):
        columns: dict[str, Sequence[object]] = {"example": [0], "source": ["1"], "path": ["a.wav"]}
        del columns[name]
        lack = "an index of estimates has the columns example, source and path"
        assert told(read_index, index(path, **columns), SOUND, 9, Problems()) == f"{path} has no column {name}; {lack}"
    index(path, example=[0.0], source=["1"], path=["a.wav"])
    assert told(read_index, path, SOUND, 9, Problems()) == f"{path}: column example must hold whole numbers, the numbers of the mixtures"
    path.write_bytes(b"PAR1")
    assert told(read_index, path, SOUND, 9, Problems()).startswith(f"{path} is no readable Parquet file (")
    gone = tmp_path / "gone.parquet"
    wanted = f"{gone} cannot be read: No such file or directory; check that the file is there and readable"
    assert told(read_index, gone, SOUND, 9, Problems(), kind=DataError) == wanted
    (tmp_path / "a.wav").touch()
    (tmp_path / "b.wav").mkdir()
    cells: list[tuple[int | None, str | None, str | None]] = [
        *((0, "1", "a.wav"), (0, "drums", "a.wav"), (None, "2", "a.wav"), (1, None, "a.wav"), (1, "2", None)),
        *((1, "2", "a.png"), (1, "2", "b.wav"), (9, "1", "a.wav"), (2, "vocals", "a.wav"), (8, "bass", "a.wav")),
    ]
    examples, sources, names = zip(*cells, strict=True)
    table = read_index(index(path, example=examples, source=sources, path=names), SOUND, 9, problems := Problems())
    assert list(table) == [(0, 0), (8, 1)]
    assert problems.text() == "1 there twice (a.wav), 4 misnamed (a.wav, a.wav, None and 1 more), 1 missing (b.wav), 2 extra (a.wav, a.wav)"


def test_what_may_be_supplied_and_what_is_said_of_the_rest(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", rows(2))
    for given in (tmp_path / "x.npy", str(tmp_path / "x.npy"), rows(2), torch.from_numpy(rows(2))):
        assert open_estimates(given, DIGIT, 2, Problems()).inspect(2, Problems(), quiet).examples.tolist() == [0, 1]
    folder = tmp_path / "y.npy"  # a folder, whatever it is called
    folder.mkdir()
    np.save(folder / "0_1.npy", np.zeros((8, 8)))
    assert isinstance(open_estimates(folder, DIGIT, 2, Problems()), FileEstimates)
    none, text, empty = tmp_path / "none", tmp_path / "x.txt", tmp_path / "empty"
    text.touch()
    empty.mkdir()
    index(tmp_path / "i.parquet", example=[0], source=["1"], path=["a.wav"])
    draws = "task digits scores 7 draws per mixture; give one array (M, N, K, ...) as .npy"
    cases: list[tuple[Path, Any, str]] = [
        (none, DIGIT, f"there is no {none}; name the file or the folder that holds the estimates"),
        (text, DIGIT, f"{text} is no .npy, .npz, .safetensors or .parquet file; give one of these, or a folder of images or sounds"),
        (empty, replace(DIGIT, posterior_draws=7), f"{empty}: {draws}"),
        (tmp_path / "i.parquet", replace(DIGIT, posterior_draws=7), f"{tmp_path / 'i.parquet'}: {draws}"),
        (empty, SOUND, f"{empty} is empty; it must hold one file per mixture and source, 000012_1.wav or 000012_1.flac or 000012_1.npy"),
    ]
    for path, spec, line in cases:
        assert told(open_estimates, path, spec, 2, Problems()) == line
    (empty / "x").touch()
    open_estimates(empty, SOUND, 2, problems := Problems())
    assert problems.text() == "1 misnamed (x)"


def test_what_to_do_next_is_said_of_every_kind_once() -> None:
    problems = Problems()
    for kind in (MISSING, CLIPPED, RATE, MISSING):
        problems.add(kind, "a")
    partial, clipped = (
        "add them, or score what is there with --partial",
        "write them at a lower level or as 32-bit float, or score them as they are with --allow-clipped",
    )
    text = "2 missing (a, a), 1 clipped (a), 1 of another sample rate (a)"
    assert told(problems.check, "F") == f"F cannot be scored: {text}; {partial}; {clipped}"
    problems.advise(CLIPPED, partial)
    assert told(problems.check, "F") == f"F cannot be scored: {text}; {partial}"
    problems.forgive(MISSING)
    problems.forgive(CLIPPED)
    assert told(problems.check, "F") == "F cannot be scored: 1 of another sample rate (a); mend these and evaluate again"


# --- pictures and sounds --------------------------------------------------------------------------------------------------------------


def picture(depth: int = 16, colour: int = 0, interlaced: int = 0, raw: bytes = b"\0" + bytes(4), more: bytes = b"", width: int = 2, height: int = 1) -> bytes:
    def piece(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + more + piece(b"IDAT", zlib.compress(raw)) + piece(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "kind", "detail"),
    [
        (picture(colour=3), "of another kind of number", "a palette, not grey or RGB"),
        (picture(colour=4), "of another kind of number", "grey with transparency, not grey or RGB"),
        (picture(colour=5), "of another kind of number", "colour type 5, not grey or RGB"),
        (picture(depth=4), "of another kind of number", "4 bits per channel, not 8 or 16"),
        (picture(interlaced=1), "of another kind of number", "interlaced, which is read for 8 bits only"),
        (picture(more=struct.pack(">I", 2) + b"tRNS\0\0" + struct.pack(">I", zlib.crc32(b"tRNS\0\0"))), "of another kind of number", "transparent pixels"),
        (picture(raw=b"\5" + bytes(4)), "unreadable", "filter 5"),
        (picture(raw=bytes(4)), "unreadable", "4 bytes of pixels instead of 5"),
        (picture()[:-1], "unreadable", "cut off"),
        (picture()[:20] + b"\x01" + picture()[21:], "unreadable", "damaged at byte 8"),
        (picture()[:32], "unreadable", "no PNG file"),
    ],
    ids=["palette", "grey and alpha", "type 5", "4 bits", "interlaced", "tRNS", "filter 5", "short", "cut off", "damaged", "head"],
)
def test_what_is_said_of_pictures(data: bytes, kind: str, detail: str) -> None:
    with pytest.raises(FileProblem) as caught:
        read_png(data)
    assert (caught.value.kind, caught.value.detail) == (kind, detail)


def test_interlaced_pictures_of_eight_bits_and_what_lies_behind_the_end() -> None:
    assert read_png(picture(raw=b"\0" + b"\x12\x34\xff\xff") + b"behind").tolist() == [[[0x1234, 0xFFFF]]]
    assert read_png(picture(depth=8, interlaced=1, raw=b"\0\x11\0\x22", width=2))[0, 0].tolist() == [0x11, 0x22]
    nearest = {(10, 20, 15): 15, (1, 5, 1): 5, (5, 1, 1): 5, (3, 6, 5): 3, (6, 3, 5): 3, (2, 4, 9): 2}  # of equals the left one, then the one above
    assert {abc: png._paeth(*abc) for abc in nearest} == nearest
    pixels = np.array([[[1, 65_535]], [[2, 3]], [[4, 5]]], np.uint16)
    data = png_bytes(pixels)
    assert struct.unpack(">IIBBBBB", data[16:29]) == (2, 1, 16, 2, 0, 0, 0)
    assert zlib.decompress(data[41:-16]) == b"\0" + struct.pack(">6H", 1, 2, 4, 65_535, 3, 5)


def test_only_files_of_sounds_can_be_clipped(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    loud = np.ones(400, np.float32)
    np.save(tmp_path / "x.npy", loud)
    assert not read_signal(tmp_path / "x.npy", SOUND)[1]
    for subtype, largest in (("PCM_U8", 127 / 128), ("PCM_16", 32_767 / 32_768), ("FLOAT", 1.0)):
        soundfile.write(tmp_path / "x.wav", loud * largest, 8000, subtype=subtype)
        values, clipped = read_signal(tmp_path / "x.wav", SOUND)
        assert (clipped, float(values.max())) == (True, pytest.approx(largest, abs=1e-6))
        soundfile.write(tmp_path / "x.wav", loud * (largest - 0.02), 8000, subtype=subtype)
        assert not read_signal(tmp_path / "x.wav", SOUND)[1]
    np.save(tmp_path / "y.npy", np.ones((8, 8), np.float32))
    assert not read_signal(tmp_path / "y.npy", DIGIT)[1]
    for path, spec, wanted in (
        (tmp_path / "x.wav", replace(SOUND, sample_rate=None), "of another sample rate: 8,000 Hz instead of 0 Hz"),
        (tmp_path / "none.png", DIGIT, "unreadable: No such file or directory"),
        (tmp_path / "x.npy", DIGIT, "of another shape: 400 instead of 1 x 8 x 8"),
    ):
        with pytest.raises(FileProblem) as caught:
            read_signal(path, spec)
        assert f"{caught.value.kind}: {caught.value.detail}" == wanted
    (tmp_path / "z.png").write_bytes(png_bytes(np.zeros((3, 8, 8), np.uint16)))
    with pytest.raises(FileProblem) as caught:
        read_signal(tmp_path / "z.png", replace(DIGIT, source_shape=(2, 8, 8)))
    assert caught.value.detail == "colour, the task has 2 channels"
