"""``sepbench validate`` as a user calls it: a broken rule is a row and exit code 1, what cannot be tried at all one line and exit code 2."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from broken_methods import register
from told_places import PLACE, without_place

from sepbench.cli.main import main


def _validate(monkeypatch: pytest.MonkeyPatch, what: str, *options: str) -> int:
    register(monkeypatch, "toy", what)
    monkeypatch.setattr(sys, "argv", ["sepbench", "validate", "toy", *options])
    monkeypatch.setenv("COLUMNS", "250")
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_a_good_method_with_brackets_in_its_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _validate(monkeypatch, "Brackets") == 0
    out = capsys.readouterr().out
    assert "toy on digits-pairs/class-split, quick budget, cpu" in out
    assert "levels [0, 1] in [bold] steps [/x] :x:" in out
    assert " 0 broken" in out


ROWS = {
    "SupportsIsTrue": "supports() must return a sepbench.protocols.Support, got bool",
    "SupportsRaises": "cannot say whether it supports task 'class-split': KeyError",
    "SupportsExits": "cannot say whether it supports task 'class-split': SystemExit: 0",
    "ExitsInFit": "SystemExit: 3",
    "ExitsInSeparate": "SystemExit: [/x] done",
    "ReturnsAnArray": "separate returned ndarray instead of a tensor",
}


@pytest.mark.parametrize(("what", "seen"), ROWS.items(), ids=ROWS.keys())
@pytest.mark.parametrize("options", [(), ("--task", "class-split")], ids=["any task", "named task"])
def test_a_broken_rule_is_a_row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str, seen: str, options: tuple[str, ...]) -> None:
    assert _validate(monkeypatch, what, *options) == 1
    shown = capsys.readouterr()
    assert shown.err == ""
    (row,) = [line for line in shown.out.splitlines() if "BROKEN" in line]
    assert seen in row
    assert " 1 broken" in shown.out


LINES = {
    "RaisesWhenMade": "error: method 'toy' cannot be created: RuntimeError: no licence\n",
    "InfoIsADict": "error: method 'toy': info must be a sepbench.protocols.MethodInfo, got dict\n",
    "InfoRaises": "error: method 'toy' cannot say its info: RuntimeError: no info today\n",
    "NO_METHOD": "error: method 'toy' (broken_methods:NO_METHOD) is of type int; its entry point must name the method's class\n",
    "RefusesAll": "error: toy takes no task of digits-pairs: wants [three] sources; choose another with --suite\n",
}


@pytest.mark.parametrize(("what", "line"), LINES.items(), ids=LINES.keys())
def test_what_cannot_be_tried_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str, line: str) -> None:
    assert _validate(monkeypatch, what) == 2
    shown = capsys.readouterr()
    assert (shown.out, without_place(shown.err)) == ("", line)


@pytest.mark.parametrize(("frames", "code"), [("2", 1), ("6", 0)])
def test_settings_reach_the_method(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], frames: str, code: int) -> None:
    """The toy breaks a rule at one value of its setting and keeps it at another."""
    assert _validate(monkeypatch, "WrongAtTwo", "--set", f"toy.frames={frames}") == code
    assert f"frames is {frames}" in capsys.readouterr().out


SETTINGS = {
    "out of bounds": (("--set", "hpss.frames=0"), "error: hpss.frames must be at least 1, got 0 (int from 1, default 31: "),
    "unknown": (("--set", "hpss.frame=3"), "error: unknown setting of hpss 'frame'; did you mean frames"),
    "of another method": (("--set", "repet.period=3"), "error: --set names method 'repet', but hpss is validated; write --set hpss.SETTING=VALUE"),
    "malformed": (("--set", "frames=3"), "error: --set takes METHOD.SETTING=VALUE"),
}


@pytest.mark.parametrize(("options", "line"), SETTINGS.values(), ids=SETTINGS.keys())
def test_a_wrong_setting_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], line: str) -> None:
    monkeypatch.setattr(sys, "argv", ["sepbench", "validate", "hpss", "--suite", "drums-bass-synth", *options])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    assert (shown.out, len(shown.err.splitlines())) == ("", 1)
    assert shown.err.startswith(line)


@pytest.mark.parametrize("what", ["ExitsInSeparate", "SupportsRaises"])
def test_where_a_method_raised_is_told_and_its_traceback_if_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str) -> None:
    monkeypatch.delenv("SEPBENCH_TRACEBACK", raising=False)
    assert _validate(monkeypatch, what) == 1
    out = capsys.readouterr().out
    assert re.search(PLACE, out)
    assert out.splitlines()[-1] == "SEPBENCH_TRACEBACK=1 shows the whole traceback"
    monkeypatch.setenv("SEPBENCH_TRACEBACK", "1")
    assert _validate(monkeypatch, what) == 1
    out = capsys.readouterr().out
    assert "shows the whole traceback" not in out
    assert re.search(r'broken_methods.py", line \d+, in (separate|supports)', out)


KINDS = {
    "Toy": ("toy", "digits-pairs/class-split"),
    "Sounds": ("toy", "drums-bass-synth/best-assignment"),
    "Vectors": ("toy", "gaussian-exact/d2"),
    "Toy.audio": ("toy.audio", "drums-bass-synth/best-assignment"),  # an implementation of one kind alone
    "OneDomain": ("toy", "digits-pairs/class-split"),
}


@pytest.mark.parametrize(("what", "entry", "where"), [(what, *rest) for what, rest in KINDS.items()], ids=KINDS.keys())
def test_a_method_is_held_against_a_task_of_its_own_signals(monkeypatch: pytest.MonkeyPatch, what: str, entry: str, where: str) -> None:
    did: list[str] = []
    monkeypatch.setattr("sepbench.cli.evaluate.fetch_data_of", lambda task: did.append(f"fetch {task.spec.suite}/{task.spec.name}"))
    monkeypatch.setattr("sepbench.cli.validate._checks", lambda method, task, **options: did.append(f"check {task.spec.suite}/{task.spec.name}") or [])
    register(monkeypatch, entry, what.partition(".")[0])
    monkeypatch.setattr(sys, "argv", ["sepbench", "validate", "toy"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert did == [f"fetch {where}", f"check {where}"]


def test_signals_that_a_method_does_not_separate_break_no_rule(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _validate(monkeypatch, "Sounds", "--suite", "digits-pairs") == 2
    line = "error: toy separates audio signals only, and digits-pairs/class-split has image signals; choose another with --suite\n"
    assert capsys.readouterr() == ("", line)


def test_data_that_are_missing_are_no_fault_of_the_method(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    for name in ("SEPBENCH_DATA", "SEPBENCH_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    assert _validate(monkeypatch, "Sounds", "--suite", "fsdd-pairs") == 2
    shown = capsys.readouterr()
    assert (shown.out, len(shown.err.splitlines())) == ("", 1)
    assert shown.err.startswith("error: data set 'fsdd' is not complete")


def test_images_in_another_range_are_warned_of_below_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _validate(monkeypatch, "Bright") == 0
    shown = capsys.readouterr()
    assert " 0 broken" in shown.out
    line = r"warning: toy on digits-pairs/class-split reaches [\d.]+, and images are in \[0, 1\]: if it returns numbers from 0 to 255, divide by 255 first\n"
    assert re.fullmatch(line, shown.err)
