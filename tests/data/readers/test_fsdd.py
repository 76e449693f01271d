"""FSDD: utterances without silence or repetition, the official split, and damage that names its file."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbench.compat import import_soundfile
from sepbench.data.datasets import open_dataset
from sepbench.data.readers import fsdd
from sepbench.data.readers.audio_files import read_audio
from sepbench.data.readers.fsdd import LENGTH, RMS, SPEAKERS, read_fsdd, recording_name, row_of, take_of, utterance
from sepbench.errors import DataError


def write(path: Path, samples: np.ndarray, rate: int = 8000, subtype: str = "PCM_16") -> None:
    import_soundfile().write(str(path), samples, rate, subtype=subtype)


def recordings_of(folder: Path, takes: range, length: int) -> dict[tuple[int, int, int], np.ndarray]:
    """A folder in the official layout with random recordings of about so many samples; (speaker, digit, take) -> samples."""
    (folder / "recordings").mkdir()
    rng = np.random.Generator(np.random.Philox(7))
    made = {}
    for key in itertools.product(range(6), range(10), takes):
        made[key] = rng.integers(-20_000, 20_000, length + int(rng.integers(0, 50)), dtype=np.int16)
        write(folder / recording_name(SPEAKERS[key[0]], *key[1:]), made[key])
    return made


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[int, int, int], np.ndarray]]:
    folder = tmp_path_factory.mktemp("fsdd")
    return folder, recordings_of(folder, range(5), 1700)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of one test take, small enough to be damaged in every test."""
    monkeypatch.setattr(fsdd, "TAKES", {"test": range(1), "train": range(1, 2)})
    recordings_of(tmp_path, range(1), 1700)
    return tmp_path


# --- utterances


@settings(deadline=None)
@given(data=st.data(), n_takes=st.integers(1, 3))
def test_an_utterance_is_the_digits_in_turn_and_nothing_else(data: st.DataObject, n_takes: int) -> None:
    """Every sample of the speaker has a number of its own: so nothing is padded, nothing comes twice, and the order is seen."""
    numbers = itertools.count(1)
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=10 * n_takes, max_size=10 * n_takes))
    recordings = [torch.tensor([next(numbers) for _ in range(length)], dtype=torch.int16) for length in lengths]
    takes = {5 + t: recordings[10 * t : 10 * t + 10] for t in range(n_takes)}
    take, digit = data.draw(st.integers(0, n_takes - 1)), data.draw(st.integers(0, 9))
    length = data.draw(st.integers(1, sum(lengths)))
    order = [takes[5 + (take + t) % n_takes][(digit + d) % 10] for t in range(n_takes) for d in range(10)]
    assert utterance(takes, 5 + take, digit, length).tolist() == torch.cat(order)[:length].tolist()


def test_an_utterance_never_repeats_a_recording_to_get_long_enough() -> None:
    takes = {t: [torch.ones(3, dtype=torch.int16)] * 10 for t in range(2)}
    assert len(utterance(takes, 1, 4, 60)) == 60
    with pytest.raises(DataError, match="together have 60 samples, a signal needs 61"):
        utterance(takes, 1, 4, 61)


def test_rows_are_ordered_by_take_then_speaker_then_digit() -> None:
    rows = [row_of(split, speaker, digit, take) for split in ("test", "train") for take in fsdd.TAKES[split] for speaker in range(6) for digit in range(10)]
    assert rows == [*range(300), *range(2700)]
    assert take_of("train", np.arange(2700)).tolist() == np.repeat(np.arange(5, 50), 60).tolist()


def test_a_split_is_read_as_the_layout_says(official: tuple[Path, dict[tuple[int, int, int], np.ndarray]]) -> None:
    folder, made = official
    signals, labels = read_fsdd(folder, "test")
    assert (signals.shape, signals.dtype) == ((300, 1, LENGTH), torch.int16)
    assert labels.tolist() == np.tile(np.repeat(np.arange(6), 10), 5).tolist()
    for speaker, digit, take in ((0, 0, 0), (3, 7, 2), (5, 9, 4)):
        spoken = np.concatenate([made[speaker, (digit + d) % 10, take] for d in range(10)])[:LENGTH].astype(float)
        wanted = spoken * RMS / np.sqrt((spoken**2).mean())
        assert np.abs(signals[row_of("test", speaker, digit, take), 0].double().numpy() - wanted).max() <= 0.5


