"""One method against all: whatever it does to the process, the others run as if it were not there."""

from __future__ import annotations

import json
import random
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import careless_methods
import numpy as np
import pandas as pd
import pytest
import torch

from sepbench import registry
from sepbench.cli.main import main

UNAFFECTED = ("double", "elsewhere", "strict", "wanderer", "silent", "meddles", "forks", "seeding", "babbles", "absent", "reuses", "threaded")
FAILING = ("panics", "panicsinfit", "wordless", "quits", "exits", "aborts", "interrupts", "interruptsinfit", "sparse", "generates", "forgets")
NAMES = (*UNAFFECTED, *FAILING, "last")


@pytest.fixture(autouse=True)
def _careless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    classes = {cls.__name__.lower(): cls.__name__ for cls in careless_methods.Plain.__subclasses__()}
    mine = {name: EntryPoint(name, f"careless_methods:{classes[name]}", registry.SEPARATOR_GROUP) for name in NAMES}
    real = registry._separators()
    monkeypatch.setattr(registry, "_separators", lambda: real | mine)
    monkeypatch.chdir(tmp_path)


def _run(monkeypatch: pytest.MonkeyPatch, methods: str, *more: str) -> int:
    asked = ["run", "--suite", "digits-pairs", "--tasks", "class-split", "--limit", "4", "--out", "here", "--methods", methods]
    monkeypatch.setattr(sys, "argv", ["sepbench", *asked, *more])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def _cell(method: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(Path(f"here/cells/class-split--{method}.json").read_text())
    return record


def _draws() -> tuple[float, float, float]:
    return random.random(), np.random.random(), float(torch.rand(1))  # noqa: NPY002


def test_a_run_of_careless_methods_ends_with_everybody_s_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    careless_methods.Last.found.clear()
    assert _run(monkeypatch, "last", "--out", "alone") == 0
    expected = dict(careless_methods.Last.found)
    assert expected.pop("draws")
    board = _scores(monkeypatch, "average")
    assert {name: _cell(name)["state"] for name in NAMES} == dict.fromkeys((*UNAFFECTED, "last"), "done") | dict.fromkeys(FAILING, "failed")
    assert all(_cell(name)["error"].isprintable() and _cell(name)["error"] for name in FAILING)
    found = dict(careless_methods.Last.found)
    assert found.pop("draws")
    assert found == expected
    assert expected["folder"] == str(tmp_path)
    assert board["mean"].notna().all()
    assert len(set(board["mean"])) > 1


def _scores(monkeypatch: pytest.MonkeyPatch, method: str) -> pd.DataFrame:
    """The rows of a method that runs after all the others."""
    assert _run(monkeypatch, ",".join((*NAMES, method))) == 1
    board = pd.read_csv("here/leaderboard.csv")
    assert set(board["method"]) >= {*UNAFFECTED, "last", method}
    return board[board["method"] == method]


def test_global_generators_are_the_same_for_every_method_and_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for methods in ("last", "seeding,last"):
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002
        torch.manual_seed(5)
        assert _run(monkeypatch, methods, "--out", methods) == 0
        found += [careless_methods.Last.found["draws"], _draws()]
    assert found[0] == found[2]
    assert found[1] == found[3]


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("panics", r"Odd: index out of bounds: \udce9\x1b[31m\x00"),
        ("panicsinfit", "Odd"),
        ("wordless", "Mute: a Mute that cannot be shown"),
        ("quits", "SystemExit: 0"),
        ("exits", "ProcessEndedError: called os._exit(3), which would have ended the whole run"),
        ("aborts", "ProcessEndedError: called os.abort(), which would have ended the whole run"),
        ("interrupts", "ProcessEndedError: raised KeyboardInterrupt, which would have ended the whole run as Ctrl-C does"),
        ("interruptsinfit", "ProcessEndedError: raised KeyboardInterrupt, which would have ended the whole run as Ctrl-C does"),
        ("sparse", "ContractError: separate returned a tensor of layout torch.sparse_coo instead of a dense one"),
        ("forgets", "Odd: not fitted"),
    ],
)
def test_exceptions_that_are_none_are_rows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], method: str, error: str) -> None:
    assert _run(monkeypatch, f"{method},average", "--workers", "1") == 1
    place = "" if error.startswith("ContractError") else r" \(careless_methods.py, line \d+\)"
    assert re.fullmatch(re.escape(error) + place, _cell(method)["error"])
    assert _cell("average")["state"] == "done"
    assert "Traceback" not in capsys.readouterr().err


def test_a_tensor_that_a_method_writes_to_again_is_not_scored_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last estimates would be everybody's: a wrong number that nobody notices."""
    assert _run(monkeypatch, "reuses,average") == 0
    board = pd.read_csv("here/leaderboard.csv")
    figures = {method: rows["mean"].tolist() for method, rows in board.groupby("method")}
    assert figures["reuses"] == figures["average"]


def test_a_thread_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, "threaded") == 0
    told = capsys.readouterr().err
    assert "warning: a thread of a method ended with IndexError: list index out of range" in told
    assert "Traceback" not in told


def test_results_are_where_they_were_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert _run(monkeypatch, "wanderer,average") == 0
    assert len(list(tmp_path.rglob("run.json"))) == 1
    assert (tmp_path / "here" / "leaderboard.csv").is_file()
    assert Path.cwd() == tmp_path


def test_odd_words_of_a_method_are_kept_readable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(monkeypatch, "babbles") == 0
    assert _cell("babbles")["prior"] == r"a prior of \udce9"
    assert "[bold]careful[/bold]" in _cell("babbles")["note"]
    for command in (["show", "here"], ["score", "here"], ["check", "here", "--against", "here"]):
        monkeypatch.setattr(sys, "argv", ["sepbench", *command])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
    assert "\x1b[2J" not in capsys.readouterr().out
