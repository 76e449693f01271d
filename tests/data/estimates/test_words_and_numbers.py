"""Supplied estimates: the counts and names in what is refused, scales of numbers, and digests, by hand."""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from estimate_cases import COLOUR, DIGIT, SOUND

from sepbench.data.estimates import numbers
from sepbench.data.estimates.arrays import _as_slice, of_array, of_file
from sepbench.data.estimates.files import FileEstimates, files_digest
from sepbench.data.estimates.numbers import as_float32, is_clipped, scale_of
from sepbench.data.estimates.opening import open_estimates
from sepbench.data.estimates.problems import CLIPPED, EXTRA, MISSING, TWICE, EstimatesError, FileProblem, Problems
from sepbench.data.estimates.signals import read_signal
from sepbench.data.estimates.writers import file_writer, write_array


def _quiet(done: int, total: int) -> None:
    """Nobody watches."""


# ---- words -----------------------------------------------------------------------------------------------------------------------------


def test_problems_are_counted_and_three_named() -> None:
    problems = Problems()
    assert not problems
    assert problems.text() == ""
    problems.check("x")
    for number in range(1_004):
        problems.add(MISSING, f"{number}.png")
    problems.add(EXTRA, "z.png", "why")
    assert problems.text() == "1,004 missing (0.png, 1.png, 2.png and 1,001 more), 1 extra (z.png: why)"
    with pytest.raises(EstimatesError) as caught:
        problems.check("there")
    assert str(caught.value).startswith("there cannot be scored: 1,004 missing")
    assert "--partial" in str(caught.value)
    problems.forgive(MISSING)
    assert problems.text() == "1 extra (z.png: why)"
    with pytest.raises(EstimatesError, match=r"evaluate again$"):
        problems.check("there")
    problems.advise(EXTRA, "do this")
    problems.add(CLIPPED, "a")
    with pytest.raises(EstimatesError, match="; do this; write them at a lower level"):
        problems.check("there")
    problems.forgive(EXTRA)
    problems.forgive(CLIPPED)
    problems.forgive(CLIPPED)
    assert not problems
    problems.add(TWICE, "a" * 100 + "b" * 100)
    assert "(" + "a" * 40 + "..." + "b" * 40 + ")" in problems.text()
    problems.forgive(TWICE)
    problems.add(TWICE, "a" * 80)
    assert "a" * 80 in problems.text()


# ---- numbers ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "dtype", "scale"),
    [
        ("image", "uint8", 255.0),
        ("image", ">u2", 65_535.0),
        ("audio", "int16", 32_768.0),
        ("audio", ">i4", 2.0**31),
        ("vector", "float64", 1.0),
        ("image", "float16", 1.0),
    ],
)
def test_scales_of_whole_numbers(domain: Any, dtype: str, scale: float) -> None:
    assert scale_of(np.dtype(dtype), domain) == scale
    largest = 1 if np.dtype(dtype).kind == "f" else np.iinfo(np.dtype(dtype)).max
    found = as_float32(np.array([largest, 0], dtype), domain)
    assert found.dtype == np.float32
    assert found[0] == np.float32(largest / scale)
    assert found[1] == 0


@pytest.mark.parametrize(
    ("domain", "dtype", "taken"), [("image", "int16", "uint8, uint16, float"), ("audio", "uint8", "int16, int32, float"), ("vector", "int32", "float")]
)
def test_numbers_that_nobody_has_explained(domain: Any, dtype: str, taken: str) -> None:
    with pytest.raises(FileProblem) as caught:
        scale_of(np.dtype(dtype), domain)
    assert caught.value.detail == f"{dtype}, {domain} signals are {taken}"
    for other in ("bool", "complex64", "longdouble"):
        with pytest.raises(FileProblem):
            scale_of(np.dtype(other), domain)


@pytest.mark.parametrize(
    ("samples", "full_scale", "clipped"),
    [
        ([0, 1, 1, 1, 0], 1.0, True),
        ([0, 1, 1, 0, 1], 1.0, False),
        ([-1, -1, -1], 1.0, True),
        ([1, -1, 1, -1, 1], 1.0, False),
        ([1, 1], 1.0, False),
        ([0.5, 0.5, 0.5], 0.5, True),
        ([0, 0, 0.5, 0.5, 0.5], 1.0, False),
        ([0, 0, 1, 1, 1], 1.0, True),
    ],
)
def test_three_samples_at_full_scale_are_clipped(samples: list[float], full_scale: float, clipped: bool) -> None:
    silent = np.zeros(len(samples))
    assert is_clipped(np.array([silent, samples], dtype=np.float32), full_scale) is clipped
    assert not is_clipped(np.array([[1, 1, 0], [0, 0, 1]], dtype=np.float32))  # not across channels
    assert numbers._RUN == 3


