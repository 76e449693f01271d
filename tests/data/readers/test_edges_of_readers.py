"""Edges of readers: headers that fail in other ways, long lists, full scale, several channels, and YAML that asks for more."""

from __future__ import annotations

import pickle
import struct
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sepbench.data.readers import audio_files, cifar10, esc10, slakh
from sepbench.data.readers.audio_files import AudioInfo, audio_info, read_audio, resample
from sepbench.data.readers.celeba import read_partition
from sepbench.data.readers.cifar10 import parse_records
from sepbench.data.readers.cifar_pickle import read_pickled_batch
from sepbench.data.readers.image_folder import opened_image
from sepbench.data.readers.npy import read_array, read_npy_images
from sepbench.errors import DataError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(5, "Input/output error"), "cannot be read: Input/output error; check that the file is there and readable"),
        (ValueError("first\nsecond"), "is corrupt at byte 0: no .npy header (first); replace the file"),
        (KeyError(), "is corrupt at byte 0: no .npy header (KeyError); replace the file"),
    ],
)
def test_a_disk_that_fails_is_told_apart_from_a_damaged_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str) -> None:
    def fail(stream: object) -> None:
        raise error

    np.save(tmp_path / "a.npy", np.zeros(3))
    monkeypatch.setattr(np.lib.format, "read_magic", fail)
    with pytest.raises(DataError) as caught:
        read_array(tmp_path / "a.npy")
    assert str(caught.value) == f"{tmp_path / 'a.npy'} {told}"


def test_colours_of_floats_lie_in_memory_as_they_are_addressed(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3)
    np.save(tmp_path / "a.npy", values)
    images = read_npy_images(tmp_path / "a.npy")
    assert images.is_contiguous()
    assert np.array_equal(images.numpy(), values.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("last", "told"),
    [("x" * 70, f"expected a file name and 0, 1 or 2, got {'x' * 60!r}"), ("000001.jpg 0", "000001.jpg is there twice")],
)
def test_a_line_far_down_a_partition_is_told_by_its_number(tmp_path: Path, last: str, told: str) -> None:
    path = tmp_path / "list_eval_partition.txt"
    path.write_text("".join(f"{number:06d}.jpg 2\n" for number in range(1, 1_001)) + last)
    with pytest.raises(DataError) as caught:
        read_partition(tmp_path, "test")
    assert str(caught.value) == f"{path}, line 1,001: {told}; replace the file"


