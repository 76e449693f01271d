"""A method's code is its own file and what it imports of its own package or folder: a changed helper is a changed method."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from baselines.average import Average
from baselines.projected import Projected
from sepbench.run import source
from sepbench.run.source import source_sha256


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def _digest(folder: Path, module: str = "plugin_method") -> str:
    source._imports.cache_clear()
    importlib.invalidate_caches()
    return source_sha256(importlib.import_module(module).Method)


def test_a_method_of_one_file_has_the_digest_of_that_file(folder: Path) -> None:
    path = folder / "plugin_method.py"
    path.write_text("import math\nimport torch\nclass Method: pass\n")
    assert _digest(folder) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_number_in_a_helper_beside_it_counts_and_a_stranger_does_not(folder: Path) -> None:
    (folder / "plugin_method.py").write_text("from plugin_helper import SCALE\nclass Method: pass\n")
    (folder / "plugin_helper.py").write_text("SCALE = 1.0\n")
    (folder / "plugin_stranger.py").write_text("SCALE = 1.0\n")
    first = _digest(folder)
    (folder / "plugin_stranger.py").write_text("SCALE = 0.5\n")
    assert _digest(folder) == first
    (folder / "plugin_helper.py").write_text("SCALE = 0.5\n")
    assert _digest(folder) != first


def test_relative_late_and_indirect_imports_of_a_package_count(folder: Path) -> None:
    package = folder / "plugin_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "method.py").write_text("class Method:\n    def fit(self):\n        from . import first\n")
    (package / "first.py").write_text("from .second import x\n")
    (package / "second.py").write_text("x = 1\n")
    first = _digest(folder, "plugin_package.method")
    (package / "second.py").write_text("x = 2\n")
    assert _digest(folder, "plugin_package.method") != first


def test_our_samplers_rest_on_what_they_share() -> None:
    found: dict[str, Path] = {}
    source._collect(Projected.__module__, Path(sys.modules[Projected.__module__].__file__ or ""), found)
    assert {"baselines.projected", "baselines.sampling.problem", "baselines.sampling.separator", "baselines.priors.weights_io"} <= set(found)
    assert not any(name.startswith("sepbench") for name in found)
    assert source_sha256(Projected) != source_sha256(Average)


def test_what_has_no_file_has_no_digest() -> None:
    assert source_sha256(int) == ""
