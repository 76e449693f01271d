"""Rows of tables of presets, scopes of fits, and the edges of settings: what one forgets to hand on."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass

from sepbench.errors import MethodError, SettingError, UnknownNameError
from sepbench.protocols import MethodInfo, TaskSpec
from sepbench.settings import OF_SIGNALS, STRICT, FitScope, Preset, checked, create, describe, parse_settings, presets, setting_files, settings_of


@dataclass(config=STRICT)
class Small:
    steps: int = Field(3, ge=1, description="how many")
    flag: bool = False
    info: ClassVar[MethodInfo] = MethodInfo("small", "Small", "2", frozenset({"image"}), "prior", "a paper", deterministic=True, max_batch_cpu=7)


TABLE: Mapping[str, Any] = presets(
    Small, {"small-9": Preset("Nine", "another paper", "why", {"steps": 9}), "small-own": Preset("Own", "own", "", {}, "sources", 5)}
)


@pytest.mark.parametrize("name", TABLE)
def test_a_row_s_class_is_as_strict_as_the_class_itself(name: str) -> None:
    for wrong in ({"steps": 2.0}, {"steps": 0}, {"steps": True}, {"flag": 1}, {"other": 1}):
        with pytest.raises(ValidationError):
            TABLE[name](**wrong)
        with pytest.raises((SettingError, UnknownNameError)):
            create(name, TABLE[name], wrong)


def test_a_row_states_what_differs_and_inherits_the_rest() -> None:
    assert [(cls.info.name, cls.info.supervision, cls.info.max_batch_cpu) for cls in TABLE.values()] == [
        ("small", "prior", 7),
        ("small-9", "prior", 7),
        ("small-own", "sources", 5),
    ]
    assert [(cls().steps, cls.__qualname__, cls.__module__) for cls in TABLE.values()] == [
        (3, "Small", __name__),
        (9, "Small[small-9]", __name__),
        (3, "Small[small-own]", __name__),
    ]
    assert [(one.name, one.default, one.range, one.description) for one in describe(TABLE["small-9"])] == [
        ("steps", 9, "from 1", "how many"),
        ("flag", False, "", ""),
    ]
    assert describe(Small)[0].default == 3


def test_a_fit_that_does_not_ask_how_it_is_scored_is_shared_by_tasks_that_differ_in_that_alone() -> None:
    left_out = {"suite", "name", "assignment", "scored_sources"}
    assert OF_SIGNALS.task == {field.name for field in dataclasses.fields(TaskSpec)} - left_out
    assert dataclasses.replace(OF_SIGNALS, task=frozenset()) == FitScope(frozenset(), "", "", None)
    assert {"domain", "source_shape", "operator", "datasets", "observed_source"} <= OF_SIGNALS.task


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" m . x = 3 ", {"m ": {" x": 3}}),
        ("m.x.y=3", {"m": {"x.y": 3}}),
        ("m.x=", {"m": {"x": ""}}),
        ("m.x=a.b", {"m": {"x": "a.b"}}),
        ("m.x=1,2", {"m": {"x": (1, 2)}}),
        ("m.x=0x10", {"m": {"x": 16}}),
        ("m.x=007", {"m": {"x": "007"}}),
        ("m.x=print(1)", {"m": {"x": "print(1)"}}),
        ("m.x={'a': none}", {"m": {"x": "{'a': none}"}}),
    ],
)
def test_what_stands_after_set(text: str, value: object) -> None:
    assert parse_settings([text]) == value


def test_a_setting_that_is_given_twice_and_one_of_the_wrong_form_are_quoted() -> None:
    with pytest.raises(SettingError, match=r"^--set gives m\.x twice$"):
        parse_settings(["m.x=1", "n.x=1", "m.x=1"])
    with pytest.raises(SettingError, match=r"^--set takes METHOD\.SETTING=VALUE \(for example nmf\.atoms=50\), got 'm\.x'$"):
        parse_settings(["m.x"])


def test_what_a_run_records_of_a_method_that_is_no_dataclass() -> None:
    class Stranger:
        settings: ClassVar[dict[str, Any]] = {"rank": 3}

    assert settings_of(Stranger()) == {"rank": 3}
    assert settings_of(object()) == {}
    assert settings_of(Small(steps=4)) == {"steps": 4, "flag": False}
    assert settings_of(Small) == {}


def test_a_long_value_is_cut_in_the_line_about_it() -> None:
    with pytest.raises(SettingError) as caught:
        create("m", Small, {"steps": "x" * 300})
    assert str(caught.value) == f"m.steps must be a whole number, got '{'x' * 199} (int from 1, default 3: how many)"


def test_settings_that_cannot_be_listed_are_told_by_whose_they_are() -> None:
    with pytest.raises(MethodError, match=r"^method 'm' has no settings that can be listed: "):
        checked("m", dict, {"a": 1})
    odd = type("Odd", (), {"__init__": property(lambda self: None)})
    with pytest.raises(MethodError, match=r"^method 'm' has no settings that can be listed: "):
        checked("m", odd, {})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused_by_a_declaration(bad: float) -> None:
    @dataclass(config=STRICT)
    class Rate:
        rate: float = 1.0

    with pytest.raises(SettingError, match=r"^m\.rate must be a finite number, got "):
        create("m", Rate, {"rate": bad})


# --- files among settings


@dataclasses.dataclass
class Reads:
    files: Any = ""
    mask: Literal["soft", "binary"] = "soft"
    wide: Literal["soft"] | str = ""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, text in {"soft": "s", "tree/b": "bb", "tree/a/c": "c", "home/mine": "m", "a,b": "ab"}.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    return tmp_path


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_what_a_file_and_a_folder_count_by(here: Path) -> None:
    lines = f"a/c 1 {_sha('c')}\nb 2 {_sha('bb')}\n"
    Path("tree/empty").mkdir()
    Path("tree/nowhere").symlink_to("gone")
    assert setting_files(Reads, {"files": ["tree", "soft", "~/mine", "a,b", "~nobody-of-that-name/x"]}) == {
        "files": {"tree": _sha(lines), "soft": _sha("s"), "~/mine": _sha("m"), "a,b": _sha("ab")}
    }


def test_words_of_a_choice_are_no_files_and_those_of_a_text_are(here: Path) -> None:
    assert setting_files(Reads, {"mask": "soft"}) == {}
    assert setting_files(Reads, {"wide": "soft"}) == {"wide": {"soft": _sha("s")}}
    assert setting_files(dict, {"mask": "soft", "other": "nothing"}) == {"mask": {"soft": _sha("s")}}


def test_ctrl_c_comes_through_while_settings_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(cls: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("sepbench.settings.describe", pressed)
    with pytest.raises(KeyboardInterrupt):
        setting_files(Reads, {"files": "a"})
    with pytest.raises(KeyboardInterrupt):
        checked("m", Reads, {})


# --- every bound in words


@dataclass(config=STRICT)
class Bounded:
    size: int = Field(4, multiple_of=4)
    few: tuple[int, ...] = Field((1,), max_length=2)
    above: float = Field(1.0, gt=0.5)
    most: int = Field(3, le=1_000_000)
    even: int = 2

    def __post_init__(self) -> None:
        if self.even % 2:
            raise ValueError("even must be even")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"size": 6}, "m.size must be a multiple of 4, got 6 (int, default 4)"),
        ({"few": [1, 2, 3]}, "m.few must be at most 2 in number, got (1, 2, 3) (ints at most 2, default (1,))"),
        ({"above": 0.5}, "m.above must be above 0.5, got 0.5 (number above 0.5, default 1.0)"),
        ({"most": 1_000_001}, "m.most must be at most 1000000, got 1000001 (int up to 1000000, default 3)"),
        ({"even": 3}, "method 'm' refuses its settings: even must be even"),
    ],
)
def test_a_bound_that_is_broken_is_told_with_its_number(given: dict[str, Any], line: str) -> None:
    with pytest.raises((SettingError, MethodError)) as caught:
        create("m", Bounded, given)
    assert str(caught.value) == line


def test_only_what_can_be_given_by_name_is_a_setting() -> None:
    def make(first: int, /, second: int, *rest: int, third: float = 0.5, **more: int) -> None: ...

    assert [(one.name, one.kind) for one in describe(make)] == [("second", "int"), ("third", "number")]
    assert [one.summary for one in describe(make)] == ["int, no default", "number, default 0.5"]


def test_a_refusal_that_is_no_method_s_own_comes_through() -> None:
    def broken(steps: int = 1) -> Any:
        raise ZeroDivisionError

    def refused(steps: int = 1) -> Any:
        raise TypeError("steps\nand stairs")

    with pytest.raises(ZeroDivisionError):
        create("m", broken, {})
    with pytest.raises(MethodError, match=r"^method 'm' refuses its settings: steps and stairs$"):
        create("m", refused, {})
