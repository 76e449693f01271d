"""Workers that are processes of their own: what they run is installed, not patched in."""

from __future__ import annotations

import os
from pathlib import Path

import deadly_methods
import pytest
from third_parties import package

HERE = Path(__file__).parent


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``deadly_methods`` registered as a distribution of its own, for this process and those that it starts; nothing of a test outlives it."""
    entries = {
        "sepbench.separators": {name: f"deadly_methods:{cls}" for name, cls in deadly_methods.METHODS.items()},
        "sepbench.datasets": {"digits/fading": "deadly_methods:DATA"},
    }
    folder = package(tmp_path / "site", "deadly-methods", entries)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(HERE)]))
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "cache"))
    return folder
