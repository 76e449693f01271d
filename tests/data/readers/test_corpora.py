"""Slakh2100, MUSDB18-HQ and ESC-50 by their names and tables alone: which files are which source, in which order, of which group. Headers are made up."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from sepbench.data.readers import chunks, esc50, musdb, slakh
from sepbench.data.readers.audio_files import AudioInfo
from sepbench.data.readers.chunks import ChunkedAudio, Recording
from sepbench.errors import DataError, SepbenchError


@pytest.fixture
def headers(monkeypatch: pytest.MonkeyPatch) -> dict[str, AudioInfo]:
    """What the header of a file of a name says; of all others a second at 44,100 Hz."""
    told: dict[str, AudioInfo] = {}
    for module in (slakh, musdb, esc50, chunks):
        monkeypatch.setattr(module, "audio_info", lambda path: told.get(path.name, info(44_100)))
    return told


def info(length: int, rate: int = 44_100) -> AudioInfo:
    return AudioInfo(length, rate, 1, "PCM_16")


def names(recordings: list[Recording]) -> list[list[str]]:
    return [[path.name for path in one.files] for one in recordings]


# --- Slakh2100 ------------------------------------------------------------------------------------------------------------------------


def track(folder: Path, name: str, stems: object) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "metadata.yaml").write_text(yaml.safe_dump({"stems": stems}))


def stem(kind: str, **more: bool) -> Mapping[str, object]:
    return {"inst_class": kind, **more}


def test_classes_of_slakh_are_sums_of_rendered_stems(tmp_path: Path, headers: dict[str, AudioInfo]) -> None:
    test = tmp_path / "test"
    headers |= {"S09.flac": info(900), "S10.flac": info(800), "S01.flac": info(700)}
    track(test, "Track00002", {"S10": stem("Drums"), "S09": stem("Chromatic", is_drum=True), "S01": stem("Bass", is_drum=False), "S02": stem("Piano")})
    track(test, "Track00001", {"S00": stem("Bass", audio_rendered=False), "S03": stem("Drums", audio_rendered=True), "S04": stem("Bass", is_drum=True)})
    track(test, "Track00003", {"S00": stem("Piano"), "S01": stem("Drums", audio_rendered=False)})  # neither class: left out
    track(test, "Track00004", {})
    for name in ("Track1", "Track000005", "TrackABCDE", "other"):
        (test / name).mkdir()
    drums, bass = slakh.read_slakh(tmp_path, "test", "drums"), slakh.read_slakh(tmp_path, "test", "bass")
    assert names(drums) == [["S03.flac", "S04.flac"], ["S09.flac", "S10.flac"]]
    assert names(bass) == [[], ["S01.flac"]]
    assert drums[1].files[0] == test / "Track00002" / "stems" / "S09.flac"
    assert [(one.label, one.group) for one in (*drums, *bass)] == [(0, "Track00001"), (0, "Track00002"), (1, "Track00001"), (1, "Track00002")]
    assert [one.info for one in drums] == [one.info for one in bass] == [info(44_100), info(700)]  # the shortest of both classes


@pytest.mark.parametrize("document", ["- a", "a: b", "stems:", "stems: [1]", "stems: {S00: 3}", "stems: {S00: {is_drum: true}}", "'text'"])
def test_metadata_without_a_table_of_stems(tmp_path: Path, headers: dict[str, AudioInfo], document: str) -> None:
    track(tmp_path / "test", "Track00001", {})
    path = tmp_path / "test" / "Track00001" / "metadata.yaml"
    path.write_text(document)
    with pytest.raises(DataError) as caught:
        slakh.read_slakh(tmp_path, "test", "bass")
    assert str(caught.value) == f"{path} has no table 'stems' with an inst_class for each; replace the file"


def test_what_is_said_of_slakh(tmp_path: Path, headers: dict[str, AudioInfo], monkeypatch: pytest.MonkeyPatch) -> None:
    told = f"{tmp_path / 'train'} has no TrackNNNNN folder; unpack slakh2100_flac_redux so that its train, validation and test are in {tmp_path}"
    for make in (lambda: None, (tmp_path / "train").touch, lambda: None):
        make()
        with pytest.raises(DataError) as caught:
            slakh.read_slakh(tmp_path, "train", "drums")
        assert str(caught.value) == told
    track(tmp_path / "test", "Track00001", {"S00": stem("Bass")})
    headers["S00.flac"] = info(9, 48_000)
    with pytest.raises(DataError) as caught:
        slakh.read_slakh(tmp_path, "test", "drums")
    where = tmp_path / "test" / "Track00001"
    assert str(caught.value) == f"{where / 'stems' / 'S00.flac'} has 48,000 Hz, Slakh2100 has 44,100 Hz; use the files as they were published"
    for content, begin, end in ((b"\xff", "is no YAML: ", "; replace the file"), (b"a: [", "is no YAML: ", "; replace the file")):
        (where / "metadata.yaml").write_bytes(content)
        with pytest.raises(DataError) as caught:
            slakh.read_slakh(tmp_path, "test", "drums")
        assert str(caught.value).startswith(f"{where / 'metadata.yaml'} {begin}")
        assert str(caught.value).endswith(end)
        assert "\n" not in str(caught.value)
    (where / "metadata.yaml").unlink()
    with pytest.raises(DataError) as caught:
        slakh.read_slakh(tmp_path, "test", "drums")
    assert str(caught.value) == f"{where / 'metadata.yaml'} cannot be read: No such file or directory; check that the track is complete"
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(SepbenchError, match=r"^Slakh2100's metadata need PyYAML; install it with: pip install pyyaml$"):
        slakh.read_slakh(tmp_path, "test", "drums")


# --- MUSDB18-HQ -----------------------------------------------------------------------------------------------------------------------


def test_songs_of_musdb_by_split_and_source(tmp_path: Path, headers: dict[str, AudioInfo]) -> None:
    for split, songs in {"train": ("B", "A", "Leaf - Summerghost", "Traffic Experiment - Sirens"), "test": ("D", "Leaf - Summerghost")}.items():
        for song in songs:
            (tmp_path / split / song).mkdir(parents=True)
        (tmp_path / split / "readme.txt").touch()
    assert [one.group for one in musdb.read_musdb(tmp_path, "train", "drums")] == ["A", "B"]
    assert [one.group for one in musdb.read_musdb(tmp_path, "validation", "drums")] == ["Leaf - Summerghost", "Traffic Experiment - Sirens"]
    assert [one.group for one in musdb.read_musdb(tmp_path, "test", "drums")] == ["D", "Leaf - Summerghost"]  # whatever it is called
    headers["other.wav"] = info(77)
    stems = {
        "vocals": ["vocals.wav"],
        "accompaniment": ["drums.wav", "bass.wav", "other.wav"],
        "drums": ["drums.wav"],
        "no-drums": ["vocals.wav", "bass.wav", "other.wav"],
    }
    for label, (source, files) in enumerate(stems.items()):
        first, _ = musdb.read_musdb(tmp_path, "test", source)
        assert ([path.name for path in first.files], first.label, first.info) == (files, label, info(77))  # of all four stems
        assert first.files[0].parent == tmp_path / "test" / "D"


def test_what_is_said_of_musdb(tmp_path: Path, headers: dict[str, AudioInfo]) -> None:
    (tmp_path / "train" / "Leaf - Summerghost").mkdir(parents=True)
    (tmp_path / "test").touch()
    for split, part in (("train", "train"), ("test", "test")):
        with pytest.raises(DataError) as caught:
            musdb.read_musdb(tmp_path, split, "drums")
        told = f"has no song of the {split} split; unpack MUSDB18-HQ so that its train and test are in {tmp_path}"
        assert str(caught.value) == f"{tmp_path / part} {told}"
    headers["bass.wav"] = info(9, 48_000)
    with pytest.raises(DataError) as caught:
        musdb.read_musdb(tmp_path, "validation", "vocals")
    where = tmp_path / "train" / "Leaf - Summerghost" / "bass.wav"
    assert str(caught.value) == f"{where} has 48,000 Hz, MUSDB18-HQ has 44,100 Hz; use the files as they were published"


# --- ESC-50 ---------------------------------------------------------------------------------------------------------------------------

TABLE = "filename,fold,target,src_file\nz.wav,5,7,100\na.wav,5,3,100\nb.wav,4,3,200\nc.wav,1,0,300\nd.wav,3,0,300\ne.wav,2,1,400\nf.wav,6,1,500\n"


def table(folder: Path, text: str) -> Path:
    (folder / "meta").mkdir(exist_ok=True)
    (folder / "meta" / "esc50.csv").write_text(text)
    return folder / "meta" / "esc50.csv"


def test_clips_of_esc50_by_fold_in_the_order_of_the_table(tmp_path: Path, headers: dict[str, AudioInfo]) -> None:
    table(tmp_path, TABLE)
    headers["a.wav"] = info(99)
    found = esc50.read_esc50(tmp_path, "test")
    assert [(one.files, one.label, one.group, one.info) for one in found] == [
        ((tmp_path / "audio" / "z.wav",), 7, "100", info(44_100)),
        ((tmp_path / "audio" / "a.wav",), 3, "100", info(99)),
    ]
    assert names(esc50.read_esc50(tmp_path, "validation")) == [["b.wav"]]
    assert [(one.label, one.group) for one in esc50.read_esc50(tmp_path, "train")] == [(0, "300"), (0, "300"), (1, "400")]
    table(tmp_path, "\n".join(line.rpartition(",")[0] for line in TABLE.splitlines()))
    assert [one.group for one in esc50.read_esc50(tmp_path, "test")] == ["z.wav", "a.wav"]  # a clip is its own recording


def test_what_is_said_of_esc50(tmp_path: Path, headers: dict[str, AudioInfo]) -> None:
    path = tmp_path / "meta" / "esc50.csv"
    cases: dict[str, str] = {
        TABLE.replace("filename,", "file,"): "has no column 'filename'; replace the file by ESC-50's",
        TABLE.replace("target", "class"): "has no column 'target'; replace the file by ESC-50's",
        TABLE.replace(",5,7,", ",5,seven,"): "fold and target must be whole numbers; replace the file by ESC-50's",
        TABLE.replace(",5,7,", ",5.5,7,"): "fold and target must be whole numbers; replace the file by ESC-50's",
    }
    for text, told in cases.items():
        table(tmp_path, text)
        with pytest.raises(DataError) as caught:
            esc50.read_esc50(tmp_path, "test")
        assert str(caught.value) in (f"{path} {told}", f"{path}: {told}")
    for make in (lambda: table(tmp_path, ""), path.unlink):
        make()
        with pytest.raises(DataError) as caught:
            esc50.read_esc50(tmp_path, "test")
        assert str(caught.value).startswith(f"{path} cannot be read: ")
        assert str(caught.value).endswith("; check that the data set is complete")
    table(tmp_path, TABLE)
    headers["z.wav"] = info(9, 22_050)
    with pytest.raises(DataError) as caught:
        esc50.read_esc50(tmp_path, "test")
    assert str(caught.value) == f"{tmp_path / 'audio' / 'z.wav'} has 22,050 Hz, ESC-50 has 44,100 Hz; use the files as they were published"


# --- chunks ---------------------------------------------------------------------------------------------------------------------------


def test_rows_are_whole_chunks_by_recording_and_then_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = Path("a.wav"), Path("b.wav")
    recordings = [
        Recording((a,), 3, info(25, 100)),
        Recording((b, a), 1, info(9, 100), "song"),  # shorter than a chunk: no row
        Recording((), 2, info(10, 100)),  # silence
        Recording((b, a), 4, info(45, 200)),  # at half its rate 23 samples
        Recording((b,), 5),  # one from the middle
    ]
    read: list[Any] = []

    def made(files: tuple[Path, ...], start: int, length: int, rate: int) -> torch.Tensor:
        read.append((files, start, length, rate))
        return torch.full((1, length), 0.3)

    monkeypatch.setattr(chunks, "read_resampled", made)
    monkeypatch.setattr(chunks, "audio_info", lambda path: info({"a.wav": 25, "b.wav": 31}[path.name], 100))
    signals = ChunkedAudio("toy", "dev", recordings, 10, 100)
    assert (len(signals), signals.labels.tolist(), signals.shape, signals.sample_rate) == (6, [3, 3, 2, 4, 4, 5], (1, 10), 100)
    assert signals.groups == ("a.wav", "a.wav", "", "b.wav|a.wav", "b.wav|a.wav", "b.wav")
    loaded = signals.load([4, 2, 0, 1, 5])
    assert read == [((b, a), 10, 10, 100), ((a,), 0, 10, 100), ((a,), 10, 10, 100), ((b,), 10, 10, 100)]
    assert loaded[:, 0, 0].tolist() == [pytest.approx(level) for level in (9830 / 32_768, 0.0, 9830 / 32_768, 9830 / 32_768, 9830 / 32_768)]
    assert signals.load([]).shape == (0, 1, 10)


def test_what_is_said_of_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    signals = ChunkedAudio("toy", "dev", [Recording((path,), info=info(5, 50)), Recording((path,))], 10, 100)
    low = f"{path} has 50 Hz, toy needs at least 100 Hz; get the recording in its original rate"
    for found, row, told in (
        (info(9, 100), 0, low),
        (info(99, 50), 1, low),
        (info(9, 100), 1, f"{path} lasts 0.09 s, toy needs 0.10 s; replace or remove the file"),
        (info(17, 200), 1, f"{path} lasts 0.09 s, toy needs 0.10 s; replace or remove the file"),  # seconds at its own rate are as many
    ):
        monkeypatch.setattr(chunks, "audio_info", lambda path, found=found: found)
        with pytest.raises(DataError) as caught:
            signals.load([row])
        assert str(caught.value) == told
    with pytest.raises(DataError) as caught:
        signals.content_hashes(torch.tensor([0]))
    assert str(caught.value) == f"{path} cannot be read: No such file or directory; check that the data set is complete"
    for none in ([], [Recording((path,), info=info(9, 100))]):
        with pytest.raises(DataError) as caught:
            ChunkedAudio("toy", "dev", none, 10, 100)
        assert str(caught.value) == "data set 'toy' dev has no recording of 0.10 s; check that it is complete"
