"""Separating mixtures of one's own without a method that does anything: what it is told, in which batches, and what cannot be taken."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sepbench.api import separating
from sepbench.errors import ArgumentError, MethodError, UnsupportedTaskError
from sepbench.protocols import MethodInfo, Support, TaskSpec
from sepbench.suites.loader import load_suite


def given(values: torch.Tensor, ids: Any = None, **facts: Any) -> Any:
    known = {"method": "m", "settings": {}, "seed": 3, "budget": "quick", "device": "cpu"}
    return separating._Given(**(known | {"values": values, "ids": ids} | facts))


# ---- what a method is told -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "operator", "rate", "domain", "source"),
    [
        ((5, 7), "sum", None, "vector", (7,)),
        ((5, 2, 400), "mean", 8_000, "audio", (2, 400)),
        ((5, 1, 6, 8), "sum", None, "image", (1, 6, 8)),
        ((5, 3, 6, 8), "mean", None, "image", (3, 6, 8)),
        ((5, 1, 6, 8), "channel-mean", None, "image", (3, 6, 8)),
    ],
)
def test_the_axes_say_what_is_separated(shape: tuple[int, ...], operator: str, rate: int | None, domain: Any, source: tuple[int, ...]) -> None:
    found = separating._spec(torch.zeros(shape), operator, 3, rate)
    classes, slots = ("any", "any", "any"), (0, 1, 2)
    assert found == TaskSpec("own", "mixtures", domain, 3, source, operator, classes, "permutation", slots, sample_rate=rate)


@pytest.mark.parametrize("rate", [0, -1, 8000.0, True])
def test_a_sample_rate_is_a_whole_number(rate: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^sample_rate must be a whole number of at least 1, got "):
        separating._spec(torch.zeros(1, 1, 9), "sum", 2, rate)


class Method:
    """Writes down what it is asked; halves what it is given."""

    def __init__(self, **facts: Any) -> None:
        known: dict[str, Any] = {"domains": frozenset({"image", "vector"}), "supervision": "blind", "max_batch": 5, "max_batch_cpu": 3}
        known |= facts
        self.info = MethodInfo("m", "M", "1", paper="", deterministic=True, **known)
        self.did: list[Any] = []

    def supports(self, task: TaskSpec) -> Support:
        return Support(True)

    def fit(self, view: Any, ctx: Any) -> None:
        self.did.append(("fit", view.supervision, ctx.device, ctx.seed, ctx.budget, ctx.noise.seed if hasattr(ctx.noise, "seed") else None))

    def separate(self, mixtures: Any, ctx: Any) -> torch.Tensor:
        self.did.append(mixtures.example_ids.tolist())
        return mixtures.operator.pseudo_inverse(mixtures.values)  # type: ignore[no-any-return]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(**facts: Any) -> Method:
        method = Method(**facts)
        monkeypatch.setattr(separating, "create_separator", lambda name, settings, domain: method)
        monkeypatch.setattr(separating, "ask_support", lambda name, separator, spec, device: Support(True))
        return method

    return make


@pytest.mark.parametrize(
    ("facts", "device", "batches"),
    [
        ({}, "cpu", [[0, 1, 2], [3, 4, 5], [6]]),
        ({"max_batch_cpu": None}, "cpu", [[0, 1, 2, 3, 4], [5, 6]]),
        ({}, "meta", [[0, 1, 2, 3, 4], [5, 6]]),
    ],
    ids=str,
)
def test_batches_are_as_large_as_the_method_takes_on_this_device(
    made: Any, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], device: str, batches: list[list[int]]
) -> None:
    method = made(**facts)
    monkeypatch.setattr(separating, "checked_call", lambda separator, mixed, ctx: (separator.separate(mixed, ctx), mixed.values.device.type == device))
    monkeypatch.setattr(torch.Tensor, "isfinite", lambda values: torch.ones(values.shape, dtype=torch.bool))
    found = separating._stated(given(torch.ones(7, 4), device=device), "sum", 2, None)
    assert found.shape == (7, 2, 4)
    assert method.did[1:] == batches
    assert method.did[0][:5] == ("fit", "blind", device, 3, "quick")


def test_mixtures_keep_their_numbers_and_each_its_own_operator(made: Any) -> None:
    method = made()
    separating._stated(given(torch.ones(4, 4), [7, 5, 9, 5]), "sum", 2, None)
    assert method.did[1:] == [[7, 5, 9], [5]]
    chosen: list[list[int]] = []
    operator: Any = SimpleNamespace(select=lambda rows: chosen.append(rows.tolist()) or SimpleNamespace(pseudo_inverse=lambda values: values[:, None]))
    ctx: Any = SimpleNamespace(device="cpu", task=SimpleNamespace(domain="vector", posterior_draws=0, n_sources=1, source_shape=(4,)))
    values = torch.arange(16.0).reshape(4, 4)
    found = separating._estimates(given(values), method, ctx, torch.tensor([7, 5, 9, 5]), operator, 3)
    assert chosen == [[0, 1, 2], [3]]
    assert torch.equal(found[:, 0], values)


def test_the_first_estimate_that_is_not_finite_is_named_by_its_place(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    method = made()

    def spoilt(mixtures: Any, ctx: Any) -> torch.Tensor:
        estimates = mixtures.values[:, None].repeat(1, 2, 1)
        estimates[mixtures.example_ids >= 8, 1, 2] = torch.inf
        return estimates

    monkeypatch.setattr(method, "separate", spoilt)
    with pytest.raises(MethodError) as refused:
        separating._stated(given(torch.ones(6, 4), [0, 1, 2, 3, 8, 9]), "sum", 2, None)
    assert str(refused.value) == "method 'm': the estimate of mixture 4 holds values that are not finite"


# ---- what cannot be taken --------------------------------------------------------------------------------------------------------------

HOW = "mixtures must be a tensor or array of floating-point numbers, images (B, C, H, W), sounds (B, channels, T) or vectors (B, D)"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (torch.zeros(3), f"{HOW}; got shape (3,)"),
        (torch.zeros(1, 1, 1, 1, 1), f"{HOW}; got shape (1, 1, 1, 1, 1)"),
        (torch.zeros(2, 0), f"{HOW}; got shape (2, 0)"),
        (torch.zeros(2, 2, dtype=torch.complex64), f"{HOW}; got a tensor of complex64"),
        (torch.zeros(2, 2, dtype=torch.bool), f"{HOW}; got a tensor of bool"),
        (np.zeros((2, 2), bool), f"{HOW}; got an array of bool"),
        (np.zeros((2, 2), complex), f"{HOW}; got an array of complex128"),
        (None, f"{HOW}; got None"),
        (torch.tensor([[1.0, 2.0], [3.0, torch.inf], [torch.nan, 0.0]]), "mixture 1 holds values that are not finite"),
        (torch.tensor([[1e300, 1.0]], dtype=torch.float64), "mixture 0 holds values that are not finite"),  # as float32
    ],
    ids=str,
)
def test_what_is_no_mixture_is_told_in_whole(values: Any, line: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        separating._values(values)
    assert str(refused.value) == line


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16, torch.float32])
def test_mixtures_are_copied_as_float32_in_order(kind: torch.dtype) -> None:
    theirs = torch.arange(6.0).reshape(2, 3).to(kind).T.requires_grad_()
    ours = separating._values(theirs)
    assert (ours.dtype, ours.is_contiguous(), ours.requires_grad) == (torch.float32, True, False)
    assert ours.tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    ours += 1
    assert theirs[0, 0] == 0
    array = np.zeros((2, 2), np.float32)
    separating._values(array)[0, 0] = 5.0
    assert array[0, 0] == 0


def test_numbers_of_mixtures_are_those_of_the_task_where_there_is_one() -> None:
    two, task = torch.zeros(2, 4), load_suite("digits-pairs").task("class-split")
    assert separating._ids(given(two), task).tolist() == [0, 1]
    assert separating._ids(given(two, [999, 3]), task).tolist() == [999, 3]
    with pytest.raises(ArgumentError, match=r"from 0 to 999 \(task 'class-split' has 1,000 mixtures\), got 1000"):
        separating._ids(given(two, [1000, 3]), task)
    assert separating._ids(given(two, [1 << 61, 3]), None).tolist() == [1 << 61, 3]  # any that are told apart
    for ids in ([1], [1, 2, 3]):
        with pytest.raises(ArgumentError) as refused:
            separating._ids(given(two, ids), task)
        assert str(refused.value) == f"ids names {len(ids)} examples, and there are 2 mixtures; name one for each"


@pytest.mark.parametrize(
    ("facts", "support", "line"),
    [
        ({"supervision": "bound"}, Support(True), "m is handed the true sources: name a task that has them, task='SUITE/TASK'"),
        ({"supervision": "prior"}, Support(True), "m learns from training data (level 'prior'): name a task that has them, task='SUITE/TASK'"),
        ({"domains": frozenset({"vector", "audio"})}, Support(True), "m separates audio, vector signals only, and these are of kind image"),
        ({}, Support(False, "needs two channels"), "m does not take these mixtures: needs two channels"),
    ],
)
def test_methods_that_cannot_do_without_a_task_are_told(made: Any, monkeypatch: pytest.MonkeyPatch, facts: Any, support: Support, line: str) -> None:
    made(**facts)
    asked: list[Any] = []
    monkeypatch.setattr(separating, "ask_support", lambda name, separator, spec, device: asked.append((name, spec.domain, device)) or support)
    with pytest.raises(UnsupportedTaskError) as refused:
        separating._stated(given(torch.ones(2, 1, 4, 4)), "sum", 2, None)
    assert str(refused.value) == line
    assert asked == ([] if support.ok else [("m", "image", "cpu")])


@pytest.mark.parametrize(
    ("operator", "n_sources", "line"),
    [
        (None, 2, "say how the mixtures were made: task='SUITE/TASK', or operator= and n_sources="),
        ("sum", None, "say how the mixtures were made: task='SUITE/TASK', or operator= and n_sources="),
        ("gain", 2, "gains belong to the examples of a task: name task= and ids="),
    ],
)
def test_what_is_stated_by_halves_is_told_in_whole(operator: str | None, n_sources: int | None, line: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        separating._stated(given(torch.ones(2, 4)), operator, n_sources, None)
    assert str(refused.value) == line


@pytest.mark.parametrize("task", ["class-split", "/class-split", "digits-pairs/", "/", 3])
def test_a_task_is_named_with_its_suite(task: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^task must be 'SUITE/TASK'"):
        separating._task(task)


def test_a_suite_s_file_may_lie_in_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(separating, "load_suite", lambda name: SimpleNamespace(task=lambda task: asked.append((name, task))))
    separating._task("my/own/suite.toml/a-task")
    assert asked == [("my/own/suite.toml", "a-task")]


@pytest.mark.parametrize(("shape", "hint"), [((4, 1, 9, 9), ""), ((1, 8, 8), " (a single mixture needs a batch axis too: mixtures[None])"), ((1, 8), "")])
def test_mixtures_of_another_shape_are_told(shape: tuple[int, ...], hint: str) -> None:
    task = load_suite("digits-pairs").task("class-split")
    with pytest.raises(ArgumentError) as refused:
        separating._check_shape(torch.zeros(shape), task.spec, task.mixture_set().operator_for([0]), "here")
    assert str(refused.value) == f"here has mixtures of shape (B, 1, 8, 8), got {shape}{hint}"


# ---- with a task -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A task of gains whose method is not fitted; what the operators were asked for, and what was to be estimated."""
    task = load_suite("digits-pairs").task("class-split")

    def make(operator: str = "gain", level: str = "blind", note: str = "", ok: bool = True) -> tuple[Any, list[Any]]:
        asked: list[Any] = []
        own: Any = task.mixture_set()

        def operator_for(ids: Any) -> Any:
            asked.append([int(one) for one in ids])
            return own.operator_for([0])

        spec = replace(task.spec, operator=operator)
        cell = SimpleNamespace(support=Support(ok, note), supervision=level, batch=6)
        stand_in: Any = SimpleNamespace(spec=spec, n_examples=task.n_examples, mixture_set=lambda: SimpleNamespace(operator_for=operator_for))
        monkeypatch.setattr(separating, "make_plan", lambda request, suite: SimpleNamespace(cells=(cell,)))
        monkeypatch.setattr(separating, "_alone", lambda task: None)
        session = SimpleNamespace(separator="separator", ctx="ctx")
        monkeypatch.setattr(separating, "open_session", lambda one, plan, mixture_set, tell: session if one is cell and tell is separating._told else None)
        monkeypatch.setattr(separating, "_estimates", lambda given, separator, ctx, ids, operator, batch: (separator, ctx, ids.tolist(), batch))
        return stand_in, asked

    return make


