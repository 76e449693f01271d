"""Music stems: rows are places of songs, sources are sums of stems, rests are labelled."""

from __future__ import annotations

import shutil
from pathlib import Path

import audio_layouts as layouts
import pytest
import torch

from sepbench.data.datasets import open_dataset
from sepbench.data.files.fetch import locate
from sepbench.data.files.manifests import load_manifest
from sepbench.data.readers.audio_files import audio_info, read_pcm
from sepbench.data.readers.music_stems import CHUNK, CHUNKS_PER_SONG, SAMPLE_RATE, SONGS, SOURCES, STEMS, read_music_stems
from sepbench.errors import DataError

RESTS = {"rubidium/bass": [slice(0, CHUNK)], "sodium/drums": [slice(CHUNK, CHUNK + SAMPLE_RATE)], "potassium/bass": [slice(0, 2 * SAMPLE_RATE)]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.make_music_stems(tmp_path_factory.mktemp("stems"), rests=RESTS)


def test_a_row_is_the_same_place_of_the_same_song_in_every_source(folder: Path) -> None:
    for source, stems in SOURCES.items():
        chunks, _ = read_music_stems(folder, source, chunks_per_song=2)
        assert (chunks.shape, chunks.dtype) == ((8, 1, CHUNK), torch.int16)
        for row, (song, start) in enumerate((song, part * CHUNK) for song in SONGS for part in range(2)):
            wanted = sum(read_pcm(folder / song / f"{stem}.flac", SAMPLE_RATE)[start : start + CHUNK].int() for stem in stems)
            assert torch.equal(chunks[row, 0].int(), wanted)


def test_labels_say_which_whole_seconds_sound(folder: Path) -> None:
    bass, drums = (read_music_stems(folder, source, chunks_per_song=2)[1].tolist() for source in ("bass", "drums"))
    assert bass == [3, 3, 0, 3, 0, 3, 3, 3]  # potassium: no whole second sounds, though the chunk's rest does
    assert drums == [3, 3, 3, 3, 3, 3, 3, 2]


def test_damage_is_one_clear_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lithium/drums\.flac has 131,149 samples, a song needs 196,608"):
        read_music_stems(folder, "drums", chunks_per_song=3)
    own = shutil.copytree(folder, tmp_path / "own")
    (own / "sodium" / "bass.flac").unlink()
    with pytest.raises(DataError, match=r"sodium/bass\.flac is missing"):
        read_music_stems(own, "bass", chunks_per_song=2)
    loud = torch.full((2 * CHUNK, 1), 0.6).numpy()
    for stem in ("bass", "other"):
        layouts.write(own / "lithium" / f"{stem}.flac", loud, SAMPLE_RATE)
    with pytest.raises(DataError, match="lithium: the sum of drums, bass, other leaves the range of 16 bits"):
        read_music_stems(own, "accompaniment", chunks_per_song=2)


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    try:
        return locate(load_manifest("music-stems"))
    except DataError as error:
        pytest.skip(f"needs data: {error}")


def test_the_real_files_are_aligned_and_of_the_stated_length(real: Path) -> None:
    infos = [audio_info(real / song / f"{stem}.flac") for song in SONGS for stem in STEMS]
    assert {(info.length, info.sample_rate, info.channels) for info in infos} == {(90 * SAMPLE_RATE, SAMPLE_RATE, 1)}


def test_the_real_accompaniment_and_vocals_are_the_whole_song(real: Path) -> None:
    sources = {name: open_dataset(f"music-stems/{name}", "test") for name in SOURCES}
    assert {len(signals) for signals in sources.values()} == {len(SONGS) * CHUNKS_PER_SONG}
    rows = [5, 40, 75, 110]
    others = [read_pcm(real / SONGS[row // 30] / "other.flac", SAMPLE_RATE)[row % 30 * CHUNK :][:CHUNK].float() / 32_768 for row in rows]
    whole = sum(sources[name].load(rows) for name in ("drums", "bass", "vocals")) + torch.stack(others)[:, None]
    assert torch.equal(sources["accompaniment"].load(rows) + sources["vocals"].load(rows), whole)
    assert not sources["vocals"].load(range(90, 120)).any()  # sodium has none
    with pytest.raises(DataError, match="no train split"):
        open_dataset("music-stems/drums", "train")
