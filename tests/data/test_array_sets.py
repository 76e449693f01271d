"""What stands behind each name of a data set, without any data: whose files, which reader, which part of them; and every way to open one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sepbench.data import array_sets, datasets
from sepbench.data.array_sets import ArraySet
from sepbench.data.chunked_sets import ChunkedSet
from sepbench.data.datasets import analytic_prior, dataset_names, has_analytic_prior, manifest_of, manifests_of, open_dataset, registered_dataset
from sepbench.data.files.fetch import FoundData
from sepbench.data.files.manifests import load_manifest
from sepbench.data.lists.pairs import PairList
from sepbench.data.mixtures import MixtureSet, Transform
from sepbench.data.signals import ArraySignals
from sepbench.errors import DataError, SepbenchError, SuiteError

ARRAYS = {
    **{"mnist": ("mnist", "image"), "cifar10": ("cifar10", "image"), "cifar10-mini": ("cifar10-mini", "image"), "digits": ("digits", "image")},
    **{f"bags-shoes-mini/{kind}": ("bags-shoes-mini", "image") for kind in ("bags", "shoes")},
    **{"fsdd": ("fsdd", "audio"), "noises:fsdd": ("fsdd", "audio"), "esc10": ("esc10", "audio")},
    **{f"drums-bass-synth/{stem}": ("drums-bass-synth", "audio") for stem in ("drums", "bass")},
    **{f"music-stems/{source}": ("music-stems", "audio") for source in ("drums", "bass", "vocals", "accompaniment", "no-drums")},
}
CHUNKS = {
    **{f"slakh2100/{instrument}": ("slakh2100", 65_536, 22_050) for instrument in ("drums", "bass")},
    **{f"musdb18-hq/{source}": ("musdb18-hq", 61_440, 20_480) for source in ("vocals", "accompaniment", "drums", "no-drums")},
    **{"lrw": ("lrw", 10_240, 16_000), "esc50": ("esc50", 10_240, 16_000)},
}


def test_every_name_has_its_manifest_domain_and_chunks() -> None:
    made = {name: registered_dataset(name) for name in dataset_names()}
    arrays = {name: one for name, one in made.items() if isinstance(one, ArraySet)}
    chunked = {name: one for name, one in made.items() if isinstance(one, ChunkedSet)}
    assert {name: (one.manifest, one.domain) for name, one in arrays.items()} == ARRAYS
    assert {name: (one.manifest, one.length, one.sample_rate) for name, one in chunked.items()} == CHUNKS
    assert {one.splits for one in arrays.values()} == {("train", "test")}
    assert {one.splits for one in chunked.values()} == {("train", "validation", "test")}


FILES = Path("/files")
A, B = torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)


@pytest.mark.parametrize(
    ("name", "form", "reader", "asked"),
    [
        ("mnist", "", "read_mnist", (FILES, "test")),
        ("cifar10", "binary", "cifar10.read_binary_archive", (FILES / "cifar-10-binary.tar.gz", "test")),
        ("cifar10", "python", "cifar10.read_python_archive", (FILES / "cifar-10-python.tar.gz", "test")),
        ("cifar10", "binary-unpacked", "cifar10.read_binary_folder", (FILES / "cifar-10-batches-bin", "test")),
        ("cifar10", "python-unpacked", "cifar10.read_python_folder", (FILES / "cifar-10-batches-py", "test")),
        ("cifar10-mini", "", "cifar10.read_binary_folder", (FILES, "test", 1017)),
        ("digits", "", "read_digits", (FILES, "test", load_manifest("digits").array_sha256)),
        ("fsdd", "", "read_fsdd", (FILES, "test")),
        ("esc10", "", "read_esc10", (FILES, "test")),
        *((f"music-stems/{source}", "", "read_music_stems", (FILES, source)) for source in ("drums", "bass", "vocals", "accompaniment", "no-drums")),
        *((f"drums-bass-synth/{stem}", "", "read_synthesised", (FILES, "test", stem)) for stem in ("drums", "bass")),
        *((f"slakh2100/{instrument}", "", "", (FILES, "test", instrument)) for instrument in ("drums", "bass")),
        *((f"musdb18-hq/{source}", "", "", (FILES, "test", source)) for source in ("vocals", "accompaniment", "drums", "no-drums")),
    ],
)
def test_every_name_is_read_by_its_reader(monkeypatch: pytest.MonkeyPatch, name: str, form: str, reader: str, asked: tuple[object, ...]) -> None:
    found = FoundData(FILES, form)
    if not reader:
        chunked: Any = registered_dataset(name)
        assert chunked.read.keywords in ({"instrument": asked[2]}, {"source": asked[2]})
        return
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(f"sepbench.data.array_sets.{reader}", lambda *words: calls.append(words) or (A, B))
    opened: Any = registered_dataset(name)
    assert opened.read(found, "test") == (A, B)
    assert calls == [asked]


def test_bags_and_shoes_are_inverted_and_have_a_test_split_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    images = torch.tensor([[[[0, 255], [1, 100]]]], dtype=torch.uint8)
    monkeypatch.setattr(array_sets, "read_npy_images", lambda path: read.append(path) or images)
    for opened, kind in ((array_sets.BAGS, "bags"), (array_sets.SHOES, "shoes")):
        made, labels = opened.read(FoundData(FILES, ""), "test")
        assert (made.flatten().tolist(), labels.tolist(), read[-1]) == ([255, 0, 254, 155], [0], FILES / kind / "test.npy")
        with pytest.raises(DataError) as caught:
            opened.read(FoundData(FILES, ""), "train")
        assert str(caught.value) == f"bags-shoes-mini has the test arrays of {kind} only, no train split; use split 'test'"
    with pytest.raises(DataError) as caught:
        array_sets.STEMS_BASS.read(FoundData(FILES, ""), "train")
    assert str(caught.value) == "music-stems has four songs in one split, no train split; use split 'test' and divide it by rows"


def test_the_mini_set_is_the_beginning_of_every_official_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_sets.cifar10, "BATCH_RECORDS", 10)
    monkeypatch.setattr(array_sets.cifar10, "MINI_RECORDS", 3)
    monkeypatch.setattr(array_sets.cifar10, "read_python_archive", lambda path, split: (torch.arange(100, 125), torch.arange(25)))
    images, labels = array_sets.CIFAR10_MINI.read(FoundData(FILES, "python"), "train")
    assert labels.tolist() == [0, 1, 2, 10, 11, 12, 20, 21, 22]
    assert images.tolist() == [100 + row for row in labels.tolist()]


def test_noises_are_made_of_the_speech_of_their_split(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    speech = torch.ones(3, 1, 2, dtype=torch.int16)
    monkeypatch.setattr(array_sets, "read_fsdd", lambda folder, split: (speech if split == "train" else speech[:1], B))
    monkeypatch.setattr(array_sets, "make_noises", lambda made, split: (made * 2, split))
    made, split = array_sets.FSDD_NOISES.read(FoundData(tmp_path, ""), "train")
    assert (len(made), split) == (3, "train")
    assert made.unique().tolist() == [2]


def test_sets_that_are_handed_no_files() -> None:
    for name, manifest in (("mnist", "mnist"), ("noises:fsdd", "fsdd"), ("lrw", "lrw"), ("slakh2100/bass", "slakh2100")):
        with pytest.raises(ValueError, match=f"^data set '{name}' is read from the files of '{manifest}', and was handed none$"):
            registered_dataset(name).open(name, "test", None)


# --- opening ------------------------------------------------------------------------------------------------------------------------


def test_files_are_obtained_whole_unless_the_package_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def obtain(manifest: Any, part: str = "") -> FoundData:
        asked.append((manifest.name, part))
        raise DataError("no further")

    monkeypatch.setattr(datasets, "obtain", obtain)
    for name, split in (("drums-bass-synth/bass", "train"), ("digits", "test"), ("noises:fsdd", "train")):
        with pytest.raises(DataError, match="no further"):
            open_dataset(name, split)
    assert asked == [("drums-bass-synth", "train"), ("digits", ""), ("fsdd", "")]


class Stop(BaseException):
    """Neither an error nor an interrupt."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SepbenchError("mine"), None),
        (OSError(28, "No space left"), None),
        (KeyboardInterrupt(), None),
        (ValueError("two\nlines"), "data set 'digits' cannot open its split test: ValueError: two lines"),
        (Stop("odd"), "data set 'digits' cannot open its split test: Stop: odd"),
        (SystemExit(3), "data set 'digits' cannot open its split test: SystemExit: 3"),
    ],
)
def test_only_what_a_data_set_does_wrong_becomes_an_error_of_data(monkeypatch: pytest.MonkeyPatch, error: BaseException, told: str | None) -> None:
    def open_it(name: str, split: str, found: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "registered_dataset", lambda name: SimpleNamespace(manifest="", splits=("test",), open=open_it))
    with pytest.raises(BaseException) as caught:
        open_dataset("digits", "test")
    if told is None:
        assert caught.value is error
    else:
        assert isinstance(caught.value, DataError)
        assert str(caught.value) == told
        assert caught.value.__cause__ is error


