"""Settings: described, checked in one line each, and files among them known by their content, whoever wrote the method."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass

from baselines.basis import PRESETS, Basis
from baselines.projected import Projected
from sepbench.errors import MethodError, SepbenchError, SettingError, UnknownNameError
from sepbench.kinds import shaped, shown
from sepbench.protocols import MethodInfo
from sepbench.registry import create_separator, separator_class, separator_names
from sepbench.settings import REQUIRED, STRICT, Preset, checked, create, describe, parse_settings, presets, setting_files, setting_names, settings_of


class Mode(Enum):
    fast = "fast"
    slow = "slow"


@dataclass(config=STRICT)
class Declared:
    """Every kind of setting that a method may have."""

    atoms: int = Field(16, ge=1, description="atoms per class")
    rate: float = Field(0.5, gt=0, lt=1, description="step size")
    share: float = Field(1.0, ge=0, le=1)
    levels: tuple[Annotated[float, Field(gt=0)], ...] = Field((0.1, 0.2), min_length=1)
    pair: tuple[int, int] = (1, 2)
    mask: Literal["soft", "binary"] = Field("soft", description="how bins are shared")
    bounded: bool | None = None
    flag: bool = False
    file: Path | None = None
    words: tuple[str, ...] = ()
    mode: Mode = Mode.fast
    limit: int | None = Field(None, ge=2)

    def __post_init__(self) -> None:
        if self.atoms == 99:
            raise ValueError("99 atoms\nare one too many")


@dataclasses.dataclass
class Plain:
    """A stranger's: annotations, defaults and a check of its own."""

    rank: int = 3
    gain: float = 1.0
    mask: Literal["soft", "binary"] = "soft"
    scales: tuple[float, ...] = (1.0,)
    mode: Mode = Mode.fast
    table: dict[str, Any] = dataclasses.field(default_factory=dict)
    anything: Any = None
    sloppy: int = None  # type: ignore[assignment]
    wrong: int = 0.5  # type: ignore[assignment]
    loose: Any = "auto"
    state: int = dataclasses.field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.gain == 13.0:
            raise ValueError("13 brings\nbad luck")


class Ordinary:
    def __init__(self, rank: int = 3, path: Path | None = None, odd=1, *, needed: float) -> None:  # type: ignore[no-untyped-def]
        self.given = (rank, path, odd, needed)


@dataclass(config=STRICT)
class Needs:
    steps: int = Field(ge=1, description="how many")


ROWS = {
    "atoms": ("int", 16, "from 1", "atoms per class"),
    "rate": ("number", 0.5, "above 0, below 1", "step size"),
    "share": ("number", 1.0, "from 0 to 1", ""),
    "levels": ("numbers", (0.1, 0.2), "at least 1, each above 0", ""),
    "pair": ("2 ints", (1, 2), "", ""),
    "mask": ("soft | binary", "soft", "", "how bins are shared"),
    "bounded": ("true | false | none", None, "", ""),
    "flag": ("true | false", False, "", ""),
    "file": ("path | none", None, "", ""),
    "words": ("texts", (), "", ""),
    "mode": ("fast | slow", Mode.fast, "", ""),
    "limit": ("int | none", None, "from 2", ""),
}


def test_a_declaration_is_described_as_people_read_it() -> None:
    assert {one.name: (one.kind, one.default, one.range, one.description) for one in describe(Declared)} == ROWS
    assert list(ROWS) == setting_names(Declared)


def test_a_plain_dataclass_and_a_class_are_described_by_what_they_say() -> None:
    assert [(one.name, one.kind) for one in describe(Plain)] == [
        ("rank", "int"),
        ("gain", "number"),
        ("mask", "soft | binary"),
        ("scales", "numbers"),
        ("mode", "fast | slow"),
        ("table", "dict[str, typing.Any]"),
        ("anything", "anything"),
        ("sloppy", "anything"),
        ("wrong", "number"),
        ("loose", "text"),
    ]
    assert [(one.name, one.kind, one.default) for one in describe(Ordinary)] == [
        ("rank", "int", 3),
        ("path", "path | none", None),
        ("odd", "int", 1),
        ("needed", "number", REQUIRED),
    ]


