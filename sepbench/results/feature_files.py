"""The features of a cell on disk, for metrics of sets: one file per shard, read as a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from sepbench.metrics.sets.extraction import ShardFeatures
from sepbench.metrics.sets.features import SetFeatures, SetReference, order_of
from sepbench.metrics.sets.references import read_reference
from sepbench.results.score_files import StoreError, readable
from sepbench.torch_later import torch

_HELD_BYTES = 256 << 20
"""Features up to this size are read once and held; larger ones are read from their files every time they are asked for."""

Kind = Literal["features", "logits"]
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
T = TypeVar("T")


def save_features(path: Path, examples: Integers, features: Mapping[str, ShardFeatures]) -> None:
    """Write the features of the examples ``(n,)`` of one shard."""
    tensors = {"examples": torch.from_numpy(examples)}
    for name, found in features.items():
        tensors |= {f"{name}.features": found.features.contiguous(), f"{name}.logits": found.logits.contiguous()}
    from safetensors.torch import save_file  # imports torch

    save_file(tensors, path, {name: found.reference for name, found in features.items()})


class CellFeatures:
    """The features of a cell.

    Args:
        files: one per shard, in the order of the mixtures.
        reference_path: the file of a reference's key.
    """

    def __init__(self, files: Sequence[Path], reference_path: Callable[[str], Path]) -> None:
        self._files = tuple(files)
        self._reference_path = reference_path

    def reference(self, extractor: str) -> SetReference:
        """What the features of an extractor are held against.

        Raises:
            StoreError: the files name none, or several.
            DataError: it cannot be read.
        """
        keys = {self._open(path, lambda file: (file.metadata() or {}).get(extractor, "")) for path in self._files}
        if len(keys) != 1 or "" in keys:
            raise StoreError(f"the features of extractor {extractor!r} belong to {len(keys)} references; run `sepbench score` of the run again")
        return _reference(self._reference_path(keys.pop()))

    def of(self, extractor: str, examples: Integers) -> SetFeatures:
        """The features of some examples ``(n,)``, ascending ids.

        Raises:
            StoreError: an example has none, or a file cannot be read.
        """
        seen, sources = self._examples(extractor)
        if not np.isin(examples, seen).all():
            missing = int(np.setdiff1d(examples, seen)[0])
            raise StoreError(f"example {missing} has scores and no features of extractor {extractor!r}; run `sepbench score` of the run again")
        per_image = np.repeat(examples, sources)
        return SetFeatures(len(per_image), self._stream(extractor, "features", examples), self._stream(extractor, "logits", examples), order_of(per_image))

    def _examples(self, extractor: str) -> tuple[Integers, int]:
        found, sources = [np.empty(0, np.int64)], 1
        for path in self._files:
            examples, shape = self._open(path, lambda file: (file.get_tensor("examples"), file.get_slice(f"{extractor}.features").get_shape()))
            found.append(examples)
            sources = shape[1]
        return np.concatenate(found), sources

    def _stream(self, extractor: str, kind: Kind, examples: Integers) -> Callable[[], Iterator[Floats]]:
        wanted = (self._files, f"{extractor}.{kind}", examples)
        size = sum(self._open(path, lambda file: int(np.prod(file.get_slice(wanted[1]).get_shape()))) for path in self._files) * 4
        if size > _HELD_BYTES:
            return lambda: self._read(*wanted)
        held: list[Floats] = []

        def parts() -> Iterator[Floats]:
            if not held:
                held.append(np.concatenate(list(self._read(*wanted)) or [np.empty((0, 0), np.float32)]))
            yield held[0]

        return parts

    def _read(self, files: Sequence[Path], name: str, examples: Integers) -> Iterator[Floats]:
        for path in files:
            seen, values = self._open(path, lambda file: (file.get_tensor("examples"), file.get_tensor(name)))
            chosen = values[np.isin(seen, examples)]
            if len(chosen):
                yield chosen.reshape(-1, chosen.shape[-1])

    def _open(self, path: Path, read: Callable[[Any], T]) -> T:
        readable(path)
        try:
            with safe_open(path, "np") as file:
                return read(file)
        except (SafetensorError, OSError) as error:
            raise StoreError(f"the features {path} cannot be read ({error}); run `sepbench score` of the run again") from error


@lru_cache(2)
def _reference(path: Path) -> SetReference:
    return read_reference(path)