def lay(root: Path, *names: str) -> Callable[[str, str], int]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / name, np.full((1, 2, 2), len(name), np.uint8)) if name.endswith(".npy") else (root / name).mkdir()
    return lambda name, split: round(open_dataset(name, split).load([0]).max().item() * 255)


def test_where_splits_of_own_arrays_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    level = lay(tmp_path, "both/train.npy", "both/test.npy", "one/train.npy", "alone.npy", "empty")
    assert [level(f"npy:{tmp_path / 'both'}", split) for split in ("train", "test")] == [14, 13]
    assert (level(f"npy:{tmp_path / 'one'}", "train"), level(f"npy:{tmp_path / 'alone.npy'}", "test")) == (13, 9)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "both")
    assert (level("npy:~/alone.npy", "test"), level("npy:test.npy", "test"), level("npy:../one", "train")) == (9, 13, 13)
    for path, split, whole in (
        (tmp_path / "one", "test", tmp_path / "one"),
        (tmp_path / "empty", "test", tmp_path / "empty"),
        (tmp_path / "alone.npy", "train", tmp_path),
    ):
        with pytest.raises(DataError) as caught:
            open_dataset(f"npy:{path}", split)
        where = f"{whole / 'train.npy'} and {whole / 'test.npy'}"
        assert str(caught.value) == f"data set 'npy:{path}' has no {split} split; lay the data out as {where}"