ATOMS = "(int from 1, default 16: atoms per class)"
LINES: dict[str, tuple[type, dict[str, Any], str]] = {
    "too small": (Declared, {"atoms": 0}, f"m.atoms must be at least 1, got 0 {ATOMS}"),
    "a word for a count": (Declared, {"atoms": "many"}, f"m.atoms must be a whole number, got 'many' {ATOMS}"),
    "a fraction for a count": (Declared, {"atoms": 1.5}, f"m.atoms must be a whole number, got 1.5 {ATOMS}"),
    "true for a count": (Declared, {"atoms": True}, f"m.atoms must be a whole number, got True {ATOMS}"),
    "none for a count": (Declared, {"atoms": None}, f"m.atoms must be a whole number, got None {ATOMS}"),
    "at an open end": (Declared, {"rate": 1}, "m.rate must be below 1, got 1 (number above 0, below 1, default 0.5: step size)"),
    "not finite": (Declared, {"rate": float("nan")}, "m.rate must be a finite number, got nan (number above 0, below 1, default 0.5: step size)"),
    "too large": (Declared, {"share": 1.5}, "m.share must be at most 1, got 1.5 (number from 0 to 1, default 1.0)"),
    "one of several": (Declared, {"levels": [0.1, -2]}, "m.levels must be above 0, got -2 (numbers at least 1, each above 0, default 0.1,0.2)"),
    "a word for numbers": (
        Declared,
        {"levels": "low"},
        "m.levels must be numbers with commas between, got 'low' (numbers at least 1, each above 0, default 0.1,0.2)",
    ),
    "none of them": (Declared, {"levels": []}, "m.levels must be at least 1 in number, got () (numbers at least 1, each above 0, default 0.1,0.2)"),
    "no such choice": (Declared, {"mask": "hard"}, "m.mask must be one of soft, binary, got 'hard' (soft | binary, default soft: how bins are shared)"),
    "no such member": (Declared, {"mode": "lazy"}, "m.mode must be one of fast, slow, got 'lazy' (fast | slow, default fast)"),
    "a number for a flag": (Declared, {"flag": 1}, "m.flag must be true or false, got 1 (true | false, default false)"),
    "a number for a flag or none": (Declared, {"bounded": 0}, "m.bounded must be true or false or none, got 0 (true | false | none, default none)"),
    "two mistakes are told one at a time": (Declared, {"atoms": 0, "rate": 7.0}, f"m.atoms must be at least 1, got 0 {ATOMS}"),
    "missing": (Needs, {}, "m.steps must be given (int from 1, no default: how many)"),
    "plain word": (Plain, {"rank": "many"}, "m.rank must be a whole number, got 'many' (int, default 3)"),
    "plain truth": (Plain, {"gain": True}, "m.gain must be a number, got True (number, default 1.0)"),
    "plain choice": (Plain, {"mask": "hard"}, "m.mask must be one of soft, binary, got 'hard' (soft | binary, default soft)"),
    "plain numbers": (Plain, {"scales": (1.0, "a")}, "m.scales must be numbers with commas between, got (1.0, 'a') (numbers, default (1.0,))"),
    "kind of the default where the annotation does not hold": (Plain, {"wrong": "x"}, "m.wrong must be a number, got 'x' (number, default 0.5)"),
    "kind of the default where the annotation says nothing": (Plain, {"loose": 3}, "m.loose must be text, got 3 (text, default auto)"),
    "class": (Ordinary, {"rank": 2.5, "needed": 1.0}, "m.rank must be a whole number, got 2.5 (int, default 3)"),
    "class, by its default": (Ordinary, {"odd": "no", "needed": 1.0}, "m.odd must be a whole number, got 'no' (int, default 1)"),
}


