"""The noise's kernel, run program by program on arrays in the place of a GPU: its bits are those of ``sepbench.noise``, and nothing is written beside.

Triton itself comes with torch for CUDA alone; with it, ``tests/test_noise.py`` runs the kernel in its interpreter too.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import sepbench
from sepbench.noise import NoiseSource, _key

FILE = Path(sepbench.__file__).with_name("noise_kernel.py")


class Numbers(np.ndarray):
    """An array with the conversion of Triton's tensors."""

    def to(self, kind: Any) -> Numbers:
        return self.astype(kind)


def numbers(values: Any) -> Numbers:
    return np.atleast_1d(np.asarray(values)).view(Numbers)


@dataclass(frozen=True)
class Pointer:
    """Places in the memory of a tensor."""

    memory: Any
    place: Any = 0

    def __add__(self, more: Any) -> Pointer:
        return Pointer(self.memory, self.place + more)


def storage(tensor: torch.Tensor) -> Any:
    """The numbers that lie in memory from a tensor's first on, which is all that a kernel is told."""
    room = tensor.untyped_storage().nbytes() // tensor.element_size() - tensor.storage_offset()
    return torch.as_strided(tensor, (room,), (1,)).numpy()


class Programs:
    """What ``triton.jit`` makes of a function: programs one after the other, whose calls are written down."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function, self.launches = function, list[dict[str, Any]]()

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: Any, **constants: Any) -> None:
            self.launches.append({"grid": grid, **constants})
            given = [Pointer(storage(one)) if isinstance(one, torch.Tensor) else numbers(one) for one in arguments]
            for LANGUAGE.number in product(*map(range, grid)):
                self.function(*given, **constants)

        return launch


def store(pointer: Pointer, values: Any, mask: Any) -> None:
    assert values.dtype == pointer.memory.dtype == np.float32
    pointer.memory[pointer.place[mask]] = values[mask]


LANGUAGE: Any = SimpleNamespace(
    number=(),
    program_id=lambda axis: numbers(np.int32(LANGUAGE.number[axis])),
    arange=lambda start, end: numbers(np.arange(start, end, dtype=np.int32)),
    zeros=lambda shape, dtype: numbers(np.zeros(shape, dtype)),
    umulhi=lambda a, b: ((a.astype(np.uint64) * b.astype(np.uint64)) >> np.uint64(32)).astype(np.uint32),
    load=lambda pointer: numbers(pointer.memory[pointer.place]),
    store=store,
    static_range=range,
    log=np.log,
    cos=np.cos,
    sin=np.sin,
    sqrt_rn=np.sqrt,
    uint32=np.uint32,
    int64=np.int64,
    float32=np.float32,
    constexpr=int,
)


@pytest.fixture(scope="module")
def kernel() -> ModuleType:
    triton: Any = ModuleType("triton")
    triton.jit, triton.cdiv, triton.language = (lambda do_not_specialize: Programs), (lambda a, b: -(-a // b)), LANGUAGE
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "triton", triton)
        patched.setitem(sys.modules, "triton.language", LANGUAGE)
        spec = importlib.util.spec_from_file_location("noise_kernel_by_hand", FILE)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


IDS = torch.tensor([0, 5, 2**32 - 1, 77])


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (2**32 + 5, 16), (2**63 + 11, 2**32 - 1)])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 1_024, 1_030])
def test_its_numbers_are_those_of_the_processor(kernel: ModuleType, seed: int, step: int, count: int) -> None:
    """Uniforms to the bit, normals to their accuracy; of a last block, only as many as are asked for."""
    noise, last = NoiseSource(seed, 3), torch.full_like(IDS, 3) * 2**16 + 2
    assert torch.equal(kernel.fill(IDS, last, step, _key(seed), count, False), noise.uniform(IDS, step, 2, (count,)))
    torch.testing.assert_close(kernel.fill(IDS, last, step, _key(seed), count, True), noise.normal(IDS, step, 2, (count,)), rtol=0, atol=2e-6)


def test_every_row_has_its_own_last_word_and_may_lie_anywhere(kernel: ModuleType) -> None:
    """Rows of a wider table, as slices of counters are."""
    table = torch.stack([IDS, torch.tensor([0, 2**16, 2**32 - 1, 9])], dim=1)
    found = kernel.fill(table[:, 0], table[:, 1], 4, _key(8), 6, False)
    words = NoiseSource(8)._words(table[:, 0].contiguous(), table[:, 1].contiguous(), 4, 6)
    assert torch.equal(found, (words[:, :6] >> 8).float() * 2.0**-24)


@pytest.mark.parametrize(("count", "blocks"), [(1, 1), (4, 1), (1_024, 1), (1_025, 2), (2_049, 3)])
def test_a_program_has_a_row_and_256_counters_of_four_numbers(kernel: ModuleType, count: int, blocks: int) -> None:
    kernel._fill.launches.clear()
    assert kernel.fill(IDS[:2], IDS[:2], 0, (0, 0), count, True).shape == (2, count)
    assert kernel._fill.launches == [{"grid": (2, blocks), "NORMAL": True, "BLOCK": 256}]


@pytest.mark.parametrize(("rows", "count"), [(0, 3), (2, 0)])
def test_of_nothing_no_program_is_started(kernel: ModuleType, rows: int, count: int) -> None:
    kernel._fill.launches.clear()
    found = kernel.fill(IDS[:rows], IDS[:rows], 0, (0, 0), count, False)
    assert (found.shape, found.dtype, kernel._fill.launches) == ((rows, count), torch.float32, [])
