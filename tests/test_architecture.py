"""The house rules that a machine can check: import direction, rooms, one type per idea, file length, no global random state, tests that mirror the tree."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ["errors", "places", "files", "torch_later", "ambient", "protocols", "trainers", "resources", "kinds", "settings", "handed_over", "registry"]
LAYERS += ["precision", "memory", "noise_kernel", "noise", "operators", "gmm", "stft", "compat", "data", "suites", "metrics", "selection"]
LAYERS += ["run", "results", "report", "conformance", "cli", "api"]
# protocols name types of later rooms for type checkers only; they are not imports at run time.
BASELINES_MAY_IMPORT = {
    "sepbench.errors",
    "sepbench.resources",
    "sepbench.protocols",
    "sepbench.trainers",
    "sepbench.settings",
    "sepbench.noise",
    "sepbench.selection",
}
BASELINES_MAY_IMPORT |= {"sepbench.files", "sepbench.precision", "sepbench.memory"}
BASELINES_MAY_IMPORT |= {"sepbench.metrics.sets.extractors"}  # the contract of what gives features
BASELINES_MAY_IMPORT |= {"sepbench.operators", "sepbench.gmm", "sepbench.stft"}  # mathematics that everybody may use

ROOMS_MAY_IMPORT: dict[str, set[str]] = {
    "networks": set(),
    "priors": {"networks"},
    "decomposition": set(),
    "sampling": set(),  # of priors it knows the protocols
    "extractors": {"networks", "priors"},  # of priors: how weights and cards are written
    "training": {"networks", "priors", "sampling", "extractors"},
}
"""Rooms of ``baselines`` and the other rooms that they may import. Methods, the files directly there, may import every room and never each other."""
FINDS_PRIORS = "baselines/sampling/separator.py"
PRIORS_DOOR = "baselines.priors.for_task."
"""The one file of ``sampling`` that asks for the priors of a task, when it is asked to itself, and the one module that it asks."""

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


def test_imports_have_no_circle() -> None:
    """Those inside functions count too: a circle that is opened by importing late is a circle."""
    named = {".".join((path.parent if path.stem == "__init__" else path.with_suffix("")).relative_to(ROOT).parts): path for path in SOURCES}
    graph = {}
    for module, path in named.items():
        imported = {name if name in named else name.rpartition(".")[0] for name in _runtime_imports(path)}
        graph[module] = (imported & named.keys()) - {module}
    assert sum(map(len, graph.values())) > len(named)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" is imported by ".join(circle.args[1]))


def test_files_that_are_named_are_there() -> None:
    """Docstrings and comments name files of the project by the end of their path; a file that moves takes its name along."""
    readers = [path for folder in ("sepbench", "baselines", "benchmarks", "scripts", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
    there = [f"/{path.relative_to(ROOT).as_posix()}" for path in readers]
    named = [(path.name, found) for path in readers for found in re.findall(r"``([\w/]+\.py)``", path.read_text(encoding="utf-8"))]
    assert named
    assert not [(reader, found) for reader, found in named if not any(path.endswith(f"/{found}") for path in there)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_is_short_and_opens_with_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 400
    if path.name != "__init__.py" or text.strip():
        docstring = ast.get_docstring(ast.parse(text))
        assert docstring, f"{path} lacks an opening docstring"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_global_random_state_and_no_thread_calls(path: Path) -> None:
    if path.stem == "ambient":  # puts back what methods have set
        return
    code = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if "noqa: NPY002" not in line)
    for pattern in (r"torch\.manual_seed\(", r"np\.random\.(seed|rand|randn|randint)\(", r"set_num_threads\(", r"\brandom\.seed\("):
        assert not re.search(pattern, code), f"{path.name}: {pattern}"


def test_no_room_without_a_name() -> None:
    assert not [path for path in SOURCES if path.stem in {"utils", "util", "helpers", "misc", "common"}]


def test_every_layer_is_known() -> None:
    rooms = {p.stem if p.suffix == ".py" else p.name for p in (ROOT / "sepbench").iterdir() if not p.name.startswith(("_", ".")) and p.name != "py.typed"}
    assert rooms <= set(LAYERS), f"new rooms need a place in the order: {rooms - set(LAYERS)}"


METHODS = sorted((ROOT / "baselines").glob("[!_]*.py"))
IN_ROOMS = sorted((ROOT / "baselines").glob("*/*.py"))


def _room_of_baselines(module: str) -> str:
    """The room that a module of ``baselines`` lies in; of a file directly there, its own name."""
    return module.split(".")[1]


@pytest.mark.parametrize("path", METHODS, ids=lambda p: p.name)
def test_every_file_directly_in_baselines_is_a_method_with_an_entry_point(path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {target.partition(":")[0] for target in project["entry-points"]["sepbench.separators"].values()}
    assert f"baselines.{path.stem}" in named, f"{path.name} is no registered method: helpers live in rooms"


@pytest.mark.parametrize("path", METHODS, ids=lambda p: p.name)
def test_methods_import_rooms_and_never_each_other(path: Path) -> None:
    for imported in _runtime_imports(path):
        if imported.startswith("baselines."):
            assert _room_of_baselines(imported) in ROOMS_MAY_IMPORT, f"{path.name} imports {imported}: what methods share lives in a room"


@pytest.mark.parametrize("path", IN_ROOMS, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_of_baselines_import_what_they_may(path: Path) -> None:
    room = path.parent.name
    assert room in ROOMS_MAY_IMPORT, f"new rooms need a rule: {room}"
    allowed = ROOMS_MAY_IMPORT[room] | {room}
    for imported in _runtime_imports(path):
        if str(path.relative_to(ROOT)) == FINDS_PRIORS and imported.startswith(PRIORS_DOOR):
            continue
        if imported.startswith("baselines."):
            assert _room_of_baselines(imported) in allowed, f"{path} imports {imported}"
        if room == "networks":
            assert not imported.startswith("sepbench"), f"{path} imports {imported}: networks import nothing of the project"


def test_sampling_loads_no_prior_before_it_is_asked_to() -> None:
    module = ast.parse((ROOT / FINDS_PRIORS).read_text(encoding="utf-8"))
    assert not [n for n in module.body if isinstance(n, ast.ImportFrom) and n.module and n.module.startswith("baselines.priors")]


def test_one_type_per_idea() -> None:
    """No two public classes of one name; those of a command are its own."""
    found = defaultdict(list)
    for path in SOURCES:
        if path.parent.name != "cli":
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


def test_files_are_written_and_digested_in_one_place() -> None:
    """``sepbench.files`` alone renames finished files and reads digests of files."""
    pattern = re.compile(r"\bhashlib\.file_digest\(|\bmkstemp\(|\bNamedTemporaryFile\(|\bos\.(replace|rename)\(")
    found = [str(path.relative_to(ROOT)) for path in SOURCES if path.name != "files.py" and pattern.search(path.read_text(encoding="utf-8"))]
    assert found == []


def test_tests_mirror_the_tree() -> None:
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in (ROOT / "tests").rglob("test_*.py")} - {"."}
    rooms = {path.parent.relative_to(ROOT / "sepbench").as_posix() for path in SOURCES if path.is_relative_to(ROOT / "sepbench")}
    rooms |= {path.parent.relative_to(ROOT).as_posix() for path in SOURCES if path.is_relative_to(ROOT / "baselines")}
    assert folders <= rooms, f"no such room: {folders - rooms}"


@pytest.mark.parametrize("folder", ["baselines/networks", "baselines/priors", "baselines/sampling", "baselines/training", "baselines/extractors"])
def test_tests_of_a_room_name_its_files(folder: str) -> None:
    """``tests/baselines/priors/test_edm.py`` tests ``baselines/priors/edm.py``; a story that crosses files stands with the one that tells it."""
    files = {path.stem for path in (ROOT / folder).glob("*.py")}
    stories = {"class_wise_priors", "samplers", "samplers_by_hand", "steps_by_hand"}
    named = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / folder).glob("test_*.py")}
    assert named - stories <= files
