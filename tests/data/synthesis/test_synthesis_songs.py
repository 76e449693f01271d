"""What is heard: the same bits every time, level, no clipping, onsets on the shared grid, spectra of drums and bass."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from synthesis_songs import Heard

from sepbench.data.synthesis import songs
from sepbench.data.synthesis.bass import render_bass, voice_of
from sepbench.data.synthesis.dice import Dice
from sepbench.data.synthesis.drums import Kit, render_drums
from sepbench.data.synthesis.layout import SAMPLE_RATE, song_keys
from sepbench.data.synthesis.score import Note, Stroke
from sepbench.data.synthesis.songs import compose, render
from sepbench.data.synthesis.sound import hertz

FIRST = {
    "drums": "49c1ebf3d5e39662fe71265193a0f18d256a1d59fee2f967c29ca3391d116fd6",
    "bass": "fccaa39809debfd0f53e5b1bd6e75ed9fc7baba68ee81525f15dbb5abfef761b",
}
"""SHA-256 of the first test song's stems, little-endian int16."""

SIMD = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_ICL AVX512_SPR"


def digests(number: int) -> dict[str, str]:
    stems = render(compose(song_keys("test")[number]))
    return {stem: hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest() for stem, pcm in stems.items()}


def share(signal: np.ndarray, low: float, high: float) -> float:
    """Share of the energy between two frequencies."""
    power = np.abs(np.fft.rfft(signal)) ** 2
    frequencies = np.fft.rfftfreq(len(signal), 1 / SAMPLE_RATE)
    return float(power[(frequencies >= low) & (frequencies < high)].sum() / power.sum())


def test_the_first_song_has_its_frozen_bits() -> None:
    assert digests(0) == FIRST


@pytest.mark.slow
@pytest.mark.parametrize("disabled", [SIMD, ""])
def test_the_bits_do_not_depend_on_the_processor_s_vector_instructions(disabled: str) -> None:
    code = "from test_synthesis_songs import digests; print(digests(0)['drums'], digests(0)['bass'])"
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": disabled, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == list(FIRST.values())


def test_stems_are_about_equally_loud_and_never_clip(heard: list[Heard]) -> None:
    for one in heard:
        for stem in (one.drums, one.bass):
            assert np.abs(stem).max() <= 0.9
            loud = stem[np.abs(stem) > 0]
            assert -26 < 10 * np.log10(np.mean(stem**2)) < -16
            assert len(loud) > 0.3 * len(stem)
            assert abs(stem.mean()) < 1e-3


def test_onsets_of_both_stems_lie_on_one_grid(heard: list[Heard]) -> None:
    """Energy rises where the score's grid has a step: nearer to it than by chance, in both stems."""
    for one in heard:
        grid = one.song.frame.grid
        times = np.array([grid.seconds(bar, step) for bar in range(len(one.song.frame.bars)) for step in range(grid.bar_steps)])
        for stem in (one.drums, one.bass):
            onsets = onset_times(stem)
            assert len(onsets) >= 8
            distances = np.abs(times[None] - onsets[:, None]).min(axis=1)
            assert np.median(distances) < 0.02
            assert np.median(distances) < 0.7 * grid.step_seconds / 4  # a quarter of a step is the median of random times


