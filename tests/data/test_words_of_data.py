"""What is said of data that cannot be used, each line in whole: data sets, manifests, files of estimates, readers and training data."""

from __future__ import annotations

import gzip
import importlib.util
import re
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sepbench.data import datasets
from sepbench.data.array_sets import ArraySignals
from sepbench.data.estimates import arrays, files, names, png, signals
from sepbench.data.estimates.problems import UNREADABLE, EstimatesError, FileProblem, Problems
from sepbench.data.files import fetch, integrity
from sepbench.data.files.manifests import DataFile, Manifest, read_manifest
from sepbench.data.lists.builders import Draws, apart
from sepbench.data.readers import audio_files, cifar_pickle, digits, fsdd, image_folder, music_stems
from sepbench.data.readers.esc10 import FOLDS, read_esc10
from sepbench.data.readers.esc50 import read_esc50
from sepbench.data.readers.idx import read_idx
from sepbench.data.views import Pool, PooledRows, TrainingMaterial, Transform, make_view
from sepbench.errors import DataError, SepbenchError, SupervisionError
from sepbench.protocols import Supervision, TaskSpec

SPEC = TaskSpec("fake", "task", "image", 2, (1, 2, 2), "sum", ("a", "b"), "permutation", (0, 1), 1)


def told(kind: type[Exception], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


# ---- data sets and manifests -----------------------------------------------------------------------------------------------------------


def test_what_is_no_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = "its entry point must name an object with manifest, splits and open, see sepbench.data.datasets.DataSet"

    class Whole:
        """All that a data set has, and yet no object."""

        manifest, splits = "", ("train",)

        def open(self, split: str) -> None: ...

    assert isinstance(Whole(), datasets.DataSet)
    for loaded, what in ((3, "of type int"), (Whole, f"the class {Whole.__qualname__}")):
        monkeypatch.setattr(datasets, "load_entry", lambda group, name, loaded=loaded: loaded)
        assert told(DataError, lambda: datasets.registered_dataset("mine")) == f"data set 'mine' is {what}; {rule}"


def test_folders_of_data(monkeypatch: pytest.MonkeyPatch, data_home: Path) -> None:
    manifest = Manifest("toy", "t", "l", "c", "h", (DataFile("a.bin", 3, md5="0" * 32, urls=("http://nowhere/a.bin",)),))
    monkeypatch.setenv("SEPBENCH_DATA", str(data_home / "none"))
    where = f"SEPBENCH_DATA={data_home}/none is not a folder"
    line = f"{where}; set it to the folder that holds toy/, or unset it to use {data_home}/cache"
    assert told(DataError, lambda: fetch.find(manifest)) == line
    monkeypatch.delenv("SEPBENCH_DATA")
    shipped = Manifest("toy", "t", "l", "c", "h", (), shipped_with="no_such_package")
    line = "data set 'toy' ships with the package 'no_such_package', which is not installed; install it"
    assert told(DataError, lambda: fetch.find(shipped)) == line
    monkeypatch.setattr(fetch, "_find", lambda manifest: None)
    monkeypatch.setattr(fetch, "_search_folders", lambda manifest: [])
    line = "a manifest with files has at least one form and there is always a cache folder"
    assert told(ValueError, lambda: fetch._nearest_to_complete(manifest)) == line
    monkeypatch.delenv("SEPBENCH_CACHE")
    monkeypatch.setattr(fetch.platformdirs, "user_cache_dir", lambda *given, **named: "~/.cache")
    line = "there is no home folder to keep data in: set HOME, or set SEPBENCH_CACHE to a folder that can be written to"
    assert told(DataError, fetch.cache_folder) == line


def test_downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = DataFile("deep/a.bin", 3, md5="0" * 32, urls=("http://one/a.bin", "http://two/a.bin"))

    def retrieve(url: str, *, downloader: Any, path: Path, **named: Any) -> None:
        (path / "part").write_bytes(b"abc")
        downloader(url, str(path / "part"), None)

    monkeypatch.setattr(fetch.pooch, "retrieve", retrieve)
    monkeypatch.setattr(fetch.pooch, "HTTPDownloader", lambda **named: lambda *given: None)
    each = f"wrong md5 900150983cd24fb0d6963f7d28e17f72, expected {'0' * 32}; discarded"
    failures = f"http://one/a.bin: {each}; http://two/a.bin: {each}"
    line = f"cannot download deep/a.bin: {failures}; try again later or put the file into {tmp_path}/toy/deep yourself"
    assert told(DataError, lambda: fetch._download(file, tmp_path / "toy", None)) == line


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"size": 3'])
def test_a_stamp_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    assert integrity._read_stamp(tmp_path / "a.json") is None
    (tmp_path / "a.json").write_bytes(content)
    assert integrity._read_stamp(tmp_path / "a.json") is None


HEAD = 'name = "toy"\ntitle = "t"\nlicence = "l"\ncitation = "c"\nhomepage = "h"\n'
FILE = f'[[files]]\nname = "a.bin"\nsize = 3\nsha256 = "{"0" * 64}"\n'
LAYOUT = 'layout = ["a/*"]\n'
WAYS = "it needs either files, or shipped_with and array_sha256, or layout and how"
MADE = "with made_by it needs files, without urls, optional and form"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (HEAD + "files = 3\n", "files must be an array of tables"),
        (HEAD + "files = [1]\n", "files must be an array of tables"),
        (HEAD + 'listing = "toy.csv"\n' + FILE, "it needs either files or a listing"),
        (HEAD + FILE + FILE.replace("size = 3", "size = 0"), "file 2: size must be a positive number of bytes, got 0"),
        (HEAD.replace('title = "t"\n', "") + FILE, "the key 'title' is missing"),
        (HEAD + FILE.replace("size = 3\n", ""), "file 1: the key 'size' is missing"),
        (HEAD + FILE.replace("sha256", "sha1"), "file 1: unknown key 'sha1'; known: form, md5, name and 4 more"),
        (HEAD + FILE.partition("sha256")[0], "file 1: sha256 or md5 is missing"),
        (HEAD.replace("toy", "other") + FILE, "its name is 'other', it must be 'toy' like the file"),
        (HEAD, WAYS),
        (HEAD + LAYOUT, WAYS),
        (HEAD + LAYOUT + 'how = "x"\n' + FILE, WAYS),
        (HEAD + 'shipped_with = "x"\n', WAYS),
        (HEAD + LAYOUT + 'how = "x"\nmade_by = "x"\n', MADE),
        (HEAD + 'made_by = "x"\n' + FILE + 'urls = ["https://x"]\n', MADE),
        (HEAD + 'made_by = "x"\n' + FILE + "optional = true\n", MADE),
        (HEAD + 'made_by = "x"\n' + FILE + 'form = "x"\n', MADE),
        (HEAD + FILE + FILE, "a file is listed twice"),
        (HEAD + FILE + 'optional = true\nform = "x"\n', "all files of form 'x' are optional"),
    ],
)
def test_manifests(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(text, encoding="utf-8")
    assert told(DataError, lambda: read_manifest(path)) == f"the manifest {path} is malformed: {what}"


# ---- estimates -------------------------------------------------------------------------------------------------------------------------


def test_files_of_estimates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    damaged, two, index = tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "c.parquet"
    damaged.write_bytes(b"PK\x03\x04")
    line = told(EstimatesError, lambda: arrays.of_file(damaged, SPEC, 9))
    assert line.startswith(f"{damaged} cannot be read as .npz (BadZipFile: ")
    assert line.endswith("); write it anew")
    np.savez(two, a=np.zeros(3), b=np.zeros(3), example_ids=np.arange(3))
    rule = "it must hold one, and example_ids if its rows are not mixtures 0 to M - 1"
    assert told(EstimatesError, lambda: arrays.of_file(two, SPEC, 9)) == f"{two} holds 2 arrays (a, b); {rule}"
    np.savez(two, example_ids=np.arange(3))
    assert told(EstimatesError, lambda: arrays.of_file(two, SPEC, 9)) == f"{two} holds 0 arrays (none); {rule}"
    index.write_bytes(b"PAR1")
    line = told(EstimatesError, lambda: names.read_index(index, SPEC, 9, Problems()))
    assert line.startswith(f"{index} is no readable Parquet file (")
    assert line.endswith("); write it anew")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"example": [0], "path": ["a.png"]}), index)
    line = f"{index} has no column source; an index of estimates has the columns example, source and path"
    assert told(EstimatesError, lambda: names.read_index(index, SPEC, 9, Problems())) == line
    assert arrays.IDS == "example_ids"

    def damaged_name(handle: Any, **options: Any) -> Any:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.setattr(pq, "ParquetFile", damaged_name)
    line = told(EstimatesError, lambda: names.read_index(index, SPEC, 9, Problems()))
    assert line.startswith(f"{index} is no readable Parquet file (UnicodeDecodeError: ")


