"""Configuration files: the core schema of YAML 1.2, keys once, and what is written is read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sepbench.cli.config_files import file_text, read_file, write_file
from sepbench.errors import SepbenchError

TEXTS = st.text(max_size=12) | st.sampled_from(["1e-3", "0o7", "0x1F", "no", "on", "~", "null", "1:30", "2024-01-01", ".inf", "+1", "=", "<<", "a\x85b", "# c"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.dictionaries(
    TEXTS, st.recursive(SCALARS, lambda one: st.lists(one, max_size=3) | st.dictionaries(TEXTS, one, max_size=3), max_leaves=6), max_size=4
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES, st.sampled_from([".yaml", ".json"]))
def test_what_is_written_is_read_back(tmp_path: Path, values: dict[str, Any], ending: str) -> None:
    path = tmp_path / f"file{ending}"
    path.write_text(file_text(values, ending, "head"), encoding="utf-8", newline="")
    assert repr(read_file(path)) == repr(values)


WORDS = {
    "1e-3": 0.001,
    "no": "no",
    "on": "on",
    "1:30": "1:30",
    "2024-01-01": "2024-01-01",
    "0x10": 16,
    "0o10": 8,
    "010": 10,
    "1_000": "1_000",
    "": None,
    "~": None,
}


@pytest.mark.parametrize(("word", "value"), WORDS.items(), ids=[word or "empty" for word in WORDS])
def test_words_mean_what_yaml_1_2_says(tmp_path: Path, word: str, value: object) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(f"key: {word}\n")
    assert repr(read_file(path)) == repr({"key": value})


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.yaml", "a: 1\na: 2\n", "a.yaml cannot be read: key 'a' is given twice"),
        ("a.yaml", "a: {b: 1, b: 2}\n", "key 'b' is given twice"),
        ("a.yaml", "? [1, 2]\n: 3\n", "a key must be a word"),
        ("a.yaml", "a: !!python/object:os.system x\n", "a.yaml cannot be read: could not determine a constructor"),
        ("a.yaml", "a: &x [*x]\n", "cannot be read"),
        ("a.json", '{"a": {"b": 1, "b": 2}}', "key 'b' is given twice"),
        ("a.json", "[" * 100_000, "a.json cannot be read"),
        ("a.toml", "a = 1\na = 2\n", "a.toml cannot be read"),
        ("a.yaml", "text", "a.yaml must hold keys with values"),
    ],
)
def test_files_that_cannot_be_read_are_one_line(tmp_path: Path, name: str, text: str, line: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(SepbenchError) as refused:
        read_file(path)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(SepbenchError, match=r"a\.yaml is not UTF-8 text"):
        read_file(path)


def test_a_file_with_other_words_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.yaml"
    write_file(path, "a: 1\n")
    write_file(path, "a: 1\n")
    with pytest.raises(SepbenchError, match="says something else"):
        write_file(path, "a: 2\n")
    assert path.read_text() == "a: 1\n"


# ---- YAML 1.2.2, section 10.3.2, word by word ------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
CORE: dict[str, list[tuple[str, Any]]] = {
    "nothing": [(word, None) for word in ("~", "null", "Null", "NULL")],
    "true": [(word, True) for word in ("true", "True", "TRUE")],
    "false": [(word, False) for word in ("false", "False", "FALSE")],
    "whole": [("0", 0), ("+12", 12), ("-12", -12), ("012", 12), ("-007", -7), ("0o17", 15), ("0x1F", 31), ("0xff", 255)],
    "fractions": [("1.", 1.0), ("1.5", 1.5), ("+.5", 0.5), ("-.5", -0.5), (".5e3", 500.0), ("1e3", 1000.0), ("1E+3", 1000.0), ("-1.5e-3", -0.0015)],
    "infinite": [(f"{sign}.{word}", -INF if sign == "-" else INF) for sign in ("", "+", "-") for word in ("inf", "Inf", "INF")],
    "undefined": [(f".{word}", NAN) for word in ("nan", "NaN", "NAN")],
    "words": [
        (word, word) for word in ("tRUE", "nULL", "yes", "off", "+", ".", "e3", "1e", "1_0", "-0x1F", "+0o7", "0o8", "-.nan", ".iNF", "1:2", "nan", "Nobody")
    ],
}


@pytest.mark.parametrize("kind", CORE)
def test_every_word_of_the_core_schema(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("".join(f"key{number}: {word}\n" for number, (word, _) in enumerate(CORE[kind])))
    found = read_file(path)
    assert [repr(found[f"key{number}"]) for number in range(len(CORE[kind]))] == [repr(value) for _, value in CORE[kind]]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"b": 1, "a": "x " * 200 + "y"}, f"b: 1\na: {'x ' * 200}y\n"),  # in the order that was given, one line each
        ({"a": (one := [1, 2]), "b": one}, "a:\n- 1\n- 2\nb:\n- 1\n- 2\n"),  # and not as a reference to the first
        ({"a": "ä\x85"}, 'a: "\\xE4\\N"\n'),  # a line end of Unicode that YAML would fold is escaped
        ({"a": "ä"}, "a: ä\n"),
    ],
)
def test_yaml_as_people_would_write_it(tmp_path: Path, values: dict[str, Any], text: str) -> None:
    assert file_text(values, ".yaml") == text
    (tmp_path / "a.yml").write_text(text, encoding="utf-8")
    assert read_file(tmp_path / "a.yml") == values


def test_json_is_written_over_several_lines_in_the_order_given() -> None:
    assert file_text({"b": 1, "a": ["ü", None]}, ".json", "no place for a comment") == '{\n  "b": 1,\n  "a": [\n    "ü",\n    null\n  ]\n}\n'


def test_a_file_that_is_no_text_is_there_and_says_something_else(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SepbenchError) as refused:
        write_file(path, "a: 1\n")
    assert str(refused.value) == f"{path} is there and says something else; remove it, or name another file"
    assert path.read_bytes() == b"\xff\xfe"


@pytest.mark.parametrize(("name", "text"), [("a.json", "null"), ("a.yaml", ""), ("a.yaml", "# nothing\n"), ("a.yaml", "~"), ("a.toml", "")])
def test_a_file_that_says_nothing_gives_no_options(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_file(tmp_path / name) == {}


@pytest.mark.parametrize("key", ["1", "1.5", "true", "~", "word"])
def test_a_key_is_a_single_word(tmp_path: Path, key: str) -> None:
    (tmp_path / "a.yaml").write_text(f"{key}: 2\n")
    assert list(read_file(tmp_path / "a.yaml").values()) == [2]
    (tmp_path / "a.yaml").write_text(f"{key}: 2\nx: 4\n{key}: 3\n")
    with pytest.raises(SepbenchError, match=r" is given twice$"):
        read_file(tmp_path / "a.yaml")
    for several in ("{a: 1}", "[1]"):
        (tmp_path / "a.yaml").write_text(f"? {several}\n: 3\n")
        with pytest.raises(SepbenchError, match=r"a key must be a word, got [\[{]"):
            read_file(tmp_path / "a.yaml")
