"""How many threads torch and BLAS use: set before they are imported, for they read it once."""

from __future__ import annotations

import os


def set_defaults() -> None:
    """One thread per process, and threads that wait sleep: what a user has set himself is left alone.

    With one thread everywhere the last bits of a result are the same on any number of cores and workers. GNU OpenMP lets threads that wait for each
    other spin, which makes small operations of torch several times slower where other work holds a core.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


def use_threads(count: int | None) -> None:
    """``--threads``: no effect once torch is imported, which a process that runs several commands may have done."""
    if count is not None:
        os.environ["OMP_NUM_THREADS"] = str(count)
