"""Draws the places at which a list of planted faults, ``planted_faults_4.toml`` to ``planted_faults_7.toml``, breaks the program.

    python benchmarks/draw_fault_places.py [--list 4|5|6|7] [--check]

A place is one executable line of a Python file of ``sepbench/`` or ``baselines/`` at the list's commit in ``DRAWS``; every such line has the same chance,
so large files are drawn often and nobody chooses what is easy to break. No place are blank lines, comments, docstrings, imports, ``__all__``, names that
are only annotated, the heads of classes, those of functions without a default on that line, and lines of nothing but brackets or such words as ``else``,
``try`` and ``pass``.

Prints one place a line, in the order of the draw; of the newest list unless ``--list`` names another. ``--check`` says instead what is wrong with the
list: a fault that does not apply to the files of its commit, that changes no line of the statement drawn, or a place among those used that has neither a
fault nor a reason for passing it over.
"""

from __future__ import annotations

import argparse
import ast
import io
import random
import re
import subprocess
import tarfile
import tokenize
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
IDLE = {"else", "try", "finally", "pass", ":", "(", ")", "[", "]", "{", "}", ",", "..."}
IGNORED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
PLACED = re.compile(r"^# place (\d+): (\S+):(\d+)(?: (skipped): (\S+))?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Draw:
    """How the places of a list are drawn: from the files of which commit, with which seed, and how many."""

    commit: str
    seed: int
    number: int


DRAWS = {  # by the number of the list
    4: Draw("dcfb8e6", 20261127, 160),
    5: Draw("91a65ac", 20261128, 180),
    6: Draw("221b14b", 20261129, 180),
    7: Draw("588e574", 20261130, 180),
}


def read_sources(commit: str) -> dict[str, str]:
    """The text of every Python file of the two packages at a commit, by its path."""
    packed = subprocess.run(["git", "-C", str(HERE.parent), "archive", commit, "sepbench", "baselines"], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = [one for one in archive.getmembers() if one.isfile() and one.name.endswith(".py")]
        return {one.name: archive.extractfile(one).read().decode() for one in sorted(members, key=lambda one: one.name)}  # type: ignore[union-attr]


def _lines(node: ast.AST) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))  # type: ignore[attr-defined]


def _says_nothing(node: ast.AST) -> set[int]:
    """The lines of a node that are no place."""
    if isinstance(node, ast.Import | ast.ImportFrom) or (isinstance(node, ast.AnnAssign) and node.value is None):
        return _lines(node)
    if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets):
        return _lines(node)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return _lines(node)
    if isinstance(node, ast.ClassDef):
        return set(range(node.lineno, node.body[0].lineno))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        defaults = (one for one in (*node.args.defaults, *node.args.kw_defaults) if one is not None)
        return set(range(node.lineno, node.body[0].lineno)).difference(*map(_lines, defaults))
    return set()


def executable_lines(source: str) -> list[int]:
    """Numbers of the lines that are a place, counted from 1."""
    said: dict[int, set[str]] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in IGNORED:
            for line in range(token.start[0], token.end[0] + 1):
                said.setdefault(line, set()).add(token.string)
    silent = {line for node in ast.walk(ast.parse(source)) for line in _says_nothing(node)}
    return sorted(line for line, words in said.items() if words - IDLE and line not in silent)


def draw_places(drawn: Draw, sources: dict[str, str]) -> list[tuple[str, int]]:
    """Different places, a path and a line each, in the order of the draw."""
    places = [(path, line) for path, source in sources.items() for line in executable_lines(source)]
    random.Random(drawn.seed).shuffle(places)
    return places[: drawn.number]


def statement_lines(source: str, line: int) -> set[int]:
    """The lines of the smallest statement around a line; of one that holds others, only its head."""
    found: list[range] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt | ast.ExceptHandler):
            first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
            last = node.body[0].lineno - 1 if getattr(node, "body", None) else node.end_lineno  # type: ignore[union-attr]
            found.append(range(first, max(first, last or first) + 1))
    return set(min((lines for lines in found if line in lines), key=lambda lines: max(lines) - min(lines)))


def problems(number: int) -> list[str]:
    """What is wrong with a list."""
    sources, text = read_sources(DRAWS[number].commit), (HERE / f"planted_faults_{number}.toml").read_text(encoding="utf-8")
    noted, places = PLACED.findall(text), draw_places(DRAWS[number], sources)
    wrong = [f"place {at}: not as drawn" for at, place in enumerate(places[: len(noted)], 1) if noted[at - 1][:3] != (str(at), place[0], str(place[1]))]
    used = [note for note in noted if not note[3]]
    for (at, path, line, _, _), fault in zip(used, tomllib.loads(text)["fault"], strict=True):
        source = sources[path]
        if fault["file"] != path or source.count(fault["text"]) != 1:
            wrong.append(f"place {at}: the text does not stand once in the file")
            continue
        first = source[: source.index(fault["text"])].count("\n") + 1
        if not statement_lines(source, int(line)) & set(range(first, first + fault["text"].count("\n") + 1)):
            wrong.append(f"place {at}: line {first} is no line of its statement")
        if ast.dump(ast.parse(source.replace(fault["text"], fault["to"]))) == ast.dump(ast.parse(source)):
            wrong.append(f"place {at}: changes nothing")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="check the list instead")
    parser.add_argument("--list", type=int, choices=sorted(DRAWS), default=max(DRAWS), help="number of the list; the newest unless told")
    given = parser.parse_args()
    if given.check:
        raise SystemExit("\n".join(problems(given.list)) or 0)
    drawn = DRAWS[given.list]
    print("\n".join(f"# place {at}: {path}:{line}" for at, (path, line) in enumerate(draw_places(drawn, read_sources(drawn.commit)), 1)))


if __name__ == "__main__":
    main()
