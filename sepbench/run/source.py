"""What a method's code is: its own file and the files of the same package or folder that it imports, so that a changed helper is a changed method."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from types import FunctionType

from sepbench.run.compiled import compiled_sha256


def source_sha256(cls: type) -> str:
    """SHA-256 of the code of a class: of its module, or of all modules that it rests on if there are several.

    A class that was typed into a notebook or at a prompt counts by its compiled code, see ``compiled.py``.

    What counts of a file is what it does: its syntax tree without comments, docstrings and the descriptions of settings, so
    that editing those does not make another run. A file that is no Python counts by its bytes.

    A method rests on the modules of its own package, or, outside a package, of its own folder, that it imports anywhere, and on those that they
    import. sepbench itself and other people's packages count by their versions.
    """
    own = _file_of_class(cls)
    if own is None:
        return compiled_sha256(cls)
    found: dict[str, Path] = {}
    _collect(cls.__module__, own, found)
    digests = {name: _code_sha256(path) for name, path in found.items()}
    if len(digests) <= 1:
        return next(iter(digests.values()), "")
    return hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


def _file_of_class(cls: type) -> Path | None:
    """The file that a class is written in; None if there is none.

    A console may well have a file that is its ``__main__``, its own: there a class is of that file only if one of its functions says so.
    """
    try:
        own = inspect.getsourcefile(cls)
    except (OSError, TypeError):
        return None
    if own is None or cls.__module__ != "__main__":
        return Path(own) if own is not None else None
    files = {Path(one.__code__.co_filename).absolute() for one in vars(cls).values() if isinstance(one, FunctionType)}
    return Path(own) if Path(own).absolute() in files else None


def _collect(module: str, path: Path, found: dict[str, Path]) -> None:
    if module in found or not path.is_file():
        return
    found[module] = path
    for name in _imports(path, module):
        top = name.partition(".")[0]
        if top == module.partition(".")[0] or (path.parent / f"{top}.py").is_file():
            file = _file_of(name)
            if file is not None:
                _collect(name, file, found)


@cache
def _imports(path: Path, module: str) -> tuple[str, ...]:
    """Names of modules that a file imports, at its top or inside a function; ``from a import b`` gives both ``a`` and ``a.b``."""
    tree = _parsed(path.read_bytes())
    if tree is None:
        return ()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return tuple(dict.fromkeys(name for node in ast.walk(tree) for name in _names(node, package)))


def _names(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parents = package.split(".")[: 1 - node.level or None] if node.level else []
        base = ".".join([*parents, *([node.module] if node.module else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


def _file_of(name: str) -> Path | None:
    """The source file of a module; a name that is no module, or is not there, has none."""
    try:
        spec = sys.modules[name].__spec__ if name in sys.modules else importlib.util.find_spec(name)
    except (ImportError, AttributeError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _parsed(code: bytes) -> ast.Module | None:
    """The syntax tree; None for what is no Python (ValueError: a NUL among the bytes)."""
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return None


def _code_sha256(path: Path) -> str:
    return _meaning_sha256(path.read_bytes())


@lru_cache(maxsize=512)
def _meaning_sha256(code: bytes) -> str:
    """SHA-256 of what a file's code does. Kept, because methods rest on the same modules, and a run asks for all of its methods."""
    tree = _parsed(code)
    if tree is not None:
        with contextlib.suppress(ValueError, RecursionError):  # numbers too long to print, expressions too deep
            code = _meaning(tree).encode(errors="surrogatepass")
    return hashlib.sha256(code).hexdigest()


def _meaning(node: object) -> str:
    """A syntax tree as text. Empty fields are left out, which later versions of Python add, and so are positions."""
    if isinstance(node, list):
        return f"[{','.join(_meaning(one) for one in node if not _is_docstring(one))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
    if isinstance(node, ast.Call) and _is_field(node.func):
        parts = [(name, [one for one in value if one.arg != "description"] if name == "keywords" else value) for name, value in parts]
    return f"{type(node).__name__}({','.join(f'{name}={_meaning(value)}' for name, value in parts)})"


def _is_docstring(node: object) -> bool:
    """A text that stands for itself does nothing, wherever it stands."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_field(function: ast.expr) -> bool:
    """Whether a call is ``Field(...)``, whose description is documentation."""
    return (isinstance(function, ast.Name) and function.id == "Field") or (isinstance(function, ast.Attribute) and function.attr == "Field")
