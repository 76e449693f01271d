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


CODE = """
# A comment.
from pydantic import Field

RATE = 0.5
class Method:
    '''What it is.'''

    atoms: int = Field(16, ge=1, description="atoms per class")
    def fit(self, steps=3):
        '''Learn.'''
        return f"{steps:d}" + "words"
"""

SAME = {
    "comment": ("# A comment.", "# Quite another comment, and\n# a longer one."),
    "comment gone": ("# A comment.\n", ""),
    "docstring": ("What it is.", "What it was."),
    "docstring of a function": ("        '''Learn.'''\n", ""),
    "text below a constant": ("RATE = 0.5\n", "RATE = 0.5\n'''of learning'''\n"),
    "blank lines": ("RATE = 0.5", "\n\n\nRATE  =  0.5   # halved"),
    "description of a setting": ("atoms per class", "templates per class"),
    "line break": ("Field(16, ge=1,", "Field(\n        16,\n        ge=1,"),
}
OTHER = {
    "constant": ("RATE = 0.5", "RATE = 0.25"),
    "kind of a number": ("RATE = 0.5", "RATE = 1"),
    "default": ("steps=3", "steps=4"),
    "default of a setting": ("Field(16,", "Field(17,"),
    "bound": ("ge=1", "ge=0"),
    "operation": ('" + "', '" * "'),
    "words": ('"words"', '"Words"'),
    "empty words": ('"words"', '""'),
    "name": ("def fit", "def fits"),
    "order": ("from pydantic import Field\n\nRATE = 0.5\n", "RATE = 0.5\nfrom pydantic import Field\n"),
    "import": ("import Field", "import Field, BaseModel"),
}


@pytest.mark.parametrize("edit", SAME.values(), ids=SAME.keys())
def test_what_only_readers_see_does_not_count(folder: Path, edit: tuple[str, str]) -> None:
    assert _after(folder, edit) == _after(folder, ("", ""))


@pytest.mark.parametrize("edit", OTHER.values(), ids=OTHER.keys())
def test_what_the_code_does_counts(folder: Path, edit: tuple[str, str]) -> None:
    assert _after(folder, edit) != _after(folder, ("", ""))


def _after(folder: Path, edit: tuple[str, str]) -> str:
    assert edit[0] in CODE
    path = folder / "plugin_method.py"
    path.write_text(CODE.replace(*edit))
    return source._code_sha256(path)


@pytest.mark.parametrize("code", [b"def broken(:\n", b"x = 1\x00\n", b"\xff\xfe", b"x = 0x" + b"f" * 5000])
def test_what_is_no_python_counts_by_its_bytes(folder: Path, code: bytes) -> None:
    path = folder / "plugin_method.py"
    path.write_bytes(code)
    assert source._code_sha256(path) == hashlib.sha256(code).hexdigest()


def test_a_file_with_an_error_still_has_a_digest(folder: Path) -> None:
    (folder / "plugin_method.py").write_text("def late():\n    import plugin_helper\nclass Method: pass\n")
    (folder / "plugin_helper.py").write_text("def broken(:\n")
    first = _digest(folder)
    (folder / "plugin_helper.py").write_text("def broken(::\n")
    assert _digest(folder) != first


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
