"""Pair lists: the file format, the builders' laws, and every committed list rebuilt byte for byte."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbench.data.datasets import open_dataset
from sepbench.data.lists.builders import Draws, apart, cover_second, distinct, equal_rms_gains, halves, independent, rows_with
from sepbench.data.lists.pairs import list_sha256, pairs_csv, read_pairs
from sepbench.data.lists.recipes import RECIPES
from sepbench.data.readers.fsdd import take_of
from sepbench.data.signals import ArraySignals
from sepbench.data.synthesis.noises import KINDS, takes_of_numbers
from sepbench.errors import DataError, SuiteError
from sepbench.protocols import SignalSet
from sepbench.resources import resource_root

FOLDER = resource_root("data_manifests") / "pairs"


def signals(dataset: str, split: str) -> SignalSet:
    try:
        return open_dataset(dataset, split)
    except DataError as error:
        pytest.skip(f"needs {dataset} {split}: {error}")


def labels(dataset: str, split: str) -> np.ndarray:
    return signals(dataset, split).labels.numpy()


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")


# --- the file format ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(data=st.data(), k=st.integers(1, 5), m=st.integers(1, 20), with_gains=st.booleans())
def test_a_written_list_reads_back_exactly(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, k: int, m: int, with_gains: bool) -> None:
    path = tmp_path_factory.mktemp("pairs") / "list.csv"
    indices = np.array(data.draw(st.lists(st.lists(st.integers(0, 2**40), min_size=k, max_size=k), min_size=m, max_size=m)))
    number = st.floats(-1e6, 1e6, width=32)
    gains = np.array(data.draw(st.lists(st.lists(number, min_size=k, max_size=k), min_size=m, max_size=m)), dtype=np.float32) if with_gains else None
    path.write_bytes(pairs_csv(indices, gains))
    read = read_pairs(path)
    assert (read.indices.numpy() == indices).all()
    assert (read.n_sources, len(read)) == (k, m)
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == list_sha256(path)
    assert (read.gains is None) if gains is None else (read.gains.numpy() == gains).all()


def test_the_file_is_what_it_says_on_the_tin() -> None:
    assert pairs_csv(np.array([[3, 1], [4, 1]])) == b"example,source_0,source_1\n0,3,1\n1,4,1\n"
    assert pairs_csv(np.array([[3]]), np.array([[0.5]])) == b"example,source_0,gain_0\n0,3,0.5\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must start with"),
        ("example,source_0\n", "has no examples"),
        ("example,source_1\n0,1\n", "must start with"),
        ("source_0,source_1\n0,1\n", "must start with"),
        ("example,source_0,gain_0,gain_1\n0,1,1,1\n", "must start with"),
        ("example,source_0\n0,1.5\n", "1.5"),
        ("example,source_0\n0,\n", "could not convert"),
        ("example,source_0\n0,1\n2,1\n", "line 3"),
        ("example,source_0\n0,1\n1,-1\n", "line 3"),
        ("example,source_0,source_1\n0,1,2\n1,1,-1\n", "line 3: examples must be numbered 0, 1, 2, ... and sources from 0 on"),
        ("example,source_0,source_1\n1,1,2\n", "line 2: examples must be numbered 0, 1, 2, ... and sources from 0 on"),
        ("example,source_0,source_1\n0,1\n", "list.csv"),
        ("example,source_0,gain_0\n0,1,inf\n", "not finite"),
    ],
)
def test_a_malformed_list_is_one_clear_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(SuiteError, match=says) as caught:
        read_pairs(path)
    assert "list.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_list_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"nowhere\.csv"):
        read_pairs(tmp_path / "nowhere.csv")


# --- the builders' laws ------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(bound=st.integers(1, 2**32 - 1), name=st.text(max_size=5))
def test_integers_follow_the_published_rule_in_exact_arithmetic(bound: int, name: str) -> None:
    draws = Draws(name)
    examples = np.array([0, 1, 77])
    words = draws.noise.words(torch.from_numpy(examples), step=3, source=2, count=16).tolist()
    expected = [next(w * bound >> 32 for w in row if (w * bound) % 2**32 >= 2**32 % bound) for row in words]
    assert draws.integers(bound, examples, slot=2, attempt=3).tolist() == expected


def test_integers_are_uniform() -> None:
    counts = np.bincount(Draws("uniform").integers(7, np.arange(70_000), slot=0), minlength=7)
    chi2 = ((counts - 10_000) ** 2 / 10_000).sum()
    assert chi2 < 22.5  # 6 degrees of freedom: exceeded with probability 0.001, and the draw is fixed


def test_the_random_stream_has_not_changed() -> None:
    assert Draws("golden").integers(10_000, np.arange(6), slot=0).tolist() == [9088, 7119, 9991, 285, 3587, 2275]
    assert Draws("golden").permutation(8, slot=0).tolist() == [3, 5, 4, 6, 1, 0, 7, 2]


@settings(deadline=None)
@given(n=st.integers(1, 300), slot=st.integers(0, 5))
def test_a_permutation_permutes(n: int, slot: int) -> None:
    assert sorted(Draws("p").permutation(n, slot)) == list(range(n))


@pytest.mark.parametrize("bound", [0, 2**32])
def test_integers_refuse_a_bound_they_cannot_serve(bound: int) -> None:
    with pytest.raises(ValueError, match="bound"):
        Draws("x").integers(bound, np.arange(2), slot=0)


@settings(deadline=None)
@given(k=st.integers(2, 4), size=st.integers(4, 9), count=st.integers(1, 50))
def test_distinct_mixes_no_signal_with_itself(k: int, size: int, count: int) -> None:
    pool = np.arange(100, 100 + size)
    rows = distinct(Draws("d"), pool, k, count)
    assert rows.shape == (count, k)
    assert np.isin(rows, pool).all()
    assert all(len(set(row)) == k for row in rows.tolist())


def test_distinct_draws_every_ordered_pair_equally_often() -> None:
    rows = distinct(Draws("pairs"), np.arange(4), 2, 24_000)
    counts = np.bincount(rows[:, 0] * 4 + rows[:, 1], minlength=16).reshape(4, 4)
    assert (np.diag(counts) == 0).all()
    off = counts[~np.eye(4, dtype=bool)]
    assert ((off - 2000) ** 2 / 2000).sum() < 31.3  # 11 degrees of freedom, 0.001


def test_distinct_refuses_a_pool_that_is_too_small() -> None:
    with pytest.raises(ValueError, match="pool"):
        distinct(Draws("d"), np.arange(2), 3, 1)


@settings(deadline=None)
@given(n_keys=st.integers(2, 5), size=st.integers(5, 12), count=st.integers(1, 50))
def test_distinct_keys_never_meet(n_keys: int, size: int, count: int) -> None:
    keys = np.arange(size) % n_keys
    rows = distinct(Draws("k"), np.arange(size) + 7, 2, count, keys=keys) - 7
    assert (keys[rows[:, 0]] != keys[rows[:, 1]]).all()
    with pytest.raises(ValueError, match="pool"):
        distinct(Draws("k"), np.arange(size), n_keys + 1, count, keys=keys)


@settings(deadline=None)
@given(n_keys=st.integers(2, 5), size=st.integers(5, 12), count=st.integers(1, 50))
def test_apart_gives_no_example_the_key_it_refuses(n_keys: int, size: int, count: int) -> None:
    keys, refused = np.arange(size) % n_keys, np.arange(count) % (n_keys + 1)
    rows = apart(Draws("a"), np.arange(size) + 7, keys, refused, slot=0) - 7
    assert np.isin(rows, np.arange(size)).all()
    assert (keys[rows] != refused).all()


def test_apart_draws_the_rest_equally_often() -> None:
    rows = apart(Draws("even"), np.arange(8), np.arange(8) // 2, np.zeros(24_000, dtype=np.int64), slot=0)
    counts = np.bincount(rows, minlength=8)
    assert (counts[:2] == 0).all()
    assert ((counts[2:] - 4000) ** 2 / 4000).sum() < 20.5  # 5 degrees of freedom, 0.001
    with pytest.raises(ValueError, match="refuses"):
        apart(Draws("even"), np.arange(4), np.zeros(4, dtype=np.int64), np.zeros(1, dtype=np.int64), slot=0)


def test_gains_bring_every_source_to_the_level_of_the_first() -> None:
    rng = np.random.Generator(np.random.Philox(11))
    levels = np.array([2000, 150, 9000, 31])
    pcm = torch.from_numpy((rng.normal(0, 1, (4, 1, 500)).clip(-3, 3) * levels[:, None, None]).astype(np.int16))
    source = ArraySignals("toy", "test", "audio", pcm, torch.zeros(4, dtype=torch.int64))
    indices = np.array([[0, 1], [2, 3], [3, 2], [1, 1]])
    gains = equal_rms_gains([source, source], indices)
    rms = pcm.double().square().mean((1, 2)).sqrt().numpy()
    assert (gains[:, 0] == 1.0).all()
    assert gains[3, 1] == 1.0
    np.testing.assert_allclose(gains[:, 1] * rms[indices[:, 1]], rms[indices[:, 0]], rtol=5e-6)
    assert all(len(str(gain).lstrip("0.").replace(".", "")) <= 7 for gain in gains[:, 1])


def test_a_longer_list_starts_like_the_shorter_one() -> None:
    pools = (np.arange(50), np.arange(50, 90))
    assert (independent(Draws("i"), pools, 100)[:40] == independent(Draws("i"), pools, 40)).all()


def test_cover_second_uses_each_image_before_any_comes_again() -> None:
    rows = cover_second(Draws("c"), np.arange(3), np.arange(10, 20), 25)
    assert sorted(rows[:10, 1]) == sorted(rows[10:20, 1]) == list(range(10, 20))
    assert np.isin(rows[:, 0], np.arange(3)).all()


def test_halves_part_the_pool() -> None:
    first, second = halves("h", np.arange(7))
    assert (len(first), len(second)) == (3, 4)
    assert sorted([*first, *second]) == list(range(7))


def test_rows_with_keeps_to_its_window() -> None:
    assert rows_with(np.array([1, 2, 1, 3, 1]), (1, 3), start=1, stop=4).tolist() == [2, 3]


# --- the committed lists -----------------------------------------------------------------------------------------------------------


def test_every_list_has_its_builder_and_every_builder_its_list() -> None:
    assert {path.stem for path in FOLDER.glob("*.csv")} == set(RECIPES)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * name.startswith("drums-bass-synth")) for name in sorted(RECIPES)])
def test_the_builder_reproduces_the_committed_list(name: str) -> None:
    assert RECIPES[name].csv(labels, signals) == (FOLDER / f"{name}.csv").read_bytes()


@pytest.mark.parametrize("name", sorted(name for name, recipe in RECIPES.items() if not recipe.needs))
def test_a_list_without_needs_reads_no_labels(name: str) -> None:
    def refuse(dataset: str, split: str) -> np.ndarray:
        raise AssertionError(f"{name} asked for the labels of {dataset} {split}")

    RECIPES[name].build(refuse)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mnist-pairs.class-split", (6000, 2)),
        ("mnist-pairs.class-agnostic", (6000, 2)),
        ("mnist-pairs.class-split-val", (500, 2)),
        ("mnist-nes.x-0-4", (5000, 2)),
        ("mnist-nes.x-5-9.train-mixtures", (12_000, 2)),
        ("mnist-nes.x-5-9.train-observed", (12_000, 1)),
        ("mnist-lass.permuted", (10_000, 2)),
        ("mnist-quads.quads", (1000, 4)),
        ("cifar10-pairs.class-split", (25_000, 2)),
        ("cifar10-color.colorization", (50_000, 1)),
        ("cifar10-mini-pairs.class-split", (1000, 2)),
        ("cifar10-mini-color.colorization", (1017, 1)),
        ("bags-shoes-mini.all", (200, 2)),
        ("digits-pairs.class-agnostic", (1000, 2)),
        ("fsdd-pairs.class-split", (500, 2)),
        ("fsdd-pairs.class-split.train-observed", (600, 1)),
        ("fsdd-pairs.class-agnostic", (500, 2)),
        ("fsdd-noise.babble", (125, 2)),
        ("fsdd-noise.white.train-mixtures", (600, 2)),
    ],
)
def test_the_lists_have_the_papers_sizes(name: str, shape: tuple[int, int]) -> None:
    assert tuple(read_pairs(FOLDER / f"{name}.csv").indices.shape) == shape


@pytest.mark.parametrize("suite", ["mnist-pairs", "cifar10-pairs", "cifar10-mini-pairs", "digits-pairs"])
def test_agnostic_lists_repeat_images_but_mix_none_with_itself(suite: str) -> None:
    rows = read_pairs(FOLDER / f"{suite}.class-agnostic.csv").indices.numpy()
    assert (rows[:, 0] != rows[:, 1]).all()
    assert len(np.unique(rows)) < rows.size


@pytest.mark.parametrize(
    "base",
    [
        "mnist-pairs.class-split",
        "mnist-nes.x-0-4",
        "mnist-nes.x-5-9",
        "cifar10-pairs.class-split",
        "cifar10-mini-pairs.class-split",
        "digits-pairs.class-split",
    ],
)
def test_observed_images_occur_in_no_training_mixture(base: str) -> None:
    observed = read_pairs(FOLDER / f"{base}.train-observed.csv").indices[:, 0].numpy()
    mixed = read_pairs(FOLDER / f"{base}.train-mixtures.csv").indices[:, 1].numpy()
    assert len(np.unique(observed)) == len(observed)
    assert not np.isin(observed, mixed).any()


def test_lass_list_is_a_permutation_without_a_fixed_point() -> None:
    rows = read_pairs(FOLDER / "mnist-lass.permuted.csv").indices.numpy()
    assert (rows[:, 0] == np.arange(10_000)).all()
    assert sorted(rows[:, 1]) == list(range(10_000))
    assert (rows[:, 0] != rows[:, 1]).all()


def test_nes_test_list_reuses_as_few_b_images_as_it_can() -> None:
    second = read_pairs(FOLDER / "mnist-nes.x-0-4.csv").indices[:, 1].numpy()
    assert len(np.unique(second)) == 4861  # flag 54: all images of 5-9
    assert len(np.unique(read_pairs(FOLDER / "mnist-nes.x-5-9.csv").indices[:, 1].numpy())) == 5000


# FSDD: rows of one take share recordings, so what must be disjoint is told by takes.


@pytest.mark.parametrize("name", ["class-split", "class-agnostic", "class-split-val", "class-agnostic-val"])
def test_two_speakers_are_never_one(name: str) -> None:
    speakers = read_pairs(FOLDER / f"fsdd-pairs.{name}.csv").indices.numpy() % 60 // 10
    assert (speakers[:, 0] != speakers[:, 1]).all()
    if "split" in name:
        assert (speakers[:, 0] < 3).all()
        assert (speakers[:, 1] >= 3).all()
    else:
        assert len(np.unique(speakers[:, 0] * 6 + speakers[:, 1])) == 30  # every ordered pair of speakers


def test_observed_speakers_are_never_heard_in_the_mixtures_with_the_same_recordings() -> None:
    observed = read_pairs(FOLDER / "fsdd-pairs.class-split.train-observed.csv").indices[:, 0].numpy()
    mixed = read_pairs(FOLDER / "fsdd-pairs.class-split.train-mixtures.csv").indices[:, 1].numpy()
    assert not set(take_of("train", observed)) & set(take_of("train", mixed))
    assert max(take_of("train", np.concatenate([observed, mixed]))) == 44


@pytest.mark.parametrize("kind", KINDS)
def test_noise_holds_no_recording_of_the_speech_it_is_mixed_with(kind: str) -> None:
    for name, split in (("", "test"), ("-val", "train"), (".train-mixtures", "train")):
        rows = read_pairs(FOLDER / f"fsdd-noise.{kind}{name}.csv").indices.numpy()
        assert (rows[:, 1] % 4 == KINDS.index(kind)).all()
        babbled = takes_of_numbers(split)[rows[:, 1] // 4]
        spoken = take_of(split, rows[:, 0])
        assert (spoken != babbled).all()
        if name == "":
            assert sorted(rows[:, 1] // 4) == list(range(125))
        elif name == "-val":
            assert min(*spoken, *babbled) == 45
        else:
            observed = read_pairs(FOLDER / f"fsdd-noise.{kind}.train-observed.csv").indices[:, 0].numpy()
            seen = set(takes_of_numbers("train")[observed // 4])
            assert not seen & (set(spoken) | set(babbled))
            assert max(*spoken, *babbled, *seen) == 44