@pytest.mark.parametrize(("cls", "settings", "line"), LINES.values(), ids=LINES.keys())
def test_a_wrong_setting_is_one_line_about_it(cls: type, settings: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingError) as caught:
        create("m", cls, settings)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("cls", "settings", "line"),
    [
        (Declared, {"atoms": 99}, "method 'm' refuses its settings: 99 atoms are one too many"),
        (Plain, {"gain": 13}, "method 'm' refuses its settings: 13 brings bad luck"),
        (Ordinary, {}, "method 'm' refuses its settings: Ordinary.__init__() missing 1 required keyword-only argument: 'needed'"),
    ],
)
def test_a_method_s_own_words_are_one_line(cls: type, settings: dict[str, Any], line: str) -> None:
    with pytest.raises(MethodError) as caught:
        create("m", cls, settings)
    assert str(caught.value) == line


def test_an_unknown_setting_is_answered_with_the_nearest() -> None:
    for cls in (Declared, Plain, Ordinary):
        close = {"Declared": "atoms", "Plain": "rank", "Ordinary": "rank"}[cls.__name__]
        with pytest.raises(UnknownNameError, match=f"unknown setting of m '{close}z'; did you mean {close}"):
            create("m", cls, {f"{close}z": 1})
    with pytest.raises(SettingError) as refused:
        create_separator("average", {"gain": 1})
    assert str(refused.value) == "average has no settings, got 'gain'; leave average.gain out ('sepbench list NAME' shows a method's settings)"


def test_values_take_the_form_of_their_kind() -> None:
    given_ = {"levels": 0.3, "pair": [3, 4], "file": "a/b", "words": "one", "mode": "slow", "rate": 0.25, "bounded": True}
    made = create("m", Declared, given_)
    assert (made.levels, made.pair, made.file, made.words, made.mode) == ((0.3,), (3, 4), Path("a/b"), ("one",), Mode.slow)
    plain = create("m", Plain, {"scales": [1, 2.5], "mode": "slow", "gain": 2, "table": {"a": [1]}, "anything": [1], "sloppy": "as before"})
    assert (plain.scales, plain.mode, plain.table, plain.anything, plain.sloppy) == ((1.0, 2.5), Mode.slow, {"a": [1]}, [1], "as before")
    assert create("m", Ordinary, {"path": "x", "needed": 1}).given == (3, Path("x"), 1, 1.0)
    assert checked("m", Plain, {"anything": Plain}) == {"anything": Plain}


def test_a_plain_dataclass_on_a_declared_one_is_told_what_to_do() -> None:
    @dataclasses.dataclass
    class Mine(Declared):
        more: int = 3

    with pytest.raises(MethodError, match=r"method 'm': .*Mine is a plain dataclass based on a pydantic one; decorate it with pydantic"):
        create("m", Mine, {})

    class Renamed(Declared):
        """No decorator: nothing is lost."""

    assert create("m", Renamed, {"atoms": 3}).atoms == 3
    with pytest.raises(SettingError, match=r"m\.atoms must be at least 1"):
        create("m", Renamed, {"atoms": 0})


VALUES = st.one_of(st.integers(-1000, 1000), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none())


@given(VALUES)
def test_what_is_shown_can_be_given(value: object) -> None:
    assert parse_settings([f"m.x={shown(value)}"]) == {"m": {"x": value}}


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5).map(tuple))
def test_numbers_that_are_shown_can_be_given(values: tuple[float, ...]) -> None:
    assert shaped(tuple[float, ...], parse_settings([f"m.x={shown(values)}"])["m"]["x"]) == values


@given(st.one_of(VALUES, st.text(), st.lists(VALUES), st.dictionaries(st.text(), VALUES)), st.sampled_from(list(ROWS)))
def test_any_value_is_taken_or_refused_in_one_line(value: object, name: str) -> None:
    line, made = "", None
    try:
        made = create("m", Declared, {name: value})
    except SepbenchError as error:
        line = str(error)
    if made is None:
        assert "\n" not in line
        assert line.startswith((f"m.{name} must", "method 'm' refuses"))
    else:
        assert settings_of(create("m", Declared, {name: getattr(made, name)})) == settings_of(made)


