"""One run of two methods, one of them nobody's entry point, for all tests of this folder that only read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from own_methods_toys import Shares

import sepbench
from sepbench import Run


@pytest.fixture(autouse=True)
def _isolated(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without a folder of their own go to a temporary one."""
    monkeypatch.chdir(data_home)


@pytest.fixture(scope="session")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """``average``, ``nmf`` and ``Shares(0.3)`` on twelve mixtures of two tasks."""
    home = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEPBENCH_CACHE", str(home / "cache"))
        yield sepbench.run("digits-pairs", methods=["average", "nmf", Shares(0.3)], limit=12, device="cpu", out=home / "run")
