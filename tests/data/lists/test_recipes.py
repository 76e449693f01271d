"""Recipes without any data: made-up labels, so that every list is held on a machine that lacks the data set; what each reads; gains by hand."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from sepbench.data.lists.builders import Draws, apart, distinct, equal_rms_gains, independent
from sepbench.data.lists.pairs import list_sha256, pairs_csv, read_pairs
from sepbench.data.lists.recipe import Recipe
from sepbench.data.lists.recipes import RECIPES
from sepbench.data.readers.music_stems import SONGS
from sepbench.data.signals import ArraySignals
from sepbench.errors import SuiteError
from sepbench.protocols import SignalSet
from sepbench.resources import resource_root

FOLDER = resource_root("data_manifests") / "pairs"
SIZES = {"mnist": (60_000, 10_000), "cifar10-mini": (5_085, 1_017), "fsdd": (2_700, 300), "esc10": (160, 160), "music-stems": (0, 120)}
SIZES |= {"drums-bass-synth": (680, 520), "digits": (1_000, 797)}


def labels(dataset: str, split: str) -> np.ndarray:
    """Of FSDD the true ones, which follow from its layout; of the others made-up ones, every data set and split by a pattern of its own."""
    rows = np.arange(SIZES[dataset.partition("/")[0]][split == "test"])
    if dataset == "fsdd":
        return rows % 60 // 10
    key = int.from_bytes(hashlib.sha256(f"{dataset} {split}".encode()).digest()[:4], "big")
    modulus = 1024 if "/" in dataset else 11 if dataset == "esc10" else 10
    return (rows * 2_654_435_761 + key) % 2**32 // 65_537 % modulus


GOLDEN: dict[str, str] = {
    "mnist-pairs.class-split": "ba29dd44f81aaa1a",
    "mnist-pairs.class-split-val": "da4dac3b412627d9",
    "mnist-pairs.class-split.train-observed": "9fdeea180105fc0e",
    "mnist-pairs.class-split.train-mixtures": "c23bad195bf4663d",
    "mnist-nes.x-0-4": "4517c93dffce8c87",
    "mnist-nes.x-0-4-val": "66190f876f0f4769",
    "mnist-nes.x-0-4.train-observed": "4da7edb5b109918b",
    "mnist-nes.x-0-4.train-mixtures": "7e737b73b53faec1",
    "mnist-nes.x-5-9": "67b2676367113598",
    "mnist-nes.x-5-9-val": "c63dd266d65d3a8e",
    "mnist-nes.x-5-9.train-observed": "aa8f6a538f90e309",
    "mnist-nes.x-5-9.train-mixtures": "068e01da1b5e04de",
    "cifar10-mini-pairs.class-split": "f413774d58d97264",
    "cifar10-mini-pairs.class-split-val": "95c6f2672e8da959",
    "cifar10-mini-pairs.class-split.train-observed": "df7dd4cb0026c7f8",
    "cifar10-mini-pairs.class-split.train-mixtures": "f0b3a40e4048ce1b",
    "drums-bass-synth.chunks": "b45d293ff97c4360",
    "drums-bass-synth.chunks-val": "83665978c568aa45",
    "drums-bass-synth.chunks.train-observed": "488cc9841c2ee740",
    "drums-bass-synth.chunks.train-mixtures": "7ffaac62fc2f09ea",
    "stems-drums-bass.chunks": "1adf6ecab64c936f",
    "stems-drums-bass.chunks-half": "fa12685af70a1448",
    "stems-drums-bass.chunks-half.train-mixtures": "88763efa7211ade2",
    "stems-drums-bass.chunks-half.train-observed": "5e981d437a266af5",
    "stems-vocals.chunks": "8eaeb4300c1f5108",
    "stems-vocals.chunks-half": "bbbc74dcd4a39145",
    "stems-vocals.chunks-half.train-mixtures": "38be2fb4deba2f78",
    "stems-vocals.chunks-half.train-observed": "5e981d437a266af5",
    "stems-drums.chunks": "8eff1593ddde813a",
    "stems-drums.chunks-half": "759e26e2bc1ad4a1",
    "stems-drums.chunks-half.train-mixtures": "b1b4330108a551fb",
    "stems-drums.chunks-half.train-observed": "5e981d437a266af5",
    "fsdd-esc10.speech": "53975689f4df5577",
    "fsdd-esc10.speech-val": "1de5e7457c7a1818",
    "fsdd-esc10.speech.train-observed": "c53d256ad4565307",
    "fsdd-esc10.speech.train-mixtures": "f12e466d2af211be",
}
"""Digests of the lists that the made-up labels give."""


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_a_list_follows_from_labels_alone(name: str) -> None:
    assert hashlib.sha256(pairs_csv(RECIPES[name].build(labels))).hexdigest()[:16] == GOLDEN[name]


KNOWN = [name for name in RECIPES if name.startswith(("fsdd-pairs", "fsdd-noise")) or (name.startswith(("mnist", "cifar10-mini")) and "agnostic" in name)]


@pytest.mark.parametrize("name", KNOWN)
def test_lists_whose_labels_are_known_or_do_not_count_are_the_committed_ones(name: str) -> None:
    assert np.array_equal(RECIPES[name].build(labels), read_pairs(FOLDER / f"{name}.csv").indices.numpy())


def test_every_list_that_needs_data_is_held_without_them() -> None:
    assert {name for name, recipe in RECIPES.items() if recipe.needs or recipe.levels} <= {*GOLDEN, *KNOWN, *filter(re.compile("digits").match, RECIPES)}


SOURCES = {
    "mnist-pairs": ["mnist"],
    "mnist-nes": ["mnist"],
    "cifar10-mini-pairs": ["cifar10-mini"],
    "digits-pairs": ["digits"],
    "fsdd-pairs": ["fsdd"],
    "drums-bass-synth": ["drums-bass-synth/drums", "drums-bass-synth/bass"],
    "stems-drums-bass": ["music-stems/drums", "music-stems/bass"],
    "stems-vocals": ["music-stems/vocals", "music-stems/accompaniment"],
    "stems-drums": ["music-stems/drums", "music-stems/no-drums"],
    "fsdd-esc10": ["esc10"],
}
"""Data sets whose labels the lists of a suite need; suites that are not here need none."""
LEVELS = {"fsdd-pairs": ["fsdd", "fsdd"], "fsdd-noise": ["fsdd", "noises:fsdd"], "fsdd-esc10": ["fsdd", "esc10"]}
"""Data sets of the slots of suites whose sources are brought to one level."""


@pytest.mark.parametrize("name", RECIPES)
def test_a_list_says_which_labels_and_levels_it_reads(name: str) -> None:
    suite, recipe = name.partition(".")[0], RECIPES[name]
    trained = name.endswith(("-val", ".train-observed", ".train-mixtures"))
    split = "train" if trained and not suite.startswith("stems") else "test"
    needs = SOURCES.get(suite, [])
    observed = name.endswith(".train-observed")
    assert recipe.needs == tuple((dataset, split) for dataset in (needs[-1:] if observed else needs))
    assert recipe.levels == (() if observed else tuple((dataset, split) for dataset in LEVELS.get(suite, [])))
    assert recipe.name == name


# --- stems: a row counts where both sources have a sounding second in common ----------------------------------------------------------


def test_stems_are_mixed_where_one_second_sounds_in_both() -> None:
    """Of four rows the first shares the first second, the second shares none, the third the second one, the last is silent in one source."""
    bits = {"music-stems/vocals": [1, 2, 3, 3], "music-stems/accompaniment": [3, 1, 2, 0]}

    def of(dataset: str, split: str) -> np.ndarray:
        assert split == "test"
        return np.resize(bits[dataset], 120)

    def rows(kind: str) -> list[list[int]]:
        return RECIPES[f"stems-vocals.chunks{kind}"].build(of).tolist()

    of_song = {song: range(30 * number, 30 * number + 30) for number, song in enumerate(SONGS)}
    wanted = {song: [[row, row] for row in of_song[song] if row % 4 in (0, 2)] for song in SONGS}
    assert rows("") == [pair for song in SONGS for pair in wanted[song]]
    assert rows("-half") == wanted["lithium"] + wanted["potassium"]
    assert rows("-half.train-mixtures") == wanted["rubidium"]
    assert rows("-half.train-observed") == [[row] for row in of_song["sodium"] if row % 4 != 3]


# --- gains --------------------------------------------------------------------------------------------------------------------------


def toy(levels: list[int]) -> ArraySignals:
    pcm = torch.tensor(levels, dtype=torch.int16)[:, None, None].expand(-1, 1, 4).contiguous()
    return ArraySignals("toy", "test", "audio", pcm, torch.zeros(len(levels), dtype=torch.int64))


def test_a_list_with_levels_has_gains_of_its_slots_in_order() -> None:
    sets = {("a", "train"): toy([100, 300]), ("b", "test"): toy([400, 7])}

    def signals(dataset: str, split: str) -> SignalSet:
        return sets[dataset, split]

    def build(of: object) -> np.ndarray:
        assert of is labels
        return np.array([[0, 0], [1, 1], [0, 1]])

    leveled = Recipe("x", (), build, (("a", "train"), ("b", "test")))
    wanted = "example,source_0,source_1,gain_0,gain_1\n0,0,0,1.0,0.25\n1,1,1,1.0,42.8571\n2,0,1,1.0,14.2857\n"
    assert leveled.csv(labels, signals).decode() == wanted
    assert Recipe("x", (), build).csv(labels, signals).decode() == "example,source_0,source_1\n0,0,0\n1,1,1\n2,0,1\n"


def test_the_first_source_is_louder_by_the_decibels_asked_for_and_long_lists_keep_their_order() -> None:
    first, second = toy([1000] * 300), toy(list(range(1, 301)))
    rows = np.stack([np.arange(300), np.arange(300)[::-1]], axis=1)
    gains = equal_rms_gains([first, second, second], np.column_stack([rows, rows[:, 0]]), snr_db=20.0)
    assert gains[:, 0].tolist() == [1.0] * 300
    assert gains[:, 1].tolist() == [float(f"{100 / level:.6g}") for level in range(300, 0, -1)]
    assert gains[:, 2].tolist() == [float(f"{100 / level:.6g}") for level in range(1, 301)]
    assert gains[2, 2] == 33.3333  # six digits


# --- edges of the builders ------------------------------------------------------------------------------------------------------------


def test_pools_that_are_just_large_enough() -> None:
    assert sorted(distinct(Draws("d"), np.array([7, 9]), 2, 1)[0].tolist()) == [7, 9]
    with pytest.raises(ValueError, match="a pool of 2 cannot fill 3 slots without repetition"):
        distinct(Draws("d"), np.arange(3), 3, 1, keys=np.array([1, 1, 2]))
    assert apart(Draws("a"), np.array([5, 6]), np.array([0, 1]), np.array([0, 1, 0]), slot=0).tolist() == [6, 5, 6]


def test_slots_and_attempts_have_numbers_of_their_own() -> None:
    pool, keys = np.arange(100), np.zeros(100, dtype=np.int64)
    keys[50:] = 1
    first, second = (apart(Draws("a"), pool, keys, np.full(40, 1), slot=slot) for slot in (0, 1))
    assert (first != second).any()
    drawn = Draws("a").integers(100, np.arange(40), slot=0)
    assert (first[drawn < 50] == drawn[drawn < 50]).all()  # what is allowed at once is the first draw
    two = independent(Draws("i"), (pool, pool), 40)
    assert (two[:, 0] != two[:, 1]).any()
    assert two[:, 1].tolist() == Draws("i").integers(100, np.arange(40), slot=1).tolist()


def test_a_header_that_is_too_long_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("x" * 100 + "\n0\n")
    with pytest.raises(SuiteError) as caught:
        read_pairs(path)
    told = "must start with example,source_0,..,source_K-1[,gain_0,..,gain_K-1], found "
    assert str(caught.value) == f"pair list {path} {told}{'x' * 80!r}"


def test_what_is_said_of_lists(tmp_path: Path) -> None:
    path, head = tmp_path / "list.csv", "example,source_0,source_1"
    cases = {
        f"{head}\n": f"the pair list {path} has no examples",
        f"{head}\n0,1,2\n1,3,4\n3,5,6\n": f"pair list {path}, line 4: examples must be numbered 0, 1, 2, ... and sources from 0 on",
        f"{head}\n0,1,2\n1,3,-4\n5,5,6\n": f"pair list {path}, line 3: examples must be numbered 0, 1, 2, ... and sources from 0 on",
        f"{head},gain_0,gain_1\n0,1,2,1,nan\n": f"pair list {path} holds a gain that is not finite",
        "example,source_0,gain_0,gain_1\n0,1,1,1\n": "",
        "example,gain_0\n0,1\n": "",
        "example\n0\n": "",
    }
    for text, told in cases.items():
        path.write_text(text)
        with pytest.raises(SuiteError) as caught:
            read_pairs(path)
        start = f"pair list {path} must start with example,source_0,..,source_K-1[,gain_0,..,gain_K-1], found {text.partition(chr(10))[0]!r}"
        assert str(caught.value) == (told or start)
    path.unlink()
    for read in (read_pairs, list_sha256):
        with pytest.raises(SuiteError) as caught:
            read(path)
        assert str(caught.value) == f"pair list {path} cannot be read: No such file or directory"


def test_words_that_are_refused_sixteen_times_in_a_row() -> None:
    """Of this bound every second word is refused, and all sixteen of one example in 65,536."""
    with pytest.raises(ValueError, match="sixteen words in a row were refused"):
        Draws("refused").integers(2**31 + 1, np.arange(21347, 21352), slot=0)
    assert len(Draws("refused").integers(2**31 + 1, np.arange(1000), slot=0)) == 1000
