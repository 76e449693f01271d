"""Data sets by name: ``open_dataset("mnist", "test")``. They are entry points of the group ``sepbench.datasets``, loaded when asked for.

A third party adds one by one line in its own ``pyproject.toml`` (a name with ``/`` or ``:`` stands in quotes there)::

    [project.entry-points."sepbench.datasets"]
    my-data = "my_package:MY_DATA"     # a DataSet
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Protocol, runtime_checkable

from sepbench.data.files.fetch import FoundData, obtain
from sepbench.data.files.manifests import load_manifest
from sepbench.data.own.stored import BESIDE
from sepbench.data.readers.image_folder import list_images, read_image_folder
from sepbench.data.readers.npy import read_npy_images
from sepbench.data.signals import ArraySignals
from sepbench.data.synthesis.generated import PREFIX as GENERATED_PREFIX
from sepbench.data.synthesis.generated import check_generated, generated_prior, open_generated
from sepbench.errors import DataError, SepbenchError, reason
from sepbench.gmm import GaussianMixture
from sepbench.protocols import SignalSet
from sepbench.registry import DATASET_GROUP, load_entry, points
from sepbench.torch_later import torch

SPLITS = ("train", "test")
FOLDER_PREFIX, NPY_PREFIX = "folder:", "npy:"

_CACHED_SPLITS = 8


@runtime_checkable
class DataSet(Protocol):
    """What an entry point of the group ``sepbench.datasets`` names: a data set that can open its splits."""

    @property
    def manifest(self) -> str:
        """The manifest of sepbench whose files are read: they are found, verified and, where allowed, downloaded first. ``""`` for own files."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits: ``train`` and ``test``, and ``validation`` where there is one."""

    def open(self, name: str, split: str, found: FoundData | None) -> SignalSet:
        """One split, the same signals in the same order at every call.

        Args:
            name: the data set's name, for the signal set.
            split: one of ``splits``.
            found: the complete files of ``manifest``, None if that is empty.

        Raises:
            DataError: files are missing, damaged or corrupt.
        """


def dataset_names() -> list[str]:
    """Names that ``open_dataset`` knows besides ``generated:<name>``, ``folder:<path>`` and ``npy:<path>``, sorted; nothing is imported."""
    return sorted(points(DATASET_GROUP))


def registered_dataset(name: str) -> DataSet:
    """The data set behind a registered name.

    Raises:
        UnknownNameError: no such data set.
        NameClaimedError: two distributions claim the name.
        DataError: it cannot be loaded, or is no data set.
    """
    loaded = load_entry(DATASET_GROUP, name)
    if isinstance(loaded, type) or not isinstance(loaded, DataSet):
        what = f"the class {loaded.__qualname__}" if isinstance(loaded, type) else f"of type {type(loaded).__name__}"
        raise DataError(f"data set {name!r} is {what}; its entry point must name an object with manifest, splits and open, see sepbench.data.datasets.DataSet")
    return loaded


def manifest_of(name: str) -> str:
    """The manifest that a data set's files belong to, ``""`` for ``generated:``, ``folder:``, ``npy:``, ``beside:`` and data sets with files of their own.

    Raises:
        UnknownNameError: no such data set; and as ``registered_dataset``.
    """
    return "" if name.startswith((GENERATED_PREFIX, FOLDER_PREFIX, NPY_PREFIX, BESIDE)) else registered_dataset(name).manifest


def manifests_of(datasets: Iterable[str]) -> list[str]:
    """The manifests of several data sets, each once, sorted; generated ones have none."""
    return sorted({manifest_of(name) for name in datasets} - {""})