def test_gains_are_those_of_the_examples_that_are_named(opened: Any) -> None:
    task, asked = opened()
    found: Any = separating._of_task(given(torch.ones(2, 1, 8, 8), [4, 2]), task)
    assert found == ("separator", "ctx", [4, 2], 6)
    assert asked == [[4, 2], [0]]
    task, asked = opened("sum")
    found = separating._of_task(given(torch.ones(2, 1, 8, 8)), task)
    assert found == ("separator", "ctx", [0, 1], 6)
    assert asked == [[0, 0], [0]]  # unnamed, there may be more of them than examples


@pytest.mark.parametrize(
    ("facts", "kind", "line"),
    [
        (
            {},
            ArgumentError,
            "digits-pairs/class-split mixes every example with gains of its own: say which of its examples these mixtures are, ids=...",
        ),
        ({"level": "bound"}, ArgumentError, "m is handed the true sources: say which of its examples these mixtures are, ids=..."),
        ({"ok": False, "note": "sounds only"}, UnsupportedTaskError, "m does not take digits-pairs/class-split: sounds only"),
    ],
)
def test_mixtures_that_have_to_be_named_and_tasks_that_are_not_taken(opened: Any, facts: Any, kind: type[Exception], line: str) -> None:
    task, _ = opened(**facts)
    with pytest.raises(kind) as refused:
        separating._of_task(given(torch.ones(2, 1, 8, 8)), task)
    assert str(refused.value) == line


def test_only_warnings_of_a_fit_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(separating, "tell", told.append)
    separating._told(separating.Tell(stage="fit", fraction=0.5))
    separating._told(separating.Tell(warning="careful"))
    assert told == ["careful"]


@pytest.mark.parametrize("seed", [3, 2**40])
def test_a_method_without_a_task_draws_by_the_seed_that_was_given(made: Any, seed: int) -> None:
    """The seed is the key of its noise and of what it draws while it is fitted."""
    method = made()
    separating._stated(given(torch.ones(2, 4), seed=seed), "sum", 2, None)
    assert method.did[0] == ("fit", "blind", "cpu", seed, "quick", seed)