# ---- arrays ----------------------------------------------------------------------------------------------------------------------------


def _rows(count: int) -> Any:
    return np.arange(count * 2 * 64, dtype=np.float32).reshape(count, 2, 1, 8, 8) / 1_000


@pytest.mark.parametrize("ending", ["npy", "npz", "safetensors"])
def test_arrays_are_written_and_read_bit_by_bit(tmp_path: Path, ending: str) -> None:
    values = _rows(5)
    write_array(tmp_path / f"x.{ending}", "estimates", values.shape, iter([values[:2], values[2:]]))
    found = of_file(tmp_path / f"x.{ending}", DIGIT, 5)
    problems = Problems()
    seen = found.inspect(4, problems, _quiet)
    assert not problems
    assert seen.examples.tolist() == [0, 1, 2, 3]
    assert seen.largest == np.abs(values[:4]).max()
    assert seen.sha256 == hashlib.sha256((tmp_path / f"x.{ending}").read_bytes()).hexdigest()
    assert np.array_equal(found.load([3, 1]).numpy(), values[[3, 1]])
    assert np.array_equal(found.load([1, 2]).numpy(), values[1:3])
    (tmp_path / f"x.{ending}").write_bytes((tmp_path / f"x.{ending}").read_bytes() + b"x")
    with pytest.raises(EstimatesError, match=f"{ending} has changed"):
        found.load([0])


def test_rows_of_an_array_are_named_by_their_ids(tmp_path: Path) -> None:
    values = _rows(4)
    values[3, 0, 0, 0, 0] = np.nan
    np.savez(tmp_path / "x.npz", any=values, example_ids=np.array([3, 9, 0, 1]))
    found, problems = of_file(tmp_path / "x.npz", DIGIT, 8), Problems()
    seen = found.inspect(4, problems, _quiet)
    assert seen.examples.tolist() == [0, 1, 3]
    assert seen.largest == np.abs(values[[0, 2]]).max()
    assert problems.text() == "1 extra (mixture 9), 1 missing (mixture 2), 1 not finite (mixture 1)"
    assert np.array_equal(found.load([3, 0]).numpy(), values[[0, 2]])
    np.savez(tmp_path / "y.npz", any=values, example_ids=np.array([3, 3, 8, -1]))
    problems = Problems()
    of_file(tmp_path / "y.npz", DIGIT, 8).inspect(1, problems, _quiet)
    assert problems.text().startswith("1 there twice (mixture 3), 2 extra (mixture 8, mixture -1), 1 missing (mixture 0)")


@pytest.mark.parametrize(
    ("shape", "spec", "told"),
    [
        ((), DIGIT, "the array has the shape () of a single number, the estimates of task digits are (M, 2, 1, 8, 8); write it"),
        ((3, 2, 8, 9), DIGIT, "the array has the shape (3, 2, 8, 9), the estimates of task digits are (M, 2, 1, 8, 8); write it"),
        ((3, 2, 8, 8, 3), COLOUR, "the array has the shape (3, 2, 8, 8, 3), the estimates of task colours are (M, 2, 3, 8, 8); move the channels"),
        ((3, 2, 8, 8), COLOUR, "the estimates of task colours are (M, 2, 3, 8, 8); write it"),
        ((3, 2, 1, 8, 8), replace(DIGIT, posterior_draws=5), "are (M, 5, 2, 1, 8, 8)"),
    ],
)
def test_arrays_of_another_shape(shape: tuple[int, ...], spec: Any, told: str) -> None:
    with pytest.raises(EstimatesError) as caught:
        of_array(np.zeros(shape, np.float32), spec, 3)
    assert told in str(caught.value)
    of_array(np.zeros((3, 2, 8, 8), np.float32), DIGIT, 3)


