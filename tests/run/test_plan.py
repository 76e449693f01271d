"""Requests and plans: every name checked, every example in exactly one shard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from broken_methods import register
from hypothesis import given
from hypothesis import strategies as st
from told_places import without_place

from sepbench.errors import MethodError, SepbenchError
from sepbench.protocols import MethodInfo, Support
from sepbench.run import plan as planning
from sepbench.run.plan import Cell, Plan, Shard, check_runnable, checked_metrics, make_plan, planned_examples, repeated_plans, resolve_device
from sepbench.run.request import RunRequest
from sepbench.suites.model import Suite

Planned = Callable[..., Plan]


@given(start=st.integers(0, 300), length=st.integers(1, 2000), unit=st.integers(1, 70), mixtures=st.integers(1, 700), fixed=st.booleans())
def test_pieces_hold_every_mixture_of_a_gap_once_and_end_at_whole_units(digits: Suite, start: int, length: int, unit: int, mixtures: int, fixed: bool) -> None:
    task, info = digits.tasks["class-split"], MethodInfo("m", "M", "1", frozenset({"image"}), "blind", "", True)
    cell = Cell(task, "m", info, {}, "blind", Support(True), start + length, 500, unit, fixed)
    pieces = list(cell.pieces(Shard("t", "m", start, start + length), mixtures))
    assert [e for s in pieces for e in range(s.start, s.stop)] == list(range(start, start + length))
    assert all(s.stop % unit == 0 for s in pieces[:-1])
    assert all(len(s) <= (unit if fixed else max(unit, mixtures)) for s in pieces)


@given(st.integers(1, 100), st.one_of(st.none(), st.integers(1, 200)))
def test_limit_never_asks_for_more_than_there_is(n: int, limit: int | None) -> None:
    assert planned_examples(n, limit) == (n if limit is None else min(n, limit))


def test_default_is_the_suites_methods_on_its_test_tasks(digits: Suite) -> None:
    everything = make_plan(RunRequest("digits-pairs", ("halves",), device="cpu"), digits)
    assert [cell.task.spec.name for cell in everything.cells] == ["class-split", "class-agnostic"]
    assert everything.metrics == digits.metrics
    assert everything.n_planned("class-split") == digits.tasks["class-split"].n_examples


def test_a_method_of_several_domains_is_planned_for_the_suite_s(digits: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "toy", "Toy")
    register(monkeypatch, "toy.audio", "InfoComesWithTheInstance")
    for domain, cls in (("image", "Toy"), ("audio", "InfoComesWithTheInstance")):
        plan = make_plan(RunRequest("digits-pairs", ("toy",), device="cpu"), replace(digits, domain=domain))
        assert plan.methods["toy"].cls.__name__ == cls


def test_a_validation_task_runs_when_named(planned: Planned) -> None:
    plan = planned("halves", tasks=("class-split-val",), limit=None)
    assert [cell.task.split for cell in plan.cells] == ["validation"]


def test_names_given_twice_run_once(planned: Planned) -> None:
    assert len(planned("halves", "noisy", "halves", tasks=("class-split", "class-split")).cells) == 2


def test_cells_go_task_by_task(planned: Planned) -> None:
    plan = planned("halves", "noisy", tasks=("class-agnostic", "class-split"))
    assert [(c.task.spec.name, c.method) for c in plan.cells] == [(t, m) for t in ("class-agnostic", "class-split") for m in ("halves", "noisy")]


def test_one_class_means_no_class_knowledge(planned: Planned) -> None:
    plan = planned("noisy", tasks=("class-split", "class-agnostic"))
    assert [cell.supervision for cell in plan.cells] == ["sources", "prior"]


def test_unsupported_has_its_reason(planned: Planned) -> None:
    plan = planned("picky", "audio-only", tasks=("class-agnostic",))
    assert [cell.support for cell in plan.cells] == [Support(False, "wants two classes"), Support(False, "separates audio signals only")]
    assert planned("picky").cells[0].support == Support(True, "with care")


def test_settings_reach_the_plan_with_all_defaults(planned: Planned) -> None:
    plan = planned("halves", settings={"halves": {"gain": 2}})
    assert plan.cells[0].settings == {"gain": 2}
    assert plan.methods["halves"].settings == {"gain": 2, "rank": 3, "mode": "plain", "fast": False}


BAD = {
    "task": ({"tasks": ("class-splt",)}, "did you mean class-split"),
    "setting": ({"settings": {"halves": {"gian": 1.0}}}, "did you mean gain"),
    "setting of a method that does not run": ({"settings": {"noisy": {"nap": 1.0}}}, "not part of this run"),
    "word for a number": ({"settings": {"halves": {"rank": "many"}}}, r"^halves.rank must be a whole number, got 'many' \(int, default 3\)$"),
    "fraction for a whole number": ({"settings": {"halves": {"rank": 1.5}}}, "halves.rank must be a whole number, got 1.5"),
    "truth for a number": ({"settings": {"halves": {"gain": True}}}, "halves.gain must be a number, got True"),
    "number for a truth": ({"settings": {"halves": {"fast": 1}}}, "halves.fast must be true or false, got 1"),
    "number for a word": ({"settings": {"halves": {"mode": 1}}}, "halves.mode must be text, got 1"),
    "limit": ({"limit": 0}, "--limit must be at least 1"),
    "shards": ({"shard_size": 0}, "--shard-size"),
    "seed": ({"seed": -1}, "--seed"),
    "budget": ({"budget": "huge"}, "--budget"),
    "device": ({"device": "gpu7"}, "unknown device 'gpu7'"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD.keys())
def test_bad_requests_get_one_line(planned: Planned, options: dict[str, object], message: str) -> None:
    with pytest.raises(SepbenchError, match=message) as caught:
        planned("halves", **options)
    assert "\n" not in str(caught.value)


def test_unknown_method(planned: Planned) -> None:
    with pytest.raises(SepbenchError, match="did you mean halves"):
        planned("halfs")


BROKEN = {
    "SupportsIsTrue": "method 'toy': supports() must return a sepbench.protocols.Support, got bool",
    "SupportsIsNone": "method 'toy': supports() must return a sepbench.protocols.Support, got NoneType",
    "SupportsRaises": "method 'toy' cannot say whether it supports task 'class-split': KeyError: 'operator\\nname'",
    "SupportsExits": "method 'toy' cannot say whether it supports task 'class-split': SystemExit: 0",
    "OddKeys": (
        "method 'toy': setting 'table' cannot be written to run.json (TypeError: keys must be str, int, float, bool or None, not tuple); "
        "use numbers, words, lists, or dicts whose keys are words"
    ),
    "MuteSetting": (
        "method 'toy': setting 'thing' cannot be written to run.json (RuntimeError: no words); use numbers, words, lists, or dicts whose keys are words"
    ),
    "SettingsAreNoDict": "method 'toy' cannot say its settings or weights_sha256: TypeError: 'int' object is not iterable",
    "WeightsRaise": "method 'toy' cannot say its settings or weights_sha256: OSError: no such file",
    "OtherName": "method 'toy' calls itself 'toy plain'; its info.name must be that of its entry point, 'toy'",
    "NoBatch": "method 'toy' declares max_batch 'many'; it must be a whole number of at least 1",
    "NoSuchLevel": "method 'toy' declares supervision 'some'; it must be one of blind, mixtures+one, sources, prior, bound",
    "OneDomain": "method 'toy' declares domains 'image'; it must be a frozenset of image, audio, vector",
}


@pytest.mark.parametrize(("what", "message"), BROKEN.items(), ids=BROKEN.keys())
def test_a_method_that_breaks_the_contract_stops_the_plan(monkeypatch: pytest.MonkeyPatch, planned: Planned, what: str, message: str) -> None:
    register(monkeypatch, "toy", what)
    with pytest.raises(MethodError) as caught:
        planned("halves", "toy")
    assert without_place(str(caught.value)) == message


def test_a_setting_given_by_the_user_must_fit_into_the_record(monkeypatch: pytest.MonkeyPatch, planned: Planned) -> None:
    register(monkeypatch, "toy", "OddKeys")
    assert planned("toy", settings={"toy": {"table": {"a": 1}}}).methods["toy"].settings == {"table": {"a": 1}}
    with pytest.raises(MethodError, match="setting 'table' cannot be written"):
        planned("toy", settings={"toy": {"table": {(1, 2): 1}}})


def test_what_a_method_says_of_its_settings_goes_before_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of its own may take "0.5" for 0.5, and need not say all that it was given; what is held for it goes before both."""
    separator: Any = SimpleNamespace(info="info", weights_sha256="a\nb")
    monkeypatch.setattr(planning, "settings_of", lambda made: {"rate": 0.5, "steps": 3, "held": "said"})
    monkeypatch.setattr(planning, "held_state", lambda name: {"held": f"state of {name}"})
    monkeypatch.setattr(planning, "setting_files", lambda cls, settings: {"rate": {cls.__name__: str(settings["rate"])}})
    entry = planning._entry("toy", separator, {"rate": "0.5", "more": 1})
    assert entry.settings == {"rate": 0.5, "more": 1, "steps": 3, "held": "state of toy"}
    assert (entry.info, entry.cls, entry.weights_sha256, entry.files) == ("info", SimpleNamespace, "a b", {"rate": {"SimpleNamespace": "0.5"}})
    with pytest.raises(MethodError) as caught:
        planning._entry("toy", separator, {"word": "half a pair \ud800"})
    assert str(caught.value).startswith("method 'toy': setting 'word' cannot be written to run.json (UnicodeEncodeError: ")
    assert str(caught.value).endswith("); use numbers, words, lists, or dicts whose keys are words")


