"""Draws faults by machine, for whoever writes tests: a list for ``planted_faults.py --list``. It is no measure, since nobody judges what a fault changes.

    python benchmarks/draw_mutants.py --seed 1 --number 100 [--under sepbench/report sepbench/cli] --out FILE

Every executable line (``draw_fault_places.executable_lines``) has the same chance. The statement of that line is changed in one place, drawn from all that
can be changed: a comparison, an operator, a number, a word, a truth value, a condition that is turned round or forgotten, an argument that is left out,
two arguments in each other's place, a call that is forgotten. Many of them are faults; some change nothing for anybody, and a reader has to tell them apart.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path

from draw_fault_places import executable_lines

ROOT = Path(__file__).resolve().parent.parent
OTHER: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.And: ast.Or,
    ast.Or: ast.And, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
"""What stands in the place of an operator."""


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What can be made of one node: in words, and the node that takes its place."""
    made = copy.deepcopy(node)
    if isinstance(made, ast.Compare):
        made.ops[0] = OTHER[type(made.ops[0])]()
        yield "comparison", made
    elif isinstance(made, ast.BinOp) and type(made.op) in OTHER:
        made.op = OTHER[type(made.op)]()
        yield "operator", made
    elif isinstance(made, ast.BoolOp):
        made.op = OTHER[type(made.op)]()
        yield "operator", made
        yield "condition forgotten", made.values[0]
    elif isinstance(made, ast.UnaryOp):
        yield "sign or not forgotten", made.operand
    elif isinstance(made, ast.IfExp):
        yield "condition turned round", ast.IfExp(made.test, made.orelse, made.body)
    elif isinstance(made, ast.Constant):
        yield from _other_constant(made)
    elif isinstance(made, ast.Call):
        yield from _other_calls(made)
    elif isinstance(made, ast.comprehension) and made.ifs:
        made.ifs = made.ifs[1:]
        yield "filter forgotten", made


def _other_constant(node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.value, bool):
        yield "truth value", ast.Constant(not node.value)
    elif isinstance(node.value, int | float):
        yield "number", ast.Constant(node.value + 1 if isinstance(node.value, int) else node.value * 1.5 + 0.1)
    elif isinstance(node.value, str) and node.value.strip():
        yield "word", ast.Constant(node.value + "x" if node.value.isidentifier() else node.value[: len(node.value) // 2])


def _other_calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    for at in range(len(node.keywords)):
        yield "argument left out", ast.Call(node.func, node.args, node.keywords[:at] + node.keywords[at + 1 :])
    if len(node.args) > 1:
        yield "argument left out", ast.Call(node.func, node.args[:-1], node.keywords)
        yield "arguments swapped", ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
    if len(node.args) == 1 and not node.keywords:
        yield "call forgotten", node.args[0]


class _Replace(ast.NodeTransformer):
    """One node of a tree by another."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self._new if node is self._old else super().visit(node)


def statement_of(tree: ast.Module, line: int) -> ast.stmt | None:
    """The innermost simple statement of a line, or the compound one of whose head it is part."""
    holding = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0)]
    return max(holding, key=lambda node: (node.lineno, -(node.end_lineno or 0)), default=None)


def expressions_of(statement: ast.stmt, line: int) -> list[ast.expr]:
    """What can be changed in a statement, of a compound one in its head, on a line."""
    bodies = {id(inner) for part in ("body", "orelse", "finalbody", "handlers") for child in getattr(statement, part, ()) for inner in ast.walk(child)}
    quoted = {id(inner) for node in ast.walk(statement) if isinstance(node, ast.JoinedStr) for inner in ast.walk(node)}
    types = [getattr(node, part, None) for node in ast.walk(statement) for part in ("annotation", "returns")]
    named = {id(inner) for node in types if node is not None for inner in ast.walk(node)}
    raised = {id(statement.exc)} if isinstance(statement, ast.Raise) else set()
    own = [node for node in ast.walk(statement) if isinstance(node, ast.expr) and id(node) not in bodies | quoted | named | raised]
    return [node for node in own if node.lineno <= line <= (node.end_lineno or 0) <= node.lineno + 2]


def mutant(source: str, line: int, draw: random.Random) -> tuple[str, str, str] | None:
    """A fault on a line: its kind, the text and what takes its place; none where nothing there can be changed, or the text stands twice in the file."""
    statement = statement_of(ast.parse(source), line)
    if statement is None:
        return None
    options = [(node, *made) for node in expressions_of(statement, line) for made in changes(node)]
    draw.shuffle(options)
    for node, kind, new in options:
        before = ast.get_source_segment(source, node)
        after = ast.unparse(ast.fix_missing_locations(new))
        if before is None or (isinstance(node, ast.Constant) and before[:1] not in "\"'0123456789TF."):
            continue
        found = _unique(source, node, before, f"({after})" if isinstance(node, ast.BinOp | ast.BoolOp | ast.IfExp | ast.Compare) else after)
        if found is not None:
            return kind, *found
    return None


def _unique(source: str, node: ast.expr, before: str, after: str) -> tuple[str, str] | None:
    """A text that stands once in the file around a node, and the same with its change."""
    lines = source.splitlines(keepends=True)
    above = sum(len(line) for line in lines[: node.lineno - 1])
    start = above + len(lines[node.lineno - 1].encode()[: node.col_offset].decode())
    end = start + len(before)
    left, right = source.rfind("\n", 0, start) + 1, source.find("\n", end)
    for _ in range(3):
        text = source[left:right]
        changed = source[left:start] + after + source[end:right]
        if source.count(text) == 1:
            try:
                compile(source[:left] + changed + source[right:], "mutant", "exec")
            except SyntaxError:
                return None
            return text, changed
        left = source.rfind("\n", 0, left - 1) + 1
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--under", nargs="+", default=["sepbench", "baselines"], help="folders or files")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    files = [file for name in given.under for file in ([ROOT / name] if (ROOT / name).is_file() else sorted((ROOT / name).rglob("*.py")))]
    sources = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}
    places = [(path, line) for path, source in sources.items() for line in executable_lines(source)]
    draw = random.Random(given.seed)
    draw.shuffle(places)
    entries: list[str] = []
    for path, line in places:
        made = mutant(sources[path], line, draw)
        if made is not None and len(entries) < given.number:
            kind, text, to = made
            fields = {"kind": kind, "file": path, "text": text, "to": to, "why": f"drawn, line {line}"}
            entries.append("\n".join(["[[fault]]", *(f"{name} = {json.dumps(value)}" for name, value in fields.items()), "tests = []"]))
    given.out.write_text("\n\n".join(["[wider]", *entries]) + "\n", encoding="utf-8")
    print(f"{len(entries)} faults in {given.out}, {len(places)} lines")


if __name__ == "__main__":
    main()
