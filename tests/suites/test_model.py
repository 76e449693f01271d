"""What a task hands out: numbers of examples, its digest, its mixtures and sources, and what it says of training data."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from suite_toys import ToyFolder

from sepbench.errors import ArgumentError, SuiteError, SupervisionError, UnknownNameError, UnsupportedTaskError
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite, Task, example_numbers

WRONG = "ids must be a row of whole numbers from 0 to 4 (task 't' has 5 mixtures), got "


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        (None, [0, 1, 2, 3, 4]),
        (range(1, 5, 2), [1, 3]),
        ([4, 0, 4], [4, 0, 4]),
        ((2,), [2]),
        ([], []),
        (np.array([3, 1], dtype=np.uint8), [3, 1]),
        (np.array([], dtype=np.float64), []),  # what an empty selection is like
        (torch.tensor([0, 4], dtype=torch.int32), [0, 4]),
    ],
)
def test_numbers_of_examples(ids: Any, wanted: list[int]) -> None:
    found = example_numbers(ids, 5, "task 't'")
    assert (found.tolist(), found.dtype, found.device.type, found.ndim) == (wanted, torch.int64, "cpu", 1)


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ([5], "5"),
        ([-1], "-1"),
        ([0, 7, -3], "7"),
        (range(3, 7), "5"),
        (3, "3; write a single one as [3]"),
        ([[0, 1], [2, 3]], "shape (2, 2)"),
        ([0.5], "float32 values"),
        (np.array([1.0]), "float64 values"),
        ([True, False], "bool values"),
        (torch.tensor([1j]), "complex64 values"),
        ("12", "str"),
        ({"a": 1}, "dict"),
        ([[0], [1, 2]], "list"),
    ],
)
def test_what_are_no_numbers_of_examples(ids: Any, told: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        example_numbers(ids, 5, "task 't'")
    assert str(caught.value) == WRONG + told


def test_where_the_number_of_mixtures_is_not_known_or_has_thousands_it_is_told_so() -> None:
    assert example_numbers([10**12], 1 << 62, "that").tolist() == [10**12]
    with pytest.raises(ArgumentError, match=r"^ids must be a row of whole numbers from 0, got -1$"):
        example_numbers([-1], 1 << 62, "that")
    with pytest.raises(ArgumentError, match=r"from 0 to 24999 \(task 'x' has 25,000 mixtures\), got 25000$"):
        example_numbers([25_000], 25_000, "task 'x'")


@pytest.fixture
def suite(toy: ToyFolder) -> Suite:
    return load_suite(str(toy.toml), toy.opener)


def test_mixtures_and_references_are_those_of_the_numbers(suite: Suite) -> None:
    task = suite.tasks["split"]
    whole = task.mixture_set()
    assert torch.equal(task.mixtures(), whole.mixtures(range(len(whole))).values)
    assert torch.equal(task.references(), whole.sources(range(len(whole))))
    assert torch.equal(task.mixtures([3, 1]), whole.mixtures([3, 1]).values)
    assert torch.equal(task.references([3, 1]), whole.sources([3, 1]))
    assert task.example_ids([2]).tolist() == [2]
    for ask in (task.mixtures, task.references, task.example_ids):
        with pytest.raises(ArgumentError, match=rf"from 0 to {task.n_examples - 1} \(task 'split' has {task.n_examples} mixtures\), got {task.n_examples}$"):
            ask([task.n_examples])


def test_digests_of_a_task(suite: Suite) -> None:
    task = suite.tasks["split"]
    both = task.pairs_sha256 + task.mixtures_sha256
    assert task.digest == hashlib.sha256(both.encode()).hexdigest()
    assert replace(task, mixtures_sha256="").digest == ""
    assert replace(task, mixtures_sha256="").verify() == task.mixtures_sha256
    with pytest.raises(SuiteError) as caught:
        replace(task, mixtures_sha256="0" * 64).verify()
    told = f"the mixtures of toy-suite/split have digest {task.mixtures_sha256}, frozen is {'0' * 64}; the data are not those of this suite version"
    assert str(caught.value) == told


def test_what_a_task_supports(suite: Suite) -> None:
    task = suite.tasks["split"]
    barred = replace(task, data=replace(task.data, untrainable="no training part"))
    unobserved = replace(task, spec=replace(task.spec, observed_source=None))
    levels = ("blind", "bound", "mixtures+one", "sources", "prior")

    def notes(one: Task) -> list[tuple[bool, str]]:
        return [(found.ok, found.note) for found in map(one.support, levels)]  # type: ignore[arg-type]

    yes, none = (True, ""), "this task has no observed class"
    assert notes(task) == [yes] * 5
    assert notes(barred) == [yes, yes, *[(False, "no training part")] * 3]
    assert notes(unobserved) == [yes, yes, (False, none), yes, yes]
    assert barred.view("blind").supervision == "blind"
    with pytest.raises(UnsupportedTaskError, match=r"^toy-suite/split: no training part$"):
        barred.view("sources")
    with pytest.raises(SupervisionError):
        task.view("everything")  # type: ignore[arg-type]


def test_references_of_a_set_are_the_training_signals_of_the_scored_classes(suite: Suite, toy: ToyFolder) -> None:
    labels = toy.opener("toy", "train").labels
    task = suite.tasks["split"]
    ((signals, rows, transform),) = task.reference()
    assert (signals.name, signals.split, transform.shape((1, 2, 2))) == ("toy", "train", (1, 4, 4))
    assert rows.tolist() == (labels < 5).nonzero().flatten().tolist()  # source 0 alone is scored; the held-out part belongs to it
    ((_, both, _),) = task.data.reference((0, 1))
    assert both.tolist() == list(range(60))
    ((_, some, _),) = replace(task.data, train_rows=(7, 31)).reference((1,))
    assert some.tolist() == [row for row in range(7, 31) if labels[row] >= 5]
    barred = replace(task.data, untrainable="no training part")
    for use in (lambda: barred.reference((0,)), barred.training):
        with pytest.raises(UnsupportedTaskError, match=r"^no training part$"):
            use()


def test_a_task_of_another_name_offers_the_nearest(suite: Suite) -> None:
    assert suite.task("split-val") is suite.tasks["split-val"]
    with pytest.raises(UnknownNameError, match=r"^unknown task of suite toy-suite 'spilt'; did you mean split"):
        suite.task("spilt")
    with pytest.raises(UnknownNameError, match="unknown task of suite toy-suite '3'"):
        suite.task(3)  # type: ignore[arg-type]
