"""Out of memory is told from other errors, and sizes follow a GPU's memory."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sepbench.memory import out_of_memory, release, scaled


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory(error: Exception, is_it: bool) -> None:
    assert out_of_memory(error) is is_it


@pytest.mark.parametrize(("gib", "rows"), [(141, 4096), (80, 4096), (31.5, 4096), (23.6, 4096), (16, 2048), (15.8, 2048), (11, 1024), (8, 1024), (4, 512)])
def test_sizes_follow_the_memory(monkeypatch: pytest.MonkeyPatch, gib: float, rows: int) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=int(gib * 2**30)))
    assert scaled(4096, "cuda:0") == rows
    assert scaled(1, "cuda") == 1
    assert scaled(4096, "cpu") == 4096
    assert scaled(3, "cuda:0") == (3 if rows == 4096 else max(1, 3 * rows // 4096))


def test_memory_is_handed_back_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: called.append("emptied"))
    release("cpu")
    assert called == []
    release("cuda:1")
    release(torch.device("cuda"))
    assert called == ["emptied"] * 2
