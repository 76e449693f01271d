"""From folders of one's own to a frozen suite: what lies in it, that it can be moved, that it is whole or absent."""

from __future__ import annotations

import csv
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from own_files import image_folder, sound_folder

from sepbench.data.lists.pairs import read_pairs
from sepbench.errors import DataError, SepbenchError, SuiteError
from sepbench.suites.loader import load_suite
from sepbench.suites.own import MadeSuite, OwnSuite, make_suite
from sepbench.suites.verify import verify_suite

pytest.importorskip("PIL.Image", reason="pillow is not installed")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("sources")
    return image_folder(root / "Discs & Rings", 12), image_folder(root / "bars", 10, key=500)


@pytest.fixture(scope="module")
def images(sources: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> MadeSuite:
    return make_suite(OwnSuite("shapes", sources, size=8), tmp_path_factory.mktemp("made") / "suites")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> MadeSuite:
    pytest.importorskip("soundfile", reason="soundfile is not installed")
    root = tmp_path_factory.mktemp("sounds")
    folders = sound_folder(root / "hum", 10), sound_folder(root / "hiss", 10, key=5)
    return make_suite(OwnSuite("noisy", folders, seconds=1.0, snr_db=6.0, mixtures=7), root / "suites")


def rows(made: MadeSuite) -> list[dict[str, str]]:
    with (made.path / "files.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_suite_of_images_is_whole(images: MadeSuite) -> None:
    suite = load_suite(str(images.path / "suite.toml"))
    assert list(suite.tasks) == ["class-split", "class-split-val"]
    task = suite.tasks["class-split"]
    assert (task.spec.source_classes, task.spec.operator, task.spec.source_shape) == (("discs-rings", "bars"), "sum", (3, 8, 8))
    assert images.classes["discs-rings"] == {"train": (9, 9), "validation": (1, 1), "test": (2, 2)}
    assert images.classes["bars"] == {"train": (7, 7), "validation": (1, 1), "test": (2, 2)}
    assert images.tasks == {"class-split": 4, "class-split-val": 1}  # as many as there are
    assert task.n_examples == len(task.mixture_set()) == 4
    assert not [check.problem for check in verify_suite(str(images.path) + "/") if check.problem]
    sources = task.mixture_set().sources([0])
    assert torch.equal(task.mixture_set().mixtures([0]).values, sources.sum(1))


def test_every_supervision_level_has_its_data(images: MadeSuite) -> None:
    task = load_suite(str(images.path / "suite.toml")).tasks["class-split"]
    sources = task.view("sources")
    assert [len(sources.sources(slot)) for slot in (0, 1)] == [9, 7]
    assert len(task.view("prior").clean()) == 16
    some = task.view("mixtures+one")
    assert len(some.observed()) + len(some.mixtures()) == 7  # the two halves of the training bars


def test_files_are_in_one_split_and_clusters_follow_files(sounds: MadeSuite) -> None:
    places, groups, of_row = defaultdict(set), defaultdict(set), {}
    for row in rows(sounds):
        places[row["class"], row["file"]].add(row["split"])
        groups[row["class"], row["group"]].add(row["split"])
        of_row[row["class"], row["split"], int(row["row"])] = (row["class"], row["file"])
    assert len(places) == 20
    assert all(len(found) == 1 for found in (*places.values(), *groups.values()))
    suite = load_suite(str(sounds.path / "suite.toml"))
    for name, split in (("class-split", "test"), ("class-split-val", "validation")):
        task = suite.tasks[name]
        clusters, pairs = task.clusters(), read_pairs(sounds.path / "pairs" / f"{name}.csv")
        assert clusters.unit == "recording"
        key_of = {}
        for keys, row in zip(clusters.keys.tolist(), pairs.indices.tolist(), strict=True):
            for slot, cls in enumerate(("hum", "hiss")):
                file = of_row[cls, split, row[slot]]
                assert key_of.setdefault(file, keys[slot]) == keys[slot]
        assert len(set(key_of.values())) == len(key_of)


def test_sounds_are_mixed_at_the_level_asked_for(sounds: MadeSuite) -> None:
    task = load_suite(str(sounds.path / "suite.toml")).tasks["class-split"]
    assert (task.spec.operator, task.spec.sample_rate, task.spec.source_shape, task.n_examples) == ("gain", 1000, (1, 1000), 7)
    mixtures = task.mixture_set()
    operator = mixtures.operator_for(range(7))
    scaled = mixtures.sources(range(7)).double() * operator.matrix().reshape(7, 2, 1, 1)
    level = scaled.square().mean((2, 3))
    assert torch.allclose(10 * torch.log10(level[:, 0] / level[:, 1]), torch.full((7,), 6.0, dtype=torch.float64), atol=1e-3)


def test_a_moved_suite_has_the_same_mixtures_and_another_working_folder_does_not_matter(
    images: MadeSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = shutil.copytree(images.path, tmp_path / "elsewhere" / "shapes")
    shutil.move(moved, tmp_path / "shapes")
    monkeypatch.chdir("/")
    before, after = (load_suite(str(path)) for path in (images.path / "suite.toml", tmp_path / "shapes" / "suite.toml"))
    assert [task.digest for task in after.tasks.values()] == [task.digest for task in before.tasks.values()]
    assert all(task.verify() == task.mixtures_sha256 for task in after.tasks.values())
    assert after.tasks["class-split"].view("sources").digest == before.tasks["class-split"].view("sources").digest  # fits in the cache stay good


def test_changed_data_are_found(images: MadeSuite, tmp_path: Path) -> None:
    moved = shutil.copytree(images.path, tmp_path / "shapes")
    for split in ("train", "test"):
        path = moved / "data" / "bars" / f"{split}.npy"
        values = np.load(path)
        values[0] ^= 1
        np.save(path, values)
    problems = {check.what: check.problem for check in verify_suite(f"{moved}/") if check.problem}
    assert set(problems) == {"data/bars/train.npy", "data/bars/test.npy", "class-split"}
    assert "frozen is" in problems["data/bars/train.npy"]
    assert "the mixtures of shapes/class-split have digest" in problems["class-split"]
    (moved / "data" / "bars" / "train.npy").unlink()
    assert "cannot be read: No such file" in {check.what: check.problem for check in verify_suite(f"{moved}/")}["data/bars/train.npy"]


@settings(deadline=None, max_examples=6)
@given(count=st.integers(1, 12))
def test_more_mixtures_begin_with_the_same_ones(sources: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory, count: int) -> None:
    asked = OwnSuite("grown", sources, size=8, test=0.4, mixtures=count)
    few, many = (make_suite(replace(asked, mixtures=n), tmp_path_factory.mktemp("grown")) for n in (count, 13))
    for task, n in (("class-split", count), ("class-split-val", max(1, count // 5))):
        a, b = (read_pairs(made.path / "pairs" / f"{task}.csv").indices for made in (few, many))
        assert torch.equal(a, b[: len(a)])
        assert len(a) == min(n, len(b))


def test_one_folder_and_several_sources(sources: tuple[Path, Path], tmp_path: Path) -> None:
    made = make_suite(OwnSuite("any", sources[:1], agnostic=True, n_sources=3, size=8, operator="mean", test=0.4), tmp_path)
    task = load_suite(str(made.path / "suite.toml")).tasks["class-agnostic"]
    assert (task.spec.n_sources, task.spec.operator, task.n_examples) == (3, "mean", 10)  # 3 of 5 files
    assert all(len(set(row)) == 3 for row in task.data.pair_list().indices.tolist())
    assert made.classes["discs-rings"]["validation"] == (3, 3)  # as many as one mixture takes
    three = make_suite(OwnSuite("three", (*sources, image_folder(tmp_path / "third", 5, key=900)), size=8), tmp_path)
    assert load_suite(str(three.path / "suite.toml")).tasks["class-split"].spec.n_sources == 3


def test_files_that_share_a_piece_stay_together(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    folder = sound_folder(tmp_path / "hum", 12, seconds=2.0)
    for number in range(4):  # the second seconds of four files become one
        values, rate = soundfile.read(folder / f"s{number}.wav", dtype="int16")
        values[1000:2000] = soundfile.read(folder / "s0.wav", dtype="int16")[0][1000:2000]
        soundfile.write(folder / f"s{number}.wav", values, rate, subtype="PCM_16")
    made = make_suite(OwnSuite("joined", (folder,), agnostic=True, seconds=1.0, test=0.4), tmp_path)
    found = {(row["split"], row["group"]) for row in rows(made) if row["file"] in {f"s{number}.wav" for number in range(4)}}
    assert len(found) == 1
    assert "hum: left out, of the same content as another: s1.wav (as s0.wav), s2.wav (as s0.wav), s3.wav (as s0.wav)" in made.notes


def test_all_files_may_be_for_test(sources: tuple[Path, Path], tmp_path: Path) -> None:
    made = make_suite(OwnSuite("all", sources, size=8, validation=0.0, test=1.0), tmp_path)
    suite = load_suite(str(made.path / "suite.toml"))
    assert made.tasks == {"class-split": 120}
    support = suite.tasks["class-split"].support("sources")
    assert (support.ok, support.note) == (False, "all files of this suite are for validation and test")


def test_copies_and_other_kinds_are_told(sources: tuple[Path, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(sources[0], tmp_path / "a")
    shutil.copy(folder / "im3.png", folder / "copy.png")
    (folder / "notes.txt").write_text("mine")
    made = make_suite(OwnSuite("copies", (folder, sources[1]), size=8), tmp_path)
    whole = {split: {image.tobytes() for image in np.load(made.path / "data" / "a" / f"{split}.npy")} for split in made.classes["a"]}
    assert sum(map(len, whole.values())) == len(set.union(*whole.values())) == 12
    assert "a: passed over, neither image nor sound: notes.txt" in made.notes
    assert "a: left out, of the same content as another: im3.png (as copy.png)" in made.notes
    assert sum(files for files, _ in made.classes["a"].values()) == 12


def _same_file_in_both(root: Path, first: Path, second: Path) -> OwnSuite:
    both = shutil.copytree(second, root / "both")
    shutil.copy(first / "im1.png", both / "zz.png")
    return OwnSuite("bad", (first, both), size=8)


def _one_file(root: Path, first: Path, second: Path) -> OwnSuite:
    return OwnSuite("bad", (first, image_folder(root / "one", 1, key=40)), size=8)


REFUSED = {
    "the same file in both folders": (
        _same_file_in_both,
        DataError,
        r"two classes have the same content: discs-rings/im1\.png and both/zz\.png\. What is compared is images",
    ),
    "one file": (_one_file, SuiteError, r"one: 1 different file cannot be split by --val 0\.1 --test 0\.2, .*; add files"),
    "twice": (lambda _, a, b: OwnSuite("bad", (a, a), size=8), DataError, "is given twice"),
    "too many mixtures": (
        lambda _, a, b: OwnSuite("bad", (a, b), size=8, mixtures=5),
        DataError,
        r"the test files \(2 of discs-rings and 2 of bars\) make 4 different mixtures, not 5; ask for at most 4",
    ),
    "no mixtures": (lambda _, a, b: OwnSuite("bad", (a, b), size=8, mixtures=0), DataError, "--mixtures must be at least 1, got 0"),
    "all for test": (lambda _, a, b: OwnSuite("bad", (a, b), size=8, test=1.0), DataError, "--val 0.1 and --test 1 are more than all files"),
    "one folder": (lambda _, a, b: OwnSuite("bad", (a,), size=8), SuiteError, "give a second folder after --sources, or --agnostic"),
    "two agnostic folders": (lambda _, a, b: OwnSuite("bad", (a, b), agnostic=True), SuiteError, "--agnostic mixes the files of one folder"),
    "sources without agnostic": (lambda _, a, b: OwnSuite("bad", (a, b), n_sources=3), SuiteError, "--n-sources goes with --agnostic"),
    "sound options": (lambda _, a, b: OwnSuite("bad", (a, b), rate=8000, seconds=1.0), SuiteError, "hold images; leave out --rate, --seconds"),
    "gains of images": (lambda _, a, b: OwnSuite("bad", (a, b), operator="gain"), SuiteError, "hold images; leave out --operator gain"),
    "a built-in name": (lambda _, a, b: OwnSuite("digits-pairs", (a, b)), SuiteError, "there is a suite 'digits-pairs' already"),
    "no name": (lambda _, a, b: OwnSuite("My Suite", (a, b)), SuiteError, "'My Suite' is no name for a suite"),
}


@pytest.mark.parametrize(("asked", "error", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_writes_nothing(sources: tuple[Path, Path], tmp_path: Path, asked, error: type[SepbenchError], says: str) -> None:
    with pytest.raises(error, match=says):
        make_suite(asked(tmp_path, *sources), tmp_path / "suites")
    assert not (tmp_path / "suites").exists()


def test_an_interrupted_suite_leaves_nothing(sources: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        assert [path.name[0] for path in (tmp_path / "suites").iterdir()] == ["."]  # nothing there that has the suite's name
        raise KeyboardInterrupt

    monkeypatch.setattr("sepbench.suites.own.write_digests", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_suite(OwnSuite("shapes", sources, size=8), tmp_path / "suites")
    assert list((tmp_path / "suites").iterdir()) == []


def test_an_existing_folder_is_never_written(sources: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shapes").mkdir()
    with pytest.raises(SuiteError, match="shapes exists; nothing was written"):
        make_suite(OwnSuite("shapes", sources, size=8), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SuiteError, match=r"file is a file; choose another folder with --out$"):
        make_suite(OwnSuite("shapes", sources, size=8), tmp_path / "file")
    with pytest.raises(SepbenchError, match=r"cannot write .*file/below/shapes: .*; choose another folder with --out"):
        make_suite(OwnSuite("shapes", sources, size=8), tmp_path / "file" / "below")
    assert list((tmp_path / "shapes").iterdir()) == []
