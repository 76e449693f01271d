"""What a suite still needs before it runs on this machine, and where its data are. Nothing is opened, hashed or downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sepbench.data.datasets import manifest_of
from sepbench.data.files.fetch import cache_folder, status
from sepbench.data.files.integrity import check_size
from sepbench.data.files.manifests import Manifest, load_manifest
from sepbench.data.own.stored import BESIDE, split_file
from sepbench.registry import own_suite
from sepbench.suites.model import Suite

State = Literal["ready", "download", "own copy"]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Of a suite.

    Attributes:
        state: ``ready`` (also where the package makes the data when they are first needed), ``download``, or ``own copy``: files that only the user can get.
        download: bytes that are lacking, for ``download``.
        lacking: data sets that are not here, or not whole.
        where: the suite's own folder where it has one, and the folders of the data that are here.
    """

    state: State
    download: int
    lacking: tuple[str, ...]
    where: tuple[Path, ...]


def readiness(name: str, suite: Suite) -> Readiness:
    """What a suite needs.

    Args:
        name: what it was loaded by.
        suite: the loaded suite.

    Raises:
        DataError: ``SEPBENCH_DATA`` names no folder.
        SepbenchError: a data set of another package cannot be loaded.
    """
    own = own_suite(name)
    datasets = sorted({dataset for task in suite.tasks.values() for dataset in task.spec.datasets})
    where = [own.absolute().parent] if own is not None else []
    lacking, download, by_hand = list[str](), 0, False
    for manifest in [load_manifest(found) for found in sorted({manifest_of(dataset) for dataset in datasets} - {""})]:
        state = status(manifest)
        if state.folder is not None:
            where.append(state.folder)
        if state.state in ("present", "built-in", "on demand"):
            continue
        lacking.append(manifest.name)
        download += _bytes(manifest)
        by_hand = by_hand or manifest.download_form is None
    if own is not None:
        missing = [dataset for dataset in datasets if dataset.startswith(BESIDE) and not split_file(own.parent, dataset, "test").is_file()]
        lacking += missing
        by_hand = by_hand or bool(missing)
    return Readiness("ready" if not lacking else "own copy" if by_hand else "download", download, tuple(lacking), tuple(dict.fromkeys(where)))


def _bytes(manifest: Manifest) -> int:
    """What would be downloaded into the cache."""
    if manifest.download_form is None:
        return 0
    folder = cache_folder() / manifest.name
    return sum(file.size for file in manifest.required(manifest.download_form) if not check_size(file, folder).ok)
