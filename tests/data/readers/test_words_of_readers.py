"""Whole lines of what readers refuse, and the edges of what they take: IDX, NPY, CIFAR-10, folders of images, FSDD, ESC-10, WAV and FLAC, chunks."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

from sepbench.data.readers import cifar10, fsdd
from sepbench.data.readers.audio_files import AudioInfo, audio_info, read_audio, read_pcm, read_resampled, read_span, read_vorbis, resample, resampled_length
from sepbench.data.readers.chunks import ChunkedAudio, Recording
from sepbench.data.readers.cifar_pickle import read_pickled_batch
from sepbench.data.readers.esc10 import CLASSES, clips, read_esc10
from sepbench.data.readers.idx import read_idx, read_mnist
from sepbench.data.readers.image_folder import list_images, read_image_folder
from sepbench.data.readers.musdb import VALIDATION
from sepbench.data.readers.npy import read_array, read_npy_images, read_npy_sounds
from sepbench.errors import DataError


def told(read: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(DataError) as caught:
        read(*arguments)
    return str(caught.value)


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- IDX ----------------------------------------------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def test_what_is_said_of_idx_files(tmp_path: Path) -> None:
    whole = idx(np.zeros((2, 3)))
    packed = gzip.compress(whole, mtime=0)
    cases = {
        whole[:3]: (3, "the file ends within the magic number"),
        whole[:11]: (11, "the file ends within the header of 12 bytes"),
        b"\x00\x01" + whole[2:]: (0, "magic number 00010802, expected 00000802 (unsigned bytes, 2 dimensions)"),
        whole + b"ab": (18, "there are more bytes than the header announces"),
        packed + b"abc": (18, "3 stray bytes follow the gzip stream"),
        packed[:-1]: (18, "the gzip stream is cut off before its end"),
        struct.pack(">4B2I", 0, 0, 8, 2, 1 << 20, (1 << 20) + 1): (4, "the header announces 1048576 x 1048577 bytes"),
        struct.pack(">4B2I", 0, 0, 8, 2, 1 << 20, 1 << 20): (12, "the file ends early: the header announces 1,099,511,627,776 bytes of data, 0 are there"),
    }
    for content, (offset, problem) in cases.items():
        path = written(tmp_path / "a", content)
        assert told(read_idx, path, 2) == f"{path} is corrupt at byte {offset}: {problem}; replace the file"


def test_what_is_said_of_mnist(tmp_path: Path) -> None:
    images, labels = tmp_path / "t10k-images-idx3-ubyte.gz", tmp_path / "t10k-labels-idx1-ubyte.gz"
    written(labels, idx(np.array([9, 3, 11, 10])))
    written(images, idx(np.zeros((4, 28, 30))))
    assert told(read_mnist, tmp_path, "test") == f"{images} is corrupt at byte 8: images of 28 x 30 pixels, expected 28 x 28; replace the file"
    written(images, idx(np.zeros((3, 28, 28))))
    assert told(read_mnist, tmp_path, "test") == f"{labels} is corrupt at byte 4: 4 labels for 3 images in {images.name}; replace the file"
    written(images, idx(np.zeros((4, 28, 28))))
    assert told(read_mnist, tmp_path, "test") == f"{labels} is corrupt at byte 10: label 11, expected 0 to 9; replace the file"


# --- NPY ----------------------------------------------------------------------------------------------------------------------------


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()


def test_what_is_said_of_arrays(tmp_path: Path) -> None:
    whole = npy(np.zeros((2, 3), np.int16))
    cases = {
        whole[:-2]: (138, "the file ends early: 10 bytes of data, expected 12 for (2, 3) int16"),
        whole + b"ab": (140, "there are more bytes than the header announces: 14 bytes of data, expected 12 for (2, 3) int16"),
        b"\x93NUMPY\x03\x00" + whole[8:]: (8, "no .npy header (format version 3.0, expected 1.0 or 2.0)"),
        whole.replace(b"'<i2'", b"'|O' "): (None, "an array of Python objects, which is never loaded"),
        whole.replace(b"(2, 3)", b"(2,-3)"): (None, "the header announces the shape (2, -3) of int16"),
    }
    for content, (offset, problem) in cases.items():
        path = written(tmp_path / "a.npy", content)
        at = 128 if offset is None else offset
        assert told(read_array, path) == f"{path} is corrupt at byte {at}: {problem}; replace the file"


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros(3, np.uint8), "holds an array of shape (3,); images must be (N, H, W) or (N, H, W, C) with 1 or 3 channels last"),
        (np.zeros((2, 3, 4, 2), np.uint8), "holds an array of shape (2, 3, 4, 2); images must be (N, H, W) or (N, H, W, C) with 1 or 3 channels last"),
        (np.zeros((2, 0, 4), np.uint8), "has no images: its shape is (2, 0, 4, 1)"),
        (np.zeros((1, 2, 2), np.int32), "holds int32 values; images must be uint8, or float in [0, 1]"),
        (np.array([[[0.0, 1.0]], [[0.5, np.inf]]]), "holds the value inf in image 1; float images must be finite and in [0, 1]"),
        (np.array([[[0.0, 1.5]], [[0.5, 2.0]]]), "holds the value 1.5 in image 0; float images must be finite and in [0, 1]"),
    ],
)
def test_what_is_said_of_arrays_that_are_no_images(tmp_path: Path, array: np.ndarray, problem: str) -> None:
    path = written(tmp_path / "a.npy", npy(array))
    assert told(read_npy_images, path) == f"{path} {problem}"


@pytest.mark.parametrize(
    "array", [np.zeros(4, np.int16), np.zeros((2, 1, 4), np.int16), np.zeros((2, 4), np.float32), np.zeros((0, 4), np.int16), np.zeros((2, 0), np.int16)]
)
def test_arrays_that_are_no_sounds(tmp_path: Path, array: np.ndarray) -> None:
    path = written(tmp_path / "a.npy", npy(array))
    what = f"holds an array of shape {array.shape} of {array.dtype}"
    assert told(read_npy_sounds, path) == f"{path} {what}; sounds must be (N, T), int16, at least one"


def test_sounds_of_either_order_of_memory(tmp_path: Path) -> None:
    values = np.arange(-3, 3, dtype=np.int16).reshape(2, 3)
    for stored in (values, np.asfortranarray(values)):
        found = read_npy_sounds(written(tmp_path / "a.npy", npy(stored)))
        assert (found.tolist(), found.dtype) == (values[:, None].tolist(), torch.int16)


# --- CIFAR-10 -----------------------------------------------------------------------------------------------------------------------


def test_what_is_said_of_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "BATCH_RECORDS", 2)
    monkeypatch.setattr(cifar10, "_LARGEST_MEMBER", 2 * 3073)
    name = "cifar-10-batches-bin/test_batch.bin"
    path = tmp_path / "a.tar.gz"

    def packed(*members: tuple[str, bytes, bytes]) -> None:
        with tarfile.open(path, "w:gz") as tar:
            for member_name, kind, content in members:
                member = tarfile.TarInfo(member_name)
                member.type, member.size = kind, len(content)
                tar.addfile(member, io.BytesIO(content))

    whole = (name, tarfile.REGTYPE, bytes(2 * 3073))
    packed(("other", tarfile.REGTYPE, bytes(9 * 3073)), whole)
    assert len(cifar10.read_binary_archive(path, "test")[1]) == 2
    packed(("cifar-10-batches-bin/test_batch", *whole[1:]))
    assert told(cifar10.read_binary_archive, path, "test") == f"{path} has no member {name}; replace the file"
    packed(whole, whole)
    assert told(cifar10.read_binary_archive, path, "test") == f"{path}:{name} is corrupt at byte 0: the member is twice in the archive; replace the file"
    for wrong in ((name, tarfile.REGTYPE, bytes(2 * 3073 + 1)), (name, tarfile.DIRTYPE, b"")):
        packed(wrong)
        problem = "not a plain file of at most 6,146 bytes"
        assert told(cifar10.read_binary_archive, path, "test") == f"{path}:{name} is corrupt at byte 0: {problem}; replace the file"
    packed((name, tarfile.REGTYPE, bytes(3073) + b"\x0a" + bytes(3072)))
    assert told(cifar10.read_binary_archive, path, "test") == f"{path}:{name} is corrupt at byte 3,073: label 10, expected 0 to 9; replace the file"
    gone = tmp_path / "none"
    assert told(cifar10.read_binary_archive, gone, "test") == f"{gone} cannot be read: No such file or directory; check that the file is there and readable"
    written(path, gzip.compress(b"no archive" * 90))
    assert "is corrupt at byte " in (line := told(cifar10.read_binary_archive, path, "test"))
    assert "the archive is cut off or damaged (" in line


PIXELS = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("batch", "problem"),
    [
        ([1], "it holds a list, not a dictionary"),
        ({"labels": [0, 1]}, "it has no 'data'"),
        ({"data": PIXELS}, "it has no 'labels'"),
        ({"data": [0], "labels": [0]}, "'data' is not an array"),
        ({"data": PIXELS.astype(np.int8), "labels": [0, 1]}, "'data' is not an array of unsigned bytes in C order"),
        ({"data": PIXELS[:, :-1].copy(), "labels": [0, 1]}, "'data' has the shape (2, 3071), expected (N, 3072)"),
        ({"data": PIXELS.reshape(1, 2, 3072), "labels": [0]}, "'data' has the shape (1, 2, 3072), expected (N, 3072)"),
        ({"data": PIXELS, "labels": (0, 1)}, "'labels' is not a list of 2 labels"),
        ({"data": PIXELS, "labels": [0, 10]}, "label 1 is 10, expected 0 to 9"),
        ({"data": PIXELS, "labels": [0.0, 1]}, "label 0 is 0.0, expected 0 to 9"),
    ],
)
def test_what_is_said_of_pickles(batch: object, problem: str) -> None:
    content = pickle.dumps(batch, protocol=2)
    assert told(read_pickled_batch, content, "x") == f"x is corrupt at byte 0: the pickle is no CIFAR-10 batch: {problem}; replace the file"


def test_what_is_said_of_pickles_that_are_damaged_or_ask_for_more() -> None:
    whole = pickle.dumps({"data": PIXELS, "labels": [0, 9]}, protocol=2)
    assert read_pickled_batch(whole, "x")[1].tolist() == [0, 9]
    for encoding in (b"latin-1", b"latin1"):
        assert len(read_pickled_batch(whole.replace(b"X\x06\x00\x00\x00latin1", b"X" + struct.pack("<I", len(encoding)) + encoding), "x")[0]) == 2
    other = whole.replace(b"latin1", b"utf-16")
    problem = "the pickle is no CIFAR-10 batch: bytes in an encoding other than latin1"
    assert told(read_pickled_batch, other, "x") == f"x is corrupt at byte 0: {problem}; replace the file"
    assert told(read_pickled_batch, whole + b"abc", "x") == f"x is corrupt at byte {len(whole):,}: 3 stray bytes follow the pickle; replace the file"
    assert told(read_pickled_batch, b"\x80\x02}", "x") == "x is corrupt at byte 3: malformed pickle (EOFError); replace the file"
    asks = "the pickle asks for os.system, which no CIFAR-10 batch needs; nothing was executed"
    assert told(read_pickled_batch, b"cos\nsystem\n.", "x") == f"x is corrupt at byte 11: {asks}; replace the file"
    assert told(read_pickled_batch, b"\x80\x02K\x01Q.", "x") == "x is corrupt at byte 5: the pickle refers to an object outside the file; replace the file"


# --- folders of images ----------------------------------------------------------------------------------------------------------------


def test_what_is_said_of_folders_of_images(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    a, b, c = (tmp_path / name for name in "abc")
    assert told(list_images, a) == f"{a} is not a folder; give the folder that holds the images"
    a.mkdir()
    assert told(list_images, a) == f"{a} has no images (.bmp, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp)"
    (a / "x.png").mkdir()  # a class, whatever it is called
    image.new("L", (3, 2)).save(a / "x.png" / "1.BMP", "BMP")
    assert [(path.name, label) for path, label in list_images(a)] == [("1.BMP", 0)]
    image.new("L", (3, 2)).save(a / "2.png")
    mixed = f"{a} has images of its own (2.png) and class folders (x.png); put every image into a class folder, or none"
    assert told(list_images, a) == mixed
    (b / "x" / "y").mkdir(parents=True)
    assert told(list_images, b) == f"{b / 'x' / 'y'} is nested too deeply; images must be in <folder>/ or in <folder>/<class>/"
    c.mkdir()
    for name, content in (("1.png", b""), ("2.png", b"GIF89a")):
        why = "the file is empty" if not content else "its content is of no format that is read here"
        path = written(c / name, content)
        assert told(read_image_folder, c) == f"{path} cannot be decoded as an image: {why}; replace or remove it"
        path.unlink()
    image.new("RGB", (5, 4)).save(c / "1.png")
    image.new("L", (5, 4)).save(c / "2.png")
    one = "all images must have one size and one number of channels"
    assert told(read_image_folder, c) == f"{c / '2.png'} is 5 x 4 grey, but 1.png is 5 x 4 colour; {one}"


def test_what_is_said_of_odd_images_and_what_helps(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    path = tmp_path / "1.png"
    transparent = image.new("LA", (5, 4), (9, 255))
    transparent.putpixel((4, 3), (9, 254))
    cases = [
        (lambda: image.new("I;16", (5, 4)).save(path), "has the pixel format 'I;16'; convert it to 8-bit grey or RGB"),
        (lambda: transparent.save(path), "has transparent pixels; flatten it onto a background first"),
        (lambda: path.write_bytes(b"P5 2 2 100\n" + bytes(4)), "has levels from 0 to 100, which 8-bit grey or RGB would change; convert it as you want it"),
        (
            lambda: image.new("L", (5, 4)).save(path, "TIFF", save_all=True, append_images=[image.new("L", (5, 4))] * 2),
            "holds 3 pages or pictures, which 8-bit grey or RGB would change; convert it as you want it",
        ),
    ]
    for make, problem in cases:
        make()
        assert told(read_image_folder, tmp_path) == f"{path} {problem}"
    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54 + 16, 0, 0, 54, 40, 2, 4, 1, 16, 0, 16, 0, 0, 0, 0) + b"\xff\x7f" * 8
    path.write_bytes(bmp)  # sixteen bits for all three channels together are no deep ones
    assert read_image_folder(tmp_path)[0].unique().tolist() == [255]


# --- FSDD and ESC-10 ------------------------------------------------------------------------------------------------------------------


def test_levels_and_lengths_of_speech() -> None:
    made = fsdd.at_level(np.array([[3.0, 4.0], [-1.0, 0.0], [5.0, -5.0]]))
    assert made.tolist() == [[869, 1159], [-1448, 0], [1024, -1024]]  # 1024 / sqrt(12.5) and 1024 / sqrt(0.5)
    assert made.dtype == np.int16
    wanted = "all recordings of a speaker together have 20 samples, a signal needs 21; check that the data set is complete"
    assert told(fsdd.utterance, {0: [torch.ones(2)] * 10}, 0, 3, 21) == wanted
    assert fsdd.recording_name("theo", 3, 7) == "recordings/3_theo_7.wav"
    assert (fsdd.SPEAKERS, fsdd.DIGITS) == (("george", "jackson", "lucas", "nicolas", "theo", "yweweler"), 10)
    assert (fsdd.row_of("train", 5, 9, 49), fsdd.row_of("test", 1, 2, 3)) == (2699, 192)
    assert [fsdd.speaker_and_take(split, row) for split, row in (("test", 299), ("train", 69), ("train", 70))] == ["yweweler-4", "george-6", "jackson-6"]
    assert fsdd.take_of("train", np.array([0, 59, 60, 2699])).tolist() == [5, 5, 6, 49]


def test_clips_are_spread_over_the_rows_by_recording() -> None:
    """Of every class the recordings are spread evenly: the first of all classes, then what lies at a third, at a half, ..."""
    names = ["dog/1-20-A", "dog/1-3-B", "dog/1-3-A", "dog/1-100-A", "rain/1-7-A", "rain/1-8-A", "dog/2-4-A", "chainsaw/1-9-Z"]
    found = clips([f"audio/{name}.ogg" for name in names] + ["readme.txt", "audio/x.wav"], "train")
    order = ["chainsaw/1-9-Z", "dog/1-3-A", "dog/1-3-B", "rain/1-7-A", "dog/1-20-A", "rain/1-8-A", "dog/1-100-A"]
    assert [clip.name for clip in found] == [f"audio/{name}.ogg" for name in order]
    assert (found[1].kind, found[1].fold, found[1].recording) == ("dog", 1, 3)
    assert [clip.name for clip in clips([f"audio/{name}.ogg" for name in names], "test")] == ["audio/dog/2-4-A.ogg"]
    assert len(CLASSES) == 10
    for wrong in ("dog/1-3-AB", "dogs/1-3-A", "dog/1-3-a", "dog/1-x-A", "dog/12-3-A", "dog/1-3"):
        name = f"audio/{wrong}.ogg"
        assert told(clips, [name], "test") == f"{name} is no clip of ESC-10, whose files are audio/CLASS/FOLD-RECORDING-TAKE.ogg; remove it"


def test_what_is_said_of_clips(tmp_path: Path) -> None:
    lay = "lay ESC-10 out as audio/CLASS/FOLD-RECORDING-TAKE.ogg"
    assert told(read_esc10, tmp_path, "test") == f"{tmp_path / 'audio'} has no clip of fold 2; {lay}"
    path = tmp_path / "audio" / "dog" / "2-3-A.ogg"
    path.parent.mkdir(parents=True)
    soundfile.write(path, np.zeros((9000, 2)), 44_100, format="OGG", subtype="VORBIS")
    assert told(read_esc10, tmp_path, "test") == f"{path} has 2 channels, expected one; replace the file"
    soundfile.write(path, np.zeros(44_100), 44_100, format="OGG", subtype="VORBIS")
    assert told(read_esc10, tmp_path, "test") == f"{path} lasts 1.00 s, a clip needs 4.10 s; replace the file"
    assert told(read_vorbis, path, 8000) == f"{path} has 44,100 Hz, expected 8,000 Hz; use the files as they were published"


# --- WAV and FLAC, chunks -------------------------------------------------------------------------------------------------------------


def test_what_is_said_of_sounds(tmp_path: Path) -> None:
    path, ramp = tmp_path / "a.wav", np.arange(1000, dtype=np.int16)
    assert told(audio_info, path) == f"{path} is missing; check that the data set is complete"
    path.mkdir()
    assert told(audio_info, path) == f"{path} is missing; check that the data set is complete"
    path.rmdir()
    soundfile.write(path, ramp, 8000)
    assert audio_info(path) == AudioInfo(1000, 8000, 1)
    assert audio_info(path).coding == "PCM_16"
    assert told(read_audio, path, 16_000) == f"{path} has 8,000 Hz, expected 16,000 Hz; convert the file, e.g. with ffmpeg -ar 16000"
    short = "the file is shorter than the others of its set, replace it"
    for start, length, asked in ((999, 2, "999 to 1,001"), (1000, 1, "1,000 to 1,001"), (-1, 2, "-1 to 1"), (5, 0, "5 to 5")):
        assert told(read_span, path, start, length) == f"{path} has 1,000 samples, asked for {asked}; {short}"
    assert (read_span(path, 997, None)[0] * 32_768).tolist() == [997.0, 998.0, 999.0]
    assert told(read_resampled, [path], 0, 501, 4000) == f"{path} has 500 samples at 4,000 Hz, asked for 0 to 501; replace the file"
    soundfile.write(tmp_path / "b.wav", ramp, 4000)
    rates = f"{tmp_path / 'b.wav'} and {path} have different sample rates; use the files as they were published"
    assert told(read_resampled, [path, path, tmp_path / "b.wav"], 0, 1, 4000) == rates
    soundfile.write(path, np.zeros((9, 2)), 8000)
    assert told(read_pcm, path, 8000) == f"{path} has 2 channels, expected one; replace the file"
    soundfile.write(path, np.array([0.1, 0.2]), 8000, subtype="FLOAT")
    assert told(read_pcm, path, 8000) == f"{path} is not 16-bit audio; replace the file by the original"
    soundfile.write(path, np.array([0.1, np.inf]), 8000, subtype="FLOAT")
    assert told(read_audio, path) == f"{path} holds samples that are not finite; replace the file"
    soundfile.write(path, np.zeros(0), 8000)
    assert told(read_audio, path) == f"{path} has no samples; replace the file"
    soundfile.write(path, np.zeros(9), 8000, format="AIFF")
    assert told(read_audio, path) == f"{path} is AIFF audio; convert it to WAV or FLAC, e.g. with ffmpeg"
    soundfile.write(path, np.zeros(900), 8000)
    raw = path.read_bytes()
    path.write_bytes(raw[:-2])
    why = "is cut off: 1,798 bytes of samples, its header announces 1,800"
    assert told(read_audio, path) == f"{path} {why}; replace the file, or write it anew, e.g. with ffmpeg"


@pytest.mark.parametrize(("old", "new"), [(44_100, 20_480), (8000, 16_000), (7, 5), (3, 1), (1, 2)])
def test_resampling_is_scipys_default(old: int, new: int) -> None:
    values = np.random.default_rng(1).standard_normal((2, 333)).astype(np.float32)
    common = np.gcd(old, new)
    wanted = resample_poly(values.astype(np.float64), new // common, old // common, axis=-1)
    found = resample(torch.from_numpy(values), old, new)
    assert found.shape[-1] == wanted.shape[-1] == resampled_length(333, old, new)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"^sample rates must be at least 1 Hz, got 1 and 0$"):
        resample(found, 1, 0)


def test_files_are_told_apart_by_their_size_start_middle_and_end(tmp_path: Path) -> None:
    base = bytearray(range(256)) * 100  # 25,600 bytes: the middle that is read begins at 12,800, the end at 21,504
    made = {}
    for name, place in {"same": None, "start": 4095, "middle": 12_800, "middle's end": 16_895, "end": 21_504, "last": 25_599, "unread": 4096}.items():
        content = bytearray(base)
        if place is not None:
            content[place] ^= 1
        made[name] = written(tmp_path / name, bytes(content))
    made["longer"] = written(tmp_path / "longer", bytes(base[:12_800] + base))
    info = AudioInfo(20, 10, 1)
    first = written(tmp_path / "first", bytes(base))
    names = [*made]
    signals = ChunkedAudio("toy", "train", [Recording((path,), info=info) for path in (first, *made.values())], 10, 10)
    hashes = signals.content_hashes(torch.arange(0, 2 * len(names) + 2, 2))
    assert [name for name, digest in zip(names, hashes[1:], strict=True) if digest == hashes[0]] == ["same", "unread"]
    assert len(set(hashes)) == len(names) - 1
    assert signals.content_hashes(torch.tensor([1]))[0] not in hashes  # another place of the file
    small = written(tmp_path / "small", b"abc")
    probe = hashlib.sha256((3).to_bytes(8, "big") + b"abc" + b"bc" + b"abc").digest()
    (found,) = ChunkedAudio("toy", "train", [Recording((small,), info=info)], 10, 10).content_hashes(torch.tensor([1]))
    assert found == hashlib.sha256(probe + (1).to_bytes(8, "big")).digest()


def test_the_songs_of_musdb_that_validate_are_the_authors() -> None:
    assert hashlib.sha256("\n".join(sorted(VALIDATION)).encode()).hexdigest()[:16] == "162078b8e5935466"
