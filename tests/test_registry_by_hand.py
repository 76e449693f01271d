"""Which of several places a name comes from: suites of the package, of others and of the user's folders; implementations for kinds of signals."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sepbench import registry
from sepbench.errors import MethodError, NameClaimedError, SuiteError, UnknownNameError
from sepbench.protocols import MethodInfo


class Point(EntryPoint):
    """An entry point of a distribution, which loads what is known by its value."""

    known: dict[str, Any] = {}  # noqa: RUF012

    def load(self) -> Any:
        return self.known[self.value]


def point(name: str, value: str, group: str, distribution: str = "theirs") -> Any:
    found: Any = Point(name, value, group)
    vars(found).update(dist=SimpleNamespace(name=distribution))
    return found


# ---- suites ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Built in: one, two. Of a package: two, three. Of the user: three and four in ``first``, four and one in ``second``, five in ``third``."""
    for path in (
        "built/one.toml",
        "built/two.toml",
        "built/notes.txt",
        *(f"{p}/suite.toml" for p in ("first/three", "first/four", "second/four", "second/one", "third/five")),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    named = [point("two", "p:TWO", registry.SUITE_GROUP), point("three", "p:THREE", registry.SUITE_GROUP)]
    monkeypatch.setattr(registry, "suites_root", lambda: tmp_path / "built")
    monkeypatch.setattr(registry, "points", lambda group: {one.name: one for one in named} if group == registry.SUITE_GROUP else {})
    monkeypatch.setattr(registry, "suite_folders", lambda: [tmp_path / name for name in ("first", "second", "third", "gone")])
    return tmp_path


CLAIMS = {
    "one": "sepbench (built in) and {}/second/one",
    "two": "sepbench (built in) and theirs (p:TWO)",
    "three": "theirs (p:THREE) and {}/first/three",
    "four": "{0}/first/four and {0}/second/four",
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_suite_that_is_in_two_places_is_of_neither(places: Path, name: str) -> None:
    with pytest.raises(NameClaimedError) as refused:
        registry.suite_path(name)
    assert str(refused.value) == f"suite {name!r} is claimed by {CLAIMS[name].format(places)}; uninstall all but one of them, or rename one"
    assert registry.own_suite(name) is None


def test_a_third_place_is_named_too(places: Path) -> None:
    (places / "third" / "two").mkdir()
    (places / "third" / "two" / "suite.toml").touch()
    with pytest.raises(NameClaimedError, match=rf"is claimed by sepbench \(built in\) and theirs \(p:TWO\) and {places}/third/two; "):
        registry.suite_path("two")


def test_suites_of_all_places_are_listed_once_and_found(places: Path) -> None:
    assert registry.suite_names() == ["five", "four", "one", "three", "two"]
    assert registry.suite_path("five") == registry.own_suite("five") == places / "third" / "five" / "suite.toml"
    assert registry.own_suite("nowhere") is None
    with pytest.raises(UnknownNameError, match=r"^unknown suite 'fife'; did you mean five\?$"):
        registry.suite_path("fife")


def test_a_suite_of_the_package_is_no_own_one(places: Path) -> None:
    (places / "built" / "six.toml").touch()
    assert registry.suite_path("six") == places / "built" / "six.toml"
    assert registry.own_suite("six") is None


@pytest.mark.parametrize("loaded", ["text", "path"])
def test_a_package_names_the_file_of_its_suite(monkeypatch: pytest.MonkeyPatch, places: Path, loaded: str) -> None:
    file = places / "built" / "one.toml"
    monkeypatch.setattr(registry, "points", lambda group: {"seven": point("seven", "p:SEVEN", group)})
    monkeypatch.setattr(registry, "_load", lambda found: str(file) if loaded == "text" else file)
    assert registry.suite_path("seven") == file
    assert registry.own_suite("seven") is None


@pytest.mark.parametrize("name", ["./own", "own/", "a/own"])
def test_a_path_is_one_whatever_is_registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_suites", lambda: pytest.fail("a path is not looked up"))
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(SuiteError, match=r" is not the folder of a suite: it has no suite\.toml; "):
        registry.own_suite(name)
    (tmp_path / name / "suite.toml").mkdir()  # a folder is no file
    with pytest.raises(SuiteError, match=r" is not the folder of a suite: it has no suite\.toml; "):
        registry.own_suite(name)
    (tmp_path / name / "suite.toml").rmdir()
    (tmp_path / name / "suite.toml").touch()
    assert registry.own_suite(name) == Path(name) / "suite.toml"


# ---- implementations -------------------------------------------------------------------------------------------------------------------


class Works:
    info = MethodInfo("m", "M", "1", frozenset({"image"}), "blind", "none", deterministic=True)

    def supports(self, task: Any) -> Any: ...
    def fit(self, view: Any, ctx: Any) -> None: ...
    def separate(self, mixtures: Any, ctx: Any) -> Any: ...


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> Any:
    def register(**entries: Any) -> None:
        named = {name.replace("_", "."): value for name, value in entries.items()}
        monkeypatch.setattr(Point, "known", {f"p:{name}": value for name, value in named.items()})
        found = {name: point(name, f"p:{name}", registry.SEPARATOR_GROUP) for name in named}
        monkeypatch.setattr(registry, "points", lambda group: found if group == registry.SEPARATOR_GROUP else {})

    return register


@pytest.mark.parametrize(
    ("entries", "domains", "found"),
    [
        (("m", "m_audio"), [None, "audio"], {None: "m", "image": "m", "audio": "m.audio", "vector": "m"}),
        (("m_vector", "m_audio"), ["audio", "vector"], {None: "m.audio", "image": "m.audio", "audio": "m.audio", "vector": "m.vector"}),
        (("m_vector", "m_image", "m"), [None, "image", "vector"], {None: "m", "image": "m.image", "audio": "m", "vector": "m.vector"}),
    ],
)
def test_an_implementation_is_that_of_the_domain_or_the_plain_one_or_the_first(methods: Any, entries: Any, domains: Any, found: dict[Any, str]) -> None:
    methods(**{name: type(name.replace("_", "."), (Works,), {}) for name in entries})
    assert (registry.separator_names(), registry.separator_domains("m")) == (["m"], domains)
    assert {domain: registry.separator_class("m", domain).__name__ for domain in found} == found


@pytest.mark.parametrize(
    ("loaded", "line"),
    [
        ({"other": Works}, "method 'm' (p:m) is not in the table that its entry point names; the table must have the class under 'm'"),
        ({"m": 3}, "method 'm' (p:m) is of type int; its entry point must name the method's class"),
        ("text", "method 'm' (p:m) is of type str; its entry point must name the method's class"),
        (type("Half", (), {"info": Works.info, "fit": Works.fit, "supports": Works.supports}), "lacks separate; see sepbench.protocols.Separator"),
        (type("Odd", (Works,), {"info": {}}), "method 'm': info must be a sepbench.protocols.MethodInfo, got dict"),
    ],
    ids=["no row", "number in a row", "text", "half a method", "odd info"],
)
def test_what_is_no_method_is_told(methods: Any, loaded: Any, line: str) -> None:
    methods(m=loaded)
    with pytest.raises(MethodError) as refused:
        registry.create_separator("m")
    assert line in str(refused.value)


def test_settings_reach_the_class_of_the_domain(methods: Any) -> None:
    class Takes(Works):
        def __init__(self, gain: float = 1.0) -> None:
            self.gain = gain

    methods(m=Works, m_audio={"m": Takes, "m.audio": Works})
    assert type(registry.create_separator("m")) is Works
    made: Any = registry.create_separator("m", {"gain": 2.5}, "audio")
    assert (type(made), made.gain) == (Takes, 2.5)
    with pytest.raises(Exception, match="m has no settings, got 'gain'"):
        registry.create_separator("m", {"gain": 2.5}, "image")


def test_who_asks_for_all_entries_may_change_what_he_gets() -> None:
    found = registry.points(registry.METRIC_GROUP)
    found.clear()
    assert "psnr" in registry.points(registry.METRIC_GROUP)
