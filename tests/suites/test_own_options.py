"""Options of ``new-suite`` that do not go with the files, and the names of classes; what a method that is handed over must be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sepbench.api.own_methods import hand_over, methods_of
from sepbench.errors import SepbenchError, SuiteError
from sepbench.registry import create_separator
from sepbench.suites.own import OwnSuite, _check_kind, _class_names

ASKED = OwnSuite("own", (Path("a"), Path("b")))


@pytest.mark.parametrize(
    ("domain", "changes", "told"),
    [
        ("image", {"rate": 8_000, "snr_db": 3.0}, "the folders hold images; leave out --rate, --snr"),
        ("image", {"seconds": 1.0}, "leave out --seconds"),
        ("image", {"operator": "gain"}, "leave out --operator gain"),
        ("audio", {"size": 8}, "the folders hold sounds; leave out --size"),
        ("audio", {"snr_db": 3.0, "operator": "mean"}, "--snr goes with --operator gain, not with mean"),
        ("audio", {"snr_db": 1e9}, "to .* dB, got 1e\\+09"),
        ("audio", {"snr_db": float("nan")}, "dB, got nan"),
    ],
)
def test_options_of_the_other_kind(domain: Any, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SuiteError, match=told):
        _check_kind(replace(ASKED, **changes), domain)
    _check_kind(ASKED, domain)
    _check_kind(replace(ASKED, size=8, operator="mean"), "image")
    _check_kind(replace(ASKED, rate=8_000, seconds=1.0, snr_db=-3.0, operator="gain"), "audio")


def test_names_of_classes() -> None:
    assert _class_names([Path("x/Große Trommeln (1)"), Path("y/__Ärger__")]) == ["groe-trommeln-1", "arger"]
    assert _class_names([Path("x/a"), Path("y/A"), Path("z/b")]) == ["a-0", "a-1", "b"]
    assert _class_names([Path("x/b"), Path("x/太鼓")]) == ["b", "source-1"]


AVERAGE = create_separator("average")


@dataclass
class _Mine:
    info: ClassVar[Any] = replace(AVERAGE.info, name="mine")
    level: float = 1.0

    def supports(self, task: object) -> object: ...
    def fit(self, view: object, ctx: object) -> None: ...
    def separate(self, mixtures: object, ctx: object) -> object: ...


class _Late(_Mine):
    @property
    def info(self) -> Any:  # type: ignore[override]
        return replace(AVERAGE.info, name="late")


def test_methods_are_found_by_their_names() -> None:
    names, own = methods_of(["average", _Mine, _Late()])
    assert names == ("average", "mine", "late")
    assert [one.name for one in own] == ["mine", "late"]
    assert methods_of("nmf") == (("nmf",), [])
    assert methods_of(_Mine)[0] == ("mine",)
    again = hand_over(_Mine(3.0)).made_by()
    assert isinstance(again, _Mine)
    assert again.level == 3.0
    assert methods_of([type(AVERAGE)])[1] == []  # the registered class itself


def test_what_is_no_method_is_named() -> None:
    class Halfway:
        info = _Mine.info

        def supports(self, task: object) -> object: ...

    class Odd(_Mine):
        info = 3

    class Taken(_Mine):
        info = replace(AVERAGE.info, name="nmf")

    for method, told in (
        (_Late, r"_Late says its info when it is made; hand over an object of it: _Late\(\.\.\.\)"),
        (Halfway, "class .*Halfway lacks fit, separate of"),
        (Odd, "Odd: info must be a sepbench.protocols.MethodInfo, got int"),
        (Taken, "'nmf' is the name of a registered method; give info.name of .*Taken another name"),
    ):
        with pytest.raises(SepbenchError, match=told):
            hand_over(method)
    with pytest.raises(SepbenchError, match="two methods of this run are named 'mine'"):
        methods_of([_Mine, _Mine()])
