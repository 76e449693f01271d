"""Strict tables: values that are taken, and for each wrong one a line with file, key and what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sepbench.errors import SuiteError
from sepbench.suites.tables import Table, read_table


def _table(**values: Any) -> Table:
    return Table(values, "f.toml")


def test_values_that_are_taken() -> None:
    table = _table(a="x", n=3, s=["p", "q"], i=[1, 2], r=[0, 1], t={"u": {"v": 1}}, l=[{"w": 1}, {"w": 2}])
    assert (table.text("a"), table.integer("n"), table.optional_integer("n")) == ("x", 3, 3)
    assert (table.texts("s"), table.integers("i"), table.rows("r")) == (("p", "q"), (1, 2), (0, 1))
    assert table.tables("t")["u"].integer("v") == 1
    assert [one.integer("w") for one in table.array("l")] == [1, 2]
    assert "a" in table
    assert "b" not in table
    table.close()


def test_absent_keys_have_their_defaults_and_are_known() -> None:
    table = _table()
    assert (table.optional_integer("n"), table.rows("r"), table.array("l")) == (None, None, [])
    assert (table.text("a", "x"), table.integer("m", 7), table.texts("s", ()), table.tables("t", {})) == ("x", 7, (), {})
    assert table.choice("c", ("x", "y"), "y") == "y"
    table.close()
    for read in (table.text, table.integer, table.texts, table.integers, table.table):
        with pytest.raises(SuiteError, match=r"^f\.toml: key 'gone' is missing$"):
            read("gone")


@pytest.mark.parametrize(
    ("read", "value", "told"),
    [
        ("text", 3, "must be text, found 3"),
        ("integer", True, "must be a whole number, found True"),
        ("integer", 2.0, "must be a whole number, found 2.0"),
        ("texts", "x", "must be a list, found 'x'"),
        ("texts", ["x", 3], "must be a list of text, found 3 in it"),
        ("integers", [1, True], "must be a list of whole number, found True in it"),
        ("table", [1], "must be a table, found [1]"),
        ("array", [{}, 3], "must be a list of table, found 3 in it"),
        ("rows", [1], "must be [start, stop] with 0 <= start < stop; found [1]"),
        ("rows", [1, 2, 3], "found [1, 2, 3]"),
        ("rows", [2, 2], "found [2, 2]"),
        ("rows", [-1, 2], "found [-1, 2]"),
    ],
)
def test_a_wrong_value_is_told_with_its_key(read: str, value: object, told: str) -> None:
    with pytest.raises(SuiteError) as caught:
        getattr(_table(key=value), read)("key")
    assert str(caught.value).startswith("f.toml: key 'key' ")
    assert str(caught.value).endswith(told)


def test_a_choice_that_is_none() -> None:
    with pytest.raises(SuiteError, match=r"key 'c' must be one of x, y; found 'z'"):
        _table(c="z").choice("c", ("x", "y"))


def test_where_a_table_in_a_table_stands() -> None:
    outer = _table(task={"a": {"n": "x"}}, slot=[{"n": 1}, {"n": "x"}])
    with pytest.raises(SuiteError, match=r"^f\.toml \[task\] \[a\]: key 'n'"):
        outer.tables("task")["a"].integer("n")
    with pytest.raises(SuiteError, match=r"^f\.toml \[\[slot\]\] 2: key 'n'"):
        outer.array("slot")[1].integer("n")


def test_unknown_keys_are_told_with_the_nearest_or_with_all() -> None:
    near, far = _table(versoin=1), _table(zzz=1)
    for table in (near, far):
        table.optional_integer("version")
        table.text("name", "")
    with pytest.raises(SuiteError, match="unknown key 'versoin'; did you mean 'version'"):
        near.close()
    with pytest.raises(SuiteError, match="unknown key 'zzz'; known keys: name, version"):
        far.close()
    assert far.raw() == {"zzz": 1}
    far.close()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    with pytest.raises(SuiteError, match=f"^{path} cannot be read: No such file"):
        read_table(path)
    for content in (b"a = ", b"a = '\xff'"):
        path.write_bytes(content)
        with pytest.raises(SuiteError, match=f"^{path} is not valid TOML"):
            read_table(path)
    path.write_bytes(b"a = 3")
    table = read_table(path)
    assert (table.integer("a"), table.where) == (3, str(path))
