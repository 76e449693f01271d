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
