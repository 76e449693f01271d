"""A data set in somebody else's package: one entry point; and one line for whatever is wrong with it."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
import torch
from third_parties import install

from sepbench.data.datasets import dataset_names, manifest_of, open_dataset
from sepbench.errors import DataError, NameClaimedError
from sepbench.registry import DATASET_GROUP

CODE = """
import torch
from sepbench.data.signals import ArraySignals

class Ramps:
    manifest = ""
    splits = ("train", "validation", "test")

    def open(self, name, split, found):
        assert found is None
        start = self.splits.index(split)
        return ArraySignals(name, split, "vector", torch.arange(12, dtype=torch.float32).reshape(4, 3) + start, torch.zeros(4, dtype=torch.int64))

class Broken(Ramps):
    def open(self, name, split, found):
        raise KeyError("no\\nfile")

class Digits(Ramps):
    manifest = "digits"
    def open(self, name, split, found):
        return ArraySignals(name, split, "vector", torch.zeros(1, 1), torch.tensor([found is not None]).long())

RAMPS, BROKEN, DIGITS, NUMBER = Ramps(), Broken(), Digits(), 3
"""

_NUMBERS = count()


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def register(name: str, what: str) -> None:
        module = f"toy_data_{next(_NUMBERS)}"  # a module is imported once per process
        install(monkeypatch, tmp_path, module, {DATASET_GROUP: {name: f"{module}:{what}"}}, {module: CODE})

    return register


@pytest.mark.parametrize("name", ["ramps", "my-set/ramps", "noises:ramps"])
def test_it_is_found_by_name_and_opens_its_own_files(registered, name: str) -> None:
    registered(name, "RAMPS")
    assert name in dataset_names()
    assert manifest_of(name) == ""
    signals = open_dataset(name, "validation")
    assert (signals.name, signals.split, signals.shape, len(signals)) == (name, "validation", (3,), 4)
    assert signals.load([1]).tolist() == [[4.0, 5.0, 6.0]]
    with pytest.raises(DataError, match=f"unknown split 'dev'; data set '{name}' has train, validation, test"):
        open_dataset(name, "dev")


def test_it_may_read_the_files_of_a_manifest(registered) -> None:
    registered("my-digits", "DIGITS")
    assert manifest_of("my-digits") == "digits"
    assert torch.equal(open_dataset("my-digits", "test").labels, torch.tensor([1]))


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("NOTHING", "data set 'toy' (MODULE:NOTHING) cannot be loaded: AttributeError"),
        ("NUMBER", "data set 'toy' is of type int; its entry point must name an object with manifest, splits and open"),
        ("Ramps", "data set 'toy' is the class Ramps; its entry point must name an object"),
        ("BROKEN", "data set 'toy' cannot open its split test: KeyError: 'no\\nfile'"),
    ],
)
def test_what_is_no_data_set_is_one_line(registered, what: str, says: str) -> None:
    registered("toy", what)
    with pytest.raises(DataError) as caught:
        open_dataset("toy", "test")
    said = str(caught.value)
    assert said.startswith(says.partition("MODULE")[0])
    assert says.partition("MODULE")[2] in said
    assert "\n" not in said
    assert len(open_dataset("digits", "test")) == 797


def test_a_built_in_name_cannot_be_taken(registered) -> None:
    registered("bags-shoes-mini/bags", "RAMPS")
    with pytest.raises(NameClaimedError, match=r"data set 'bags-shoes-mini/bags' is claimed by toy_data_\d+ .* and sepbench .*array_sets:BAGS"):
        open_dataset("bags-shoes-mini/bags", "test")
    assert manifest_of("bags-shoes-mini/shoes") == "bags-shoes-mini"
