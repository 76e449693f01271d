"""Sounds of any length and kind: the stated rules, and what is refused without ``convert``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from own_files import sound_folder, tone

from sepbench.data.own.folders import open_folders
from sepbench.data.own.signals import OwnSignals
from sepbench.data.own.sounds import read_sounds
from sepbench.errors import DataError, SepbenchError

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")


def read(folder: Path, rate: int | None = None, seconds: float = 1.0, convert: bool = False) -> tuple[OwnSignals, int, list[str]]:
    (signals,), rate, notes = read_sounds(open_folders([folder])[1], [folder.name], rate, seconds, convert)
    return signals, rate, notes


def write(path: Path, values: np.ndarray, rate: int = 1000, coding: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, values, rate, subtype=coding)
    return path.parent


def test_files_are_cut_into_pieces_from_their_start(tmp_path: Path) -> None:
    signals, rate, notes = read(sound_folder(tmp_path / "a", 3, seconds=2.5))  # 2,500, 2,637 and 2,774 samples
    assert (rate, notes, signals.values.shape, signals.values.dtype) == (1000, [], (6, 1000), np.int16)
    assert signals.file.tolist() == [0, 0, 1, 1, 2, 2]
    assert signals.start.tolist() == [0, 1000] * 3
    stored, _ = soundfile.read(tmp_path / "a" / "s1.wav", dtype="int16")
    assert np.array_equal(signals.values[2:4].ravel(), stored[:2000])


def test_silent_pieces_are_left_out_and_counted(tmp_path: Path) -> None:
    values = tone(1, 4000)
    values[1000:3000] = 0.0
    signals, _, notes = read(write(tmp_path / "a" / "1.wav", values))
    assert signals.start.tolist() == [0, 3000]
    assert notes == ["a: silent and left out: 2 pieces"]
    assert signals.sounding.tolist() == [1, 1]
    assert read(tmp_path / "a", seconds=2.0)[0].sounding.tolist() == [1, 2]  # the first second of one, the second of the other
    with pytest.raises(DataError, match=r"nothing is left of .*b: all its pieces are silent; choose other files"):
        read(write(tmp_path / "b" / "1.wav", np.zeros(5000, np.float32)))


ODDITIES = {
    "rate": (tone(1, 8000), 4000, "PCM_16", "4,000 Hz"),
    "channels": (np.stack([tone(1, 2000), tone(2, 2000)], axis=1), 1000, "PCM_16", "2 channels"),
    "24 bits": (tone(1, 2000), 1000, "PCM_24", "PCM_24 samples"),
    "floats": (tone(1, 2000), 1000, "FLOAT", "FLOAT samples"),
}


@pytest.mark.parametrize(("values", "rate", "coding", "why"), ODDITIES.values(), ids=ODDITIES.keys())
def test_oddities_are_refused_by_name_or_converted_by_rule(tmp_path: Path, values: np.ndarray, rate: int, coding: str, why: str) -> None:
    folder = write(tmp_path / "a" / "odd.wav", values, rate, coding)
    with pytest.raises(DataError, match=rf"1 file is not 1,000 Hz, mono, 16 bits: .*odd\.wav has {why}; --convert"):
        read(folder, rate=1000)
    signals, _, notes = read(folder, rate=1000, convert=True)
    assert notes == [f"converted to 1,000 Hz, mono, 16 bits: {folder / 'odd.wav'} has {why}"]
    assert signals.values.shape == (2, 1000)
    if rate == 1000:
        mono = values if values.ndim == 1 else values.astype(np.float64).mean(axis=1)
        assert np.abs(signals.values.ravel() - mono * 32768).max() <= 2.0  # soundfile writes 16 bits without rounding


def test_different_rates_ask_for_one(tmp_path: Path) -> None:
    sound_folder(tmp_path / "a", 2)
    folder = write(tmp_path / "a" / "high.wav", tone(9, 4000), 2000)
    with pytest.raises(DataError, match="different rates: 2 of 1,000 Hz, 1 of 2,000 Hz; choose one with --rate 1000 and --convert"):
        read(folder, convert=True)
    assert read(folder, rate=1000, convert=True)[0].values.shape == (6, 1000)
    with pytest.raises(DataError, match=r"--rate 2000 is above the rate of 2 files: .*s0\.wav has 1,000 Hz.*; choose --rate 1000 or less"):
        read(folder, rate=2000, convert=True)


def test_short_files_are_refused_or_left_out(tmp_path: Path) -> None:
    folder = sound_folder(tmp_path / "a", 5, seconds=1.8)
    with pytest.raises(DataError, match=r"2 files are shorter than --seconds 2: .*s0\.wav lasts 1\.80 s, .*; --seconds 1\.8 keeps all 5 files; with"):
        read(folder, seconds=2.0)
    signals, _, notes = read(folder, seconds=2.0, convert=True)
    assert signals.file.tolist() == [2, 3, 4]
    assert notes[0].startswith("shorter than 2 s and left out: ")


@pytest.mark.parametrize("convert", [False, True])
def test_if_all_files_are_too_short_the_shortest_says_what_keeps_them(tmp_path: Path, convert: bool) -> None:
    folder = sound_folder(tmp_path / "a", 2, seconds=1.8)
    with pytest.raises(
        DataError, match=r"all 2 files are shorter than --seconds 3, they last 1\.8 to 1\.93 s; --seconds 1\.8 keeps all 2 files; with --convert, "
    ):
        read(folder, seconds=3.0, convert=convert)
    assert read(folder, seconds=1.8)[0].file.tolist() == [0, 1]
    assert read(folder, seconds=1.93, convert=True)[0].file.tolist() == [1]
    with pytest.raises(DataError, match=r"--seconds 1\.8 keeps all 2 files; with --convert, --seconds 1\.93 drops 1$"):
        read(folder, seconds=3.0, convert=convert)


def test_a_class_of_which_nothing_is_left_says_what_would_keep_it(tmp_path: Path) -> None:
    long, short = sound_folder(tmp_path / "long", 3, seconds=3.0), sound_folder(tmp_path / "short", 2, key=5, seconds=1.5)
    with pytest.raises(
        DataError, match=r"nothing is left of .*short: all 2 files are shorter than --seconds 3, they last 1\.5 to 1\.63 s; --seconds 1\.5 keeps"
    ):
        read_sounds(open_folders([long, short])[1], ["long", "short"], None, 3.0, convert=True)


def test_full_scale(tmp_path: Path) -> None:
    loud = np.where(np.arange(4000) % 8 < 4, 1.0, -1.0)
    folder = write(tmp_path / "a" / "square.wav", loud, 2000, "FLOAT")
    signals, _, notes = read(folder, rate=1000, convert=True)
    assert (signals.values.max(), signals.values.min()) == (32767, -32768)
    assert notes[1].startswith("a: clipped at full scale: square.wav (")  # resampling overshoots
    write(folder / "x.wav", 2 * loud, 2000, "FLOAT")
    with pytest.raises(DataError, match=r"1 file is of floats beyond full scale, 1: .*x\.wav reaches 2; scale"):
        read(folder, rate=1000, convert=True)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = sound_folder(tmp_path / "a", 2)
    (folder / "text.wav").write_text("no sound")
    whole = (folder / "s1.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.wav is cut off.*text\.wav is no readable WAV or FLAC file"):
        read(folder)


def test_file_names_need_not_be_utf_8(tmp_path: Path) -> None:
    folder = sound_folder(tmp_path / "a", 1)
    (folder / "s0.wav").rename(folder / "caf\udce9.wav")
    assert read(folder)[0].file_names == (r"caf\udce9.wav",)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), 61.0])
def test_lengths_that_cannot_be(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(DataError, match="--seconds must be above 0 and at most 60"):
        read(sound_folder(tmp_path / "a", 1), seconds=seconds)


def test_without_soundfile_the_line_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sound_folder(tmp_path / "a", 1)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(SepbenchError, match=r"sepbench\[audio\]"):
        read(folder)
