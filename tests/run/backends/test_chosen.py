"""From ``--backend`` and ``--workers`` to a backend."""

from __future__ import annotations

import os

import pytest

from sepbench.run.backends.chosen import make_backend
from sepbench.run.backends.local import LocalBackend


def test_a_number_of_workers() -> None:
    backend = make_backend("local", "3", "cpu")
    assert isinstance(backend, LocalBackend)
    assert backend.workers == 3
    assert make_backend("local", "", "cpu").workers == 1


def test_auto_divides_the_cores_of_this_process_by_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    assert make_backend("local", "auto", "cpu").workers == 4
    monkeypatch.setattr("torch.get_num_threads", lambda: 16)
    assert make_backend("local", "auto", "cpu").workers == 1


def test_auto_is_one_worker_per_gpu_and_one_for_a_gpu_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert make_backend("local", "auto", "cuda").workers == 4
    assert make_backend("local", "auto", "cuda:2").workers == 1
