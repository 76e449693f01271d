"""Lists and signals that do not fit, in whole lines; classes and columns of lists."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from suite_toys import NumberedSignals, ToyFolder

from sepbench.data.lists.pairs import PairList, pairs_csv
from sepbench.data.lists.rules import PairRule
from sepbench.errors import SuiteError
from sepbench.suites import assembly
from sepbench.suites.assembly import DerivedList, FrozenList, SourceClass
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite

SIGNALS = NumberedSignals("toy", "test", torch.tensor([3, 5, 3, 7, 9]), (1, 2, 2))


@pytest.mark.parametrize(("labels", "rows"), [(None, [0, 1, 2, 3, 4]), ((3,), [0, 2]), ((9, 3), [0, 2, 4]), ((1,), []), ((), [])])
def test_rows_of_a_class(labels: tuple[int, ...] | None, rows: list[int]) -> None:
    found = SourceClass("c", "toy", labels)
    assert found.rows(SIGNALS).tolist() == rows  # type: ignore[arg-type]
    assert found.member(SIGNALS).tolist() == [row in rows for row in range(5)]  # type: ignore[arg-type]
    assert found.rows_per_cluster == 1


def test_a_list_that_is_not_the_frozen_one(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(pairs_csv(np.array([[0, 1], [2, 3]])))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert FrozenList(path, found).read().indices.tolist() == [[0, 1], [2, 3]]
    assert str(FrozenList(path, found)) == str(path)
    for read in (FrozenList(path, "0" * 64).read, FrozenList(path, "0" * 64).numbers):
        with pytest.raises(SuiteError) as caught:
            read()
        assert str(caught.value) == f"pair list {path} has sha256 {found}, frozen is {'0' * 64}; restore the file (reinstall sepbench)"


def test_a_list_that_a_rule_makes_is_held_against_its_digest_and_cut_to_its_column() -> None:
    pairs, rule = PairList(torch.tensor([[0, 1], [2, 3]]), "a" * 64), PairRule("one-of-each", "s.test", 2)
    assert DerivedList(rule, "").checked(pairs) is pairs
    assert DerivedList(rule, "a" * 64).checked(pairs) is pairs
    for column, numbers in ((0, [[0], [2]]), (1, [[1], [3]])):
        some = DerivedList(rule, "a" * 64, column).checked(pairs)
        assert (some.indices.tolist(), some.sha256) == (numbers, "a" * 64)
    with pytest.raises(SuiteError) as caught:
        DerivedList(rule, "b" * 64).checked(pairs)
    told = f"the list made by the rule (one-of-each, order s.test, 2 after 0, 0 dB) has sha256 {'a' * 64}, frozen is {'b' * 64}"
    assert str(caught.value) == f"{told}; the data are not those of this suite version"
    assert str(DerivedList(rule, "")) == "of rule one-of-each, order s.test"


@pytest.fixture
def suite(toy: ToyFolder) -> Suite:
    return load_suite(str(toy.toml), toy.opener)


def test_whole_lines_about_signals_and_lists_that_do_not_fit(suite: Suite, toy: ToyFolder) -> None:
    data = suite.tasks["split"].data
    with pytest.raises(SuiteError) as caught:
        replace(data, shape=(1, 3, 3)).mixture_set()
    assert str(caught.value) == "data set toy test has signals of shape (1, 2, 2), the suite expects (1, 3, 3)"
    with pytest.raises(SuiteError) as caught:
        replace(data, slots=data.slots[:1]).mixture_set()
    assert str(caught.value) == f"pair list {data.pairs} has 2 sources per mixture, the task has 1"

    def few(name: str, split: str) -> NumberedSignals:
        found = toy.opener(name, split)
        return NumberedSignals(name, split, found.labels[:8], found.shape)  # type: ignore[arg-type]

    assert isinstance(data.pairs, FrozenList)
    most = int(data.pairs.read().indices[:, 0].max())
    with pytest.raises(SuiteError) as caught:
        replace(data, opener=few).mixture_set()  # type: ignore[arg-type]
    assert str(caught.value) == f"pair list {data.pairs} asks for number {most} of the 'low' signals of toy test, but there are only 8"


def test_what_may_be_trained_on_is_kept_apart_for_other_training_lists(suite: Suite) -> None:
    """Tasks that name their only training signals do not share what they may train on."""
    data = suite.tasks["split"].data
    assert isinstance(data.train_mixtures, FrozenList)
    named = replace(data, train_sources=data.train_mixtures, train_mixtures=None, train_observed=None, usable={})
    alone = named.training()
    assert len(alone.clean) == len(set(data.train_mixtures.read().indices.flatten().tolist()))
    both = replace(named, train_observed=data.train_observed).training()
    assert len(both.clean) > len(alone.clean)
    assert len(replace(named, train_sources=None).training().clean) == 40


def test_a_list_is_made_once_for_each_rule_part_and_range_of_rows(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of one suite share what is made; whatever decides the pools tells them apart."""
    made: list[list[int]] = []

    def derive(rule: PairRule, material: list[tuple[NumberedSignals, torch.Tensor]]) -> PairList:
        made.append([len(pool) for _, pool in material])
        return PairList(torch.tensor([[len(made), 0]]), str(len(made)) * 64)

    monkeypatch.setattr(assembly, "derive", derive)
    data = suite.tasks["split"].data
    rule, longer = DerivedList(PairRule("one-of-each", "s.test", 2), ""), DerivedList(PairRule("one-of-each", "s.test", 3), "")
    ways = [
        (data, rule, "test"),
        (data, longer, "test"),
        (data, rule, "validation"),
        (replace(data, test_rows=(0, 7)), rule, "test"),
        (replace(data, train_rows=(0, 5)), rule, "train"),
        (replace(data, train_rows=(0, 3)), rule, "train"),
        (replace(data, slots=data.slots[::-1]), rule, "test"),
    ]
    found = [one.derived_sha256(listing, role)[0] for one, listing, role in ways for _ in range(2)]
    assert found == [str(number) for number in range(1, 8) for _ in range(2)]
    assert len(made) == 7
    assert data.whole_list(replace(rule, column=1), "test").indices.tolist() == [[1, 0]]
    assert data.derived is ways[3][0].derived