def test_signals_of_estimates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(FileProblem) as caught:
        signals.read_array(tmp_path / "a.npy")
    assert caught.value.args == (UNREADABLE, "no .npy file")
    path = tmp_path / "b.npy"
    np.save(path, np.zeros((1, 2, 2), np.float32))
    one = replace(SPEC, n_sources=1, source_classes=("a",), scored_sources=(0,))
    held = files.FileEstimates({(0, 0): path}, tmp_path, one)
    line = f"{path} has changed since it was read first; leave the files alone and evaluate again"
    assert told(EstimatesError, lambda: held.load([0])) == line
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    line = "needs pillow, which is not installed; run: pip install 'sepbench[report]'"
    assert told(SepbenchError, lambda: png._by_pillow(b"")) == f"reading images {line}"
    with pytest.raises(SepbenchError) as missing, image_folder.opened_image(tmp_path / "x.png"):
        pass
    assert str(missing.value) == f"reading a folder of images {line}"


# ---- readers ---------------------------------------------------------------------------------------------------------------------------


def test_damaged_files(tmp_path: Path) -> None:
    packed, count = tmp_path / "a.gz", 200_000
    whole = bytearray(gzip.compress(struct.pack(">4BI", 0, 0, 8, 1, count) + bytes(count), 0, mtime=0))
    whole[-65_000:-64_000] = b"\xff" * 1_000
    whole[10 + 5 + 65_535 : 10 + 5 + 65_540] = b"\xff" * 5  # where the second block begins
    packed.write_bytes(bytes(whole))
    line = told(DataError, lambda: read_idx(packed, 1))
    assert re.search(r"/a\.gz is corrupt at byte [\d,]+: the gzip stream is damaged \(Error .+\); replace the file$", line)
    pictures: Any = cifar_pickle._Array(None, None, None)
    kind: Any = cifar_pickle._Dtype.__new__(cifar_pickle._Dtype)
    kind.code = "u1"
    pictures.state = (1, (2, 3072), kind, False, b"\0" * 3072)
    assert told(ValueError, lambda: cifar_pickle._images(pictures)) == "'data' does not hold the 2 x 3072 bytes it announces"
    (tmp_path / "audio").mkdir()
    line = told(DataError, lambda: read_esc10(tmp_path, "test"))
    assert line == f"{tmp_path}/audio has no clip of fold {FOLDS['test']}; lay ESC-10 out as audio/CLASS/FOLD-RECORDING-TAKE.ogg"
    (tmp_path / "meta").mkdir()
    table = tmp_path / "meta" / "esc50.csv"
    for row in ("a.wav,1,x", "a.wav,1.5,3"):
        table.write_text(f"filename,fold,target\n{row}\n")
        assert told(DataError, lambda: read_esc50(tmp_path, "test")) == f"{table}: fold and target must be whole numbers; replace the file by ESC-50's"