def test_a_split_opens_its_own_recordings_only(official: tuple[Path, dict[tuple[int, int, int], np.ndarray]]) -> None:
    with pytest.raises(DataError, match=r"recordings/0_george_5\.wav is missing"):
        read_fsdd(official[0], "train")


# --- damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (Path.unlink, "is missing"),
        (cut, "is cut off"),
        (lambda path: path.write_bytes(b"RIFF"), "no readable WAV"),
        (lambda path: write(path, np.ones(1700, dtype=np.int16), rate=16_000), r"has 16,000 Hz, expected 8,000 Hz"),
        (lambda path: write(path, np.ones((1700, 2), dtype=np.int16)), "has 2 channels, expected one"),
        (lambda path: write(path, np.full(1700, 0.1), subtype="PCM_24"), "is not 16-bit audio"),
    ],
)
def test_a_damaged_recording_is_one_line_that_names_it(small: Path, damage: Callable[[Path], None], problem: str) -> None:
    read_fsdd(small, "test")
    path = small / recording_name("lucas", 6, 0)
    damage(path)
    with pytest.raises(DataError, match=problem) as caught:
        read_fsdd(small, "test")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_silent_utterance_is_refused(small: Path) -> None:
    for digit in range(10):
        write(small / recording_name("theo", digit, 0), np.zeros(1700, dtype=np.int16))
    with pytest.raises(DataError, match=r"0_theo_0\.wav and what follows it are silent"):
        read_fsdd(small, "test")


# --- the real data


def test_the_real_recordings_need_one_take_each_and_are_at_one_level(real_data: Callable[[str], Path]) -> None:
    folder = real_data("fsdd")
    test, train = open_dataset("fsdd", "test"), open_dataset("fsdd", "train")
    assert (len(test), len(train), test.shape, test.domain) == (300, 2700, (1, LENGTH), "audio")
    assert torch.bincount(train.labels).tolist() == [450] * 6
    raw = [read_audio(folder / recording_name("theo", digit, 6), 8000)[0] for digit in (8, 9, 0, 1, 2, 3, 4, 5, 6, 7)]
    spoken = torch.cat(raw)
    assert len(spoken) == 24_341  # the shortest take
    signal = train.load([row_of("train", 4, 8, 6)])[0, 0]
    assert float(torch.corrcoef(torch.stack([signal, spoken[:LENGTH]]))[0, 1]) > 0.9999
    values = test.load(range(300)).double() * 32768
    torch.testing.assert_close(values.square().mean(2).sqrt(), torch.full((300, 1), float(RMS), dtype=torch.float64), rtol=2e-4, atol=0)
    assert torch.equal(values, values.round())
    assert float(values[:, :, -400:].square().mean((1, 2)).sqrt().min()) > 0.0


def test_a_damaged_real_recording_is_found_by_its_digest(real_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(real_data("fsdd"), tmp_path / "data" / "fsdd", copy_function=shutil.copyfile)
    path = tmp_path / "data" / "fsdd" / "recordings" / "3_lucas_2.wav"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-2] + b"\x7f\x7f")
    monkeypatch.setenv("SEPBENCH_DATA", str(tmp_path / "data"))
    with pytest.raises(DataError, match=r"3_lucas_2\.wav has the wrong sha256"):
        open_dataset("fsdd", "test")
    cut(path)
    with pytest.raises(DataError, match=r"3_lucas_2\.wav has the wrong size"):
        open_dataset("fsdd", "test")
    path.unlink()
    with pytest.raises(DataError, match=r"no recordings/3_lucas_2\.wav in .*; it is not offered for download, get it from https://github\.com"):
        open_dataset("fsdd", "test")
