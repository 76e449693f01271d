"""Methods that are handed over: which are found by their registered name, what is copied, and when two objects are the same."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from own_methods_toys import Hidden, Misshapes, Raises, Shares, Takes, about

from baselines.average import Average
from sepbench.api.own_methods import _WHAT, hand_over, methods_of, state_sha256
from sepbench.errors import ArgumentError, SepbenchError
from sepbench.protocols import MethodInfo
from sepbench.registry import separator_class


@pytest.mark.parametrize(
    ("given", "names", "handed"),
    [
        ("nmf", ("nmf",), []),
        (("nmf", "ica", "nmf"), ("nmf", "ica", "nmf"), []),
        (Average, ("average",), []),
        (Shares, ("shares",), ["shares"]),
        (Shares(0.2), ("shares",), ["shares"]),
        ([Raises, "nmf", Average, Misshapes()], ("raises", "nmf", "average", "misshapes"), ["raises", "misshapes"]),
        (iter([Shares]), ("shares",), ["shares"]),
        ([], (), []),
    ],
)
def test_registered_classes_go_by_their_name_and_all_others_are_handed_over(given: Any, names: tuple[str, ...], handed: list[str]) -> None:
    found, own = methods_of(given)
    assert found == names
    assert [one.name for one in own] == handed


def test_an_object_of_a_registered_class_is_handed_over_with_what_it_holds() -> None:
    found, (own,) = methods_of(Average())
    assert (found, own.name, own.value) == (("average",), "average", "baselines.average.Average")
    assert isinstance(own.load()(), Average)


class NoName(Takes):
    info: ClassVar[MethodInfo] = about("a,b")

    def separate(self, mixtures: Any, ctx: Any) -> Any: ...


class InfoIsADict(NoName):
    info: ClassVar[Any] = {"name": "toy"}


class OnlyInfo:
    info: ClassVar[MethodInfo] = about("half")


class Late(Takes):
    """Says its info when it is made."""

    def __init__(self) -> None:
        self.info = about("late")

    def separate(self, mixtures: Any, ctx: Any) -> Any: ...


class Asked(NoName):
    """Says its info when it is asked."""

    @property
    def info(self) -> MethodInfo:  # type: ignore[override]
        return about("asked")


class NeitherInfoNorFit:
    def supports(self, task: Any) -> Any: ...

    def separate(self, mixtures: Any, ctx: Any) -> Any: ...


class NoInfo(Takes):
    def separate(self, mixtures: Any, ctx: Any) -> Any: ...


class Taken(NoName):
    info: ClassVar[MethodInfo] = about("nmf")


class Nameless(NoName):
    info: ClassVar[MethodInfo] = about("")


HERE = __name__
WRONG: dict[str, tuple[Any, str]] = {
    "number": (3, f"a method must be {_WHAT}; 3 lacks info, supports, fit, separate of sepbench.protocols.Separator"),
    "class": (OnlyInfo, f"a method must be {_WHAT}; class {HERE}.OnlyInfo lacks supports, fit, separate of sepbench.protocols.Separator"),
    "object": (OnlyInfo(), f"a method must be {_WHAT}; an object of type OnlyInfo lacks supports, fit, separate of sepbench.protocols.Separator"),
    "info": (InfoIsADict(), f"method {HERE}.InfoIsADict: info must be a sepbench.protocols.MethodInfo, got dict"),
    "late": (Late, f"class {HERE}.Late says its info when it is made; hand over an object of it: Late(...)"),
    "asked": (Asked, f"class {HERE}.Asked says its info when it is made; hand over an object of it: Asked(...)"),
    "a class that lacks more": (NeitherInfoNorFit, f"a method must be {_WHAT}; class {HERE}.NeitherInfoNorFit lacks info, fit of sepbench.protocols.Separator"),
    "an object without info": (NoInfo(), f"a method must be {_WHAT}; an object of type NoInfo lacks info of sepbench.protocols.Separator"),
    "taken": (Taken, f"'nmf' is the name of a registered method; give info.name of {HERE}.Taken another name"),
    "an object of a taken name": (Taken(), f"'nmf' is the name of a registered method; give info.name of {HERE}.Taken another name"),
    "nameless": (Nameless(), "info.name must be the method's name, a text; got ''"),
    "name": (NoName, "info.name takes several as a list: info.name=['a', 'b'], not 'a,b'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_method_is_told_in_whole(wrong: str) -> None:
    given, line = WRONG[wrong]
    with pytest.raises(ArgumentError) as refused:
        hand_over(given)
    assert str(refused.value) == line


def test_what_says_its_info_late_is_handed_over_as_an_object() -> None:
    for made in (Late(), Asked()):
        handed = hand_over(made)
        assert (handed.name, handed.value) == (type(made).__name__.lower(), f"{HERE}.{type(made).__name__}")


def test_a_class_is_handed_over_as_it_is() -> None:
    handed = hand_over(Shares)
    assert (handed.name, handed.value, handed.made_by, handed.state) == ("shares", "own_methods_toys.Shares", Shares, "")


def test_one_of_the_classes_of_a_registered_name_is_no_stranger() -> None:
    """``nmf`` has another class for sounds: it is the registered one too."""
    sounds = separator_class("nmf", "audio")
    assert sounds is not separator_class("nmf")
    assert hand_over(sounds).made_by is sounds
    with pytest.raises(ArgumentError, match=r"^two methods of this run are named 'nmf'"):
        methods_of(["nmf", sounds])
    names, (own,) = methods_of(sounds)  # only the first of its classes is what the name means
    assert (names, own.made_by) == (("nmf",), sounds)


@pytest.mark.parametrize("given", [3, None, {"a": Shares}, {Shares}, object()], ids=["number", "None", "dict", "set", "object"])
def test_what_holds_no_methods_is_told(given: Any) -> None:
    with pytest.raises(ArgumentError) as refused:
        methods_of(given)
    assert str(refused.value).startswith(f"methods must be {_WHAT}, or a list of such; got ")


def test_an_empty_name_is_told() -> None:
    with pytest.raises(ArgumentError, match=f"^methods must be {_WHAT}, a text; got ''$"):
        methods_of(["nmf", ""])


def test_the_second_of_a_name_is_refused_whichever_way_it_comes() -> None:
    for given in ([Shares, Shares(0.2)], [Shares(0.2), Shares], [Average, Average], ["average", Average()]):
        name = "shares" if given[-1] is Shares or isinstance(given[-1], Shares) else "average"
        with pytest.raises(ArgumentError) as refused:
            methods_of(given)
        assert str(refused.value) == f"two methods of this run are named {name!r}; give one of them another info.name"


# ---- copies ----------------------------------------------------------------------------------------------------------------------------


def test_what_its_settings_make_again_is_made_of_them_and_shares_nothing() -> None:
    levels = [1.0, 2.0]
    given = Listed(levels)
    handed = hand_over(given)
    assert handed.state == ""  # its settings say all, so nothing else decides which run it is
    made, other = handed.made_by(), handed.made_by()
    assert made.levels == levels
    made.levels.append(3.0)
    assert (given.levels, other.levels, handed.made_by().levels) == ([1.0, 2.0],) * 3


def test_what_hides_something_is_copied_as_it_is_and_shares_nothing() -> None:
    given = Hidden(0.3)
    handed = hand_over(given)
    assert handed.state == state_sha256(given)
    made = handed.made_by()
    assert made is not given
    made.fits = 5
    assert (given.fits, handed.made_by().fits) == (0, 0)
    assert torch.equal(made._share, given._share)


def test_a_setting_that_was_changed_later_is_the_one_that_counts() -> None:
    given = Shares(0.2)
    given.share = 0.9
    assert hand_over(given).made_by().share == 0.9
    given.more = 1  # type: ignore[attr-defined]
    handed = hand_over(given)
    assert handed.state
    assert (handed.made_by().share, handed.made_by().more) == (0.9, 1)


class Listed(NoName):
    """A setting that can be changed in place."""

    info: ClassVar[MethodInfo] = about("listed")

    def __init__(self, levels: list[float]) -> None:
        self.levels = levels

    @property
    def settings(self) -> dict[str, Any]:
        return {"levels": self.levels}


class NotCopied(Hidden):
    info: ClassVar[MethodInfo] = about("not-copied")

    def __deepcopy__(self, memo: object) -> Any:
        raise TypeError("holds a\nlicence")


def test_what_cannot_be_copied_is_one_line_when_it_is_needed() -> None:
    handed = hand_over(NotCopied(0.3))
    with pytest.raises(SepbenchError) as refused:
        handed.made_by()
    assert str(refused.value) == ("method 'not-copied' cannot be copied, which every task needs (TypeError: holds a licence); hand over its class and settings")


# ---- the same or another ---------------------------------------------------------------------------------------------------------------


class Box:
    def __init__(self, **held: Any) -> None:
        self.__dict__.update(held)


class Base:
    __slots__ = ("low",)


class Slotted(Base):
    __slots__ = ("high", "unset")

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high


def layer(bias: float = 0.0, **options: Any) -> torch.nn.Module:
    made = torch.nn.Linear(2, 2, **options)
    torch.nn.init.ones_(made.weight)
    if made.bias is not None:
        torch.nn.init.constant_(made.bias, bias)
    return made


GRID = torch.arange(6.0)
SAME: dict[str, tuple[Any, Any]] = {
    "order of attributes": (Box(a=1, b=2), Box(b=2, a=1)),
    "views of one tensor": (Box(a=GRID.reshape(2, 3).T), Box(a=GRID.reshape(2, 3).T.contiguous())),
    "views of one array": (Box(a=np.arange(6.0).reshape(2, 3).T), Box(a=np.ascontiguousarray(np.arange(6.0).reshape(2, 3).T))),
    "with a gradient": (Box(a=torch.ones(2, requires_grad=True)), Box(a=torch.ones(2))),
    "nothing in it": (Box(a=torch.zeros(0, 3)), Box(a=torch.zeros(0, 3))),
    "slots": (Slotted(1, 2), Slotted(1, 2)),
    "networks": (Box(a=layer()), Box(a=layer())),
    "bfloat16": (Box(a=GRID.bfloat16()), Box(a=GRID.bfloat16())),
    "a number alone": (Box(a=torch.tensor(1.0)), Box(a=torch.tensor(1.0))),
    "an array of objects": (Box(a=np.array([None, "x"], dtype=object)), Box(a=np.array([None, "x"], dtype=object))),
}
OTHER: dict[str, tuple[Any, Any]] = {
    "another name": (Box(a=1), Box(b=1)),
    "another value": (Box(a=1, b=2), Box(a=2, b=1)),
    "one more": (Box(a=1), Box(a=1, b=1)),
    "shape of a tensor": (Box(a=GRID), Box(a=GRID.reshape(2, 3))),
    "shape of an array": (Box(a=np.zeros(4)), Box(a=np.zeros((2, 2)))),
    "type of a tensor": (Box(a=torch.zeros(2, dtype=torch.int32)), Box(a=torch.zeros(2, dtype=torch.float32))),
    "type of an array": (Box(a=np.zeros(2, dtype=np.int32)), Box(a=np.zeros(2, dtype=np.float32))),
    "empty ones": (Box(a=torch.zeros(0, 3)), Box(a=torch.zeros(3, 0))),
    "tensor and array": (Box(a=torch.zeros(2)), Box(a=[0.0, 0.0])),
    "last place of a slot": (Slotted(1, 2), Slotted(1, 3)),
    "slot of a base": (Slotted(1, 2), Slotted(3, 2)),
    "weights": (Box(a=layer()), Box(a=layer(1.0))),
    "kind of network": (Box(a=torch.nn.Sequential(torch.nn.ReLU())), Box(a=torch.nn.Sequential(torch.nn.Tanh()))),
    "an array of objects": (Box(a=np.array([None, "x"], dtype=object)), Box(a=np.array([None, "y"], dtype=object))),
}


@pytest.mark.parametrize("case", SAME)
def test_equal_content_is_the_same_method(case: str) -> None:
    one, other = SAME[case]
    assert state_sha256(one) == state_sha256(other)


@pytest.mark.parametrize("case", OTHER)
def test_other_content_is_another_method(case: str) -> None:
    one, other = OTHER[case]
    assert state_sha256(one) != state_sha256(other)
    assert state_sha256(one) == state_sha256(one)  # and not only because the digest is another one each time
    assert state_sha256(other) == state_sha256(other)