def test_where_splits_of_own_folders_lie(tmp_path: Path) -> None:
    lay(tmp_path, "half/train", "whole/a", "whole/b")
    for folder, split in ((tmp_path / "half", "test"), (tmp_path / "whole", "train")):
        with pytest.raises(DataError) as caught:
            open_dataset(f"folder:{folder}", split)
        assert str(caught.value) == f"data set 'folder:{folder}' has no {split} split; lay the data out as {folder / 'train'} and {folder / 'test'}"
    with pytest.raises(DataError, match="whole has no images"):
        open_dataset(f"folder:{tmp_path / 'whole'}", "test")
    with pytest.raises(DataError) as caught:
        open_dataset(f"folder:{tmp_path / 'none'}", "test")
    assert str(caught.value) == f"data set 'folder:{tmp_path / 'none'}': {tmp_path / 'none'} does not exist; give the path of your data after the colon"
    with pytest.raises(DataError, match=r"^unknown split 'validation'; data sets have 'train' and 'test'$"):
        open_dataset(f"folder:{tmp_path / 'whole'}", "validation")
    with pytest.raises(DataError) as caught:
        open_dataset("beside:x", "test")
    assert str(caught.value) == "data set 'beside:x' is beside a suite's file and is opened by its suite alone; name its folder instead, as npy:PATH"