@pytest.mark.parametrize("name", separator_names())
def test_every_registered_method_is_made_again_from_what_it_records(name: str) -> None:
    recorded = settings_of(create_separator(name))
    assert list(recorded) == setting_names(separator_class(name))
    again = settings_of(create_separator(name, json.loads(json.dumps(recorded))))
    assert again == recorded
    assert {key: type(value) for key, value in again.items()} == {key: type(value) for key, value in recorded.items()}


@pytest.mark.parametrize("name", [name for name in separator_names() if hasattr(separator_class(name), "__pydantic_fields__")])
def test_every_declared_setting_says_what_it_does(name: str) -> None:
    assert not [one.name for one in describe(separator_class(name)) if not one.description or "\n" in one.description]


def test_a_preset_differs_in_its_row_alone() -> None:
    assert PRESETS["basis-ncsn"] is Basis
    ours = settings_of(Basis())
    for name, cls in PRESETS.items():
        assert issubclass(cls, Basis)
        assert (cls.info.name, cls.info.version, cls.info.domains, cls.info.max_batch) == (name, "1", Basis.info.domains, 1024)
        assert inspect.getsourcefile(cls) == inspect.getsourcefile(Basis)
    changed = {name: {key: value for key, value in settings_of(cls()).items() if value != ours[key]} for name, cls in PRESETS.items()}
    assert changed["basis-ncsn-code"] == changed["basis-ncsn-per-class"] == {"delta": 3e-5, "factor": 2.0}
    assert changed["basis-ncsn-10x"] == {"best_of": 10}
    assert settings_of(PRESETS["basis-ncsn-code"](factor=1.5)) == {**ours, "delta": 3e-5, "factor": 1.5}
    assert (PRESETS["basis-ncsn"]().per_class, PRESETS["basis-ncsn-per-class"]().per_class) == (False, True)


def test_a_preset_keeps_bounds_and_descriptions() -> None:
    with pytest.raises(SettingError, match=r"basis-ncsn-code.factor must be above 0, got -1.0 \(number above 0, default 2.0: weight of the likelihood"):
        create_separator("basis-ncsn-code", {"factor": -1.0})


def test_a_preset_that_the_class_does_not_take_is_found_when_it_is_made() -> None:
    with pytest.raises(ValidationError):
        presets(Projected, {"bad": Preset("Bad", "nowhere", "no steps", {"steps": 0})})
    with pytest.raises(ValidationError):
        presets(Projected, {"bad": Preset("Bad", "nowhere", "no such setting", {"stepz": 1})})


def test_values_of_settings() -> None:
    texts = ["a.i=3", "a.f=2e-5", "a.t=true", "a.n=none", "a.w=some words", "a.l=[1, 2]", "b.e=x=y", "a.q='3'"]
    assert parse_settings(texts) == {
        "a": {"i": 3, "f": 2e-5, "t": True, "n": None, "w": "some words", "l": [1, 2], "q": "3"},
        "b": {"e": "x=y"},
    }


@pytest.mark.parametrize("text", ["a", "a=1", "a.b", ".b=1", "a.=1", "=1", ""])
def test_malformed_settings(text: str) -> None:
    with pytest.raises(SepbenchError, match=r"METHOD\.SETTING=VALUE"):
        parse_settings([text])


def test_setting_twice() -> None:
    with pytest.raises(SepbenchError, match="twice"):
        parse_settings(["a.b=1", "a.b=2"])


@dataclasses.dataclass
class Reader:
    files: Any = ""
    mask: Literal["soft", "binary"] = "soft"
    mode: Mode | None = None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two", "soft"):
        Path(name).write_text(name)
    Path("tree/deep").mkdir(parents=True)
    Path("tree/deep/leaf").write_text("leaf")
    return tmp_path


