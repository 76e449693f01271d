"""The bass player: notes from a song's frame, locked to the kick drum where the song wants it."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from sepbench.data.synthesis.dice import Dice
from sepbench.data.synthesis.score import HUMAN_SECONDS, Frame, Note, Stroke
from sepbench.data.synthesis.sound import samples

_SHORTEST = 0.06  # seconds
_BROKEN = "9.24.45.3.44.323"  # where a syncopated part may have notes, sixteenths of a bar


@dataclass(frozen=True, slots=True)
class _Fingers:
    """How a song's bass player plays.

    Attributes:
        low: lowest pitch; roots are folded into the twelve semitones from here on.
        ways: way of playing by section.
        broken: steps of a syncopated part.
        rests, slides, octaves, approaches: how likely each is per note.
        length: share of the time to the next note that a note sounds.
        loose: of ``HUMAN_SECONDS``.
        late: seconds behind the beat.
    """

    low: int
    ways: dict[str, str]
    broken: tuple[int, ...]
    rests: float
    slides: float
    octaves: float
    approaches: float
    length: float
    loose: float
    late: float


def play_bass(key: str, frame: Frame, strokes: Sequence[Stroke]) -> tuple[Note, ...]:
    """All notes of a song in the order of time, one sounding at a time.

    Args:
        key: the song's key.
        frame: its beats and chords.
        strokes: the drummer's part, for songs whose bass follows the kick.
    """
    dice = Dice(f"{key}.bass-part")
    fingers = _fingers(dice, frame)
    kicks = _kick_steps(frame, strokes)
    places = [place for number, bar in enumerate(frame.bars) if bar.bass for place in _bar(dice, frame, number, fingers, kicks[number])]
    starts = [max(0, samples(frame.grid.seconds(bar, step) + fingers.late + dice.around(HUMAN_SECONDS * fingers.loose))) for bar, step, _ in places]
    return _timed(dice, frame, fingers, [place[2] for place in places], starts)


def _fingers(dice: Dice, frame: Frame) -> _Fingers:
    steps = frame.grid.bar_steps
    broken = tuple(step for step in range(steps) if dice.flip(int(_BROKEN.replace(".", "0")[step % 16]) / 9))
    return _Fingers(
        low=dice.pick((24, 26, 28, 28, 28, 31, 33)),
        ways={"verse": dice.pick(frame.style.bass), "chorus": dice.pick(frame.style.bass)},
        broken=broken or (0,),
        rests=dice.uniform(0.0, 0.18),
        slides=dice.uniform(0.0, 0.2),
        octaves=dice.uniform(0.0, 0.25),
        approaches=dice.uniform(0.0, 0.7),
        length=dice.uniform(0.4, 1.0),
        loose=dice.uniform(0.1, 1.0),
        late=dice.uniform(-0.004, 0.012),
    )


def _kick_steps(frame: Frame, strokes: Sequence[Stroke]) -> list[list[int]]:
    """Steps of the kick in each bar, read back from the drummer's part."""
    grid = frame.grid
    found: list[set[int]] = [set() for _ in frame.bars]
    places = [(bar, step) for bar in range(len(frame.bars)) for step in range(grid.bar_steps)]
    times = [grid.sample(bar, step) for bar, step in places]
    for stroke in strokes:
        if stroke.voice == "kick":
            after = bisect(times, stroke.at)
            nearest = min(range(max(0, after - 1), min(after + 1, len(times))), key=lambda n: abs(times[n] - stroke.at))
            bar, step = places[nearest]
            found[bar].add(step)
    return [sorted(steps) for steps in found]


