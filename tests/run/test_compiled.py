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
