"""From ``--backend`` and ``--workers`` to a backend."""

from __future__ import annotations

import os
from importlib.metadata import entry_points

import torch

from sepbench.registry import nearest
from sepbench.run.backends import Backend
from sepbench.run.request import RequestError


def make_backend(name: str, workers: str, device: str) -> Backend:
    """The backend of a name.

    Args:
        name: registered name.
        workers: a number; ``auto`` for one per GPU, or one per core that this process may use divided by torch's threads; empty for the backend's own
            default, which is one process here and all that a cluster has there.
        device: where methods compute.

    Raises:
        UnknownNameError: no such backend.
        SepbenchError: not a number of workers, or the backend cannot work here.
    """
    if not workers:
        return backend_class(name)(None)
    if workers == "auto":
        return backend_class(name)(_usable(device) if name == "local" else None)
    if not workers.isdecimal() or int(workers) < 1:
        raise RequestError(f"--workers must be a number of at least 1, or auto, got {workers!r}")
    return backend_class(name)(int(workers))


def backend_class(name: str) -> type[Backend]:
    """The class behind a backend's name."""
    found = {point.name: point for point in entry_points(group="sepbench.backends")}
    if name not in found:
        raise nearest(name, sorted(found), "backend")
    loaded: type[Backend] = found[name].load()
    return loaded


def _usable(device: str) -> int:
    if device.startswith("cuda"):
        return max(1, torch.cuda.device_count())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // torch.get_num_threads())
