"""What is played: on the grid, in the key's range, one bass note at a time, and different from song to song."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sepbench.data.synthesis.bass import voice_of
from sepbench.data.synthesis.drums import Kit
from sepbench.data.synthesis.layout import SAMPLE_RATE, SONG_LENGTH, SPLITS, song_keys
from sepbench.data.synthesis.score import HUMAN_SECONDS
from sepbench.data.synthesis.songs import Song, compose
from sepbench.data.synthesis.styles import HATS, PROGRESSIONS, STYLES, likely


def grid_times(song: Song) -> np.ndarray:
    """Samples of every step of a song."""
    grid = song.frame.grid
    return np.array([grid.sample(bar, step) for bar in range(len(song.frame.bars)) for step in range(grid.bar_steps)])


def from_grid(song: Song, places: list[int]) -> np.ndarray:
    """Seconds from each place to the nearest step."""
    times = grid_times(song)
    return np.abs(times[None] - np.array(places)[:, None]).min(axis=1) / SAMPLE_RATE


def test_styles_are_well_formed() -> None:
    assert (min(style.tempo[0] for style in STYLES), max(style.tempo[1] for style in STYLES)) == (70, 180)
    for style in STYLES:
        for pattern in (style.kick, style.snare, style.ghosts):
            assert len(likely(pattern)) == style.beats * style.steps
        for name in style.hats:
            assert all(step < style.steps for beat in HATS[name] for step in beat)
    assert all(0 <= degree < 7 for loops in PROGRESSIONS.values() for loop in loops for degree in loop)


def test_seeds_are_disjoint() -> None:
    keys = [key for split in SPLITS for key in song_keys(split)]
    assert len(set(keys)) == len(keys) == 120
    assert [key.split(".")[2] for key in song_keys("train")] == ["train"] * 60 + ["validation"] * 8
    assert {key.split(".")[2] for key in song_keys("test")} == {"test"}


def test_a_song_is_the_same_every_time_and_another_song_is_not() -> None:
    first, second = song_keys("test")[:2]
    assert compose(first) == compose(first)
    assert compose(first).strokes != compose(second).strokes
    assert compose(first).notes != compose(second).notes


def test_everything_is_played_on_the_grid(composed: list[Song]) -> None:
    """Both stems share one grid; people are a little early or late."""
    for song in composed:
        assert from_grid(song, [stroke.at for stroke in song.strokes]).max() <= HUMAN_SECONDS + 1e-4
        assert from_grid(song, [note.at for note in song.notes]).max() <= 2 * HUMAN_SECONDS + 1e-4


def test_strokes_and_notes_lie_inside_the_song(composed: list[Song]) -> None:
    voices = Kit.VOICES
    for song in composed:
        assert all(0 <= stroke.at < SONG_LENGTH and 0 < stroke.velocity <= 1 and stroke.voice in voices for stroke in song.strokes)
        assert [s.at for s in song.strokes] == sorted(s.at for s in song.strokes)
        for note, following in zip(song.notes, song.notes[1:], strict=False):
            assert note.at < note.stop <= following.at
        assert all(0 <= note.at < SONG_LENGTH and 23 <= note.pitch <= 69 and 0 < note.velocity <= 1 for note in song.notes)
    assert {stroke.voice for song in composed for stroke in song.strokes} == set(voices)


def test_bass_notes_follow_the_chords(composed: list[Song]) -> None:
    """The first note of a bar is its chord's root, but for a few."""
    roots = 0
    bars = 0
    for song in composed:
        frame = song.frame
        starts = {int(np.abs(grid_times(song) - note.at).argmin()): note.pitch for note in song.notes}
        for number, bar in enumerate(frame.bars):
            pitch = starts.get(number * frame.grid.bar_steps)
            if bar.bass and pitch is not None:
                bars += 1
                roots += (pitch - frame.tonic - frame.scale[bar.chord]) % 12 == 0
    assert bars > 400
    assert roots / bars > 0.8


def test_the_bass_of_some_songs_is_locked_to_the_kick(composed: list[Song]) -> None:
    shares = []
    for song in composed:
        kicks = np.array([stroke.at for stroke in song.strokes if stroke.voice == "kick"])
        apart = [np.abs(kicks - note.at).min() / SAMPLE_RATE for note in song.notes]
        shares.append(float(np.mean(np.array(apart) < 3 * HUMAN_SECONDS)))
    assert max(shares) > 0.85
    assert min(shares) < 0.5


def test_songs_differ(composed: list[Song]) -> None:
    """A separator that knows the training songs does not know these."""
    tempos = np.array([song.frame.grid.tempo for song in composed])
    assert 70 <= tempos.min() < 85
    assert 160 < tempos.max() <= 180
    assert len(np.unique(tempos.round(1))) > 45
    assert len({(song.frame.tonic, song.frame.minor) for song in composed}) > 15
    assert 0.3 < np.mean([song.frame.minor for song in composed]) < 0.7
    assert {song.frame.style.name for song in composed} == {style.name for style in STYLES}
    assert 0.15 < np.mean([song.frame.grid.swing > 0 for song in composed]) < 0.6
    assert {song.frame.grid.bar_steps for song in composed} == {12, 16}
    voices = Counter(voice_of(song.key) for song in composed)
    assert min(voices[voice] for voice in ("string", "synth", "sub")) >= 3
    assert any(note.slide_from is not None for song in composed for note in song.notes)
    leaps = [abs(a.pitch - b.pitch) for song in composed for a, b in zip(song.notes, song.notes[1:], strict=False)]
    assert leaps.count(12) > 50
    assert 0.1 < np.mean([stroke.velocity < 0.45 for song in composed for stroke in song.strokes if stroke.voice == "snare"]) < 0.8


def test_forms_have_intros_fills_and_breaks(composed: list[Song]) -> None:
    bars = [bar for song in composed for bar in song.frame.bars]
    assert {bar.section for bar in bars} == {"intro", "verse", "chorus", "break"}
    assert {bar.drums for bar in bars} == {"full", "light", "none"}
    assert 0.02 < np.mean([not bar.bass for bar in bars]) < 0.2
    assert 0.05 < np.mean([bar.fill for bar in bars]) < 0.3


def test_a_short_song_is_short() -> None:
    song = compose("any text", 44_100)
    assert song.frame.length == 44_100
    assert all(stroke.at < 44_100 for stroke in song.strokes)
    with pytest.raises(KeyError):
        song_keys("validation")
