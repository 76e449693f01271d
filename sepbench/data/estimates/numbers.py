"""Numbers of any stored kind to float32, by one rule for arrays and files.

==================  ====================================
images              uint8 / 255, uint16 / 65,535
sounds              int16 / 32,768, int32 / 2**31
float16, 32, 64     as they are
==================  ====================================

Whatever else (bool, complex, other integers) is refused: nobody has said what it means.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sepbench.data.estimates.problems import KIND, FileProblem
from sepbench.protocols import Domain

_SCALES: dict[Domain, dict[str, float]] = {
    "image": {"uint8": 255.0, "uint16": 65_535.0},
    "audio": {"int16": 32_768.0, "int32": 2.0**31},
    "vector": {},
}
_RUN = 3
"""So many samples at full scale in a row are clipped."""


def scale_of(dtype: np.dtype[Any], domain: Domain) -> float:
    """What stored numbers are divided by; 1 for floats.

    Raises:
        FileProblem: numbers of this kind are not taken.
    """
    if dtype.kind == "f" and dtype.itemsize in (2, 4, 8):
        return 1.0
    scale = _SCALES[domain].get(dtype.newbyteorder("=").name)
    if scale is None:
        taken = ", ".join([*_SCALES[domain], "float"])
        raise FileProblem(KIND, f"{dtype.name}, {domain} signals are {taken}")
    return scale


def as_float32(values: npt.NDArray[Any], domain: Domain) -> npt.NDArray[np.float32]:
    """Stored numbers as float32 in the range of the suite's signals, C-contiguous.

    Raises:
        FileProblem: numbers of this kind are not taken.
    """
    scale = scale_of(values.dtype, domain)
    if scale == 1.0:
        with np.errstate(over="ignore"):  # beyond float32: infinite, which is told
            return np.asarray(values, dtype=np.float32, order="C")  # ascontiguousarray would give a single number an axis
    return np.asarray(values.astype(np.float64) / scale, dtype=np.float32, order="C")


def is_clipped(signal: npt.NDArray[np.float32], full_scale: float = 1.0) -> bool:
    """Whether samples stay at full scale: three or more in a row in one channel, at ``-1`` or at ``full_scale``.

    Args:
        signal: ``(channels, T)``.
        full_scale: the largest number of the file's format: 32,767 / 32,768 for 16 bits, 1 for floats.
    """
    for at_end in (signal == np.float32(full_scale), signal == np.float32(-1.0)):
        held = at_end[:, : signal.shape[1] - _RUN + 1].copy()
        for shift in range(1, _RUN):
            held &= at_end[:, shift : shift + held.shape[1]]
        if held.any():
            return True
    return False
