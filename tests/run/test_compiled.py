"""The digest of a class without a file: what changes it and what does not."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from sepbench.run.compiled import compiled_sha256
from sepbench.run.source import source_sha256

CELL = '''
from dataclasses import dataclass

LEVEL = 3
TABLE = (1, 2.5, "x")

class Base:
    def shared(self):
        return 1

def helper(x):
    return x * LEVEL

@dataclass
class Method(Base):
    """Words."""

    rank: int = 4

    @property
    def twice(self):
        return 2 * self.rank

    @staticmethod
    def scaled(x, by=2.0):
        return [helper(one) for one in x if one in {"a", "b", "c"}]

    def separate(self, x):
        # a remark
        return self.scaled(x) + list(TABLE)
'''


def cell(old: str = "", new: str = "") -> type:
    """The class as typed in, with a part replaced."""
    assert old in CELL
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(CELL.replace(old, new) if old else CELL, "<cell>", "exec"), names)
    return names["Method"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return 2 * self.rank", "return 3 * self.rank"),
        ("rank: int = 4", "rank: int = 5"),
        ("by=2.0", "by=2.5"),
        ("return x * LEVEL", "return x + LEVEL"),
        ("LEVEL = 3", "LEVEL = 4"),
        ('TABLE = (1, 2.5, "x")', 'TABLE = (1, 2.5, "y")'),
        ("return 1", "return 2"),
        ('{"a", "b", "c"}', '{"a", "b", "d"}'),
        ("class Method(Base)", "class Method(dict)"),
    ],
)
def test_what_it_does_is_in_the_digest(old: str, new: str) -> None:
    assert compiled_sha256(cell(old, new)) != compiled_sha256(cell())


@pytest.mark.parametrize(("old", "new"), [("# a remark", "# another"), ('"""Words."""', '"""Other words."""'), ("LEVEL = 3", "LEVEL = 3\nFREE = 9"), ("", "")])
def test_what_it_says_is_not(old: str, new: str) -> None:
    assert compiled_sha256(cell(old, new)) == compiled_sha256(cell())


def test_it_is_the_same_in_every_process() -> None:
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_compiled as t; print(t.compiled_sha256(t.cell()))"  # noqa: PTH120
    found = {subprocess.check_output([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": str(seed)}, text=True).strip() for seed in (1, 2)}
    assert found == {compiled_sha256(cell())}


def test_a_console_that_has_a_file_is_not_the_file_of_what_is_typed_into_it() -> None:
    """pytest's own ``__main__`` has one here, as PyCharm's console has."""
    assert source_sha256(cell()) == compiled_sha256(cell())
    assert source_sha256(cell("LEVEL = 3", "LEVEL = 4")) != source_sha256(cell())


def test_what_has_no_code_in_python_has_no_digest() -> None:
    assert compiled_sha256(int) == ""
    assert compiled_sha256(len) == ""  # type: ignore[arg-type]


# ---- one part of a class after the other -----------------------------------------------------------------------------------------------

PARTS = '''
import math

WEIGHTS = [1, 2.5, b"x", 3j, None, True, (1, ["y"])]

def named(x, *, by=2.0, to=1):
    return len(x)

def made(factor):
    def inner(self, x):
        return factor * x
    return inner

def endless(x):
    return endless(x - 1) if x else unset

def late():
    def inner(self):
        return later
    if WEIGHTS is None:
        later = 1
    return inner

class Aside:
    level = 7

class Method:
    """Words."""

    kind = "plain"
    scaled = made(3)
    lacks = late()
    aside = Aside

    @property
    def gain(self):
        return self._gain

    @gain.setter
    def gain(self, value):
        self._gain = value + 1

    @classmethod
    def default(cls, size=4):
        return cls(math.sqrt(size))

    def separate(self, x):
        weighted = [one * 5 for one in x if one in {"a", "b"}]
        return endless(named(weighted, by=WEIGHTS)) * (x.high - x.low)
'''


def parts(old: str = "", new: str = "", module: str = "__main__") -> str:
    assert old in PARTS
    names: dict[str, Any] = {"__name__": module}
    exec(compile(PARTS.replace(old, new, 1) if old else PARTS, "<cell>", "exec"), names)
    return compiled_sha256(names["Method"])


COUNTS = {
    "a setter": ("value + 1", "value + 2"),
    "a getter": ("return self._gain", "return self._gains"),
    "a class method": ("math.sqrt(size)", "math.exp(size)"),
    "a default": ("size=4", "size=5"),
    "a default of a keyword": ("by=2.0", "by=2.5"),
    "the second default of a keyword": ("to=1", "to=2"),
    "the name of a keyword": ("*, by=2.0, to=1", "*, by=2.0, at=1"),
    "a function that is looked up": ("return len(x)", "return sum(x)"),
    "a value that a function was made with": ("made(3)", "made(4)"),
    "the function inside the one that made it": ("return factor * x", "return factor + x"),
    "an element of a list": ("[1, 2.5,", "[1, 2.25,"),
    "bytes": ('b"x"', 'b"y"'),
    "a complex number": ("3j", "4j"),
    "nothing instead of a truth": ("None, True", "None, None"),
    "an element of a list in a tuple": ('["y"]', '["z"]'),
    "a text of the class": ('kind = "plain"', 'kind = "odd"'),
    "another class of the module": ("level = 7", "level = 8"),
    "a number in a comprehension": ("one * 5", "one * 6"),
    "a set": ('{"a", "b"}', '{"a", "c"}'),
    "a name that is not there yet": ("else unset", "else gone"),
    "a name of the class": ("lacks = late()", "needs = late()"),
    "order of two names": ("x.high - x.low", "x.low - x.high"),
    "a base of another module": ("class Method:", "class Method(ArithmeticError):"),
    "a name with underscores": ('kind = "plain"', 'kind = "plain"\n    __complete__ = True'),
    "slots": ("self._gain = value + 1", "self._gain = value + 1\n\n    __slots__ = ('more',)"),
}


@pytest.mark.parametrize("case", COUNTS)
def test_every_part_of_what_it_does_counts(case: str) -> None:
    assert parts(*COUNTS[case]) not in ("", parts())


COUNTS_NOT = {
    "words": ('"""Words."""', '"""Others."""'),
    "lines above": ("WEIGHTS = [", "\n\n\nWEIGHTS = ["),
    "order of a set": ('{"a", "b"}', '{"b", "a"}'),
    "what nobody names": ("class Aside:", "FREE = 3\n\nclass Aside:"),
    "an import that nobody names": ("import math", "import math, os"),
    "what pydantic notes of a class": ('kind = "plain"', 'kind = "plain"\n    __pydantic_complete__ = True'),
}


@pytest.mark.parametrize("case", COUNTS_NOT)
def test_what_changes_nothing_does_not_count(case: str) -> None:
    assert parts(*COUNTS_NOT[case]) == parts()


def test_what_comes_from_elsewhere_counts_by_its_name_alone() -> None:
    """A function of another module is a package's, which counts by its version."""
    here = parts("import math", "from math import sqrt as named_elsewhere\nimport math")
    assert here == parts()
    by_name = [parts("return len(x)", f"return {name}(x)") for name in ("math.sqrt", "math.exp", "len")]
    assert len(set(by_name)) == 3
    assert parts(module="typed_in_elsewhere") != ""


def test_a_base_of_another_module_counts_by_its_name_alone() -> None:
    def below(number: int) -> str:
        theirs: dict[str, Any] = {"__name__": "theirs"}
        exec(f"class Base:\n    level = {number}\n    def fit(self): return {number}", theirs)
        names: dict[str, Any] = {"__name__": "__main__", "Base": theirs["Base"]}
        exec("class Method(Base):\n    def separate(self, x): return x", names)
        return compiled_sha256(names["Method"])

    assert below(1) == below(2) != ""


def test_a_class_whose_functions_are_all_of_its_bases_has_the_digest_of_theirs() -> None:
    def typed(body: str) -> type:
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(f"class Base:\n    def separate(self, x): return {body}\nclass Method(Base):\n    level = 3", names)
        return names["Method"]  # type: ignore[no-any-return]

    assert compiled_sha256(typed("x")) == compiled_sha256(typed("x")) != ""
    assert compiled_sha256(typed("x")) != compiled_sha256(typed("-x"))
