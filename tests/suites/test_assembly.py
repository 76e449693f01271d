"""From lists and data sets to signals: which split and which rows each part opens, what shares a cluster, what a suite's file may say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from suite_toys import NumberedSignals, Opener, ToyFolder

from sepbench.data.lists.pairs import pairs_csv
from sepbench.errors import SuiteError, UnsupportedTaskError
from sepbench.suites.freeze import write_digests
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite

SPLITS = {"learn": 40, "check": 20, "probe": 40}


@pytest.fixture
def opened() -> list[tuple[str, str]]:
    """What the suite of ``named`` opened."""
    return []


@pytest.fixture
def named(toy: ToyFolder, opened: list[tuple[str, str]]) -> Suite:
    """The toy suite on a data set with three splits of other names; even rows are low, odd ones high."""

    def opener(name: str, split: str) -> NumberedSignals:
        opened.append((name, split))
        labels = torch.arange(SPLITS[split]) % 2 * 5
        signals = NumberedSignals(name, split, labels, (1, 2, 2))
        signals.offset = {"learn": 0.0, "check": 0.25, "probe": 0.5}[split]
        return signals

    toy.edit("held_out = 20\n", 'test = "probe"\ntrain = "learn"\nvalidation = "check"\n')
    for name, rows in {"split": [[0, 1], [38, 39]], "split-val": [[18, 1], [0, 19]], "train-mixtures": [[0, 39]], "train-observed": [[1], [37]]}.items():
        toy.write(name, np.array(rows))
    toy.opener = opener  # type: ignore[assignment]
    toy.freeze()
    opened.clear()
    return load_suite(str(toy.toml), opener)  # type: ignore[arg-type]


def test_every_part_comes_from_its_split(named: Suite, opened: list[tuple[str, str]]) -> None:
    split, val = named.tasks["split"], named.tasks["split-val"]
    uses: dict[str, tuple[Callable[[], object], set[str]]] = {
        "test": (split.mixture_set, {"probe"}),
        "validation": (val.mixture_set, {"check"}),
        "reference": (split.reference, {"learn"}),
        "training": (split.data.training, {"learn", "probe", "check"}),
    }
    for what, (use, wanted) in uses.items():
        opened.clear()
        use()
        assert {one for _, one in opened} == wanted, what
    assert split.mixture_set().pairs.indices.tolist() == [[0, 1], [38, 39]]
    assert val.mixture_set().pairs.indices.tolist() == [[18, 1], [0, 19]]  # from its first row on
    assert len(split.view("prior").clean()) == 40  # nothing is held out of the training split


def test_protected_are_all_signals_of_test_and_validation(named: Suite) -> None:
    data = named.tasks["split"].data
    assert len(data.protected()) == 60
    assert len(replace(data, validation_split="").protected()) == 40
    assert len(replace(data, test_rows=(5, 12)).protected()) == 27
    assert len(replace(data, validation_split="", held_out=3).protected()) == 43


def test_rows_that_a_task_may_touch(named: Suite) -> None:
    task = named.tasks["split"]
    kept = replace(task, data=replace(task.data, test_rows=(0, 40), train_rows=(0, 40)))
    assert kept.mixture_set().pairs.indices.tolist() == [[0, 1], [38, 39]]
    assert len(kept.data.training().clean) == 40
    with pytest.raises(SuiteError) as caught:
        replace(task.data, test_rows=(0, 38)).mixture_set()
    assert str(caught.value) == f"pair list {task.data.pairs}, example 1: row 38 of toy probe is not a test signal of class 'low'"
    with pytest.raises(SuiteError, match=r"example 1: row 39 of toy probe is not a test signal of class 'high'$"):
        replace(task.data, test_rows=(0, 39)).mixture_set()
    with pytest.raises(SuiteError, match=r"example 0: row 0 of toy probe is not a test signal of class 'low'$"):
        replace(task.data, test_rows=(1, 40)).mixture_set()
    with pytest.raises(SuiteError, match=r"example 0: row 0 of toy probe is not a test signal of class 'low'$"):  # the first of two
        replace(task.data, test_rows=(1, 38)).mixture_set()
    with pytest.raises(SuiteError, match=r"example 0: row 39 of toy learn is not a training signal of class 'high'$"):
        replace(task.data, train_rows=(0, 39), usable={}).training()


def test_what_may_be_trained_on_is_kept_apart_for_other_rows(named: Suite) -> None:
    """Tasks of one suite share a cache: what decides the rows must be part of its key."""
    data = replace(named.tasks["split"].data, train_mixtures=None, train_observed=None)
    whole, half = data.training(), replace(data, train_rows=(0, 20)).training()
    assert [len(one.clean) for one in (whole, half, data.training())] == [40, 20, 40]
    assert [len(pool) for pool in half.sources] == [10, 10]
    assert replace(data, test_rows=(0, 20)).training().excluded == 0
    assert len(data.usable) == 3


# --- clusters -------------------------------------------------------------------------------------------------------------------------


def clustered(toy: ToyFolder, opener: Opener, first: str, second: str, cluster: str, rows: list[list[int]]) -> Suite:
    """Two slots of these data sets, whose labels are all 0."""

    def plain(name: str, split: str) -> NumberedSignals:
        return NumberedSignals(name, split, torch.zeros(60, dtype=torch.int64), (1, 2, 2))

    text = toy.toml.read_text()
    text = text.replace('{ dataset = "toy", labels = [0, 1, 2, 3, 4] }', first).replace('{ dataset = "toy", labels = [5, 6, 7, 8, 9] }', second)
    head, tail = text.split("[tasks.split]\n")
    task = '[tasks.split]\npairs = "split.csv"\nsources = ["low", "high"]\noperator = "sum"\nassignment = "ordered"\n'
    toy.toml.write_text(head.replace("held_out = 20\n", cluster) + task)
    assert tail
    toy.write("split", np.array(rows))
    write_digests([toy.toml], toy.folder / "tasks.toml", plain)  # type: ignore[arg-type]
    return load_suite(str(toy.toml), plain)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "second", "cluster", "unit", "keys"),
    [
        ('{ dataset = "a" }', '{ dataset = "a" }', "", "signal", [[0, 4], [1, 0], [4, 5]]),  # one data set: a signal is itself in every slot
        ('{ dataset = "a" }', '{ dataset = "b" }', 'cluster = "image"\n', "image", [[0, 5], [2, 1], [4, 6]]),
        (
            '{ dataset = "c/x", rows_per_cluster = 3 }',
            '{ dataset = "c/y", rows_per_cluster = 3 }',
            *('cluster = "song"\n', "song", [[0, 1], [0, 0], [1, 2]]),  # stems of one corpus: a song is the same in every slot
        ),
        ('{ dataset = "c/x", rows_per_cluster = 3 }', '{ dataset = "d/y", rows_per_cluster = 3 }', 'cluster = "song"\n', "song", [[0, 3], [0, 1], [2, 4]]),
        ('{ dataset = "c/x", rows_per_cluster = 3 }', '{ dataset = "c/y", rows_per_cluster = 2 }', "", "signal", [[0, 4], [0, 1], [2, 5]]),
        ('{ dataset = "c/x", rows_per_cluster = 3 }', '{ dataset = "c/y" }', 'cluster = "song"\n', "song", [[0, 4], [0, 1], [2, 5]]),
        ('{ dataset = "c/x" }', '{ dataset = "c/y" }', "", "signal", [[0, 5], [2, 1], [4, 6]]),  # parts of one corpus that are not aligned
        ('{ dataset = "a" }', '{ dataset = "a" }', 'cluster = "mixture"\n', "mixture", [[0], [1], [2]]),
    ],
)
def test_what_shares_a_cluster(toy: ToyFolder, opener: Opener, first: str, second: str, cluster: str, unit: str, keys: list[list[int]]) -> None:
    found = clustered(toy, opener, first, second, cluster, [[0, 4], [2, 0], [4, 7]]).tasks["split"].clusters()

    def renumbered(rows: list[list[int]]) -> list[list[int]]:
        order = {key: number for number, key in enumerate(dict.fromkeys(key for row in rows for key in row))}
        return [[order[key] for key in row] for row in rows]

    assert found.unit == unit
    assert renumbered(found.keys.tolist()) == renumbered(keys)


def test_a_file_of_keys_must_fit_its_list(toy: ToyFolder, opener: Opener) -> None:
    clustered(toy, opener, '{ dataset = "a" }', '{ dataset = "a" }', "", [[0, 4], [2, 0]])
    toy.edit('pairs = "split.csv"', 'pairs = "split.csv"\nclusters = "keys.csv"')
    keys = toy.folder / "keys.csv"
    keys.write_text("example,speaker_0,speaker_1\n0,b,a\n1,a,b\n")
    task = load_suite(str(toy.toml), opener).tasks["split"]
    assert (task.clusters().unit, task.clusters().keys.tolist()) == ("speaker", [[1, 0], [0, 1]])
    for content, shape in (("example,speaker_0,speaker_1\n0,b,a\n", (1, 2)), ("example,speaker_0\n0,b\n1,a\n", (2, 1))):
        keys.write_text(content)
        with pytest.raises(SuiteError) as caught:
            task.clusters()
        assert str(caught.value) == f"clusters {keys} have {shape} mixtures and sources, but the list {toy.folder / 'split.csv'} has (2, 2)"


# --- posteriors in closed form --------------------------------------------------------------------------------------------------------

EXACT = """\
format = 1
name = "exact"
version = 1
title = "t"
description = "d"
domain = "vector"
metrics = ["energy_distance"]
ranking_metric = "energy_distance"
methods = ["exact-posterior"]

