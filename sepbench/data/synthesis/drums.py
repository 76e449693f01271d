"""The drum kit: every voice synthesised from sines, noise and filters, with parameters that differ from song to song."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sepbench.data.synthesis.dice import Array, Dice
from sepbench.data.synthesis.score import Stroke
from sepbench.data.synthesis.sound import band, decay, diffused, echo, faded, increments, phases, samples, sine, soft_clip, square

_SOFT, _HARD = 0.45, 0.8  # velocities between the three timbres of a voice
_VARIATIONS = 2  # recordings of each voice and timbre, played in turn
_TAIL = 6.0  # a sound is cut after so many time constants, where it has fallen by 52 dB
_CHOKED = ("hat", "open")  # a stroke on the one stops the other's ringing
_CHOKE_SECONDS = 0.008


def render_drums(key: str, strokes: Sequence[Stroke], length: int) -> Array:
    """The drum stem ``(length,)``, room included; its level is not set yet.

    Args:
        key: the song's key; kit and room follow from it.
        strokes: in the order of time.
        length: samples.
    """
    dice = Dice(f"{key}.kit")
    kit = Kit(dice)
    dry = np.zeros(length)
    stops = _chokes(strokes, length)
    for number, stroke in enumerate(strokes):
        sound = kit.sound(stroke.voice, stroke.velocity, number % _VARIATIONS)[: length - stroke.at]
        if stops[number] < stroke.at + len(sound):
            sound = faded(sound[: stops[number] - stroke.at], 0, samples(_CHOKE_SECONDS))
        dry[stroke.at : stroke.at + len(sound)] += stroke.velocity * sound
    return _room(dice, soft_clip(dry, dice.uniform(0.0, 1.5)))


def _chokes(strokes: Sequence[Stroke], length: int) -> list[int]:
    """For each stroke the sample at which it is stopped by a later one; ``2 * length`` where it rings on."""
    stops, following = [2 * length] * len(strokes), 2 * length
    for number in range(len(strokes) - 1, -1, -1):
        if strokes[number].voice in _CHOKED:
            stops[number] = following
            following = strokes[number].at
    return stops


def _room(dice: Dice, dry: Array) -> Array:
    """Schroeder's reverberator: four parallel combs, two all-passes; mixed in between hardly audible and clearly roomy."""
    wet, seconds, size = dice.uniform(0.01, 0.14), dice.uniform(0.12, 0.7), dice.uniform(0.6, 1.4)
    sent = band(band(dry, "low", dice.uniform(2500.0, 7000.0)), "high", dice.uniform(120.0, 400.0))
    tail = np.zeros(len(dry))
    for base in (0.0297, 0.0371, 0.0411, 0.0437):  # seconds, Schroeder (1962)
        delay = samples(base * size)
        # Falls by 60 dB in ``seconds``: 6.9 time constants; 1 / (1 + x) stands in for exp(-x).
        tail += echo(sent, delay, 1.0 / (1.0 + 6.9 * base * size / seconds))
    for delay in (samples(0.005 * size), samples(0.0017 * size)):
        tail = diffused(tail, delay, 0.7)
    return np.asarray(dry + wet * tail)


