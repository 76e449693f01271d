"""Running out of memory: told from other errors, and sizes that a device's memory allows."""

from __future__ import annotations

from sepbench.torch_later import torch

FULL_BYTES = 32 << 30
"""Memory of a GPU from which on sizes are not cut."""


def out_of_memory(error: BaseException) -> bool:
    """Whether less work at a time may succeed: torch's and Python's own errors, and what libraries below torch say."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    told = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in told)


def release(device: str | torch.device) -> None:
    """Hand back what torch keeps of a GPU's memory; to be called when nothing holds the tensors of what failed."""
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def scaled(most: int, device: str | torch.device) -> int:
    """``most`` on a GPU of 32 GiB and more, halved until it is in proportion on smaller ones, at least 1; ``most`` on the CPU."""
    if torch.device(device).type != "cuda":
        return most
    total = int(torch.cuda.get_device_properties(device).total_memory)
    share = FULL_BYTES
    while total < 0.7 * share and most > 1:  # a card of "24 GB" has less than 24 GiB
        share, most = share // 2, most // 2
    return most