def test_training_signals_of_two_data_sets_are_of_the_classes_that_come_from_each(suite: Suite) -> None:
    """Also where one data set has signals of the other's class, and where it is used by two slots."""
    labels = torch.arange(60) % 10

    def opener(name: str, split: str) -> NumberedSignals:
        return NumberedSignals(name, split, labels, (1, 2, 2))

    slots = (SourceClass("low", "first", (0, 1)), SourceClass("high", "second", (8, 9)), SourceClass("one", "first", (1, 2)))
    lists = {"train_mixtures": None, "train_observed": None, "train_sources": None, "test_split": "test"}
    data = replace(suite.tasks["split"].data, slots=slots, opener=opener, **lists)  # type: ignore[arg-type]

    def classes(of: list[int]) -> dict[str, list[int]]:
        return {signals.name: sorted(labels[rows].unique().tolist()) for signals, rows, _ in data.reference(of)}

    assert classes([0, 1, 2]) == {"first": [0, 1, 2], "second": [8, 9]}
    assert classes([1, 0]) == {"second": [8, 9], "first": [0, 1]}
    assert classes([2]) == {"first": [1, 2]}
    assert [len(rows) for _, rows, _ in data.reference([0, 1, 2])] == [18, 12]
    assert [len(rows) for _, rows, _ in replace(data, train_rows=(0, 20)).reference([0, 1, 2])] == [6, 4]
    material = data.training()
    assert [(part[0].name, sorted(labels[part[1]].unique().tolist())) for part in material.clean.parts] == [("first", [0, 1, 2]), ("second", [8, 9])]
    of_slots = [(pool.parts[0][0].name, sorted(labels[pool.parts[0][1]].unique().tolist())) for pool in material.sources]
    assert of_slots == [("first", [0, 1]), ("second", [8, 9]), ("first", [1, 2])]


@pytest.mark.parametrize("slots", [1, 2])
def test_signals_that_know_their_recording_share_it_as_a_cluster_in_one_slot_too(suite: Suite, monkeypatch: pytest.MonkeyPatch, slots: int) -> None:
    data = suite.tasks["split"].data
    made = replace(data, pairs=DerivedList(PairRule("one-of-each", "s.test", 2), ""), slots=data.slots[:slots], cluster="speaker")
    monkeypatch.setattr(assembly.TaskData, "_groups", lambda self: (("b", "a", "b"), ("b", "c", "c"))[:slots])
    monkeypatch.setattr(assembly.TaskData, "pair_list", lambda self: PairList(torch.tensor([[0, 1], [1, 0], [2, 2]])[:, :slots], "x"))
    found = made.clusters()
    assert (found.unit, found.keys.tolist()) == ("speaker", [[[1], [0], [1]], [[1, 2], [0, 1], [1, 2]]][slots - 1])
