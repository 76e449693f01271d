"""A third party's suite folder with made-up data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from sepbench.data.lists.pairs import pairs_csv
from sepbench.protocols import SignalSet
from sepbench.suites.freeze import write_digests

Opener = Callable[[str, str], SignalSet]


class NumberedSignals:
    """Signals whose every value tells their row: ``offset + row / 2**17``. Takes no memory however many there are."""

    domain = "image"

    def __init__(self, name: str, split: str, labels: torch.Tensor, shape: tuple[int, ...]) -> None:
        self.name, self.split, self.labels, self.shape = name, split, labels, shape
        self.offset = 0.5 if split == "test" else 0.0

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        return (self.offset + rows.float() / 2**17).reshape(-1, *[1] * len(self.shape)).expand(-1, *self.shape).contiguous()

    def rows(self, values: torch.Tensor) -> torch.Tensor:
        """The rows that loaded values came from."""
        return ((values.flatten(1)[:, 0] - self.offset) * 2**17).round().long()


TOY = """\
format = 1
name = "toy-suite"
version = 3
title = "Toy"
description = "Made up"
domain = "image"
metrics = ["psnr", "ssim"]
ranking_metric = "psnr"
methods = ["average"]

[data]
shape = [1, 2, 2]
pad = 1
held_out = 20

[classes]
low = { dataset = "toy", labels = [0, 1, 2, 3, 4] }
high = { dataset = "toy", labels = [5, 6, 7, 8, 9] }

[tasks.split]
pairs = "split.csv"
sources = ["low", "high"]
operator = "sum"
assignment = "ordered"
scored_sources = [0]
observed_source = 1
train_mixtures = "train-mixtures.csv"
train_observed = "train-observed.csv"

[tasks.split-val]
validates = "split"
pairs = "split-val.csv"

[[published]]
task = "split"
method = "average"
metric = "psnr"
find = { source = "P", table = "Table 1", method = "Mean" }
notes = "ours"
"""

PUBLISHED = """\
source,table,suite,dataset,split,direction,method,metric,value,std,n,notes
P,Table 1,s,Toy,test,,Mean,psnr_db,12.5,0.25,40,theirs
P,Table 1,s,Toy,test,,Other,psnr_db,13,,,
P,Table 1,s,Toy,test,,Other,ssim,0.5,,,
P,Table 1,s,Toy,test,,Odd,psnr_db,about 3,,,
"""


class ToyFolder:
    """A third party's suite: TOML, lists, published numbers and digests in one folder."""

    def __init__(self, folder: Path, opener: Opener) -> None:
        self.folder, self.opener = folder, opener
        self.toml = folder / "toy-suite.toml"
        self.toml.write_text(TOY)
        (folder / "published.csv").write_text(PUBLISHED)
        test, train = opener("toy", "test").labels.numpy(), opener("toy", "train").labels.numpy()
        rows = {
            "split": (self.pick(test, 0, 40, low=True), self.pick(test, 0, 40, low=False)),
            "split-val": (self.pick(train, 40, 60, low=True), self.pick(train, 40, 60, low=False)),
            "train-mixtures": (self.pick(train, 0, 40, low=True)[:8], self.pick(train, 0, 40, low=False)[:8]),
            "train-observed": (self.pick(train, 0, 40, low=False)[8:],),
        }
        for name, columns in rows.items():
            shortest = min(map(len, columns))
            self.write(name, np.stack([column[:shortest] for column in columns], axis=1))

    @staticmethod
    def pick(labels: np.ndarray, start: int, stop: int, low: bool) -> np.ndarray:
        return start + np.flatnonzero((labels[start:stop] < 5) == low)

    def write(self, name: str, rows: np.ndarray) -> None:
        (self.folder / f"{name}.csv").write_bytes(pairs_csv(rows))

    def edit(self, old: str, new: str) -> None:
        text = self.toml.read_text()
        assert old in text
        self.toml.write_text(text.replace(old, new, 1))

    def freeze(self) -> None:
        write_digests([self.toml], self.folder / "tasks.toml", self.opener)
