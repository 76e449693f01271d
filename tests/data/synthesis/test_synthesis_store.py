"""The splits on disk: made when missing, made again when damaged, refused when they are not the frozen ones; silent chunks are labelled."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbench.data import datasets
from sepbench.data.datasets import open_dataset
from sepbench.data.files.fetch import fetch, locate, obtain, status, verify
from sepbench.data.files.manifests import DataFile, Manifest, load_manifest
from sepbench.data.lists.recipes import RECIPES
from sepbench.data.lists.rules import SILENT_RMS
from sepbench.data.synthesis import layout, store
from sepbench.data.synthesis.layout import CHUNK, CHUNKS_PER_SONG, HELD_OUT_SONGS, SAMPLE_RATE, SONG_LENGTH, SPLITS, STEMS, file_name, song_keys
from sepbench.data.synthesis.songs import compose, render
from sepbench.errors import DataError
from sepbench.files import TEMPORARY, file_sha256

NAMES = [file_name(split, stem) for split in SPLITS for stem in STEMS]


@pytest.fixture(scope="session")
def two_songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny release of the data set: one song per split."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        store.make(NAMES, folder)
    return folder


def shorten(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(layout.SPLITS, "train", (("validation", 1),))
    patch.setitem(layout.SPLITS, "test", (("test", 1),))


@pytest.fixture
def toy(two_songs: Path, data_home: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """The tiny release's manifest in place of the real one; nothing is made yet."""
    shorten(monkeypatch)
    files = tuple(DataFile(name, (two_songs / name).stat().st_size, sha256=file_sha256(two_songs / name)) for name in NAMES)
    manifest = Manifest("drums-bass-synth", "t", "l", "c", "h", files, made_by="sepbench.data.synthesis.store")
    monkeypatch.setattr(datasets, "load_manifest", {"drums-bass-synth": manifest}.__getitem__)
    return manifest


def cached(data_home: Path) -> Path:
    return data_home / "cache" / "drums-bass-synth"


def test_the_manifest_names_every_file_and_its_size() -> None:
    manifest = load_manifest("drums-bass-synth")
    assert {file.name: file.size for file in manifest.files} == {
        file_name(split, stem): 44 + 2 * SONG_LENGTH * len(song_keys(split)) for split in SPLITS for stem in STEMS
    }
    assert manifest.made_by == store.__name__
    assert manifest.download_form is None


