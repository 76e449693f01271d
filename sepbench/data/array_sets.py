"""The data sets that are read whole into memory: their files, and the reader of each. Every object here is named by an entry point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from sepbench.data.files.fetch import FoundData
from sepbench.data.files.manifests import load_manifest
from sepbench.data.readers import cifar10
from sepbench.data.readers.digits import read_digits
from sepbench.data.readers.esc10 import read_esc10
from sepbench.data.readers.fsdd import read_fsdd
from sepbench.data.readers.idx import read_mnist
from sepbench.data.readers.music_stems import read_music_stems
from sepbench.data.readers.npy import read_npy_images
from sepbench.data.signals import ArraySignals
from sepbench.data.synthesis.layout import Stem
from sepbench.data.synthesis.noises import make_noises
from sepbench.data.synthesis.store import read as read_synthesised
from sepbench.errors import DataError
from sepbench.protocols import Domain
from sepbench.torch_later import torch

_Arrays: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"
_CACHED_SPLITS = 8  # MNIST's training split takes 47 MB, CIFAR-10's 154 MB, FSDD's 88 MB


@dataclass(frozen=True, slots=True)
class ArraySet:
    """A data set whose splits fit in memory, of sepbench's own manifests.

    Attributes:
        manifest: whose files it reads; a manifest may hold several data sets.
        read: (files, split) -> signals ``(N, *shape)`` as ``ArraySignals`` takes them, and labels ``(N,)`` int64.
        domain: what the signals are.
    """

    manifest: str
    read: Callable[[FoundData, str], _Arrays]
    domain: Domain

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "test")

    def open(self, name: str, split: str, found: FoundData | None) -> ArraySignals:
        """One split; the last few are kept and shared between callers."""
        if found is None:
            raise ValueError(f"data set {name!r} is read from the files of {self.manifest!r}, and was handed none")
        return _read(self, name, split, found)


@lru_cache(maxsize=_CACHED_SPLITS)
def _read(opened: ArraySet, name: str, split: str, found: FoundData) -> ArraySignals:
    signals, labels = opened.read(found, split)
    return ArraySignals(name, split, opened.domain, signals, labels)


def _mnist(found: FoundData, split: str) -> _Arrays:
    return read_mnist(found.folder, split)


def _cifar10(found: FoundData, split: str) -> _Arrays:
    if found.form == "binary":
        return cifar10.read_binary_archive(found.folder / "cifar-10-binary.tar.gz", split)
    if found.form == "python":
        return cifar10.read_python_archive(found.folder / "cifar-10-python.tar.gz", split)
    if found.form == "binary-unpacked":
        return cifar10.read_binary_folder(found.folder / "cifar-10-batches-bin", split)
    return cifar10.read_python_folder(found.folder / "cifar-10-batches-py", split)


def _cifar10_mini(found: FoundData, split: str) -> _Arrays:
    if not found.form:  # files of its own
        return cifar10.read_binary_folder(found.folder, split, cifar10.MINI_RECORDS)
    images, labels = _cifar10(found, split)
    first = torch.arange(len(labels)) % cifar10.BATCH_RECORDS < cifar10.MINI_RECORDS
    return images[first], labels[first]


def _digits(found: FoundData, split: str) -> _Arrays:
    return read_digits(found.folder, split, load_manifest("digits").array_sha256)


def _nes(kind: str) -> Callable[[FoundData, str], _Arrays]:
    def read(found: FoundData, split: str) -> _Arrays:
        if split != "test":
            raise DataError(f"bags-shoes-mini has the test arrays of {kind} only, no {split} split; use split 'test'")
        # The authors' code works on 1 - v/255 (docs/protocols.md 1.4): the white background becomes 0.
        images = 255 - read_npy_images(found.folder / kind / "test.npy")
        return images, torch.zeros(len(images), dtype=torch.int64)

    return read


def _fsdd(found: FoundData, split: str) -> _Arrays:
    return read_fsdd(found.folder, split)


def _fsdd_noises(found: FoundData, split: str) -> _Arrays:
    return make_noises(FSDD.open("fsdd", split, found).signals, split)


def _esc10(found: FoundData, split: str) -> _Arrays:
    return read_esc10(found.folder, split)


def _music_stems(source: str) -> Callable[[FoundData, str], _Arrays]:
    def read(found: FoundData, split: str) -> _Arrays:
        if split != "test":
            raise DataError(f"music-stems has four songs in one split, no {split} split; use split 'test' and divide it by rows")
        return read_music_stems(found.folder, source)

    return read


def _synthesised(stem: Stem) -> Callable[[FoundData, str], _Arrays]:
    return lambda found, split: read_synthesised(found.folder, split, stem)


MNIST = ArraySet("mnist", _mnist, "image")
CIFAR10 = ArraySet("cifar10", _cifar10, "image")
CIFAR10_MINI = ArraySet("cifar10-mini", _cifar10_mini, "image")
DIGITS = ArraySet("digits", _digits, "image")
BAGS = ArraySet("bags-shoes-mini", _nes("bags"), "image")
SHOES = ArraySet("bags-shoes-mini", _nes("shoes"), "image")
FSDD = ArraySet("fsdd", _fsdd, "audio")
FSDD_NOISES = ArraySet("fsdd", _fsdd_noises, "audio")
SYNTH_DRUMS = ArraySet("drums-bass-synth", _synthesised("drums"), "audio")
SYNTH_BASS = ArraySet("drums-bass-synth", _synthesised("bass"), "audio")
ESC10 = ArraySet("esc10", _esc10, "audio")
STEMS_DRUMS = ArraySet("music-stems", _music_stems("drums"), "audio")
STEMS_BASS = ArraySet("music-stems", _music_stems("bass"), "audio")
STEMS_VOCALS = ArraySet("music-stems", _music_stems("vocals"), "audio")
STEMS_ACCOMPANIMENT = ArraySet("music-stems", _music_stems("accompaniment"), "audio")
STEMS_NO_DRUMS = ArraySet("music-stems", _music_stems("no-drums"), "audio")