def has_analytic_prior(name: str) -> bool:
    """Whether ``analytic_prior`` knows the distribution behind a data set; raises as that does, and is cheap."""
    if not name.startswith(GENERATED_PREFIX):
        return False
    check_generated(name)
    return True


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
    ``celeba32``                     (3, 32, 32) in 0..1         official, with ``validation``; see ``readers.celeba``
    ``digits``                       (1, 8, 8) in 0..1, v / 16   ours: first 1,000 and last 797
    ``bags-shoes-mini/bags``,        (3, 64, 64) in 0..1,        ``test`` only: 200
    ``bags-shoes-mini/shoes``        1 - v / 255
    ``fsdd``                         (1, 16384) at 8 kHz         takes 5-49 and 0-4: 2,700 and 300, see ``readers.fsdd``
    ``noises:fsdd``                  (1, 16384) at 8 kHz         1,200 and 500, see ``noises``
    ``drums-bass-synth/drums``,      (1, 65536) at 22,050 Hz     680 (the last 80 for validation) and 520, made by the package; the same place of
    ``drums-bass-synth/bass``                                    the same song in both; labels: 0 for silent chunks, see ``store``
    ``esc10``                        (1, 16384) at 8 kHz         folds 1 and 2: 160 and 160, see ``readers.esc10``; label 0: silent
    ``music-stems/<source>``         (1, 65536) at 22,050 Hz     ``test`` only: 120; drums, bass, vocals, accompaniment, no-drums, see ``readers.music_stems``
    ``slakh2100/drums``,             (1, 65536) at 22,050 Hz     official redux, with ``validation``; chunks of 2.97 s in order, the same
    ``slakh2100/bass``                                           place of the same song in both
    ``musdb18-hq/<source>``          (1, 61440) at 20,480 Hz     86, 14 (``validation``) and 50 songs; chunks of 3 s, see ``readers.musdb``
    ``lrw``                          (1, 10240) at 16 kHz        official, with ``validation``; 0.64 s from the middle of each file
    ``esc50``                        (1, 10240) at 16 kHz        folds 1-3, 4 (``validation``) and 5; chunks of 0.64 s
    ``generated:<name>``             (D,), see ``generated``     2,100 and 100
    ``folder:<path>``                (C, H, W) in 0..1           ``<path>/train`` and ``<path>/test``; without them all is ``test``
    ``npy:<path>``                   (C, H, W) in 0..1           ``<path>/train.npy`` and ``<path>/test.npy``; a file is ``test``
    ``beside:<path>``                (C, H, W) or (1, T)         of suites in folders of their own, see ``own.stored``; not opened here
    ===============================  ==========================  ====================================================================

    Besides these, what third parties have registered. Splits are kept in memory (the last few) and shared between callers, per name, split and
    folder; sizes of the files are compared at every call. Sets of chunks keep file names only and decode what is asked for.

    Raises:
        UnknownNameError: no such data set.
        NameClaimedError: two distributions claim the name.
        DataError: no such split; the data are missing and cannot be had, damaged or corrupt.
        SepbenchError: a folder of images without pillow.
    """
    if name.startswith(BESIDE):
        raise DataError(f"data set {name!r} is beside a suite's file and is opened by its suite alone; name its folder instead, as npy:PATH")
    if not name.startswith((GENERATED_PREFIX, FOLDER_PREFIX, NPY_PREFIX)):
        return _open_registered(name, split)
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; data sets have 'train' and 'test'")
    if name.startswith(GENERATED_PREFIX):
        return open_generated(name, split)
    if name.startswith(FOLDER_PREFIX):
        folder = _split_path(name, Path(name.removeprefix(FOLDER_PREFIX)).expanduser().resolve(), split, "")
        return _read_own(name, split, folder, tuple(_fingerprint(path) for path, _ in list_images(folder)))
    path = _split_path(name, Path(name.removeprefix(NPY_PREFIX)).expanduser().resolve(), split, ".npy")
    return _read_own(name, split, path, (_fingerprint(path),))


def _open_registered(name: str, split: str) -> SignalSet:
    dataset = registered_dataset(name)
    if split not in dataset.splits:
        raise DataError(f"unknown split {split!r}; data set {name!r} has {', '.join(dataset.splits)}")
    found = None
    if dataset.manifest:
        manifest = load_manifest(dataset.manifest)
        found = obtain(manifest, part=split if manifest.made_by else "")
    try:
        return dataset.open(name, split, found)
    except (SepbenchError, OSError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise DataError(f"data set {name!r} cannot open its split {split}: {reason(error)}") from error


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
