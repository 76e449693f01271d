"""Seconds and memory of a separation: device synchronised before and after, loading and writing left out; and memory that makes a CPU faster."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from sepbench.torch_later import torch

LATENCY_CALLS = 10
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""

_KEPT_BYTES, _LARGEST_KEPT_BLOCK = 1 << 30, 1 << 25
"""Free memory at the top of the heap that is not handed back, 1 GiB; blocks of 32 MiB and more (the most that glibc takes) are handed back at once."""


def synchronize(device: str) -> None:
    """Wait until everything queued on a GPU is done; nothing to wait for on the CPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


class Timer:
    """Context manager: ``seconds`` of wall clock between two synchronisations of ``device``."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds = 0.0

    def __enter__(self) -> Timer:
        synchronize(self.device)
        self._start = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:  # after an error the device may be in no state to wait for
            synchronize(self.device)
        self.seconds = time.perf_counter() - self._start


def latency(call: Callable[[int], float], calls: int = LATENCY_CALLS) -> float:
    """Median of ``call(0)`` .. ``call(calls - 1)``, each the seconds of separating one single mixture."""
    return statistics.median(call(number) for number in range(calls))


class PeakMemory:
    """Peak memory since the last ``reset``, in MB (10**6 bytes).

    On the CPU the resident set of the process: Linux keeps its maximum as ``VmHWM``, and writing 5 to ``/proc/self/clear_refs``
    sets it back to the present value. Where that is not allowed the maximum since the start of the process is all there is.
    On a GPU the most that torch had allocated on that device.
    """

    def __init__(self, device: str) -> None:
        self._gpu = torch.device(device) if torch.device(device).type == "cuda" else None

    def reset(self) -> None:
        if self._gpu is not None:
            torch.cuda.reset_peak_memory_stats(self._gpu)
            return
        try:
            _CLEAR.write_text("5")
        except OSError:  # no such file off Linux, no permission in some containers
            return

    def read(self) -> float:
        if self._gpu is not None:
            return torch.cuda.max_memory_allocated(self._gpu) / 1e6
        return resident_peak() / 1e6


def resident_peak() -> int:
    """Peak resident set of this process in bytes."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def keep_freed_memory() -> bool:
    """Ask glibc not to return the freed top of the heap to the kernel; returns whether it agreed, False under any other C library.

    By default every layer of a network frees its activations to the kernel and pages the next ones in again. Measured on the shipped MNIST
    prior (bfloat16, 64 images, one thread, CPU time per image of one process after the other): 3.3 ms so, 2.65 ms with the memory kept.
    No number changes. A user's own ``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_`` or ``GLIBC_TUNABLES`` is left alone.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)) and bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BLOCK))
