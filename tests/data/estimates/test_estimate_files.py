"""One file per source: read as it is or refused with its kind of problem; the digest is that of ``sha256sum``."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from estimate_cases import COLOUR, DIGIT, SOUND

from sepbench.data.estimates.files import FileEstimates
from sepbench.data.estimates.names import list_folder
from sepbench.data.estimates.numbers import is_clipped
from sepbench.data.estimates.png import png_bytes
from sepbench.data.estimates.problems import EstimatesError, FileProblem, Problems
from sepbench.data.estimates.signals import read_signal
from sepbench.data.estimates.supplied import Inspection
from sepbench.protocols import TaskSpec


def inspected(folder: Path, spec: TaskSpec, n: int = 2) -> tuple[FileEstimates, Inspection, str]:
    problems = Problems()
    estimates = FileEstimates(list_folder(folder, spec, 10, problems), folder, spec)
    return estimates, estimates.inspect(n, problems, lambda done, total: None), problems.text()


def _images(folder: Path, n: int = 2) -> np.ndarray:
    pixels = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (n, 2, 8, 8)).astype(np.uint8)
    for example in range(n):
        for slot in range(2):
            PIL.Image.fromarray(pixels[example, slot]).save(folder / f"{example:06d}_{slot + 1}.png")
    return pixels


def test_values_digest_and_examples(tmp_path: Path) -> None:
    pixels = _images(tmp_path)
    estimates, found, problems = inspected(tmp_path, DIGIT)
    assert problems == ""
    assert found.examples.tolist() == [0, 1]
    np.testing.assert_array_equal(estimates.load([1, 0]).numpy(), (pixels[::-1] / np.float32(255)).astype(np.float32)[:, :, None])
    lines = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(tmp_path.iterdir()))
    assert found.sha256 == hashlib.sha256(lines.encode()).hexdigest()


def test_the_digest_is_of_all_files_whatever_is_planned(tmp_path: Path) -> None:
    _images(tmp_path)
    assert inspected(tmp_path, DIGIT, 1)[1].sha256 == inspected(tmp_path, DIGIT, 2)[1].sha256
    (tmp_path / "000001_2.png").write_bytes((tmp_path / "000001_1.png").read_bytes())
    first = inspected(tmp_path, DIGIT, 1)[1]
    assert first.examples.tolist() == [0]
    assert first.sha256 != "" != inspected(tmp_path, DIGIT, 2)[1].sha256 == first.sha256


def test_missing_sources_are_named_as_the_others_are(tmp_path: Path) -> None:
    _images(tmp_path)
    (tmp_path / "000001_2.png").unlink()
    _, found, problems = inspected(tmp_path, DIGIT, 3)
    assert found.examples.tolist() == [0]
    assert problems == "3 missing (000001_2.png, 000002_1.png, 000002_2.png)"


def test_sixteen_bits_and_arrays_are_read_by_the_same_rule(tmp_path: Path) -> None:
    pixels = np.arange(64, dtype=np.uint16).reshape(1, 8, 8) * 1000
    (tmp_path / "a.png").write_bytes(png_bytes(pixels))
    np.save(tmp_path / "b.npy", pixels[0])
    for name in ("a.png", "b.npy"):
        np.testing.assert_array_equal(read_signal(tmp_path / name, DIGIT)[0], (pixels / 65_535).astype(np.float32))


def _save(path: Path, what: object) -> None:
    if isinstance(what, np.ndarray) and path.suffix == ".png":
        PIL.Image.fromarray(what).save(path)
    elif isinstance(what, np.ndarray):
        np.save(path, what)
    else:
        assert isinstance(what, bytes)
        path.write_bytes(what)


@pytest.mark.parametrize(
    ("spec", "name", "what", "expected"),
    [
        (DIGIT, "0_1.png", np.zeros((9, 8), np.uint8), "of another shape: 1 x 9 x 8 instead of 1 x 8 x 8"),
        (DIGIT, "0_1.png", np.zeros((8, 8, 3), np.uint8), "grey or colour where the task has the other: colour, the task has grey"),
        (COLOUR, "0_1.png", np.zeros((8, 8), np.uint8), "grey or colour where the task has the other: grey, the task has colour"),
        (DIGIT, "0_1.png", np.zeros((8, 8, 4), np.uint8), "of another kind of number: colour with transparency, not grey or RGB"),
        (DIGIT, "0_1.npy", np.zeros((8, 8), bool), "of another kind of number: bool, image signals are uint8, uint16, float"),
        (DIGIT, "0_1.npy", np.full((8, 8), np.nan), "not finite: "),
        (DIGIT, "0_1.npy", np.full((8, 8), 1e300), "not finite: "),
        (DIGIT, "0_1.npy", np.zeros((8, 8, 1)), "of another shape: 8 x 8 x 1 instead of 1 x 8 x 8"),
        (DIGIT, "0_1.npy", b"\x93NUMPY nothing", "unreadable: ValueError"),
        (SOUND, "0_1.wav", b"RIFF", "unreadable: is no readable WAV or FLAC file"),
        (SOUND, "0_1.npy", np.zeros(401, np.int16), "of another shape: 401 instead of 1 x 400"),
        (DIGIT, "0_1.npy", np.array(0.5, np.float32), "of another shape: one number instead of 1 x 8 x 8"),
        (SOUND, "0_1.npy", np.array(3, np.int16), "of another shape: one number instead of 1 x 400"),
    ],
)
def test_one_file_that_does_not_fit(tmp_path: Path, spec: TaskSpec, name: str, what: object, expected: str) -> None:
    if name.endswith("wav"):
        pytest.importorskip("soundfile")
    _save(tmp_path / name, what)
    with pytest.raises(FileProblem) as caught:
        read_signal(tmp_path / name, spec)
    assert f"{caught.value.kind}: {caught.value.detail}".startswith(expected)


def _sound(path: Path, samples: np.ndarray, rate: int = 8000, subtype: str = "PCM_16") -> None:
    pytest.importorskip("soundfile").write(path, samples, rate, subtype=subtype)


def test_sounds_of_another_rate_length_or_number_of_channels(tmp_path: Path) -> None:
    tone = 0.3 * np.sin(np.arange(400) / 9)
    _sound(tmp_path / "0_1.wav", tone)
    _sound(tmp_path / "0_2.wav", tone, rate=16_000)
    _sound(tmp_path / "1_drums.wav", tone[:399])
    _sound(tmp_path / "1_bass.flac", np.stack([tone, tone], axis=1))
    _, found, problems = inspected(tmp_path, SOUND)
    assert found.examples.tolist() == [0, 1]
    assert problems == (
        "1 of another sample rate (0_2.wav: 16,000 Hz instead of 8,000 Hz), "
        "2 of another shape (1_drums.wav: 1 x 399 samples instead of 1 x 400 samples, 1_bass.flac: 2 x 400 samples instead of 1 x 400 samples)"
    )


@pytest.mark.parametrize(("subtype", "exact"), [("PCM_16", False), ("PCM_24", False), ("FLOAT", True)])
def test_samples_are_as_stored(tmp_path: Path, subtype: str, exact: bool) -> None:
    tone = (0.3 * np.sin(np.arange(400) / 9)).astype(np.float32)
    _sound(tmp_path / "0_1.wav", tone, subtype=subtype)
    values, clipped = read_signal(tmp_path / "0_1.wav", SOUND)
    assert not clipped
    np.testing.assert_allclose(values[0], tone, rtol=0, atol=0 if exact else 2.0**-15)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_sounds_that_stay_at_full_scale(tmp_path: Path, subtype: str, sign: float) -> None:
    loud = sign * np.clip(1.2 * np.sin(np.arange(400) / 9), -0.9, 1.0)
    _sound(tmp_path / "0_1.wav", loud, subtype=subtype)
    _sound(tmp_path / "0_2.wav", 0.99 * loud, subtype=subtype)
    _, found, problems = inspected(tmp_path, SOUND, 1)
    assert problems == ""
    assert [name for _, _, name in found.clipped] == ["0_1.wav"]


def test_one_peak_at_full_scale_is_not_clipped() -> None:
    signal = np.zeros((2, 50), np.float32)
    signal[0, [3, 5, 6, 9]] = 1.0
    signal[1, [4, 7]] = 1.0  # the other channel's peaks are its own
    assert not is_clipped(signal)
    signal[1, 5:8] = -1.0
    assert is_clipped(signal)
    assert not is_clipped(signal[:, :2])


def test_files_that_change_between_reading_and_scoring(tmp_path: Path) -> None:
    _images(tmp_path)
    estimates, _, _ = inspected(tmp_path, DIGIT)
    estimates.load([0, 1])
    os.utime(tmp_path / "000001_1.png", ns=(1, 1))
    estimates.load([0])
    with pytest.raises(EstimatesError, match="has changed since it was read first"):
        estimates.load([1])
    (tmp_path / "000000_1.png").unlink()
    with pytest.raises(EstimatesError, match="has changed since it was read first"):
        estimates.load([0])
