"""``sepbench new-method NAME``: a package with one runnable method, its entry point and its test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_FILES = {"README.md.txt": "README.md", "test_method.py.txt": "test_{module}.py", "pyproject.toml.txt": "pyproject.toml"}
_NOTES = {
    False: "It is a Wiener filter: better than 'average' where classes differ; where all sources are of one class it is 'average', less what its ridge costs.",
    True: "The first run trains; the second takes the fit from the cache (sepbench cache list).",
}
"""What a newcomer will see and wonder about; by whether it is the template with a network."""


def new_method(
    name: Annotated[str, typer.Argument(help="Name of the method: lower-case letters, digits and single hyphens.")],
    into: Annotated[Path, typer.Option(help="Folder in which the package's folder is made.")] = Path(),
    trained: Annotated[bool, typer.Option("--trained", help="A method with a network: training, checkpoints, a cached fit, weights of your own.")] = False,
) -> None:
    """Write NAME/ with a method that runs as it is, to be changed into yours. Existing files are never overwritten."""
    import keyword
    import re
    from string import Template

    from sepbench.errors import SepbenchError
    from sepbench.registry import separator_names

    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise SepbenchError(f"{name!r} is no name for a method: use lower-case letters, digits and single hyphens, as in 'my-method'")
    if name in separator_names():
        raise SepbenchError(f"a method {name!r} is registered already; choose another name (see 'sepbench list methods')")
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module in _taken():
        why = "is a word of Python's" if keyword.iskeyword(module) else "is a Python package that is there already, and yours would hide it"
        raise SepbenchError(f"{module!r} {why}; choose another name, as in '{name}-net'")
    words = {"name": name, "module": module, "cls": "".join(part.capitalize() for part in name.split("-")), "title": name.replace("-", " ").capitalize()}
    folder = into / name
    if folder.exists():
        raise SepbenchError(f"{folder} exists; nothing was written. Choose another name or --into another folder")
    templates = Path(__file__).with_name("templates")
    try:
        folder.mkdir(parents=True)
        for template, target in {"trained.py.txt" if trained else "method.py.txt": "{module}.py", **_FILES}.items():
            text = Template((templates / template).read_text(encoding="utf-8")).substitute(words)
            (folder / target.format(module=module)).write_text(text, encoding="utf-8")
    except OSError as error:
        raise SepbenchError(f"cannot write {folder}: {error.strerror}; choose a writable folder with --into") from error
    typer.echo(f"{folder}/ written. Next:")
    typer.echo(f"  pip install --no-deps -e {folder}")
    typer.echo(f"  sepbench validate {name}")
    typer.echo(f"  sepbench run --suite digits-pairs --methods average,{name}")
    typer.echo(_NOTES[trained])


def _taken() -> set[str]:
    """Names under which Python, sepbench and installed packages are imported."""
    import sys
    from importlib.metadata import packages_distributions

    return {"sepbench", "baselines", *sys.stdlib_module_names, *packages_distributions()}
