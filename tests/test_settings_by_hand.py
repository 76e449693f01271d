"""Settings word by word: where a text is cut into method, setting and value, and what of files and folders a digest is made of."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass as strict_dataclass

from sepbench.errors import MethodError, SepbenchError, SettingError
from sepbench.settings import REQUIRED, STRICT, Setting, checked, create, describe, parse_settings, setting_files, settings_of


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        (" m.x = 3 ", {"m": {"x": 3}}),
        ("m.x=", {"m": {"x": ""}}),
        ("m.x==3", {"m": {"x": "=3"}}),
        ("m.x.y=3", {"m": {"x.y": 3}}),  # the first dot ends the method's name
        ("my-net.x=1", {"my-net": {"x": 1}}),
        ("m.x=1,2", {"m": {"x": (1, 2)}}),
        ("m.x=(1,)", {"m": {"x": (1,)}}),
        ("m.x=-1e-3", {"m": {"x": -0.001}}),
        ("m.x=0x10", {"m": {"x": 16}}),
        ("m.x=007", {"m": {"x": "007"}}),  # no number of Python's
        ("m.x={'a': None}", {"m": {"x": {"a": None}}}),
        ("m.x= a b ", {"m": {"x": "a b"}}),
        ("m.x=a,b", {"m": {"x": "a,b"}}),
        ("m.x=max(1, 2)", {"m": {"x": "max(1, 2)"}}),  # nothing is called
        ("m.x=truer", {"m": {"x": "truer"}}),
        ("m.x=/a/b.pt", {"m": {"x": "/a/b.pt"}}),
    ],
)
def test_where_a_setting_is_cut(text: str, parsed: dict[str, Any]) -> None:
    found = parse_settings([text])
    assert found == parsed
    ((own, value),) = found["my-net" if "my-net" in text else "m"].items()
    assert type(value) is type(parsed["my-net" if "my-net" in text else "m"][own])


def test_settings_of_several_methods_stay_in_their_order() -> None:
    found = parse_settings(["b.y=1", "a.x=2", "b.x=3", "a.y=true"])
    assert [(method, list(own.items())) for method, own in found.items()] == [("b", [("y", 1), ("x", 3)]), ("a", [("x", 2), ("y", True)])]
    assert parse_settings([]) == {}


@pytest.mark.parametrize("text", ["m", "m.x", "=3", ".x=3", "m.=3", "m=3", " . = ", ""])
def test_what_is_no_setting_is_told_with_an_example(text: str) -> None:
    with pytest.raises(SettingError) as refused:
        parse_settings(["m.a=1", text])
    assert str(refused.value) == f"--set takes METHOD.SETTING=VALUE (for example nmf.atoms=50), got {text!r}"


def test_a_setting_that_is_given_twice_is_named() -> None:
    with pytest.raises(SettingError) as refused:
        parse_settings(["m.x=1", "n.x=1", " m.x =2"])
    assert str(refused.value) == "--set gives m.x twice"


# ---- in words --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (Setting("x", "int", 16, "from 1", "atoms per class"), "int from 1, default 16: atoms per class"),
        (Setting("x", "int", 16, "", "atoms per class"), "int, default 16: atoms per class"),
        (Setting("x", "int", REQUIRED, "from 1", "atoms"), "int from 1, no default: atoms"),
        (Setting("x", "text", "", "", ""), "text, default ''"),
        (Setting("x", "int | none", None, "from 1", ""), "int | none from 1, default none"),
    ],
)
def test_a_setting_in_one_line(setting: Setting, words: str) -> None:
    assert setting.summary == words
    assert setting.hint is Any


class Mode(Enum):
    fast = "fast"


@dataclass
class Plain:
    files: Any = ""
    mask: Literal["soft", "hard"] = "soft"
    either: Literal["soft"] | None = None
    mode: Mode = Mode.fast
    made: list[int] = field(default_factory=lambda: [1])
    state: int = field(default=0, init=False)


@strict_dataclass(config=STRICT)
class Declared:
    size: int = Field(default_factory=lambda: 3, ge=1, le=9, multiple_of=3)
    names: tuple[str, ...] = Field((), max_length=2)
    state: int = field(default=7, init=False)


def test_what_is_no_argument_of_the_constructor_is_no_setting() -> None:
    assert [(one.name, one.default) for one in describe(Plain)][3:] == [("mode", Mode.fast), ("made", [1])]
    assert [(one.name, one.kind, one.default, one.range) for one in describe(Declared)] == [
        ("size", "int", 3, "from 1 to 9"),
        ("names", "texts", (), "at most 2"),
    ]
    assert settings_of(Plain(files="a")) == {"files": "a", "mask": "soft", "either": None, "mode": Mode.fast, "made": [1]}
    assert settings_of(Declared()) == {"size": 3, "names": ()}
    for nothing in (object(), Plain):
        assert settings_of(nothing) == {}
    assert settings_of(type("Own", (), {"settings": {"a": 1}})()) == {"a": 1}


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"size": 4}, "m.size must be a multiple of 3, got 4 (int from 1 to 9, default 3)"),
        ({"size": 12}, "m.size must be at most 9, got 12 (int from 1 to 9, default 3)"),
        ({"names": ("a", "b", "c")}, "m.names must be at most 2 in number, got ('a', 'b', 'c') (texts at most 2, default ())"),
        ({"size": "x" * 300}, f"m.size must be a whole number, got '{'x' * 199} (int from 1 to 9, default 3)"),  # cut
    ],
)
def test_bounds_that_are_broken(given: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingError) as refused:
        create("m", Declared, given)
    assert str(refused.value) == line


def test_ctrl_c_in_somebody_s_default_comes_through_and_every_other_end_is_one_line() -> None:
    def broken(error: type[BaseException]) -> type:
        def make() -> int:
            raise error("no\nluck")

        return dataclass(type("Broken", (), {"__annotations__": {"x": int}, "x": field(default_factory=make)}))

    with pytest.raises(KeyboardInterrupt):
        checked("m", broken(KeyboardInterrupt), {})
    with pytest.raises(KeyboardInterrupt):
        setting_files(broken(KeyboardInterrupt), {})
    for kind in (SystemExit, ValueError):
        with pytest.raises(MethodError) as refused:
            checked("m", broken(kind), {"x": 1})
        assert str(refused.value) == f"method 'm' has no settings that can be listed: {kind.__name__}: no luck"
        assert setting_files(broken(kind), {"x": 1}) == {}


# ---- files -----------------------------------------------------------------------------------------------------------------------------


def sha256(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, content in {"a": b"one", "tree/b/c": b"two", "tree/b-d": b"", "tree/B": b"three", "home/w": b"four", "soft": b"five"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "tree" / "empty").mkdir()
    (tmp_path / "tree" / "nowhere").symlink_to("gone")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "nowhere").symlink_to("gone")
    return tmp_path


def test_the_digest_of_a_folder_is_made_of_names_sizes_and_contents_in_order(here: Path) -> None:
    """Folders and links that lead nowhere are not in it. Names are sorted part by part."""
    lines = [f"{name} {len(content)} {sha256(content)}\n".encode() for name, content in (("B", b"three"), ("b/c", b"two"), ("b-d", b""))]
    assert setting_files(Plain, {"files": "tree"}) == {"files": {"tree": sha256(*lines)}}


def test_names_that_are_no_text_count_in_a_folder(here: Path) -> None:
    (here / "odd").mkdir()
    try:
        os.close(os.open(bytes(here / "odd") + b"/\xff", os.O_CREAT | os.O_WRONLY))
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    assert setting_files(Plain, {"files": "odd"}) == {"files": {"odd": sha256(b"\xff 0 " + sha256().encode() + b"\n")}}


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("a", {"a": b"one"}),
        ("link", {"link": b"one"}),
        ("nowhere", {}),
        ("~/w", {"~/w": b"four"}),
        ("~nobody-of-that-name/w", {}),
        (" a ,, ~/w,a", {"a": b"one", "~/w": b"four"}),
        ({"x": ["a", {"y": Path("~/w")}], "a": 3}, {"a": b"one", "~/w": b"four"}),  # values and no keys
        ({"a"}, {}),
        (b"a", {}),
    ],
    ids=str,
)
def test_files_are_named_as_they_were_given(here: Path, value: Any, named: dict[str, bytes]) -> None:
    found = setting_files(Plain, {"files": value, "mask": "soft", "either": "soft", "made": "soft"})
    assert found.pop("made") == {"soft": sha256(b"five")}  # a name that no choice is meant by
    assert found == ({"files": {name: sha256(content) for name, content in named.items()}} if named else {})


@pytest.mark.parametrize(("where", "told"), [("tree", "tree/b/c"), ("a", "a")])
def test_what_cannot_be_read_is_named_by_its_own_name(here: Path, monkeypatch: pytest.MonkeyPatch, where: str, told: str) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", told)

    monkeypatch.setattr("sepbench.settings.file_sha256", refuse)
    with pytest.raises(SettingError) as refused:
        setting_files(Plain, {"files": where})
    assert str(refused.value) == f"setting files names {told}, which cannot be read: permission denied"
    monkeypatch.setattr("sepbench.settings.file_sha256", lambda path: (_ for _ in ()).throw(PermissionError()))
    with pytest.raises(SepbenchError, match=rf"^setting files names {where}, which cannot be read: permission denied$"):
        setting_files(Plain, {"files": where})
