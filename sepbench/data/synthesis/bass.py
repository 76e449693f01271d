"""The bass: a plucked string, a subtractive synthesiser, or a sine with its octave; one voice per song, every parameter drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from sepbench.data.synthesis.dice import Array, Dice
from sepbench.data.synthesis.layout import SAMPLE_RATE
from sepbench.data.synthesis.score import Note
from sepbench.data.synthesis.sound import (
    Phase,
    band,
    darkened,
    decay,
    faded,
    hertz,
    increments,
    on_grid,
    phases,
    pulse,
    rms,
    samples,
    saw,
    sine,
    soft_clip,
)

Voice = Literal["string", "synth", "sub"]

_LONGEST = 2.6  # seconds, longer than any note


def voice_of(key: str) -> Voice:
    """What a song's bass is played on: a string in every second song."""
    voices: tuple[Voice, ...] = ("string", "synth", "sub")
    return Dice(f"{key}.bass-voice").pick(voices, (5, 3, 2))


def render_bass(key: str, notes: Sequence[Note], length: int) -> Array:
    """The bass stem ``(length,)``; its level is not set yet.

    Args:
        key: the song's key; the voice and its parameters follow from it.
        notes: in the order of time, one sounding at a time.
        length: samples.
    """
    dice = Dice(f"{key}.bass-sound")
    render = {"string": _string, "synth": _synth, "sub": _sub}[voice_of(key)]
    shaped = soft_clip(render(dice, notes, length), dice.uniform(0.0, 1.2))
    # Clipping an asymmetric wave leaves a constant behind.
    return band(band(shaped, "high", 28.0), "low", dice.uniform(2200.0, 6000.0))


# --- the plucked string --------------------------------------------------------------------------------------------------------------


def _string(dice: Dice, notes: Sequence[Note], length: int) -> Array:
    """Karplus and Strong, "Digital synthesis of plucked-string and drum timbres" (1983), with the pluck's place and hardness."""
    ring, damping, place = dice.uniform(0.8, 4.0), dice.uniform(0.12, 0.5), dice.uniform(0.08, 0.35)
    hardness, warmth, thump = dice.uniform(500.0, 4500.0), dice.uniform(50.0, 300.0), dice.uniform(0.0, 0.25)
    release = samples(dice.uniform(0.012, 0.05))
    out = np.zeros(length)
    for number, note in enumerate(notes):
        end = notes[number + 1].at if number + 1 < len(notes) else length
        count = min(note.stop + release, end, length) - note.at
        path = _glide(note, count)
        travelled = int(np.ceil(path[-1])) + 2 if path is not None else count
        loud = 0.4 + 0.6 * note.velocity
        sound = _plucked(dice, hertz(note.pitch), travelled, (hardness * loud, warmth), ring, damping, place)
        if path is not None:
            sound = _read_at(sound, path)
        knock = thump * loud * band(dice.noise(min(count, 700)) * decay(min(count, 700), 0.006), "low", 2500.0)
        sound[: len(knock)] += knock
        out[note.at : note.at + count] += loud * faded(sound, 8, release)
    return out


def _plucked(dice: Dice, frequency: float, count: int, tone: tuple[float, float], ring: float, damping: float, place: float) -> Array:
    """One string ``(count,)``: noise that circulates in a delay line of one period, a little duller and softer every time.

    ``tone`` are the corners of the burst's two low-pass filters: second order (a pick or a finger) and first order (the string's own slope).
    The loop's filter has three taps: linear interpolation for the fraction of the delay, convolved with (1 - damping, damping).
    """
    period = SAMPLE_RATE / frequency
    delay = int(period - damping)
    fraction = period - damping - delay
    gain = 1.0 - 6.9 / (ring * frequency)  # falls by 60 dB in about ``ring`` seconds
    taps = (gain * (1.0 - fraction) * (1.0 - damping), gain * (fraction + damping - 2.0 * fraction * damping), gain * fraction * damping)
    burst = darkened(band(dice.noise(delay + 2), "low", tone[0]), tone[1])
    burst -= np.roll(burst, max(1, int(place * delay)))  # plucked at this share of its length, the string lacks the modes with a node there
    line = np.zeros(max(count, delay + 2))
    line[: delay + 2] = burst * on_grid(0.25 / max(rms(burst), 1e-3))
    for start in range(delay + 2, count, delay):
        stop = min(start + delay, count)
        width = stop - start
        line[start:stop] = sum(tap * line[start - delay - lag : start - delay - lag + width] for lag, tap in enumerate(taps))
    return line[:count]


