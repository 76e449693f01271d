"""What is played: a song's grid of beats, its form, and the strokes and notes on it. No sound yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sepbench.data.synthesis.dice import Dice
from sepbench.data.synthesis.layout import SAMPLE_RATE
from sepbench.data.synthesis.sound import samples
from sepbench.data.synthesis.styles import MAJOR, MINOR, PROGRESSIONS, STYLES, Style

Section = Literal["intro", "verse", "chorus", "break"]
Playing = Literal["full", "light", "none"]

HUMAN_SECONDS = 0.012
"""No drum stroke is further from the grid than this; a bass note up to twice as far."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Where beats lie in time.

    Attributes:
        tempo: beats per minute.
        beats: per bar.
        steps: per beat.
        swing: delay of every second step as a share of a step; 0 is straight.
        swung: how many steps make the unit that swings (1: sixteenths, 2: eighths).
    """

    tempo: float
    beats: int
    steps: int
    swing: float
    swung: int

    @property
    def bar_steps(self) -> int:
        """Steps of a bar."""
        return self.beats * self.steps

    @property
    def step_seconds(self) -> float:
        return 60.0 / (self.tempo * self.steps)

    @property
    def bar_seconds(self) -> float:
        return self.bar_steps * self.step_seconds

    def seconds(self, bar: int, step: int) -> float:
        """Time of a step from the song's start, swing included. Steps past the bar's end lie in the next."""
        late = self.swing * self.swung if step % (2 * self.swung) == self.swung else 0.0
        return (bar * self.bar_steps + step + late) * self.step_seconds

    def sample(self, bar: int, step: int) -> int:
        """The same in samples."""
        return samples(self.seconds(bar, step))


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of the form.

    Attributes:
        section: what part of the song it belongs to.
        drums, bass: who plays; light drums are cymbals and a kick on one.
        chord: the chord's root as a degree of the scale, 0 to 6.
        fill: the drums close a phrase here.
        opens: the first bar of a phrase.
    """

    section: Section
    drums: Playing
    bass: bool
    chord: int
    fill: bool
    opens: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """What drums and bass share.

    Attributes:
        style, grid: how and how fast.
        tonic: MIDI pitch class of the key, 0 (C) to 11.
        minor: mode of the key.
        bars: the form, as many bars as the song needs.
        length: samples of the song.
    """

    style: Style
    grid: Grid
    tonic: int
    minor: bool
    bars: tuple[Bar, ...]
    length: int

    @property
    def scale(self) -> tuple[int, ...]:
        """Semitones of the seven degrees above the tonic."""
        return MINOR if self.minor else MAJOR


@dataclass(frozen=True, slots=True)
class Stroke:
    """One stroke on one drum: voice, sample it begins at, velocity in (0, 1]."""

    voice: str
    at: int
    velocity: float


@dataclass(frozen=True, slots=True)
class Note:
    """One note of the bass.

    Attributes:
        at, stop: samples at which it begins and is let go.
        pitch: MIDI number.
        velocity: in (0, 1].
        slide_from: pitch that it glides up or down from, or None.
        slide_seconds: how long that takes.
    """

    at: int
    stop: int
    pitch: int
    velocity: float
    slide_from: int | None = None
    slide_seconds: float = 0.0


def plan(key: str, length: int) -> Frame:
    """Style, tempo, key and form of the song that ``key`` names, long enough for ``length`` samples."""
    dice = Dice(f"{key}.form")
    style = dice.pick(STYLES)
    tempo = dice.uniform(*style.tempo)
    # Triplets swing by themselves; straight steps do in every second song.
    swing, swung = 0.0, 1
    if style.steps == 4 and dice.flip(0.5):
        swing, swung = dice.uniform(0.08, 0.34), dice.pick((1, 1, 2))
    grid = Grid(tempo, style.beats, style.steps, swing, swung)
    minor = dice.flip(0.5)
    n_bars = int(length / SAMPLE_RATE / grid.bar_seconds) + 2
    return Frame(style, grid, int(dice.uniform(0, 12)), minor, _form(dice, grid, minor, n_bars), length)


def _form(dice: Dice, grid: Grid, minor: bool, n_bars: int) -> tuple[Bar, ...]:
    """An intro, then verses and choruses of four or eight bars, with breaks between some of them."""
    loops: dict[Section, tuple[int, ...]] = {section: dice.pick(PROGRESSIONS[minor]) for section in ("verse", "chorus")}
    bars = _phrase(dice, "intro", loops["verse"], dice.pick((0, 1, 2, 2, 4)), *_intro(dice))
    section: Section = "verse"
    while len(bars) < n_bars:
        bars += _phrase(dice, section, loops[section], dice.pick((4, 4, 8)), "full", True)
        if dice.flip(0.3):
            # Between three and eight seconds: some of them leave a whole chunk of the song to one stem.
            length = max(1, round(dice.uniform(3.0, 8.0) / grid.bar_seconds))
            drums, bass = dice.pick(_BREAKS)
            bars += _phrase(dice, "break", loops[section], length, drums, bass)
        section = dice.pick(("verse", "chorus")) if section == "verse" else "verse"
    return tuple(bars[:n_bars])


_BREAKS: tuple[tuple[Playing, bool], ...] = (("none", True), ("full", False), ("light", True), ("light", False))


def _intro(dice: Dice) -> tuple[Playing, bool]:
    options: tuple[tuple[Playing, bool], ...] = (("full", True), ("full", False), ("none", True), ("light", False), ("light", True))
    return dice.pick(options)


def _phrase(dice: Dice, section: Section, loop: tuple[int, ...], length: int, drums: Playing, bass: bool) -> list[Bar]:
    fill = dice.flip(0.75) and drums != "none"
    return [Bar(section, drums, bass, loop[n % len(loop)], fill and n == length - 1, n == 0) for n in range(length)]