WAYS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "text": (lambda: "one", ("one",)),
    "path": (lambda: Path("one"), ("one",)),
    "commas": (lambda: "one, two,three", ("one", "two")),
    "list": (lambda: ["one", Path("two"), 3], ("one", "two")),
    "tuple of tuples": (lambda: (("one",), ("two",)), ("one", "two")),
    "dict": (lambda: {"a": "one"}, ("one",)),
    "folder": (lambda: "tree", ("tree",)),
    "nothing there": (lambda: "three", ()),
    "no text": (lambda: "", ()),
    "spaces": (lambda: " , ", ()),
    "number": (lambda: 1, ()),
    "no path at all": (lambda: "a\0b", ()),
    "too long": (lambda: "x" * 5000, ()),
}


@pytest.mark.parametrize(("value", "found"), WAYS.values(), ids=WAYS.keys())
def test_files_are_found_however_they_are_given(folder: Path, value: Callable[[], Any], found: tuple[str, ...]) -> None:
    assert tuple(setting_files(Reader, {"files": value()}).get("files", {})) == found


def test_a_file_counts_by_its_content_and_a_word_of_a_choice_is_no_file(folder: Path) -> None:
    before = setting_files(Reader, {"files": "one", "mask": "soft", "mode": Mode.fast})
    assert list(before) == ["files"]
    Path("one").touch()
    assert setting_files(Reader, {"files": "one"}) == before
    Path("one").write_text("uno")
    assert setting_files(Reader, {"files": "one"}) != before


CHANGES: Mapping[str, Callable[[Path], object]] = {
    "content": lambda tree: (tree / "deep/leaf").write_text("foal"),
    "name": lambda tree: (tree / "deep/leaf").rename(tree / "deep/twig"),
    "another file": lambda tree: (tree / "new").write_text(""),
    "place": lambda tree: (tree / "deep/leaf").rename(tree / "leaf"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_folder_counts_by_all_that_is_in_it(folder: Path, change: Callable[[Path], object]) -> None:
    before = setting_files(Reader, {"files": "tree"})
    assert setting_files(Reader, {"files": "tree"}) == before
    change(Path("tree"))
    assert setting_files(Reader, {"files": "tree"}) != before


def test_a_file_that_cannot_be_read_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("sepbench.settings.file_sha256", refuse)
    with pytest.raises(SettingError, match=r"^setting files names one, which cannot be read: permission denied"):
        setting_files(Reader, {"files": "one"})


def test_info_of_a_preset_is_stated_by_its_row() -> None:
    @dataclass(config=STRICT)
    class Small:
        steps: int = Field(3, ge=1, description="how many")
        info: ClassVar[MethodInfo] = MethodInfo("small", "Small", "2", frozenset({"image"}), "prior", "a paper", deterministic=True)

    sounds = Preset("Sounds", "another paper", "why", domains=frozenset({"audio"}))
    table = presets(Small, {"small-9": Preset("Nine", "another paper", "why", {"steps": 9}, "sources"), "small-sounds": sounds})
    assert list(table) == ["small", "small-9", "small-sounds"]
    assert table["small-sounds"].info == dataclasses.replace(Small.info, name="small-sounds", title="Sounds", paper="another paper", domains={"audio"})
    assert table["small-9"].info == dataclasses.replace(Small.info, name="small-9", title="Nine", paper="another paper", supervision="sources")
    assert (table["small-9"]().steps, table["small-9"].__doc__) == (9, "why")


@pytest.mark.parametrize(("word", "value"), [("true", True), ("false", False), ("none", None), ("null", None)])
def test_words_of_every_spelling_are_values(word: str, value: object) -> None:
    for text in (word, word.upper(), word.capitalize()):
        assert parse_settings([f"m.x={text}"]) == {"m": {"x": value}}
        assert parse_settings([f"m.x='{text}'"]) == {"m": {"x": text}}
