"""Songs shared by the tests of this folder: rendering one takes a sixth of a second."""

from __future__ import annotations

import pytest
from synthesis_songs import Heard

from sepbench.data.synthesis.layout import song_keys
from sepbench.data.synthesis.songs import Song, compose, render


@pytest.fixture(scope="session")
def heard() -> list[Heard]:
    """The first eight test songs."""
    found = []
    for key in song_keys("test")[:8]:
        song = compose(key)
        stems = render(song)
        found.append(Heard(song, stems["drums"] / 32768, stems["bass"] / 32768))
    return found


@pytest.fixture(scope="session")
def composed() -> list[Song]:
    """All test songs, on paper."""
    return [compose(key) for key in song_keys("test")]
