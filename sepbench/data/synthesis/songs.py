"""A song as two stems."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sepbench.data.synthesis.bass import render_bass
from sepbench.data.synthesis.bass_part import play_bass
from sepbench.data.synthesis.dice import Array, Dice
from sepbench.data.synthesis.drum_part import play_drums
from sepbench.data.synthesis.drums import render_drums
from sepbench.data.synthesis.layout import SONG_LENGTH, STEMS, Stem
from sepbench.data.synthesis.score import Frame, Note, Stroke, plan
from sepbench.data.synthesis.sound import on_grid, rms, samples

Pcm = npt.NDArray[np.int16]

_LOUDNESS = (0.07, 0.14)  # RMS of a stem while it plays, -23.1 to -17.1 dB of full scale
_HIGHEST = 0.89  # peak of a stem, -1 dB of full scale
_FULL_SCALE = 32_768


@dataclass(frozen=True, slots=True)
class Song:
    """A composed song.

    Attributes:
        key: what its random numbers are keyed by.
        frame: beats, key and form.
        strokes, notes: what drums and bass play.
    """

    key: str
    frame: Frame
    strokes: tuple[Stroke, ...]
    notes: tuple[Note, ...]


def compose(key: str, length: int = SONG_LENGTH) -> Song:
    """The song that a key names, ``length`` samples of it."""
    frame = plan(key, length)
    strokes = play_drums(key, frame)
    return Song(key, frame, strokes, play_bass(key, frame, strokes))


def render(song: Song) -> dict[Stem, Pcm]:
    """Both stems ``(length,)`` int16, aligned in time, each at a loudness of its own and never clipped."""
    dice = Dice(f"{song.key}.mix")
    length = song.frame.length
    stems: dict[Stem, Array] = {"drums": render_drums(song.key, song.strokes, length), "bass": render_bass(song.key, song.notes, length)}
    return {stem: _quantised(stems[stem], _playing(song.frame, stem), dice.uniform(*_LOUDNESS)) for stem in STEMS}


def _playing(frame: Frame, stem: Stem) -> npt.NDArray[np.bool_]:
    """``(length,)`` whether a stem plays in the bar."""
    playing = np.zeros(frame.length, dtype=bool)
    for number, bar in enumerate(frame.bars):
        on = bar.bass if stem == "bass" else bar.drums == "full"
        start, stop = (samples(n * frame.grid.bar_seconds) for n in (number, number + 1))
        playing[start:stop] = on
    return playing


def _quantised(stem: Array, playing: npt.NDArray[np.bool_], loudness: float) -> Pcm:
    """At this RMS while it plays, or as near as the peak allows; a stem that never plays stays silent."""
    level = rms(stem[playing])
    if level == 0.0:
        level = rms(stem)
    if level == 0.0:
        return np.zeros(len(stem), dtype=np.int16)
    gain = on_grid(min(loudness / level, _HIGHEST / float(np.abs(stem).max())))
    return np.asarray(np.rint(stem * (gain * _FULL_SCALE)), dtype=np.int16)
