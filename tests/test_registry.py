"""Lookup by name: nearest names, settings, broken third parties."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
from broken_methods import register

from sepbench import registry
from sepbench.errors import MethodError, SuiteError, UnknownNameError
from sepbench.settings import setting_names, settings_of


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
    recorded = settings_of(separator)
    assert recorded
    assert set(recorded) == set(setting_names(type(separator)))


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
    "__builtins__": "method 'toy' (broken_methods:__builtins__) is not in the table that its entry point names; the table must hold the class under 'toy'",
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


@pytest.mark.parametrize(("value", "message"), [("nowhere:SUITE", "cannot be loaded"), ("os:sep", "not a file")])
def test_a_broken_third_party_suite_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, value: str, message: str) -> None:
    _with_entry_point(monkeypatch, value, registry.SUITE_GROUP)
    with pytest.raises(SuiteError, match=message):
        registry.suite_path("mine")