def test_a_split_holds_its_songs_in_order(two_songs: Path) -> None:
    with wave.open(str(two_songs / "test" / "bass.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()) == (1, 2, 22_050, SONG_LENGTH)
    expected = render(compose(song_keys("test")[0]))
    for stem in STEMS:
        chunks, labels = store.read(two_songs, "test", stem)
        assert (chunks.shape, chunks.dtype) == ((CHUNKS_PER_SONG, 1, CHUNK), torch.int16)
        np.testing.assert_array_equal(chunks.flatten().numpy(), expected[stem])
        assert (labels.shape, labels.dtype) == ((CHUNKS_PER_SONG,), torch.int64)
    assert not list(two_songs.rglob(f"*{TEMPORARY}"))


def test_only_the_split_that_is_opened_is_made(toy: Manifest, data_home: Path) -> None:
    assert status(toy).state == "on demand"
    assert status(toy).folder is None
    signals = open_dataset("drums-bass-synth/bass", "test")
    assert (signals.name, signals.domain, signals.shape, len(signals)) == ("drums-bass-synth/bass", "audio", (1, CHUNK), CHUNKS_PER_SONG)
    assert sorted(path.relative_to(cached(data_home)).as_posix() for path in cached(data_home).rglob("*.wav")) == ["test/bass.wav", "test/drums.wav"]
    assert open_dataset("drums-bass-synth/bass", "test") is signals
    assert (status(toy).state, status(toy).folder) == ("on demand", cached(data_home))
    assert [check.name for check in verify(toy)] == ["test/drums.wav", "test/bass.wav"]
    with pytest.raises(DataError, match=r"no train/drums\.wav, train/bass\.wav in .*; run 'sepbench data fetch drums-bass-synth', which makes them here"):
        locate(toy)


def test_values_are_sixteen_bits_of_full_scale_one(toy: Manifest) -> None:
    values = open_dataset("drums-bass-synth/drums", "test").load(range(CHUNKS_PER_SONG))
    assert values.dtype == torch.float32
    assert torch.equal((values * 32768).round() / 32768, values)
    assert 0.05 < float(values.abs().max()) < 0.9


def test_progress_counts_the_bytes_that_are_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(layout.SPLITS, "test", (("test", 3),))
    monkeypatch.setattr("sepbench.data.synthesis.songs.compose", lambda key: key)
    monkeypatch.setattr("sepbench.data.synthesis.songs.render", lambda song: dict.fromkeys(STEMS, np.zeros(SONG_LENGTH, np.int16)))
    told: list[tuple[str, int, int]] = []
    name = file_name("test", "bass")
    store.make([name], tmp_path, lambda *what: told.append(what))
    total = (tmp_path / name).stat().st_size
    assert total == 44 + 3 * 2 * SONG_LENGTH
    assert told == [(name, 44 + number * 2 * SONG_LENGTH, total) for number in (1, 2, 3)]
    assert not (tmp_path / file_name("test", "drums")).exists()


def test_fetching_makes_everything_and_tells_how_far_it_is(toy: Manifest, data_home: Path) -> None:
    told: list[tuple[str, int, int]] = []
    assert fetch(toy, lambda *what: told.append(what)) == cached(data_home)
    assert [name for name, done, total in told if done == total] == NAMES
    assert {name: total for name, _, total in told} == {file.name: file.size for file in toy.files}
    assert status(toy).state == "present"
    assert all(check.ok for check in verify(toy))
    assert locate(toy) == cached(data_home)
    told.clear()
    fetch(toy, lambda *what: told.append(what))
    assert not told


@pytest.mark.parametrize("damage", [b"", b"RIFF" + bytes(2 * SONG_LENGTH + 40)])
def test_a_damaged_file_is_made_again(toy: Manifest, two_songs: Path, data_home: Path, damage: bytes) -> None:
    obtain(toy, part="test")
    path = cached(data_home) / "test" / "bass.wav"
    whole = (path.parent / "drums.wav").stat().st_mtime_ns
    path.write_bytes(damage)
    obtain(toy, part="test")
    assert path.read_bytes() == (two_songs / "test" / "bass.wav").read_bytes()
    assert (path.parent / "drums.wav").stat().st_mtime_ns == whole


def test_a_machine_that_computes_other_numbers_is_told_so(toy: Manifest, data_home: Path) -> None:
    other = Manifest("drums-bass-synth", "t", "l", "c", "h", (DataFile("test/bass.wav", toy.files[3].size, sha256="0" * 64),), made_by=toy.made_by)
    with pytest.raises(
        DataError, match=r"computes other numbers: test/bass\.wav of drums-bass-synth was made here with [0-9a-f]{64}, frozen is 0{64}; copy"
    ) as caught:
        obtain(other)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"wrong sha256 .*; run 'sepbench data fetch drums-bass-synth' to make it again"):
        locate(other)


def test_a_folder_that_cannot_be_written_is_named(toy: Manifest, data_home: Path) -> None:
    cached(data_home).parent.mkdir()
    cached(data_home).write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"cannot write .*drums-bass-synth: .*; free some space or set SEPBENCH_CACHE"):
        obtain(toy)


def test_a_copy_in_the_user_s_own_folder_is_taken(toy: Manifest, two_songs: Path, data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data_home / "own").mkdir()
    (data_home / "own" / "drums-bass-synth").symlink_to(two_songs)
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home / "own"))
    assert obtain(toy, part="test").folder == data_home / "own" / "drums-bass-synth"
    assert not cached(data_home).exists()


