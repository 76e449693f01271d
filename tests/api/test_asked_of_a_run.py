"""Every argument of ``sepbench.run``, ``separate`` and ``evaluate`` arrives where it is meant to, and so does every default."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from own_methods_toys import Shares

import sepbench
import sepbench.api.evaluating as evaluating
import sepbench.api.running as running
import sepbench.api.separating as separating
from sepbench.errors import ArgumentError, SepbenchError, UnknownNameError
from sepbench.run.request import RunRequest


class Asked(Exception):
    """Ends a call where what it passes on is known."""


# ---- run -------------------------------------------------------------------------------------------------------------------------------

REQUEST: dict[str, Any] = {
    **{"suite": "digits-pairs", "methods": (), "tasks": (), "limit": None, "device": "auto", "seed": 0, "budget": "paper", "settings": {}},
    **{"keep_estimates": True, "latency": False, "retry_failed": False, "refit": False, "shard_size": None},
}
PLACE: dict[str, Any] = {"out": None, "backend": "local", "workers": "", "seeds": 1, "fits": 1, "watched": False}
GIVEN: dict[str, tuple[Any, str, Any]] = {
    "methods": (["nmf", "ica"], "methods", ("nmf", "ica")),
    "tasks": (["a", "b"], "tasks", ("a", "b")),
    "limit": (7, "limit", 7),
    "seed": (3, "seed", 3),
    "settings": ({"nmf": {"atoms": 8}, "ica": {}}, "settings", {"nmf": {"atoms": 8}, "ica": {}}),
    "out": ("~/a run", "out", Path("/home/somebody/a run")),
    "device": ("cuda:1", "device", "cuda:1"),
    "budget": ("quick", "budget", "quick"),
    "seeds": (4, "seeds", 4),
    "fits": (5, "fits", 5),
    "workers": ("auto", "workers", "auto"),
    "backend": ("ray", "backend", "ray"),
    "refit": (True, "refit", True),
    "retry_failed": (True, "retry_failed", True),
    "keep_estimates": (False, "keep_estimates", False),
    "latency": (True, "latency", True),
    "progress": (True, "watched", True),
    "threads": (3, "threads", 3),
}
CALL: dict[str, str] = {
    **{"methods": "methods=['nmf', 'ica']", "tasks": "tasks=['a', 'b']", "limit": "limit=7", "seed": "seed=3", "device": "device='cuda:1'"},
    **{"settings": "settings={'nmf': {'atoms': 8}, 'ica': {}}", "out": "out='/home/somebody/a run'", "budget": "budget='quick'", "seeds": "seeds=4"},
    **{"fits": "fits=5", "backend": "backend='ray'", "refit": "refit=True", "retry_failed": "retry_failed=True"},
    **{"keep_estimates": "keep_estimates=False", "latency": "latency=True"},
}
"""What the record's command says of an argument; workers, threads and progress change no number and are not said."""


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What ``run`` was about to carry out, and with how many threads."""
    found: list[dict[str, Any]] = []
    used: list[int] = []

    @contextmanager
    def threads(count: int) -> Iterator[None]:
        used.append(count)
        yield

    def stop(request: RunRequest, place: running._Place) -> None:
        told = {name: getattr(request, name) for name in REQUEST} | {name: getattr(place, name) for name in PLACE}
        found.append(told | {"threads": used[-1], "call": running._call(request, place)})
        raise Asked

    monkeypatch.setattr(running, "using_threads", threads)
    monkeypatch.setattr(running, "_carried_out", stop)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("HOME", "/home/somebody")
    return found


@pytest.mark.parametrize("name", ["", *GIVEN])
def test_an_argument_changes_what_it_is_called_after_and_nothing_else(carried: list[dict[str, Any]], name: str) -> None:
    given, place, value = GIVEN[name] if name else (None, "suite", "digits-pairs")
    with pytest.raises(Asked):
        sepbench.run("digits-pairs", **({name: given} if name else {}))
    said = f", {CALL[name]}" if name in CALL else ""
    assert carried[0] == REQUEST | PLACE | {"threads": 2} | {place: value} | {"call": f"sepbench.run('digits-pairs'{said})"}


def test_every_argument_is_here_and_the_order_of_the_call_is_fixed(carried: list[dict[str, Any]]) -> None:
    assert {*inspect.signature(sepbench.run).parameters} == {"suite", *GIVEN}
    with pytest.raises(Asked):
        sepbench.run("digits-pairs", **{name: given for name, (given, *_) in GIVEN.items()})
    order = ("methods", "tasks", "limit", "device", "seed", "budget", "settings", "refit", "retry_failed", "keep_estimates", "latency", "out", "seeds", "fits")
    assert carried[0]["call"] == f"sepbench.run('digits-pairs', {', '.join(CALL[name] for name in (*order, 'backend'))})"


def test_the_settings_that_are_given_are_copied(carried: list[dict[str, Any]]) -> None:
    given = {"nmf": {"atoms": 8}}
    with pytest.raises(Asked):
        sepbench.run("digits-pairs", settings=given)
    given["nmf"]["atoms"] = 9
    assert carried[0]["settings"] == {"nmf": {"atoms": 8}}


@pytest.mark.parametrize(("workers", "told"), [(None, ""), (1, "1"), ("auto", "auto"), (np.int64(3), "3")])
def test_workers_are_a_word_as_on_the_command_line(carried: list[dict[str, Any]], workers: Any, told: str) -> None:
    with pytest.raises(Asked):
        sepbench.run("digits-pairs", workers=workers)
    assert (carried[0]["workers"], type(carried[0]["workers"])) == (told, str)


OWN = "needs methods that other processes can import, and 'shares' (own_methods_toys.Shares) was handed over as a class or an object: register it by an "
OWN += "entry point of the group 'sepbench.separators' (`sepbench new-method` writes one), or "


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"workers": 2}, f"workers=2 {OWN}leave workers at 1"),
        ({"workers": "auto"}, f"workers='auto' {OWN}leave workers at 1"),
        ({"backend": "ray"}, f"backend='ray' {OWN}leave backend at 'local'"),
        ({"workers": "3"}, "workers must be a whole number of at least 1, got '3'"),
        ({"workers": 0}, "workers must be a whole number of at least 1, got 0"),
        ({"backend": ""}, "backend must be local, ray or the name of a registered one, a text; got ''"),
        ({"settings": {"nmf": {3: 4}}}, "settings must be a dict, method -> setting -> value, such as {'nmf': {'atoms': 8}}; got 'nmf': {3: 4}"),
        ({"settings": {3: {}}}, "settings must be a dict, method -> setting -> value, such as {'nmf': {'atoms': 8}}; got 3: {}"),
        ({"settings": 3}, "settings must be a dict, method -> setting -> value, such as {'nmf': {'atoms': 8}}; got 3"),
        ({"tasks": 3}, "tasks must be a task's name, or a list of such; got 3"),
        ({"device": 1}, "device must be 'cpu', 'cuda', 'cuda:N' or 'auto', got 1"),
        *(({name: "no"}, f"{name} must be True or False, got 'no'") for name in ("refit", "retry_failed", "keep_estimates", "latency", "progress")),
    ],
)
def test_what_a_run_cannot_take_is_told_in_whole(carried: list[dict[str, Any]], options: dict[str, Any], line: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        sepbench.run("digits-pairs", methods=Shares, **options)
    assert str(refused.value) == line
    assert carried == []


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": None}, {"backend": "local"}])
def test_own_methods_are_taken_where_nobody_else_works(carried: list[dict[str, Any]], options: dict[str, Any]) -> None:
    with pytest.raises(Asked):
        sepbench.run("digits-pairs", methods=Shares, **options)
    assert carried[0]["methods"] == ("shares",)


def test_settings_of_a_method_that_does_not_run_are_refused() -> None:
    for methods, line in ((("average",), "unknown method of settings 'nmf'; known: average"), ((), "unknown method of settings 'nnmf'; did you mean nmf")):
        with pytest.raises(UnknownNameError) as refused:
            sepbench.run("digits-pairs", methods=methods, settings={"nmf" if methods else "nnmf": {}})
        assert str(refused.value).startswith(line)


@pytest.mark.parametrize("progress", [True, False])
def test_data_are_fetched_with_bars_where_bars_are_wanted(monkeypatch: pytest.MonkeyPatch, progress: bool) -> None:
    def stop(plan: Any, fetching: Any) -> None:
        assert fetching is (running.fetch_with_progress if progress else running.fetch)
        raise Asked

    monkeypatch.setattr(running, "prepare", stop)
    with pytest.raises(Asked):
        sepbench.run("digits-pairs", methods="average", tasks="class-split", progress=progress)


def _cell(state: str, failed: int) -> Any:
    spec = SimpleNamespace(spec=SimpleNamespace(name="class-split"))
    return SimpleNamespace(method="toy", task=spec), SimpleNamespace(state=state, n_failed=failed, n_planned=2000, error="ValueError: odd")


@pytest.mark.parametrize(
    ("cell", "line"),
    [
        (_cell("failed", 2000), "toy on class-split failed: ValueError: odd; Run.cells has the traceback"),
        (_cell("done", 1200), "toy on class-split: 1,200 of 2,000 mixtures failed, the first with ValueError: odd; retry_failed=True tries them again"),
        (_cell("done", 0), ""),
        (_cell("unsupported", 0), ""),
    ],
    ids=["failed", "some", "done", "unsupported"],
)
@pytest.mark.parametrize("last", [True, False])
def test_what_failed_is_told_and_only_the_last_plan_writes_the_board(monkeypatch: pytest.MonkeyPatch, cell: Any, line: str, last: bool) -> None:
    finished: list[Any] = []
    monkeypatch.setattr(running, "finish", lambda *given: finished.append(given))

    def record_run(plan: Any, record: Any, folder: Any, progress: Any, team: Any, then: Any) -> Any:
        assert (plan, record, folder, team) == ("plan", "record", "folder", "team")
        then("store")
        return SimpleNamespace(cells=[cell])

    told: list[str] = []
    monkeypatch.setattr(running, "record_run", record_run)
    monkeypatch.setattr(running, "tell", told.append)
    place = running._Place(None, "local", "", 1, 1, False)
    running._record("plan", "record", "folder", "team", place, "suite", last=last)  # type: ignore[arg-type]
    assert told == [line] * bool(line)
    assert finished == [("store", "suite")] * last


# ---- separate --------------------------------------------------------------------------------------------------------------------------

MIXTURES = torch.ones(2, 1, 8, 8)
TASK = "digits-pairs/class-split"


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        ({}, {}),
        ({"settings": {"atoms": 3}}, {"settings": {"nmf": {"atoms": 3}}}),
        ({"settings": {}}, {}),
        ({"seed": 5}, {"seed": 5}),
        ({"budget": "quick"}, {"budget": "quick"}),
    ],
)
def test_separate_asks_for_the_run_that_it_is_part_of(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], differs: dict[str, Any]) -> None:
    asked: list[Any] = []

    def stop(request: RunRequest, suite: Any) -> None:
        asked.append((request, suite))
        raise Asked

    monkeypatch.setattr(separating, "make_plan", stop)
    with pytest.raises(Asked):
        sepbench.separate("nmf", MIXTURES, task=TASK, device="cpu", **options)
    ((request, suite),) = asked
    wanted = REQUEST | {"methods": ("nmf",), "tasks": ("class-split",), "device": "cpu"} | differs
    assert {name: getattr(request, name) for name in REQUEST} == wanted
    assert (suite.name, list(suite.tasks), suite.domain) == ("digits-pairs", ["class-split"], "image")


@pytest.mark.parametrize(("options", "count"), [({}, 2), ({"threads": 3}, 3)])
def test_separate_uses_the_threads_that_it_is_told(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], count: int) -> None:
    used: list[int] = []

    @contextmanager
    def threads(wanted: int) -> Iterator[None]:
        used.append(wanted)
        yield

    monkeypatch.setattr(separating, "using_threads", threads)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    sepbench.separate("average", MIXTURES, operator="sum", n_sources=2, device="cpu", **options)
    assert used == [count]


# ---- evaluate --------------------------------------------------------------------------------------------------------------------------

ARRAY = np.zeros((3, 2, 1, 8, 8), np.float32)
DEFAULTS: dict[str, Any] = {
    **{"suite": "digits-pairs", "task": "class-split", "name": "mine", "out": None, "supervision": "", "limit": None, "partial": False},
    **{"allow_clipped": False, "keep_estimates": True, "device": "cpu"},
}
OTHERS: dict[str, tuple[Any, Any]] = {
    "suite": ("fsdd-noise", "fsdd-noise"),
    "name": ("other", "other"),
    "out": ("~/x", Path("/home/somebody/x")),
    "supervision": ("prior", "prior"),
    "limit": (np.int64(3), 3),
    "partial": (True, True),
    "allow_clipped": (True, True),
    "keep_estimates": (False, False),
    "device": ("cuda", "cuda"),
}


@pytest.mark.parametrize("name", ["", *OTHERS])
@pytest.mark.parametrize("form", ["array", "tensor", "text", "path"])
def test_evaluate_hands_on_each_argument_by_itself(monkeypatch: pytest.MonkeyPatch, name: str, form: str) -> None:
    found: list[dict[str, Any]] = []
    signature = inspect.signature(evaluating.evaluate_estimates)

    def stop(*given: Any, **named: Any) -> None:
        found.append(dict(signature.bind(*given, **named).arguments))
        raise Asked

    fetched: list[str] = []
    monkeypatch.setattr(evaluating, "evaluate_estimates", stop)
    monkeypatch.setattr(evaluating, "fetch", lambda manifest: fetched.append(manifest.name))
    monkeypatch.setenv("HOME", "/home/somebody")
    estimates: Any = {"array": ARRAY, "tensor": torch.from_numpy(ARRAY), "text": "~/a.npy", "path": Path("~/a.npy")}[form]
    given, value = OTHERS[name] if name else ("digits-pairs", "digits-pairs")
    call: dict[str, Any] = {"suite": "digits-pairs", "task": "class-split", "name": "mine"} | {name or "suite": given}
    if name == "suite":
        call["task"] = "pink"
    with pytest.raises(Asked):
        sepbench.evaluate(call.pop("suite"), estimates=estimates, **call)
    wanted = DEFAULTS | {name or "suite": value} | ({"task": "pink"} if name == "suite" else {})
    assert {key: found[0][key] for key in DEFAULTS} == wanted
    by_path = form in ("text", "path")
    assert found[0]["estimates"] == Path("/home/somebody/a.npy") if by_path else found[0]["estimates"] is estimates
    what = "'/home/somebody/a.npy'" if by_path else "an array of shape (3, 2, 1, 8, 8)"
    told = f"sepbench.evaluate({wanted['suite']!r}, task={wanted['task']!r}, estimates={what}, name={wanted['name']!r})"
    assert found[0]["command"] == told
    assert found[0]["warn"] is evaluating.tell
    assert fetched == (["fsdd"] if name == "suite" else ["digits"])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"name": "a,b"}, "name takes several as a list: name=['a', 'b'], not 'a,b'"),
        ({"task": ""}, "task must be a task's name, a text; got ''"),
        ({"limit": 0}, "limit must be a whole number of at least 1, got 0"),
        ({"out": 3}, "out must be a path, got 3"),
        ({"estimates": ""}, "estimates must be a path, got ''"),
        *(({flag: 1}, f"{flag} must be True or False, got 1") for flag in ("partial", "allow_clipped", "keep_estimates")),
    ],
)
def test_what_evaluate_cannot_take_is_told_in_whole(options: dict[str, Any], line: str) -> None:
    with pytest.raises(SepbenchError) as refused:
        sepbench.evaluate("digits-pairs", **({"task": "class-split", "estimates": ARRAY, "name": "mine"} | options))
    assert str(refused.value) == line