[data]
shape = [2]

[classes]
first = { dataset = "generated:gaussian-d2-0" }
second = { dataset = "generated:gaussian-d2-1" }

[tasks.two]
pairs = "two.csv"
sources = ["first", "second"]
operator = "mean"
assignment = "ordered"
"""


def exact(folder: Path, operator: str, gains: list[list[float]] | None = None) -> Suite:
    path = folder / "exact.toml"
    path.write_text(EXACT.replace('"mean"', f'"{operator}"'))
    (folder / "two.csv").write_bytes(pairs_csv(np.array([[0, 1], [2, 3]]), None if gains is None else np.array(gains)))
    write_digests([path], folder / "tasks.toml")
    return load_suite(str(path))


def test_a_posterior_needs_known_sources_and_one_weighted_sum(tmp_path: Path) -> None:
    task = exact(tmp_path, "sum").tasks["two"]
    assert (task.spec.analytic_prior, task.data.knows_priors, task.exact_posterior().operator_weights.tolist()) == (True, True, [1.0, 1.0])
    assert task.spec.posterior_draws == 0
    told = r"^exact/two has no posterior in closed form: it needs generated sources and one weighted sum for all mixtures$"
    mixed = exact(tmp_path, "gain", [[1.0, 2.0], [1.0, 3.0]]).tasks["two"]
    assert mixed.spec.analytic_prior
    with pytest.raises(UnsupportedTaskError, match=told):
        mixed.exact_posterior()
    padded = replace(task, data=replace(task.data, transform=replace(task.data.transform, pad=1)))
    assert not padded.data.knows_priors
    assert padded.data.priors() == ()
