"""Which tests run a line of code, from a map that coverage.py has made; ``planted_faults.py --covered`` reads it.

    pip install coverage pytest-cov
    python -m pytest -n 2 --cov=sepbench --cov=baselines --cov-context=test --cov-report=

makes the map (``.coverage``) of the commit that is checked out; two cores need half an hour. ``results/covering_tests_8363d76.sqlite.xz`` is that of
commit 8363d76, without slow tests and without what tests run in processes of their own; ``results/covering_tests_b473069.sqlite.xz`` is that of the test
files that changed until b473069. Maps of earlier commits are in the history. Later commits use a map too: a line that is still there is found by
its text. A fault is given the tests that run its statement, the most specific first, that is those that run the fewest lines of the project in all. A
statement that only an import runs (a default, a table; whatever stands in no function) is given the tests that run anything of its file. Those come first
that spend the greatest share of their lines on it.
"""

from __future__ import annotations

import ast
import difflib
import lzma
import sqlite3
import subprocess
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from functools import cache
from pathlib import Path

Map = dict[str, dict[int, set[str]]]
"""Of every file, which tests run which line."""


class CoveringTests:
    """Maps, each of a commit; tests that came later have one of their own.

    Args:
        maps: files ``.coverage``, made with ``--cov-context=test``, packed (``.xz``) or not, and the commits that they were made of.
        root: the repository.
    """

    def __init__(self, maps: Sequence[tuple[Path, str]], root: Path) -> None:
        self._root = root
        self._size: Counter[str] = Counter()
        self._maps = [(self._read(file), commit) for file, commit in maps]

    def _read(self, map_file: Path) -> Map:
        found: Map = defaultdict(lambda: defaultdict(set))
        packed = map_file.read_bytes()
        with closing(sqlite3.connect(":memory:")) as store:
            store.deserialize(lzma.decompress(packed) if map_file.suffix == ".xz" else packed)
            query = "select file.path, context.context, numbits from line_bits join file on file.id = file_id join context on context.id = context_id"
            for path, context, bits in store.execute(query):
                if context:
                    lines = [number * 8 + bit for number, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1]
                    self._size[_test(context)] += len(lines)
                    for line in lines:
                        found[_in_project(path)][line].add(_test(context))
        return found

    def of(self, file: str, text: str) -> list[str]:
        """Tests for a text that stands once in a file of the checked out commit, those first that are to be run first; none where nothing runs the file."""
        statement = _statement(self._root / file, text)
        tests: set[str] = set()
        share: Counter[str] = Counter()
        for known, commit in self._maps:
            for line in _then(commit, file, self._root, statement):
                tests |= known[file].get(line, set())
            share.update(test for of_line in known[file].values() for test in of_line)
        if tests and _is_called(self._root / file, min(statement)):
            return sorted(tests, key=lambda test: (self._size[test], test))
        return sorted(share, key=lambda test: (-share[test] / self._size[test], test))


def _then(commit: str, file: str, root: Path, lines: set[int]) -> list[int]:
    """The numbers that lines of today had in a commit."""
    before, after = _text_at(commit, file, root).splitlines(), (root / file).read_text(encoding="utf-8").splitlines()
    same = difflib.SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    return [block.a + number - block.b + 1 for block in same for number in range(block.b, block.b + block.size) if number + 1 in lines]


def _in_project(path: str) -> str:
    parts = Path(path).parts
    return "/".join(parts[next(place for place in reversed(range(len(parts))) if parts[place] in ("sepbench", "baselines")) :])


def _test(context: str) -> str:
    """A test's id; for what prepares several tests, their file."""
    name, _, phase = context.rpartition("|")
    return name if phase == "run" else name.partition("::")[0]


def _statement(path: Path, text: str) -> set[int]:
    """Numbers of the lines of the innermost statement at which a text begins, without the statements inside it."""
    source = path.read_text(encoding="utf-8")
    first = source[: source.index(text)].count("\n") + 1
    last = first + text.rstrip("\n").count("\n")
    holding = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt) and node.lineno <= first <= (node.end_lineno or 0)]
    if not holding:
        return set(range(first, last + 1))
    inner = max(holding, key=lambda node: node.lineno)
    body = getattr(inner, "body", None)
    upto = min(inner.end_lineno or first, body[0].lineno - 1) if body else inner.end_lineno or first
    return set(range(inner.lineno, max(upto, inner.lineno) + 1)) | set(range(first, last + 1))


def _is_called(path: Path, line: int) -> bool:
    """Whether a line stands in a function. The map holds others against whichever test was the first to import their file."""
    functions = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return any(node.body[0].lineno <= line <= (node.end_lineno or 0) for node in functions)


@cache
def _text_at(commit: str, file: str, root: Path) -> str:
    return subprocess.run(["git", "-C", str(root), "show", f"{commit}:{file}"], capture_output=True, text=True, check=False).stdout