def test_what_an_archive_must_hold(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=_rows(1), b=_rows(1))
    with pytest.raises(EstimatesError, match=r"x\.npz holds 2 arrays \(a, b\)"):
        of_file(tmp_path / "x.npz", DIGIT, 1)
    np.savez(tmp_path / "y.npz", example_ids=np.arange(1))
    with pytest.raises(EstimatesError, match=r"y\.npz holds 0 arrays \(none\)"):
        of_file(tmp_path / "y.npz", DIGIT, 1)
    np.savez(tmp_path / "z.npz", a=_rows(2), example_ids=np.arange(3.0))
    with pytest.raises(EstimatesError, match=r"must be 2 whole numbers, one per row; found \(3\) of float64"):
        of_file(tmp_path / "z.npz", DIGIT, 1)
    np.save(tmp_path / "x.npy", _rows(2))
    size = (tmp_path / "x.npy").stat().st_size
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes() + b"12345")
    with pytest.raises(EstimatesError, match=f"has {size + 5:,} bytes, its header announces {size:,}"):
        of_file(tmp_path / "x.npy", DIGIT, 2)
    with pytest.raises(EstimatesError, match="the array holds int64, image signals are uint8, uint16, float"):
        of_array(np.zeros((1, 2, 1, 8, 8), np.int64), DIGIT, 1)


def test_digests_of_arrays_in_memory_are_of_their_bytes() -> None:
    values = _rows(3)
    wanted = hashlib.sha256(values.tobytes()).hexdigest()
    for one in (values, values.astype(">f4"), torch.from_numpy(values), np.asfortranarray(values)):
        assert of_array(one, DIGIT, 3).inspect(1, Problems(), _quiet).sha256 == wanted
    half = torch.from_numpy(values).bfloat16()
    assert torch.equal(of_array(half, DIGIT, 3).load([]).reshape(-1), torch.zeros(0))
    assert _as_slice([3, 4, 5]) == slice(3, 6)
    assert _as_slice([3, 5]) == [3, 5]
    assert _as_slice([5, 4]) == [5, 4]
    assert _as_slice([]) == []


# ---- files -----------------------------------------------------------------------------------------------------------------------------


def test_the_digest_of_files_is_what_sha256sum_prints() -> None:
    lines = "bb  a.png\naa  b.png\n"
    assert files_digest([("b.png", "aa"), ("a.png", "bb")]) == hashlib.sha256(lines.encode()).hexdigest()


def test_missing_files_are_named_like_their_neighbours(tmp_path: Path) -> None:
    def missing(name: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.zeros((1, 8, 8), np.float32)) if name.endswith(".npy") else path.touch()
        problems = Problems()
        seen = FileEstimates({(0, 0): path}, tmp_path, DIGIT).inspect(2, problems, _quiet)
        assert seen.examples.tolist() == []
        return problems.text()

    assert missing("0_1.npy").startswith("3 missing (000000_2.npy, 000001_1.npy, 000001_2.npy)")
    assert "000000/2.npy, 000001/1.npy" in missing("000000/1.npy")
    problems = Problems()
    FileEstimates({}, tmp_path, SOUND).inspect(1, problems, _quiet)
    assert problems.text() == "2 missing (000000_1.wav, 000000_2.wav)"


