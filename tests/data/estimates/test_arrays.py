"""Arrays of estimates in every format: rows by mixture, numbers by one rule, stretches and not the whole in memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from estimate_cases import COLOUR, DIGIT, SOUND
from safetensors.torch import save_file

from sepbench.data.estimates.arrays import ArrayEstimates, of_array, of_file
from sepbench.data.estimates.problems import EstimatesError, Problems
from sepbench.data.estimates.supplied import Inspection
from sepbench.files import file_sha256
from sepbench.protocols import TaskSpec

VALUES = np.random.Generator(np.random.PCG64(0)).random((6, 2, 1, 8, 8)).astype(np.float32)


def _write(path: Path, values: np.ndarray, ids: list[int] | None = None) -> Path:
    more = {} if ids is None else {"example_ids": np.array(ids)}
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez_compressed(path, anything=values, **more)  # type: ignore[arg-type]
    else:
        save_file({"anything": torch.from_numpy(values), **{name: torch.from_numpy(value) for name, value in more.items()}}, path)
    return path


def inspected(estimates: ArrayEstimates, n: int) -> tuple[Inspection, str]:
    problems = Problems()
    return estimates.inspect(n, problems, lambda done, total: None), problems.text()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_rows_are_mixtures(tmp_path: Path, suffix: str) -> None:
    path = _write(tmp_path / f"mine{suffix}", VALUES)
    estimates = of_file(path, DIGIT, 10)
    found, problems = inspected(estimates, 6)
    assert problems == ""
    assert found.sha256 == file_sha256(path)
    np.testing.assert_array_equal(estimates.load([2, 3, 4]).numpy(), VALUES[2:5])
    np.testing.assert_array_equal(estimates.load([5, 0]).numpy(), VALUES[[5, 0]])


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_rows_may_say_which_mixtures_they_are(tmp_path: Path, suffix: str) -> None:
    estimates = of_file(_write(tmp_path / f"mine{suffix}", VALUES, [9, 3, 3, 10, -1, 0]), DIGIT, 10)
    found, problems = inspected(estimates, 4)
    assert found.examples.tolist() == [0, 3]
    assert problems == "1 there twice (mixture 3), 2 extra (mixture 10, mixture -1), 2 missing (mixture 1, mixture 2)"
    np.testing.assert_array_equal(estimates.load([0, 3]).numpy(), VALUES[[5, 1]])


def test_an_array_in_memory_is_its_bytes() -> None:
    whole, halves = (of_array(values, DIGIT, 10) for values in (VALUES, torch.from_numpy(VALUES)))
    assert inspected(whole, 6)[0].sha256 == inspected(halves, 6)[0].sha256
    assert inspected(of_array(VALUES[::-1], DIGIT, 10), 6)[0].sha256 != inspected(whole, 6)[0].sha256
    np.testing.assert_array_equal(whole.load([4]).numpy(), VALUES[4:5])


@pytest.mark.parametrize(
    ("spec", "values", "expected"),
    [
        (DIGIT, np.full((1, 2, 8, 8), 51, np.uint8), np.float32(0.2)),
        (DIGIT, np.full((1, 2, 1, 8, 8), 13_107, ">u2"), np.float32(0.2)),
        (DIGIT, np.full((1, 2, 8, 8), 0.2, np.float64), np.float32(0.2)),
        (DIGIT, np.full((1, 2, 8, 8), 0.25, np.float16), np.float32(0.25)),
        (SOUND, np.full((1, 2, 400), -32_768, np.int16), np.float32(-1)),
        (SOUND, np.full((1, 2, 1, 400), 2**30, np.int32), np.float32(0.5)),
    ],
)
def test_whole_numbers_become_floats_by_the_stated_rule(tmp_path: Path, spec: TaskSpec, values: np.ndarray, expected: np.float32) -> None:
    estimates = of_file(_write(tmp_path / "mine.npy", values), spec, 1)
    assert inspected(estimates, 1)[1] == ""
    assert (estimates.load([0]).numpy() == expected).all()
    assert estimates.load([0]).shape == (1, 2, *spec.source_shape)


def test_brain_floats_are_floats(tmp_path: Path) -> None:
    save_file({"x": torch.from_numpy(VALUES).bfloat16()}, tmp_path / "mine.safetensors")
    estimates = of_file(tmp_path / "mine.safetensors", DIGIT, 6)
    inspected(estimates, 6)
    np.testing.assert_array_equal(estimates.load([1]).numpy(), torch.from_numpy(VALUES[1:2]).bfloat16().float().numpy())


@pytest.mark.parametrize(
    ("spec", "values", "words"),
    [
        (DIGIT, np.zeros((6, 3, 1, 8, 8)), r"has the shape \(6, 3, 1, 8, 8\), the estimates of task digits are \(M, 2, 1, 8, 8\)"),
        (DIGIT, np.zeros(6), "has the shape"),
        (COLOUR, np.zeros((6, 2, 8, 8, 3)), "move the channels before the height"),
        (DIGIT, np.zeros((6, 2, 8, 8), complex), "holds complex128, image signals are uint8, uint16, float; convert it to float32"),
        (SOUND, np.zeros((6, 2, 400), np.uint8), "holds uint8, audio signals are int16, int32, float"),
        (DIGIT, np.array([["x"]], object), "cannot be read as .npy"),
    ],
)
def test_an_array_that_does_not_fit(tmp_path: Path, spec: TaskSpec, values: np.ndarray, words: str) -> None:
    np.save(tmp_path / "mine.npy", values)
    with pytest.raises(EstimatesError, match=words):
        of_file(tmp_path / "mine.npy", spec, 10)


def test_files_that_are_none(tmp_path: Path) -> None:
    for suffix in (".npy", ".npz", ".safetensors"):
        path = tmp_path / f"mine{suffix}"
        path.write_bytes(b"nothing of the kind, and long enough for a header")
        with pytest.raises(EstimatesError, match="cannot be read as"):
            of_file(path, DIGIT, 10)
    whole = _write(tmp_path / "whole.npy", VALUES).read_bytes()
    for wrong in (whole[:-4], whole + bytes(4)):
        (tmp_path / "mine.npy").write_bytes(wrong)
        with pytest.raises(EstimatesError, match=r"mine\.npy"):
            of_file(tmp_path / "mine.npy", DIGIT, 10)
    np.savez(tmp_path / "two.npz", a=VALUES, b=VALUES)
    with pytest.raises(EstimatesError, match=r"holds 2 arrays \(a, b\); it must hold one"):
        of_file(tmp_path / "two.npz", DIGIT, 10)
    _write(tmp_path / "ids.npz", VALUES, [1, 2])
    with pytest.raises(EstimatesError, match="example_ids must be 6 whole numbers"):
        of_file(tmp_path / "ids.npz", DIGIT, 10)


def test_missing_and_bad_mixtures_are_told() -> None:
    values = VALUES.copy()
    values[[0, 1, 3, 4], 0, 0, 0, 0] = [np.nan, np.inf, -np.inf, np.nan]
    found, problems = inspected(of_array(values, DIGIT, 10), 8)
    assert found.examples.tolist() == list(range(6))
    assert problems == "2 missing (mixture 6, mixture 7), 4 not finite (mixture 0, mixture 1, mixture 3 and 1 more)"


def test_posterior_draws_have_an_axis_of_their_own(tmp_path: Path) -> None:
    spec = replace(DIGIT, posterior_draws=5)
    estimates = of_file(_write(tmp_path / "mine.npy", np.zeros((3, 5, 2, 1, 8, 8))), spec, 3)
    inspected(estimates, 3)
    assert estimates.load([0, 2]).shape == (2, 5, 2, 1, 8, 8)
    with pytest.raises(EstimatesError, match=r"\(M, 5, 2, 1, 8, 8\)"):
        of_file(_write(tmp_path / "mine.npy", VALUES), spec, 3)


def test_a_file_that_changes_between_reading_and_scoring(tmp_path: Path) -> None:
    estimates = of_file(_write(tmp_path / "mine.npy", VALUES), DIGIT, 6)
    inspected(estimates, 6)
    estimates.load([0])
    with (tmp_path / "mine.npy").open("ab") as file:
        file.write(b"more")
    with pytest.raises(EstimatesError, match="has changed since it was read first"):
        estimates.load([0])


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_a_large_file_is_not_held_in_memory(tmp_path: Path, suffix: str) -> None:
    path, spec = tmp_path / f"mine{suffix}", replace(COLOUR, source_shape=(3, 128, 128))
    values = np.zeros((200, 2, 3, 128, 128), np.float32)  # 79 MB
    _write(path, values)
    del values
    tracemalloc.start()
    try:
        estimates = of_file(path, spec, 200)
        inspected(estimates, 200)
        estimates.load(list(range(20)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50e6