def test_own_files_that_changed_are_read_anew_and_others_once(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    for number in range(2):
        image.new("L", (4, 4), number).save(tmp_path / f"{number}.bmp")
    name = f"folder:{tmp_path}"
    first = open_dataset(name, "test")
    assert open_dataset(name, "test") is first
    image.new("L", (4, 4), 200).save(tmp_path / "1.bmp")  # of the same size
    os.utime(tmp_path / "1.bmp", ns=(5, 5))
    assert open_dataset(name, "test").load([1]).max() == pytest.approx(200 / 255)
    assert first.domain == "image"


def test_names_without_manifests_and_priors_that_are_known() -> None:
    generated = "generated:gaussian-d2-0"
    names = ["noises:fsdd", "fsdd", generated, "esc10", "folder:/x", "npy:/x", "beside:x", "digits"]
    assert [manifest_of(name) for name in names] == ["fsdd", "fsdd", "", "esc10", "", "", "", "digits"]
    assert manifests_of(names) == ["digits", "esc10", "fsdd"]
    assert manifests_of([generated]) == []
    assert [has_analytic_prior(name) for name in names] == [name == generated for name in names]
    assert [analytic_prior(name) is None for name in names] == [name != generated for name in names]
    for ask in (has_analytic_prior, analytic_prior):
        with pytest.raises(DataError, match=r"^unknown generated data set 'generated:x'; choose from "):
            ask("generated:x")


# --- mixtures -----------------------------------------------------------------------------------------------------------------------


def toy(n: int, shape: tuple[int, ...] = (1, 2, 3), name: str = "toy") -> ArraySignals:
    return ArraySignals(name, "train", "image", torch.arange(n)[:, None, None, None].expand(n, *shape).to(torch.uint8), torch.zeros(n))


def pairs(*rows: tuple[int, ...]) -> PairList:
    return PairList(torch.tensor(rows), "ab")


@pytest.mark.parametrize(
    ("sets", "rows", "told"),
    [
        ((toy(3),), ((0, 1),), "the pair list has 2 sources per mixture, the task 1"),
        ((toy(3), toy(3, (1, 3, 2))), ((0, 1),), "sources of one mixture must share a shape, got (1, 2, 3), (1, 3, 2)"),
        ((toy(3), toy(1200, name="many")), ((2, 1199), (0, 1200)), "the pair list asks for signal 1200 of many train, which holds 1,200"),
        ((toy(3), toy(1200)), ((3, 0),), "the pair list asks for signal 3 of toy train, which holds 3"),
    ],
)
def test_what_is_said_of_lists_that_do_not_fit(sets: tuple[ArraySignals, ...], rows: tuple[tuple[int, ...], ...], told: str) -> None:
    with pytest.raises(SuiteError) as caught:
        MixtureSet(sets, pairs(*rows), "sum")
    assert str(caught.value) == told


def test_padding_is_of_the_last_two_sides_and_no_ids_give_no_mixtures() -> None:
    mixed = MixtureSet([toy(3), toy(3)], pairs((0, 1), (2, 2)), "sum", Transform(pad=2))
    assert mixed.source_shape == (1, 6, 7)
    assert Transform().shape([3]) == (3,)
    assert mixed.sources([]).shape == (0, 2, 1, 6, 7)
    assert mixed.mixtures([1, 0]).values[:, 0, 2:-2, 2:-2].mul(255).round().mean((1, 2)).tolist() == [4.0, 1.0]
    assert mixed.content(torch.tensor([0, 1])).hex() == mixed.digest()
    assert mixed.content(torch.tensor([1, 0])).hex() != mixed.digest()
    for wrong in ([2], [-1], [[0]]):
        with pytest.raises(ValueError, match=r"^example ids must be one row of numbers in \[0, 2\)$"):
            mixed.sources(wrong)