def _glide(note: Note, count: int) -> Array | None:
    """Where to read the sound of a string at each sample so that it glides to its pitch; None without a slide."""
    if note.slide_from is None:
        return None
    ramp = np.minimum(np.arange(count) / samples(note.slide_seconds), 1.0)
    start = hertz(note.slide_from) / hertz(note.pitch)
    return np.asarray(np.cumsum(np.rint((start + (1.0 - start) * ramp) * 2.0**20)) * 2.0**-20)


def _read_at(sound: Array, path: Array) -> Array:
    """Linear interpolation of a sound at fractional places."""
    index = path.astype(np.int64)
    fraction = path - index
    return np.asarray(sound[index] + fraction * (sound[index + 1] - sound[index]))


# --- synthesisers --------------------------------------------------------------------------------------------------------------------


def _synth(dice: Dice, notes: Sequence[Note], length: int) -> Array:
    """Sawtooth or rectangle through a low-pass filter that every note opens anew."""
    shape, width, detune = dice.pick(("saw", "pulse", "both")), dice.uniform(0.15, 0.5), dice.uniform(0.0, 0.006)
    steps = _pitches(notes, length)
    phase = phases(steps)
    if shape == "saw":
        second = np.asarray(np.rint(steps * (1.0 + detune)), dtype=np.int64)
        wave = 0.5 * (saw(phase, steps) + saw(phases(second), second))
    else:
        wave = pulse(phase, steps, width)
        if shape == "both":
            wave = 0.5 * (wave + saw(phase, steps))
    opened = _envelope(notes, length, attack=dice.uniform(0.002, 0.01), fall=dice.uniform(0.06, 0.5), hold=0.0, release=0.05)
    loudness = _envelope(notes, length, attack=dice.uniform(0.002, 0.01), fall=dice.uniform(0.2, 1.0), hold=dice.uniform(0.3, 1.0), release=0.02)
    return _swept(wave, dice.uniform(0.0, 1.8), dice.uniform(0.3, 3.2), opened, dice.uniform(0.7, 3.0)) * loudness


_CUTOFFS = tuple(130.0 * 2.0**octave for octave in range(6))


def _swept(wave: Array, rest: float, amount: float, envelope: Array, q: float) -> Array:
    """A low-pass filter whose cutoff moves: fixed filters an octave apart, faded into one another.

    Args:
        wave: what is filtered.
        rest: octaves above ``_CUTOFFS[0]`` when the envelope is 0.
        amount: octaves more when it is 1.
        envelope: ``(length,)`` in 0..1.
        q: resonance.
    """
    place = np.minimum(rest + amount * envelope, len(_CUTOFFS) - 1.0)
    out = np.zeros(len(wave))
    for number, cutoff in enumerate(_CUTOFFS):
        weight = 1.0 - np.abs(place - number)
        if rest - 1.0 < number < rest + amount + 1.0:
            out += np.maximum(weight, 0.0) * band(wave, "low", cutoff, q)
    return out


def _sub(dice: Dice, notes: Sequence[Note], length: int) -> Array:
    """A sine, some of its octave and twelfth, and drive."""
    octave, twelfth, drive = dice.uniform(0.0, 0.6), dice.uniform(0.0, 0.3), dice.uniform(0.0, 3.0)
    phase = phases(_pitches(notes, length))
    wave = sine(phase) + octave * sine(2 * phase) + twelfth * sine(3 * phase)
    loudness = _envelope(notes, length, attack=dice.uniform(0.003, 0.02), fall=dice.uniform(0.1, 0.8), hold=dice.uniform(0.1, 0.9), release=0.03)
    return soft_clip(wave * loudness, drive)


def _pitches(notes: Sequence[Note], length: int) -> Phase:
    """Increments of the phase ``(length,)``: each note's pitch until the next begins, glides included."""
    frequency = np.full(length, hertz(notes[0].pitch) if notes else 50.0)
    for note in notes:
        target = hertz(note.pitch)
        frequency[note.at :] = target
        if note.slide_from is not None:
            start = hertz(note.slide_from)
            ramp = np.arange(min(samples(note.slide_seconds), length - note.at)) / samples(note.slide_seconds)
            frequency[note.at : note.at + len(ramp)] = start + (target - start) * ramp
    return increments(frequency)


def _envelope(notes: Sequence[Note], length: int, attack: float, fall: float, hold: float, release: float) -> Array:
    """Loudness ``(length,)`` in 0..1: up within ``attack`` seconds, falling towards ``hold`` with time constant ``fall``, then let go."""
    rise, let_go = samples(attack), samples(release)
    shape = hold + (1.0 - hold) * decay(samples(_LONGEST), fall)
    out = np.zeros(length)
    for number, note in enumerate(notes):
        end = min(notes[number + 1].at if number + 1 < len(notes) else length, note.stop + let_go, length)
        sounding = note.velocity * shape[: end - note.at]
        out[note.at : end] = faded(sounding, rise, min(let_go, len(sounding)))
    return out
