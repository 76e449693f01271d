"""What methods say of themselves is remembered, and asked again when their code may have changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sepbench.errors import SepbenchError
from sepbench.registry import create_separator
from sepbench.run import method_infos as remembered
from sepbench.run.method_infos import FILE, method_infos

NAMES = ("average", "nmf", "no-such-method")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the methods that were asked."""
    names: list[str] = []

    def ask(name: str, **options: object) -> object:
        names.append(name)
        return create_separator(name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(remembered, "create_separator", ask)
    return names


def test_what_is_remembered_is_what_the_methods_say(cache: Path, asked: list[str]) -> None:
    first = method_infos(NAMES)
    assert set(asked) == {"average", "nmf"}
    asked.clear()
    again = method_infos(NAMES)
    assert asked == []
    assert [again[name] for name in NAMES[:2]] == [first[name] for name in NAMES[:2]]
    assert again["average"] == [create_separator("average").info]
    assert isinstance(again["no-such-method"], SepbenchError)


def test_a_changed_file_asks_again(cache: Path, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "method_infos_package"
    package.mkdir()
    source = package / "__init__.py"
    source.write_text("")
    real = remembered.points
    from importlib.metadata import EntryPoint

    more = {"of-the-test": EntryPoint("of-the-test", "method_infos_package:Nothing", remembered.SEPARATOR_GROUP)}
    monkeypatch.setattr(remembered, "points", lambda group: {**real(group), **more})
    monkeypatch.syspath_prepend(str(tmp_path))
    method_infos(["average"])
    asked.clear()
    method_infos(["average"])
    assert asked == []
    os.utime(source, ns=(1, 1))
    method_infos(["average"])
    assert asked == ["average"]


@pytest.mark.parametrize("content", ["", "{", '{"sources": "x"}', "[]", "\0"])
def test_a_damaged_file_is_no_error(content: str, cache: Path) -> None:
    method_infos(["average"])
    (cache / FILE).write_text(content)
    assert method_infos(["average"])["average"] == [create_separator("average").info]


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "file"))
    assert method_infos(["average"])["average"] == [create_separator("average").info]