class Kit:
    """One song's drums. Sounds are made when first struck and kept.

    Args:
        dice: draws every parameter of the kit now, and the noise of its sounds when they are made.
    """

    VOICES = ("kick", "snare", "clap", "rim", "hat", "open", "ride", "crash", "shaker", "tom-low", "tom-mid", "tom-high")

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._sounds: dict[tuple[str, int, int], Array] = {}
        size = dice.uniform(0.8, 1.25)  # small kits are tuned higher and ring shorter
        toms = dice.uniform(75.0, 100.0) / size
        spread = dice.uniform(1.25, 1.5)
        kick, snare, clap, rim = self._kick(size), self._snare(size), self._clap(), self._rim()
        hat, ride, crash, shaker = self._hat(), self._ride(), self._crash(), self._shaker()
        tom_decay, tom_drop = dice.uniform(0.08, 0.22) * size, dice.uniform(0.1, 0.6)
        self._voices: dict[str, Callable[[float], Array]] = {
            "kick": kick,
            "snare": snare,
            "clap": clap,
            "rim": rim,
            "hat": lambda hard: hat(hard, False),
            "open": lambda hard: hat(hard, True),
            "ride": ride,
            "crash": crash,
            "shaker": shaker,
            "tom-low": lambda hard: self._tom(toms, tom_decay, tom_drop, hard),
            "tom-mid": lambda hard: self._tom(toms * spread, tom_decay * 0.85, tom_drop, hard),
            "tom-high": lambda hard: self._tom(toms * spread * spread, tom_decay * 0.7, tom_drop, hard),
        }

    def sound(self, voice: str, velocity: float, variation: int) -> Array:
        """One stroke at full loudness; the velocity chooses among three timbres, the variation among equal ones.

        Raises:
            KeyError: no such voice.
        """
        timbre = 0 if velocity < _SOFT else 1 if velocity < _HARD else 2
        key = (voice, timbre, variation)
        if key not in self._sounds:
            self._sounds[key] = faded(self._voices[voice](timbre / 2.0), 2, 64)
        return self._sounds[key]

    def _noise(self, seconds: float) -> Array:
        """Noise that falls to 1/e in this time."""
        count = samples(_TAIL * seconds)
        return np.asarray(self._dice.noise(count) * decay(count, seconds))

    def _tone(self, start: float, end: float, drop: float, seconds: float) -> Array:
        """A sine whose frequency falls from ``start`` to ``end`` Hz with time constant ``drop``, its loudness with ``seconds``."""
        count = samples(_TAIL * seconds)
        frequency = end + (start - end) * decay(count, drop)
        return np.asarray(sine(phases(increments(frequency))) * decay(count, seconds))

    def _kick(self, size: float) -> Callable[[float], Array]:
        dice = self._dice
        end, ratio, drop = dice.uniform(42.0, 64.0) / size, dice.uniform(2.5, 7.0), dice.uniform(0.008, 0.04)
        seconds, click, tone = dice.uniform(0.06, 0.2) * size, dice.uniform(0.1, 0.7), dice.uniform(1500.0, 5000.0)
        drive = dice.uniform(0.0, 2.0)

        def sound(hard: float) -> Array:
            body = soft_clip(self._tone(end * ratio * (0.7 + 0.3 * hard), end, drop, seconds), drive)
            beater = band(self._noise(0.004), "low", tone * (0.5 + 0.5 * hard))
            body[: len(beater)] += click * (0.3 + 0.7 * hard) * beater
            return body

        return sound

    def _snare(self, size: float) -> Callable[[float], Array]:
        dice = self._dice
        tuning, second, ring = dice.uniform(150.0, 240.0) / size, dice.uniform(1.5, 1.9), dice.uniform(0.03, 0.12)
        rattle, floor, centre = dice.uniform(0.05, 0.18), dice.uniform(500.0, 1800.0), dice.uniform(2500.0, 6000.0)
        wires = dice.uniform(0.6, 1.4)

        def sound(hard: float) -> Array:
            noise = self._noise(rattle * (0.7 + 0.3 * hard))
            noise = band(noise, "high", floor) + 0.8 * band(noise, "band", centre, 0.8)
            head = self._tone(tuning * 1.4, tuning, 0.01, ring)
            overtone = 0.5 * self._tone(tuning * second, tuning * second, 0.01, ring * 0.6)
            return _sum(wires * (0.4 + 0.6 * hard) * noise, head, overtone)

        return sound

    def _clap(self) -> Callable[[float], Array]:
        dice = self._dice
        centre, gap, seconds = dice.uniform(900.0, 1800.0), dice.uniform(0.008, 0.014), dice.uniform(0.05, 0.16)

        def sound(hard: float) -> Array:
            parts = [(n * gap, self._noise(0.004) if n < 3 else self._noise(seconds)) for n in range(4)]
            out = np.zeros(max(samples(at) + len(part) for at, part in parts))
            for at, part in parts:
                out[samples(at) : samples(at) + len(part)] += part
            return 2.0 * band(out, "band", centre * (0.9 + 0.2 * hard), 1.2)

        return sound

    def _rim(self) -> Callable[[float], Array]:
        low, high = self._dice.uniform(420.0, 620.0), self._dice.uniform(1500.0, 2100.0)

        def sound(hard: float) -> Array:
            return _sum(self._tone(low, low, 0.01, 0.02), (0.5 + 0.5 * hard) * self._tone(high, high, 0.01, 0.012), 0.5 * self._noise(0.003))

        return sound

    def _metal(self, seconds: float, lowest: float, ratios: Sequence[float]) -> Array:
        """Inharmonic square waves, as in the analogue machines' cymbals, ringing away together."""
        count = samples(_TAIL * seconds)
        out = np.zeros(count)
        for ratio in ratios:
            out += square(phases(np.full(count, int(increments(lowest * ratio)))))
        return np.asarray(out * decay(count, seconds) / len(ratios))

    def _hat(self) -> Callable[[float, bool], Array]:
        dice = self._dice
        closed, opened, floor = dice.uniform(0.012, 0.045), dice.uniform(0.12, 0.35), dice.uniform(5500.0, 8500.0)
        lowest, metal = dice.uniform(320.0, 560.0), dice.uniform(0.2, 1.0)
        ratios = [ratio * (1.0 + dice.around(0.04)) for ratio in (2.0, 3.0, 4.16, 5.43, 6.79, 8.21)]

        def sound(hard: float, is_open: bool) -> Array:
            seconds = opened if is_open else closed * (0.6 + 0.4 * hard)
            mixed = _sum(self._noise(seconds), metal * self._metal(seconds, lowest, ratios))
            return 0.8 * band(band(mixed, "high", floor * (1.1 - 0.1 * hard)), "high", floor * 0.7)

        return sound

    def _ride(self) -> Callable[[float], Array]:
        dice = self._dice
        seconds, floor, bell = dice.uniform(0.25, 0.6), dice.uniform(3500.0, 6000.0), dice.uniform(0.05, 0.25)
        pings = [dice.uniform(2500.0, 5500.0) for _ in range(4)]
        lowest = dice.uniform(380.0, 640.0)

        def sound(hard: float) -> Array:
            wash = band(_sum(self._noise(seconds), 0.6 * self._metal(seconds, lowest, (2.0, 3.1, 4.3, 5.9, 7.3))), "high", floor)
            tones = [bell * self._tone(ping, ping, 0.01, seconds * 0.5) for ping in pings]
            return _sum(0.35 * wash, 0.5 * band(self._noise(0.006), "high", floor), *(tone * (0.4 + 0.6 * hard) for tone in tones))

        return sound

    def _crash(self) -> Callable[[float], Array]:
        dice = self._dice
        seconds, floor, lowest = dice.uniform(0.3, 0.8), dice.uniform(2000.0, 4500.0), dice.uniform(300.0, 500.0)

        def sound(hard: float) -> Array:
            wash = _sum(self._noise(seconds), self._noise(seconds * 0.3), 0.5 * self._metal(seconds, lowest, (2.0, 2.7, 3.9, 5.2, 6.6)))
            return (0.4 + 0.2 * hard) * band(wash, "high", floor)

        return sound

    def _shaker(self) -> Callable[[float], Array]:
        dice = self._dice
        seconds, centre = dice.uniform(0.02, 0.05), dice.uniform(5000.0, 7500.0)

        def sound(hard: float) -> Array:
            return 0.8 * band(faded(self._noise(seconds), samples(0.4 * seconds), 0), "band", centre * (0.95 + 0.1 * hard), 0.9)

        return sound

    def _tom(self, frequency: float, seconds: float, drop: float, hard: float) -> Array:
        head = self._tone(frequency * (1.0 + drop * (0.5 + 0.5 * hard)), frequency, 0.05, seconds)
        return _sum(head, 0.35 * (0.3 + 0.7 * hard) * band(self._noise(0.012), "low", 3000.0))


def _sum(*parts: Array) -> Array:
    """Sounds of different lengths on top of each other."""
    out = np.zeros(max(len(part) for part in parts))
    for part in parts:
        out[: len(part)] += part
    return out
