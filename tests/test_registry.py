"""Lookup by name: nearest names, settings, broken third parties."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
from broken_methods import register

from sepbench import registry
from sepbench.errors import MethodError, SuiteError, UnknownNameError
from sepbench.protocols import Domain


def _with_entry_point(monkeypatch: pytest.MonkeyPatch, value: str, group: str = registry.SEPARATOR_GROUP) -> None:
    point = EntryPoint(name="mine", value=value, group=group)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])


def test_unknown_names_answer_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown method 'avrage'; did you mean average"):
        registry.create_separator("avrage")
    with pytest.raises(UnknownNameError, match=r"unknown suite 'mnist-pair'; did you mean mnist-pairs"):
        registry.suite_path("mnist-pair")
    with pytest.raises(UnknownNameError, match=r"unknown method 'zzz'; known: "):
        registry.create_separator("zzz")


def test_settings_are_checked_by_name() -> None:
    with pytest.raises(UnknownNameError, match="unknown setting of nmf 'atomz'"):
        registry.create_separator("nmf", {"atomz": 3})


def test_settings_are_recorded() -> None:
    separator = registry.create_separator("nmf")
    recorded = registry.settings_of(separator)
    assert recorded
    assert set(recorded) == set(registry.setting_names(type(separator)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_package.module:Thing", "cannot be loaded: ModuleNotFoundError"),
        ("json:no_such_name", "cannot be loaded: AttributeError"),
        ("json:JSONDecoder", "lacks info, supports, fit or separate"),
    ],
)
def test_a_broken_third_party_method_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, value: str, message: str) -> None:
    _with_entry_point(monkeypatch, value)
    with pytest.raises(MethodError, match=message):
        registry.create_separator("mine")


BROKEN = {
    "RaisesWhenMade": "method 'toy' cannot be created: RuntimeError: no licence",
    "ExitsWhenMade": "method 'toy' cannot be created: SystemExit: 0",
    "InfoIsADict": "method 'toy': info must be a sepbench.protocols.MethodInfo, got dict",
    "InfoIsNone": "method 'toy': info must be a sepbench.protocols.MethodInfo, got NoneType",
    "InfoRaises": "method 'toy' cannot say its info: RuntimeError: no info today",
    "InfoMissesAnAttribute": "method 'toy' cannot say its info: AttributeError: 'InfoMissesAnAttribute' object has no attribute 'information'",
    "make_nothing": "method 'toy' (builtins.NoneType) lacks info, supports, fit or separate; see sepbench.protocols.Separator",
    "NO_METHOD": "method 'toy' (broken_methods:NO_METHOD) is of type int; its entry point must name the method's class",
    "torch": "method 'toy' (broken_methods:torch) is of type module; its entry point must name the method's class",
    "INFO": "method 'toy' (broken_methods:INFO) is of type MethodInfo; its entry point must name the method's class",
    "__builtins__": "method 'toy' (broken_methods:__builtins__) is of type dict; its entry point must name the method's class",
    "Any": "method 'toy' refuses its settings: Any cannot be instantiated",
}


@pytest.mark.parametrize(("what", "message"), BROKEN.items(), ids=BROKEN.keys())
def test_what_cannot_be_made_into_a_method_is_one_line(monkeypatch: pytest.MonkeyPatch, what: str, message: str) -> None:
    register(monkeypatch, "toy", what)
    with pytest.raises(MethodError) as caught:
        registry.create_separator("toy")
    assert str(caught.value) == message


def test_refused_settings_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "toy", "RefusesItsSettings")
    with pytest.raises(MethodError, match=r"^method 'toy' refuses its settings: gain must be positive$"):
        registry.create_separator("toy")


def test_a_class_without_a_signature_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    _with_entry_point(monkeypatch, "builtins:dict")
    with pytest.raises(MethodError, match="method 'mine' has no settings that can be listed: ValueError: no signature found"):
        registry.create_separator("mine")


def test_info_may_come_with_the_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "toy", "InfoComesWithTheInstance")
    assert registry.create_separator("toy").info.name == "toy"


# --- one name, one implementation per domain ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("domain", "cls"), [(None, "Toy"), ("image", "Toy"), ("vector", "Toy"), ("audio", "InfoComesWithTheInstance")])
def test_a_domain_gets_its_own_implementation_and_else_the_plain_one(monkeypatch: pytest.MonkeyPatch, domain: Domain | None, cls: str) -> None:
    register(monkeypatch, "toy", "Toy")
    register(monkeypatch, "toy.audio", "InfoComesWithTheInstance")
    assert registry.separator_class("toy", domain).__name__ == cls
    assert type(registry.create_separator("toy", domain=domain)).__name__ == cls


def test_an_implementation_is_no_method_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "toy", "Toy")
    register(monkeypatch, "toy.audio", "Toy")
    assert registry.separator_names().count("toy") == 1
    assert "toy.audio" not in registry.separator_names()
    assert registry.separator_domains("toy") == [None, "audio"]
    with pytest.raises(UnknownNameError, match=r"unknown method 'toy.audio'; did you mean toy"):
        registry.create_separator("toy.audio")


def test_a_method_may_have_no_plain_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "toy.audio", "Toy")
    assert "toy" in registry.separator_names()
    assert registry.separator_domains("toy") == ["audio"]
    for domain in (None, "image", "audio"):
        assert registry.separator_class("toy", domain).__name__ == "Toy"  # type: ignore[arg-type]


def test_another_word_after_a_dot_is_part_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "toy.fast", "Toy")
    assert "toy.fast" in registry.separator_names()
    assert registry.separator_class("toy.fast", "audio").__name__ == "Toy"


def test_settings_are_those_of_the_implementation() -> None:
    """Each has its own, under plain names."""
    assert registry.create_separator("ica", {"lags": 32}, "audio").lags == 32  # type: ignore[attr-defined]
    with pytest.raises(UnknownNameError, match="unknown setting of ica 'lags'"):
        registry.create_separator("ica", {"lags": 32}, "image")
    with pytest.raises(UnknownNameError, match="unknown setting of ica 'patch'"):
        registry.create_separator("ica", {"patch": 4}, "audio")


@pytest.mark.parametrize("name", registry.separator_names())
def test_implementations_answer_to_the_method_s_name_and_keep_to_their_domain(name: str) -> None:
    domains = registry.separator_domains(name)
    infos = [registry.create_separator(name, domain=domain).info for domain in domains]
    assert {info.name for info in infos} == {name}
    assert len({(info.title, info.supervision) for info in infos}) == 1
    for domain, info in zip(domains, infos, strict=True):
        assert domain is None or info.domains == {domain}
    assert sum(len(info.domains) for info in infos) == len(frozenset[str]().union(*(info.domains for info in infos)))


@pytest.mark.parametrize(("value", "message"), [("nowhere:SUITE", "cannot be loaded"), ("os:sep", "not a file")])
def test_a_broken_third_party_suite_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, value: str, message: str) -> None:
    _with_entry_point(monkeypatch, value, registry.SUITE_GROUP)
    with pytest.raises(SuiteError, match=message):
        registry.suite_path("mine")