def test_files_are_read_where_they_belong(tmp_path: Path) -> None:
    table = {}
    for example in range(2):
        for slot in range(2):
            table[example, slot] = tmp_path / f"{example}_{slot + 1}.npy"
            np.save(table[example, slot], np.full((8, 8), 10 * example + slot, np.float32))
    estimates, told = FileEstimates(table, tmp_path, DIGIT), list[tuple[int, int]]()
    seen = estimates.inspect(2, Problems(), lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    assert seen.largest == 11.0
    assert seen.examples.tolist() == [0, 1]
    assert estimates.load([1, 0])[:, :, 0, 0, 0].tolist() == [[10.0, 11.0], [0.0, 1.0]]
    np.save(table[1, 0], np.zeros((1, 8, 8), np.float64))
    with pytest.raises(EstimatesError, match=r"1_1\.npy has changed"):
        estimates.load([1])
    assert estimates.load([0]).shape == (1, 2, 1, 8, 8)


def _png(array: Any, path: Path) -> Path:
    from PIL import Image

    Image.fromarray(array).save(path)
    return path


def test_signals_that_do_not_fit_are_told_both_ways(tmp_path: Path) -> None:
    import soundfile

    grey, colour = _png(np.zeros((8, 8), np.uint8), tmp_path / "g.png"), _png(np.zeros((8, 8, 3), np.uint8), tmp_path / "c.png")
    wide = _png(np.zeros((8, 9), np.uint8), tmp_path / "w.png")
    soundfile.write(tmp_path / "r.wav", np.zeros(400), 16_000)
    soundfile.write(tmp_path / "s.wav", np.zeros((300, 2)), 8_000)
    np.save(tmp_path / "n.npy", np.full((1, 8, 8), np.inf, np.float32))
    for path, spec, kind, detail in (
        (grey, COLOUR, "grey or colour where the task has the other", "grey, the task has colour"),
        (colour, DIGIT, "grey or colour where the task has the other", "colour, the task has grey"),
        (wide, DIGIT, "of another shape", "1 x 8 x 9 instead of 1 x 8 x 8"),
        (tmp_path / "r.wav", SOUND, "of another sample rate", "16,000 Hz instead of 8,000 Hz"),
        (tmp_path / "s.wav", SOUND, "of another shape", "2 x 300 samples instead of 1 x 400 samples"),
        (tmp_path / "n.npy", DIGIT, "not finite", ""),
    ):
        with pytest.raises(FileProblem) as caught:
            read_signal(path, spec)
        assert (caught.value.kind, caught.value.detail) == (kind, detail)
    with pytest.raises(FileProblem) as caught:
        read_signal(tmp_path / "none.npy", DIGIT)
    assert caught.value.kind == "unreadable"


@pytest.mark.parametrize(("subtype", "step"), [("PCM_16", 2.0**-15), ("PCM_24", 2.0**-23), ("FLOAT", 0.0)])
def test_sounds_at_full_scale(tmp_path: Path, subtype: str, step: float) -> None:
    import soundfile

    for level, clipped in ((1.0 - step, True), (1.0 - 4 * step - 0.01, False), (-1.0, True)):
        samples = np.zeros(400)
        samples[5:8] = level
        soundfile.write(tmp_path / "x.wav", samples, 8_000, subtype=subtype)
        values, found = read_signal(tmp_path / "x.wav", SOUND)
        assert values.shape == (1, 400)
        assert values[0, 5] == pytest.approx(level, abs=2e-4)
        assert found is clipped


def test_clipped_files_are_told_with_their_place(tmp_path: Path) -> None:
    import soundfile

    table = {(0, slot): tmp_path / f"0_{slot + 1}.wav" for slot in range(2)}
    soundfile.write(table[0, 0], np.zeros(400), 8_000)
    soundfile.write(table[0, 1], np.full(400, -1.0), 8_000)
    assert FileEstimates(table, tmp_path, SOUND).inspect(1, Problems(), _quiet).clipped == ((0, 1, "0_2.wav"),)


def test_pictures_are_written_by_the_stated_rule(tmp_path: Path) -> None:
    from sepbench.data.estimates.png import read_png

    write = file_writer("png", (-1.0, 3.0), 0)
    signal = np.array([[[-1.0, 3.0, 1.0, -7.0, 9.0, 0.0]]], np.float32)
    write(tmp_path / "x.png", signal)
    pixels = read_png((tmp_path / "x.png").read_bytes())
    assert pixels.reshape(-1).tolist() == [0, 65_535, round(65_535 / 2), 0, 65_535, round(65_535 / 4)]
    file_writer("wav", (0.0, 1.0), 8_000)(tmp_path / "x.wav", np.linspace(-2, 2, 400, dtype=np.float32)[None])
    assert np.array_equal(read_signal(tmp_path / "x.wav", SOUND)[0], np.linspace(-2, 2, 400, dtype=np.float32)[None])


def test_the_head_of_safetensors_is_padded_to_eight(tmp_path: Path) -> None:
    for name in ("a", "ab", "abc", "abcdefgh"):
        write_array(tmp_path / "x.safetensors", name, (2, 3), [np.ones((2, 3), np.float32)])
        raw = io.BytesIO((tmp_path / "x.safetensors").read_bytes())
        (length,) = struct.unpack("<Q", raw.read(8))
        assert length % 8 == 0
        assert len(raw.getvalue()) == 8 + length + 24


# ---- what may be supplied --------------------------------------------------------------------------------------------------------------


def test_what_is_no_estimate(tmp_path: Path) -> None:
    (tmp_path / "x.txt").touch()
    (tmp_path / "empty").mkdir()
    for path, spec, told in (
        (tmp_path / "none", DIGIT, f"there is no {tmp_path / 'none'}"),
        (tmp_path / "x.txt", DIGIT, r"x\.txt is no \.npy, \.npz, \.safetensors or \.parquet file"),
        (tmp_path / "empty", DIGIT, r"empty is empty; .*000012_1\.png or 000012_1\.npy"),
        (tmp_path / "empty", replace(DIGIT, posterior_draws=7), "task digits scores 7 draws per mixture"),
    ):
        with pytest.raises(EstimatesError, match=told):
            open_estimates(path, spec, 5, Problems())