def test_sounds_that_are_shorter_silent_or_too_loud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(100), 8_000)
    line = f"{path} has 100 samples, asked for 90 to 1,090; the file is shorter than the others of its set, replace it"
    assert told(DataError, lambda: audio_files.read_span(path, 90, 1_000, 8_000)) == line
    short: Any = SimpleNamespace(frames=1_500, seek=lambda start: None, read=lambda count, **named: np.zeros((count - 300, 1), np.float32))
    line = f"{path} ends at sample 1,200, its header announces 1,500; replace the file"
    assert told(DataError, lambda: audio_files._samples(path, short, 0, 1_500, False)) == line
    monkeypatch.setattr(fsdd, "read_pcm", lambda path, rate: torch.zeros(4_000, dtype=torch.int16))
    monkeypatch.setattr(fsdd, "utterance", lambda recordings, take, digit, length: torch.zeros(length, dtype=torch.int16))
    first = tmp_path / fsdd.recording_name(fsdd.SPEAKERS[0], 0, fsdd.TAKES["test"][0])
    assert told(DataError, lambda: fsdd.read_fsdd(tmp_path, "test")) == f"{first} and what follows it are silent; replace the files"
    monkeypatch.setattr(music_stems, "read_pcm", lambda path, rate: torch.full((9,), 20_000, dtype=torch.int16))
    line = f"{tmp_path}: the sum of drums, bass leaves the range of 16 bits; replace the files by the originals"
    assert told(DataError, lambda: music_stems._song(tmp_path, ("drums", "bass"), 9)) == line


