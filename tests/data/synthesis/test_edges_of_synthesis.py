"""Edges of songs: filters beyond their range, the shortest decay, grids of loudness, stems that sound in rests, songs that end on a note."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sepbench.data.synthesis.bass_part import play_bass
from sepbench.data.synthesis.drum_part import play_drums
from sepbench.data.synthesis.score import plan
from sepbench.data.synthesis.songs import _quantised
from sepbench.data.synthesis.sound import SAMPLE_RATE, _warped, darkened, decay, rms

NOISE = np.random.default_rng(0).uniform(-1, 1, 300)


def test_filters_beyond_their_range_are_those_at_its_end() -> None:
    end = 1.35 * SAMPLE_RATE / np.pi  # 9,475 Hz
    assert _warped(end) == pytest.approx(1.35 * (15 - 1.8225) / (15 - 6 * 1.8225), rel=1e-12)
    assert _warped(11_000.0) == pytest.approx(_warped(end), rel=1e-12)
    assert _warped(end - 100) < _warped(end)


def test_the_first_order_filter_passes_everything_from_a_sixth_of_the_rate_on() -> None:
    for frequency in (SAMPLE_RATE / (2 * np.pi), 4_000.0, 11_000.0):
        assert np.allclose(darkened(NOISE, frequency), NOISE, rtol=0, atol=1e-12)
    assert not np.allclose(darkened(NOISE, 3_400.0), NOISE, rtol=0, atol=1e-3)


@pytest.mark.parametrize("samples", [0.0, 1.0, 2.0])
def test_the_shortest_decay_is_of_two_samples(samples: float) -> None:
    assert decay(4, samples / SAMPLE_RATE).tolist() == [1.0, 0.5, 0.25, 0.125]
    assert decay(3, 4.0 / SAMPLE_RATE).tolist() == pytest.approx([1.0, 0.75, 0.5625])
    assert decay(0, 1.0).shape == (0,)


def test_loudness_is_on_a_finer_grid_than_gains() -> None:
    assert rms(np.full(5, 0.3)) == round(0.3 * 2**20) / 2**20 != round(0.3 * 2**12) / 2**12


def test_a_stem_that_only_sounds_where_it_rests_is_brought_to_level_as_a_whole() -> None:
    stem, playing = np.zeros(1_000), np.zeros(1_000, dtype=bool)
    stem[500:] = np.where(np.arange(500) % 2 == 0, 0.25, -0.25)
    playing[:500] = True
    whole = round(np.sqrt(0.5) * 0.25 * 2**20) / 2**20
    for where, level in ((playing, whole), (~playing, 0.25), (np.zeros(1_000, dtype=bool), whole)):
        gain = round(0.1 / level * 4_096) / 4_096
        assert np.array_equal(_quantised(stem, where, 0.1), np.rint(stem * gain * 32_768).astype(np.int16))
    silent = _quantised(np.zeros(7), np.ones(7, dtype=bool), 0.1)
    assert (silent.tolist(), silent.dtype) == ([0] * 7, np.int16)


# --- what is played ---------------------------------------------------------------------------------------------------------------------


def test_what_would_begin_where_a_song_ends_is_left_out() -> None:
    frame = plan("a song that ends", 44_100)
    strokes = play_drums("a song that ends", frame)
    notes = play_bass("a song that ends", frame, strokes)
    cut = replace(frame, length=strokes[-1].at)
    assert play_drums("a song that ends", cut) == tuple(stroke for stroke in strokes if stroke.at < strokes[-1].at) != ()
    cut = replace(frame, length=notes[-1].at)
    assert play_bass("a song that ends", cut, strokes) == notes[:-1] != ()
