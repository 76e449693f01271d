"""The house rules that a machine can check: import direction, file length, nothing printed, no global random state."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ["errors", "files", "protocols", "resources", "kinds", "settings", "registry", "noise", "operators", "gmm", "stft", "compat", "data", "suites"]
LAYERS += ["metrics", "selection"]
LAYERS += ["run", "results", "report", "conformance", "cli"]
# protocols name types of later rooms for type checkers only; they are not imports at run time.
BASELINES_MAY_IMPORT = {"sepbench.errors", "sepbench.resources", "sepbench.protocols", "sepbench.settings", "sepbench.noise", "sepbench.selection"}
BASELINES_MAY_IMPORT |= {"sepbench.files"}
BASELINES_MAY_IMPORT |= {"sepbench.operators", "sepbench.gmm", "sepbench.stft"}  # mathematics that everybody may use

SOURCES = sorted([*ROOT.glob("sepbench/**/*.py"), *ROOT.glob("baselines/**/*.py")])


def _runtime_imports(path: Path) -> list[str]:
    """Modules imported by a file, those under ``if TYPE_CHECKING`` left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def _layer(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "sepbench" and parts[1] in LAYERS else None


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for imported in _runtime_imports(path):
        if module.startswith("sepbench"):
            assert not imported.startswith("baselines"), f"{module} imports {imported}: sepbench never imports baselines"
            mine, other = _layer(module), _layer(imported)
            if mine and other:
                assert LAYERS.index(other) <= LAYERS.index(mine), f"{module} imports {imported}: later rooms import earlier ones, never back"
        elif imported.startswith("sepbench"):
            assert any(imported == allowed or imported.startswith(allowed + ".") for allowed in BASELINES_MAY_IMPORT), f"{module} imports {imported}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_is_short_and_opens_with_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    if path.name != "__init__.py" or text.strip():
        docstring = ast.get_docstring(ast.parse(text))
        assert docstring, f"{path} lacks an opening docstring"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_global_random_state_and_no_thread_calls(path: Path) -> None:
    code = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if "noqa: NPY002" not in line)
    for pattern in (r"torch\.manual_seed\(", r"np\.random\.(seed|rand|randn|randint)\(", r"set_num_threads\(", r"\brandom\.seed\("):
        assert not re.search(pattern, code), f"{path.name}: {pattern}"


def test_no_room_without_a_name() -> None:
    assert not [path for path in SOURCES if path.stem in {"utils", "util", "helpers", "misc", "common"}]


def test_every_layer_is_known() -> None:
    rooms = {p.stem if p.suffix == ".py" else p.name for p in (ROOT / "sepbench").iterdir() if not p.name.startswith(("_", "."))}
    assert rooms <= set(LAYERS), f"new rooms need a place in the order: {rooms - set(LAYERS)}"