def test_digits_of_another_release(tmp_path: Path) -> None:
    found = importlib.util.find_spec("sklearn")  # an import takes seconds
    assert found is not None
    package = Path(found.origin or "").parent
    line = told(DataError, lambda: digits.read_digits(package, "test", "ab" * 32))
    assert line.startswith("the digits of the installed scikit-learn are not the frozen ones: sha256 ")
    assert f", expected {'ab' * 32}; " in line


def test_pictures_of_other_sizes_and_levels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "a").mkdir()
    image.new("L", (4, 3)).save(tmp_path / "a" / "0.png")
    image.new("RGB", (4, 3)).save(tmp_path / "a" / "1.png")
    rule = "all images must have one size and one number of channels"
    line = f"{tmp_path}/a/1.png is 4 x 3 colour, but 0.png is 4 x 3 grey; {rule}"
    assert told(DataError, lambda: image_folder.read_image_folder(tmp_path / "a")) == line
    (tmp_path / "a" / "1.png").write_bytes((tmp_path / "a" / "0.png").read_bytes()[:45])
    line = told(DataError, lambda: image_folder.read_image_folder(tmp_path / "a"))
    assert line.startswith(f"{tmp_path}/a/1.png cannot be decoded as an image")
    assert line.endswith("; replace or remove it")
    deep: Any = SimpleNamespace(n_frames=1, tile=[], tag_v2={258: (8, 16)}, format="TIFF")
    assert image_folder._changed(deep) == "has more than 8 bits per channel"
    deep.tag_v2 = {258: (8, 8)}
    assert image_folder._changed(deep) == ""
    monkeypatch.setattr(image_folder, "list_images", lambda folder: [])
    assert told(ValueError, lambda: image_folder.read_image_folder(tmp_path)) == "list_images returns at least one image"


# ---- lists and training data -----------------------------------------------------------------------------------------------------------


def test_draws_that_cannot_be_made() -> None:
    draws = Draws("x")
    for bound in (0, -1, 2**32):
        assert told(ValueError, lambda bound=bound: draws.integers(bound, np.arange(3), 0)) == f"bound must lie in [1, 2**32), got {bound}"
    assert draws.integers(1, np.arange(3), 0).tolist() == [0, 0, 0]
    assert draws.integers(2**32 - 1, np.arange(3), 0).max() < 2**32 - 1
    line = "a pool of one key leaves nothing to an example that refuses it"
    assert told(ValueError, lambda: apart(draws, np.arange(4), np.full(4, 7), np.array([7]), 0)) == line


def _view(level: Supervision, clean: int = 0, excluded: int = 0, spec: TaskSpec = SPEC) -> Any:
    images = ArraySignals("fake", "train", "image", torch.zeros(max(clean, 1), 1, 2, 2, dtype=torch.uint8), torch.zeros(max(clean, 1), dtype=torch.int64))
    pool = Pool(((images, torch.arange(clean)),))
    return make_view(level, spec, lambda: TrainingMaterial(pool, (pool, pool), None, None, torch.arange(0), Transform(), excluded))


def test_training_data_that_there_are_not() -> None:
    view = _view("mixtures+one")
    for call in (view.mixtures, lambda: view.rows("mixtures")):
        assert told(SupervisionError, call) == "task fake/task has no training mixtures"
    for call in (view.observed, lambda: view.rows("observed")):
        assert told(SupervisionError, call) == "task fake/task has no observed samples"
    ends = "task fake/task needs training data of its own"
    line = "none of the 1,234 training images is left: all occur in the test split, or among what is held out for validation"
    assert told(DataError, _view("sources", excluded=1_234).clean) == f"{line}; {ends}"
    line = "no training image of source 1 is left: 0 images were left out because they occur in the test split"
    assert told(DataError, lambda: _view("sources").sources(1)) == f"{line}; {ends}"


@pytest.mark.parametrize(("asked", "span"), [([-1], "-1 to -1"), ([0, 3], "0 to 3"), ([2, -4, 1], "-4 to 2")])
def test_positions_of_training_rows(asked: Sequence[int], span: str) -> None:
    rows = PooledRows(3, lambda indices: indices)
    assert told(IndexError, lambda: rows.load(asked)) == f"positions must lie in [0, 3), got {span}"
    assert rows.load([0, 2]).tolist() == [0, 2]
    images = ArraySignals("fake", "train", "image", torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    assert told(IndexError, lambda: Pool(((images, torch.arange(3)),)).load_rows(torch.tensor([9]))) == "positions must lie in [0, 3)"
