"""Lookup by name: nearest names, settings, broken third parties."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from sepbench import registry
from sepbench.errors import MethodError, SuiteError, UnknownNameError


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


@pytest.mark.parametrize(("value", "message"), [("nowhere:SUITE", "cannot be loaded"), ("os:sep", "not a file")])
def test_a_broken_third_party_suite_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, value: str, message: str) -> None:
    _with_entry_point(monkeypatch, value, registry.SUITE_GROUP)
    with pytest.raises(SuiteError, match=message):
        registry.suite_path("mine")
