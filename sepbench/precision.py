"""What ``float32`` means on a GPU: float32, in products and convolutions alike.

torch computes float32 convolutions on CUDA in TF32 (10 bits of mantissa) unless it is told not to, and tells so nowhere. Here TF32 is a precision of
its own, by name; whatever says ``float32`` is computed in float32 on every device. The switches are global in torch, so they are only ever set for
the length of a block, and put back as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, runtime_checkable

from sepbench.protocols import Support
from sepbench.torch_later import torch

Precision = Literal["float32", "tf32", "bfloat16"]
"""Arithmetic of a network: float32; products of float32 numbers rounded to TF32 (CUDA only); bfloat16 under autocast."""


@runtime_checkable
class KnowsDevices(Protocol):
    """Optional, for separators with settings that not every device can keep (``tf32`` is an arithmetic of GPUs). Without it a method runs anywhere."""

    def supports_device(self, device: str) -> Support:
        """Whether it computes on ``cpu``, ``cuda`` or ``cuda:N`` as it is set; the reason in ``note`` if not. Asked when a run is planned."""


@contextmanager
def float32_products(device: str | torch.device, tf32: bool = False) -> Iterator[None]:
    """Matrix products, convolutions and recurrent layers of float32 tensors on ``device`` are computed in float32, or in TF32.

    Nothing happens for the CPU, whose float32 is float32. What was set before is there again after the block, also after an error.

    Args:
        device: where the block computes.
        tf32: round the factors to TF32.
    """
    if torch.device(device).type != "cuda":
        yield
        return
    before = _read()
    _set_legacy("high" if tf32 else "highest", tf32)
    try:
        yield
    finally:
        _restore(before)


def computes_bfloat16(device: str | torch.device) -> bool:
    """Whether torch has kernels for convolutions and products in bfloat16 there; always on a GPU.

    On processors without them, such as x86 with AVX2 alone, torch falls back to plain loops. A training step of our mask networks took 13 to 29
    times as long there as in float32 (AMD EPYC with AVX2, ``benchmarks/bfloat16_steps.py``).

    Returns:
        False also where torch cannot tell.
    """
    if torch.device(device).type != "cpu":
        return True
    asked = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None) if torch.backends.mkldnn.is_available() else None
    return asked is not None and bool(asked())


def has_narrow_map(size: tuple[int, int], halvings: int) -> bool:
    """Whether a network has a map that is 1 wide and more than 1 high. Its layers halve height and width, rounded down.

    This is for a fault of torch (2.13, on a CPU with AMX): a bfloat16 convolution of stride 2 onto such a map is wrong, and so is the gradient of a
    transposed one from it. Both hold what was in memory before, other numbers at every call, and often no finite ones. float32 is right, and so are
    maps that are 1 high.

    Args:
        size: height and width of the images, at least 1.
        halvings: how many layers of stride 2 there are.
    """
    height, width = size
    return any(width >> layer == 1 < height >> layer for layer in range(1, halvings + 1))


def training_autocast(device: str | torch.device, bfloat16: bool, cache_enabled: bool = True, *, narrow: bool = False) -> torch.autocast:
    """The block in which a training computes its networks: bfloat16 under autocast if it is wanted and the device computes it rightly, else float32.

    Args:
        device: of the networks.
        bfloat16: it is wanted.
        cache_enabled: autocast keeps rounded weights until the block ends.
        narrow: the networks have a map that CPUs compute wrongly, see ``has_narrow_map``.

    Example:
        ``with training_autocast("cpu", bfloat16=True): parts = network(mixtures)``
    """
    kind = torch.device(device).type
    enabled = bfloat16 and computes_bfloat16(device) and not (narrow and kind == "cpu")
    return torch.autocast(kind, torch.bfloat16, enabled=enabled, cache_enabled=cache_enabled)


@contextmanager
def as_the_session_says(device: str | torch.device) -> Iterator[None]:
    """Convolutions in the precision that ``torch.set_float32_matmul_precision`` names for products, which is the one that timing groups name.

    For methods that have no precision of their own: by torch's defaults their products are float32 and their convolutions TF32.
    """
    if torch.device(device).type != "cuda":
        yield
        return
    with float32_products(device, tf32=torch.get_float32_matmul_precision() != "highest"):
        yield


def _operations() -> tuple[Any, ...]:
    """Switches of torch >= 2.9, one per operation; none in older versions, which have the legacy ones alone."""
    names = (torch.backends.cuda.matmul, getattr(torch.backends.cudnn, "conv", None), getattr(torch.backends.cudnn, "rnn", None))
    return tuple(operation for operation in names if hasattr(operation, "fp32_precision"))


def _read() -> tuple[tuple[str, bool] | None, tuple[str, ...]]:
    """Legacy switches (None where somebody has set the new ones to what the legacy ones cannot say, which torch refuses to read) and new ones."""
    new = tuple(operation.fp32_precision for operation in _operations())
    try:
        return (torch.get_float32_matmul_precision(), bool(torch.backends.cudnn.allow_tf32)), new
    except RuntimeError:
        return None, new


def _set_legacy(products: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions


def _restore(before: tuple[tuple[str, bool] | None, tuple[str, ...]]) -> None:
    legacy, new = before
    if legacy is not None:
        _set_legacy(*legacy)
    for operation, value in zip(_operations(), new, strict=True):
        operation.fp32_precision = value
