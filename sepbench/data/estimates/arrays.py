"""All estimates as one array ``(M, K, ...)``: ``.npy``, ``.npz``, ``.safetensors``, or an array in memory.

``.npy`` and ``.safetensors`` are read stretch by stretch; ``.npz`` is compressed as a rule and is held in memory once, as it is stored. One channel
may be left out: ``(M, K, H, W)`` stands for ``(M, K, 1, H, W)``. ``.npz`` and ``.safetensors`` hold one array by any name and, if the rows are not
mixtures 0 to M - 1, their numbers as ``example_ids``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sepbench.data.estimates.numbers import as_float32, scale_of
from sepbench.data.estimates.problems import EXTRA, MISSING, NOT_FINITE, TWICE, EstimatesError, FileProblem, Problems
from sepbench.data.estimates.supplied import Advance, Inspection
from sepbench.data.readers import unreadable
from sepbench.errors import reason
from sepbench.files import check_readable, file_sha256
from sepbench.protocols import TaskSpec
from sepbench.torch_later import torch

IDS = "example_ids"
SUFFIXES = (".npy", ".npz", ".safetensors")
_STRETCH = 1 << 22
"""Values that are looked at together, 16 MB of float32."""

ReadRows = Callable[[Sequence[int]], npt.NDArray[Any]]


class ArrayEstimates:
    """A ``Supplied`` of one array.

    Args:
        rows: the array's rows by their numbers, as stored.
        shape: of the whole array.
        dtype: as stored.
        ids: ``(M,)`` mixture of each row; None for 0 to M - 1.
        digest: SHA-256 of what was supplied.
        spec: the task.
        n_examples: mixtures of the task.
        where: what the array is called in messages.
        changed: whether its file is another one by now.

    Raises:
        EstimatesError: an array of another shape, or of numbers that are not taken.
    """

    def __init__(
        self,
        rows: ReadRows,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        ids: npt.NDArray[Any] | None,
        digest: Callable[[], str],
        spec: TaskSpec,
        n_examples: int,
        where: str,
        changed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._rows, self._digest, self._spec, self._where, self._changed, self._n_examples = rows, digest, spec, where, changed, n_examples
        self._one = (*((spec.posterior_draws,) if spec.posterior_draws else ()), spec.n_sources, *spec.source_shape)
        self._check(shape, dtype)
        found = np.arange(shape[0]) if ids is None else np.asarray(ids)
        if found.shape != (shape[0],) or found.dtype.kind not in "iu":
            raise EstimatesError(f"{where}: {IDS} must be {shape[0]:,} whole numbers, one per row; found {_text(found.shape)} of {found.dtype.name}")
        self._ids = found.astype(np.int64)
        self._places: dict[int, int] = {}

    def _check(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        wanted, spec = self._one, self._spec
        squeezed = wanted if spec.source_shape[0] != 1 else (*wanted[: -len(spec.source_shape)], *spec.source_shape[1:])
        if len(shape) < 2 or shape[1:] not in (wanted, squeezed):
            last = (*wanted[: -len(spec.source_shape)], *spec.source_shape[1:], spec.source_shape[0])
            hint = "move the channels before the height" if spec.domain == "image" and shape[1:] == last else "write it in this shape"
            raise EstimatesError(f"{self._where} has the shape {_text(shape)}, the estimates of task {spec.name} are {_text(('M', *wanted))}; {hint}")
        try:
            scale_of(dtype, spec.domain)
        except FileProblem as problem:
            raise EstimatesError(f"{self._where} holds {problem.detail}; convert it to float32") from problem

    def inspect(self, n_planned: int, problems: Problems, advance: Advance) -> Inspection:
        """See ``Supplied``."""
        for place, example in enumerate(self._ids.tolist()):
            if not 0 <= example < self._n_examples:
                problems.add(EXTRA, f"mixture {example}")
            elif example in self._places:
                problems.add(TWICE, f"mixture {example}")
            else:
                self._places[example] = place
        for example in range(n_planned):
            if example not in self._places:
                problems.add(MISSING, f"mixture {example}")
        examples = [example for example in range(n_planned) if example in self._places]
        largest, step = 0.0, max(1, _STRETCH // math.prod(self._one))
        for start in range(0, len(examples), step):
            some = examples[start : start + step]
            values = np.abs(self._values(some))
            finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
            for example in np.array(some)[~finite].tolist():
                problems.add(NOT_FINITE, f"mixture {example}")
            largest = max(largest, float(values[finite].max(initial=0.0)))
            advance(start + len(some), len(examples))
        return Inspection(np.array(examples, np.int64), self._digest(), (), largest)

    def _values(self, examples: Sequence[int]) -> npt.NDArray[np.float32]:
        return as_float32(self._rows([self._places[example] for example in examples]), self._spec.domain).reshape(-1, *self._one)

    def load(self, examples: Sequence[int]) -> torch.Tensor:
        """See ``Supplied``."""
        if self._changed():
            raise EstimatesError(f"{self._where} has changed since it was read first; leave the file alone and evaluate again")
        return torch.from_numpy(self._values(examples).copy())


def of_array(array: npt.NDArray[Any] | torch.Tensor, spec: TaskSpec, n_examples: int) -> ArrayEstimates:
    """Estimates in memory; row m is mixture m. Never changed or copied as a whole."""
    values = _numpy(array.detach().cpu()) if isinstance(array, torch.Tensor) else array

    def digest() -> str:
        whole = hashlib.sha256()
        for row in values:
            whole.update(np.ascontiguousarray(row).astype(row.dtype.newbyteorder("<"), copy=False).tobytes())
        return whole.hexdigest()

    return ArrayEstimates(lambda places: values[list(places)], values.shape, values.dtype, None, digest, spec, n_examples, "the array")


def of_file(path: Path, spec: TaskSpec, n_examples: int) -> ArrayEstimates:
    """Estimates in a ``.npy``, ``.npz`` or ``.safetensors`` file.

    Raises:
        EstimatesError: unreadable as such, of another shape, or of numbers that are not taken.
        DataError: it cannot be opened.
    """
    try:
        check_readable(path)
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error

    def changed() -> bool:
        now = path.stat()
        return (now.st_size, now.st_mtime_ns) != (status.st_size, status.st_mtime_ns)

    opened = {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}[path.suffix.lower()]
    try:
        rows, shape, dtype, ids = opened(path)
    except EstimatesError:
        raise
    except Exception as error:  # headers are parsed by numpy and safetensors: what a damaged one raises is not bounded by their documentation
        raise EstimatesError(f"{path} cannot be read as {path.suffix.lower()} ({reason(error)}); write it anew") from error
    return ArrayEstimates(rows, shape, dtype, ids, lambda: file_sha256(path), spec, n_examples, str(path), changed)


_Opened = tuple[ReadRows, tuple[int, ...], np.dtype[Any], npt.NDArray[Any] | None]


def _npy(path: Path) -> _Opened:
    array = np.lib.format.open_memmap(path, mode="r")
    whole = array.offset + array.nbytes
    if path.stat().st_size != whole:
        raise EstimatesError(f"{path} has {path.stat().st_size:,} bytes, its header announces {whole:,}; write it anew")
    return lambda places: array[_as_slice(places)], array.shape, array.dtype, None


def _npz(path: Path) -> _Opened:
    with np.load(path, allow_pickle=False) as archive:
        name = _only([name for name in archive.files if name != IDS], path)
        array, ids = archive[name], archive[IDS] if IDS in archive.files else None
    return lambda places: array[_as_slice(places)], array.shape, array.dtype, ids


def _safetensors(path: Path) -> _Opened:
    from safetensors import safe_open

    def rows(places: Sequence[int]) -> npt.NDArray[Any]:
        with safe_open(path, "pt") as file:
            part = file.get_slice(name)
            chosen = _as_slice(places)
            found = part[chosen.start : chosen.stop] if isinstance(chosen, slice) else torch.stack([part[place] for place in chosen])
        return _numpy(found)

    with safe_open(path, "pt") as file:
        # A run's own files of estimates, which hold seconds too, are taken as they are.
        names = [name for name in file.keys() if name not in (IDS, "seconds")]  # noqa: SIM118 - no mapping
        name = "estimates" if "estimates" in names else _only(names, path)
        shape = tuple(file.get_slice(name).get_shape())
        ids = file.get_tensor(IDS).numpy() if IDS in file.keys() else None  # noqa: SIM118
        first = _numpy(file.get_slice(name)[0:1]) if shape and shape[0] else np.empty(0, np.float32)
    return rows, shape, first.dtype, ids


def _numpy(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """numpy has no bfloat16."""
    return np.asarray((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


def _only(names: list[str], path: Path) -> str:
    if len(names) != 1:
        listed = ", ".join(names[:3]) or "none"
        raise EstimatesError(f"{path} holds {len(names)} arrays ({listed}); it must hold one, and {IDS} if its rows are not mixtures 0 to M - 1")
    return names[0]


def _as_slice(places: Sequence[int]) -> slice | list[int]:
    """Rows in a row as a slice, which copies nothing."""
    ordered = len(places) and list(places) == list(range(places[0], places[0] + len(places)))
    return slice(places[0], places[0] + len(places)) if ordered else list(places)


def _text(shape: Sequence[object]) -> str:
    return f"({', '.join(map(str, shape))})" if shape else "() of a single number"