def test_nothing_is_left_behind_when_making_is_interrupted(toy: Manifest, data_home: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(toy, interrupt)
    assert not [path for path in cached(data_home).rglob("*") if path.is_file()]


# --- silent chunks and the lists -----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(levels=st.lists(st.sampled_from([0.0, 0.003, 0.0054, 0.0055, 0.1]), min_size=3, max_size=3), seed=st.integers(0, 99))
def test_labels_say_which_whole_seconds_sound(levels: list[float], seed: int) -> None:
    noise = np.random.default_rng(seed).normal(size=CHUNK)
    parts = [noise[:SAMPLE_RATE], noise[SAMPLE_RATE : 2 * SAMPLE_RATE], noise[2 * SAMPLE_RATE :]]
    chunk = np.concatenate([np.rint(part * (level / np.sqrt(np.mean(part**2))) * 32768) for part, level in zip(parts, levels, strict=True)])
    heard = [level > SILENT_RMS for level in levels]
    silent = np.sqrt(np.mean((chunk / 32768) ** 2)) < SILENT_RMS
    assert store.labels_of(chunk.astype(np.int16)[None, None]).tolist() == [0 if silent else heard[0] + 2 * heard[1]]


def test_the_threshold_is_lass_s() -> None:
    assert pytest.approx(0.00543, abs=1e-5) == SILENT_RMS
    assert store.labels_of(np.full((1, 1, CHUNK), 177, dtype=np.int16)).tolist() == [0]  # 177 / 32768 = 0.00540
    assert store.labels_of(np.full((1, 1, CHUNK), 178, dtype=np.int16)).tolist() == [3]
    loud = store.labels_of(np.full((1, 1, CHUNK), -32_768, dtype=np.int16))  # the square of the loudest sample times the length is no overflow
    assert loud.tolist() == [3]
    late = np.zeros((1, 1, CHUNK), dtype=np.int16)
    late[..., 2 * SAMPLE_RATE :] = 3000  # RMS 0.05 over the chunk, but no window of SDR holds any of it
    assert store.labels_of(late).tolist() == [0]


def made_up(dataset: str, split: str) -> np.ndarray:
    """Labels in which drums and bass are silent in different chunks, and now and then sound in different seconds."""
    rows = np.arange(len(song_keys(split)) * CHUNKS_PER_SONG)
    pattern = (3, 3, 3, 0, 1, 2, 3) if dataset.endswith("drums") else (3, 2, 1, 3, 2, 0, 3)
    return np.array(pattern)[rows % 7]


def test_lists_pair_what_sounds_together() -> None:
    base, drums, bass = "drums-bass-synth.chunks", "drums-bass-synth/drums", "drums-bass-synth/bass"
    held_out = (len(song_keys("train")) - HELD_OUT_SONGS) * CHUNKS_PER_SONG
    together = {0, 1, 2, 6}  # of seven rows
    wholes = {base: ("test", 0, 520, 298), f"{base}-val": ("train", held_out, 680, 46), f"{base}.train-mixtures": ("train", 0, held_out, None)}
    for name, (split, start, stop, count) in wholes.items():
        pairs = RECIPES[name].build(made_up)
        assert (pairs[:, 0] == pairs[:, 1]).all()
        assert len(set(pairs[:, 0].tolist())) == len(pairs)
        assert start <= pairs.min() <= pairs.max() < stop
        assert set((pairs[:, 0] % 7).tolist()) == together
        assert (made_up(drums, split)[pairs[:, 0]] & made_up(bass, split)[pairs[:, 0]]).all()
        assert count is None or len(pairs) == count
    mixed, observed = (RECIPES[f"{base}.train-{kind}"].build(made_up) for kind in ("mixtures", "observed"))
    assert set((observed[:, 0] % 7).tolist()) == {0, 1, 2, 3, 4, 6}  # the bass sounds, whatever the drums do
    songs = [set((rows[:, 0] // CHUNKS_PER_SONG).tolist()) for rows in (mixed, observed)]
    assert not songs[0] & songs[1]
    assert songs[0] | songs[1] == set(range(60))


def test_at_most_450_and_50_mixtures_are_taken() -> None:
    for name, count in (("drums-bass-synth.chunks", 450), ("drums-bass-synth.chunks-val", 50)):
        assert len(RECIPES[name].build(lambda dataset, split: np.full(len(song_keys(split)) * CHUNKS_PER_SONG, 3))) == count
