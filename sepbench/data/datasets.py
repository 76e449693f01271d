"""Data sets by name: ``open_dataset("mnist", "test")``."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch

from sepbench.data.chunked_sets import CHUNKED_SETS, open_chunked
from sepbench.data.files.fetch import Found, obtain
from sepbench.data.files.manifests import load_manifest
from sepbench.data.readers import cifar10
from sepbench.data.readers.fsdd import read_fsdd
from sepbench.data.readers.idx import read_mnist
from sepbench.data.readers.image_folder import list_images, read_image_folder
from sepbench.data.readers.npy import read_npy_images
from sepbench.data.signals import ArraySignals
from sepbench.data.synthesis.generated import PREFIX as GENERATED_PREFIX
from sepbench.data.synthesis.generated import generated_prior, open_generated
from sepbench.data.synthesis.layout import Stem
from sepbench.data.synthesis.noises import make_noises
from sepbench.data.synthesis.store import read as read_synthesised
from sepbench.errors import DataError
from sepbench.gmm import GaussianMixture
from sepbench.protocols import Domain, SignalSet
from sepbench.registry import nearest

SPLITS = ("train", "test")
FOLDER_PREFIX, NPY_PREFIX = "folder:", "npy:"

_Arrays = tuple[torch.Tensor, torch.Tensor]
_CACHED_SPLITS = 8  # MNIST's training split takes 47 MB, CIFAR-10's 154 MB, FSDD's 88 MB


def _mnist(found: Found, split: str) -> _Arrays:
    return read_mnist(found.folder, split)


def _cifar10(found: Found, split: str) -> _Arrays:
    if found.form == "binary":
        return cifar10.read_binary_archive(found.folder / "cifar-10-binary.tar.gz", split)
    if found.form == "python":
        return cifar10.read_python_archive(found.folder / "cifar-10-python.tar.gz", split)
    if found.form == "binary-unpacked":
        return cifar10.read_binary_folder(found.folder / "cifar-10-batches-bin", split)
    return cifar10.read_python_folder(found.folder / "cifar-10-batches-py", split)


def _cifar10_mini(found: Found, split: str) -> _Arrays:
    return cifar10.read_binary_folder(found.folder, split, cifar10.MINI_RECORDS)


def _digits(found: Found, split: str) -> _Arrays:
    from sepbench.data.readers.digits import read_digits  # scikit-learn takes a second to import

    return read_digits(split, load_manifest("digits").array_sha256)


def _nes(kind: str) -> Callable[[Found, str], _Arrays]:
    def read(found: Found, split: str) -> _Arrays:
        if split != "test":
            raise DataError(f"bags-shoes-mini has the test arrays of {kind} only, no {split} split; use split 'test'")
        # The authors' code works on 1 - v/255 (protocols.md 1.4): the white background becomes 0.
        images = 255 - read_npy_images(found.folder / kind / "test.npy")
        return images, torch.zeros(len(images), dtype=torch.int64)

    return read


def _fsdd(found: Found, split: str) -> _Arrays:
    return read_fsdd(found.folder, split)


def _fsdd_noises(found: Found, split: str) -> _Arrays:
    return make_noises(_read("fsdd", split, found).signals, split)


def _synthesised(stem: Stem) -> Callable[[Found, str], _Arrays]:
    return lambda found, split: read_synthesised(found.folder, split, stem)


# Name of the data set -> (its manifest, its reader, its domain). A manifest may hold several data sets.
_DATASETS: dict[str, tuple[str, Callable[[Found, str], _Arrays], Domain]] = {
    "mnist": ("mnist", _mnist, "image"),
    "cifar10": ("cifar10", _cifar10, "image"),
    "cifar10-mini": ("cifar10-mini", _cifar10_mini, "image"),
    "digits": ("digits", _digits, "image"),
    "bags-shoes-mini/bags": ("bags-shoes-mini", _nes("bags"), "image"),
    "bags-shoes-mini/shoes": ("bags-shoes-mini", _nes("shoes"), "image"),
    "fsdd": ("fsdd", _fsdd, "audio"),
    "noises:fsdd": ("fsdd", _fsdd_noises, "audio"),
    "drums-bass-synth/drums": ("drums-bass-synth", _synthesised("drums"), "audio"),
    "drums-bass-synth/bass": ("drums-bass-synth", _synthesised("bass"), "audio"),
}


def dataset_names() -> list[str]:
    """Names that ``open_dataset`` knows besides ``generated:<name>``, ``folder:<path>`` and ``npy:<path>``, sorted."""
    return sorted({*_DATASETS, *CHUNKED_SETS})


def manifest_of(name: str) -> str:
    """The manifest that a data set's files belong to, ``""`` for ``generated:``, ``folder:`` and ``npy:``.

    Raises:
        UnknownNameError: no such data set.
    """
    if name.startswith((GENERATED_PREFIX, FOLDER_PREFIX, NPY_PREFIX)):
        return ""
    if name in CHUNKED_SETS:
        return CHUNKED_SETS[name].manifest
    if name not in _DATASETS:
        raise nearest(name, dataset_names(), "data set")
    return _DATASETS[name][0]


def analytic_prior(name: str) -> GaussianMixture | None:
    """The distribution behind a data set where it is known in closed form, else None.

    Raises:
        DataError: no such generated data set.
    """
    return generated_prior(name) if name.startswith(GENERATED_PREFIX) else None


def open_dataset(name: str, split: str) -> SignalSet:
    """One split of a data set, found, verified and read; downloaded first where it is missing and may be.

    ===============================  ==========================  ====================================================================
    name                             signals                     splits
    ===============================  ==========================  ====================================================================
    ``mnist``                        (1, 28, 28) in 0..1         official: 60,000 and 10,000
    ``cifar10``                      (3, 32, 32) in 0..1         official: 50,000 and 10,000
    ``cifar10-mini``                 (3, 32, 32) in 0..1         first 1,017 records of each official batch: 5,085 and 1,017
    ``digits``                       (1, 8, 8) in 0..1, v / 16   ours: first 1,000 and last 797
    ``bags-shoes-mini/bags``,        (3, 64, 64) in 0..1,        ``test`` only: 200
    ``bags-shoes-mini/shoes``        1 - v / 255
    ``fsdd``                         (1, 16384) at 8 kHz         takes 5-49 and 0-4: 2,700 and 300, see ``readers.fsdd``
    ``noises:fsdd``                  (1, 16384) at 8 kHz         1,200 and 500, see ``noises``
    ``drums-bass-synth/drums``,      (1, 65536) at 22,050 Hz     680 (the last 80 for validation) and 520, made by the package; the same place of
    ``drums-bass-synth/bass``                                    the same song in both; labels: 0 for silent chunks, see ``store``
    ``slakh2100/drums``,             (1, 65536) at 22,050 Hz     official redux, with ``validation``; chunks of 2.97 s in order, the same
    ``slakh2100/bass``                                           place of the same song in both
    ``musdb18-hq/<source>``          (1, 61440) at 20,480 Hz     86, 14 (``validation``) and 50 songs; chunks of 3 s, see ``readers.musdb``
    ``lrw``                          (1, 10240) at 16 kHz        official, with ``validation``; 0.64 s from the middle of each file
    ``esc50``                        (1, 10240) at 16 kHz        folds 1-3, 4 (``validation``) and 5; chunks of 0.64 s
    ``generated:<name>``             (D,), see ``generated``     2,100 and 100
    ``folder:<path>``                (C, H, W) in 0..1           ``<path>/train`` and ``<path>/test``; without them all is ``test``
    ``npy:<path>``                   (C, H, W) in 0..1           ``<path>/train.npy`` and ``<path>/test.npy``; a file is ``test``
    ===============================  ==========================  ====================================================================

    Splits are kept in memory (the last few) and shared between callers, per name, split and folder; sizes of the files are compared at every call.
    Sets of chunks keep file names only and decode what is asked for.

    Raises:
        UnknownNameError: no such data set.
        DataError: no such split; the data are missing and cannot be had, damaged or corrupt.
        SepbenchError: a folder of images without pillow.
    """
    if name in CHUNKED_SETS:
        return open_chunked(name, split, obtain(load_manifest(manifest_of(name))))
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; data sets have 'train' and 'test'")
    if name.startswith(GENERATED_PREFIX):
        return open_generated(name, split)
    if name.startswith(FOLDER_PREFIX):
        folder = _split_path(name, Path(name.removeprefix(FOLDER_PREFIX)).expanduser().resolve(), split, "")
        return _read_own(name, split, folder, tuple(_fingerprint(path) for path, _ in list_images(folder)))
    if name.startswith(NPY_PREFIX):
        path = _split_path(name, Path(name.removeprefix(NPY_PREFIX)).expanduser().resolve(), split, ".npy")
        return _read_own(name, split, path, (_fingerprint(path),))
    manifest = load_manifest(manifest_of(name))
    return _read(name, split, obtain(manifest, part=split if manifest.made_by else ""))


@lru_cache(maxsize=_CACHED_SPLITS)
def _read(name: str, split: str, found: Found) -> ArraySignals:
    _, read, domain = _DATASETS[name]
    signals, labels = read(found, split)
    return ArraySignals(name, split, domain, signals, labels)


@lru_cache(maxsize=_CACHED_SPLITS)
def _read_own(name: str, split: str, path: Path, fingerprints: tuple[tuple[str, int, int], ...]) -> ArraySignals:
    """A user's own files; the fingerprints make the cache notice that a file changed."""
    if name.startswith(FOLDER_PREFIX):
        images, labels = read_image_folder(path)
    else:
        images = read_npy_images(path)
        labels = torch.zeros(len(images), dtype=torch.int64)
    return ArraySignals(name, split, "image", images, labels)


def _fingerprint(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def _split_path(name: str, path: Path, split: str, suffix: str) -> Path:
    """Where a split of the user's own data lies: ``<path>/<split><suffix>``, or all of ``path`` as the test split if it is not divided."""
    if not path.exists():
        raise DataError(f"data set {name!r}: {path} does not exist; give the path of your data after the colon")
    parts = {part: path / f"{part}{suffix}" for part in SPLITS}
    divided = path.is_dir() and (bool(suffix) or any(part.is_dir() for part in parts.values()))
    if divided and parts[split].exists():
        return parts[split]
    if divided or split != "test":
        whole = path if path.is_dir() else path.parent
        raise DataError(f"data set {name!r} has no {split} split; lay the data out as {whole / f'train{suffix}'} and {whole / f'test{suffix}'}")
    return path
