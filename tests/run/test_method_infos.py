"""What methods say of themselves is remembered, and asked again when their code may have changed."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from sepbench.errors import SepbenchError
from sepbench.handed_over import HandedOver, handed_over
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


def test_what_is_remembered_grows_and_keeps_every_kind_of_signal(cache: Path, asked: list[str]) -> None:
    def several(name: str) -> list[object]:
        found = method_infos([name])[name]
        assert isinstance(found, list)
        return list(found)

    wanted = [create_separator("nmf", domain=domain).info for domain in ("image", "audio")]
    first = several("nmf")
    assert first == [one for one in wanted if one in first]
    several("average")
    kept = json.loads((cache / FILE).read_text(encoding="utf-8"))
    assert set(kept["methods"]) == {"nmf", "average"}  # the first is still there
    asked.clear()
    assert several("nmf") == first
    assert asked == []
    assert list(method_infos(["average", "no-such-method", "nmf"])) == ["average", "no-such-method", "nmf"]
    assert "no-such-method" not in json.loads((cache / FILE).read_text(encoding="utf-8"))["methods"]


def test_a_method_that_a_program_hands_over_is_asked_every_time(cache: Path) -> None:
    versions = iter("123")
    average = create_separator("average")

    def made() -> object:
        own = create_separator("average")
        own.info = replace(average.info, name="mine", version=next(versions))  # type: ignore[misc]
        return own

    with handed_over([HandedOver("mine", "of the test", made)]):
        found = [method_infos(["mine", "average"])["mine"] for _ in range(2)]
    assert [[info.version for info in infos] for infos in found if isinstance(infos, list)] == [["1"], ["2"]]
    assert set(json.loads((cache / FILE).read_text(encoding="utf-8"))["methods"]) == {"average"}


@pytest.mark.parametrize("where", ["absent_package_of_the_test:X", "builtins:X", "json.decoder:X"])
def test_where_the_sources_cannot_be_told_nothing_is_remembered(cache: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A package that is not there, or no folder of files, may change behind one's back; another one is told by its files."""
    real = remembered.points
    monkeypatch.setattr(remembered, "points", lambda group: {**real(group), "odd": EntryPoint("odd", where, remembered.SEPARATOR_GROUP)})
    method_infos(["average"])
    method_infos(["average"])
    assert (cache / FILE).exists() == where.startswith("json")
    assert asked == ["average"] * (1 if where.startswith("json") else 2)


def test_another_set_of_entry_points_or_another_version_asks_again(cache: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    method_infos(["average"])
    real = remembered.points
    renamed = {**real(remembered.SEPARATOR_GROUP), "odd": EntryPoint("odd", "baselines.average:Average", remembered.SEPARATOR_GROUP)}
    with monkeypatch.context() as patched:
        patched.setattr(remembered, "points", lambda group: renamed)
        method_infos(["average"])
    assert asked == ["average"] * 2
    monkeypatch.setattr(remembered, "__version__", "0.0.of-the-test")
    method_infos(["average"])
    assert asked == ["average"] * 3
