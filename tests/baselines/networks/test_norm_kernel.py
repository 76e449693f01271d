"""The norms' kernel, run program by program on tensors in the place of a GPU: what it computes, what it reads, and how it is launched.

Triton itself comes with torch for CUDA alone; with it, ``tests/baselines/priors/test_engine.py`` runs the kernel in its interpreter too.
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

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import baselines.networks

FILE = Path(baselines.networks.__file__).with_name("norm_kernel.py")


@dataclass(frozen=True)
class Pointer:
    """Places in the memory that a tensor lies in."""

    memory: torch.Tensor
    place: Any = 0

    @classmethod
    def to(cls, tensor: torch.Tensor) -> Pointer:
        count = tensor.untyped_storage().nbytes() // tensor.element_size() - tensor.storage_offset()
        return cls(tensor.detach().as_strided((count,), (1,), tensor.storage_offset()))

    @property
    def dtype(self) -> SimpleNamespace:
        return SimpleNamespace(element_ty=self.memory.dtype)

    def __add__(self, more: Any) -> Pointer:
        return Pointer(self.memory, self.place + more)


class Programs:
    """What ``triton.jit`` makes of a function: programs one after the other, whose calls are written down."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        self.launches: list[dict[str, Any]] = []
        self.number: tuple[int, ...] = ()

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: Any, num_warps: int, **constants: Any) -> None:
            self.launches.append({"grid": grid, "num_warps": num_warps, **constants})
            given = [Pointer.to(one) if isinstance(one, torch.Tensor) else one for one in arguments]
            for self.number in product(*map(range, grid)):
                LANGUAGE.number = self.number
                self.function(*given, **constants)

        return launch


def load(pointer: Pointer, mask: torch.Tensor, other: float) -> torch.Tensor:
    place = torch.as_tensor(pointer.place).expand(mask.shape)
    return torch.where(mask, pointer.memory[torch.where(mask, place, 0)], torch.tensor(other, dtype=pointer.memory.dtype))


def store(pointer: Pointer, values: torch.Tensor, mask: torch.Tensor) -> None:
    assert values.dtype == pointer.memory.dtype
    pointer.memory[pointer.place[mask]] = values[mask]


LANGUAGE: Any = SimpleNamespace(
    number=(),
    program_id=lambda axis: torch.tensor(LANGUAGE.number[axis], dtype=torch.int32),
    arange=lambda start, end: torch.arange(start, end),
    sum=lambda values, axis: values.sum(axis),
    where=torch.where,
    sqrt_rn=torch.sqrt,
    exp=torch.exp,
    load=load,
    store=store,
    float32=torch.float32,
    int64=torch.int64,
    constexpr=int,
)


@pytest.fixture(scope="module")
def kernel() -> ModuleType:
    triton: Any = ModuleType("triton")
    triton.jit, triton.next_power_of_2, triton.language = Programs, lambda count: 1 << (count - 1).bit_length(), LANGUAGE
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "triton", triton)
        patched.setitem(sys.modules, "triton.language", LANGUAGE)
        spec = importlib.util.spec_from_file_location("norm_kernel_by_hand", FILE)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 1


def group_norm(groups: int, channels: int, affine: bool = True, eps: float = 1e-5) -> nn.GroupNorm:
    norm = nn.GroupNorm(groups, channels, eps, affine=affine).requires_grad_(False)
    if affine:
        norm.weight.copy_(features(channels, seed=5))
        assert norm.bias is not None
        norm.bias.copy_(features(channels, seed=6))
    return norm


def chunks(batch: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As the blocks of the U-Net have them: rows of one tensor, which lie twice as far apart as they are long."""
    first, second = features(batch, 2 * channels, seed=7)[:, :, None, None].chunk(2, 1)
    return first, second


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(("groups", "channels", "side"), [(2, 6, 3), (3, 3, 4), (1, 4, 5)])
def test_it_is_the_norm_then_scale_and_shift_then_silu(kernel: ModuleType, groups: int, channels: int, side: int, affine: bool, modulated: bool) -> None:
    x, norm = features(2, channels, side, side + 1), group_norm(groups, channels, affine, 1e-2)
    scale, shift = chunks(2, channels) if modulated else (None, None)
    wanted = norm(x) if scale is None or shift is None else norm(x) * scale + shift
    torch.testing.assert_close(kernel.norm_silu(x, norm, scale, shift), F.silu(wanted), rtol=1e-5, atol=1e-5)


def test_it_is_rounded_once_at_the_end(kernel: ModuleType) -> None:
    x, norm = features(2, 6, 3, 3).bfloat16(), group_norm(2, 6)
    scale, shift = (part.bfloat16() for part in chunks(2, 6))
    found = kernel.norm_silu(x, norm, scale, shift)
    wanted = F.silu(norm(x.float()) * scale.float() + shift.float())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted.bfloat16(), rtol=8e-3, atol=1e-3)


def test_features_and_rows_may_lie_anywhere(kernel: ModuleType) -> None:
    """Channels last, rows of different distances, columns that do not follow each other."""
    x, norm = features(2, 6, 3, 4), group_norm(3, 6)
    first, second = chunks(2, 6)
    wide = features(2, 18, seed=8)[:, ::3, None, None]
    for scale, shift in ((first, second.contiguous()), (first.contiguous(), second), (wide, second), (first, wide), (wide, wide)):
        found = kernel.norm_silu(x.contiguous(memory_format=torch.channels_last), norm, scale, shift)
        torch.testing.assert_close(found, F.silu(norm(x) * scale + shift), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "pixels", "block", "warps"), [(2, 256, 512, 2), (2, 512, 1024, 4), (2, 513, 2048, 4), (2, 2048, 4096, 8), (8, 2048, 16384, 8)]
)
def test_a_program_has_a_group_and_a_power_of_two_of_places(kernel: ModuleType, channels: int, pixels: int, block: int, warps: int) -> None:
    kernel._norm_silu.launches.clear()
    kernel.norm_silu(features(1, 2 * channels, 1, pixels), group_norm(2, 2 * channels))
    assert kernel._norm_silu.launches == [{"grid": (1, 2), "num_warps": warps, "GROUP": channels, "AFFINE": True, "MODULATED": False, "BLOCK": block}]


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("shape", [(1, 8, 1, 2049), (0, 8, 4, 4)], ids=["too large", "empty"])
def test_what_a_program_cannot_hold_is_torchs(kernel: ModuleType, shape: tuple[int, int, int, int], modulated: bool) -> None:
    kernel._norm_silu.launches.clear()
    x, norm = features(*shape).bfloat16(), group_norm(1, 8).bfloat16()
    scale, shift = chunks(shape[0], 8) if modulated else (None, None)
    found = kernel.norm_silu(x, norm, scale, shift)
    wanted = norm(x) if scale is None or shift is None else norm(x) * scale + shift
    assert torch.equal(found, F.silu(wanted).to(torch.bfloat16))
    assert found.dtype == torch.bfloat16
    assert kernel._norm_silu.launches == []
