"""The arithmetic of sound against closed forms and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal as scipy_signal

from sepbench.data.synthesis.layout import SAMPLE_RATE
from sepbench.data.synthesis.sound import (
    band,
    darkened,
    decay,
    diffused,
    echo,
    faded,
    hertz,
    increments,
    on_grid,
    phases,
    pulse,
    rms,
    saw,
    sine,
    soft_clip,
    square,
)

NOISE = np.random.default_rng(0).normal(size=5000)


@pytest.mark.parametrize(("pitch", "frequency"), [(69, 440.0), (57, 220.0), (28, 41.20344), (60, 261.6256)])
def test_pitches_are_tempered(pitch: int, frequency: float) -> None:
    assert hertz(pitch) == pytest.approx(frequency, rel=1e-6)


def test_the_sine_is_a_sine() -> None:
    steps = increments(np.full(SAMPLE_RATE, 437.0))
    expected = np.sin(2 * np.pi * 437.0 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    np.testing.assert_allclose(sine(phases(steps)), expected, atol=2e-5)  # frequencies are rounded to 5e-6 Hz


@pytest.mark.parametrize("width", [0.5, 0.2])
def test_sawtooth_and_rectangle_have_their_harmonics(width: float) -> None:
    """Amplitudes 2 / (pi n) of the sawtooth, 4 / (pi n) |sin(pi n w)| of the rectangle, and next to nothing between low harmonics."""
    steps = increments(np.full(SAMPLE_RATE, 100.0))
    phase = phases(steps)
    window = scipy_signal.get_window("hann", SAMPLE_RATE)
    for wave, amplitude in (
        (saw(phase, steps), lambda n: 2 / (np.pi * n)),
        (pulse(phase, steps, width), lambda n: 4 / (np.pi * n) * abs(np.sin(np.pi * n * width))),
    ):
        spectrum = np.abs(np.fft.rfft(wave * window)) / (SAMPLE_RATE / 4)
        for n in range(1, 12):
            assert spectrum[100 * n] == pytest.approx(amplitude(n), abs=0.01)
            assert spectrum[100 * n + 50] < 2e-3
    assert set(np.unique(square(phase))) == {-1.0, 1.0}


def test_decay_falls_to_one_over_e() -> None:
    curve = decay(SAMPLE_RATE, 0.1)
    assert curve[0] == 1.0
    assert curve[2205] == pytest.approx(np.exp(-1), rel=1e-3)
    assert curve[4410] == pytest.approx(np.exp(-2), rel=1e-3)


@pytest.mark.parametrize(("kind", "q"), [("low", 0.707), ("high", 0.707), ("band", 2.0)])
@pytest.mark.parametrize("frequency", [100.0, 1000.0, 5000.0])
def test_filters_pass_what_their_names_say(kind: str, q: float, frequency: float) -> None:
    impulse = np.zeros(SAMPLE_RATE)
    impulse[0] = 1.0
    response = np.abs(np.fft.rfft(band(impulse, kind, frequency, q)))  # type: ignore[arg-type]
    low, high = response[int(frequency / 8)], response[min(int(frequency * 8), SAMPLE_RATE // 2 - 1)]
    assert response[int(frequency)] == pytest.approx({"low": q, "high": q, "band": 1.0}[kind], rel=0.01)
    assert {"low": low > 0.99 and high < 0.05, "high": high > 0.95 and low < 0.05, "band": max(low, high) < 0.2}[kind]


def test_the_first_order_filter_has_six_decibels_per_octave() -> None:
    impulse = np.zeros(SAMPLE_RATE)
    impulse[0] = 1.0
    response = np.abs(np.fft.rfft(darkened(impulse, 50.0)))
    assert response[0] == pytest.approx(1.0, abs=1e-6)
    assert response[500] / response[1000] == pytest.approx(2.0, rel=0.05)


@settings(max_examples=40, deadline=None)
@given(delay=st.integers(1, 1200), gain=st.floats(-0.95, 0.95), length=st.integers(1, 3000))
def test_an_echo_is_the_recursion_it_says(delay: int, gain: float, length: int) -> None:
    """Both ways of working it out, by row and by filter (the border is at 256 samples)."""
    taps = np.zeros(delay + 1)
    taps[0], taps[delay] = 1.0, -gain
    np.testing.assert_allclose(echo(NOISE[:length], delay, gain), scipy_signal.lfilter([1.0], taps, NOISE[:length]), atol=1e-12)


def test_an_all_pass_keeps_every_frequency() -> None:
    impulse = np.zeros(1 << 15)
    impulse[0] = 1.0
    np.testing.assert_allclose(np.abs(np.fft.rfft(diffused(impulse, 37, 0.7))), 1.0, atol=1e-9)


def test_ramps_and_clipping() -> None:
    ones = np.ones(10)
    shaped = faded(ones, 3, 4)
    np.testing.assert_allclose(shaped, [0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    assert ones.min() == 1.0
    assert len(faded(np.ones(2), 5, 5)) == 2
    values = np.linspace(-1, 1, 101)
    np.testing.assert_array_equal(soft_clip(values, 0.0), values)
    clipped = soft_clip(values, 2.0)
    assert (np.diff(clipped) > 0).all()
    assert (clipped[0], clipped[-1]) == (-1.0, 1.0)


def test_sums_come_on_a_grid() -> None:
    assert on_grid(0.3) == round(0.3 * 4096) / 4096
    assert rms(np.full(7, 0.5)) == 0.5
    assert rms(np.zeros(0)) == 0.0
