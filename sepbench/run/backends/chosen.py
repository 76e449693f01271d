"""From ``--backend`` and ``--workers`` to a backend."""

from __future__ import annotations

import os

import torch

from sepbench.registry import BACKEND_GROUP, load_entry
from sepbench.run.backends import Backend
from sepbench.run.request import RequestError


def make_backend(name: str, workers: str, device: str) -> Backend:
    """The backend of a name.

    Args:
        name: registered name.
        workers: a number; ``auto`` for one per GPU (one for a GPU that is named), or one per core that this process may use divided by torch's
            threads; empty for the backend's own default, which is one process here and all that a cluster has there.
        device: where methods compute.

    Raises:
        UnknownNameError: no such backend.
        SepbenchError: not a number of workers, or the backend cannot work here.
    """
    make: type[Backend] = load_entry(BACKEND_GROUP, name)
    if not workers:
        return make(None)
    if workers == "auto":
        return make(_usable(device) if name == "local" else None)
    if not workers.isdecimal() or int(workers) < 1:
        raise RequestError(f"--workers must be a number of at least 1, or auto, got {workers!r}")
    return make(int(workers))


def _usable(device: str) -> int:
    if device.startswith("cuda"):
        return 1 if ":" in device else max(1, torch.cuda.device_count())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // torch.get_num_threads())
