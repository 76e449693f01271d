"""The arithmetic of sound: oscillators, decays, filters and echoes that give the same bits on every machine (see the package's text)."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from sepbench.data.synthesis.dice import Array
from sepbench.data.synthesis.layout import SAMPLE_RATE

Phase = npt.NDArray[np.int64]
"""Phases and their increments: whole numbers of 2**-32 periods, so that their running sums are exact."""

_PERIOD = 1 << 32
_TABLE_BITS = 14
# Powers of the twelfth root of two, in digits because the last bit of a power differs between machines.
_SEMITONES = (1.0, 1.0594631, 1.122462, 1.1892071, 1.259921, 1.3348399, 1.4142136, 1.4983071, 1.5874011, 1.6817928, 1.7817974, 1.8877486)
_LOWEST_C = 8.1757989156  # Hz, MIDI note 0


def on_grid(value: float, bits: int = 12) -> float:
    """A positive number rounded to ``bits`` binary digits after the point: hides the last bits of a sum."""
    return round(value * 2.0**bits) / 2.0**bits


def samples(seconds: float) -> int:
    """A duration or a place in time as a whole number of samples."""
    return round(seconds * SAMPLE_RATE)


def hertz(pitch: int) -> float:
    """Frequency of a MIDI note (69 is 440 Hz), equal temperament."""
    octave, semitone = divmod(pitch, 12)
    return _LOWEST_C * _SEMITONES[semitone] * 2.0**octave


@lru_cache(maxsize=1)
def _sine_table() -> Array:
    # On a grid of 2**-24: the chance that one of the entries rounds differently elsewhere is below 1e-4.
    return np.asarray(np.round(np.sin(np.arange((1 << _TABLE_BITS) + 1) * (2.0 * np.pi / (1 << _TABLE_BITS))) * 2.0**24) * 2.0**-24)


def increments(frequency: Array | float) -> Phase:
    """Frequencies in Hz to steps of the phase per sample."""
    return np.asarray(np.rint(np.asarray(frequency) * (_PERIOD / SAMPLE_RATE)), dtype=np.int64)


def phases(steps: Phase) -> Phase:
    """Running phase in [0, 2**32), starting at 0, of increments per sample."""
    total = np.cumsum(steps)
    return np.asarray((total - steps) & (_PERIOD - 1), dtype=np.int64)


def sine(phase: Phase) -> Array:
    """Sine of a phase, by table and linear interpolation (error below 2e-8)."""
    table = _sine_table()
    shift = 32 - _TABLE_BITS
    index = (phase & (_PERIOD - 1)) >> shift
    fraction = (phase & ((1 << shift) - 1)) * 2.0**-shift
    low = table[index]
    return np.asarray(low + fraction * (table[index + 1] - low))


def saw(phase: Phase, steps: Phase) -> Array:
    """Sawtooth with little aliasing: the differentiated parabola of Valimaki, "Discrete-time synthesis of the sawtooth waveform" (2005), eq. (4)."""
    ramp = phase * (2.0 / _PERIOD) - 1.0
    parabola = ramp * ramp
    before = np.concatenate([parabola[:1], parabola[:-1]])
    return np.asarray((parabola - before) / (steps * (4.0 / _PERIOD)))


def pulse(phase: Phase, steps: Phase, width: float) -> Array:
    """Rectangle of this width (share of a period): the difference of two sawtooths."""
    shifted = (phase + int(width * _PERIOD)) & (_PERIOD - 1)
    return np.asarray(saw(phase, steps) - saw(shifted, steps))


def square(phase: Phase) -> Array:
    """Rectangle of half a period, aliasing and all: for metal, whose partials are anywhere anyway."""
    return np.asarray(np.where(phase < _PERIOD // 2, 1.0, -1.0))


def decay(count: int, seconds: float) -> Array:
    """``(count,)`` 1, a, a**2, ...: falls to 1/e within this time. ``a = 1 - 1 / (seconds * rate)``, the first terms of the exponential."""
    start = np.zeros(count)
    start[:1] = 1.0
    return np.asarray(lfilter([1.0], [1.0, -(1.0 - 1.0 / max(2.0, seconds * SAMPLE_RATE))], start))


def faded(signal: Array, attack: int, release: int) -> Array:
    """A copy with linear ramps of so many samples at its start and end."""
    shaped = signal.copy()
    rise, fall = min(attack, len(signal)), min(release, len(signal))
    shaped[:rise] *= np.arange(1, rise + 1) / (rise + 1)
    if fall:
        shaped[-fall:] *= np.arange(fall, 0, -1) / (fall + 1)
    return shaped


def _warped(frequency: float) -> float:
    """``tan(pi f / rate)`` by its Pade approximant x (15 - x^2) / (15 - 6 x^2), within 2 % up to 9 kHz."""
    x = min(np.pi * frequency / SAMPLE_RATE, 1.35)
    return float(x * (15.0 - x * x) / (15.0 - 6.0 * x * x))


def band(signal: Array, kind: Literal["low", "high", "band"], frequency: float, q: float = 0.707) -> Array:
    """Second-order low-pass, high-pass or band-pass (unit gain at its centre) by the bilinear transform; frequency in Hz."""
    k = _warped(frequency)
    norm = 1.0 / (1.0 + k / q + k * k)
    if kind == "low":
        b0 = k * k * norm
        numerator = [b0, 2.0 * b0, b0]
    elif kind == "high":
        numerator = [norm, -2.0 * norm, norm]
    else:
        numerator = [k / q * norm, 0.0, -k / q * norm]
    return np.asarray(lfilter(numerator, [1.0, 2.0 * (k * k - 1.0) * norm, (1.0 - k / q + k * k) * norm], signal))


def darkened(signal: Array, frequency: float) -> Array:
    """First-order low-pass: 6 dB per octave above this frequency in Hz."""
    share = min(1.0, 2.0 * np.pi * frequency / SAMPLE_RATE)
    return np.asarray(lfilter([share], [1.0, share - 1.0], signal))


def soft_clip(signal: Array, drive: float) -> Array:
    """``(1 + d) x / (1 + d |x|)``: compresses what is loud, keeps +-1 where it is; no effect at drive 0."""
    return np.asarray(signal * (1.0 + drive) / (1.0 + drive * np.abs(signal)))


_LONG_DELAY = 256  # samples from which on a step per row costs less than lfilter's strides


def echo(signal: Array, delay: int, gain: float) -> Array:
    """Feedback comb ``y[n] = x[n] + gain y[n - delay]``: a first-order recursion down the rows of a table with ``delay`` columns."""
    rows = -(-len(signal) // delay)
    table = np.zeros((rows, delay))
    table.reshape(-1)[: len(signal)] = signal
    if delay < _LONG_DELAY:
        table = np.asarray(lfilter([1.0], [1.0, -gain], table, axis=0))
    else:
        for row in range(1, rows):
            table[row] += gain * table[row - 1]
    return np.asarray(table.reshape(-1)[: len(signal)])


def diffused(signal: Array, delay: int, gain: float) -> Array:
    """Schroeder's all-pass ``y[n] = -g x[n] + x[n - d] + g y[n - d]`` ("Natural sounding artificial reverberation", 1962)."""
    direct = -gain * signal
    direct[delay:] += signal[:-delay]
    return echo(direct, delay, gain)


def rms(signal: Array) -> float:
    """Root of the mean square, on a grid of 2**-20; 0 for nothing."""
    return on_grid(float(np.sqrt(np.mean(signal * signal))), bits=20) if len(signal) else 0.0