def onset_times(stem: np.ndarray) -> np.ndarray:
    """Seconds at which the energy of 6 ms is eight times that of the 24 ms before, and of some size."""
    hop = 128
    energy = np.square(stem[: len(stem) // hop * hop].reshape(-1, hop)).mean(axis=1)
    before = np.convolve(energy, np.ones(4) / 4)[: len(energy)]
    rises = np.flatnonzero((energy[1:] > 8 * before[:-1]) & (energy[1:] > 1e-3 * energy.max())) + 1
    return rises[np.diff(rises, prepend=-10) > 4] * hop / SAMPLE_RATE


def test_every_strong_stroke_is_heard_where_it_is_written(heard: list[Heard]) -> None:
    for one in heard:
        found = []
        for stroke in one.song.strokes:
            if stroke.voice in ("kick", "snare") and stroke.velocity > 0.6 and stroke.at > 800:
                before, after = one.drums[stroke.at - 400 : stroke.at], one.drums[stroke.at : stroke.at + 600]
                found.append(np.mean(after**2) > np.mean(before**2))
        assert np.mean(found) > 0.85


def test_silence_where_nobody_plays(heard: list[Heard]) -> None:
    silent = 0
    for one in heard:
        first = one.song.notes[0].at
        assert not one.bass[:first].any()
        silent += first > SAMPLE_RATE
    assert silent >= 1
    key = "nobody"
    empty = replace(compose(key, 22_050), strokes=(), notes=())
    assert not any(pcm.any() for pcm in render(empty).values())


def test_spectra_are_those_of_bass_and_drums(heard: list[Heard]) -> None:
    assert np.median([share(one.bass, 0, 500) for one in heard]) > 0.85
    for one in heard:
        assert share(one.bass, 0, 1000) > 0.85
        assert share(one.drums, 5000, 11_025) > 10 * share(one.bass, 5000, 11_025)
        assert share(one.drums, 30, 200) > 0.1


VOICE_BANDS = {"hat": (5000, 11_025), "open": (5000, 11_025), "crash": (2000, 11_025), "ride": (2000, 11_025), "shaker": (3000, 11_025), "kick": (20, 300)}


@pytest.mark.parametrize("voice", sorted(Kit.VOICES))
def test_drums_sound_in_their_bands_and_ring_out(voice: str) -> None:
    for number in range(4):
        kit = Kit(Dice(f"kit {number}"))
        soft, hard = kit.sound(voice, 0.2, 0), kit.sound(voice, 0.95, 0)
        low, high = VOICE_BANDS.get(voice, (60, 11_025))
        assert share(hard, low, high) > 0.8
        assert 0.1 < np.abs(hard).max() < 4.0
        assert np.abs(hard[-20:]).max() < 0.02 * np.abs(hard).max()
        assert share(soft, 1000, 11_025) <= share(hard, 1000, 11_025) + 0.1  # hard strokes are no duller
        assert kit.sound(voice, 0.21, 0) is soft


def test_kits_differ() -> None:
    kicks = [Kit(Dice(f"kit {number}")).sound("kick", 0.9, 0) for number in range(5)]
    assert len({len(kick) for kick in kicks}) == 5
    peaks = {int(np.abs(np.fft.rfft(kick, SAMPLE_RATE)).argmax()) for kick in kicks}
    assert len(peaks) >= 4
    assert all(30 < peak < 130 for peak in peaks)


def test_a_closed_hat_stops_an_open_one() -> None:
    ringing = [Stroke("open", 1000, 0.9)]
    choked = render_drums("hats", [*ringing, Stroke("hat", 2500, 0.1)], 12_000)
    free = render_drums("hats", ringing, 12_000)
    assert np.mean(choked[5000:7000] ** 2) < 0.1 * np.mean(free[5000:7000] ** 2)
    np.testing.assert_array_equal(choked[:2000], free[:2000])


@pytest.mark.parametrize("key", ["string 0", "synth 0", "sub 2"])
def test_notes_have_their_pitch(key: str) -> None:
    """The spacing of the harmonics; the fundamental itself may be weak on a string plucked near its bridge."""
    assert voice_of(key) == key.split()[0]
    for pitch in (28, 33, 40, 47):
        sound = render_bass(key, [Note(0, 40_000, pitch, 0.9)], 40_000)[4000:36_768]
        power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
        correlation = np.fft.irfft(power)
        expected = SAMPLE_RATE / hertz(pitch)
        lag = int(0.75 * expected) + int(correlation[int(0.75 * expected) : int(1.4 * expected)].argmax())
        assert lag == pytest.approx(expected, rel=0.015)


@pytest.mark.parametrize("key", ["string 0", "synth 0", "sub 2"])
def test_a_slide_arrives_at_its_pitch_from_below(key: str) -> None:
    slid = render_bass(key, [Note(0, 40_000, 40, 0.9, slide_from=35, slide_seconds=0.3)], 40_000)
    early, late = (slid[start : start + 4096] for start in (0, 20_000))

    def period(sound: np.ndarray) -> int:
        correlation = np.fft.irfft(np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 16_384)) ** 2)
        low = int(0.75 * SAMPLE_RATE / hertz(40))
        return low + int(correlation[low : int(1.45 * SAMPLE_RATE / hertz(40))].argmax())

    assert period(late) == pytest.approx(SAMPLE_RATE / hertz(40), rel=0.02)
    assert period(early) > 1.08 * period(late)


@pytest.mark.parametrize("peak", [1.0, -1.0])
@pytest.mark.parametrize("spike", [1.0, 30.0, 400.0])
def test_the_larger_peak_limits_a_stem_whichever_way_it_points(monkeypatch: pytest.MonkeyPatch, spike: float, peak: float) -> None:
    """Stems of noise with one spike: as loud as wanted where the spike allows it, else with the spike at -1 dB; a stem turned over is only turned over."""
    song = compose(song_keys("test")[0])
    noise = np.random.default_rng(1).uniform(-1, 1, song.frame.length)
    noise[100] = spike * peak
    monkeypatch.setattr(songs, "render_drums", lambda key, strokes, length: noise)
    monkeypatch.setattr(songs, "render_bass", lambda key, notes, length: -noise)
    highest = 0.89 * 32_768
    made = render(song)
    for stem in made.values():
        assert stem.dtype == np.int16
        assert int(np.abs(stem.astype(int)).max()) <= highest + spike * 32_768 / 2**13 + 1  # the gain is on a grid of 2**-12
    drums = made["drums"].astype(float) / 32_768
    playing = songs._playing(song.frame, "drums")
    loud = float(np.sqrt(np.mean(drums[playing] ** 2)))
    if spike > 1.0:
        assert abs(drums[100]) == pytest.approx(0.89, rel=0.06)
        assert np.sign(drums[100]) == peak
        assert loud < 0.07
    else:
        assert 0.065 < loud < 0.145
