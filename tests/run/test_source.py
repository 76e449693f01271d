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


# ---- which files, and how they are put together ----------------------------------------------------------------------------------------


def _written(folder: Path, **files: str) -> None:
    """Files by dotted names; ``__init__`` files of their packages are made where none is given."""
    for name, text in files.items():
        path = folder.joinpath(*name.split("__of__")[::-1]).with_suffix(".py")
        for parent in path.relative_to(folder).parents:
            if parent != Path():
                (folder / parent).mkdir(parents=True, exist_ok=True)
                (folder / parent / "__init__.py").touch()
        path.write_text(text)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_method_alone_has_the_digest_of_its_file_and_several_files_that_of_their_sorted_names_and_digests(folder: Path) -> None:
    (folder / "plugin_method.py").write_text("class Method: pass\n")
    assert _digest(folder) == source._code_sha256(folder / "plugin_method.py")
    (folder / "plugin_late.py").write_text("import plugin_zeta, plugin_alpha\nclass Method: pass\n")
    (folder / "plugin_zeta.py").write_text("x = 1\n")
    (folder / "plugin_alpha.py").write_text("x = 2\n")
    parts = [f"{name} {source._code_sha256(folder / f'{name}.py')}\n" for name in ("plugin_alpha", "plugin_late", "plugin_zeta")]
    assert _digest(folder, "plugin_late") == _sha256("".join(parts))


@pytest.mark.parametrize(
    ("importing", "others"),
    [
        ("import plugin_first, plugin_second", ("plugin_first", "plugin_second")),
        ("import plugin_first as one", ("plugin_first",)),
        ("def f():\n    from plugin_second import x", ("plugin_second",)),
        ("try:\n    import plugin_nothing\nexcept ImportError:\n    import plugin_first", ("plugin_first",)),
        ("import json, math, sys", ()),
    ],
)
def test_every_import_of_a_line_counts_wherever_it_stands(folder: Path, importing: str, others: tuple[str, ...]) -> None:
    (folder / "plugin_method.py").write_text(f"{importing}\nclass Method: pass\n")
    for name in ("plugin_first", "plugin_second"):
        (folder / f"{name}.py").write_text("x = 1\n")
    source._imports.cache_clear()
    importlib.invalidate_caches()
    found: dict[str, Path] = {}
    source._collect("plugin_method", folder / "plugin_method.py", found)
    assert found == {name: folder / f"{name}.py" for name in ("plugin_method", *others)}


@pytest.mark.parametrize(
    ("module", "importing", "found"),
    [
        ("pack.sub.method", "from ..shared import x", ["pack.shared"]),
        ("pack.sub.method", "from .. import shared", ["pack", "pack.shared"]),
        ("pack.sub.method", "from . import near", ["pack.sub", "pack.sub.near"]),
        ("pack.sub.method", "from .near import x", ["pack.sub.near"]),
        ("pack.sub.method", "from pack import shared", ["pack", "pack.shared"]),
        ("pack.sub.method", "import pack.shared", ["pack.shared"]),
        ("pack.sub", "from . import near", ["pack.sub", "pack.sub.near"]),
        ("pack.sub", "from ..shared import x", ["pack.shared"]),
    ],
)
def test_relative_imports_are_those_of_the_package(folder: Path, module: str, importing: str, found: list[str]) -> None:
    """``pack.sub`` is the file ``__init__.py`` of a package: a dot means the package itself there."""
    _written(folder, method__of__sub__of__pack="", near__of__sub__of__pack="x = 1\n", shared__of__pack="x = 1\n")
    path = folder / "pack" / "sub" / ("method.py" if module.endswith("method") else "__init__.py")
    path.write_text(f"{importing}\nclass Method: pass\n")
    source._imports.cache_clear()
    importlib.invalidate_caches()
    seen: dict[str, Path] = {}
    source._collect(module, path, seen)
    assert list(dict.fromkeys([module, *found])) == list(seen)
    assert all(place.is_relative_to(folder / "pack") for place in seen.values())


def test_what_is_no_source_file_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "plugin_odd", object())  # type: ignore[arg-type]
    for name in ("", "sys", "plugin_nothing", "plugin_nothing.deeper", "plugin_odd", "math", "json.nothing"):
        assert source._file_of(name) is None, name
    assert source._file_of("json.decoder") == Path(importlib.import_module("json.decoder").__file__ or "")
    found: dict[str, Path] = {}
    source._collect("plugin_zipped", tmp_path / "archive.zip" / "plugin_zipped.py", found)
    assert found == {}


@pytest.mark.parametrize("error", [SyntaxError(), ValueError(), RecursionError()], ids=repr)
def test_code_that_cannot_be_read_as_python_has_no_imports_and_counts_by_its_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "deep.py"
    path.write_bytes(b"import json\n")

    def fails(code: bytes) -> None:
        raise error

    source._imports.cache_clear()
    monkeypatch.setattr(source.ast, "parse", fails)
    assert source._imports(path, "deep") == ()
    assert source._code_sha256(path) == _sha256("import json\n")
    monkeypatch.undo()
    source._imports.cache_clear()
    monkeypatch.setattr(source, "_meaning", lambda tree: fails(b""))
    if not isinstance(error, SyntaxError):
        assert source._code_sha256(path) == _sha256("import json\n")


@pytest.mark.parametrize("field", ["Field", "pydantic.Field"])
def test_only_the_description_of_a_field_is_words(field: str) -> None:
    def meaning(*arguments: str, function: str = field) -> str:
        return source._meaning(source.ast.parse(f"x = {function}({', '.join(arguments)})"))

    assert meaning("16", "description='a'", "ge=1") == meaning("16", "ge=1", "description='b'") == meaning("16", "ge=1")
    assert meaning("16", "title='a'") != meaning("16", "title='b'")
    assert meaning("16", "'a'") != meaning("16", "'b'")
    assert meaning("16", "ge=1") != meaning("17", "ge=1")
    other = "field" if field == "Field" else "pydantic.field"
    assert meaning("description='a'", function=other) != meaning("description='b'", function=other)
