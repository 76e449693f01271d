"""WAV and FLAC files: spans, resampling, and one clear line for every way a file can be wrong."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbench.data.readers.audio_files import audio_info, read_audio, read_pcm, read_resampled, read_span, read_vorbis, resample, resampled_length
from sepbench.errors import DataError

RATE = 8000


def _noise(length: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal((length, channels))).clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_samples_are_those_that_were_written(tmp_path: Path, name: str) -> None:
    values = np.round(_noise(3000, 2) * 32768) / 32768
    soundfile.write(tmp_path / name, values, RATE, subtype="PCM_16")
    stereo = read_audio(tmp_path / name, RATE, mono=False)
    assert stereo.shape == (2, 3000)
    assert stereo.dtype == torch.float32
    assert torch.equal(stereo, torch.from_numpy(values.T.astype(np.float32)))
    assert torch.equal(read_audio(tmp_path / name), stereo.double().mean(0, keepdim=True).float())
    assert audio_info(tmp_path / name).length == 3000
    assert audio_info(tmp_path / name).channels == 2
    assert torch.equal(read_span(tmp_path / name, 1000, 500, mono=False), stereo[:, 1000:1500])


def _cut(path: Path, share: float) -> Path:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    return path


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", "PCM_16"), ("a.wav", "FLOAT"), ("a.wav", "PCM_24"), ("a.flac", "PCM_16")])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.6, 0.99])
def test_a_cut_file_is_an_error_that_names_it(tmp_path: Path, name: str, subtype: str, share: float) -> None:
    soundfile.write(tmp_path / name, _noise(20_000), RATE, subtype=subtype)
    with pytest.raises(DataError, match=r"a\.(wav|flac)"):
        read_audio(_cut(tmp_path / name, share))


def test_damage_inside_a_flac_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, _noise(40_000), RATE)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 : len(raw) // 2 + 500] = bytes(500)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.flac is damaged between samples 0 and 40,000"):
        read_audio(path)


def test_ogg_vorbis_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    soundfile.write(tmp_path / "a.ogg", tone, RATE, format="OGG", subtype="VORBIS")
    read = read_vorbis(tmp_path / "a.ogg", RATE)
    assert read.shape == (1, RATE)
    assert float((read[0] - torch.from_numpy(tone)).square().mean().sqrt()) < 0.02
    with pytest.raises(DataError, match=r"a\.ogg has 8,000 Hz, expected 44,100 Hz"):
        read_vorbis(tmp_path / "a.ogg", 44_100)
    soundfile.write(tmp_path / "a.wav", tone, RATE)
    with pytest.raises(DataError, match=r"a\.wav is WAV audio; convert it to Ogg Vorbis"):
        read_vorbis(tmp_path / "a.wav", RATE)
    (tmp_path / "text.ogg").write_text("no audio " * 50)
    with pytest.raises(DataError, match=r"text\.ogg is no readable Ogg Vorbis file"):
        read_vorbis(tmp_path / "text.ogg", RATE)


def test_pcm_is_the_numbers_of_the_file(tmp_path: Path) -> None:
    numbers = np.array([-32768, -1, 0, 1, 32767], dtype=np.int16)
    soundfile.write(tmp_path / "a.flac", numbers, RATE, subtype="PCM_16")
    assert read_pcm(tmp_path / "a.flac", RATE).tolist() == numbers.tolist()
    soundfile.write(tmp_path / "fine.flac", _noise(50), RATE, subtype="PCM_24")
    with pytest.raises(DataError, match=r"fine\.flac is not 16-bit audio"):
        read_pcm(tmp_path / "fine.flac", RATE)
    soundfile.write(tmp_path / "stereo.flac", _noise(50, 2), RATE)
    with pytest.raises(DataError, match=r"stereo\.flac has 2 channels"):
        read_pcm(tmp_path / "stereo.flac", RATE)


def test_other_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.wav is missing"):
        read_audio(tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("no audio " * 50)
    with pytest.raises(DataError, match=r"text\.wav is no readable WAV or FLAC file"):
        read_audio(tmp_path / "text.wav")
    soundfile.write(tmp_path / "a.ogg", _noise(4000), RATE, format="OGG", subtype="VORBIS")
    with pytest.raises(DataError, match=r"a\.ogg is OGG audio"):
        read_audio(tmp_path / "a.ogg")
    soundfile.write(tmp_path / "empty.wav", _noise(0), RATE)
    with pytest.raises(DataError, match=r"empty\.wav has no samples"):
        read_audio(tmp_path / "empty.wav")
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan, np.float32), RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=r"nan\.wav holds samples that are not finite"):
        read_audio(tmp_path / "nan.wav")
    soundfile.write(tmp_path / "a.wav", _noise(100), RATE)
    with pytest.raises(DataError, match=r"a\.wav has 8,000 Hz, expected 22,050 Hz"):
        read_audio(tmp_path / "a.wav", 22_050)
    for start, length in ((90, 20), (-1, 5), (100, None), (5, 0)):
        with pytest.raises(DataError, match=r"a\.wav has 100 samples"):
            read_span(tmp_path / "a.wav", start, length)


def test_a_tone_keeps_its_pitch_and_level() -> None:
    seconds = torch.arange(44_100, dtype=torch.float64) / 44_100
    tone = torch.sin(2 * math.pi * 440 * seconds).float()[None]
    for rate in (22_050, 20_480, 16_000):
        found = resample(tone, 44_100, rate)
        expected = torch.sin(2 * math.pi * 440 * torch.arange(rate, dtype=torch.float64) / rate).float()
        inner = slice(200, -200)  # the signal's sudden start and end ring
        assert found.shape == (1, rate)
        assert float((found[0] - expected)[inner].abs().max()) < 2e-3
    above = torch.sin(2 * math.pi * 15_000 * seconds).float()[None]
    assert float(resample(above, 44_100, 22_050)[..., 200:-200].abs().max()) < 2e-3  # what the new rate cannot hold is gone, not folded back
    assert resample(tone, 44_100, 44_100) is tone
    with pytest.raises(ValueError, match="at least 1 Hz"):
        resample(tone, 0, 8000)


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "a.wav"
    soundfile.write(path, _noise(30_000), 44_100, subtype="FLOAT")
    return path


@settings(max_examples=40, deadline=None)
@given(rate=st.sampled_from([22_050, 20_480, 16_000, 44_100, 48_000]), data=st.data())
def test_a_resampled_span_is_the_span_of_the_resampled_whole(long_file: Path, rate: int, data: st.DataObject) -> None:
    whole = resample(read_audio(long_file), 44_100, rate)
    total = resampled_length(30_000, 44_100, rate)
    assert whole.shape[-1] == total
    start = data.draw(st.integers(0, total - 1))
    length = data.draw(st.integers(1, total - start))
    found = read_resampled([long_file], start, length, rate)
    torch.testing.assert_close(found, whole[:, start : start + length], rtol=0, atol=1e-7)
    with pytest.raises(DataError, match="asked for"):
        read_resampled([long_file], start, total - start + 1, rate)


def test_files_are_summed_as_far_as_the_shortest_reaches(long_file: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "b.wav", _noise(20_000, 2, seed=1), 44_100, subtype="FLOAT")
    both = read_audio(long_file)[:, :20_000] + read_audio(tmp_path / "b.wav")
    torch.testing.assert_close(read_resampled([long_file, tmp_path / "b.wav"], 0, 10_000, 22_050), resample(both, 44_100, 22_050), rtol=0, atol=1e-7)
    with pytest.raises(DataError, match=r"b\.wav has 10,000 samples at 22,050 Hz, asked for 0 to 10,001"):
        read_resampled([long_file, tmp_path / "b.wav"], 0, 10_001, 22_050)
    soundfile.write(tmp_path / "c.wav", _noise(20_000), 48_000)
    with pytest.raises(DataError, match=r"c\.wav and .*a\.wav have different sample rates"):
        read_resampled([long_file, tmp_path / "c.wav"], 0, 10, 22_050)


def _flac_total(path: Path, total: int) -> None:
    """Write another number of samples into STREAMINFO; 0 stands for unknown."""
    raw = bytearray(path.read_bytes())
    raw[21] = (raw[21] & 0xF0) | total >> 32
    raw[22:26] = (total & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(raw)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("length", [1, 4096, 4097, 30_000])
@pytest.mark.parametrize(("total", "says"), [(0, "does not say how long it is"), (-1, "holds"), (1, "holds"), (2**35, "can hold")])
def test_flac_headers_that_are_silent_or_lie_about_the_length(tmp_path: Path, channels: int, length: int, total: int, says: str) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, _noise(length, channels), RATE)
    assert audio_info(path).length == length
    _flac_total(path, max(0, length + total) if total else 0)
    with pytest.raises(DataError, match=rf"a\.flac .*({says}|does not say)"):
        audio_info(path)
    with pytest.raises(DataError, match=r"a\.flac"):
        read_audio(path)


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_wav_header_is_held_against_the_file(tmp_path: Path, kind: str, subtype: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(3000, 2), RATE, format=kind, subtype=subtype)
    whole = path.read_bytes()
    assert audio_info(path).length == 3000
    for cut in (len(whole) - 1, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"a\.wav is cut off"):
            read_audio(path)
    at = whole.index(b"ds64") + 16 if kind == "RF64" else whole.index(b"data") + 4
    size = int.from_bytes(whole[at : at + 4], "little")
    for wrong in (size - 1, size - 4000, size + 1, size + 4000, 4, 0):
        path.write_bytes(whole[:at] + wrong.to_bytes(4, "little") + whole[at + 4 :])
        with pytest.raises(DataError, match=r"a\.wav"):
            read_audio(path)


@pytest.mark.parametrize("offset", [22, 24, 28, 32, 34])  # channels, rate, bytes a second, block, bits
def test_a_wav_header_that_contradicts_itself_is_an_error(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(3000), RATE, subtype="PCM_16")
    raw = bytearray(path.read_bytes())
    raw[offset] += 8
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.wav"):
        read_audio(path)


def test_streamed_wav_files_and_chunks_around_the_samples_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(3000), RATE, subtype="PCM_16")
    whole = path.read_bytes()
    at = whole.index(b"data")
    listed = b"LIST" + (5).to_bytes(4, "little") + b"abcde\0"
    longer = len(whole) + 2 * len(listed) - 8
    expected = read_audio(path)
    path.write_bytes(whole[:4] + longer.to_bytes(4, "little") + whole[8:at] + listed + whole[at:] + listed)
    assert torch.equal(read_audio(path), expected)
    path.write_bytes(whole[:4] + b"\xff" * 4 + whole[8 : at + 4] + b"\xff" * 4 + whole[at + 8 :])
    assert torch.equal(read_audio(path), expected)
    path.write_bytes(whole + b"TAG" + bytes(125))  # behind the end that the header announces
    assert torch.equal(read_audio(path), expected)


@pytest.mark.parametrize("rate", [8000, 44_100, 22_051, 12_000, 65_540])
def test_a_flac_header_of_another_rate_is_an_error(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, _noise(3000), rate)
    assert audio_info(path).sample_rate == rate
    raw = bytearray(path.read_bytes())
    raw[19] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=rf"holds frames of {rate:,} Hz"):
        audio_info(path)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("length", [70_000, 1_000_000, 3_000_000])
def test_a_long_flac_file_of_silence_is_read(tmp_path: Path, length: int, channels: int) -> None:
    """Nothing packs better: thousands of samples in a dozen bytes."""
    soundfile.write(tmp_path / "silence.flac", np.zeros((length, channels), dtype=np.int16), 8000)
    assert (tmp_path / "silence.flac").stat().st_size < length / 50
    info = audio_info(tmp_path / "silence.flac")
    assert (info.length, info.sample_rate) == (length, 8000)
