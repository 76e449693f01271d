"""What conversion makes of sounds and images, by hand: pieces and their counts, peaks, pixels of odd formats; and the whole lines of what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from own_files import tone

from sepbench.data.own import sounds
from sepbench.data.own.folders import open_folders
from sepbench.data.own.images import read_images
from sepbench.data.own.signals import OwnSignals
from sepbench.data.own.sounds import read_sounds
from sepbench.data.own.splits import check_shares, share_for, split_sizes
from sepbench.data.own.stored import open_beside, split_file
from sepbench.data.readers.audio_files import read_audio, resample
from sepbench.errors import DataError

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")


def read(*folders: Path, rate: int | None = None, seconds: float = 1.0, convert: bool = False) -> tuple[list[OwnSignals], int, list[str]]:
    return read_sounds(open_folders(folders)[1], [folder.name for folder in folders], rate, seconds, convert)


def write(path: Path, values: np.ndarray, rate: int = 1000, coding: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, values, rate, subtype=coding)
    return path.parent


# --- sounds -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.001, 0.1, 0.0984])
def test_pieces_shorter_than_a_second_sound_as_a_whole(tmp_path: Path, seconds: float) -> None:
    """The shortest piece is one sample; a length that is no whole number of samples is rounded."""
    samples = 120 if seconds == 0.001 else 1000
    values = np.where(np.arange(samples) % 300 < 100, 0.0, 0.25)  # the first hundred of every three hundred samples are silent
    (signals,), rate, notes = read(write(tmp_path / "a" / "1.wav", values), seconds=seconds)
    length = {0.001: 1, 0.1: 100, 0.0984: 98}[seconds]
    heard = [start for start in range(0, samples // length * length, length) if np.square(values[start : start + length]).mean() > 1e-4]
    assert (rate, signals.values.shape) == (1000, (len(heard), length))
    assert signals.start.tolist() == heard
    assert signals.sounding.tolist() == [1] * len(heard)
    silent = samples // length - len(heard)
    assert notes == [f"a: silent and left out: {silent} {'piece' if silent == 1 else 'pieces'}"]


def test_a_piece_of_the_longest_length_has_a_bit_for_every_second(tmp_path: Path) -> None:
    values = np.full(650, 0.5)
    values[:590] = 0.0
    folder = write(tmp_path / "a" / "1.wav", values, 10)
    assert read(folder, seconds=60.0)[0][0].sounding.tolist() == [1 << 59]
    with pytest.raises(DataError) as caught:
        read(folder, seconds=60.1)
    assert str(caught.value) == "--seconds must be above 0 and at most 60, got 60.1"
    folder = write(tmp_path / "b" / "1.wav", values[580:600], 10)
    assert read(folder, seconds=0.1)[0][0].values.shape == (10, 1)
    with pytest.raises(DataError, match=r"above 0 and at most 60, got 0\.099$"):  # less than a sample
        read(folder, seconds=0.099)


def test_pieces_keep_their_place_however_many_are_converted_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(1, 301) / 32_768 + 0.25
    folder = write(tmp_path / "a" / "1.wav", values)
    write(folder / "2.wav", -values[:55])
    whole = read(folder, seconds=0.01)[0][0]
    monkeypatch.setattr(sounds, "_PIECES", 7)
    (signals,), _, _ = read(folder, seconds=0.01)
    stored, _ = soundfile.read(folder / "1.wav", dtype="int16")
    assert np.array_equal(signals.values[:30].ravel(), stored)
    assert np.array_equal(signals.values[30:].ravel(), soundfile.read(folder / "2.wav", dtype="int16")[0][:50])
    assert (signals.start.tolist(), signals.file.tolist()) == ([*range(0, 300, 10), *range(0, 50, 10)], [0] * 30 + [1] * 5)
    assert np.array_equal(whole.values, signals.values)
    assert signals.group.tolist() == signals.file.tolist()
    assert signals.file_names == ("1.wav", "2.wav")


def test_every_class_tells_what_was_left_out_and_clipped(tmp_path: Path) -> None:
    """Only what goes beyond full scale counts as clipped: the positive full scale itself, which 16 bits miss by one step, does not."""
    silence = np.zeros(1000)
    full = np.where(np.arange(2000) % 2 == 0, 1.0, -1.0)
    low, high = tmp_path / "low", tmp_path / "high"
    write(low / "1.wav", np.concatenate([tone(1, 2000), silence]))
    write(low / "2.wav", np.concatenate([silence, tone(2, 2000)]))
    write(low / "3.wav", np.concatenate([silence, tone(2, 1000)]))
    write(high / "1.wav", full, coding="FLOAT")
    write(high / "2.wav", np.concatenate([silence, full[:1000]]))
    made, _, notes = read(low, high, convert=True)
    assert [one.name for one in made] == ["low", "high"]
    assert (made[1].values.max(), made[1].values.min()) == (32_767, -32_768)
    assert notes == [
        f"converted to 1,000 Hz, mono, 16 bits: {high / '1.wav'} has FLOAT samples",
        "low: silent and left out: 3 pieces",
        "high: silent and left out: 1 piece",
    ]
    square = np.where(np.arange(4000) % 16 < 8, 1.0, -1.0)
    for number in range(4):
        write(tmp_path / "loud" / f"{number}.wav", square, 2000, "FLOAT")
    _, _, notes = read(tmp_path / "loud", rate=1000, convert=True)
    beyond = int((resample(read_audio(tmp_path / "loud" / "0.wav"), 2000, 1000).mul(32_768).round().abs() > 32_768).sum())
    assert beyond > 100
    each = [f"{number}.wav ({beyond:,} samples)" for number in range(3)]
    assert notes[1] == f"loud: clipped at full scale: {', '.join(each)} and 1 more"


def test_the_peak_is_that_of_every_channel_of_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "_BLOCK", 300)
    values = np.full((1000, 2), 0.5)
    values[950, 1] = -1.5  # their mean is within full scale
    folder = write(tmp_path / "a" / "1.wav", values, coding="FLOAT")
    with pytest.raises(DataError) as caught:
        read(folder, convert=True)
    told = f"1 file is of floats beyond full scale, 1: {folder / '1.wav'} reaches 1.5; scale what you want to keep"
    assert str(caught.value) == told
    with pytest.raises(DataError) as caught:
        read(folder)
    what = f"{folder / '1.wav'} has 2 channels, FLOAT samples"
    assert str(caught.value) == f"1 file is not 1,000 Hz, mono, 16 bits: {what}; --convert does it by the rules of docs/own-data.md"


@pytest.mark.parametrize(("name", "coding"), [("x.wav", "PCM_U8"), ("x.flac", "PCM_S8"), ("x.flac", "PCM_16")])
def test_sounds_of_eight_bits_are_taken_as_they_are(tmp_path: Path, name: str, coding: str) -> None:
    (signals,), _, notes = read(write(tmp_path / "a" / name, tone(1, 1000), coding=coding))
    assert (notes, len(signals)) == ([], 1)
    assert np.abs(signals.values[0] / 32_768 - tone(1, 1000)).max() < (1 / 100 if coding.endswith("8") else 1e-4)


def test_damage_within_files_is_told_of_three(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    for number in range(5):
        write(folder / f"{number}.flac", tone(number, 9000))
        raw = bytearray((folder / f"{number}.flac").read_bytes())
        if number:
            raw[len(raw) // 2 : len(raw) // 2 + 100] = bytes(100)
        (folder / f"{number}.flac").write_bytes(raw)
    with pytest.raises(DataError) as caught:
        read(folder)
    named = [f"{folder}/{number}.flac is damaged between samples " for number in (1, 2, 3)]
    assert [str(caught.value).find(name) > -1 for name in (*named, f"{folder}/0.flac", f"{folder}/4.flac")] == [True, True, True, False, False]
    assert str(caught.value).endswith("; and 1 more files")


def test_of_different_rates_the_lowest_is_proposed(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    for number, rate in enumerate((4000, 1000, 2000, 8000, 8000)):
        write(folder / f"{number}.wav", tone(1, 2 * rate), rate)
    with pytest.raises(DataError) as caught:
        read(folder)
    kinds = "1 of 1,000 Hz, 1 of 2,000 Hz, 1 of 4,000 Hz and 1 more"
    assert str(caught.value) == f"the files have different rates: {kinds}; choose one with --rate 1000 and --convert"
    for rate in (0, -1):
        with pytest.raises(DataError) as caught:
            read(folder, rate=rate)
        assert str(caught.value) == f"--rate must be at least 1 Hz, got {rate}"


# --- images -------------------------------------------------------------------------------------------------------------------------


def converted(path: Path, image: object, **options: object) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)  # type: ignore[attr-defined]
    (signals,), notes = read_images(open_folders([path.parent])[1], ["x"], None, True)
    assert len(notes) == 1
    assert notes[0].startswith(f"converted: {path} ")
    return signals.values[0]


def test_transparent_grey_and_palettes_are_laid_on_white(tmp_path: Path) -> None:
    veil = np.zeros((9, 9, 2), dtype=np.uint8)
    veil[..., 1] = np.arange(81).reshape(9, 9)
    assert np.abs(converted(tmp_path / "a" / "1.png", Image.fromarray(veil, "LA")).astype(int) - (255 - veil[..., 1])).max() <= 1
    palette = Image.new("P", (9, 8), 1)
    palette.putpalette([9, 9, 9, 10, 20, 30])
    palette.putpixel((3, 2), 0)
    made = converted(tmp_path / "b" / "1.png", palette, transparency=0)
    assert made.shape == (8, 9, 3)
    assert (made[2, 3].tolist(), made[3, 2].tolist()) == ([255, 255, 255], [10, 20, 30])


def test_deep_levels_lose_their_low_byte_and_others_are_scaled(tmp_path: Path) -> None:
    values = np.arange(80, dtype=np.uint16).reshape(8, 10) * 800 + 255
    path = tmp_path / "a" / "1.pgm"
    path.parent.mkdir()
    path.write_bytes(b"P5 10 8 65535\n" + values.astype(">u2").tobytes())
    (signals,), _ = read_images(open_folders([path.parent])[1], ["x"], None, True)
    assert np.array_equal(signals.values[0], (values >> 8).astype(np.uint8))
    path.write_bytes(b"P5 10 8 100\n" + (values // 800).astype(np.uint8).tobytes())
    (signals,), _ = read_images(open_folders([path.parent])[1], ["x"], None, True)
    assert np.abs(signals.values[0] - np.minimum(values // 800, 100) * 2.55).max() <= 1


def test_of_several_pages_the_first_counts_turned_and_in_its_colours(tmp_path: Path) -> None:
    grey = np.arange(80, dtype=np.uint8).reshape(8, 10)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: a viewer turns it by 90 degrees to the right
    more = {"save_all": True, "append_images": [Image.new("L", (10, 8), 200)]}
    assert np.array_equal(converted(tmp_path / "a" / "1.tif", Image.fromarray(grey), exif=exif, **more), np.rot90(grey, -1))
    colour = np.dstack([grey, grey + 1, grey + 2])
    more["append_images"] = [Image.new("RGB", (10, 8), (200, 0, 0))]
    assert np.array_equal(converted(tmp_path / "b" / "1.tif", Image.fromarray(colour), **more), colour)
    bits = Image.fromarray(grey > 40)
    more["append_images"] = [bits]
    assert np.array_equal(converted(tmp_path / "c" / "1.tif", bits, **more), np.where(grey > 40, 255, 0))


def test_images_that_would_be_changed_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for number in range(5):
        Image.new("RGBA", (9, 9), (1, 2, 3, 4)).save(folder / f"{number}.png")
    with pytest.raises(DataError) as caught:
        read_images(open_folders([folder])[1], ["x"], None, False)
    three = ", ".join(f"{folder / f'{number}.png'} has transparent pixels" for number in range(3))
    assert str(caught.value) == f"5 images would be changed: {three} and 2 more; --convert does it by the rules of docs/own-data.md"
    Image.new("CMYK", (9, 9)).save(tmp_path / "1.tif")
    (folder / "0.png").write_bytes((tmp_path / "1.tif").read_bytes())
    with pytest.raises(DataError) as caught:
        read_images(open_folders([folder])[1], ["x"], None, True)
    assert str(caught.value) == f"{folder / '0.png'} has the pixel format 'CMYK', for which there is no rule; save it as 8-bit grey or RGB"


# --- whole lines --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shares", "told"),
    [
        ((-0.1, 0.5), "--val is a share of the files, from 0 to 1; got -0.1"),
        ((0.1, 1.5), "--test is a share of the files, from 0 to 1; got 1.5"),
        ((0.1, 0.0), "--test 0 leaves nothing to separate; give it a share of the files, such as 0.2"),
        ((0.4, 0.7), "--val 0.4 and --test 0.7 are more than all files; for a suite without training data give --val 0 --test 1"),
    ],
)
def test_what_is_said_of_shares(shares: Sequence[float], told: str) -> None:
    with pytest.raises(DataError) as caught:
        check_shares(*shares)
    assert str(caught.value) == told


def test_what_is_said_of_too_few_files() -> None:
    with pytest.raises(DataError) as caught:
        split_sizes(2, 0.1, 0.2)
    assert share_for(99, [100, 500], 0.0) == 0.99  # the largest that leaves some for training
    assert share_for(100, [100], 0.0) is None
    parts = "1 for training, 1 for validation and 1 for test"
    assert str(caught.value) == f"2 different files cannot be split by --val 0.1 --test 0.2, which take at least {parts}; add files, or lower --val to 0"


def test_what_is_said_of_signals_beside_a_suite(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        split_file(tmp_path, "beside:/x", "test")
    assert str(caught.value) == "data set 'beside:/x': the part after the colon must be a path within the folder of the suite's file"
    with pytest.raises(DataError) as caught:
        open_beside(tmp_path, "beside:x", "train", "image")
    where = tmp_path / "x" / "train.npy"
    told = f"data set 'beside:x' has no train split: {where} cannot be read (No such file or directory); copy the suite's folder as a whole"
    assert str(caught.value) == told


def test_a_folder_that_is_reached_twice_is_told(tmp_path: Path) -> None:
    (tmp_path / "a" / "in").mkdir(parents=True)
    (tmp_path / "a" / "in" / "1.png").touch()
    (tmp_path / "a" / "more").symlink_to(tmp_path / "a" / "in")
    with pytest.raises(DataError) as caught:
        open_folders([tmp_path / "a"])
    told = f"{tmp_path / 'a' / 'more'} and {tmp_path / 'a' / 'in'} are one folder, reached by a link; remove the link, or its files would count twice"
    assert str(caught.value) == told