def _bar(dice: Dice, frame: Frame, number: int, fingers: _Fingers, kicks: list[int]) -> list[tuple[int, int, int]]:
    """(bar, step, pitch) of one bar's notes."""
    bar, grid = frame.bars[number], frame.grid
    following = frame.bars[min(number + 1, len(frame.bars) - 1)].chord
    way = fingers.ways["chorus" if bar.section == "chorus" else "verse"]
    steps = [step for step in _steps(dice, way, frame, fingers, kicks) if (step == 0 and dice.flip(0.97)) or not dice.flip(fingers.rests)]
    root, target = _root(frame, fingers, bar.chord), _root(frame, fingers, following)
    pitches = [_pitch(dice, way, frame, bar.chord, root, n, step, fingers) for n, step in enumerate(steps)]
    if len(steps) > 2 and steps[-1] >= grid.bar_steps // 2 and dice.flip(fingers.approaches):
        pitches[-1] = target + dice.pick((-1, -2, 1, 2, -5))
    return [(number, step, max(23, pitch)) for step, pitch in zip(steps, pitches, strict=True)]


def _steps(dice: Dice, way: str, frame: Frame, fingers: _Fingers, kicks: list[int]) -> list[int]:
    """The steps of a bar that have a note."""
    grid = frame.grid
    beats = list(range(0, grid.bar_steps, grid.steps))
    if way == "kick" and kicks:
        return kicks
    if way == "long":
        return dice.pick(([0], [0, grid.bar_steps // 2 // grid.steps * grid.steps], [0, beats[-1]]))
    if way in ("eighths", "octaves"):
        halves = 2 if grid.steps == 4 else grid.steps - 1  # triplets: the long-short of a shuffle
        return sorted([*beats, *(beat + halves for beat in beats)])
    if way == "walk":
        extra = [beat + grid.steps - 1 for beat in beats if dice.flip(0.12)]
        return sorted([*beats, *extra])
    return list(fingers.broken)


def _root(frame: Frame, fingers: _Fingers, degree: int) -> int:
    return fingers.low + (frame.tonic + frame.scale[degree] - fingers.low) % 12


def _degree(frame: Frame, chord: int, steps: int) -> int:
    """Semitones from a chord's root to the tone so many degrees of the scale above it."""
    octave, degree = divmod(chord + steps, 7)
    return frame.scale[degree] + 12 * octave - frame.scale[chord]


def _pitch(dice: Dice, way: str, frame: Frame, chord: int, root: int, n: int, step: int, fingers: _Fingers) -> int:
    if n == 0 and not dice.flip(0.06):
        return root
    if way == "octaves":
        return root + 12 * (step % frame.grid.steps != 0)
    if way == "walk":
        return root + _degree(frame, chord, dice.pick((0, 1, 2, 3, 4, 5, 6), (2, 1, 4, 1, 4, 1, 1)))
    if dice.flip(fingers.octaves):
        return root + 12
    if way in ("broken", "kick"):
        return root + _degree(frame, chord, dice.pick((0, 2, 4, 6), (6, 1, 2, 1)))
    return root + (_degree(frame, chord, 4) if dice.flip(0.1) else 0)


def _timed(dice: Dice, frame: Frame, fingers: _Fingers, pitches: list[int], starts: list[int]) -> tuple[Note, ...]:
    """Ends, velocities and slides; a note is let go before the next begins."""
    notes: list[Note] = []
    shortest = samples(_SHORTEST)
    for n, (pitch, at) in enumerate(zip(pitches, starts, strict=True)):
        following = starts[n + 1] if n + 1 < len(starts) else at + samples(2.0)
        room = min(following - at, samples(2.5))
        if at >= frame.length or room < shortest:
            continue
        length = max(shortest, int(room * fingers.length * dice.uniform(0.75, 1.1)))
        slide_from, slide_seconds = None, 0.0
        if dice.flip(fingers.slides):
            before = notes[-1].pitch if notes else pitch - 2
            slide_from = before if before != pitch and dice.flip(0.6) else pitch - dice.pick((2, 3, 5, 12))
            slide_seconds = dice.uniform(0.04, 0.14)
        notes.append(Note(at, at + min(length, room), pitch, dice.uniform(0.65, 1.0), slide_from, slide_seconds))
    return tuple(notes)
