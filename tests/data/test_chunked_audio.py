"""Slakh2100, MUSDB18-HQ, LRW and ESC-50 in their official layouts (``audio_layouts``): rows, sums, rates, lazy loading, and one line for every fault."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import audio_layouts as layouts
import numpy as np
import pytest
import soundfile
import torch
import yaml

from sepbench.data.chunked_sets import ChunkedSet
from sepbench.data.datasets import dataset_names, manifest_of, open_dataset, registered_dataset
from sepbench.data.files.fetch import status, verify
from sepbench.data.files.manifests import load_manifest
from sepbench.data.readers import chunks
from sepbench.data.readers.audio_files import read_audio, resample
from sepbench.data.readers.chunks import ChunkedAudio, Recording
from sepbench.data.readers.esc50 import read_esc50
from sepbench.data.readers.musdb import VALIDATION, read_musdb
from sepbench.data.readers.slakh import read_slakh
from sepbench.data.readers.speech_folder import read_speech_folder
from sepbench.data.signals import KnowsContent
from sepbench.errors import DataError
from sepbench.protocols import SignalSet

CHUNKED = [name for name in dataset_names() if isinstance(registered_dataset(name), ChunkedSet)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layouts")
    layouts.make_slakh(root)
    layouts.make_musdb(root)
    layouts.make_lrw(root)
    layouts.make_esc50(root)
    return root


@pytest.fixture
def opened(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], SignalSet]:
    monkeypatch.setenv("SEPBENCH_DATA", str(home))
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path))
    return open_dataset


def _as_loaded(signal: torch.Tensor) -> torch.Tensor:
    return (signal * 32768).round() / 32768


@pytest.mark.parametrize(("split", "tracks"), [("train", 2), ("validation", 1), ("test", 2)])
def test_slakh_sums_the_stems_of_a_class(opened: Callable[[str, str], SignalSet], home: Path, split: str, tracks: int) -> None:
    drums, bass = opened("slakh2100/drums", split), opened("slakh2100/bass", split)
    assert drums.shape == bass.shape == (1, 65_536)
    assert drums.domain == "audio"
    assert len(drums) == len(bass) == 3 * tracks  # three whole chunks a track, 999 samples left over
    assert drums.labels.tolist() == [0] * len(drums)
    assert bass.labels.tolist() == [1] * len(bass)
    track = home / "slakh2100" / split / layouts.SLAKH_TRACKS[split][-1] / "stems"
    kits = read_audio(track / "S01.flac", 44_100) + read_audio(track / "S03.flac", 44_100)
    last = drums.load([len(drums) - 1])[0]
    torch.testing.assert_close(last, _as_loaded(resample(kits, 44_100, 22_050)[:, 2 * 65_536 : 3 * 65_536]), rtol=0, atol=1.1 / 32768)
    alone = resample(read_audio(track / "S00.flac"), 44_100, 22_050)[:, :65_536]
    torch.testing.assert_close(bass.load([len(bass) - 3])[0], _as_loaded(alone), rtol=0, atol=1.1 / 32768)
    pause = drums.load([1])[0]
    assert float(pause.square().mean().sqrt()) < 1e-3 < float(bass.load([1]).square().mean().sqrt())


def test_musdb_has_three_splits_and_sources_that_add_up(opened: Callable[[str, str], SignalSet]) -> None:
    assert [len(opened("musdb18-hq/vocals", split)) for split in ("train", "validation", "test")] == [6, 3, 6]
    assert len(VALIDATION) == 14
    parts = {name: opened(f"musdb18-hq/{name}", "test").load([4]) for name in ("vocals", "accompaniment", "drums", "no-drums")}
    torch.testing.assert_close(parts["vocals"] + parts["accompaniment"], parts["drums"] + parts["no-drums"], rtol=0, atol=2.1 / 32768)
    assert opened("musdb18-hq/vocals", "test").shape == (1, 61_440)


def test_musdb_is_the_mean_of_both_channels(opened: Callable[[str, str], SignalSet], home: Path) -> None:
    stereo, rate = soundfile.read(home / "musdb18-hq/test" / layouts.MUSDB_SONGS["test"][0] / "vocals.wav", dtype="float32")
    whole = resample(torch.from_numpy(stereo.mean(1, keepdims=True).T.copy()), rate, 20_480)
    torch.testing.assert_close(opened("musdb18-hq/vocals", "test").load([1])[0], _as_loaded(whole[:, 61_440:122_880]), rtol=0, atol=1.1 / 32768)


def test_lrw_gives_the_middle_of_every_file(opened: Callable[[str, str], SignalSet], home: Path) -> None:
    speech = opened("lrw", "validation")
    assert len(speech) == 8
    assert speech.shape == (1, 10_240)
    assert speech.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    whole = read_audio(home / "lrw/YOUNG/val/YOUNG_00004.flac", 16_000)
    assert torch.equal(speech.load([7])[0], whole[:, 4160:14_400])


def test_esc50_follows_the_folds(opened: Callable[[str, str], SignalSet]) -> None:
    assert [len(opened("esc50", split)) for split in ("train", "validation", "test")] == [3 * 14, 14, 14]
    noise = opened("esc50", "test")
    assert noise.labels.tolist() == [0] * 7 + [1] * 7
    assert not noise.load([5]).any()  # padded with silence


def test_rows_come_in_any_order_and_more_than_once(opened: Callable[[str, str], SignalSet]) -> None:
    bass = opened("slakh2100/bass", "test")
    loaded = bass.load(torch.tensor([5, 0, 5]))
    assert torch.equal(loaded[0], loaded[2])
    assert torch.equal(loaded[1], bass.load([0])[0])
    assert not torch.equal(loaded[0], loaded[1])
    assert loaded.dtype == torch.float32


def test_content_is_told_from_the_bytes_and_the_place(tmp_path: Path) -> None:
    for name, tone in (("a.wav", "one"), ("copy.wav", "one"), ("b.wav", "two")):
        layouts.write(tmp_path / name, layouts.chord(tone, 8000, 8000), 8000)
    infos = [Recording((tmp_path / name,), 0, chunks.audio_info(tmp_path / name)) for name in ("a.wav", "copy.wav", "b.wav")]
    signals = ChunkedAudio("toy", "train", infos, 2000, 8000)
    assert isinstance(signals, KnowsContent)
    hashes = signals.content_hashes(torch.arange(12))
    assert hashes[:4] == hashes[4:8]
    assert len(set(hashes)) == 8


def test_ten_minutes_and_a_thousand_chunks_take_the_memory_of_what_is_loaded(tmp_path: Path) -> None:
    """One chunk of a file of 10 minutes, and a set of thousands of them: what Python and numpy allocate stays below 16 MB."""
    layouts.write(tmp_path / "long.wav", np.zeros((600 * 22_050, 1), np.float32), 22_050)
    info = chunks.audio_info(tmp_path / "long.wav")
    signals = ChunkedAudio("toy", "train", [Recording((tmp_path / "long.wav",), 0, info)] * 10, 65_536, 22_050)
    assert len(signals) == 2010
    tracemalloc.start()
    for start in range(0, 1000, 8):
        signals.load(range(start, start + 8))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16e6


# --- what can be wrong ---------------------------------------------------------------------------------------------------------------


def _edit_metadata(folder: Path, change: Callable[[dict], object]) -> Path:
    path = folder / "test" / "Track01876" / "metadata.yaml"
    document = yaml.safe_load(path.read_text())
    change(document)
    path.write_text(yaml.safe_dump(document))
    return folder


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_faults_of_slakh_name_the_file(tmp_path: Path) -> None:
    folder = layouts.make_slakh(tmp_path, chunks=1)
    stem = folder / "test/Track01876/stems/S01.flac"
    kept = stem.read_bytes()
    layouts.write(stem, layouts.chord("x", 4000, 22_050), 22_050)
    with pytest.raises(DataError, match=r"Track01876/stems/S01\.flac has 22,050 Hz, Slakh2100 has 44,100 Hz"):
        read_slakh(folder, "test", "bass")
    stem.unlink()
    with pytest.raises(DataError, match=r"Track01876/stems/S01\.flac is missing"):
        read_slakh(folder, "test", "bass")
    stem.write_bytes(kept)
    _truncate(stem)
    drums = ChunkedAudio("slakh2100/drums", "test", read_slakh(folder, "test", "drums"), 65_536, 22_050)
    with pytest.raises(DataError, match=r"Track01876/stems/S01\.flac is damaged"):
        drums.load([0])
    drums.load([1])  # the other track is as it was
    with pytest.raises(DataError, match="no TrackNNNNN folder; unpack slakh2100_flac_redux"):
        read_slakh(folder, "trian", "drums")
    metadata = folder / "test/Track01876/metadata.yaml"
    for text, says in (("stems: [1]", "has no table 'stems'"), ("{", "is no YAML")):
        metadata.write_text(text)
        with pytest.raises(DataError, match=says):
            read_slakh(folder, "test", "drums")
    metadata.unlink()
    with pytest.raises(DataError, match=r"Track01876/metadata\.yaml cannot be read"):
        read_slakh(folder, "test", "drums")


def test_a_track_without_a_class_is_silent_there_and_one_without_both_is_left_out(tmp_path: Path) -> None:
    folder = layouts.make_slakh(tmp_path, chunks=1)
    _edit_metadata(folder, lambda document: document["stems"]["S00"].update(audio_rendered=False))
    bass = ChunkedAudio("slakh2100/bass", "test", read_slakh(folder, "test", "bass"), 65_536, 22_050)
    assert not bass.load([0]).any()
    assert bass.load([1]).any()
    _edit_metadata(folder, lambda document: document.update(stems={"S02": document["stems"]["S02"]}))
    assert len(read_slakh(folder, "test", "bass")) == 1


def test_faults_of_musdb_name_the_file(tmp_path: Path) -> None:
    folder = layouts.make_musdb(tmp_path, chunks=1)
    stem = folder / "test/Band - Third/other.wav"
    kept = stem.read_bytes()
    _truncate(stem)
    with pytest.raises(DataError, match=r"Band - Third/other\.wav is cut off"):
        read_musdb(folder, "test", "vocals")
    stem.unlink()
    with pytest.raises(DataError, match=r"Band - Third/other\.wav is missing"):
        read_musdb(folder, "test", "vocals")
    stem.write_bytes(kept)
    layouts.write(stem, layouts.chord("x", 4000, 48_000, 2), 48_000)
    with pytest.raises(DataError, match=r"Band - Third/other\.wav has 48,000 Hz"):
        read_musdb(folder, "test", "vocals")
    with pytest.raises(DataError, match="has no song of the train split"):
        read_musdb(tmp_path, "train", "vocals")


def test_faults_of_speech_folders_name_the_file(tmp_path: Path) -> None:
    folder = layouts.make_lrw(tmp_path, files=2, rate=8000)
    speech = ChunkedAudio("lrw", "test", read_speech_folder(folder, "test"), 10_240, 16_000)
    with pytest.raises(DataError, match=r"ABOUT_00001\.wav has 8,000 Hz, lrw needs at least 16,000 Hz"):
        speech.load([0])
    layouts.write(folder / "ABOUT/test/ABOUT_00001.wav", layouts.chord("x", 8000, 16_000), 16_000)
    with pytest.raises(DataError, match=r"ABOUT_00001\.wav lasts 0\.50 s, lrw needs 0\.64 s"):
        speech.load([0])
    for path in (folder / "YOUNG/test").iterdir():
        path.rename(path.with_suffix(".mp4"))
    with pytest.raises(DataError, match=r"YOUNG/test has no WAV or FLAC files; extract the sound .* ffmpeg -i X\.mp4"):
        read_speech_folder(folder, "test")
    (folder / "NEWWORD").mkdir()
    with pytest.raises(DataError, match="NEWWORD/test is missing"):
        read_speech_folder(folder, "test")
    with pytest.raises(DataError, match="has no folders of words"):
        read_speech_folder(folder / "ABOUT/val", "test")


def test_faults_of_esc50_name_the_file(tmp_path: Path) -> None:
    folder = layouts.make_esc50(tmp_path)
    table = folder / "meta/esc50.csv"
    text = table.read_text()
    (folder / "audio/5-1-A-1.wav").unlink()
    with pytest.raises(DataError, match=r"5-1-A-1\.wav is missing"):
        read_esc50(folder, "test")
    layouts.write(folder / "audio/5-1-A-1.wav", layouts.chord("x", 4000, 16_000), 16_000)
    with pytest.raises(DataError, match=r"5-1-A-1\.wav has 16,000 Hz"):
        read_esc50(folder, "test")
    for wrong, says in ((text.replace("fold", "part", 1), "no column 'fold'"), (text.replace(",5,1,", ",five,1,"), "whole numbers"), ("", "cannot be read")):
        table.write_text(wrong)
        with pytest.raises(DataError, match=says):
            read_esc50(folder, "test")


def test_recordings_shorter_than_a_chunk_are_no_data_set(tmp_path: Path) -> None:
    layouts.write(tmp_path / "a.wav", layouts.chord("a", 1000, 8000), 8000)
    with pytest.raises(DataError, match=r"data set 'toy' train has no recording of 0\.25 s"):
        ChunkedAudio("toy", "train", [Recording((tmp_path / "a.wav",), 0, chunks.audio_info(tmp_path / "a.wav"))], 2000, 8000)


# --- manifests, and data that are not there ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({manifest_of(name) for name in CHUNKED}))
def test_data_of_unknown_bytes_are_present_missing_or_incomplete(home: Path, data_home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    manifest = load_manifest(name)
    assert "no sizes and digests are stated" in manifest.notes
    assert status(manifest).state == "missing"
    assert {check.state for check in verify(manifest)} == {"missing"}
    monkeypatch.setenv("SEPBENCH_DATA", str(home))
    assert (status(manifest).state, status(manifest).folder) == ("present", home / name)
    assert {(check.state, check.found, check.expected) for check in verify(manifest)} == {("ok", "present", "unknown")}
    part = data_home / "cache" / name / manifest.layout[-1].replace("*", "X")
    part.mkdir(parents=True)
    monkeypatch.delenv("SEPBENCH_DATA")
    assert status(manifest).state == ("incomplete" if len(manifest.layout) > 1 else "present")


@pytest.mark.parametrize("name", CHUNKED)
def test_data_that_are_not_there_are_one_line_that_says_how_to_get_them(data_home: Path, name: str) -> None:
    manifest = load_manifest(manifest_of(name))
    with pytest.raises(DataError) as caught:
        open_dataset(name, "test")
    assert manifest.how in str(caught.value)
    assert "http" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_split_is_named(opened: Callable[[str, str], SignalSet]) -> None:
    with pytest.raises(DataError, match="unknown split 'dev'; data set 'esc50' has train, validation, test"):
        opened("esc50", "dev")


def test_content_of_a_sum_is_told_from_all_of_its_files(tmp_path: Path) -> None:
    for tone in ("one", "two", "three"):
        layouts.write(tmp_path / f"{tone}.wav", layouts.chord(tone, 8000, 8000), 8000)
        layouts.write(tmp_path / f"{tone}-copy.wav", layouts.chord(tone, 8000, 8000), 8000)
    sums = [("one", "two"), ("one", "three"), ("three", "two"), ("one",), ("one", "two", "three"), ("one-copy", "two-copy")]
    info = chunks.audio_info(tmp_path / "one.wav")
    recordings = [Recording(tuple(tmp_path / f"{name}.wav" for name in names), 0, info) for names in sums]
    signals = ChunkedAudio("toy", "train", recordings, 2000, 8000)
    hashes = signals.content_hashes(torch.arange(4 * len(sums)))
    assert hashes[:4] == hashes[20:]
    assert len(set(hashes)) == 20
    loaded = signals.load(torch.arange(4 * len(sums)))
    assert len({row.numpy().tobytes() for row in loaded}) == 20  # as many as there are different sounds
