"""Mixture sets: a pair list, the signals it points at, and the operator that mixes them. Nothing is stored that could be made on the fly."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sepbench.data.lists.pairs import PairList
from sepbench.errors import SuiteError
from sepbench.operators import make_operator
from sepbench.protocols import MixingOperator, Mixtures, SignalSet
from sepbench.torch_later import torch

_CHUNK_VALUES = 1 << 22  # numbers per source that are mixed at once for a digest, 16 MB


@dataclass(frozen=True, slots=True)
class Transform:
    """What a suite does to every signal before mixing, references and training data alike.

    Attributes:
        pad: zero pixels added on all four sides of an image (NES scores MNIST at 32 x 32).
    """

    pad: int = 0

    def __call__(self, signals: torch.Tensor) -> torch.Tensor:
        """``(N, *shape)`` to ``(N, *self.shape(shape))``."""
        return torch.nn.functional.pad(signals, [self.pad] * 4) if self.pad else signals

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of one signal afterwards."""
        if not self.pad:
            return tuple(shape)
        return (*shape[:-2], shape[-2] + 2 * self.pad, shape[-1] + 2 * self.pad)


class MixtureSet:
    """M frozen mixtures of K sources, made when asked for.

    Memory is that of the index list and the signal sets; it does not grow with M x signal.

    Args:
        signals: one signal set per source slot (the same object in every slot where all sources come from one data set).
        pairs: rows of those sets, and gains for operator ``gain``.
        operator: name of the mixing operator.
        transform: applied to every source before mixing.

    Raises:
        SuiteError: the list does not fit the signal sets or the operator.
    """

    def __init__(self, signals: Sequence[SignalSet], pairs: PairList, operator: str, transform: Transform | None = None) -> None:
        if len(signals) != pairs.n_sources:
            raise SuiteError(f"the pair list has {pairs.n_sources} sources per mixture, the task {len(signals)}")
        if len({s.shape for s in signals}) != 1:
            raise SuiteError(f"sources of one mixture must share a shape, got {', '.join(str(s.shape) for s in signals)}")
        for k, source in enumerate(signals):
            highest = int(pairs.indices[:, k].max())
            if highest >= len(source):
                raise SuiteError(f"the pair list asks for signal {highest} of {source.name} {source.split}, which holds {len(source):,}")
        self._signals = tuple(signals)
        self._pairs = pairs
        self._transform = transform or Transform()
        channels = signals[0].shape[0]
        self._operator = make_operator(operator, pairs.n_sources, channels=channels, gains=pairs.gains)

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def n_sources(self) -> int:
        return self._pairs.n_sources

    @property
    def source_shape(self) -> tuple[int, ...]:
        """Shape of one source, transform included."""
        return self._transform.shape(self._signals[0].shape)

    @property
    def pairs(self) -> PairList:
        """The list, as rows of the signal sets."""
        return self._pairs

    @property
    def pairs_sha256(self) -> str:
        return self._pairs.sha256

    def _ids(self, example_ids: torch.Tensor | Sequence[int]) -> torch.Tensor:
        ids = torch.as_tensor(example_ids, dtype=torch.int64).cpu()
        if ids.ndim != 1 or (ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= len(self))):
            raise ValueError(f"example ids must be one row of numbers in [0, {len(self)})")
        return ids

    def operator_for(self, example_ids: torch.Tensor | Sequence[int]) -> MixingOperator:
        """The operator of these examples, their own gains included."""
        return self._operator.select(self._ids(example_ids))

    def sources(self, example_ids: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """True sources ``(B, K, ...)`` float32 on the CPU."""
        ids = self._ids(example_ids)
        rows = self._pairs.indices[ids]
        first = self._signals[0]
        if all(s is first for s in self._signals):
            flat = first.load(rows.flatten())
            stacked = flat.reshape(len(ids), self.n_sources, *flat.shape[1:])
        else:
            stacked = torch.stack([s.load(rows[:, k]) for k, s in enumerate(self._signals)], dim=1)
        return self._transform(stacked.flatten(0, 1)).reshape(len(ids), self.n_sources, *self.source_shape)

    def mixtures(self, example_ids: torch.Tensor | Sequence[int], device: str = "cpu") -> Mixtures:
        """The mixtures of these examples, mixed on the CPU (the same bits for every device) and then moved."""
        ids = self._ids(example_ids)
        operator = self._operator.select(ids)
        return Mixtures(operator.forward(self.sources(ids)).to(device), ids, operator)

    def content(self, example_ids: torch.Tensor) -> bytes:
        """SHA-256 over the mixtures of these examples, little-endian float32 bytes in their order."""
        return self._sha256(example_ids).digest()

    def digest(self) -> str:
        """SHA-256 (hex) over the little-endian float32 bytes of all mixtures in the list's order."""
        return self._sha256(torch.arange(len(self))).hexdigest()

    def _sha256(self, example_ids: torch.Tensor) -> hashlib._Hash:
        sha = hashlib.sha256()
        step = max(1, _CHUNK_VALUES // math.prod(self.source_shape))
        for ids in example_ids.split(step):
            sha.update(self.mixtures(ids).values.contiguous().numpy().astype("<f4", copy=False).tobytes())
        return sha
