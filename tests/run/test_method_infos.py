"""What methods say of themselves is remembered, and asked again when their code may have changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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


class Sources:
    """A package of two files and a module of one, an entry point each, beside a stand-in for sepbench; what a case changes of them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.version, self.entries = folder, monkeypatch, [("toy", "toys:Toy"), ("lone", "single:Lone")]
        for name in ("single.py", "toys/__init__.py", "toys/deep/more.py", "sepbench/__init__.py"):
            self.write(name, "12")
        places = {name: SimpleNamespace(submodule_search_locations=[str(folder / name)]) for name in ("toys", "sepbench")}
        places["single"] = SimpleNamespace(submodule_search_locations=None, origin=str(folder / "single.py"))
        monkeypatch.setattr(remembered.importlib.util, "find_spec", places.get)
        monkeypatch.setattr(remembered, "points", lambda group: {name: EntryPoint(name, value, group) for name, value in self.entries})

    def write(self, name: str, text: str, time: int = 5) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)
        os.utime(self.folder / name, ns=(time, time))


CHANGES: dict[str, tuple[bool, Callable[[Sources], object]]] = {
    "nothing": (False, lambda its: None),
    "the same again": (False, lambda its: its.write("toys/deep/more.py", "34")),  # size and time alone are looked at
    "a file that is no code": (False, lambda its: its.write("toys/notes.txt", "12")),
    "version": (True, lambda its: its.version.setattr(remembered, "__version__", "0.0.of-the-test")),
    "name of an entry": (True, lambda its: its.entries.__setitem__(0, ("other", "toys:Toy"))),
    "class of an entry": (True, lambda its: its.entries.__setitem__(0, ("toy", "toys:Other"))),
    "one more entry": (True, lambda its: its.entries.append(("other", "toys:Toy"))),
    "size": (True, lambda its: its.write("toys/deep/more.py", "123")),
    "time": (True, lambda its: its.write("toys/deep/more.py", "12", 6)),
    "name of a file": (True, lambda its: (its.folder / "toys/deep/more.py").rename(its.folder / "toys/deep/less.py")),
    "one more file": (True, lambda its: its.write("toys/deep/new.py", "12")),
    "a module": (True, lambda its: its.write("single.py", "123")),
    "sepbench itself": (True, lambda its: its.write("sepbench/__init__.py", "123")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_infos_come_from_moves_the_digest_that_they_are_kept_under(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str) -> None:
    sources = Sources(tmp_path, monkeypatch)
    before = remembered._sources()
    moves, of = CHANGES[change]
    of(sources)
    assert len(before) == 64
    assert (remembered._sources() != before) == moves


def test_of_a_file_that_is_a_link_what_it_leads_to_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As packages are laid down that are installed to be edited."""
    sources = Sources(tmp_path, monkeypatch)
    sources.write("elsewhere/linked.py", "12")
    (sources.folder / "toys" / "linked.py").symlink_to(sources.folder / "elsewhere" / "linked.py")
    before = remembered._sources()
    sources.write("elsewhere/linked.py", "123")
    assert remembered._sources() != before


@pytest.mark.parametrize("error", [ImportError, OSError, ValueError])
def test_packages_that_cannot_be_looked_at_have_no_digest(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def find(name: str) -> object:
        raise error(name)

    monkeypatch.setattr(remembered.importlib.util, "find_spec", find)
    assert remembered._sources() == ""


def test_a_change_between_two_calls_asks_again(cache: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for sources in ("a", "a", "b", "b", "", ""):
        monkeypatch.setattr(remembered, "_sources", lambda sources=sources: sources)
        method_infos(["average"])
    assert asked == ["average"] * 4  # for "a", for "b", and each time where nothing is known of them


def test_a_registered_method_that_is_handed_over_with_other_words_is_asked(cache: Path) -> None:
    (kept,) = method_infos(["average"])["average"]  # type: ignore[misc]
    own = create_separator("average")
    own.info = replace(kept, version="of the test")  # type: ignore[misc]
    with handed_over([HandedOver("average", "of the test", lambda: own)]):
        assert [info.version for info in method_infos(["average"])["average"]] == ["of the test"]  # type: ignore[union-attr]
    assert method_infos(["average"])["average"] == [kept]


@pytest.mark.parametrize("said", [{"paper": object()}, {"paper": "\ud800"}, {"max_batch": {1}}], ids=["object", "half a pair", "set"])
def test_words_that_json_cannot_hold_are_asked_for_again(cache: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any]) -> None:
    odd = replace(create_separator("average").info, **said)
    monkeypatch.setattr(remembered, "create_separator", lambda name, **options: SimpleNamespace(info=odd))
    assert [method_infos(["average"])["average"] for _ in range(2)] == [[odd], [odd]]


def test_without_a_cache_folder_methods_are_asked(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    def nowhere() -> Path:
        raise SepbenchError("there is no home folder")

    monkeypatch.setattr(remembered, "cache_folder", nowhere)
    assert method_infos(["average"])["average"] == [create_separator("average").info]
    assert asked == ["average"]


@pytest.mark.parametrize("methods", [None, [], {"average": [{"domains": ["image"], "colour": 1}]}, {"average": [{"name": "x"}]}], ids=str)
def test_a_file_of_the_same_sources_with_other_content_is_no_error(cache: Path, monkeypatch: pytest.MonkeyPatch, methods: object) -> None:
    monkeypatch.setattr(remembered, "_sources", lambda: "known")
    (cache / FILE).write_text(json.dumps({"sources": "known", "methods": methods}))
    assert method_infos(["average"])["average"] == [create_separator("average").info]
