"""Fixtures of the suite tests: tasks whose data are here, and a third party's suite (``suite_toys``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from suite_toys import NumberedSignals, Opener, ToyFolder

from sepbench.errors import DataError
from sepbench.protocols import SignalSet
from sepbench.suites.model import Task


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")


@cache  # thousands of files are looked at whenever a data set of recordings is opened
def _missing(opener: Opener, dataset: str, split: str) -> str:
    """Why a split cannot be opened, empty if it can."""
    try:
        opener(dataset, split)
    except DataError as error:
        return str(error)
    return ""


@pytest.fixture
def with_data() -> Callable[[Task], Task]:
    """A task, or a skip where its data are not on this machine."""

    def check(task: Task) -> Task:
        for dataset in {source.dataset for source in task.data.slots}:
            if missing := _missing(task.data.opener, dataset, task.data.test_split):
                pytest.skip(f"needs data: {missing}")
        return task

    return check


@pytest.fixture
def opener() -> Opener:
    """A data set ``toy`` of ten classes in random order: 60 training and 40 test signals of shape (1, 2, 2)."""
    generator = np.random.default_rng(3)
    splits = {split: torch.from_numpy(generator.permutation(np.arange(n) % 10)) for split, n in (("train", 60), ("test", 40))}

    def open_toy(name: str, split: str) -> SignalSet:
        if name != "toy":
            raise DataError(f"no data set {name}")
        return NumberedSignals(name, split, splits[split], (1, 2, 2))  # type: ignore[return-value]

    return open_toy


@pytest.fixture
def toy(tmp_path: Path, opener: Opener) -> ToyFolder:
    folder = ToyFolder(tmp_path, opener)
    folder.freeze()
    return folder