@pytest.mark.parametrize(("note", "told"), [("two\nlines", "two lines"), ("", "no reason given"), ("\n", "no reason given")])
def test_why_nothing_runs_is_one_line(planned: Planned, note: str, told: str) -> None:
    made = planned("average")
    (cell,) = made.cells
    with pytest.raises(SepbenchError) as caught:
        check_runnable(replace(made, cells=(replace(cell, support=Support(False, note)),)))
    assert str(caught.value) == f"nothing to run: average on class-split: {told}; choose others with --methods, --tasks or --suite"


def test_a_plan_needs_something_to_run(planned: Planned) -> None:
    check_runnable(planned("audio-only", "halves"))
    with pytest.raises(SepbenchError) as caught:
        check_runnable(planned("audio-only"))
    assert str(caught.value) == "nothing to run: audio-only on class-split: separates audio signals only; choose others with --methods, --tasks or --suite"
    with pytest.raises(SepbenchError, match=r"^nothing to run: picky on class-agnostic: wants two classes \(and 1 more\); choose"):
        check_runnable(planned("picky", "audio-only", tasks=("class-agnostic",)))
    with pytest.raises(SepbenchError, match="nothing to run: the suite names no method"):
        check_runnable(replace(planned("halves"), cells=()))


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:x", "cuda:", "cpu:0", "mps", ""])
def test_devices_that_are_not_there(device: str) -> None:
    if torch.cuda.is_available() and device in ("cuda", "cuda:0"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(SepbenchError, match="device"):
        resolve_device(device)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (resolve_device("cpu"), resolve_device("auto")) == ("cpu", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [resolve_device(d) for d in ("auto", "cuda", "cuda:1")] == ["cuda", "cuda", "cuda:1"]
    with pytest.raises(SepbenchError, match="only 2 GPUs"):
        resolve_device("cuda:2")


def test_metrics_are_checked_against_the_signals(digits: Suite) -> None:
    spec = digits.tasks["class-split"].spec
    assert checked_metrics(["ssim", "psnr", "ssim"], [spec]) == ("ssim", "psnr")
    with pytest.raises(SepbenchError, match="unknown metric"):
        checked_metrics(["pnsr"], [spec])
    large = replace(spec, source_shape=(1, 64, 64))
    with pytest.raises(SepbenchError, match="'psnr_pad32' is defined for images up to 32x32, the task has 64x64; leave it out for task 'class-split'"):
        checked_metrics(["psnr", "psnr_pad32"], [spec, large])


def test_repetitions_have_the_seeds_after_the_runs_own(digits: Suite) -> None:
    plan = make_plan(RunRequest("digits-pairs", ("halves", "noisy"), device="cpu", seed=5), digits)
    found = [(kind, repeated.request.seed, repeated.request.fit_seed) for kind, repeated in repeated_plans(plan, digits, seeds=3, fits=2)]
    assert found == [("seeds", 6, 5), ("seeds", 7, 5), ("fits", 5, 6)]


def test_repetitions_keep_the_settings_of_the_methods_that_are_repeated(digits: Suite) -> None:
    settings = {"halves": {"gain": 2.0}, "noisy": {"nap": 0.0}, "counting": {"how": "none"}}
    plan = make_plan(RunRequest("digits-pairs", tuple(settings), device="cpu", limit=3, settings=settings), digits)
    again = replace(plan, request=replace(plan.request, refit=True))
    assert {(kind, one.request.refit) for kind, one in repeated_plans(again, digits, seeds=3, fits=2)} == {("seeds", False), ("fits", True)}
    (repeated,) = (one for _, one in repeated_plans(plan, digits, seeds=2, fits=1))
    assert (list(repeated.methods), repeated.request.settings, repeated.request.limit) == (["noisy"], {"noisy": {"nap": 0.0}}, 3)
    assert [cell.settings for cell in repeated.cells] == [{"nap": 0.0}] * 2