@pytest.mark.parametrize(
    ("length", "wanted", "told"),
    [
        (3 * 3_073, 2, "byte 6,146: 3 records, expected 2"),
        (3_073, 2, "byte 3,073: 1 records, expected 2"),
        (2 * 3_073 + 1_005, 2, "byte 6,146: the last record has 1,005 bytes, expected 3,073"),
    ],
)
def test_records_that_are_too_many_too_few_or_cut(length: int, wanted: int, told: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_records(bytes(length), "x", wanted)
    assert str(caught.value) == f"x is corrupt at {told}; replace the file"


def test_a_member_without_content_is_no_batch(tmp_path: Path) -> None:
    archive: Any = SimpleNamespace(extractfile=lambda member: None)
    with pytest.raises(DataError) as caught:
        cifar10._take(archive, tarfile.TarInfo("a.bin"), tmp_path, {}, lambda content, where: pytest.fail("parsed"))
    assert str(caught.value) == f"{tmp_path}:a.bin is corrupt at byte 0: the member has no content; replace the file"


def test_labels_of_a_large_batch_are_counted_with_commas() -> None:
    pixels = np.zeros((1_001, 3_072), np.uint8)
    for labels, told in (([0] * 1_000 + [10], "label 1,000 is 10, expected 0 to 9"), ([0] * 1_000, "'labels' is not a list of 1,001 labels")):
        with pytest.raises(DataError) as caught:
            read_pickled_batch(pickle.dumps({"data": pixels, "labels": labels}, protocol=2), "x")
        assert str(caught.value) == f"x is corrupt at byte 0: the pickle is no CIFAR-10 batch: {told}; replace the file"


def test_clips_that_overshoot_stay_at_full_scale_and_are_rounded_to_even(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.zeros(1, 2 * esc10.LENGTH)  # not one sample more than two rows need
    values[0, :4] = torch.tensor([2.0, -2.0, 1.5 / 32_768, 2.5 / 32_768])
    values[0, esc10.LENGTH] = 1.0
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(esc10, "read_vorbis", lambda path, rate: values if rate == 44_100 else None)
    monkeypatch.setattr(esc10, "resample", lambda signal, old, new: asked.append((old, new)) or signal)
    made = esc10._chunks(Path("x.ogg"))
    assert asked == [(44_100, 8_000)]
    assert (made.shape, made.dtype) == ((2, 1, 16_384), torch.int16)
    assert made[0, 0, :5].tolist() == [32_767, -32_768, 2, 2, 0]
    assert made[1, 0, :2].tolist() == [32_767, 0]


def test_metadata_hold_plain_yaml_alone(tmp_path: Path) -> None:
    folder = tmp_path / "test" / "Track00001"
    folder.mkdir(parents=True)
    for text in ("stems: !!python/tuple [1]", f"stems: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']"):
        (folder / "metadata.yaml").write_text(text)
        with pytest.raises(DataError) as caught:
            slakh.read_slakh(tmp_path, "test", "bass")
        assert str(caught.value).startswith(f"{folder / 'metadata.yaml'} is no YAML: could not determine a constructor")
    assert not (tmp_path / "made").exists()


def test_stems_are_summed_in_the_order_of_their_names_and_not_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slakh, "audio_info", lambda path: AudioInfo(9, 44_100, 1))
    folder = tmp_path / "test" / "Track00001"
    folder.mkdir(parents=True)
    (folder / "metadata.yaml").write_text("stems:\n" + "".join(f"  {name}: {{inst_class: Drums}}\n" for name in ("S10", "S02", "S11", "S01")))
    (drums,) = slakh.read_slakh(tmp_path, "test", "drums")
    assert [path.name for path in drums.files] == ["S01.flac", "S02.flac", "S10.flac", "S11.flac"]


def test_the_mean_of_several_channels_is_rounded_once(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    values = np.random.default_rng(0).uniform(-1, 1, (999, 3)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", values, 8_000, subtype="FLOAT")
    wanted = values.astype(np.float64).mean(axis=1).astype(np.float32)
    assert (wanted != values.T.mean(axis=0)).any()  # sums of 32 bits end elsewhere
    assert np.array_equal(read_audio(tmp_path / "a.wav").numpy(), wanted[None])


def test_signals_that_are_being_learnt_from_are_resampled_too() -> None:
    signal = torch.ones(1, 60, requires_grad=True)
    found = resample(signal, 2, 1)
    assert (found.shape, found.requires_grad) == ((1, 30), False)
    assert torch.equal(found, resample(signal.detach(), 2, 1))


# --- what libraries say -----------------------------------------------------------------------------------------------------------------


class Handle:
    """What soundfile hands out, as far as it is asked."""

    format, samplerate, channels, subtype = "WAV", 8_000, 1, "PCM_16"

    def __init__(self, frames: int, seekable: bool) -> None:
        self.frames, self.is_seekable, self.closed = frames, seekable, False

    def seekable(self) -> bool:
        return self.is_seekable

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("frames", "seekable", "problem", "told"),
    [
        (5, True, "", ""),
        (0, True, "", "has no samples; replace the file"),
        (5, False, "", "has no samples; replace the file"),
        (5, True, "is odd", "is odd; replace the file, or write it anew, e.g. with ffmpeg"),
        (5, True, OSError(5, "Input/output error"), "cannot be read: [Errno 5] Input/output error; replace the file"),
        (5, True, struct.error("unpack requires\n4 bytes"), "cannot be read: unpack requires 4 bytes; replace the file"),
    ],
)
def test_sounds_are_closed_whatever_is_wrong_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: int, seekable: bool, problem: str | Exception, told: str
) -> None:
    handle, path = Handle(frames, seekable), tmp_path / "a.wav"
    path.touch()

    def header(asked: Path, length: int) -> str:
        assert (asked, length) == (path, frames)
        if isinstance(problem, Exception):
            raise problem
        return problem

    monkeypatch.setattr(audio_files, "import_soundfile", lambda: SimpleNamespace(SoundFile=lambda name: handle))
    monkeypatch.setattr(audio_files, "wrong_length", header)
    if told:
        with pytest.raises(DataError) as caught:
            audio_info(path)
        assert str(caught.value) == f"{path} {told}"
    else:
        found = audio_info(path)
        assert (found, found.coding) == (AudioInfo(5, 8_000, 1), "PCM_16")
    assert handle.closed


def test_the_words_of_libsndfile_are_told_without_its_path_and_stops() -> None:
    class Named(RuntimeError):
        error_string = "Error : Format not recognised."

    assert audio_files._reason(Named("Error opening '/a/b.wav'")) == "Format not recognised"
    assert audio_files._reason(RuntimeError("Error : unknown error in flac decoder...")) == "unknown error in flac decoder"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DataError("as it is"), "as it is"),
        (OSError("broken\ndata stream"), "{} cannot be decoded as an image: broken data stream; replace or remove it"),
        (OSError(), "{} cannot be decoded as an image: OSError; replace or remove it"),
        (OSError(5, "Input/output error"), "{} cannot be read: Input/output error; check that the file is there and readable"),
        (ValueError("odd\nthing"), "{} cannot be decoded as an image (ValueError: odd thing); replace or remove it"),
        (MemoryError(), "{} cannot be decoded as an image (MemoryError); replace or remove it"),
    ],
)
def test_what_happens_while_an_image_is_decoded_is_told_in_one_line(tmp_path: Path, error: Exception, told: str) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    path = tmp_path / "a.png"
    image.new("L", (4, 4)).save(path)
    with pytest.raises(DataError) as caught, opened_image(path):
        raise error
    assert str(caught.value) == told.format(path)
